"""Before the computing: what the run will take, and a refusal with numbers where this computer cannot give it."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import CalibUncertaintyError
from ..inference.estimate import N_MEASURES, Estimate, Part, estimate, size_in_words
from ..inference.frame import reader_frame
from ..model.folder import ModelFolder
from ..model.folder_check import settings_of
from ..model.member_set import MemberSet
from ..reading import open_image
from ..volume import Volume
from .memory import free_gpu_memory, free_memory, own_memory

# An estimate is not better than this: between 1/1.2 and 1.2 times what there is, a warning.
BORDER = 1.2


def estimate_run(
    members: MemberSet, volume: Volume, device: str = "cpu", *, precision: str = "stock", step_size: float = 0.5,
    flips_allowed: int = 3, full_volume: bool = False, export: bool = False, temperatures: int = 1,
    seconds_per_forward: float | None = None, n_members: Sequence[int] | None = None, measures: int = N_MEASURES,
    extras: int = 0, kept_bytes: float = math.inf,
) -> Estimate:  # fmt: skip
    """Of one run of `members` on a CT, with the first stage of a cascade; without torch.

    volume: the CT, or the first of several channels. device: cpu, cuda, cuda:1 or mps (not auto). flips_allowed: in how many axes
    the models may be mirrored (checkpoints know it; 2d allows no more than two). n_members: of each model, where that is known
    already. seconds_per_forward: measured, of one tile. measures, extras, kept_bytes: as `estimate` takes them.
    Raises CalibUncertaintyError where a CT is so thin that nothing is left of it on the network's grid.
    """
    heads, parts = members.models[0].heads, []
    for index, model in enumerate(members.models):
        settings = _settings(model)
        flips = 2 ** min(flips_allowed, len(settings["patch_size"]))
        sources = [source for source in members.sources() if source[0] == index]
        count = len(sources) * max(1, members.dropout) * (flips if members.flips == "members" else 1)
        shape, spacing = _as_network(model, volume)
        part = Part(
            settings, shape, spacing, input_channels(model), n_members[index] if n_members else count,
            flips if members.flips == "mean" else 1,
            max((_size(members.path_of(source)) for source in sources), default=0),
        )  # fmt: skip
        _refuse_empty(part, model)
        parts.append(part)
    found = estimate(
        parts, heads.channels, device=device, precision=precision, step_size=step_size, threads=_threads(),
        ct_bytes=volume.array.dtype.itemsize, images=len(members.models[0].channels), structures=len(heads.names),
        temperatures=temperatures, full_volume=full_volume, export=export, seconds_per_forward=seconds_per_forward,
        measures=measures, extras=extras, kept_bytes=kept_bytes,
    )  # fmt: skip
    if members.before is None:
        return found
    first = estimate_run(
        members.before, volume, device, precision=precision, step_size=step_size, flips_allowed=flips_allowed
    )
    return found.after(first)


def input_channels(model: ModelFolder) -> int:
    """Channels of the network's input: the images, and in a cascade one more for each structure of the previous stage."""
    images = len(model.channels)
    if model.previous_stage is None:
        return images
    # nnU-Net's foreground labels: the single numbers above 0 that any label or region holds
    numbers = {
        int(n)
        for name, value in model.dataset["labels"].items()
        if name != "ignore"
        for n in (value if isinstance(value, list | tuple) else [value])
    }
    return images + len(numbers - {0})


def check_fits(needed: Estimate, device: str, folder: str | Path) -> list[str]:
    """Raise CalibUncertaintyError, one line with both numbers, where the run cannot fit; returns warnings where it may not.

    Refused is only what surely lacks room: more than BORDER times what is free, of what the run takes however small its boxes turn
    out. folder: where the Result will lie; it or the nearest of its parents that exists is asked. What this computer does not tell
    about itself is not checked.
    """
    warnings = [*_check_memory(needed), *_check_gpu(needed, device), *_check_disk(needed, Path(folder))]
    return [message for message in warnings if message]


def _check_memory(needed: Estimate) -> list[str]:
    free = free_memory()
    if free.megabytes is None:
        return []
    room = free.megabytes + own_memory()  # what this process holds already is part of what it needs
    remedy = "close other programs, crop the CT to what is needed, or use a computer with more memory"
    said = f"{size_in_words(room)} are there ({free.source})"
    if needed.ram_least_mb > BORDER * (room + free.swap_mb):
        raise CalibUncertaintyError(
            f"this run needs about {size_in_words(needed.ram_least_mb)} of memory and {said}; {remedy}"
        )
    if needed.ram_mb > room / BORDER:
        less = " or leave --full-volume out," if needed.full_volume and needed.worst_stage == "write" else ""
        return [
            f"This run needs about {size_in_words(needed.ram_mb)} of memory (most while it does '{needed.worst_stage}') and {said};"
            f"{less} {remedy} if it slows down or is stopped"
        ]
    return []


