"""The members of a model, one by one: what each of them says about a CT, through stock nnU-Net's own sliding window."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import CalibUncertaintyError
from ..model.checkpoint import Checkpoint, load_checkpoint
from ..model.folder import FINAL_CHECKPOINT, Fold, ModelFolder
from ..progress import Progress
from ..volume import Volume
from .frame import Frame, reader_frame
from .resampling import GridReturn

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Member:
    """One opinion: which fold and checkpoint, and whether mirrored passes are averaged into it."""

    index: int
    fold: Fold
    checkpoint: str
    mirroring: bool

    def to_json(self) -> dict:
        """As it stands in result.json."""
        return asdict(self)


@dataclass(frozen=True)
class PreparedCase:
    """A CT after nnU-Net's preprocessing: data (channels, grid) float32, and what leads back to the CT.

    All shapes are in the network's axis order: `full_shape` of the CT, `crop_start` and `grid.ct_shape` of the part that is
    not empty background, `data.shape[1:]` of the network's grid.
    """

    data: torch.Tensor
    frame: Frame
    full_shape: tuple[int, int, int]
    crop_start: tuple[int, int, int]
    grid: GridReturn
    spacing: tuple[float, float, float]


class MemberPredictor:
    """A model's selected members, loaded and ready to be asked one after the other."""

    def __init__(
        self, model: ModelFolder, folds: list[Fold], device: str = "auto", mirroring: bool = True, step_size: float = 0.5,
        trusted: bool = False,
    ) -> None:  # fmt: skip
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        self.device = choose_device(device)
        self._model = model
        checkpoints = [load_checkpoint(model.checkpoint_path(fold), trusted) for fold in folds]
        self._plans = PlansManager(model.plans)
        self._configuration = self._plans.get_configuration(_configuration_of(model, checkpoints))
        if self._configuration.previous_stage_name is not None:
            raise CalibUncertaintyError(
                f"{model.name} is the second stage of a cascade; choose a model without previous stage"
            )
        self._weights = [checkpoint.weights for checkpoint in checkpoints]
        axes = checkpoints[0].mirroring_axes
        self.mirroring = mirroring and bool(axes)
        self.trainer = checkpoints[0].trainer
        self.members = [Member(i, fold, FINAL_CHECKPOINT, self.mirroring) for i, fold in enumerate(folds)]
        self.n_classes = self._plans.get_label_manager(model.dataset).num_segmentation_heads
        network = self._build_network()
        for checkpoint in checkpoints:  # all of them now: a wrong one must not show after an hour of computing
            self._load(network, checkpoint)
        with contextlib.redirect_stdout(io.StringIO()):  # it remarks on every device that is not CUDA
            self._predictor = nnUNetPredictor(
            tile_step_size=step_size, use_gaussian=True, use_mirroring=self.mirroring, device=self.device,
            perform_everything_on_device=self.device.type == "cuda", verbose=False, allow_tqdm=False,
        )  # fmt: skip
        self._predictor.manual_initialization(
            network, self._plans, self._configuration, None, model.dataset, self.trainer, axes or None
        )

    def _build_network(self):
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

        configuration = self._configuration
        try:
            return get_network_from_plans(
                configuration.network_arch_class_name,
                configuration.network_arch_init_kwargs,
                configuration.network_arch_init_kwargs_req_import,
                len(self._model.channels),
                self.n_classes,
                allow_init=False,
                deep_supervision=False,
            )
        except (ImportError, TypeError, KeyError, AttributeError, RuntimeError, ValueError) as error:
            raise CalibUncertaintyError(
                f"{self._model.path / 'plans.json'}: the network {configuration.network_arch_class_name} cannot be built ({error});"
                " install the package it comes from"
            ) from error

    def _load(self, network, checkpoint: Checkpoint) -> None:
        try:
            network.load_state_dict(checkpoint.weights)
        except RuntimeError as error:
            trainer = f" (trainer {checkpoint.trainer})" if checkpoint.trainer not in ("", "nnUNetTrainer") else ""
            raise CalibUncertaintyError(
                f"{checkpoint.path}{trainer} belongs to another network than {self._model.path / 'plans.json'} describes;"
                " copy the fold and the plans of the same training"
            ) from error

    def prepare(self, volume: Volume) -> PreparedCase:
        """nnU-Net's own preprocessing (transpose, crop to non-zero, normalise, resample), once for all members."""
        import torch

        # a plan may name a reader or a preprocessor that lives in somebody's own package
        frame = reader_frame(volume, str(self._model.plans.get("image_reader_writer", "SimpleITKIO")))
        seen = np.ascontiguousarray(frame.to_network(volume.array), dtype=np.float32)[None]
        properties = {"spacing": [float(s) for s in frame.spacing_to_network(volume.spacing_zyx)]}
        try:
            preprocessor = self._configuration.preprocessor_class(verbose=False)
            _ = self._configuration.resampling_fn_data, self._configuration.resampling_fn_probabilities
        except (RuntimeError, AttributeError, KeyError, ImportError, TypeError) as error:
            raise CalibUncertaintyError(
                f"{self._model.path / 'plans.json'} asks for preprocessing that this nnU-Net does not have"
                f" ({' '.join(str(error).split())}); install the package it comes from"
            ) from error
        data, _, properties = preprocessor.run_case_npy(
            seen, None, properties, self._plans, self._configuration, self._model.dataset
        )
        forward = self._plans.transpose_forward
        spacing = [properties["spacing"][axis] for axis in forward]
        target = list(self._configuration.spacing)
        grid_spacing = target if len(target) == 3 else [spacing[0], *target]
        cropped = properties["shape_after_cropping_and_before_resampling"]
        return PreparedCase(
            torch.from_numpy(np.ascontiguousarray(data)),
            frame.then_transpose(forward),
            tuple(int(n) for n in properties["shape_before_cropping"]),
            tuple(int(begin) for begin, _ in properties["bbox_used_for_cropping"]),
            GridReturn(self._configuration, data.shape[1:], cropped, grid_spacing, spacing),
            tuple(spacing),
        )

    def predict(self, case: PreparedCase, progress: Progress) -> Iterator[tuple[Member, np.ndarray]]:
        """Each member with its logits (C, grid) on the network's grid, float16 as nnU-Net keeps them."""
        import torch
        from nnunetv2.configuration import default_num_processes

        predictor, total = self._predictor, len(self.members)
        tiles = self._count_tiles(case.data.shape[1:])
        ask, done = predictor._internal_maybe_mirror_and_predict, 0

        def ask_and_report(tile):
            nonlocal done
            answer = ask(tile)
            done += 1
            within = (done - 1) % tiles + 1
            progress.report(
                done / (tiles * total), f"member {(done - 1) // tiles + 1} of {total}, tile {within} of {tiles}"
            )
            return answer

        threads = torch.get_num_threads()
        # nnU-Net limits its threads so; the same number keeps the same order of additions
        torch.set_num_threads(min(threads, default_num_processes))
        predictor._internal_maybe_mirror_and_predict = ask_and_report
        try:
            for member, weights in zip(self.members, self._weights, strict=True):
                predictor.network.load_state_dict(weights)
                logits = predictor.predict_sliding_window_return_logits(case.data).cpu()
                if not all(bool(torch.isfinite(of_class).all()) for of_class in logits):
                    raise CalibUncertaintyError(
                        f"{self._model.checkpoint_path(member.fold)} gives values that are not numbers; its training diverged"
                    )
                yield member, logits.numpy()
                del logits  # the next member needs the room
        finally:
            predictor._internal_maybe_mirror_and_predict = ask
            torch.set_num_threads(threads)

    def _count_tiles(self, shape) -> int:
        patch = self._configuration.patch_size
        padded = [
            *shape[: len(shape) - len(patch)],
            *(max(a, b) for a, b in zip(shape[-len(patch) :], patch, strict=True)),
        ]
        return len(self._predictor._internal_get_sliding_window_slicers(tuple(padded)))


