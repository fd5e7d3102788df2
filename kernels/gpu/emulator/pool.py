"""How much device memory there is and who holds it, by the names of CuPy's pool."""

from __future__ import annotations

import os

from minigan.kernels.gpu.emulator.errors import OutOfMemoryError


class MemoryPool:
    """The memory that arrays hold, and the most they may: the machine's, unless a limit is set."""

    malloc = None  # for cuda.using_allocator: all memory is the default pool's here

    def __init__(self) -> None:
        self._used = self._limit = 0

    def used_bytes(self) -> int:
        """Return the bytes of the arrays that are alive."""
        return self._used

    def total_bytes(self) -> int:
        """Return the bytes that the pool holds: nothing is kept for later here."""
        return self._used

    def get_limit(self) -> int:
        """Return the most bytes that arrays may hold, 0 for no limit."""
        return self._limit

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        """Limit what arrays may hold, in bytes or as a fraction of the device's memory; 0 for no limit."""
        self._limit = int(fraction * _machine()) if fraction is not None else int(size or 0)

    def take(self, size: int) -> None:
        """Count a block of memory, or raise OutOfMemoryError."""
        limit = self._limit or _machine()
        if self._used + size > limit:
            said = f" (allocated so far: {self._used:,} bytes, limit set to: {limit:,} bytes)"
            raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes{said}.")
        self._used += size

    def give(self, size: int) -> None:
        """Count a block as free."""
        self._used -= size


_default = MemoryPool()


def get_default_memory_pool() -> MemoryPool:
    """Return the pool that all arrays come from."""
    return _default


def free_and_total() -> tuple[int, int]:
    """Return the bytes that are free on the device, and all it has."""
    total = _default.get_limit() or _machine()
    return total - _default.used_bytes(), total


def _machine() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
