"""What a run will take, told before it starts: tiles, seconds, memory, disk. Arithmetic on the plans and the CT's size only.

The constants were fitted to measurements on one computer (2 cores with AVX-512, PyTorch 2.13 for CPUs, nnU-Net 2.8.1); each says
which. What could not be measured there is marked as a guess.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from .network_cost import NetworkCost, network_cost
from .spline_resampling import can_resize

# Python with torch and nnU-Net imported: 478 to 491 MB resident.
BASE_MB = 490.0
# One forward on a CPU, peak resident memory above the weights: 1.15 bytes for a byte of live feature maps and 40 MB more. Seven
# float32 networks (plain and residual, 2D and 3D, 48 to 1500 MB of feature maps) within 15 %, three in bf16 within 25 %.
ACTIVATION_FACTOR, ACTIVATION_MB = 1.15, 40.0
# On a GPU the same, and room for cuDNN's workspaces. A guess.
GPU_WORKSPACE_MB = 500.0
# Preprocessing at its worst moment, bytes for (a voxel of the CT, a voxel of the network's grid, a voxel of the CT's planes once
# resampled, where their number changes, too): 0.7 to 1.7 of what seven small CTs took. Where nnU-Net's own
# resampling runs, the first two of another row, eight CTs, within 15 %.
RESIZE_BYTES = (10, 4, 8)
PREPROCESS_BYTES = {"same": (10, 4), "in plane": (14, 14), "whole": (34, 18), "thick": (34, 42)}
STOCK_RESAMPLING, STOCK_PREPROCESSOR = "resample_data_or_seg_to_shape", "DefaultPreprocessor"
# Of those, what each further channel adds.
CHANNEL_BYTES = (12, 4)
# Bytes for a voxel of the box around everything while maps are written and read back. One run over 39 million voxels of noise.
BOX_BYTES = 56
# How much of the CT the boxes hold, and how much of it some member is not sure to be background: only the members can tell.
BOX_SHARE, AWAKE_SHARE = 0.4, 0.25
# How much of that lies in cells where a member draws more than one label, a byte each, always on the disk. A guess.
MIXED_SHARE = 0.5
CELL_PLANES = 8
# Of the maps as written, to their size in memory. A guess: noise-free background compresses well, the rest does not.
COMPRESSED = 0.5
SCRATCH_LIMIT_BYTES = 1 << 24
PORTION_BYTES = 1 << 23
GPU_VOXELS_PER_FORWARD = 128**3
N_MEASURES = 6  # where nothing is said about which
# One forward: multiply-adds a second, and seconds for each live number in feature maps. One CPU thread: ten networks, most within
# a factor of 1.5. GPUs: guesses.
SPEED = {
    ("cpu", "stock"): (20e9, 1.7e-8), ("cpu", "bf16"): (75e9, 0.6e-8),
    ("cuda", "stock"): (8e12, 4e-11), ("mps", "stock"): (1e12, 4e-10),
}  # fmt: skip
# Seconds for a voxel, a few runs within a factor of two: of the CT and of the grid in preprocessing (matrix products), of
# every tile and head in adding up, of the box in making maps and seeking regions, of the box and map in writing.
PREPROCESS_SECONDS, ADDING_SECONDS, MAPS_SECONDS, WRITING_SECONDS = (0.04e-6, 0.02e-6), 1.5e-8, 0.4e-6, 1e-8


@dataclass(frozen=True)
class Part:
    """The members of one model folder and the CT as its network's axes have it.

    settings: the configuration of plans.json with what it inherits. shape, spacing: of the CT in mm, in the network's axis order
    (empty borders that nnU-Net crops count, so this is the most). channels: of the network's input; a cascade's second stage has
    one more for each structure. passes: forwards a tile (8 where three flips are averaged inside each member). checkpoint_bytes:
    of the largest checkpoint file, which is read whole.
    """

    settings: dict
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    channels: int = 1
    members: int = 1
    passes: int = 1
    checkpoint_bytes: int = 0

    @property
    def grid(self) -> tuple[int, int, int]:
        """Shape after nnU-Net's resampling; 0 along an axis where nothing would be left."""
        return grid_shape(self.settings["spacing"], self.shape, self.spacing)

    @property
    def patch(self) -> tuple[int, ...]:
        """Voxels of a tile, two numbers for 2d."""
        return tuple(int(n) for n in self.settings["patch_size"])

    def tiles(self, step_size: float) -> int:
        """Tiles of one member."""
        return count_tiles(self.grid, self.patch, step_size)


