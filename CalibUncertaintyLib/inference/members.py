"""The members, one by one: every fold, checkpoint, flip and dropout sample of one or several models, asked about a case."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import CalibUncertaintyError
from ..model.checkpoint import Checkpoint, agreed_mirroring_axes, load_checkpoint
from ..model.dropout import add_dropout, dropout_layers
from ..model.folder import ModelFolder
from ..model.member_set import MemberSet, Source
from ..progress import Progress
from ..volume import Volume
from .devices import autocast_for, choose_device, give_back_memory, is_out_of_memory, keeping_memory, seeded
from .member import Member, Prepared
from .networks import build_network, input_channels, load_weights
from .prepare import PreparedCase, prepare_case
from .sliding_window import SlidingWindow, is_finite, mirrored_axes
from .trainer_search import FoundTrainer, find_trainer

if TYPE_CHECKING:
    import torch

PRECISIONS = ("stock", "bf16")
# Voxels a forward should have at least on a GPU: below, starting its kernels takes as long as running them.
_GPU_VOXELS_PER_FORWARD = 128**3


@dataclass
class _Model:
    """One model folder with nnU-Net's managers and a network that takes each source's weights in turn."""

    folder: ModelFolder
    name: str  # of the configuration
    plans: object
    configuration: object
    trainer: FoundTrainer
    network: torch.nn.Module
    axes: tuple[int, ...] = ()
    tiles_per_forward: int = 1
    band_device: torch.device | None = None  # where tiles are added up; the CPU once the device's memory was too short


class MemberPredictor:
    """Selected members, checked and ready to be asked one after the other.

    Only one set of weights is in memory at a time. `warnings` tells what was noticed, `chosen` what is left of the member set
    when checkpoints that hold equal weights are counted once.
    """

    def __init__(
        self, chosen: MemberSet, device: str = "auto", step_size: float = 0.5, trusted: bool = False,
        precision: str = "stock", trainers: str | Path | None = None,
    ) -> None:  # fmt: skip
        self.device, self.precision = choose_device(device), precision
        self._autocast = autocast_for(self.device, precision)
        self._step_size, self._trusted, self._trainers = step_size, trusted, trainers
        self.warnings: list[str] = []
        self.heads = chosen.models[0].heads
        self.n_classes = self.heads.channels
        self._models: list[_Model] = []
        self.chosen = self._checked(chosen)
        self.warnings += self.chosen.warnings
        self.trainer = self._models[0].trainer.name
        self.members = list(self._enumerate())
        self.forward_seconds = 0.0

    @property
    def adds_as_stock(self) -> bool:
        """Whether stock nnU-Net would take the mean of just these members, the folds of each model."""
        return self.chosen.flips != "members" and not self.chosen.dropout and len(self.chosen.checkpoints) == 1

    @property
    def mirroring(self) -> bool:
        """Whether flips are averaged inside the members."""
        return self.chosen.flips == "mean" and any(model.axes for model in self._models)

    def _checked(self, chosen: MemberSet) -> MemberSet:
        """Every checkpoint is loaded once, now: a wrong one must not show after an hour of computing."""
        seen: dict[tuple, Source] = {}
        loaded: dict[Source, Checkpoint] = {}
        twins: dict[Source, Source] = {}
        for source in chosen.sources():
            index = source[0]
            checkpoint = load_checkpoint(chosen.path_of(source), self._trusted)
            if index == len(self._models):
                self._models.append(self._open(chosen, index, checkpoint))
            model = self._models[index]
            _refuse_other_configuration(model, checkpoint)
            load_weights(model.network, checkpoint, model.folder, model.trainer)
            # the same weights behind other plans are another opinion
            first = seen.setdefault((model.folder.plans_digest(), model.name, checkpoint.digest()), source)
            if first != source:
                twins[source] = first
            loaded[source] = checkpoint.without_weights()
        if chosen.flips != "off":
            for index, model in enumerate(self._models):
                same = [checkpoint for source, checkpoint in loaded.items() if source[0] == index]
                model.axes = agreed_mirroring_axes(same, len(model.configuration.patch_size))
                if chosen.flips == "members" and not model.axes:
                    raise CalibUncertaintyError(
                        f"{model.folder.name} was trained without mirroring, so a flipped CT is nothing it knows; choose other"
                        " members than flips (--flips off)"
                    )
        self._checkpoints = loaded
        return chosen.without(twins) if twins else chosen

    def _open(self, chosen: MemberSet, index: int, checkpoint: Checkpoint) -> _Model:
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        folder = chosen.models[index]
        plans = PlansManager(folder.plans)
        name = checkpoint.configuration or folder.configuration
        if name not in folder.plans["configurations"]:
            raise CalibUncertaintyError(
                f"{folder.path / 'plans.json'} has no configuration '{name}' that the checkpoints name"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nnU-Net remarks on plans of its earlier versions
            configuration = plans.get_configuration(name)
        trainer = find_trainer(checkpoint.trainer, self._trainers)
        if trainer.remark:
            self.warnings.append(trainer.remark)
        channels = input_channels(folder, plans, configuration)
        network = build_network(folder, plans, configuration, channels, self.n_classes, trainer, self._trusted)
        if chosen.dropout:
            self._prepare_dropout(network, folder, trainer, chosen.insert_dropout)
        several = max(1, _GPU_VOXELS_PER_FORWARD // int(np.prod(configuration.patch_size)))
        return _Model(
            folder,
            name,
            plans,
            configuration,
            trainer,
            network.to(self.device).eval(),
            tiles_per_forward=several if self.device.type == "cuda" else 1,
            band_device=self.device,
        )

    def _prepare_dropout(self, network, folder: ModelFolder, trainer: FoundTrainer, inserted: float | None) -> None:
        if dropout_layers(network):
            if inserted is not None:
                self.warnings.append(f"{folder.path} has dropout of its own, which is used; none was inserted")
            return
        if inserted is None and trainer.file is None and not trainer.is_stock:
            raise CalibUncertaintyError(
                f"whether {folder.path} was trained with dropout is not known: its trainer {trainer.name} was not found; name the"
                " folder of its file with --trainers DIR"
            )
        if inserted is None:
            raise CalibUncertaintyError(
                f"{folder.path} was trained without dropout. Dropout put in afterwards disturbs a network that never learned to"
                " bear it, and its probabilities become less calibrated (Rousseau et al. 2021); train with nnUNetTrainerDropout, or"
                " insist with --insert-dropout RATE"
            )
        add_dropout(network, "decoder", inserted)
        self.warnings.append(
            f"Dropout ({inserted:g}) was put into {folder.path}, which was trained without it;"
            f" expect worse calibration (Rousseau et al. 2021)"
        )

    def _enumerate(self) -> Iterator[Member]:
        chosen, number = self.chosen, 0
        for index, fold, checkpoint in chosen.sources():
            axes = self._models[index].axes
            flips = mirrored_axes(axes) if chosen.flips == "members" else [None]
            for flip in flips:
                for sample in range(chosen.dropout) if chosen.dropout else [None]:
                    averaged = chosen.flips == "mean" and bool(axes)
                    yield Member(number, index, fold, checkpoint, flip, sample, averaged)
                    number += 1

    def prepare(self, volumes: Volume | Sequence[Volume], previous: np.ndarray | None = None) -> Prepared:
        """nnU-Net's preprocessing, once for each model. previous: what a cascade's first stage predicted, (z, y, x)."""
        cases = [
            prepare_case(
                model.folder,
                model.plans,
                model.configuration,
                volumes,
                previous if model.configuration.previous_stage_name else None,
            )
            for model in self._models
        ]
        for model, case in zip(self._models[1:], cases[1:], strict=True):
            first = cases[0]
            if (case.frame, case.crop_start, case.grid.ct_shape) != (
                first.frame,
                first.crop_start,
                first.grid.ct_shape,
            ):
                raise CalibUncertaintyError(
                    f"{model.folder.path} turns the axes of a CT otherwise than {self._models[0].folder.path} does; ask these"
                    " models one at a time"
                )
        return Prepared(tuple(cases))

    def predict(self, case: Prepared, progress: Progress) -> Iterator[tuple[Member, Iterator]]:
        """Each member with its logits, which come as (first plane, (planes, heads, Y, X) float16) on the network's grid.

        A member's planes must be taken before the next member is asked.
        """
        import torch
        from nnunetv2.configuration import default_num_processes

        windows = [self._window(model, prepared) for model, prepared in zip(self._models, case.cases, strict=True)]
        total = sum(windows[member.model].tiles for member in self.members)
        threads, before, loaded = torch.get_num_threads(), 0, None
        tuned = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = self.device.type == "cuda" or tuned  # as nnU-Net: all tiles are of one size
        # nnU-Net limits its threads so; the same number keeps the same order of additions
        torch.set_num_threads(min(threads, default_num_processes))
        try:
            for member in self.members:
                window, source = windows[member.model], (member.model, member.fold, member.checkpoint)
                if source != loaded:
                    self._load(source)
                    loaded = source

                def report(done: int, before=before, member=member, window=window) -> None:
                    progress.report(
                        (before + done) / total,
                        f"member {member.index + 1} of {len(self.members)}, tile {done} of {window.tiles}",
                    )

                give_back_memory()  # else what lies scattered in it would grow with the number of members
                with keeping_memory():
                    yield member, self._planes(member, window, progress, report)
                before += window.tiles
        finally:
            torch.set_num_threads(threads)
            torch.backends.cudnn.benchmark = tuned
            self.forward_seconds = sum(window.forward_seconds for window in windows)

    def _window(self, model: _Model, prepared: PreparedCase) -> SlidingWindow:
        return SlidingWindow(prepared.data, model.configuration.patch_size, self._step_size)

    def _load(self, source: Source) -> None:
        model, checkpoint = self._models[source[0]], self._checkpoints[source]
        fresh = replace(checkpoint, weights=checkpoint.read_weights())
        load_weights(model.network, fresh, model.folder, model.trainer)

    def _planes(self, member: Member, window: SlidingWindow, progress: Progress, report) -> Iterator:
        import torch

        model, name = self._models[member.model], self.name_of(member)

        def ask(tiles: torch.Tensor, number: int) -> torch.Tensor:
            most, answers = model.tiles_per_forward, None
            if len(tiles) > most:
                return _joined(ask(tiles[:most], number), ask(tiles[most:], number + most))
            try:
                answers = self._forward(model, member, tiles.to(self.device), number)
            except Exception as error:
                if not is_out_of_memory(error) or len(tiles) == 1:
                    raise
            if answers is None:  # only out here has the error let go of what the forward had in memory
                model.tiles_per_forward = len(tiles) // 2
                progress.warn(
                    f"The device's memory was too short for {len(tiles)} tiles at a time; going on with {len(tiles) // 2}"
                )
                return ask(tiles, number)
            return answers

        def on_cpu(message: str) -> None:
            model.band_device = torch.device("cpu")  # for the members to come as well
            progress.warn(message)

        finished = window.planes(ask, self.n_classes, model.band_device, model.tiles_per_forward, report, on_cpu)
        with contextlib.closing(finished):
            for first, planes in finished:
                if not is_finite(planes):
                    self._refuse_tile(member, window)
                    raise CalibUncertaintyError(
                        f"{name} gives values too large for nnU-Net's half precision at planes {first + 1} to"
                        f" {first + len(planes)} of the network's grid; its training diverged"
                    )
                yield first, planes
                del planes  # else it would lie in the way of the next forward

    def _refuse_tile(self, member: Member, window: SlidingWindow) -> None:
        """Name the first tile in which a member gives values that are not numbers; nothing where there is none.

        Every tile is asked again: looking at each of all members' answers would take time that only a broken model is worth.
        """
        for number, tile in window.numbered_tiles():
            if not is_finite(self._forward(self._models[member.model], member, tile.to(self.device), number)):
                raise CalibUncertaintyError(
                    f"{self.name_of(member)} gives values that are not numbers in tile {number + 1} of {window.tiles}; its training"
                    " diverged, or the input holds values beyond any CT's"
                )

    def _forward(self, model: _Model, member: Member, tiles: torch.Tensor, number: int) -> torch.Tensor:
        """Logits (n, heads, patch) of tiles (n, channels, patch): nnU-Net's own order of flips and additions."""
        import torch

        if member.sample is not None and len(tiles) > 1:
            # what a tile loses must not depend on which others come with it
            each = [self._forward(model, member, tile[None], number + i) for i, tile in enumerate(tiles)]
            return torch.cat(each)
        flips = mirrored_axes(model.axes) if member.mirroring else [member.flip or ()]
        with torch.inference_mode(), self._autocast(), self._dropping(model, member, number):
            total = None
            for flip in flips:
                axes = [axis + 2 for axis in flip]
                answer = model.network(torch.flip(tiles, axes) if axes else tiles)
                answer = torch.flip(answer, axes) if axes else answer
                total = answer if total is None else total.add_(answer)
            return total.div_(len(flips)) if len(flips) > 1 else total

    @contextlib.contextmanager
    def _dropping(self, model: _Model, member: Member, number: int) -> Iterator[None]:
        """Dropout active, with random numbers that depend on seed, sample, flip and tile; nothing for members without it."""
        if member.sample is None:
            yield
            return
        layers = dropout_layers(model.network)
        text = f"{self.chosen.seed}/{member.sample}/{member.flip}/{number}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
        with seeded(self.device, seed):
            for layer in layers:
                layer.train()
            try:
                yield
            finally:
                for layer in layers:
                    layer.eval()

    def name_of(self, member: Member) -> str:
        """A member in words, for errors: its checkpoint file, flip and sample."""
        name = str(self.chosen.path_of((member.model, member.fold, member.checkpoint)))
        if member.flip:
            name += f", flipped in {', '.join(map(str, member.flip))}"
        return name if member.sample is None else f"{name}, dropout sample {member.sample + 1}"

    def labels_that_differ(self, case: Prepared, likely: np.ndarray) -> dict | None:
        """How often this precision and stock's give another label, looked at in the tile where labels are least certain.

        likely: foreground probability on the first model's grid. Of the first model's networks, pooled, in that one tile: how
        many labels differ, and what that makes of the whole case, uncertain voxel for uncertain voxel (foreground probability
        0.05 to 0.95). None for stock's own precision.
        """
        if self.precision == "stock":
            return None
        model, window = self._models[0], self._window(self._models[0], case.cases[0])
        uncertain = (likely > 0.05) & (likely < 0.95)
        row, corner, doubtful = window.most_of(uncertain)
        plain, ours = contextlib.nullcontext, self._autocast
        pooled = {}
        for key, autocast in (("stock", plain), (self.precision, ours)):
            self._autocast, total = autocast, 0
            try:
                for source in self.chosen.sources():
                    if source[0] == 0:
                        self._load(source)
                        member = Member(0, *source, None, None, self.mirroring)
                        total = (
                            total + self._forward(model, member, window.tile(row, corner).to(self.device), 0).float()
                        )
            finally:
                self._autocast = ours
            pooled[key] = self.heads.label_of_logits(total[0].cpu().numpy())
        differs = pooled["stock"] != pooled[self.precision]
        here, everywhere = int(np.count_nonzero(doubtful)), int(np.count_nonzero(uncertain))
        among = int(np.count_nonzero(differs & doubtful.reshape(differs.shape)))
        return {
            "voxels_compared": int(differs.size),
            "labels_different": int(np.count_nonzero(differs)),
            "estimated_in_case": round(among / here * everywhere) if here else 0,
        }


def _joined(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.cat([first, second])


def _refuse_other_configuration(model: _Model, checkpoint: Checkpoint) -> None:
    """Members of one model folder must be of one configuration."""
    name = checkpoint.configuration or model.name
    if name != model.name:
        raise CalibUncertaintyError(
            f"{model.folder.path} mixes folds of several configurations ({model.name}, and {name} in {checkpoint.path}); keep one"
        )
