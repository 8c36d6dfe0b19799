"""Where networks run, in which precision, and how running out of memory is told from other failures."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ..errors import CalibUncertaintyError

if TYPE_CHECKING:
    import torch


OUT_OF_MEMORY = (
    "there is not enough memory for this CT and model; close other programs, crop the CT, or use the CPU, not a GPU"
)


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


def autocast_for(device: torch.device, precision: str) -> Callable[[], contextlib.AbstractContextManager]:
    """What a forward is wrapped in. stock: mixed precision on CUDA and single elsewhere, as nnU-Net does; bf16: on CPUs.

    Raises CalibUncertaintyError where bf16 is asked for and the device has nothing to gain from it.
    """
    import torch

    if precision == "stock":
        return (lambda: torch.autocast("cuda")) if device.type == "cuda" else contextlib.nullcontext
    if device.type != "cpu":
        raise CalibUncertaintyError(
            f"--precision bf16 is for CPUs; on {device.type} nnU-Net's own precision is used: leave it out"
        )
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise CalibUncertaintyError("this CPU has no bf16 arithmetic; leave --precision bf16 out")
    return lambda: torch.autocast("cpu", dtype=torch.bfloat16)


@contextlib.contextmanager
def keeping_memory() -> Iterator[None]:
    """Let glibc keep freed memory for the next forward. Giving it back after every layer, and having it cleared by the system when
    it is asked for again, took nearly half of a forward's time on a CPU. `give_back_memory` empties it; nothing elsewhere.
    """
    trim, mapped = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    set_to: list[tuple[int, int]] = []
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(mapped, 1 << 25)  # its largest
            mallopt(trim, (1 << 31) - 1)
            set_to = [(trim, 1 << 26)]  # where glibc's own adjustment ends up after large arrays
    try:
        yield
    finally:
        for which, value in set_to:
            mallopt(which, value)


def give_back_memory() -> None:
    """Return to the system what was freed: glibc keeps it for later, and the stages of a run need theirs in other sizes."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # musl has none
            ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Random numbers of one device from this seed; afterwards they go on as if nothing had been drawn."""
    import torch

    if device.type == "mps":
        state = torch.mps.get_rng_state()
        torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            torch.mps.set_rng_state(state)
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)
        yield


def is_out_of_memory(error: BaseException) -> bool:
    """PyTorch has a class of its own for GPUs, and a RuntimeError for the CPU."""
    import torch

    kinds = (MemoryError, getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError))
    if isinstance(error, kinds):
        return True
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


@contextlib.contextmanager
def out_of_memory_in_words() -> Iterator[None]:
    """Turn running out of memory, wherever it happens inside, into one line (CalibUncertaintyError). Also a decorator."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise CalibUncertaintyError(OUT_OF_MEMORY) from error
