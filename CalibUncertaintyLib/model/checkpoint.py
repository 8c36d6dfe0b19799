"""Loading nnU-Net checkpoints without running the code that a pickle may carry."""

from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CalibUncertaintyError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Checkpoint:
    """What inference needs of a checkpoint.

    weights: they may be mapped from the file, which then must not be overwritten while they are held. mirroring_axes: of the
    network's spatial axes; None where the checkpoint does not say. version: of the file, its size and time of change.
    """

    path: Path
    weights: dict[str, torch.Tensor]
    trainer: str
    configuration: str
    mirroring_axes: tuple[int, ...] | None
    version: tuple[int, int] = (0, 0)
    trusted: bool = False

    def without_weights(self) -> Checkpoint:
        """The same less its weights: what to keep of many members, since `read_weights` gives them back in milliseconds."""
        return replace(self, weights={})

    def digest(self) -> str:
        """SHA-256 of the weights alone: the file's other content differs between a cycle's last checkpoint and the final one."""
        import torch

        digest = hashlib.sha256()
        for name in sorted(self.weights):
            digest.update(name.encode())
            # as bytes: numpy has no bfloat16
            digest.update(self.weights[name].detach().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def read_weights(self) -> dict[str, torch.Tensor]:
        """The weights, from the file once more. Raises CalibUncertaintyError when the file is not the one that was read before."""
        try:
            changed = _version_of(self.path) != self.version
        except OSError as error:
            raise CalibUncertaintyError(f"{self.path} was there a moment ago and cannot be read now") from error
        if changed:
            raise CalibUncertaintyError(f"{self.path} was changed during the run (is it still training?); run again")
        return load_checkpoint(self.path, self.trusted).weights


def load_checkpoint(path: Path, trusted: bool = False) -> Checkpoint:
    """Read a stock nnU-Net checkpoint (or one with weights only) onto the CPU.

    trusted: read any pickle, as nnU-Net does; a checkpoint from a stranger can then run code on this computer.
    Raises CalibUncertaintyError naming the file when it is truncated, not a checkpoint, or holds objects that are not data.
    """
    import torch

    try:
        version = _version_of(path)
        with _numpy_data_allowed(torch):
            content = _load(torch, path, trusted)
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
        _axes(axes, path),
        version,
        trusted,
    )


def _load(torch, path: Path, trusted: bool):
    """Mapped from the file where possible: the optimizer's state, two thirds of it, is then never read, and weights only once."""
    if zipfile.is_zipfile(path):  # not so: written before PyTorch 1.6, or truncated
        try:
            return torch.load(path, map_location="cpu", weights_only=not trusted, mmap=True)
        except (OSError, RuntimeError):
            pass  # a file system that cannot map files (PyTorch's RuntimeError); what is damaged fails once more below
    return torch.load(path, map_location="cpu", weights_only=not trusted)


def _version_of(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def agreed_mirroring_axes(checkpoints: Sequence[Checkpoint], n_axes: int) -> tuple[int, ...]:
    """The axes in which all of these may be mirrored; () for none. n_axes: how many spatial axes the network has.

    Stock nnU-Net asks only the first fold. Raises CalibUncertaintyError naming two members that differ, or a wrong axis.
    """
    first = checkpoints[0]
    for checkpoint in checkpoints:
        axes, expected = set(checkpoint.mirroring_axes or ()), set(first.mirroring_axes or ())
        if axes != expected:
            raise CalibUncertaintyError(
                f"{checkpoint.path} was trained with {_mirrorings(axes)} and {first.path} with {_mirrorings(expected)}; ask members"
                " that agree, or turn flips off"
            )
        if not axes <= set(range(n_axes)):
            raise CalibUncertaintyError(
                f"{checkpoint.path} allows mirroring of axis {max(axes, key=abs)}, which its {n_axes}D network does not have;"
                " copy the fold and the plans of the same training, or turn flips off"
            )
    return tuple(first.mirroring_axes or ())  # in its order: nnU-Net adds up the mirrored passes in it


def _mirrorings(axes: set[int]) -> str:
    if not axes:
        return "no mirroring"
    shown = ", ".join(str(axis) for axis in sorted(axes))
    return f"mirroring of {'axis' if len(axes) == 1 else 'axes'} {shown}"


def _axes(stored, path: Path) -> tuple[int, ...] | None:
    try:
        return None if stored is None else tuple(int(axis) for axis in stored)
    except (TypeError, ValueError) as error:
        raise CalibUncertaintyError(
            f"{path} says '{stored}' about the axes it may be mirrored in, which are no axes; copy it again"
        ) from error


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
