"""Convolutions with fewer multiplications: Winograd's minimal filtering (1509.09308), on the phases of an image.

Outputs are made in tiles of m × m. In one dimension, with r taps, n = m + r − 1 inputs d give m outputs by n products,

    y = Aᵀ [(G g) ∘ (Bᵀ d)]

and in two dimensions each side of the sandwich is applied twice: F(2,2) takes 9 products a tile instead of 16, F(4,2)
25 instead of 64, F(2,3) 16 instead of 36 (see forms.py). A convolution of stride s with s·r taps a side is
the sum over its s² phases (the pixels, and the taps, whose coordinates have one remainder by s) of convolutions of
stride 1 with r taps: so 4×4 stride 2 is four times F(2,2) or F(4,2).
With T tiles and one matrix product a point k of the n² points:

    V = Bᵀ d B  (n², T, Cin)    U = G g Gᵀ  (n², Cin, Cout)    M[k] = V[k] U[k], summed over the phases    y = Aᵀ M A

and the adjoints: dM = A dy Aᵀ;  dV[k] = dM[k] U[k]ᵀ, dx = B dV Bᵀ added in place;  dU[k] = V[k]ᵀ dM[k], dg = Gᵀ dU G.
Each block of tiles is transformed, multiplied and transformed back while it lies in the cache of one core; transforms
are cheaper to repeat than to store. No sum crosses from one thread to another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from minigan.kernels.bias_act import bias_leaky
from minigan.kernels.cpu.forms import FORMS
from minigan.kernels.cpu.jit import helper, late
from minigan.kernels.cpu.lanes import transpose_square
from minigan.kernels.cpu.sandwich import OUTSIDE, sandwich
from minigan.kernels.cpu.tile import DEPTH, PANEL_BYTES, TILE_ROWS, VECTOR_BYTES, aligned, multiply, scratch
from minigan.kernels.cpu.units import units

Pair = tuple[int, int]


def _transposed(matrix: Any) -> Any:
    return list(zip(*matrix, strict=True))


to_v = late(lambda: sandwich([form.b_t() for form in FORMS]))
from_v = late(lambda: sandwich([_transposed(form.b_t()) for form in FORMS], add=True))
to_u = late(lambda: sandwich([form.g() for form in FORMS]))
from_u = late(lambda: sandwich([_transposed(form.g()) for form in FORMS]))
from_m = late(lambda: sandwich([form.a_t() for form in FORMS]))
to_m = late(lambda: sandwich([_transposed(form.a_t()) for form in FORMS]))

BLOCK = 64  # tiles transformed and multiplied at a time
APART = 16  # entries between the points of a transform: a power of two apart they would crowd one set of the cache
LANES = 16  # channels come in multiples of the longest vector of any machine
KEPT = 1 << 20  # entries of transformed weights that are worth their memory
WEIGHT_TRANSFORM = 100  # tiles whose products cost as much as the transform of the weights


def find_form(kernel: Pair, stride: Pair, channels: Pair, images: int, out: Pair) -> int | None:
    """Return the number of the form with the least work for a convolution, None where none fits.

    The work of a form is its products, one a tile and point, and the transforms of the weights, one a point.
    """
    taps = {((4, 4), (2, 2)): 2, ((3, 3), (1, 1)): 3}.get((kernel, stride))
    if taps is None or channels[0] % LANES or channels[1] % LANES:
        return None
    work = {}
    for number, form in enumerate(FORMS):
        if form.r == taps:
            tiles = images * math.prod(tiles_of(out, form.m))
            work[number] = form.n**2 * (tiles + WEIGHT_TRANSFORM)
    return min(work, key=lambda number: work[number])


def tiles_of(out: Pair, m: int) -> Pair:
    """Return how many tiles of m × m cover outputs of this size."""
    return -(-out[0] // m), -(-out[1] // m)


_kept: ContextVar[dict[Any, tuple[Any, Any]] | None] = ContextVar("minigan_kept_transforms", default=None)


@contextmanager
def weights_stay() -> Iterator[None]:
    """Transform weights that meet several images only once inside the ``with`` block, in which none may change.

    A block inside another belongs to it.
    """
    if _kept.get() is not None:
        yield
        return
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def _packed_weights(w: Any, stride: int, number: int, transposed: bool) -> Any:
    """Return U = G g Gᵀ in panels of Cout, as a flat array: (n², panels, phases · Cin, width).

    ``transposed``: of the weights with Cin and Cout swapped, and (n², phases, panels, Cin, width).
    """
    kept, key = _kept.get(), (id(w), stride, number, transposed)
    if kept and key in kept:
        return kept[key][1]
    g = swapped_channels(w) if transposed else np.ascontiguousarray(w)
    form, (c_in, c_out) = FORMS[number], g.shape[2:]
    width = PANEL_BYTES.make() // g.itemsize
    panels = (c_out + width - 1) // width
    packed = aligned(form.n**2 * (stride**2 * panels * c_in * width + APART), g.dtype)
    if c_out % width:
        packed[:] = 0
    settings = stride, number, form.r, form.n, c_in, c_out, not transposed
    _weights_units(c_in, g.reshape(-1), *settings, packed, work=packed.size)
    if kept is not None and packed.size <= KEPT:
        kept[key] = w, packed  # w too: while it lives, no other array has its id
    return packed


def swapped_channels(w: Any) -> Any:
    """Return w (kh, kw, Cin, Cout) as (kh, kw, Cout, Cin), contiguous."""
    swapped = np.empty((*w.shape[:2], w.shape[3], w.shape[2]), w.dtype)
    count = w.size // (w.shape[3] * LANES)
    _swap_units(count, np.ascontiguousarray(w).reshape(-1), *w.shape[2:], swapped.reshape(-1), work=w.size)
    return swapped


@helper
def places_apart(count, far):
    """Return where the points of a transform begin that lie ``far`` entries apart."""
    places = np.empty(count, np.int64)
    for k in range(count):
        places[k] = k * far
    return places


@units
def _swap_units(unit, w, c_in, c_out, swapped):
    blocks = c_in // LANES
    tap, c0 = unit // blocks, unit % blocks * LANES
    source, target = (tap * c_in + c0) * c_out, tap * c_in * c_out + c0
    step = VECTOR_BYTES // w.itemsize
    for c in range(0, LANES, step):
        for o in range(0, c_out, step):
            transpose_square(swapped, target + o * c_in + c, c_in, w, source + c * c_out + o, c_out)


@units
def _weights_units(c, w, s, form, r, n, c_in, c_out, together, packed):
    width = PANEL_BYTES // w.itemsize
    panels = (c_out + width - 1) // width
    places, targets = np.empty(r * r, np.int64), places_apart(n * n, s * s * panels * c_in * width + APART)
    for phase in range(s * s):
        for i in range(r):
            for j in range(r):
                tap = (s * i + phase // s) * s * r + s * j + phase % s
                places[i * r + j] = tap * c_in * c_out
        for panel in range(panels):
            columns = min(width, c_out - panel * width)
            target = (panel * s * s + phase if together else phase * panels + panel) * c_in + c
            to_u(form, w, c * c_out + panel * width, places, w, packed, target * width, targets, w, columns)


# --- where tiles lie ------------------------------------------------------------------------------------------------


@helper
def phases_together(s, channels):
    """Return how many phases, 1 or 2 or all s², are multiplied as one sum of up to DEPTH / 2 terms."""
    return s * s if s * s * channels <= DEPTH // 2 else 2 if s == 2 and 2 * channels <= DEPTH // 2 else 1


@helper
def tile_place(t, down, across):
    """Return (image, row, column) of tile t; images have ``down`` × ``across`` of them."""
    image, rest = t // (down * across), t % (down * across)
    return image, rest // across, rest % across


@helper
def input_places(image, row, column, phase, s, size, n, pad_h, pad_w, h, w, channels, places):
    """Fill in where the n × n pixels of a phase lie that a tile of outputs needs."""
    top, left = size * s * row + phase // s - pad_h, size * s * column + phase % s - pad_w
    for i in range(n):
        for j in range(n):
            at_h, at_w = top + s * i, left + s * j
            inside = 0 <= at_h < h and 0 <= at_w < w
            places[i * n + j] = ((image * h + at_h) * w + at_w) * channels if inside else OUTSIDE


@helper
def output_places(image, row, column, size, oh, ow, channels, places):
    """Fill in where the outputs of a tile lie."""
    for i in range(size):
        for j in range(size):
            p, q = size * row + i, size * column + j
            places[size * i + j] = ((image * oh + p) * ow + q) * channels if p < oh and q < ow else OUTSIDE


# --- forward ----------------------------------------------------------------------------------------------------------


def conv2d(x: Any, w: Any, b: Any, slope: Any, stride: int, padding: Pair, number: int, y: Any) -> None:
    """Write v > 0 ? v : slope·v with v = x ⋆ w + b into y (N, OH, OW, Cout); b may be empty."""
    form = FORMS[number]
    tiles = tiles_of(y.shape[1:3], form.m)
    packed = _packed_weights(w, stride, number, False)
    total = len(x) * math.prod(tiles)
    block = BLOCK if x.shape[3] >= DEPTH else BLOCK // 2
    _forward_units(
        -(-total // block), np.ascontiguousarray(x), packed, stride, number, form.m, form.n, *padding, *tiles, b, slope,
        block, y,
        work=x.size + y.size,
    )  # fmt: skip


@units
def _forward_units(unit, x, packed, s, form, size, n, pad_h, pad_w, down, across, b, slope, block, y):
    n_images, h, w, c_in = x.shape
    _, oh, ow, c_out = y.shape
    width = PANEL_BYTES // x.itemsize
    panels = (c_out + width - 1) // width
    total = n_images * down * across
    together = phases_together(s, c_in)  # phases that are multiplied as one sum
    deep = together * c_in
    v_far, m_far = block * deep + APART, block * c_out + APART
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    first, count = unit * block, min(block, total - unit * block)
    v, m = scratch(n * n * v_far, x), scratch(n * n * m_far, x)
    blank, waste = np.zeros(c_in, x.dtype), np.empty(c_out, x.dtype)
    edge = scratch(TILE_ROWS * width, x)
    v_places, m_places = places_apart(n * n, v_far), places_apart(n * n, m_far)
    pixels, outputs = np.empty(n * n, np.int64), np.empty(size * size, np.int64)
    for phase0 in range(0, s * s, together):
        for t in range(count):
            image, row, column = tile_place(first + t, down, across)
            for phase in range(phase0, phase0 + together):
                input_places(image, row, column, phase, s, size, n, pad_h, pad_w, h, w, c_in, pixels)
                at = t * deep + (phase - phase0) * c_in
                to_v(form, flat_x, 0, pixels, blank, v, at, v_places, blank, c_in)
        for k in range(n * n):
            panel = k * (s * s * panels * c_in * width + APART) + phase0 * c_in * width
            multiply(
                v, k * v_far, deep, 1, TILE_ROWS * deep, packed, panel, width, s * s * c_in * width,
                count, c_out, deep, m, k * m_far, c_out, phase0 == 0, edge,
            )  # fmt: skip
    for t in range(count):
        image, row, column = tile_place(first + t, down, across)
        output_places(image, row, column, size, oh, ow, c_out, outputs)
        from_m(form, m, t * c_out, m_places, waste, flat_y, 0, outputs, waste, c_out)
        for place in outputs:
            if place != OUTSIDE:
                bias_leaky(flat_y, place, 1, c_out, c_out, b, 0, slope)


# --- the adjoint in x -------------------------------------------------------------------------------------------------


def conv2d_transpose(y: Any, w: Any, b: Any, slope: Any, stride: int, padding: Pair, number: int, x: Any) -> None:
    """Write v > 0 ? v : slope·v with v = convᵀ(y, w) + b into x (N, H, W, Cin); b may be empty."""
    form = FORMS[number]
    tiles = tiles_of(y.shape[1:3], form.m)
    packed = _packed_weights(w, stride, number, True)
    images = max(1, BLOCK // 2 // math.prod(tiles))  # of one unit: tiles overlap within an image
    _adjoint_units(
        -(-len(y) // images), np.ascontiguousarray(y), packed, stride, number, form.m, form.n, *padding, *tiles, b,
        slope, images, x,
        work=x.size + y.size,
    )  # fmt: skip


@units
def _adjoint_units(unit, y, packed, s, form, size, n, pad_h, pad_w, down, across, b, slope, images, x):
    n_images, h, w, c_in = x.shape
    _, oh, ow, c_out = y.shape
    width = PANEL_BYTES // x.itemsize
    panels = (c_in + width - 1) // width
    v_far, m_far = BLOCK * c_in + APART, BLOCK * c_out + APART
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    begin, end = unit * images, min(n_images, (unit + 1) * images)
    x[begin:end] = 0
    v, m = scratch(n * n * v_far, x), scratch(n * n * m_far, x)
    blank, waste = np.zeros(c_out, x.dtype), np.empty(c_in, x.dtype)
    edge = scratch(TILE_ROWS * width, x)
    v_places, m_places = places_apart(n * n, v_far), places_apart(n * n, m_far)
    pixels, outputs = np.empty(n * n, np.int64), np.empty(size * size, np.int64)
    for first in range(begin * down * across, end * down * across, BLOCK):
        count = min(BLOCK, end * down * across - first)
        for t in range(count):
            image, row, column = tile_place(first + t, down, across)
            output_places(image, row, column, size, oh, ow, c_out, outputs)
            to_m(form, flat_y, 0, outputs, blank, m, t * c_out, m_places, blank, c_out)
        for phase in range(s * s):
            for k in range(n * n):
                panel = k * (s * s * panels * c_out * width + APART) + phase * panels * c_out * width
                multiply(
                    m, k * m_far, c_out, 1, TILE_ROWS * c_out, packed, panel, width, c_out * width,
                    count, c_in, c_out, v, k * v_far, c_in, True, edge,
                )  # fmt: skip
            for t in range(count):
                image, row, column = tile_place(first + t, down, across)
                input_places(image, row, column, phase, s, size, n, pad_h, pad_w, h, w, c_in, pixels)
                from_v(form, v, t * c_in, v_places, waste, flat_x, 0, pixels, waste, c_in)
    bias_leaky(flat_x, begin * h * w * c_in, (end - begin) * h * w, c_in, c_in, b, 0, slope)


# --- the adjoint in w -------------------------------------------------------------------------------------------------


def conv2d_weight_grad(x: Any, y: Any, stride: int, padding: Pair, number: int, w: Any) -> None:
    """Write the gradient of ⟨conv2d(x, w), y⟩ with respect to w into w (k, k, Cin, Cout)."""
    form = FORMS[number]
    down, across = tiles_of(y.shape[1:3], form.m)
    width = PANEL_BYTES.make() // w.itemsize
    m = aligned(form.n**2 * ((y.shape[3] + width - 1) // width * len(y) * down * across * width + APART), w.dtype)
    if y.shape[3] % width:
        m[:] = 0
    _output_points_units(len(y), np.ascontiguousarray(y), number, form.m, form.n, down, across, m, work=m.size)
    deep = 32 if stride**2 * x.shape[3] >= 256 else 16  # channels of x in one unit
    _weight_grad_units(
        stride**2 * -(-x.shape[3] // deep), np.ascontiguousarray(x), m, stride, number, form.m, form.r, form.n,
        *padding, down, across, deep, w,
        work=x.size + m.size,
    )  # fmt: skip


@units
def _output_points_units(image, y, form, size, n, down, across, m):
    """M = A y Aᵀ in panels of channels: (n², panels, T, width)."""
    n_images, oh, ow, c_out = y.shape
    width = PANEL_BYTES // y.itemsize
    panels = (c_out + width - 1) // width
    total = n_images * down * across
    flat = y.reshape(-1)
    blank = np.zeros(c_out, y.dtype)
    m_places, outputs = places_apart(n * n, panels * total * width + APART), np.empty(size * size, np.int64)
    for t in range(image * down * across, (image + 1) * down * across):
        _, row, column = tile_place(t, down, across)
        output_places(image, row, column, size, oh, ow, c_out, outputs)
        for panel in range(panels):
            columns = min(width, c_out - panel * width)
            target = (panel * total + t) * width
            to_m(form, flat, panel * width, outputs, blank, m, target, m_places, blank, columns)


@units
def _weight_grad_units(unit, x, m, s, form, size, r, n, pad_h, pad_w, down, across, deep, dw):
    n_images, h, w, c_in = x.shape
    c_out = dw.shape[3]
    width = PANEL_BYTES // x.itemsize
    panels = (c_out + width - 1) // width
    total = n_images * down * across
    groups = (c_in + deep - 1) // deep
    flat_x, flat_w = x.reshape(-1), dw.reshape(-1)
    phase, c0 = unit // groups, unit % groups * deep
    channels = min(deep, c_in - c0)
    v_far, u_far = 2 * BLOCK * channels + APART, channels * c_out + APART
    v, u = scratch(n * n * v_far, x), scratch(n * n * u_far, x)
    blank, edge = np.zeros(channels, x.dtype), scratch(TILE_ROWS * width, x)
    v_places, u_places = places_apart(n * n, v_far), places_apart(n * n, u_far)
    pixels, weights = np.empty(n * n, np.int64), np.empty(r * r, np.int64)
    for first in range(0, total, 2 * BLOCK):
        count = min(2 * BLOCK, total - first)
        for t in range(count):
            image, row, column = tile_place(first + t, down, across)
            input_places(image, row, column, phase, s, size, n, pad_h, pad_w, h, w, c_in, pixels)
            to_v(form, flat_x, c0, pixels, blank, v, t * channels, v_places, blank, channels)
        for k in range(n * n):
            panel = k * (panels * total * width + APART) + first * width
            multiply(
                v, k * v_far, 1, channels, TILE_ROWS, m, panel, width, total * width,
                channels, c_out, count, u, k * u_far, c_out, first == 0, edge,
            )  # fmt: skip
    for i in range(r):
        for j in range(r):
            weights[i * r + j] = ((s * i + phase // s) * s * r + s * j + phase % s) * c_in * c_out
    for c in range(channels):
        from_u(form, u, c * c_out, u_places, blank, flat_w, (c0 + c) * c_out, weights, blank, c_out)
