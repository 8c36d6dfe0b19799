"""Reading what a model wants as input: one CT, or one image for each of its channels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import CalibUncertaintyError
from ..inference.prepare import check_same_grid
from ..model.folder import ModelFolder
from ..reading import check_is_ct, check_volume
from ..volume import Volume

Input = str | Path | Volume
_NUMBERED = re.compile(
    r"(?P<case>.+)_(?P<channel>[0-9]{4})(?P<extension>\.[^0-9].*)"
)  # nnU-Net's naming: case_0000.nii.gz


def read_channels(
    ct: Input | Sequence[Input], model: ModelFolder, series: str | None = None
) -> tuple[list[Volume], str]:
    """The images for `model.channels`, in that order and on one grid, and in words where they are from.

    ct: a file, a DICOM folder or a `Volume`; a list of them for several channels. Of files named as nnU-Net names them
    (case_0000.nii.gz, case_0001.nii.gz, ...) the first is enough. series: SeriesInstanceUID where a DICOM folder holds several.
    Raises CalibUncertaintyError, one line, for too few or too many images, another order, another grid, or what cannot be read.
    """
    given = [ct] if isinstance(ct, str | Path | Volume) else list(ct)
    wanted = model.channels
    found = _siblings(given, wanted)
    inputs = given + found
    _check_number(inputs, model, given)
    _check_order(inputs, wanted)
    folders = [item for item in inputs if not isinstance(item, Volume) and Path(item).is_dir()]
    if series is not None and len(folders) > 1:
        raise CalibUncertaintyError(
            f"series {series} can lie in one folder only, and {len(folders)} DICOM folders were given; give folders that hold one"
            " series each"
        )
    volumes = [_read(item, series, number, len(inputs)) for number, item in enumerate(inputs)]
    names = [_name(item, number) for number, item in enumerate(inputs)]
    if len(inputs) == 1:
        return volumes, names[0]
    names = [f"{name} ({channel})" for name, channel in zip(names, wanted, strict=True)]
    check_same_grid(volumes, names)
    remark = f"; {'this was' if len(found) == 1 else 'these were'} found beside the first: " if found else ""
    return volumes, f"{', '.join(names)}{remark}{', '.join(str(path.name) for path in found)}"


def check_channels(volumes: Sequence[Volume], model: ModelFolder, description: str) -> list[str]:
    """Look at every channel that is a CT as `check_is_ct` does; returns its warnings. Where no channel is called CT: at the first.

    Raises CalibUncertaintyError for an image that plainly holds no Hounsfield units.
    """
    channels = model.channels
    if len(channels) == 1:
        return check_is_ct(volumes[0], description)
    chosen = [index for index, name in enumerate(channels) if name.upper() == "CT"] or [0]
    return [
        warning for index in chosen for warning in check_is_ct(volumes[index], f"input {index} ({channels[index]})")
    ]


def ct_of(volumes: Sequence[Volume], model: ModelFolder) -> Volume:
    """The channel that is called CT, or where none is, the first."""
    named = [name.upper() for name in model.channels]
    return volumes[named.index("CT") if "CT" in named else 0]


def _siblings(given: list, wanted: list[str]) -> list[Path]:
    """The files of the other channels, where the first is given alone and named as nnU-Net does.

    Raises CalibUncertaintyError where only some of them are there.
    """
    if len(given) != 1 or len(wanted) < 2 or isinstance(given[0], Volume):
        return []
    first = Path(given[0])
    named = _NUMBERED.fullmatch(first.name)
    if not named or named["channel"] != "0000" or not first.is_file():
        return []
    beside = [first.with_name(f"{named['case']}_{n:04d}{named['extension']}") for n in range(1, len(wanted))]
    missing = [path for path in beside if not path.is_file()]
    if missing:
        raise CalibUncertaintyError(
            f"{first} is the first of {len(wanted)} inputs ({', '.join(wanted)}), but {missing[0]} does not exist; put it there or"
            " give every input"
        )
    return beside


def _check_number(inputs: list, model: ModelFolder, given: list) -> None:
    wanted = model.channels
    if len(inputs) == len(wanted):
        return
    if len(wanted) == 1:
        raise CalibUncertaintyError(
            f"{model.name} wants a single image ({wanted[0]}) and {len(given)} were given; give that one, or choose the model that"
            " was trained with all of them"
        )
    count = f"{len(given)} were" if len(given) > 1 else "1 was" if given else "none was"
    raise CalibUncertaintyError(
        f"{model.name} wants {len(wanted)} images ({', '.join(wanted)}) and {count} given;"
        " give one for each, in this order, or the first of files named case_0000.nii.gz, case_0001.nii.gz, ..."
    )


def _check_order(inputs: list, wanted: list[str]) -> None:
    """Refuse numbered files in another order than their numbers: the network would take one kind of image for another."""
    if len(inputs) < 2 or any(isinstance(item, Volume) for item in inputs):
        return
    named = [_NUMBERED.fullmatch(Path(item).name) for item in inputs]
    if not all(named) or len({match["case"] for match in named}) > 1:
        return
    numbers = [int(match["channel"]) for match in named]
    if numbers != list(range(len(wanted))):
        raise CalibUncertaintyError(
            f"the images are numbered {', '.join(match['channel'] for match in named)}, but the model wants"
            f" {', '.join(f'{n:04d} ({name})' for n, name in enumerate(wanted))}; give them in this order"
        )


def _read(item: Input, series: str | None, number: int, count: int) -> Volume:
    if isinstance(item, Volume):
        check_volume(item, _name(item, number) if count > 1 else "the given volume")
        return item
    return Volume.read(item, series if Path(item).is_dir() or count == 1 else None)


def _name(item: Input, number: int) -> str:
    if not isinstance(item, Volume):
        return str(item)
    return "the given volume" if number == 0 else f"given volume {number + 1}"
