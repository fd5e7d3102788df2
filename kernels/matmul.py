"""Products of matrices, and y = act(x w + b) with bias and activation applied while a block of y is in the cache.

x (N, Cin), w (Cin, Cout), b (Cout,) or None, y (N, Cout).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from minigan.kernels.bias_act import (
    ACTIVATIONS,
    bias_act,
    bias_leaky,
    check_activation,
    check_bias,
    finish,
    leaky_slope,
)
from minigan.kernels.cpu.packing import gather, pack, scratch
from minigan.kernels.cpu.tile import PANEL_BYTES, TILE_ROWS, Matrix, Panels, Rows, Tiles, dot, multiply
from minigan.kernels.cpu.units import units
from minigan.kernels.dispatch import kernel
from minigan.kernels.gpu import launch as cuda

PANELS = 4  # of B that one unit of work packs side by side: rows of B are read in longer runs


@kernel
def matmul(x: Any, w: Any) -> Any:
    """Return x w (N, M) for x (N, K) and w (K, M), or stacks of them as in NumPy; ValueError if K differs."""
    return np.matmul(x, w)


@matmul.check
def _check_matmul(x: Any, w: Any) -> None:
    if x.ndim < 2 or w.ndim < 2:
        raise ValueError(f"x {x.shape} and w {w.shape} must have at least 2 axes")
    if x.shape[-1] != w.shape[-2]:
        raise ValueError(f"x has {x.shape[-1]} columns but w has {w.shape[-2]} rows")


@kernel
def dense(x: Any, w: Any, b: Any | None, *, activation: str, slope: float) -> Any:
    """Return act(x w + b) (N, Cout) with the activations of bias_act; ValueError for an unknown one."""
    return bias_act.implementations["reference"](np.matmul(x, w), b, activation=activation, slope=slope)


@dense.check
def _check_dense(x: Any, w: Any, b: Any | None, *, activation: str, slope: float) -> None:
    check_activation(activation, slope)
    if w.ndim != 2 or x.ndim != 2 or x.shape[1] != w.shape[0]:
        wanted = w.shape[0] if w.ndim == 2 else "n_in"
        raise ValueError(f"x {x.shape} must be (N, {wanted}) and w {w.shape} (n_in, n_out)")
    check_bias(b, w.shape[1:], f"w {w.shape}")


@matmul.numba
def _matmul(x: Any, w: Any) -> Any:
    if x.ndim != 2 or w.ndim != 2 or not (x.size and w.size):
        return np.matmul(x, w)
    y = np.empty((x.shape[0], w.shape[1]), x.dtype)
    product(x, w, y[0, :0], x.dtype.type(1), y)
    return y


@dense.numba
def _dense(x: Any, w: Any, b: Any | None, *, activation: str, slope: float) -> Any:
    y = np.empty((x.shape[0], w.shape[1]), x.dtype)
    if not (x.size and w.size):
        return dense.implementations["reference"](x, w, b, activation=activation, slope=slope)
    product(x, w, y[0, :0] if b is None else np.ascontiguousarray(b), leaky_slope(x.dtype, activation, slope), y)
    finish(y, activation)
    return y


def _entries(x: Any) -> tuple[Any, int, int]:
    """Return a matrix as its entries in memory, with the strides of rows and columns."""
    if x.flags.c_contiguous:
        return x.ravel(), x.shape[1], 1
    if x.flags.f_contiguous:
        return x.T.ravel(), 1, x.shape[0]
    return np.ascontiguousarray(x).reshape(-1), x.shape[1], 1


def product(x: Any, w: Any, b: Any, slope: Any, y: Any) -> None:
    """Write act(x w + b) into y, with the activation v > 0 ? v : slope·v."""
    few, (m, k), n = 4, x.shape, w.shape[1]
    if n <= few and x.flags.c_contiguous:  # a few columns: dot products
        columns = np.ascontiguousarray(w.T).reshape(-1)
        _dot_units(-(-m // 32), x.reshape(-1), columns, k, b, slope, y, work=m * n * k // 8)
    elif n <= few and m > few and not b.size:  # a few columns of a transposed x: rows of the transposed product
        across = np.empty((n, m), y.dtype)
        product(w.T, x.T, b, slope, across)
        y[...] = across.T
    elif k == 1 and slope == 1 and not b.size:
        np.multiply(x, w, out=y)
    else:
        wide = PANELS * PANEL_BYTES.make() // y.itemsize
        high = 256 if n > wide else 64  # rows of y in one unit of work, which is as wide as some panels
        count = -(-n // wide) * -(-m // high)
        (left, a_row, a_col), (right, b_row, b_col) = _entries(x), _entries(w)
        view = Product(k, a_row, a_col, b_row, b_col, high)
        _product_units(count, left, right, b, slope, y, view=view, work=m * n * k // 64 + k * n // 4)


class Product(NamedTuple):
    """A product A (m, k) · B (k, n): the strides of both in entries, and the rows of a unit of work."""

    k: int
    a_row: int
    a_col: int
    b_row: int
    b_col: int
    high: int


@units
def _product_units(unit, a, b, bias, slope, c, of):
    (m, n), k = c.shape, of.k
    width = PANEL_BYTES // c.itemsize
    wide = PANELS * width
    across = (n + wide - 1) // wide
    flat = c.reshape(-1)
    as_it_is = m <= TILE_ROWS and of.b_col == 1 and n % width == 0  # too few rows to repay packing B
    i0, j0 = unit // across * of.high, unit % across * wide
    rows, columns = min(of.high, m - i0), min(wide, n - j0)
    left = Tiles(a, i0 * of.a_row, of.a_row, of.a_col, TILE_ROWS * of.a_row)
    if of.a_col != 1:
        tiles = scratch((rows + TILE_ROWS - 1) // TILE_ROWS * TILE_ROWS * k, c)
        gather(Matrix(a, i0 * of.a_row, of.a_row, of.a_col), rows, k, tiles)
        left = Tiles(tiles, 0, 1, TILE_ROWS, TILE_ROWS * k)
    right = Panels(b, j0, of.b_row, width)
    if not as_it_is:
        panels = scratch(k * wide, c)
        pack(Matrix(b, j0 * of.b_col, of.b_row, of.b_col), k, columns, panels)
        right = Panels(panels, 0, width, k * width)
    there = i0 * n + j0
    multiply(left, right, Rows(flat, there, n, scratch(TILE_ROWS * width, c)), rows, columns, k, True)
    bias_leaky(flat, there, rows, columns, n, bias, j0, slope)


@units
def _dot_units(chunk, a, b, k, bias, slope, c):
    m, n = c.shape
    flat = c.reshape(-1)
    begin, end = 32 * chunk, min(m, 32 * chunk + 32)
    for i in range(begin, end):
        for j in range(n):
            flat[i * n + j] = dot(a, i * k, b, j * k, k)
    bias_leaky(flat, begin * n, end - begin, n, n, bias, 0, slope)


# --- CUDA -------------------------------------------------------------------------------------------------------------

_cu = cuda.Source("matmul.cu")
TILE, LONG = 64, 2048  # the edge of a block's tile in gemm.cuh; a sum over k that is worth sharing out among blocks


def tiles(rows: int, columns: int, parts: int = 1) -> tuple[int, int, int]:
    """Return the grid of blocks that make a (rows, columns) product in so many parts."""
    return -(-columns // TILE), -(-rows // TILE), parts


def parts_of(rows: int, columns: int, depth: int) -> tuple[int, int]:
    """Return into how many parts a sum over ``depth`` is cut, and their length: more where the result has few tiles.

    The sizes alone decide, so the result is the same on every device.
    """
    parts = max(1, min(256 // math.prod(tiles(rows, columns)), depth // (LONG // 8), 64))
    length = -(-depth // parts)
    length += -length % 16
    return -(-depth // length) if depth else 1, length


def _strided(xp: Any, x: Any) -> tuple[Any, int, int]:
    """Return a matrix as a contiguous array, with the strides of rows and columns in entries."""
    if x.T.flags.c_contiguous and not x.flags.c_contiguous:
        return x.T, 1, x.shape[0]
    return xp.ascontiguousarray(x), x.shape[1], 1


def _product_cuda(x: Any, w: Any, b: Any, activation: str, slope: float) -> Any:
    xp = cuda.module_of(x)
    (m, k), n = x.shape, w.shape[1]
    y = xp.empty((m, n), x.dtype)
    if not y.size:
        return y
    (x, x_row, x_column), (w, w_row, w_column) = _strided(xp, x), _strided(xp, w)
    parts, length = parts_of(m, n, k)
    whole = parts == 1
    out = y if whole else xp.empty((parts, m, n), y.dtype)
    strides = x_row, x_column, w_row, w_column, length
    with_b = b is not None and whole
    settings = (with_b, ACTIVATIONS.index(activation), slope) if whole else (False, 0, 0.0)
    _cu.launch(
        "product", x, w, xp.ascontiguousarray(b) if with_b else x, out, m, n, k, *strides, *settings,
        grid=tiles(m, n, parts),
        variant=(cuda.tf32(y), x_column == 1, w_row == 1),
    )  # fmt: skip
    if whole:
        return y
    add_parts_cuda(out, y)
    if b is None and activation == "linear":
        return y
    return bias_act(y, b, activation=activation, slope=slope)


def add_parts_cuda(parts: Any, out: Any) -> None:
    """Write the sum of parts (P, ...) over P, in order, into out (...)."""
    _cu.launch("add_parts", parts, out, out.size, len(parts), work=out.size)


@matmul.cuda
def _matmul_cuda(x: Any, w: Any) -> Any:
    if x.ndim == w.ndim == 2:
        return _product_cuda(x, w, None, "linear", 0.0)
    return cuda.module_of(x).matmul(x, w)


@dense.cuda
def _dense_cuda(x: Any, w: Any, b: Any | None, *, activation: str, slope: float) -> Any:
    return _product_cuda(x, w, b, activation, slope)
