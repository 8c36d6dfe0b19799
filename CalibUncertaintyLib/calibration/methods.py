"""Every calibrator by name: what it does in plain words, how to fit it, how to read it back."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import CalibUncertaintyError
from .affine import AffineFit, AffineScaling
from .base import Calibrator, CalibratorFit, SpatialCalibratorFit
from .fiducio_bridge import ClassConditionalFit, ClassConditionalScaling
from .isotonic import IsotonicCalibration, IsotonicFit
from .platt import PlattFit, PlattScaling
from .regions import RegionTemperatureFit, RegionTemperatureScaling
from .temperature import TemperatureFit, TemperatureScaling


@dataclass(frozen=True)
class Method:
    """One way to calibrate.

    `title` and `description` are for people; `preserves` is what it keeps of softmax heads' decisions, `preserves_regions` of
    sigmoid heads' (None: it cannot be used for them); `spatial`: it looks at a voxel's neighbours, so it is fitted and applied on
    volumes (C, z, y, x) instead of voxels (C, N). `extra`: a package beyond the `compute` extra that it needs.
    """

    name: str
    title: str
    description: str
    preserves: str
    preserves_regions: str | None
    make: Callable[[int, bool], CalibratorFit | SpatialCalibratorFit]
    read: Callable[[dict], Calibrator]
    spatial: bool = False
    extra: str = ""

    def new_fit(self, n_classes: int, sigmoid: bool = False) -> CalibratorFit | SpatialCalibratorFit:
        """An accumulator for a model with so many output channels.

        :raises CalibUncertaintyError: when the method is not for such heads.
        """
        if sigmoid and self.preserves_regions is None:
            raise CalibUncertaintyError(
                f"'{self.name}' is for models whose classes exclude each other; this model has regions: choose one of"
                f" {', '.join(method.name for method in METHODS.values() if method.preserves_regions)}"
            )
        return self.make(n_classes, sigmoid)


def _temperature_fit(n_classes: int, sigmoid: bool) -> TemperatureFit | RegionTemperatureFit:
    return RegionTemperatureFit([str(number) for number in range(n_classes)]) if sigmoid else TemperatureFit()


def _temperature(document: dict) -> TemperatureScaling | RegionTemperatureScaling:
    try:
        regions = isinstance(document["temperature"], list | tuple)
        return (RegionTemperatureScaling if regions else TemperatureScaling).from_json(document)
    except (KeyError, TypeError):
        raise ValueError("'temperature' must be a number, or a list of one for each region") from None


def _affine(method: str) -> Callable[[int, bool], AffineFit]:
    return lambda n_classes, sigmoid: AffineFit(n_classes, sigmoid, method)


def _class_conditional(method: str) -> Callable[[int, bool], ClassConditionalFit]:
    return lambda n_classes, sigmoid: ClassConditionalFit(n_classes, sigmoid, method)


def _spatial_fit(module: str, name: str) -> Callable[[int, bool], SpatialCalibratorFit]:
    """Of a module that is loaded only when asked for."""

    def make(n_classes: int, sigmoid: bool) -> SpatialCalibratorFit:
        regions = [str(number) for number in range(n_classes)] if sigmoid else ()
        return getattr(importlib.import_module(f".{module}", __package__), name)(regions)

    return make


def _spatial_calibrator(module: str, name: str) -> Callable[[dict], Calibrator]:
    return lambda document: getattr(importlib.import_module(f".{module}", __package__), name).from_json(document)


_ALL: Sequence[Method] = (
    Method(
        "temperature", "Temperature scaling",
        "Divides all logits by one number, so that every voxel becomes more or less sure; no label can change.",
        "order", "decisions", _temperature_fit, _temperature,
    ),
    Method(
        "platt", "Platt scaling",
        "Stretches and shifts the log-odds of every class by two numbers of its own; labels may change.",
        "none", "none", PlattFit, PlattScaling.from_json,
    ),
    Method(
        "platt_slope", "Platt scaling without shift",
        "Stretches the log-odds of every class by one number of its own; decisions of regions stay, labels of classes may change.",
        "none", "decisions", lambda n_classes, sigmoid: PlattFit(n_classes, sigmoid, intercept=False), PlattScaling.from_json,
    ),
    Method(
        "vector", "Vector scaling",
        "Gives every class a factor and a shift of its own before the softmax; labels may change.",
        "none", None, _affine("vector"), AffineScaling.from_json,
    ),
    Method(
        "matrix", "Matrix scaling",
        "Lets every class's logit depend on those of all others; many numbers, needs many cases; labels may change.",
        "none", None, _affine("matrix"), AffineScaling.from_json,
    ),
    Method(
        "dirichlet", "Dirichlet calibration",
        "As matrix scaling, but held close to one factor a class unless the cases speak clearly for more; labels may change.",
        "none", None, _affine("dirichlet"), AffineScaling.from_json,
    ),
    Method(
        "isotonic", "Isotonic regression",
        "Replaces every class's probability by how often it was right, in steps that only rise; labels may change.",
        "none", "none", IsotonicFit, IsotonicCalibration.from_json,
    ),
    Method(
        "cc_order", "Class-conditional scaling, order kept",
        "Another stretch for each predicted class, such that the ranking of the classes stays as it is; no label can change.",
        "order", None, _class_conditional("cc_order"), ClassConditionalScaling.from_json, extra="fiducio",
    ),
    Method(
        "cc_argmax", "Class-conditional scaling, label kept",
        "Another stretch for each predicted class, such that the most likely class stays the most likely; no label can change.",
        "argmax", None, _class_conditional("cc_argmax"), ClassConditionalScaling.from_json, extra="fiducio",
    ),
    Method(
        "auxiliary_convolution", "Auxiliary convolution",
        "Weighs every voxel's logits with those of its neighbours by a small filter; labels may change.",
        "none", "none", _spatial_fit("auxiliary_convolution", "AuxiliaryConvolutionFit"),
        _spatial_calibrator("auxiliary_convolution", "AuxiliaryConvolution"), spatial=True,
    ),
    Method(
        "local_temperature", "Local temperature scaling",
        "Divides the logits of every voxel by a number that a small network finds for its place; no label can change.",
        "order", "decisions", _spatial_fit("local_temperature_fit", "LocalTemperatureFit"),
        _spatial_calibrator("local_temperature", "LocalTemperature"), spatial=True,
    ),
)  # fmt: skip
METHODS: dict[str, Method] = {method.name: method for method in _ALL}


def method_of(name: str) -> Method:
    """The method of this name.

    :raises CalibUncertaintyError: when there is none.
    """
    if name not in METHODS:
        raise CalibUncertaintyError(f"there is no calibration method '{name}'; choose one of {', '.join(METHODS)}")
    return METHODS[name]


def calibrator_from_json(document: dict) -> Calibrator:
    """The calibrator that any method's `to_json` described.

    :raises CalibUncertaintyError: when the document names no method known here, or what it holds is not valid.
    """
    name = document.get("method") if isinstance(document, dict) else None
    if not isinstance(name, str) or name not in METHODS:
        raise CalibUncertaintyError(
            f"the stored calibration's method is {name!r}, which this version does not know; it knows {', '.join(METHODS)}"
        )
    try:
        return METHODS[name].read(document)
    except (ValueError, KeyError, TypeError) as error:
        raise CalibUncertaintyError(
            f"the stored {name} calibration is not valid: {error}; calibrate the model again"
        ) from None
