"""Matrices copied into the order in which a tile reads them, and memory that begins at a line of the cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan.kernels.cpu.jit import helper, late, vector_bytes
from minigan.kernels.cpu.lanes import transpose_square
from minigan.kernels.cpu.tile import PANEL_BYTES, TILE_ROWS, Matrix
from minigan.kernels.cpu.units import units
from minigan.kernels.cpu.vector import instruction

VECTOR_BYTES = late(vector_bytes)
LANES = 16  # channels come in multiples of the longest vector of any machine
ALIGNMENT = 64  # bytes of a line of the cache: vectors that straddle two lines take twice as long to load


@helper
def scratch(size, like):
    """Return ``size`` entries of the dtype of ``like``, the first at the start of a line of the cache."""
    block = np.empty(size + ALIGNMENT // like.itemsize, like.dtype)
    start = -block.ctypes.data % ALIGNMENT // like.itemsize
    return block[start : start + size]


def aligned(size: int, dtype: Any) -> Any:
    """Return a flat array of ``size`` entries, the first at the start of a line of the cache."""
    block = np.empty(size + ALIGNMENT // dtype.itemsize, dtype)
    start = -block.__array_interface__["data"][0] % ALIGNMENT // dtype.itemsize
    return block[start : start + size]


def packed(b: Any, k: int, n: int, b_row: int, b_col: int) -> Any:
    """Return a flat B (k, n) of these strides in panels, (⌈n/width⌉, k, width) as a flat array."""
    width = PANEL_BYTES.make() // b.itemsize
    panels = aligned((n + width - 1) // width * k * width, b.dtype)
    _pack_units(1, panels, k, n, view=Matrix(b, 0, b_row, b_col), work=0)
    return panels


@units
def _pack_units(unit, panels, k, n, b):
    pack(b, k, n, panels)


@helper
def pack(b, k, n, packed):
    """Copy a Matrix B (k, n) into panels as wide as a tile, (⌈n/width⌉, k, width); zeros fill up the last one."""
    width, lanes, at = PANEL_BYTES // packed.itemsize, VECTOR_BYTES // packed.itemsize, 0
    for j0 in range(0, n, width):
        columns = min(width, n - j0)
        panel = packed[at : at + k * width]
        if columns < width:
            panel[:] = 0
        start = b.at + j0 * b.col
        if b.col == 1:
            for p in range(k):
                first = start + p * b.row
                row, entries = panel[p * width : (p + 1) * width], b.data[first : first + columns]
                for j in range(columns):
                    row[j] = entries[j]
        else:
            whole = k // lanes * lanes if b.row == 1 and columns == width else 0
            for p in range(0, whole, lanes):
                for j in range(0, width, lanes):
                    transpose_square(packed, at + p * width + j, width, b.data, start + j * b.col + p, b.col)
            for j in range(columns):
                for p in range(whole, k):
                    panel[p * width + j] = b.data[start + j * b.col + p * b.row]
        at += k * width


@late
def copy_rows() -> Any:
    """Build ``copy_rows(y, y_at, x, x_at)``: copy TILE_ROWS entries that lie side by side."""
    tile_rows = TILE_ROWS.make()

    @instruction
    def copy_rows(code, y, y_at, x, x_at):
        code.store(code.load(code.at(x, x_at), code.vector_of(tile_rows)), code.at(y, y_at))

    return copy_rows


@helper
def gather(a, m, k, tiles):
    """Copy a Matrix A (m, k) whose rows are strided tile by tile, (⌈m/TILE_ROWS⌉, k, TILE_ROWS)."""
    whole = m // TILE_ROWS * TILE_ROWS
    for p in range(k):
        column = a.at + p * a.col
        if a.row == 1:
            for i0 in range(0, whole, TILE_ROWS):
                copy_rows(tiles, i0 * k + p * TILE_ROWS, a.data, column + i0)
        else:
            for i in range(whole):
                tiles[i // TILE_ROWS * TILE_ROWS * k + p * TILE_ROWS + i % TILE_ROWS] = a.data[column + i * a.row]
        for i in range(whole, m):
            tiles[whole * k + p * TILE_ROWS + i - whole] = a.data[column + i * a.row]


def swapped_channels(w: Any) -> Any:
    """Return w (kh, kw, Cin, Cout) as (kh, kw, Cout, Cin), contiguous."""
    swapped = np.empty((*w.shape[:2], w.shape[3], w.shape[2]), w.dtype)
    count = w.size // (w.shape[3] * LANES)
    _swap_units(count, np.ascontiguousarray(w).reshape(-1), *w.shape[2:], swapped.reshape(-1), work=w.size)
    return swapped


@units
def _swap_units(unit, w, c_in, c_out, swapped):
    blocks = c_in // LANES
    tap, c0 = unit // blocks, unit % blocks * LANES
    source, target = (tap * c_in + c0) * c_out, tap * c_in * c_out + c0
    step = VECTOR_BYTES // w.itemsize
    for c in range(0, LANES, step):
        for o in range(0, c_out, step):
            transpose_square(swapped, target + o * c_in + c, c_in, w, source + c * c_out + o, c_out)