def choose_device(name: str) -> torch.device:
    """auto: CUDA, then Apple's MPS, then the CPU. Raises CalibUncertaintyError where the named one is not there."""
    import torch

    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise CalibUncertaintyError(f"'{name}' is not a device; choose auto, cpu, cuda, cuda:1 or mps") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise CalibUncertaintyError(
            f"'{name}' is not a device this program uses; choose auto, cpu, cuda, cuda:1 or mps"
        )
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise CalibUncertaintyError(f"there is no CUDA device '{name}' that PyTorch can use; choose cpu or auto")
    if device.type == "mps" and not has_mps:
        raise CalibUncertaintyError("there is no Apple GPU that PyTorch can use; choose cpu or auto")
    return device


def _configuration_of(model: ModelFolder, checkpoints: list[Checkpoint]) -> str:
    named = {checkpoint.configuration for checkpoint in checkpoints if checkpoint.configuration}
    if len(named) > 1:
        raise CalibUncertaintyError(
            f"{model.path} mixes folds of several configurations ({', '.join(sorted(named))}); keep one"
        )
    name = next(iter(named), model.configuration)
    if name not in model.plans["configurations"]:
        raise CalibUncertaintyError(
            f"{model.path / 'plans.json'} has no configuration '{name}' that the checkpoints name"
        )
    return name
