"""One kernel, several implementations: declared once on the NumPy reference, checked and chosen once, here.

Compiled code is made for one type of each argument and reads another type's bytes as if they were its own. So what
reaches an implementation has the types that the reference's signature declares: settings are converted, or refused.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from minigan.kernels.cpu.jit import say, why_no_compiler
from minigan.kernels.gpu import launch as cuda
from minigan.kernels.settings import KINDS

Implementation = Callable[..., Any]

if why_no_compiler():
    say(f"{why_no_compiler()}: the kernels run in plain NumPy, which is slow")
_cpu_backend: ContextVar[str] = ContextVar("minigan_cpu_backend", default="reference" if why_no_compiler() else "numba")
_registry: dict[str, Kernel] = {}

FLOATS: tuple[Any, ...] = (np.dtype(np.float32), np.dtype(np.float64))
WORDS: tuple[Any, ...] = (np.dtype(np.uint32),)


class Kernel:
    """An array function with a readable reference and faster implementations of the same signature.

    What the reference annotates as ``Any`` is an array, as ``Any | None`` an array that may be left out, everything
    else a setting. The arrays of a call lie on one device, which decides the implementation: those of NumPy run the CPU
    backend chosen by :func:`use` (Numba by default), any others ``cuda``.

    TypeError unless all arrays share one of ``dtypes``, and for a setting of another kind. ValueError for what the
    kernel's own :meth:`check` refuses.
    """

    def __init__(self, reference: Implementation, dtypes: tuple[Any, ...] = FLOATS) -> None:
        functools.update_wrapper(self, reference)
        self.__name__: str = reference.__name__
        self.dtypes = dtypes
        self.implementations: dict[str, Implementation] = {"reference": reference}
        if self.__name__ in _registry:
            raise ValueError(f"a kernel named {self.__name__} is registered already")
        self._arrays, self._settings = _declared(reference)
        self._first, *self._others = self._arrays
        self._check: Implementation | None = None
        _registry[self.__name__] = self

    def check(self, function: Implementation) -> Implementation:
        """Register what raises ValueError for shapes and settings that no implementation may get."""
        self._check = function
        return function

    def numba(self, function: Implementation) -> Implementation:
        """Register the Numba version."""
        self.implementations["numba"] = function
        return function

    def cuda(self, function: Implementation) -> Implementation:
        """Register the CUDA version."""
        self.implementations["cuda"] = function
        return function

    def __call__(self, array: Any, *others: Any, **settings: Any) -> Any:
        """Run the implementation for the array's device and the backend in use."""
        if type(array) is not np.ndarray or array.dtype not in self.dtypes:
            array = self._plain(self._first, array)
        kind, dtype = type(array), array.dtype
        for name, other in zip(self._others, others, strict=False):
            if (type(other) is not kind or other.dtype is not dtype) and (other is not None or not self._arrays[name]):
                others = tuple(self._like(array, *pair) for pair in zip(self._others, others, strict=False))
                break
        for name, value in settings.items():
            if name in self._arrays:
                if type(value) is not kind or value.dtype is not dtype:
                    settings[name] = self._like(array, name, value)
            elif name in self._settings and type(value) is not self._settings[name][0]:
                settings[name] = self._converted(name, value, array)
        if self._check is not None:
            self._check(array, *others, **settings)
        backend = _cpu_backend.get() if type(array) is np.ndarray else "cuda"
        return self.implementations[backend](array, *others, **settings)

    def _like(self, first: Any, name: str, array: Any) -> Any:
        """Return the array as a plain one, if it goes with the first one."""
        if array is None and self._arrays[name]:
            return None
        array = self._plain(name, array)
        if array.dtype != first.dtype:
            raise TypeError(f"{self._first} is {first.dtype} but {name} is {array.dtype}: bring both to one dtype")
        if type(array) is not type(first):
            raise TypeError(f"{self._first} and {name} lie on different devices: bring both to one")
        return array

    def _plain(self, name: str, array: Any) -> Any:
        """Return the array without the subclass that it may have, if the kernel takes its dtype."""
        if isinstance(array, np.ndarray) and not isinstance(array, np.ma.MaskedArray):
            array = np.asarray(array)
        elif cuda.device_of(array) is None:
            raise TypeError(f"kernel {self.__name__}: {name} must be an array, not {type(array).__name__}")
        if array.dtype not in self.dtypes:
            raise TypeError(f"{name} must be {' or '.join(map(str, self.dtypes))}, not {array.dtype}")
        return array

    def _converted(self, name: str, value: Any, array: Any) -> Any:
        """Return a setting in the type that the signature declares."""
        if type(value) is type(array) and type(array) is not np.ndarray:
            return value  # a captured graph reads the setting from device memory
        return self._settings[name][1](name, value)

    def __repr__(self) -> str:
        return f"<kernel {self.__name__}: {', '.join(self.implementations)}>"


def kernel(reference: Implementation) -> Kernel:
    """Declare a kernel of floats by its NumPy reference, which fixes name, signature and docstring."""
    return Kernel(reference)


def kernel_of_words(reference: Implementation) -> Kernel:
    """Declare a kernel of uint32 by its NumPy reference."""
    return Kernel(reference, WORDS)


def writable(**arrays: Any) -> None:
    """Raise ValueError for an array that a kernel would change and may not."""
    for name, array in arrays.items():
        if isinstance(array, np.ndarray) and not array.flags.writeable:
            raise ValueError(f"{name} is changed in place, and it is read-only")


def _declared(reference: Implementation) -> tuple[dict[str, bool], dict[str, Any]]:
    """Return the arrays of a reference, with whether each may be left out, and its settings with their types."""
    arrays, settings = {}, {}
    for name, parameter in inspect.signature(reference, eval_str=True).parameters.items():
        kind = parameter.annotation
        if kind in (Any, Any | None):
            arrays[name] = kind is not Any
        else:
            settings[name] = kind, KINDS[kind]
    return arrays, settings


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
