"""Device memory on the host: arrays apart from NumPy's, poisoned when new, that know which bytes were written.

Arithmetic on arrays is NumPy's. What CuPy refuses is refused: host arrays among device arrays, conversion to a host
array with ``np.asarray``, reading a value while a stream captures.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from minigan.kernels.gpu.emulator.pool import get_default_memory_pool
from minigan.kernels.gpu.emulator.stream import forbid_in_capture, get_current_stream, submit, wait_to_read

POISON = 0xFF  # bytes of new memory: NaN in every float format, and −1


class Memory:
    """A block of device memory, with a byte for each of its bytes that says whether it was written."""

    def __init__(self, size: int) -> None:
        get_default_memory_pool().take(size)
        block = np.empty(size + 64, np.uint8)
        start = -block.ctypes.data % 64
        self.bytes = block[start : start + size]
        self.bytes[:] = POISON
        self.written = np.zeros(size, np.uint8)
        self.address = self.bytes.ctypes.data
        weakref.finalize(self, get_default_memory_pool().give, size)


class ndarray:  # noqa: N801
    """An array in device memory: CuPy's ndarray, as far as it behaves like NumPy's."""

    __slots__ = ("__weakref__", "_host", "_memory", "base")
    __array_priority__ = 100

    def __init__(self, host: np.ndarray, memory: Memory, base: ndarray | None = None) -> None:
        self._host = host
        self._memory = memory
        self.base: ndarray | None = base if base is None or base.base is None else base.base

    # --- properties ---------------------------------------------------------------------------------------------------

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: self._host.flags)
    T = property(lambda self: ndarray(self._host.T, self._memory, self))

    @property
    def data(self) -> Pointer:
        """The pointer to the first entry."""
        return Pointer(self._host.ctypes.data)

    def written(self) -> np.ndarray:
        """Return the bytes that say what was written, (*shape, itemsize)."""
        offset = self._host.ctypes.data - self._memory.address
        shape, strides = (*self.shape, self.itemsize), (*self.strides, 1)
        return as_strided(self._memory.written[offset:], shape, strides)

    def __len__(self) -> int:
        return len(self._host)

    def __repr__(self) -> str:
        return "device " + repr(self._host)

    # --- to the host and back -----------------------------------------------------------------------------------------

    def get(self, *_: Any, **__: Any) -> np.ndarray:
        """Return a copy on the host."""
        wait_to_read("reading an array on the host")
        return self._host.copy()

    def item(self) -> Any:
        """Return the only entry as a number."""
        return self.get().item()

    def tolist(self) -> Any:
        """Return the entries as numbers in lists."""
        return self.get().tolist()

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def set(self, values: np.ndarray, stream: Any = None) -> None:
        """Copy from a host array of the same shape and dtype."""
        forbid_in_capture("copying from the host")
        if values.shape != self.shape or values.dtype != self.dtype:
            raise ValueError(f"set: {values.dtype} {values.shape} does not fit {self.dtype} {self.shape}")
        values = values.copy()  # the host may change its own meanwhile

        def store() -> None:
            self._host[...] = values
            self.written()[...] = 1

        submit(store, stream)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed: use .get()")

    # --- arithmetic ---------------------------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        return lift(getattr(ufunc, method))(*args, **kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return lift(function)(*args, **kwargs)

    def __getitem__(self, index: Any) -> Any:
        return lift(operator.getitem)(self, _index(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        where, host = _index(index), value._host if isinstance(value, ndarray) else value
        if isinstance(host, np.ndarray) and not isinstance(value, ndarray) and host.ndim:
            raise TypeError(f"Unsupported type {type(value)}: bring it to the device first")

        def store() -> None:
            self._host[where] = host
            self.written()[where] = 1

        submit(store)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        getattr(self._host, name)  # raises NumPy's AttributeError
        return lambda *args, **kwargs: lift(lambda a, *rest, **named: getattr(a, name)(*rest, **named))(
            self, *args, **kwargs
        )


class Pointer:
    """The address of an array."""

    def __init__(self, address: int) -> None:
        self.ptr = address


def _unary(name: str) -> None:
    function = getattr(operator, name)
    setattr(ndarray, f"__{name}__", lambda self: lift(function)(self))


def _compare(name: str) -> None:
    function = getattr(operator, name)
    setattr(ndarray, f"__{name}__", lambda self, other: lift(function)(self, other))


def _binary(name: str, function: Callable[..., Any]) -> None:
    setattr(ndarray, f"__{name}__", lambda self, other: lift(function)(self, other))
    setattr(ndarray, f"__r{name}__", lambda self, other: lift(function)(other, self))


def _in_place(name: str, function: Callable[..., Any]) -> None:
    def apply(self: ndarray, other: Any) -> ndarray:
        operand = _host(other)

        def change() -> None:
            function(self._host, operand)
            self.written()[...] = 1

        submit(change)
        return self

    setattr(ndarray, f"__i{name}__", apply)


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    _binary(_name, getattr(operator, _name))
    _in_place(_name, getattr(operator, f"i{_name}"))
for _name in ("matmul", "and", "or", "xor", "lshift", "rshift"):
    _binary(_name, getattr(operator, {"and": "and_", "or": "or_"}.get(_name, _name)))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    _compare(_name)
for _name in ("neg", "pos", "abs", "invert"):
    _unary(_name)
ndarray.__hash__ = object.__hash__  # type: ignore[method-assign]


def _index(index: Any) -> Any:
    """Return an index with device arrays as host arrays; indices may come from the host."""
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    return index._host if isinstance(index, ndarray) else index


def _host(value: Any) -> Any:
    """Return a value with device arrays as host arrays; TypeError for host arrays, as CuPy's."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}: bring it to the device first")
    if isinstance(value, tuple | list):
        return type(value)(map(_host, value))
    return value


