"""The C library's allocator, set up for a program that trains."""

from __future__ import annotations

import ctypes
import functools
import os
import sys

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
