"""Making device arrays, and copying them to the device and back: CuPy's functions of these names."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan.kernels.gpu.emulator.array import lift, ndarray, new


def asarray(x: Any, dtype: Any = None, order: Any = None) -> ndarray:
    """Return x on the device: itself where it is there already and has the dtype."""
    if isinstance(x, ndarray):
        return x if dtype is None or x.dtype == np.dtype(dtype) else x.astype(dtype)
    return array(x, dtype)


def array(x: Any, dtype: Any = None, copy: bool = True, order: Any = None) -> ndarray:
    """Return a copy of x on the device."""
    if isinstance(x, ndarray):
        return x.astype(dtype or x.dtype)
    host = np.asarray(x, dtype)
    result = new(host.shape, host.dtype)
    result.set(host)
    return result


def ascontiguousarray(x: Any, dtype: Any = None) -> ndarray:
    """Return x with its entries in order in memory."""
    x = asarray(x, dtype)
    return x if x.flags.c_contiguous else lift(np.copy)(x, order="C")


def asnumpy(x: Any, *_: Any, **__: Any) -> np.ndarray:
    """Return x on the host."""
    return x.get() if isinstance(x, ndarray) else np.asarray(x)


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    """Return an array whose entries are poison."""
    return new(shape, dtype)


def full(shape: Any, value: Any, dtype: Any = None) -> ndarray:
    """Return an array filled with a number."""
    result = new(shape, np.asarray(value).dtype if dtype is None else dtype)
    result[...] = value
    return result


def zeros(shape: Any, dtype: Any = float) -> ndarray:
    """Return zeros."""
    return full(shape, 0, dtype)


def ones(shape: Any, dtype: Any = float) -> ndarray:
    """Return ones."""
    return full(shape, 1, dtype)


def empty_like(x: Any, dtype: Any = None, shape: Any = None, **_: Any) -> ndarray:
    """Return an array of the shape and dtype of x whose entries are poison."""
    return new(x.shape if shape is None else shape, dtype or x.dtype)


def zeros_like(x: Any, dtype: Any = None, **_: Any) -> ndarray:
    """Return zeros of the shape and dtype of x."""
    return zeros(x.shape, dtype or x.dtype)


def ones_like(x: Any, dtype: Any = None, **_: Any) -> ndarray:
    """Return ones of the shape and dtype of x."""
    return ones(x.shape, dtype or x.dtype)


def full_like(x: Any, value: Any, dtype: Any = None, **_: Any) -> ndarray:
    """Return an array of the shape and dtype of x filled with a number."""
    return full(x.shape, value, dtype or x.dtype)
