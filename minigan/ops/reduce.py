"""Reductions, and broadcast_to, which is the adjoint of the sum.

``axis`` is None (all axes), an int or a tuple of ints, and ``keepdims`` leaves reduced axes with length 1, as in NumPy.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigan import kernels
from minigan.engine.device import xp
from minigan.engine.primitive import primitive, primitive_of_numbers
from minigan.engine.tensor import FLOATS, Tensor
from minigan.ops.elementwise import constant, raw, square
from minigan.ops.shape import reshape, whole_numbers

Axis = int | tuple[int, ...] | None


def axes_of(name: str, x: Any, axis: Axis) -> tuple[int, ...]:
    """Return ``axis`` as a sorted tuple of numbers >= 0; ValueError names the op if an axis does not exist."""
    ndim = raw(x).ndim
    wanted = whole_numbers(f"{name}: an axis", range(ndim) if axis is None else axis)
    found = sorted(a + ndim if a < 0 else a for a in wanted)
    if any(not 0 <= a < ndim for a in found) or len(set(found)) < len(found):
        raise ValueError(f"{name}(x {raw(x).shape}, axis={axis}): every axis must exist and be given once")
    return tuple(found)


def _kept(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def _spread(reduced: Tensor, shape: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    """Broadcast a reduced Tensor (with or without its axes) back to ``shape``."""
    return broadcast_to(reshape(reduced, _kept(shape, axes)), shape)


def _drop(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    return x if keepdims else reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in axes))


def _as_tensor(x: Any) -> Tensor:
    return x if type(x) is Tensor else Tensor(x)


@primitive_of_numbers
def _sum(x: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    if x.dtype not in FLOATS:
        return x.sum(axes, keepdims=keepdims)
    return kernels.sum_axes(x, axes=axes, keepdims=keepdims)


_sum.defvjp(lambda g, y, x, *, axes, keepdims: _spread(g, x.shape, axes))


@primitive_of_numbers
def _broadcast_to(x: Any, *, shape: tuple[int, ...]) -> Any:
    return xp(x).broadcast_to(x, shape)


_broadcast_to.defvjp(lambda g, y, x, *, shape: sum_to(g, x.shape))


def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Sum over ``axis``."""
    x = _as_tensor(x)
    return _sum(x, axes=axes_of("sum", x, axis), keepdims=keepdims)


def broadcast_to(x: Any, shape: tuple[int, ...]) -> Tensor:
    """Repeat x along new axes and axes of length 1 until it has ``shape``."""
    return _broadcast_to(_as_tensor(x), shape=whole_numbers("broadcast_to: a length", shape))


def sum_to(x: Any, shape: tuple[int, ...]) -> Tensor:
    """Sum x down to ``shape``: the adjoint of broadcasting from ``shape``; ValueError if it does not broadcast to x."""
    x, shape = _as_tensor(x), whole_numbers("sum_to: a length", shape)
    lead = x.ndim - len(shape)
    if lead < 0 or any(n not in (1, m) for n, m in zip(shape, x.shape[lead:], strict=True)):
        raise ValueError(f"sum_to(x {x.shape}, shape={shape}): an array of this shape does not broadcast to x")
    axes = tuple(range(lead)) + tuple(lead + i for i, n in enumerate(shape) if n == 1 and x.shape[lead + i] != 1)
    return reshape(_sum(x, axes=axes, keepdims=False), shape) if axes else x


def _count(name: str, x: Tensor, axes: tuple[int, ...]) -> int:
    n = math.prod(x.shape[a] for a in axes)
    if n == 0:
        raise ValueError(f"{name}(x {x.shape}): nothing to reduce over axes {axes}")
    return n


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Mean over ``axis``; ValueError for an axis of length 0."""
    x = _as_tensor(x)
    if x.dtype not in FLOATS:
        raise TypeError(f'mean: x is {x.dtype}, and a mean is a float: use astype("float32")')
    axes = axes_of("mean", x, axis)
    return _sum(x, axes=axes, keepdims=keepdims) * (1.0 / _count("mean", x, axes))


def var(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Biased variance over ``axis``: the mean of squared distances from the mean."""
    x = _as_tensor(x)
    return mean(square(x - mean(x, axis, keepdims=True)), axis, keepdims)


@primitive_of_numbers
def _amax(x: Any, *, axes: tuple[int, ...]) -> Any:
    return x.max(axes, keepdims=True)


@primitive_of_numbers
def _amin(x: Any, *, axes: tuple[int, ...]) -> Any:
    return x.min(axes, keepdims=True)


def _shared_by_ties(g: Tensor, y: Tensor, x: Tensor, *, axes: tuple[int, ...]) -> Tensor:
    return g * constant(_share_of_ties, x.data, y.data, axes)


def _share_of_ties(x: Any, y: Any, axes: tuple[int, ...]) -> Any:
    winners = x == y
    return (winners / winners.sum(axes, keepdims=True)).astype(x.dtype)


_amax.defvjp(_shared_by_ties)
_amin.defvjp(_shared_by_ties)


def max(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Largest entry over ``axis``; ties share the gradient evenly."""
    x = _as_tensor(x)
    axes = axes_of("max", x, axis)
    _count("max", x, axes)
    return _drop(_amax(x, axes=axes), axes, keepdims)


def min(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Smallest entry over ``axis``; ties share the gradient evenly."""
    x = _as_tensor(x)
    axes = axes_of("min", x, axis)
    _count("min", x, axes)
    return _drop(_amin(x, axes=axes), axes, keepdims)


@primitive
def _softmax(x: Any, *, axes: tuple[int, ...]) -> Any:
    e = xp(x).exp(x - x.max(axes, keepdims=True))
    return e / e.sum(axes, keepdims=True)


_softmax.defvjp(lambda g, y, x, *, axes: y * (g - _sum(g * y, axes=axes, keepdims=True)))


@primitive
def _logsumexp(x: Any, *, axes: tuple[int, ...]) -> Any:
    m = xp(x)
    top = x.max(axes, keepdims=True)
    top = m.where(m.isfinite(top), top, 0)  # inf − inf would be NaN: the result is ±inf without it
    return top + m.log(m.exp(x - top).sum(axes, keepdims=True))


@primitive
def shares(x: Any, *, axes: tuple[int, ...]) -> Any:
    """e^x / Σ e^x, but beside an infinite entry, which alone has no share, the others have 0."""
    m = xp(x)
    top = x.max(axes, keepdims=True)
    e = m.exp(x - top)
    return e / m.where(top == np.inf, 1, e.sum(axes, keepdims=True))


shares.defvjp(lambda g, y, x, *, axes: y * (g - _sum(g * y, axes=axes, keepdims=True)))
_logsumexp.defvjp(lambda g, y, x, *, axes: g * shares(x, axes=axes))


def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """log Σ e^x over ``axis``, without overflow."""
    x = _as_tensor(x)
    axes = axes_of("logsumexp", x, axis)
    _count("logsumexp", x, axes)
    return _drop(_logsumexp(x, axes=axes), axes, keepdims)


def softmax(x: Any, axis: Axis = -1) -> Tensor:
    """e^x / Σ e^x over ``axis``."""
    x = _as_tensor(x)
    axes = axes_of("softmax", x, axis)
    _count("softmax", x, axes)
    return _softmax(x, axes=axes)
