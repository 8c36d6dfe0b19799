"""Checks of what `dataset.json` and `plans.json` say, each failure in one line that names the file and the key.

nnU-Net would stop at the same places with an AssertionError or a KeyError, or run on and number the structures wrongly.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CalibUncertaintyError

_REMEDY = "it is not one of nnU-Net v2's, copy it again from where the model was trained"
_INTENSITIES = ("mean", "std", "percentile_00_5", "percentile_99_5")  # what nnU-Net's CTNormalization reads
# Those that give one 3D volume of scalars an image; nnU-Net's others read photographs and TIFF stacks
VOLUME_READERS = ("SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient")
_NEEDED_SETTINGS = ("spacing", "patch_size", "normalization_schemes")


def is_whole_number(text: Any) -> bool:
    """Whether a text is decimal digits and nothing else; str.isdigit() is true for a superscript two, which int() refuses."""
    return isinstance(text, str) and text.isascii() and text.isdecimal()


def label_number(value: Any) -> int | None:
    """A label's number, read as nnU-Net's LabelManager does: 2, "2", 2.0 or [2]; None for regions and whatever else."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"\s*[+-]?[0-9]+\s*", value) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if value == int(value) else None


def label_numbers(labels: Mapping[str, Any]) -> dict[str, tuple[int | None, ...]]:
    """Every label's number or, of a region, its numbers, by name; None in place of what is no number."""
    return {
        str(name): tuple(label_number(part) for part in (value if isinstance(value, list | tuple) else [value]))
        for name, value in labels.items()
    }


def check_labels(labels: dict[str, Any], path: Path) -> None:
    """Refuse labels other than 0 (background), 1, 2, ... without gaps and doubles, and perhaps "ignore" as the highest.

    nnU-Net's argmax counts the labels through, so that with 0, 1, 5 its third class would come out as 2.
    """
    numbers = {name: label_number(value) for name, value in labels.items()}
    for name, number in numbers.items():
        if number is None:
            raise CalibUncertaintyError(
                f"{path}: 'labels' gives {name} the value {labels[name]!r}, which is no whole number; {_REMEDY}"
            )
    if numbers.get("background") != 0 or isinstance(labels["background"], list | tuple):
        raise CalibUncertaintyError(f"{path}: 'labels' has no background with the value 0; {_REMEDY}")
    counted = sorted(number for name, number in numbers.items() if name != "ignore")
    if counted != list(range(len(counted))):
        raise CalibUncertaintyError(
            f"{path}: 'labels' has the values {', '.join(map(str, counted))}; nnU-Net's run from 0 upwards without gaps and"
            " doubles: this version cannot tell which structure is which"
        )
    if numbers.get("ignore", len(counted)) != len(counted):
        raise CalibUncertaintyError(
            f"{path}: 'labels' gives ignore the value {numbers['ignore']}; nnU-Net's is the one after the highest label"
            f" ({len(counted)}): {_REMEDY}"
        )
    if len(counted) < 2:
        raise CalibUncertaintyError(f"{path} names no structure to segment")


def settings_of(plans: dict, configuration: str, path: Path) -> dict | None:
    """The configuration's settings with those it inherits; None where only the checkpoint knows the configuration."""
    if not configuration:
        return None
    chain, name = [], configuration
    while name:
        settings = plans["configurations"].get(name)
        if not isinstance(settings, dict) or name in [other for other, _ in chain]:
            raise CalibUncertaintyError(f"{path}: the configuration {name} is missing or damaged; {_REMEDY}")
        chain.append((name, settings))
        name = settings.get("inherits_from", "")
    return {key: value for _, settings in reversed(chain) for key, value in settings.items()}


def check_plans(plans: dict, settings: dict | None, n_channels: int, path: Path) -> None:
    """Refuse plans that lack what inference needs, or that ask for what only pictures of other kinds need.

    Needed: the order of the axes, and for each input channel its intensities and normalisation. settings: see `settings_of`.
    """
    transpose = plans.get("transpose_forward")
    if not (
        isinstance(transpose, list) and all(type(axis) is int for axis in transpose) and sorted(transpose) == [0, 1, 2]
    ):
        raise CalibUncertaintyError(f"{path}: 'transpose_forward' is {transpose!r}, not an order of 0, 1, 2; {_REMEDY}")
    reader = plans.get("image_reader_writer", VOLUME_READERS[0])
    if reader not in VOLUME_READERS:
        raise CalibUncertaintyError(
            f"{path}: the model reads its images with {reader}; this program runs models for volumes that"
            f" {' or '.join(VOLUME_READERS)} reads"
        )
    if plans.get("label_manager", "LabelManager") != "LabelManager":
        raise CalibUncertaintyError(
            f"{path}: the model's labels are managed by {plans['label_manager']}, which is not nnU-Net's own; this program cannot"
            " know what its outputs mean"
        )
    key = "foreground_intensity_properties_per_channel"
    if key not in plans and "foreground_intensity_properties_by_modality" in plans:  # the name in nnU-Net 2.0
        key = "foreground_intensity_properties_by_modality"
    intensities = plans.get(key) if isinstance(plans.get(key), dict) else {}
    for channel in range(n_channels):
        if not isinstance(intensities.get(str(channel)), dict):
            raise CalibUncertaintyError(f"{path}: '{key}' says nothing of channel {channel}; {_REMEDY}")
    if settings is not None:
        _check_settings(plans, settings, n_channels, path)
        _check_normalisation(settings["normalization_schemes"], intensities, n_channels, key, path)


def _check_settings(plans: dict, settings: dict, n_channels: int, path: Path) -> None:
    missing = [name for name in _NEEDED_SETTINGS if not isinstance(settings.get(name), list)]
    if not {"architecture", "UNet_class_name"} & settings.keys():  # the second: plans before nnU-Net 2.3
        missing.append("architecture")
    if missing:
        raise CalibUncertaintyError(f"{path}: the configuration has no '{missing[0]}'; {_REMEDY}")
    for name in ("normalization_schemes", "use_mask_for_norm"):
        if isinstance(settings.get(name), list) and len(settings[name]) < n_channels:
            raise CalibUncertaintyError(
                f"{path}: '{name}' has {len(settings[name])} entries for {n_channels} input channels; {_REMEDY}"
            )
    stage = settings.get("previous_stage")
    if stage is not None and (not isinstance(stage, str) or not isinstance(plans["configurations"].get(stage), dict)):
        raise CalibUncertaintyError(f"{path}: there is no configuration {stage!r} for 'previous_stage'; {_REMEDY}")
    seen = []
    while stage:
        if stage in seen:
            raise CalibUncertaintyError(f"{path}: the stages of the cascade go round in a circle ({stage}); {_REMEDY}")
        seen.append(stage)
        stage = (settings_of(plans, stage, path) or {}).get("previous_stage")


def _check_normalisation(schemes: list, intensities: dict, n_channels: int, key: str, path: Path) -> None:
    for channel, scheme in enumerate(schemes[:n_channels]):
        if scheme == "RGBTo01Normalization":
            raise CalibUncertaintyError(
                f"{path}: channel {channel} is a colour of photographs (RGBTo01Normalization); this program runs models for CT"
            )
        if scheme != "CTNormalization":
            continue
        of_channel = intensities[str(channel)]
        wrong = [name for name in _INTENSITIES if not _is_finite(of_channel.get(name))]
        if wrong:
            raise CalibUncertaintyError(f"{path}: '{key}' has no number '{wrong[0]}' for channel {channel}; {_REMEDY}")


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