def _check_gpu(needed: Estimate, device: str) -> list[str]:
    if needed.gpu_mb is None or device.split(":")[0] == "cpu":
        return []
    free = free_gpu_memory(device)
    if free.megabytes is None:
        return []
    said = f"{size_in_words(free.megabytes)} are free ({free.source})"
    if needed.gpu_least_mb > BORDER * free.megabytes:
        raise CalibUncertaintyError(
            f"one tile of this model needs about {size_in_words(needed.gpu_least_mb)} of GPU memory and {said}; close other"
            " programs that use the GPU, or choose --device cpu"
        )
    if needed.gpu_mb > free.megabytes / BORDER:
        return [
            f"This run would use about {size_in_words(needed.gpu_mb)} of GPU memory and {said}; it goes on with fewer tiles at a"
            " time and adds up in the computer's memory where that is too much, which is slower"
        ]
    return []


def _check_disk(needed: Estimate, folder: Path) -> list[str]:
    there = next((path for path in (folder, *folder.absolute().parents) if path.is_dir()), None)
    try:
        free = shutil.disk_usage(there).free / 1e6 if there is not None else None
    except OSError:  # a share that does not tell
        free = None
    if free is None:
        return []
    said = f"its disk has {size_in_words(free)} free"
    if needed.scratch_least_mb > BORDER * free:
        raise CalibUncertaintyError(
            f"{folder} needs about {size_in_words(needed.scratch_least_mb)} for files while computing and {said}; free space or"
            " choose another --out"
        )
    if needed.disk_mb > free / BORDER:
        less = "leave --full-volume out, " if needed.full_volume else ""
        return [
            f"{folder} may need {size_in_words(needed.disk_mb)} (files while computing, and the result) and {said};"
            f" {less}free space or choose another --out if the run stops for want of it"
        ]
    return []


def check_ct_size(ct: str | Path | Volume) -> None:
    """Refuse a CT that does not fit into memory before it is read, by the sizes in its header or of its files.

    nnU-Net's preprocessing takes at least ten bytes a voxel beside the CT; less than that is not worth reading it.
    """
    if isinstance(ct, Volume):
        return
    path, free = Path(ct), free_memory()
    voxels = _voxels_of(path)
    if free.megabytes is None or voxels is None:
        return
    count, size, shown = voxels
    needed = count * (size + 10) / 1e6
    room = free.megabytes + free.swap_mb + own_memory()
    if needed > BORDER * room:
        raise CalibUncertaintyError(
            f"{path} ({shown}) needs at least {size_in_words(needed)} of memory and {size_in_words(room)} are there"
            f" ({free.source}); crop or resample the CT, or use a computer with more memory"
        )


def _voxels_of(path: Path) -> tuple[int, int, str] | None:
    """(voxels, bytes each, in words) from a header, or from the sizes of a folder's files; None where they do not tell."""
    import SimpleITK as sitk

    try:
        if path.is_dir():
            total = sum(entry.stat().st_size for entry in os.scandir(path) if entry.is_file())
            return total // 2, 2, f"{size_in_words(total / 1e6)} of files"
        reader = open_image(path)
    except (OSError, CalibUncertaintyError):  # the reading proper says what is wrong
        return None
    shape = reader.GetSize()
    bits = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    size = next((n // 8 for n in (64, 32, 16, 8) if str(n) in bits), 8)
    return math.prod(shape), size, " x ".join(map(str, shape)) + " voxels"


def _settings(model: ModelFolder) -> dict:
    name = model.configuration or next(iter(model.plans["configurations"]))
    return settings_of(model.plans, name, model.path / "plans.json")


def _as_network(model: ModelFolder, volume: Volume) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    frame = reader_frame(volume, str(model.plans.get("image_reader_writer", "SimpleITKIO")))
    frame = frame.then_transpose(model.plans["transpose_forward"])
    shape = np.array(volume.array.shape)[list(frame.axes)]
    return tuple(int(n) for n in shape), tuple(float(s) for s in frame.spacing_to_network(volume.spacing_zyx))


def _refuse_empty(part: Part, model: ModelFolder) -> None:
    if min(part.grid) > 0:
        return
    axis = part.grid.index(min(part.grid))
    wanted = part.settings["spacing"][axis - 3 + len(part.settings["spacing"])]
    thickness = part.shape[axis] * part.spacing[axis]
    raise CalibUncertaintyError(
        f"the CT is {thickness:g} mm thick along one axis ({part.shape[axis]} voxels) and {model.name} works with voxels of"
        f" {wanted:g} mm there: nothing would be left; give a CT of at least {wanted:g} mm"
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # the loading says what is wrong
        return 0


def _threads() -> int:
    """As many as nnU-Net uses: the processors this process may use, eight at most."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        count = os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(count, 8, int(asked) if asked.isdigit() and int(asked) else 8))