@dataclass(frozen=True)
class Estimate:
    """What a run takes. MB are 1e6 bytes; `least` is what it takes however small the boxes turn out.

    tiles, members: of all models. forwards: tiles times the passes inside each member. seconds: None where the network's cost is
    not known; `measured` whether they rest on a measured forward. gpu_mb: None on a CPU, and where the cost is not known.
    scratch_mb and result_mb lie on the same disk at the same time.
    """

    device: str
    grids: tuple[tuple[int, int, int], ...]
    members: int
    tiles: int
    forwards: int
    seconds: float | None
    measured: bool
    ram_mb: float
    ram_least_mb: float
    worst_stage: str
    gpu_mb: float | None
    gpu_least_mb: float | None
    scratch_mb: float
    scratch_least_mb: float
    result_mb: float
    full_volume: bool = False

    @property
    def disk_mb(self) -> float:
        """Scratch files and the Result together."""
        return self.scratch_mb + self.result_mb

    def to_json(self) -> dict:
        """As it stands in result.json."""
        return {key: round(v, 3) if isinstance(v, float) else v for key, v in asdict(self).items()} | {
            "grids": [list(grid) for grid in self.grids]
        }

    def sentence(self, folder: str = "") -> str:
        """One line for people, without a full stop."""
        where = {"cpu": "the CPU", "mps": "the Apple GPU"}.get(self.device.split(":")[0], "the GPU")
        work = f"{_counted(self.tiles, 'tile')} of {_counted(self.members, 'member')}"
        if self.forwards > self.tiles:
            work += f", {self.forwards / self.tiles:.3g} passes each"
        about = "about" if self.measured else "perhaps"
        time = "unknown time" if self.seconds is None else f"{about} {time_in_words(self.seconds)}"
        memory = f"{size_in_words(self.ram_mb)} memory"
        if self.gpu_mb is not None:
            memory += f", {size_in_words(self.gpu_mb)} GPU memory"
        disk = f"{size_in_words(self.disk_mb)} disk" + (f" in {folder}" if folder else "")
        return f"{time} on {where} ({work}), {memory}, {disk}"

    def after(self, previous: Estimate) -> Estimate:
        """Of two runs one behind the other, as the stages of a cascade: times add up, of the rest the larger counts."""
        worst = max((self, previous), key=lambda one: one.ram_mb)
        seconds = None if self.seconds is None or previous.seconds is None else self.seconds + previous.seconds
        return replace(
            self,
            grids=previous.grids + self.grids,
            members=self.members + previous.members,
            tiles=self.tiles + previous.tiles,
            forwards=self.forwards + previous.forwards,
            seconds=seconds,
            measured=self.measured and previous.measured,
            ram_mb=worst.ram_mb,
            ram_least_mb=max(self.ram_least_mb, previous.ram_least_mb),
            worst_stage=worst.worst_stage,
            gpu_mb=_larger(self.gpu_mb, previous.gpu_mb),
            gpu_least_mb=_larger(self.gpu_least_mb, previous.gpu_least_mb),
            scratch_mb=max(self.scratch_mb, previous.scratch_mb),
            scratch_least_mb=max(self.scratch_least_mb, previous.scratch_least_mb),
        )


