"""Ops that move entries without changing them. Adjoints stand together: getitem and scatter_add, concat and slices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigan.engine.device import device_of, is_array, resolve, to_device, xp
from minigan.engine.primitive import primitive_of_numbers
from minigan.engine.tensor import Tensor
from minigan.kernels.settings import whole
from minigan.ops.elementwise import shape_of


def whole_numbers(what: str, values: Any) -> tuple[int, ...]:
    """Return an integer or several as a tuple of Python's; TypeError for anything else, such as 2.5 or True."""
    return tuple(whole(what, n) for n in (values if np.iterable(values) else (values,)))


@primitive_of_numbers
def _reshape(x: Any, *, shape: tuple[int, ...]) -> Any:
    return x.reshape(shape)


_reshape.defvjp(lambda g, y, x, *, shape: _reshape(g, shape=x.shape))


def reshape(x: Any, *shape: Any) -> Tensor:
    """Return x in another shape with as many entries; one length may be −1. Takes a tuple or several ints."""
    return _reshape(x, shape=whole_numbers("reshape: a length", shape[0] if len(shape) == 1 else shape))


@primitive_of_numbers
def _transpose(x: Any, *, axes: tuple[int, ...]) -> Any:
    return x.transpose(axes)


_transpose.defvjp(lambda g, y, x, *, axes: _transpose(g, axes=tuple(int(i) for i in np.argsort(axes))))


def transpose(x: Any, axes: Sequence[int] | None = None) -> Tensor:
    """Permute the axes; reverse them when ``axes`` is not given."""
    ndim = len(shape_of(x))
    order = tuple(range(ndim))[::-1] if axes is None else whole_numbers("transpose: an axis", axes)
    order = tuple(a + ndim if a < 0 else a for a in order)
    if sorted(order) != list(range(ndim)):
        raise ValueError(f"transpose(x {shape_of(x)}, axes={axes}): the axes must be a permutation of all {ndim}")
    return _transpose(x, axes=order)


@primitive_of_numbers
def move(x: Any, *, device: str) -> Any:
    """x on a device, the same or another."""
    return to_device(x, device)


move.defvjp(lambda g, y, x, *, device: move(g, device=device_of(x.data)))


def to(x: Any, device: str) -> Tensor:
    """Return x on ``device``: itself if it is there already. Its gradient moves back to x's device."""
    device = resolve(device)
    return x if isinstance(x, Tensor) and device_of(x.data) == device else move(x, device=device)


@primitive_of_numbers
def _getitem(x: Any, *, index: Any) -> Any:
    return x[index]


_getitem.defvjp(lambda g, y, x, *, index: scatter_add(g, index, x.shape))


@primitive_of_numbers
def _scatter_add(x: Any, *, index: Any, shape: tuple[int, ...]) -> Any:
    out = xp(x).zeros(shape, x.dtype)
    if _has_arrays(index):
        _add_at(out, index, x)
    else:
        out[index] = x
    return out


_scatter_add.defvjp(lambda g, y, x, *, index, shape: _getitem(g, index=index))


def _add_at(out: Any, index: Any, x: Any) -> None:
    """Add x to out at indices that may repeat, in the order of x."""
    if isinstance(out, np.ndarray):
        sums = out.astype(np.float64) if out.dtype == np.float32 else out  # a sum of many loses no digits
        np.add.at(sums, index, x)
        out[...] = sums
        return
    m = xp(out)  # a device adds repeated indices in any order, so each round adds at distinct indices
    where = m.arange(out.size).reshape(out.shape)[index]
    order = m.argsort(where.reshape(-1), kind="stable")
    places, values = where.reshape(-1)[order], m.broadcast_to(x, where.shape).reshape(-1)[order]
    flat = out.reshape(-1)
    while places.size:
        first = m.concatenate([m.ones(1, bool), places[1:] != places[:-1]])
        flat[places[first]] = flat[places[first]] + values[first]
        places, values = places[~first], values[~first]