def new(shape: int | tuple[int, ...], dtype: Any = float) -> ndarray:
    """Return an array of poisoned memory."""
    dtype = np.dtype(dtype)
    shape = tuple(map(int, shape)) if isinstance(shape, tuple | list) else (int(shape),)
    memory = Memory(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
    return ndarray(memory.bytes.view(dtype).reshape(shape), memory)


def lift(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a NumPy function as one on device arrays: views stay views, other results get new memory."""

    def lifted(*args: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", None)
        out = out[0] if isinstance(out, tuple) else out
        sources = [a for a in (*args, *kwargs.values()) if isinstance(a, ndarray)]
        plain = function is operator.getitem  # an index may come from the host
        host_args = [_host(args[0]), args[1]] if plain else list(map(_host, args))
        host_kwargs = {name: _host(value) for name, value in kwargs.items()}

        def compute() -> Any:
            with np.errstate(all="ignore"):  # a device says nothing
                return function(*host_args, **host_kwargs)

        found = compute()
        if isinstance(found, tuple | list):
            parts = (_result(part, _part(compute, i), sources, None) for i, part in enumerate(found))
            return type(found)(parts)
        return _result(found, compute, sources, out)

    return lifted


def _part(compute: Callable[[], Any], i: int) -> Callable[[], Any]:
    return lambda: compute()[i]


def _result(found: Any, compute: Callable[[], Any], sources: list[ndarray], out: ndarray | None) -> Any:
    """Put a result into device memory, or return it as a view of its source."""
    if not isinstance(found, np.ndarray | np.generic):
        return found
    if out is None and isinstance(found, np.ndarray) and found.base is not None:
        for source in sources:
            inside = 0 <= found.ctypes.data - source._memory.address < max(1, source._memory.bytes.size)
            if inside and np.may_share_memory(found, source._host):
                return ndarray(found, source._memory, source)
    result = new(found.shape, found.dtype) if out is None else out
    later = get_current_stream().defers()

    def store() -> None:
        result._host[...] = compute() if later else found
        if out is None:
            result._memory.written.fill(1)
        else:
            result.written()[...] = 1

    submit(store)
    return result