def grid_shape(target: Sequence[float], shape: Sequence[int], spacing: Sequence[float]) -> tuple[int, int, int]:
    """nnU-Net's shape after resampling (its compute_new_shape). A 2d plan has two target spacings and keeps the first axis."""
    wanted = list(target) if len(target) == len(shape) else [spacing[0], *target]
    return tuple(round(float(old / new * n)) for old, new, n in zip(spacing, wanted, shape, strict=True))


def count_tiles(grid: Sequence[int], patch: Sequence[int], step_size: float) -> int:
    """How many tiles nnU-Net's sliding window makes of a grid, which it pads where the patch is larger; 0 of an empty one."""
    if 0 in grid:
        return 0
    planes = math.prod(grid[: len(grid) - len(patch)])  # 2d: every plane on its own
    sides = zip(grid[len(grid) - len(patch) :], patch, strict=True)
    return planes * math.prod(math.ceil(max(n - tile, 0) / (tile * step_size)) + 1 for n, tile in sides)


def estimate(
    parts: Sequence[Part], heads: int, *, device: str = "cpu", precision: str = "stock", step_size: float = 0.5,
    threads: int = 1, ct_bytes: int = 2, images: int = 1, structures: int | None = None, temperatures: int = 1,
    full_volume: bool = False, box_share: float = BOX_SHARE, export: bool = False, seconds_per_forward: float | None = None,
    measures: int = N_MEASURES, extras: int = 0, kept_bytes: float = math.inf,
) -> Estimate:  # fmt: skip
    """Of one run of all parts.

    heads: channels of the networks' output; structures: how many probability maps are written, heads - 1 unless given. device: cpu,
    cuda, cuda:1 or mps. ct_bytes: of a voxel as read; images: how many are read. temperatures: at which members' probabilities are
    averaged. box_share: part of the CT that the boxes hold. export: whether every map is written on the CT's grid as well.
    seconds_per_forward: measured, of one tile. measures: how many maps of uncertainty are made; extras: how many numbers a voxel
    are averaged over members for them, beside their probabilities and their entropy. kept_bytes: of the disk, that members' logits
    may take; where they take more their sums are kept instead. Raises ValueError without parts.
    """
    if not parts:
        raise ValueError("an estimate needs at least one model")
    kind, share = device.split(":")[0], 1.0 if full_volume else min(max(box_share, 0.0), 1.0)
    structures = heads - 1 if structures is None else structures
    costs = [network_cost(part.settings, part.channels, heads) for part in parts]
    tiles = sum(part.tiles(step_size) * part.members for part in parts)
    forwards = sum(part.tiles(step_size) * part.members * part.passes for part in parts)
    members, voxels = sum(part.members for part in parts), math.prod(parts[0].shape)
    pools = [2 * heads * math.prod(part.grid) for part in parts]
    kept = [2 * heads * math.prod(part.grid) for part in parts for _ in range(part.members)] if members > 1 else []
    if sum(kept) > kept_bytes:
        kept = []
    awake = int(voxels * min(AWAKE_SHARE, share)) if members > 1 and not kept else 0
    cells, labels = 4 * (temperatures * heads + 1 + extras) * awake, int(MIXED_SHARE * members * awake)
    fields = 4 * (structures + measures + 1) * int(voxels * share)
    (while_asking, _), (held, on_disk), (least, least_on_disk) = map(
        _scratch, ([*pools, *kept, cells], [*pools, *kept, cells, fields], pools)
    )
    ct = images * ct_bytes * voxels
    stages = _memory(parts, heads, costs, kind, precision, ct, images)
    at_least = max([*stages.values(), stages["predict"] + least]) / 1e6
    stages["write"] += held + BOX_BYTES * voxels * share
    stages["predict"] += while_asking
    gpu, gpu_least = _gpu(parts, heads, costs) if kind != "cpu" else (None, None)
    maps = structures + measures + 1
    written = 4 * maps * voxels * (share + (1.0 if export else 0.0)) * COMPRESSED + voxels * 0.1
    worst = max(stages, key=stages.get)
    return Estimate(
        device, tuple(part.grid for part in parts), members, tiles, forwards,
        _seconds(parts, heads, costs, kind, precision, step_size, threads, seconds_per_forward, voxels * share, maps, extras),
        seconds_per_forward is not None, stages[worst] / 1e6, at_least, worst, gpu, gpu_least,
        (on_disk + labels) / 1e6, least_on_disk / 1e6, written / 1e6, full_volume,
    )  # fmt: skip


