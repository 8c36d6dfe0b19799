"""Loading nnU-Net checkpoints without running the code that a pickle may carry."""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CalibUncertaintyError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Checkpoint:
    """What inference needs of a checkpoint."""

    path: Path
    weights: dict[str, torch.Tensor]
    trainer: str
    configuration: str
    mirroring_axes: tuple[int, ...] | None


def load_checkpoint(path: Path, trusted: bool = False) -> Checkpoint:
    """Read a stock nnU-Net checkpoint (or one with weights only) onto the CPU.

    trusted: read any pickle, as nnU-Net does; a checkpoint from a stranger can then run code on this computer.
    Raises CalibUncertaintyError naming the file when it is truncated, not a checkpoint, or holds objects that are not data.
    """
    import torch

    try:
        with _numpy_data_allowed(torch):
            content = torch.load(path, map_location="cpu", weights_only=not trusted)
    except pickle.UnpicklingError as error:
        unsafe = re.search(r"GLOBAL ([\w.]+)|class ([\w.]+)", str(error))
        if unsafe:
            raise CalibUncertaintyError(
                f"{path} holds a Python object ({unsafe[1] or unsafe[2]}) that could run code when it is loaded; if you trust"
                " where the model comes from, run again with --trust-checkpoint"
            ) from error
        raise _damaged(path) from error
    except FileNotFoundError as error:
        raise CalibUncertaintyError(f"{path} is missing; copy the whole model folder") from error
    except PermissionError as error:
        raise CalibUncertaintyError(f"{path} may not be read; check its permissions") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error
    if not isinstance(content, dict) or not isinstance(content.get("network_weights"), dict):
        raise CalibUncertaintyError(f"{path} is not an nnU-Net v2 checkpoint (it has no network weights)")
    axes = content.get("inference_allowed_mirroring_axes")
    return Checkpoint(
        path,
        # nnU-Net's DDP and torch.compile runs prefix the names
        {
            name.removeprefix("module.").removeprefix("_orig_mod."): value
            for name, value in content["network_weights"].items()
        },
        str(content.get("trainer_name", "")),
        str((content.get("init_args") or {}).get("configuration", "")),
        tuple(int(axis) for axis in axes) if axes is not None else None,
    )


def _damaged(path: Path) -> CalibUncertaintyError:
    return CalibUncertaintyError(f"{path} is truncated or is not a checkpoint; copy it again")


def _numpy_data_allowed(torch):
    """nnU-Net's training log holds numpy numbers, which are data; `weights_only` must be told so, under old and new names."""
    import numpy as np

    reconstruct = np.ndarray.__reduce__(np.zeros(1))[0]
    scalar = np.float64(0).__reduce__()[0]
    allowed = [np.dtype, np.ndarray, torch.device, torch.Size]
    allowed += [
        type(np.dtype(code)) for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
    ]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed += [(scalar, f"{module}.scalar"), (reconstruct, f"{module}._reconstruct")]
    return torch.serialization.safe_globals(allowed)
