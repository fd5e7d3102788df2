"""Convolutions of any geometry as matrix products: patches of x unrolled into rows, a block at a time.

With P = patches(x), one row of kh·kw·Cin entries for each of the N·OH·OW outputs,

    conv2d = P w        conv2d_weight_grad = Pᵀ y        conv2d_transpose = y wᵀ, scattered: the adjoint of patches

Only a block of P exists at any time, in the cache of the core that multiplies it. Images are channels-last, so the kw
pixels that one row of the kernel meets are one run of kw·Cin entries in memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan.kernels.bias_act import bias_leaky
from minigan.kernels.cpu.jit import helper
from minigan.kernels.cpu.lanes import add_run, copy_run
from minigan.kernels.cpu.tile import PANEL_BYTES, TILE_ROWS, multiply, pack, packed, scratch
from minigan.kernels.cpu.units import units

Pair = tuple[int, int]
BLOCK_ENTRIES = 1 << 15  # of the block of patches that one core works on


def _block_rows(entries: int) -> int:
    """Return how many patches of ``entries`` each are unrolled at a time: a multiple of 8."""
    return max(8, min(256, BLOCK_ENTRIES // entries // 8 * 8))


@helper
def unroll(x, first, count, oh, ow, kh, kw, sh, sw, ph, pw, i0, i1, rows):
    """Write into rows (count, (i1 − i0)·kw·C) what rows i0 to i1 of the kernel meet at outputs first, first + 1, …"""
    _, h, w, channels = x.shape
    flat = x.reshape(-1)
    run = kw * channels
    image, p, q = first // (oh * ow), first // ow % oh, first % ow
    at = 0
    for _ in range(count):
        left = q * sw - pw
        inside = left >= 0 and left + kw <= w
        begin, end = min(kw, max(0, -left)) * channels, max(0, min(kw, w - left)) * channels
        for i in range(p * sh - ph + i0, p * sh - ph + i1):
            start = ((image * h + i) * w + left) * channels
            if not 0 <= i < h:
                for c in range(at, at + run):
                    rows[c] = 0
            elif inside:
                copy_run(rows, at, flat, start, run)
            else:
                for c in range(run):
                    rows[at + c] = flat[start + c] if begin <= c < end else 0
            at += run
        q += 1
        if q == ow:
            q = 0
            p += 1
            if p == oh:
                p = 0
                image += 1


def conv2d(x: Any, w: Any, b: Any, slope: Any, stride: Pair, padding: Pair, y: Any) -> None:
    """Write v > 0 ? v : slope·v with v = x ⋆ w + b into y (N, OH, OW, Cout); b may be empty."""
    rows, c_out = w.size // w.shape[3], w.shape[3]
    panels = packed(np.ascontiguousarray(w).reshape(-1), rows, c_out, c_out, 1)
    high = _block_rows(rows)
    _conv_units(
        -(-y.size // c_out // high), np.ascontiguousarray(x), panels, *w.shape[:2], *stride, *padding, b, slope,
        high, y,
        work=y.size * rows // 64,
    )  # fmt: skip


@units
def _conv_units(unit, x, panels, kh, kw, sh, sw, ph, pw, b, slope, high, y):
    n_images, oh, ow, c_out = y.shape
    width = PANEL_BYTES // x.itemsize
    entries = kh * kw * x.shape[3]
    total = n_images * oh * ow
    flat = y.reshape(-1)
    first, count = unit * high, min(high, total - unit * high)
    rows, edge = scratch(high * entries, x), scratch(TILE_ROWS * width, x)
    unroll(x, first, count, oh, ow, kh, kw, sh, sw, ph, pw, 0, kh, rows)
    multiply(
        rows, 0, entries, 1, TILE_ROWS * entries, panels, 0, width, entries * width,
        count, c_out, entries, flat, first * c_out, c_out, True, edge,
    )  # fmt: skip
    bias_leaky(flat, first * c_out, count, c_out, c_out, b, 0, slope)


def conv2d_transpose(y: Any, w: Any, b: Any, slope: Any, stride: Pair, padding: Pair, x: Any) -> None:
    """Write v > 0 ? v : slope·v with v = convᵀ(y, w) + b into x (N, H, W, Cin); b may be empty."""
    rows, c_out = w.size // w.shape[3], w.shape[3]
    panels = packed(np.ascontiguousarray(w).reshape(-1), c_out, rows, 1, c_out)
    _transpose_units(
        len(y), np.ascontiguousarray(y), panels, *w.shape[:2], *stride, *padding, b, slope, _block_rows(rows), x,
        work=y.size * rows // 64,
    )  # fmt: skip


@units
def _transpose_units(image, y, panels, kh, kw, sh, sw, ph, pw, b, slope, high, x):
    n_images, h, w, c_in = x.shape
    _, oh, ow, c_out = y.shape
    width = PANEL_BYTES // x.itemsize
    entries, run = kh * kw * c_in, kw * c_in
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    rows, edge = scratch(high * entries, x), scratch(TILE_ROWS * width, x)
    x[image] = 0
    for first in range(0, oh * ow, high):
        count = min(high, oh * ow - first)
        multiply(
            flat_y, (image * oh * ow + first) * c_out, c_out, 1, TILE_ROWS * c_out, panels, 0, width, c_out * width,
            count, entries, c_out, rows, 0, entries, True, edge,
        )  # fmt: skip
        for row in range(count):
            top, left = (first + row) // ow * sh - ph, (first + row) % ow * sw - pw
            begin, end = min(kw, max(0, -left)) * c_in, max(0, min(kw, w - left)) * c_in
            for i in range(max(0, -top), min(kh, h - top)):
                start = ((image * h + top + i) * w + left) * c_in
                add_run(flat_x, start + begin, rows, (row * kh + i) * run + begin, end - begin)
    bias_leaky(flat_x, image * h * w * c_in, h * w, c_in, c_in, b, 0, slope)


def conv2d_weight_grad(x: Any, y: Any, stride: Pair, padding: Pair, w: Any) -> None:
    """Write the gradient of ⟨conv2d(x, w), y⟩ with respect to w into w (kh, kw, Cin, Cout).

    The outputs are cut into a number of parts that their number alone decides; each is summed up by itself, and the
    sums are added in order.
    """
    outputs = y.size // y.shape[3]
    parts = max(1, min(16, outputs // 512, (1 << 20) // w.size))
    sums = np.empty((parts, w.size), w.dtype)
    kh, kw, c_in, _ = w.shape
    taller = 1 if kw * c_in >= 32 else kh  # rows of the kernel in one unit of work
    _weight_grad_units(
        parts * kh // taller, np.ascontiguousarray(x), np.ascontiguousarray(y), kh, kw, *stride, *padding,
        taller, _block_rows(taller * kw * c_in), sums,
        work=outputs * w.size // 64,
    )  # fmt: skip
    w.reshape(-1)[...] = sums[0]
    for part in sums[1:]:
        w.reshape(-1)[...] += part


@units
def _weight_grad_units(unit, x, y, kh, kw, sh, sw, ph, pw, taller, high, sums):
    n_images, oh, ow, c_out = y.shape
    width = PANEL_BYTES // x.itemsize
    run = kw * x.shape[3]
    entries = taller * run
    parts, total = sums.shape[0], n_images * oh * ow
    long = (total + parts - 1) // parts
    flat_y, flat = y.reshape(-1), sums.reshape(-1)
    part, i0 = unit // (kh // taller), unit % (kh // taller) * taller
    begin, end = min(total, part * long), min(total, (part + 1) * long)
    rows, edge = scratch(high * entries, x), scratch(TILE_ROWS * width, x)
    as_it_is = entries <= 2 * TILE_ROWS and c_out % width == 0  # too few rows to repay packing y
    right, right_row = flat_y, c_out
    if not as_it_is:
        right, right_row = scratch((c_out + width - 1) // width * width * high, x), width
    out = part * sums.shape[1] + i0 * run * c_out
    if begin == end:
        flat[out : out + entries * c_out] = 0
    for first in range(begin, end, high):
        count = min(high, end - first)
        unroll(x, first, count, oh, ow, kh, kw, sh, sw, ph, pw, i0, i0 + taller, rows)
        right_at, right_panel = first * c_out, width
        if not as_it_is:
            pack(flat_y, first * c_out, c_out, 1, count, c_out, right, 0)
            right_at, right_panel = 0, count * width
        multiply(
            rows, 0, 1, entries, TILE_ROWS, right, right_at, right_row, right_panel,
            entries, c_out, count, flat, out, c_out, first == begin, edge,
        )  # fmt: skip