def _scratch(sizes: Sequence[int]) -> tuple[int, int]:
    """(in memory, on disk) of stores made one after the other, each whole in one of them, as `Scratch` does it."""
    held = on_disk = 0
    for size in sizes:
        if held + size <= SCRATCH_LIMIT_BYTES:
            held += size
        else:
            on_disk += size
    return held, on_disk


def _memory(
    parts: Sequence[Part], heads: int, costs: Sequence[NetworkCost | None], kind: str, precision: str, ct: int, images: int,
) -> dict[str, float]:  # fmt: skip
    """Bytes of the process at the worst moment of each stage, without what `Scratch` holds and without the maps."""
    weights = sum(4 * cost.weights for cost in costs if cost is not None)
    resident = BASE_MB * 1e6 + ct + (weights if kind == "cpu" else 0)
    data = sum(4 * part.channels * math.prod(part.grid) for part in parts)
    load = max((part.checkpoint_bytes for part in parts), default=0) + 4 * max(
        (c.weights for c in costs if c), default=0
    )
    stages = {"load": resident + load}
    before = 0
    for part in parts:
        stages["preprocess"] = max(stages.get("preprocess", 0.0), resident + before + preprocess_bytes(part, images))
        before += 4 * part.channels * math.prod(part.grid)
    walk = 0.0
    for part, cost in zip(parts, costs, strict=True):
        # the band where the network runs; the portions it hands on, and what the cells of one layer hold of them, on the CPU too
        plane = 2 * heads * math.prod(part.grid[1:])
        layer = CELL_PLANES * part.grid[0] / max(1, part.shape[0]) + 2
        here = 2 * min(plane * part.grid[0], plane * layer + PORTION_BYTES) + 3 * math.prod(part.grid)
        padded = math.prod(max(n, tile) for n, tile in zip(part.grid[3 - len(part.patch) :], part.patch, strict=True))
        here += 4 * part.channels * padded if padded > math.prod(part.grid[3 - len(part.patch) :]) else 0
        if kind == "cpu":
            here += _band(part, heads) + (_activations(cost, precision) if cost is not None else 0)
        walk = max(walk, here)
    stages["predict"] = resident + data + walk
    stages["write"] = resident + data
    return stages


def preprocess_bytes(part: Part, images: int = 1) -> float:
    """Bytes that nnU-Net's preprocessing takes at its worst moment, the CT as read not counted."""
    voxels, grid = math.prod(part.shape), part.grid
    wanted = part.settings["spacing"]
    wanted = list(wanted) if len(wanted) == 3 else [part.spacing[0], *wanted]
    thick = any(max(mm) / min(mm) > 3 for mm in (wanted, part.spacing))  # nnU-Net then resamples slice by slice
    axis = max(range(3), key=lambda a: wanted[a])
    kind = "whole"
    if grid == tuple(part.shape):
        kind = "same"
    elif thick:
        kind = "in plane" if grid[axis] == part.shape[axis] else "thick"
    between = 0.0
    if _is_resized_here(part):
        of_ct, of_grid, of_planes = RESIZE_BYTES
        if kind == "whole" and grid[0] != part.shape[0]:
            between = of_planes * part.shape[0] * math.prod(grid[1:])
    else:
        of_ct, of_grid = PREPROCESS_BYTES[kind]
    further = max(0, images - 1)
    labels = max(0, part.channels - images)  # a cascade's one-hot channels are made at the end, and joined by a copy
    return (
        between
        + (of_ct + further * CHANNEL_BYTES[0]) * voxels
        + (of_grid + further * CHANNEL_BYTES[1] + 8 * labels) * math.prod(grid)
    )  # fmt: skip