def _has_arrays(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(is_array(part) or isinstance(part, list) for part in parts)


def _plain_index(index: Any) -> Any:
    """Replace Tensors and sequences by arrays, so that the index is a constant."""
    if isinstance(index, tuple):
        return tuple(_plain_index(list(part) if isinstance(part, tuple) else part) for part in index)
    if isinstance(index, list) and not index:
        return np.empty(0, np.intp)
    if isinstance(index, Tensor):
        return index.data.copy()
    return index.copy() if is_array(index) else np.array(index) if isinstance(index, list) else index


def getitem(x: Any, index: Any) -> Tensor:
    """x[index] as in NumPy: ints, slices, None, Ellipsis, integer and bool arrays."""
    return _getitem(x, index=_plain_index(index))


def scatter_add(x: Any, index: Any, shape: tuple[int, ...]) -> Tensor:
    """Return zeros of ``shape`` with x added at ``index``, repeated indices adding up: the adjoint of getitem."""
    return _scatter_add(x, index=_plain_index(index), shape=whole_numbers("scatter_add: a length", shape))


@primitive_of_numbers
def _concat(*xs: Any, axis: int) -> Any:
    return np.concatenate(xs, axis)


def _slices(g: Tensor, y: Tensor, *xs: Any, axis: int) -> list[Tensor]:
    before: tuple[Any, ...] = (slice(None),) * axis
    ends = np.cumsum([shape_of(x)[axis] for x in xs]).tolist()
    return [_getitem(g, index=(*before, slice(low, high))) for low, high in zip([0, *ends], ends, strict=False)]


_concat.defvjp_joint(_slices)


def concat(xs: Sequence[Any], axis: int = 0) -> Tensor:
    """Join Tensors along an existing axis; their other axes must agree."""
    if not xs:
        raise ValueError("concat: needs at least one Tensor")
    ndim, axis = len(shape_of(xs[0])), whole("concat: axis", axis)
    if not -ndim <= axis < ndim:
        raise ValueError(f"concat: axis {axis} is not one of the {ndim} axes of {shape_of(xs[0])}")
    return _concat(*xs, axis=axis % ndim)


def stack(xs: Sequence[Any], axis: int = 0) -> Tensor:
    """Join Tensors of one shape along a new axis."""
    if not xs:
        raise ValueError("stack: needs at least one Tensor")
    shape, axis = shape_of(xs[0]), whole("stack: axis", axis)
    if any(shape_of(x) != shape for x in xs):
        raise ValueError(f"stack: all shapes must be equal, got {', '.join(str(shape_of(x)) for x in xs)}")
    if not -len(shape) - 1 <= axis <= len(shape):
        raise ValueError(f"stack: axis {axis} is out of range for Tensors of shape {shape}")
    at = axis % (len(shape) + 1)
    return concat([reshape(x, (*shape[:at], 1, *shape[at:])) for x in xs], at)


@primitive_of_numbers
def _pad(x: Any, *, widths: tuple[tuple[int, int], ...]) -> Any:
    out = xp(x).zeros([low + n + high for n, (low, high) in zip(x.shape, widths, strict=True)], x.dtype)
    out[_inside(x.shape, widths)] = x
    return out


def _inside(shape: tuple[int, ...], widths: Sequence[tuple[int, int]]) -> tuple[slice, ...]:
    return tuple(slice(low, low + n) for n, (low, _) in zip(shape, widths, strict=True))


_pad.defvjp(lambda g, y, x, *, widths: _getitem(g, index=_inside(x.shape, widths)))


def pad(x: Any, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Surround x with zeros: ``widths`` gives (before, after) for every axis."""
    shape = shape_of(x)
    pairs = [whole_numbers("pad: a width", pair) for pair in widths]
    if len(pairs) != len(shape) or any(len(pair) != 2 or min(pair) < 0 for pair in pairs):
        raise ValueError(
            f"pad(x {shape}, widths={widths}): widths must be one pair (before, after) >= 0 for every axis"
        )
    return _pad(x, widths=tuple(pairs))


def flatten_samples(x: Any) -> Tensor:
    """Return x (N, ...) as (N, the product of the rest)."""
    shape = shape_of(x)
    if not shape:
        raise ValueError("flatten_samples(x ()): x must be (N, ...), not a single number")
    return reshape(x, (shape[0], math.prod(shape[1:])))
