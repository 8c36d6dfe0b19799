"""The sliding window, row by row of tiles: the numbers of stock nnU-Net's, without holding the whole volume of logits.

Tiles whose starts agree along the first axis of the network's grid make a row. Once a row is done, the planes before the next
row's start will never be touched again: they are divided by their weights and handed on. What is held is a band as deep as one
patch. Additions happen in nnU-Net's order and in its half precision, so the sums are its sums to the last bit.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .devices import is_out_of_memory

if TYPE_CHECKING:
    import torch

_ON_CPU = "The device's memory was too short to add up the tiles there; they are added up on the CPU, which is slower"
PLANES_BYTES = 1 << 22  # finished logits are handed on in portions of about this size


@dataclass(frozen=True)
class Row:
    """Tiles that begin at the same plane: [start, stop) along the first axis, and where each begins in the other axes."""

    start: int
    stop: int
    corners: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Padding:
    """How a grid smaller than the patch is filled up with zeros: the padded shape, and where the grid lies in it."""

    shape: tuple[int, int, int]
    inside: tuple[slice, slice, slice]


def padding_of(shape: Sequence[int], patch: Sequence[int]) -> Padding:
    """nnU-Net's padding: half before and half behind (one more behind), only in the axes the patch covers."""
    wanted = [*shape[: 3 - len(patch)], *(max(a, b) for a, b in zip(shape[3 - len(patch) :], patch, strict=True))]
    before = [(w - n) // 2 for w, n in zip(wanted, shape, strict=True)]
    return Padding(tuple(wanted), tuple(slice(b, b + n) for b, n in zip(before, shape, strict=True)))


def rows_of(shape: Sequence[int], patch: Sequence[int], step_size: float) -> list[Row]:
    """All tiles of a padded grid, in nnU-Net's order. A 2D patch makes every plane a row of its own."""
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

    if len(patch) == 2:
        rows_in_plane, columns = compute_steps_for_sliding_window(tuple(shape[1:]), tuple(patch), step_size)
        corners = tuple(itertools.product(rows_in_plane, columns))
        return [Row(plane, plane + 1, corners) for plane in range(shape[0])]
    planes, rows_in_plane, columns = compute_steps_for_sliding_window(tuple(shape), tuple(patch), step_size)
    corners = tuple(itertools.product(rows_in_plane, columns))
    return [Row(start, start + patch[0], corners) for start in planes]


class SlidingWindow:
    """All tiles of one preprocessed case.

    data: (channels, grid) float32 on the CPU. patch: two or three numbers of voxels.
    """

    def __init__(self, data: torch.Tensor, patch: Sequence[int], step_size: float) -> None:
        import torch

        self._patch = tuple(int(n) for n in patch)
        self.padding = padding_of(data.shape[1:], self._patch)
        self.rows = rows_of(self.padding.shape, self._patch, step_size)
        self.tiles = sum(len(row.corners) for row in self.rows)
        self._data = data
        if tuple(data.shape[1:]) != self.padding.shape:
            self._data = torch.zeros((data.shape[0], *self.padding.shape), dtype=data.dtype)
            self._data[(slice(None), *self.padding.inside)] = data
        self._gaussian: torch.Tensor | None = None
        self.forward_seconds = 0.0

    def tile(self, row: Row, corner: tuple[int, int]) -> torch.Tensor:
        """The network's input at one tile, (1, channels, patch)."""
        (y, x), (height, width) = corner, self._patch[-2:]
        plane = slice(row.start, row.stop) if len(self._patch) == 3 else row.start
        return self._data[:, plane, y : y + height, x : x + width][None].contiguous()

    def numbered_tiles(self) -> Iterator[tuple[int, torch.Tensor]]:
        """Every tile of the network's input with its number, in the order they are asked in."""
        return enumerate(self.tile(row, corner) for row in self.rows for corner in row.corners)

    def planes(
        self,
        ask: Callable[[torch.Tensor, int], torch.Tensor],
        heads: int,
        device: torch.device,
        tiles_per_forward: int = 1,
        report: Callable[[int], None] = lambda done: None,
        warn: Callable[[str], None] = lambda message: None,
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Logits of one member as (first plane, (planes, heads, Y, X) float16), from the first plane of the grid to the last.

        ask(tiles (n, channels, patch), number of the first of them) -> logits (n, heads, patch), on any device.
        device: where the band is kept, as long as its memory lasts; then on the CPU. report: told how many tiles are done.
        """
        import torch

        depth, (_, height, width) = self.rows[0].stop - self.rows[0].start, self.padding.shape
        shape = (heads, depth, height, width)
        device, band, total = _zeros(shape, device, warn)
        # made before the first forward: what is made between two of them lies in the way of the next
        weights, room, done = self._weights(device), self._room(band), 0
        for number, row in enumerate(self.rows):
            for group in _groups(row.corners, tiles_per_forward):
                tiles = torch.cat([self.tile(row, corner) for corner in group])
                began, answers = time.perf_counter(), None
                try:
                    answers = ask(tiles, done).to(device)
                except Exception as error:
                    if device.type == "cpu" or not is_out_of_memory(error):
                        raise
                if answers is None:  # only out here has the error let go of what the forward had in memory
                    warn(_ON_CPU)
                    device, band, total = torch.device("cpu"), band.cpu(), total.cpu()
                    weights, room = self._weights(device), self._room(band)
                    answers = ask(tiles, done).to(device)
                self.forward_seconds += time.perf_counter() - began
                for answer, corner in zip(answers, group, strict=True):
                    self._add(band, total, answer, corner, weights, room)
                done += len(group)
                report(done)
                del tiles, answers, answer  # else the last tile's logits would stay beside the next one's
            last = number == len(self.rows) - 1
            ready = depth if last else self.rows[number + 1].start - row.start
            yield from self._finished(band, total, row.start, ready)
            if not last:
                for part in (*band, total):  # class by class: a shift of the whole band would need a second one
                    part[: depth - ready] = part[ready:].clone()
                    part[depth - ready :] = 0

    def _weights(self, device: torch.device) -> torch.Tensor:
        from nnunetv2.inference.sliding_window_prediction import compute_gaussian

        if self._gaussian is None or self._gaussian.device != device:
            self._gaussian = compute_gaussian(self._patch, sigma_scale=1.0 / 8, value_scaling_factor=10, device=device)
        return self._gaussian

    def _room(self, band: torch.Tensor) -> torch.Tensor:
        """What `_add` computes in, beside a band (heads, planes, Y, X)."""
        import torch

        return band.new_empty((2, band.shape[1], *self._patch[-2:]), dtype=torch.float32)

    def _add(self, band, total, answer, corner, weights, room) -> None:
        """Gaussian-weighted addition. Class by class in single precision, rounded once: equal to adding to half, and faster.

        room: two float32 arrays of a patch; fresh ones for every class would cost more than the additions.
        """
        import torch

        (y, x), (height, width) = corner, self._patch[-2:]
        where = (slice(None), slice(y, y + height), slice(x, x + width))
        answer = answer if len(self._patch) == 3 else answer[:, None]
        weighted, summed = room
        # a GPU's autocast answers in half, and nnU-Net then weighs in half
        weights_as = weights if answer.dtype == weights.dtype else weights.float()
        for of_class, band_of_class in zip(answer, band, strict=True):
            if of_class.dtype == weighted.dtype:
                torch.mul(of_class, weights_as, out=weighted)
            else:
                weighted.copy_(of_class * weights_as)
            sums = band_of_class[where]
            sums.copy_(summed.copy_(sums).add_(weighted))
        total[where] += weights

    def _finished(self, band, total, start: int, ready: int) -> Iterator[tuple[int, torch.Tensor]]:
        """The first `ready` planes of the band, divided by their weights, without the padding."""
        import torch

        inside, rows, columns = self.padding.inside
        first, last = max(start, inside.start), min(start + ready, inside.stop)
        if first >= last:
            return
        step = max(1, PLANES_BYTES // (2 * len(band) * total[0, rows, columns].numel()))
        for begin in range(first, last, step):
            part = slice(begin - start, min(begin + step, last) - start)
            weight = total[part, rows, columns].float()
            planes = torch.empty((len(weight), len(band), *weight.shape[1:]), dtype=torch.half, device=band.device)
            for index, of_class in enumerate(band):
                planes[:, index] = of_class[part, rows, columns].float().div_(weight)
            yield begin - inside.start, planes
            del planes, weight  # what lies scattered in memory makes the next forward's need grow

    def most_of(self, mask: np.ndarray) -> tuple[Row, tuple[int, int], np.ndarray]:
        """The tile that holds most of a mask over the grid, and the mask in it."""
        padded = np.zeros(self.padding.shape, bool)
        padded[self.padding.inside] = mask
        height, width = self._patch[-2:]
        counted = (
            (int(np.count_nonzero(padded[row.start : row.stop, y : y + height, x : x + width])), number, (y, x))
            for number, row in enumerate(self.rows)
            for y, x in row.corners
        )
        _, number, (y, x) = max(counted)
        row = self.rows[number]
        return row, (y, x), padded[row.start : row.stop, y : y + height, x : x + width]


def _zeros(
    shape: Sequence[int], device: torch.device, warn: Callable[[str], None]
) -> tuple[torch.device, torch.Tensor, torch.Tensor]:
    """The band and its weights on the device, or on the CPU where the device's memory does not hold them."""
    import torch

    try:
        band = torch.zeros(shape, dtype=torch.half, device=device)
        return device, band, torch.zeros(shape[1:], dtype=torch.half, device=device)
    except Exception as error:
        if device.type == "cpu" or not is_out_of_memory(error):
            raise
    warn(_ON_CPU)
    return torch.device("cpu"), torch.zeros(shape, dtype=torch.half), torch.zeros(shape[1:], dtype=torch.half)


def _groups(corners: Sequence[tuple[int, int]], size: int) -> Iterator[Sequence[tuple[int, int]]]:
    return (corners[at : at + size] for at in range(0, len(corners), size))


def mirrored_axes(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Every combination of the axes a model may be mirrored in, none of them first, in nnU-Net's order."""
    return [found for size in range(len(axes) + 1) for found in itertools.combinations(tuple(axes), size)]


def is_finite(values: torch.Tensor) -> bool:
    """Whether all values are numbers; one addition a value, and a closer look only where the sum is none."""
    import torch

    return bool(np.isfinite(float(values.sum(dtype=torch.float32)))) or bool(torch.isfinite(values).all())
