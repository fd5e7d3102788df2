"""Convolutions of any geometry as matrix products: patches of x unrolled into rows, a block at a time.

With P = patches(x), one row of kh·kw·Cin entries for each of the N·OH·OW outputs,

    conv2d = P w        conv2d_weight_grad = Pᵀ y        conv2d_transpose = y wᵀ, scattered: the adjoint of patches

Only a block of P exists at any time, in the cache of the core that multiplies it. Images are channels-last, so the kw
pixels that one row of the kernel meets are one run of kw·Cin entries in memory.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from minigan.kernels.bias_act import bias_leaky
from minigan.kernels.cpu.jit import helper
from minigan.kernels.cpu.lanes import add_run, copy_run
from minigan.kernels.cpu.packing import pack, packed, scratch
from minigan.kernels.cpu.tile import PANEL_BYTES, TILE_ROWS, Matrix, Panels, Rows, Tiles, multiply
from minigan.kernels.cpu.units import units

Pair = tuple[int, int]
BLOCK_ENTRIES = 1 << 15  # of the block of patches that one core works on


class Geometry(NamedTuple):
    """A convolution: its kernel, stride, padding and outputs, and how it is cut up.

    ``high`` patches are unrolled at a time; a unit of the weight gradient takes ``taller`` rows of the kernel.
    """

    kh: int
    kw: int
    sh: int
    sw: int
    ph: int
    pw: int
    oh: int
    ow: int
    high: int
    taller: int


@functools.lru_cache(maxsize=256)
def _geometry(kernel: Pair, stride: Pair, padding: Pair, out: Pair, c_in: int, taller: int) -> Geometry:
    """Return the geometry with the patches of a block: a multiple of 8."""
    high = max(8, min(256, BLOCK_ENTRIES // (taller * kernel[1] * c_in) // 8 * 8))
    return Geometry(*kernel, *stride, *padding, *out, high, taller)


@helper
def unroll(x, g, first, count, i0, i1, rows):
    """Write into rows (count, (i1 − i0)·kw·C) what rows i0 to i1 of the kernel meet at outputs first, first + 1, …"""
    _, h, w, channels = x.shape
    oh, ow, kw = g.oh, g.ow, g.kw
    flat = x.reshape(-1)
    run = kw * channels
    image, p, q = first // (oh * ow), first // ow % oh, first % ow
    at = 0
    for _ in range(count):
        left = q * g.sw - g.pw
        inside = left >= 0 and left + kw <= w
        begin, end = min(kw, max(0, -left)) * channels, max(0, min(kw, w - left)) * channels
        for i in range(p * g.sh - g.ph + i0, p * g.sh - g.ph + i1):
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
    g = _geometry(w.shape[:2], stride, padding, y.shape[1:3], w.shape[2], w.shape[0])
    count = -(-y.size // c_out // g.high)
    _conv_units(count, np.ascontiguousarray(x), panels, b, slope, y, view=g, work=y.size * rows // 64)


@units
def _conv_units(unit, x, panels, b, slope, y, g):
    n_images, oh, ow, c_out = y.shape
    width = PANEL_BYTES // x.itemsize
    entries = g.kh * g.kw * x.shape[3]
    flat = y.reshape(-1)
    first, count = unit * g.high, min(g.high, n_images * oh * ow - unit * g.high)
    rows, edge = scratch(g.high * entries, x), scratch(TILE_ROWS * width, x)
    unroll(x, g, first, count, 0, g.kh, rows)
    patches, weights = Tiles(rows, 0, entries, 1, TILE_ROWS * entries), Panels(panels, 0, width, entries * width)
    multiply(patches, weights, Rows(flat, first * c_out, c_out, edge), count, c_out, entries, True)
    bias_leaky(flat, first * c_out, count, c_out, c_out, b, 0, slope)


def conv2d_transpose(y: Any, w: Any, b: Any, slope: Any, stride: Pair, padding: Pair, x: Any) -> None:
    """Write v > 0 ? v : slope·v with v = convᵀ(y, w) + b into x (N, H, W, Cin); b may be empty."""
    rows, c_out = w.size // w.shape[3], w.shape[3]
    panels = packed(np.ascontiguousarray(w).reshape(-1), c_out, rows, 1, c_out)
    g = _geometry(w.shape[:2], stride, padding, y.shape[1:3], w.shape[2], w.shape[0])
    _transpose_units(len(y), np.ascontiguousarray(y), panels, b, slope, x, view=g, work=y.size * rows // 64)


@units
def _transpose_units(image, y, panels, b, slope, x, g):
    n_images, h, w, c_in = x.shape
    _, oh, ow, c_out = y.shape
    kh, kw = g.kh, g.kw
    width = PANEL_BYTES // x.itemsize
    entries, run = kh * kw * c_in, kw * c_in
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    rows, edge = scratch(g.high * entries, x), scratch(TILE_ROWS * width, x)
    weights = Panels(panels, 0, width, c_out * width)
    x[image] = 0
    for first in range(0, oh * ow, g.high):
        count = min(g.high, oh * ow - first)
        outputs = Tiles(flat_y, (image * oh * ow + first) * c_out, c_out, 1, TILE_ROWS * c_out)
        multiply(outputs, weights, Rows(rows, 0, entries, edge), count, entries, c_out, True)
        for row in range(count):
            top, left = (first + row) // ow * g.sh - g.ph, (first + row) % ow * g.sw - g.pw
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
    g = _geometry((kh, kw), stride, padding, y.shape[1:3], c_in, taller)
    x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
    _weight_grad_units(parts * kh // taller, x, y, sums, view=g, work=outputs * w.size // 64)
    w.reshape(-1)[...] = sums[0]
    for part in sums[1:]:
        w.reshape(-1)[...] += part


@units
def _weight_grad_units(unit, x, y, sums, g):
    n_images, oh, ow, c_out = y.shape
    width = PANEL_BYTES // x.itemsize
    run = g.kw * x.shape[3]
    entries = g.taller * run
    parts, total = sums.shape[0], n_images * oh * ow
    long = (total + parts - 1) // parts
    flat_y, flat = y.reshape(-1), sums.reshape(-1)
    part, i0 = unit // (g.kh // g.taller), unit % (g.kh // g.taller) * g.taller
    begin, end = min(total, part * long), min(total, (part + 1) * long)
    rows, edge = scratch(g.high * entries, x), scratch(TILE_ROWS * width, x)
    as_it_is = entries <= 2 * TILE_ROWS and c_out % width == 0  # too few rows to repay packing y
    panels = flat_y if as_it_is else scratch((c_out + width - 1) // width * width * g.high, x)
    sum_of_part = Rows(flat, part * sums.shape[1] + i0 * run * c_out, c_out, edge)
    if begin == end:
        flat[sum_of_part.at : sum_of_part.at + entries * c_out] = 0
    for first in range(begin, end, g.high):
        count = min(g.high, end - first)
        unroll(x, g, first, count, i0, i0 + g.taller, rows)
        outputs = Panels(flat_y, first * c_out, c_out, width)
        if not as_it_is:
            pack(Matrix(flat_y, first * c_out, c_out, 1), count, c_out, panels)
            outputs = Panels(panels, 0, width, count * width)
        multiply(Tiles(rows, 0, 1, entries, TILE_ROWS), outputs, sum_of_part, entries, c_out, count, first == begin)
