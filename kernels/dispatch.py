"""One kernel, several implementations: declared once on the NumPy reference, chosen once, here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from minigan.kernels.cpu.jit import say, why_no_compiler
from minigan.kernels.gpu import launch as cuda

Implementation = Callable[..., Any]

if why_no_compiler():
    say(f"{why_no_compiler()}: the kernels run in plain NumPy, which is slow")
_cpu_backend: ContextVar[str] = ContextVar("minigan_cpu_backend", default="reference" if why_no_compiler() else "numba")
_registry: dict[str, Kernel] = {}


class Kernel:
    """An array function with a readable reference and faster implementations of the same signature.

    The first argument decides the device. A NumPy array runs the CPU backend chosen by :func:`use`
    (Numba by default), any other array runs the ``cuda`` implementation.
    """

    def __init__(self, reference: Implementation) -> None:
        functools.update_wrapper(self, reference)
        self.__name__: str = reference.__name__
        self.implementations: dict[str, Implementation] = {"reference": reference}
        if self.__name__ in _registry:
            raise ValueError(f"a kernel named {self.__name__} is registered already")
        _registry[self.__name__] = self

    def numba(self, function: Implementation) -> Implementation:
        """Register the Numba version."""
        self.implementations["numba"] = function
        return function

    def cuda(self, function: Implementation) -> Implementation:
        """Register the CUDA version."""
        self.implementations["cuda"] = function
        return function

    def __call__(self, array: Any, *args: Any, **settings: Any) -> Any:
        """Run the implementation for the array's device and the backend in use."""
        backend = _cpu_backend.get() if type(array) is np.ndarray else "cuda"
        if backend == "cuda" and cuda.device_of(array) is None:
            raise TypeError(f"kernel {self.__name__} takes an array of NumPy or CuPy, not {type(array).__name__}")
        return self.implementations[backend](array, *args, **settings)

    def __repr__(self) -> str:
        return f"<kernel {self.__name__}: {', '.join(self.implementations)}>"


def kernel(reference: Implementation) -> Kernel:
    """Declare a kernel by its NumPy reference, which fixes name, signature and docstring."""
    return Kernel(reference)


def registry() -> dict[str, Kernel]:
    """Return every kernel by name."""
    return dict(_registry)


def active() -> str:
    """Return the CPU backend in use: ``"numba"`` or ``"reference"``."""
    return _cpu_backend.get()


@contextmanager
def use(backend: str) -> Iterator[None]:
    """Run CPU kernels on ``backend`` inside the ``with`` block: ``"reference"`` (readable) or ``"numba"`` (fast)."""
    if backend not in ("reference", "numba"):
        raise ValueError(f"use({backend!r}): the CPU backends are 'reference' and 'numba'")
    if backend == "numba" and why_no_compiler():
        raise ValueError(f"use('numba'): {why_no_compiler()}")
    token = _cpu_backend.set(backend)
    try:
        yield
    finally:
        _cpu_backend.reset(token)
