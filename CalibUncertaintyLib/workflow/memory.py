"""How much memory there is: of this computer, of the container it may be shut in, of a GPU. Without psutil."""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path

_NO_LIMIT = 1 << 60  # what cgroups of version 1 say instead of "max"
_V1_MEMORY = "memory"


@dataclass(frozen=True)
class Available:
    """MB (1e6 bytes) that a program could still take, None where the system does not tell; `source` says of what, or why not."""

    megabytes: float | None
    source: str
    swap_mb: float = 0.0


def free_memory() -> Available:
    """Of this computer, or of the container this process is shut in where that has less.

    Linux: MemAvailable, and the limits of the process's control groups (both versions; file pages that can be dropped count as
    free). Windows: GlobalMemoryStatusEx. macOS tells easily only how much there is in all, which is the most that can be free.
    """
    if sys.platform.startswith("linux"):
        return _linux(Path("/proc"), Path("/sys/fs/cgroup"))
    if sys.platform == "win32":
        return _windows()
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (OSError, ValueError, AttributeError):
        return Available(None, f"{sys.platform} does not tell its memory")
    return Available(total, "this computer's memory in all; how much of it is free, the system does not tell")


def own_memory() -> float:
    """Resident memory of this process now, MB; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


def free_gpu_memory(device: str) -> Available:
    """Of a CUDA device, and what this process's own PyTorch could give back; of Apple's GPU what PyTorch may take at most."""
    import torch

    try:
        if device.startswith("cuda"):
            free, total = torch.cuda.mem_get_info(torch.device(device))
            held = torch.cuda.memory_reserved(
                torch.device(device)
            )  # the model is there already, and is part of what is needed
            return Available((free + held) / 1e6, f"of {total / 1e9:.1f} GB of {device}")
        if device.startswith("mps") and hasattr(torch.mps, "recommended_max_memory"):
            total = torch.mps.recommended_max_memory()
            return Available(total / 1e6, "what PyTorch may take of the memory that it shares with the computer")
    except (RuntimeError, AssertionError, AttributeError) as error:
        return Available(None, f"{device} does not tell its memory ({' '.join(str(error).split())})")
    return Available(None, f"this PyTorch does not tell the memory of {device}")


def _linux(proc: Path, groups: Path) -> Available:
    lines = _fields(proc / "meminfo")
    free = lines.get("MemAvailable", lines.get("MemFree"))  # the first since Linux 3.14
    if free is None:
        return Available(None, "/proc/meminfo does not tell the memory")
    free, total = free * 1024 / 1e6, lines.get("MemTotal", free) * 1024 / 1e6
    swap = lines.get("SwapFree", 0) * 1024 / 1e6
    found = Available(free, f"free of {total / 1000:.1f} GB", swap)
    limited = _group(proc, groups)
    if limited is None or limited[0] / 1e6 >= free:
        return found
    room, limit = limited
    # a container's swap has limits of its own, which are seldom set: nothing is promised
    return Available(room / 1e6, f"left of the {limit / 1e9:.1f} GB that this container or job may use")


def _group(proc: Path, groups: Path) -> tuple[int, int] | None:
    """(bytes left, limit) of the tightest control group above this process, or None."""
    found = []
    for line in _text(proc / "self" / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, inside = rest.partition(":")
        if number == "0" and not controllers:
            root, names = groups, ("memory.max", "memory.current")
        elif _V1_MEMORY in controllers.split(","):
            root, names = groups / _V1_MEMORY, ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        # within a container the path may be the host's, and only the root is there: both are looked at
        folder = root / inside.lstrip("/")
        for place in dict.fromkeys((folder, *folder.parents)):
            if place != root and root not in place.parents:
                break
            limit, used = (_number(place / name) for name in names)
            if limit is None or used is None or limit >= _NO_LIMIT:
                continue
            found.append((max(0, limit - used + _droppable(place / "memory.stat")), limit))
    return min(found, default=None)


def _droppable(path: Path) -> int:
    """File pages that a control group gives back when memory runs short; they count as used."""
    values = dict(line.split()[:2] for line in _text(path).splitlines() if len(line.split()) == 2)
    for name in ("total_inactive_file", "inactive_file"):
        if values.get(name, "").isdigit():
            return int(values[name])
    return 0


def _windows() -> Available:
    class Status(ctypes.Structure):
        _fields_ = [("size", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [
            (name, ctypes.c_ulonglong)
            for name in ("total", "free", "total_page", "free_page", "total_virtual", "free_virtual", "extended")
        ]

    status = Status()
    status.size = ctypes.sizeof(Status)
    try:
        told = ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    except (AttributeError, OSError):
        told = 0
    if not told:
        return Available(None, "Windows does not tell its memory")
    swap = max(0, status.free_page - status.free) / 1e6
    return Available(status.free / 1e6, f"free of {status.total / 1e9:.1f} GB", swap)


def _fields(path: Path) -> dict[str, int]:
    """`Name:   123 kB` lines as {name: 123}."""
    found = {}
    for line in _text(path).splitlines():
        name, _, rest = line.partition(":")
        if rest.split() and rest.split()[0].isdigit():
            found[name] = int(rest.split()[0])
    return found


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
