"""Memory: how much there is, and the C library's allocator, set up for a program that trains."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from pathlib import Path

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # the numbers of mallopt's options in malloc.h


@functools.cache
def keep_memory() -> None:
    """Let the C library keep freed arrays for the next step, which asks for the same sizes again: for whole programs.

    By default glibc hands large arrays back to the system when they are freed. Every page of a new one costs a fault: a
    tenth of a training step. This changes the allocator of the whole process until it ends, so no import and no kernel
    does it; ``minigan`` on the command line does. Call it once, before training starts, in a program that trains.

    The price: memory that was freed still counts as the process's, up to its peak. The allocator stays as it is if it
    is not glibc's or the user has set it (MALLOC_…).
    """
    choose = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if choose and not any(name.startswith("MALLOC_") for name in os.environ):
        choose(MMAP_THRESHOLD, 1 << 25)  # the most that glibc takes
        choose(TRIM_THRESHOLD, (1 << 31) - 1)


class TooLarge(ValueError):
    """Something does not fit into the memory that is free; the message says what, and what to do."""


def require_memory(size: float, what: str, remedy: str) -> None:
    """Raise :class:`TooLarge` if ``what``, which takes at least ``size`` bytes, does not fit into the free memory."""
    free = free_memory()
    if size > free:
        raise TooLarge(f"{what} takes at least {_in_units(size)} of memory, and {_in_units(free)} are free: {remedy}")


def free_memory() -> float:
    """Return the bytes that this process can still get, swap included; infinity where the system does not say."""
    return max(0.0, min(_of_machine(), _of_group(Path("/sys/fs/cgroup")), _of_limit()))


def _in_units(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB" if size < 1e6 else f"{size:.0e} TB"


def _of_machine() -> float:
    try:
        rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return sum(float(rows[name].split()[0]) for name in ("MemAvailable", "SwapFree")) * 1024
    except (OSError, ValueError, KeyError):
        pass
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return float("inf")


def _of_group(root: Path) -> float:
    """Return what a container's limit leaves: that of its group of processes, less its memory without file caches."""
    for most, used, caches in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            rows = dict(line.split() for line in (root / caches).read_text().splitlines())
            held = float((root / used).read_text()) - float(rows.get("inactive_file", 0))
            return float((root / most).read_text().replace("max", "inf")) - held
        except (OSError, ValueError):
            continue
    return float("inf")


def _of_limit() -> float:
    """Return what ``ulimit -v`` leaves."""
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most == resource.RLIM_INFINITY:
            return float("inf")
        return most - float(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError, ValueError):
        return float("inf")
