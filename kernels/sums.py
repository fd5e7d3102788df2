"""Sums over any axes, in float64 inside whatever the dtype: y = Σ x over ``axes``, with an error of one rounding.

A sum in the dtype of x, entry after entry, loses digits as it grows: the mean of a million float32 rows of 0.1 comes
out as 0.10096. So entries are added up in float64, in chunks of a constant size whose sums are added in order: the
result does not depend on the number of threads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigan.kernels.cpu.units import CHUNK, units
from minigan.kernels.dispatch import kernel

LANES = 128
WIDTH, ROWS = 512, 64  # columns of a unit, and its rows at least: the chunks' sums are a small part of x


@kernel
def sum_axes(x: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    """Return the sum of x over ``axes`` (distinct, from 0), in its dtype; ``keepdims`` leaves them with length 1."""
    return np.asarray(x.sum(axes, np.float64, keepdims=keepdims)).astype(x.dtype)


@sum_axes.check
def _check(x: Any, *, axes: tuple[int, ...], keepdims: bool) -> None:
    if len(set(axes)) < len(axes) or any(not 0 <= a < x.ndim for a in axes):
        raise ValueError(f"axes {axes} must be distinct axes of x {x.shape}")


@sum_axes.numba
def _sum_axes(x: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    if x.size <= CHUNK // 2:
        return sum_axes.implementations["reference"](x, axes=axes, keepdims=keepdims)
    y = np.ascontiguousarray(x)
    for first, last in reversed(_runs(axes)):
        outer, inner = x.shape[:first], y.shape[last + 1 :]
        sums = _middle(y.reshape(-1), math.prod(outer), math.prod(x.shape[first : last + 1]), math.prod(inner))
        y = sums.reshape(*outer, *[1] * (last + 1 - first), *inner)
    kept = tuple(n for i, n in enumerate(y.shape) if keepdims or i not in axes)
    return y.reshape(kept).astype(x.dtype)


def _runs(axes: tuple[int, ...]) -> list[list[int]]:
    """Return the first and last axis of each run of neighbouring axes."""
    runs: list[list[int]] = []
    for axis in sorted(axes):
        if runs and runs[-1][1] == axis - 1:
            runs[-1][1] = axis
        else:
            runs.append([axis, axis])
    return runs


def _middle(x: Any, outer: int, count: int, inner: int) -> Any:
    """Return the sums (outer, inner) of x (outer, count, inner), given flat."""
    rows = CHUNK if inner == 1 else max(ROWS, CHUNK // inner)
    chunks, blocks = -(-count // rows), -(-inner // WIDTH)
    sums = np.zeros((outer * chunks, inner), np.float64)
    if inner == 1:
        _row_units(outer * chunks, x, sums, count, rows, chunks, work=x.size)
    else:
        _columns_units(outer * chunks * blocks, x, sums, count, rows, chunks, blocks, work=x.size)
    return sums.reshape(outer, chunks, inner).sum(1) if chunks > 1 else sums


@units
def _columns_units(unit, x, sums, count, rows, chunks, blocks):
    part, block = unit // blocks, unit % blocks
    first, chunk, inner = part // chunks * count, part % chunks, sums.shape[1]
    left, right = block * WIDTH, min(inner, (block + 1) * WIDTH)
    total = sums[part][left:right]
    for row in range(first + chunk * rows, first + min(count, (chunk + 1) * rows)):
        values = x[row * inner + left : row * inner + right]
        for c in range(total.size):
            total[c] += np.float64(values[c])


@units
def _row_units(unit, x, sums, count, rows, chunks):
    first, chunk = unit // chunks * count, unit % chunks
    part = x[first + chunk * rows : first + min(count, (chunk + 1) * rows)]
    totals = np.zeros(LANES, np.float64)  # a sum for each lane: additions that need not wait for one another
    for at in range(0, part.size, LANES):
        entries = part[at : at + LANES]
        for lane in range(entries.size):
            totals[lane] += np.float64(entries[lane])
    for lane in range(min(LANES, part.size)):
        sums[unit, 0] += totals[lane]


@sum_axes.cuda
def _sum_axes_cuda(x: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    return x.sum(axes, np.float64, keepdims=keepdims).astype(x.dtype)