def _is_resized_here(part: Part) -> bool:
    """Whether `spline_resampling` does it, not nnU-Net's own function; see `prepare`."""
    named = (
        part.settings.get("resampling_fn_data", STOCK_RESAMPLING),
        part.settings.get("preprocessor_name", STOCK_PREPROCESSOR),
    )
    return named == (STOCK_RESAMPLING, STOCK_PREPROCESSOR) and can_resize(
        part.settings.get("resampling_fn_data_kwargs", {})
    )


def _band(part: Part, heads: int) -> int:
    depth = part.patch[0] if len(part.patch) == 3 else 1
    sides = (max(n, tile) for n, tile in zip(part.grid[1:], part.patch[-2:], strict=True))
    return 2 * (heads + 1) * depth * math.prod(sides)


def _activations(cost: NetworkCost, precision: str, tiles: int = 1) -> float:
    """Bytes of feature maps and workspace of one forward on a CPU."""
    size = 2 if precision == "bf16" else 4
    return ACTIVATION_FACTOR * size * cost.live * tiles + ACTIVATION_MB * 1e6


def _gpu(parts: Sequence[Part], heads: int, costs: Sequence[NetworkCost | None]) -> tuple[float | None, float | None]:
    """(expected, least) MB of GPU memory: tiles one at a time, and the band in the computer's memory, is the least."""
    if any(cost is None for cost in costs):
        return None, None
    weights = sum(6 * cost.weights for cost in costs)  # in single, and mixed precision's copies in half
    expected = least = 0.0
    for part, cost in zip(parts, costs, strict=True):
        together = max(1, GPU_VOXELS_PER_FORWARD // math.prod(part.patch))
        one = ACTIVATION_FACTOR * 2 * cost.live
        expected = max(expected, one * together + _band(part, heads) + 2 * PORTION_BYTES)
        least = max(least, one)
    return (weights + expected) / 1e6 + GPU_WORKSPACE_MB, (weights + least) / 1e6 + GPU_WORKSPACE_MB / 2


def _seconds(
    parts: Sequence[Part], heads: int, costs: Sequence[NetworkCost | None], kind: str, precision: str, step_size: float,
    threads: int, measured: float | None, box: float, maps: int, extras: int,
) -> float | None:  # fmt: skip
    total = 0.0
    for part, cost in zip(parts, costs, strict=True):
        one = measured
        if one is None:
            if cost is None:
                return None
            speed, touch = SPEED.get((kind, precision), SPEED["cpu", "stock"])
            one = (cost.macs / speed + cost.live * touch) / (0.9 * threads if kind == "cpu" and threads > 1 else 1)
        tiles, grid = part.tiles(step_size), math.prod(part.grid)
        total += part.members * tiles * (part.passes * one + ADDING_SECONDS * heads * math.prod(part.patch) / threads)
        if part.grid != tuple(part.shape):
            total += PREPROCESS_SECONDS[0] * math.prod(part.shape) + PREPROCESS_SECONDS[1] * grid
    return total + box * (ADDING_SECONDS * (heads + extras) + MAPS_SECONDS + WRITING_SECONDS * maps)


def time_in_words(seconds: float) -> str:
    """ "8 s", "3 min", "2.5 h"; never more digits than an estimate has."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size_in_words(megabytes: float) -> str:
    """ "20 MB", "1.4 GB"."""
    return f"{max(1, round(megabytes)):,} MB" if megabytes < 950 else f"{megabytes / 1000:,.1f} GB"


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _larger(a: float | None, b: float | None) -> float | None:
    return max((value for value in (a, b) if value is not None), default=None)
