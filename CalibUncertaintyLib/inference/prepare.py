"""From the input images to what the network sees: nnU-Net's own preprocessing, for one or several channels and for cascades."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import CalibUncertaintyError
from ..model.folder import ModelFolder
from ..volume import Volume
from .frame import Frame, reader_frame
from .resampling import GridReturn
from .spline_resampling import can_resize, resized

if TYPE_CHECKING:
    import torch
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

# Positions stored in single precision, as NIfTI does, differ by far less; a tenth of a voxel cannot be seen.
SAME_PLACE_VOXELS = 0.1
# What nnU-Net raises for names in a plan that it does not know
_PREPARING_ERRORS = (RuntimeError, AttributeError, KeyError, ImportError, TypeError, ValueError, AssertionError)


@dataclass(frozen=True)
class PreparedCase:
    """The input after nnU-Net's preprocessing: data (channels, grid) float32, and what leads back to the CT.

    The channels are the model's, in its order; for the second stage of a cascade one more for each foreground label of the first
    stage, 1 where it was predicted and else 0. All shapes are in the network's axis order: `full_shape` of the CT, `crop_start`
    and `grid.ct_shape` of the part that is not empty background, `data.shape[1:]` of the network's grid.
    """

    data: torch.Tensor
    frame: Frame
    full_shape: tuple[int, int, int]
    crop_start: tuple[int, int, int]
    grid: GridReturn
    spacing: tuple[float, float, float]


def prepare_case(
    model: ModelFolder, plans_manager: PlansManager, configuration_manager: ConfigurationManager,
    volumes: Volume | Sequence[Volume], previous: np.ndarray | None = None,
) -> PreparedCase:  # fmt: skip
    """nnU-Net's own preprocessing (transpose, crop to non-zero, normalise, resample), once for all members.

    plans_manager, configuration_manager: nnU-Net's, of this model. volumes: one for each of `model.channels`, in that order, all
    on one grid. previous: what the previous stage of a cascade predicted, label map (z, y, x) on that grid; only for a cascade.
    Raises CalibUncertaintyError, one line that names the input or the file that is wrong.
    """
    import torch

    volumes = [volumes] if isinstance(volumes, Volume) else list(volumes)
    if len(volumes) != len(model.channels):
        raise CalibUncertaintyError(
            f"{model.name} wants {_counted(len(model.channels), 'input')} ({', '.join(model.channels)}), got {len(volumes)}"
        )
    check_same_grid(volumes, [f"input {i} ({name})" for i, name in enumerate(model.channels)])
    first = volumes[0]
    frame = reader_frame(first, str(model.plans.get("image_reader_writer", "SimpleITKIO")))
    labels = _previous_labels(model, configuration_manager, first, previous)
    if labels is not None:
        labels = frame.to_network(labels)[None]
    properties = {"spacing": [float(s) for s in frame.spacing_to_network(first.spacing_zyx)]}
    preprocessor = _preprocessor_of(model, configuration_manager)
    configuration = _Resampling(configuration_manager, preprocessor, labels is not None)
    try:
        data, labels, properties = preprocessor.run_case_npy(
            # no name for it here: nnU-Net works on a copy, and lets go of this one
            np.stack([np.asarray(frame.to_network(volume.array), dtype=np.float32) for volume in volumes]),
            labels,
            properties,
            plans_manager,
            configuration,
            model.dataset,
        )
    except _PREPARING_ERRORS as error:
        raise CalibUncertaintyError(
            f"nnU-Net cannot prepare the images as {model.path / 'plans.json'} says ({_one_line(error)}); install the package its"
            " preprocessing comes from"
        ) from error
    if previous is not None:
        foreground = plans_manager.get_label_manager(model.dataset).foreground_labels
        data = np.concatenate([data, *((labels == label).astype(data.dtype) for label in foreground)])
    forward = plans_manager.transpose_forward
    spacing = [properties["spacing"][axis] for axis in forward]
    target = list(configuration_manager.spacing)
    grid_spacing = target if len(target) == 3 else [spacing[0], *target]
    cropped = properties["shape_after_cropping_and_before_resampling"]
    return PreparedCase(
        torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32)),
        frame.then_transpose(forward),
        tuple(int(n) for n in properties["shape_before_cropping"]),
        tuple(int(begin) for begin, _ in properties["bbox_used_for_cropping"]),
        GridReturn(configuration_manager, data.shape[1:], cropped, grid_spacing, spacing),
        tuple(spacing),
    )


class _Resampling:
    """A configuration as it is, but for resampling that gives nothing else, only slower.

    nnU-Net's own resampling of images is replaced by `resized`, which gives the same. Where there are no labels nnU-Net resamples
    the mask of its crop in their place, value by value, and nobody looks at what comes of it: that is left out. Somebody's own
    preprocessor may look, and may expect nnU-Net's functions; it gets them.
    """

    def __init__(self, configuration, preprocessor, labels: bool) -> None:
        from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
        from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

        self._configuration = configuration
        if type(preprocessor) is not DefaultPreprocessor:
            return
        stock = configuration.resampling_fn_data
        if stock.func is resample_data_or_seg_to_shape and not stock.args and can_resize(stock.keywords):
            self.resampling_fn_data = functools.partial(resized, **stock.keywords)
        if not labels:
            self.resampling_fn_seg = lambda *_: np.zeros((1, 1, 1, 1), np.int8)

    def __getattr__(self, name: str):
        return getattr(self._configuration, name)


def _preprocessor_of(model: ModelFolder, configuration_manager):
    """nnU-Net's preprocessor. A plan may name one, or a resampling, that lives in somebody's own package."""
    try:
        _refuse_strange_names(configuration_manager)
        preprocessor = configuration_manager.preprocessor_class(verbose=False)
    except _PREPARING_ERRORS as error:
        raise CalibUncertaintyError(
            f"{model.path / 'plans.json'} asks for preprocessing that this nnU-Net does not have"
            f" ({_one_line(error)}); install the package it comes from"
        ) from error
    # With labels given, nnU-Net collects places of every class for its training; nobody looks at them here
    preprocessor._sample_foreground_locations = lambda *_, **__: {}
    return preprocessor


def _refuse_strange_names(configuration) -> None:
    """nnU-Net takes whatever is called so in its modules, and so what they import, too; a stranger's plans must not call that.

    Raises TypeError, or what nnU-Net raises, naming the one that is not what it should be.
    """
    import nnunetv2.preprocessing.normalization as normalizations
    from nnunetv2.preprocessing.normalization.default_normalization_schemes import ImageNormalization
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    if not _is_a(configuration.preprocessor_class, DefaultPreprocessor):
        raise TypeError(f"{configuration.preprocessor_name} is no preprocessor")
    for use in ("data", "seg", "probabilities"):
        resampling = getattr(configuration, f"resampling_fn_{use}").func
        if not (inspect.isfunction(resampling) and resampling.__module__.startswith("nnunetv2.preprocessing.")):
            raise TypeError(f"{configuration.configuration[f'resampling_fn_{use}']} is no resampling")
    for name in configuration.normalization_schemes:
        folder, module = normalizations.__path__[0], normalizations.__name__
        if not _is_a(recursive_find_python_class(folder, name, module), ImageNormalization):
            raise TypeError(f"{name} is no normalisation")


def _is_a(found, kind: type) -> bool:
    return inspect.isclass(found) and issubclass(found, kind)


def _previous_labels(
    model: ModelFolder, configuration_manager, volume: Volume, previous: np.ndarray | None
) -> np.ndarray | None:
    """The previous stage's label map as nnU-Net's reader gives it: (z, y, x), float32."""
    stage = configuration_manager.previous_stage_name
    if stage is None:
        if previous is not None:
            raise CalibUncertaintyError(
                f"{model.name} is no second stage of a cascade; it takes no earlier segmentation"
            )
        return None
    if previous is None:
        raise CalibUncertaintyError(
            f"{model.name} is the second stage of a cascade and needs what its stage {stage} predicts on this CT"
        )
    if previous.shape != volume.array.shape:
        raise CalibUncertaintyError(
            f"the segmentation of the stage {stage} has {_shown(previous.shape)} voxels, the CT {_shown(volume.array.shape)}"
        )
    return np.asarray(previous, dtype=np.float32)


def check_same_grid(volumes: Sequence[Volume], names: Sequence[str]) -> None:
    """Refuse inputs that do not lie voxel on voxel (to a tenth of a voxel in every corner). names: how each is called.

    Raises CalibUncertaintyError, one line: which input differs from the first, and in what.
    """
    first = volumes[0]
    for volume, name in zip(volumes[1:], names[1:], strict=True):
        difference = _difference(first, volume)
        if difference:
            raise CalibUncertaintyError(
                f"{name} does not lie on the grid of {names[0]}: {difference}; resample it to that grid first"
            )


def _difference(first: Volume, other: Volume) -> str:
    """In what the other volume's grid differs from the first's; empty where they agree."""
    shape = first.array.shape
    if other.array.shape != shape:
        return f"{_shown(other.array.shape)} voxels, not {_shown(shape)}"
    corners = np.array(list(itertools.product(*((0, n - 1) for n in shape))))
    nearest = SAME_PLACE_VOXELS * min(first.spacing_zyx)
    apart = float(np.linalg.norm(first.lps_from_index(corners) - other.lps_from_index(corners), axis=1).max())
    if apart <= nearest:
        return ""
    found = []
    reach = max(n * s for n, s in zip(shape, first.spacing_zyx, strict=True))
    if max(abs(a - b) * n for a, b, n in zip(first.spacing_zyx, other.spacing_zyx, shape, strict=True)) > nearest / 2:
        found.append(f"spacing {_millimetres(other.spacing_zyx[::-1])}, not {_millimetres(first.spacing_zyx[::-1])}")
    if np.abs(first.direction_lps - other.direction_lps).max() * reach > nearest / 2:
        found.append("other directions of its axes")
    if np.linalg.norm(np.subtract(first.origin_lps, other.origin_lps)) > nearest / 2 or not found:
        found.append(f"origin {_millimetres(other.origin_lps)}, not {_millimetres(first.origin_lps)}")
    return f"{', '.join(found)} (up to {apart:.3g} mm apart)"


def _shown(shape_zyx: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape_zyx[::-1])


def _millimetres(values: Sequence[float]) -> str:
    return f"{', '.join(f'{value:.6g}' for value in values)} mm"


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
