"""Reading fitted parameters back from JSON: finite numbers of the right shape, or an error that says what is wrong."""

import numpy as np


def numbers_of(document: dict, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """A field as float64.

    :param shape: None stands for any length above 0.
    :raises ValueError: when the field is missing, has another shape, or holds what is not a finite number.
    """
    if name not in document:
        raise ValueError(f"'{name}' is missing")
    try:
        values = np.array(document[name], dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"'{name}' must hold numbers") from None
    fits = values.ndim == len(shape) and all(
        have > 0 if want is None else have == want for have, want in zip(values.shape, shape, strict=False)
    )
    if not fits or not np.isfinite(values).all():
        raise ValueError(f"'{name}' must hold finite numbers of shape {shape}, got shape {values.shape}")
    return values


def check_method(document: dict, *methods: str) -> str:
    """The document's method, one of these.

    :raises ValueError: when it is another one.
    """
    if document.get("method") not in methods:
        raise ValueError(f"not a {' or '.join(methods)} calibrator: method {document.get('method')!r}")
    return document["method"]


def check_channels(logits: np.ndarray, channels: int) -> None:
    """:raises ValueError: when logits do not have this many channels first."""
    if np.ndim(logits) < 1 or len(logits) != channels:
        raise ValueError(f"expected {channels} channels first, got an array of shape {np.shape(logits)}")
