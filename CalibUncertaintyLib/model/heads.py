"""What the output channels of a network mean: one class each (softmax), or one region each that may overlap (sigmoid)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CalibUncertaintyError
from .folder_check import label_number

CHUNK_VOXELS = 16384
HIGHEST_VALUE = 65535  # of a segmentation: nnU-Net decodes regions into 16 bits


@dataclass(frozen=True)
class Heads:
    """What the network's output channels mean.

    `names` are the foreground structures; softmax: labels 1, 2, ... (channel 0 is the background); sigmoid: the regions in
    the order of dataset.json, one channel each and none for the background. `values` is the number each has in the
    segmentation: the label, or the region's entry in `regions_class_order`.
    """

    names: tuple[str, ...]
    values: tuple[int, ...]
    sigmoid: bool

    @property
    def channels(self) -> int:
        """Output channels of the network."""
        return len(self.names) + (0 if self.sigmoid else 1)

    def label_of(self, scores: np.ndarray) -> np.ndarray:
        """Segmentation of probabilities; for softmax any scores that keep their order will do.

        :param scores: (C, ...). softmax: the label is the first of the highest. sigmoid: probabilities; each region holds
            where its own exceeds 0.5, and of several the last one's number is written.
        :returns: (...) uint8, or uint16 where a number exceeds 255.
        :raises ValueError: when C is not the number of channels.
        Source: nnU-Net's LabelManager.convert_probabilities_to_segmentation.
        """
        return self._decode(scores, 0.5)

    def label_of_logits(self, logits: np.ndarray) -> np.ndarray:
        """As `label_of`, of logits (C, ...): a region holds where its own exceeds 0.

        That is p > 0.5 without its rounding: for 0 < z < 1.2e-7 float32 makes p exactly 0.5.
        """
        return self._decode(logits, 0.0)

    def foreground(self, p: np.ndarray) -> np.ndarray:
        """Probability of any structure, (...), of probabilities (C, ...): softmax 1 - p[0]; sigmoid the largest p.

        Regions may overlap in any way, so the largest is what is certain: no less than that.
        """
        return np.asarray(p).max(axis=0) if self.sigmoid else 1.0 - np.asarray(p)[0]

    def structures(self, p: np.ndarray) -> np.ndarray:
        """The channels of the foreground structures, (len(names), ...), of (C, ...); a view."""
        return np.asarray(p) if self.sigmoid else np.asarray(p)[1:]

    def _decode(self, scores: np.ndarray, limit: float) -> np.ndarray:
        scores = np.asarray(scores)
        if scores.shape[:1] != (self.channels,):
            raise ValueError(f"expected {self.channels} channels first, got an array of shape {scores.shape}")
        if not self.sigmoid:
            return first_argmax(scores)
        flat = scores.reshape(self.channels, -1)
        last = np.zeros(flat.shape[1], _smallest_type(self.channels))
        for start in range(0, last.size, CHUNK_VOXELS):
            part = slice(start, start + CHUNK_VOXELS)
            for channel, score in enumerate(_wide(flat[:, part]), start=1):
                _raise_to(last[part], score > limit, channel)
        numbers = np.array([0, *self.values], _smallest_type(max(self.values)))
        return numbers[last].reshape(scores.shape[1:])

    @classmethod
    def of(cls, labels: Mapping[str, Any], regions_class_order: Any, path: Path) -> Heads:
        """The heads of a model whose dataset.json, at `path`, has these labels and regions_class_order (None: not there).

        As nnU-Net's LabelManager does: one label that lists several numbers makes all of them regions, a single number
        too; "ignore" and what holds nothing but background have no head. That plain labels are 1, 2, ... without gaps is
        `check_labels`'s task.
        :raises CalibUncertaintyError: when nnU-Net could not read the labels, or the order does not fit the regions.
        """
        if not any(isinstance(value, list | tuple) and len(value) > 1 for value in labels.values()):
            numbered = {name: label_number(value) for name, value in labels.items() if name != "ignore"}
            pairs = sorted((value, name) for name, value in numbered.items() if value)
            if not pairs:
                raise CalibUncertaintyError(f"{path} names no structure to segment")
            return cls(tuple(name for _, name in pairs), tuple(value for value, _ in pairs), False)
        regions = regions_of(labels, path)
        order = regions_class_order
        if order is None:
            raise CalibUncertaintyError(
                f"{path}: 'labels' lists regions but there is no 'regions_class_order', without which they cannot be drawn into"
                " one segmentation; copy the file again from where the model was trained"
            )
        values = [label_number(value) for value in order] if isinstance(order, list | tuple) else [None]
        if None in values or not all(0 < value <= HIGHEST_VALUE for value in values):
            raise CalibUncertaintyError(
                f"{path}: 'regions_class_order' is {order!r}, not a list of whole numbers from 1 to {HIGHEST_VALUE}; copy the"
                " file again from where the model was trained"
            )
        if len(values) != len(regions):
            raise CalibUncertaintyError(
                f"{path}: 'regions_class_order' has {len(values)} entries for {len(regions)} regions ({', '.join(regions)});"
                " give one number for each, in the order of 'labels'"
            )
        doubled = [value for value in values if values.count(value) > 1]
        if doubled:
            raise CalibUncertaintyError(
                f"{path}: 'regions_class_order' gives the number {doubled[0]} to several regions, which could not be told"
                " apart in a segmentation; give each its own"
            )
        return cls(tuple(regions), tuple(values), True)


def first_argmax(scores: np.ndarray) -> np.ndarray:
    """Index of the highest of (C, ...) scores, of equal ones the first: (...) uint8, or uint16 of more than 256 channels.

    As numpy's argmax along the first axis, which copies the array and takes several times as long.
    """
    scores = np.asarray(scores)
    flat = scores.reshape(scores.shape[0], -1)
    label = np.zeros(flat.shape[1], _smallest_type(len(flat) - 1))
    for start in range(0, label.size, CHUNK_VOXELS):
        part = slice(start, start + CHUNK_VOXELS)
        chunk = _wide(flat[:, part])
        highest = chunk[0].copy()
        for channel, score in enumerate(chunk[1:], start=1):
            _raise_to(label[part], score > highest, channel)
            np.maximum(highest, score, out=highest)
    return label.reshape(scores.shape[1:])


def _raise_to(label: np.ndarray, where: np.ndarray, value: int) -> None:
    """label[where] = value for a value above all before it: a product and a maximum are faster than a masked assignment."""
    np.maximum(label, np.multiply(where, label.dtype.type(value), dtype=label.dtype), out=label)


def _wide(values: np.ndarray) -> np.ndarray:
    """Half precision as float32, in which numpy compares several times faster; everything else as it is."""
    return values.astype(np.float32) if values.dtype == np.float16 else values


def _smallest_type(highest: int) -> type[np.uint8] | type[np.uint16]:
    return np.uint8 if highest <= 255 else np.uint16


def regions_of(labels: Mapping[str, Any], path: Path) -> dict[str, tuple[int, ...]]:
    """The label numbers of each region, in the order of the network's channels, for a model with regions.

    :param labels: "labels" of dataset.json.
    :param path: the file they are from, named in errors.
    :raises CalibUncertaintyError: when a region is not a number or a list of numbers, there is no background 0, or "ignore"
        is not the number after the highest.
    """
    remedy = "it is not one of nnU-Net v2's, copy it again from where the model was trained"
    parts = {}
    for name, value in labels.items():
        numbers = [label_number(part) for part in value] if isinstance(value, list | tuple) else [label_number(value)]
        if not numbers or any(number is None or number < 0 for number in numbers):
            raise CalibUncertaintyError(
                f"{path}: 'labels' gives {name} the value {value!r}, which is no region; {remedy}"
            )
        parts[name] = tuple(numbers)
    if parts.get("background") != (0,) or isinstance(labels["background"], list | tuple):
        raise CalibUncertaintyError(f"{path}: 'labels' has no background with the value 0; {remedy}")
    ignore = parts.pop("ignore", None)
    highest = max(number for numbers in parts.values() for number in numbers)
    if ignore is not None and (ignore != (highest + 1,) or isinstance(labels["ignore"], list | tuple)):
        raise CalibUncertaintyError(
            f"{path}: 'labels' gives ignore the value {labels['ignore']!r}; nnU-Net's is the one after the highest label"
            f" ({highest + 1}): {remedy}"
        )
    return {name: numbers for name, numbers in parts.items() if set(numbers) != {0}}


def region_truth(
    labels: np.ndarray, dataset_labels: Mapping[str, Any], path: Path = Path("dataset.json")
) -> np.ndarray:
    """Where each region truly is, (C, ...) bool in the order of `Heads.names`, from reference labels (...).

    :param labels: label numbers as in the training's own references; leave those to ignore out beforehand.
    :param dataset_labels: "labels" of dataset.json, of a model with regions.
    """
    labels = np.asarray(labels)
    regions = regions_of(dataset_labels, path)
    truth = np.zeros((len(regions), *labels.shape), bool)
    for inside, numbers in zip(truth, regions.values(), strict=True):
        for number in set(numbers):
            inside |= labels == number
    return truth
