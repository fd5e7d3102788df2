"""Convolutions with fewer multiplications: Winograd's minimal filtering (1509.09308), on the phases of an image.

Outputs are made in tiles of m × m. In one dimension, with r taps, n = m + r − 1 inputs d give m outputs by n products,

    y = Aᵀ [(G g) ∘ (Bᵀ d)]

and in two dimensions each side of the sandwich is applied twice: F(2,2) takes 9 products a tile instead of 16, F(4,2)
25 instead of 64, F(2,3) 16 instead of 36 (see forms.py). A convolution of stride s with s·r taps a side is
the sum over its s² phases (the pixels, and the taps, whose coordinates have one remainder by s) of convolutions of
stride 1 with r taps: so 4×4 stride 2 is four times F(2,2) or F(4,2).
With T tiles and one matrix product a point k of the n² points:

    V = Bᵀ d B  (n², T, Cin)    U = G g Gᵀ  (n², Cin, Cout)    M[k] = V[k] U[k], summed over the phases    y = Aᵀ M A

In memory, from left to right, with APART unused entries after each point:

    V    │ tile 0: phase 0, phase 1, … │ tile 1 │ … │ APART │ tile 0 │ …      a phase: Cin entries
           ╰──────────────── point 0 ─────────────╯         ╰─ point 1 ─
    U    │ panel 0: phase 0, phase 1, … │ panel 1 │ … │ APART │ panel 0 │ …   a phase: Cin rows of width entries,
                                                                             those of the panel's output channels
    M    │ tile 0 │ tile 1 │ … │ APART │ tile 0 │ …                           a tile: Cout entries

V and M hold a block of tiles, and V the phases that one product sums over (``phases_together``). So V[k] is the A of
tile.py's product, U[k] its B in panels, and M[k] its C. The adjoints are

    dM = A dy Aᵀ    dV[k] = dM[k] U[k]ᵀ, dx = B dV Bᵀ added in place    dU[k] = V[k]ᵀ dM[k], dg = Gᵀ dU G

For dV, V holds one phase, and Uᵀ each phase by itself: (n², phases, panels, Cout, width). For dU, dM lies in panels,
(n², panels, T, width), and V[k]ᵀ is V[k] read by columns: (n², tiles, channels of the unit).

Each block of tiles is transformed, multiplied and transformed back while it lies in the cache of one core; transforms
are cheaper to repeat than to store. No sum crosses from one thread to another.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigan.kernels.bias_act import bias_leaky
from minigan.kernels.cpu.forms import FORMS
from minigan.kernels.cpu.jit import helper, late
from minigan.kernels.cpu.kept import Kept
from minigan.kernels.cpu.packing import aligned, scratch, swapped_channels
from minigan.kernels.cpu.sandwich import OUTSIDE, Scattered, sandwich
from minigan.kernels.cpu.tile import DEPTH, PANEL_BYTES, TILE_ROWS, Panels, Rows, Tiles, multiply
from minigan.kernels.cpu.tiling import (
    Pair,
    Tiling,
    input_places,
    output_places,
    places_apart,
    tap_places,
    tiles_of,
    tiling,
)
from minigan.kernels.cpu.tiling import find_form as find_form
from minigan.kernels.cpu.units import units


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
KEPT = 1 << 20  # entries of transformed weights that are worth their memory


_kept = Kept()


def _packed_weights(w: Any, g: Tiling, transposed: bool) -> Any:
    """Return U = G g Gᵀ in panels of Cout, as a flat array: (n², panels, phases · Cin, width).

    ``transposed``: of the weights with Cin and Cout swapped, and (n², phases, panels, Cin, width). U is kept while the
    weights stay the same: in a turn they meet several images.
    """
    c_in, c_out = w.shape[2:] if not transposed else (w.shape[3], w.shape[2])
    width = PANEL_BYTES.make() // w.itemsize
    size = g.n**2 * (g.s**2 * ((c_out + width - 1) // width) * c_in * width + APART)

    def make() -> Any:
        taps = swapped_channels(w) if transposed else np.ascontiguousarray(w)
        packed = aligned(size, taps.dtype)
        if c_out % width:
            packed[:] = 0
        _weights_units(c_in, taps, not transposed, packed, view=g, work=packed.size)
        return packed

    return _kept(w, (g.s, g.form, transposed), make) if size <= KEPT else make()


@units
def _weights_units(c, w, together, packed, g):
    c_in, c_out = w.shape[2:]
    n, r, s = g.n, g.r, g.s
    width = PANEL_BYTES // w.itemsize
    panels = (c_out + width - 1) // width
    flat, places = w.reshape(-1), np.empty(r * r, np.int64)
    of_g = Scattered(flat, places, flat)
    of_u = Scattered(packed, places_apart(n * n, s * s * panels * c_in * width + APART), flat)
    for phase in range(s * s):
        tap_places(g, phase, c_in * c_out, places)
        for panel in range(panels):
            columns = min(width, c_out - panel * width)
            target = (panel * s * s + phase if together else phase * panels + panel) * c_in + c
            to_u(g.form, of_g, c * c_out + panel * width, of_u, target * width, columns)


@helper
def phases_together(s, channels):
    """Return how many phases, 1 or 2 or all s², are multiplied as one sum of up to DEPTH / 2 terms."""
    return s * s if s * s * channels <= DEPTH // 2 else 2 if s == 2 and 2 * channels <= DEPTH // 2 else 1


# --- forward ----------------------------------------------------------------------------------------------------------


def conv2d(x: Any, w: Any, b: Any, slope: Any, stride: int, padding: Pair, number: int, y: Any) -> None:
    """Write v > 0 ? v : slope·v with v = x ⋆ w + b into y (N, OH, OW, Cout); b may be empty."""
    g = tiling(number, stride, padding, y.shape[1:3], BLOCK if x.shape[3] >= DEPTH else BLOCK // 2)
    packed = _packed_weights(w, g, False)
    count = -(-len(x) * g.down * g.across // g.block)
    _forward_units(count, np.ascontiguousarray(x), packed, b, slope, y, view=g, work=x.size + y.size)


@units
def _forward_units(unit, x, packed, b, slope, y, g):
    c_in, c_out, total = x.shape[3], y.shape[3], x.shape[0] * g.down * g.across
    points, phases, width = g.n * g.n, g.s * g.s, PANEL_BYTES // x.itemsize
    panels = (c_out + width - 1) // width
    together = phases_together(g.s, c_in)  # phases that are multiplied as one sum
    deep = together * c_in
    v_far, m_far = g.block * deep + APART, g.block * c_out + APART
    u_far, u_panel = phases * panels * c_in * width + APART, phases * c_in * width
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    first, count = unit * g.block, min(g.block, total - unit * g.block)
    v, m, edge = scratch(points * v_far, x), scratch(points * m_far, x), scratch(TILE_ROWS * width, x)
    blank, waste = np.zeros(c_in, x.dtype), np.empty(c_out, x.dtype)
    pixels, outputs = np.empty(points, np.int64), np.empty(g.m * g.m, np.int64)
    of_x, of_v = Scattered(flat_x, pixels, blank), Scattered(v, places_apart(points, v_far), blank)
    of_m, of_y = Scattered(m, places_apart(points, m_far), waste), Scattered(flat_y, outputs, waste)
    for phase0 in range(0, phases, together):
        for t in range(count):
            for phase in range(phase0, phase0 + together):
                input_places(g, first + t, phase, x.shape, pixels)
                to_v(g.form, of_x, 0, of_v, t * deep + (phase - phase0) * c_in, c_in)
        for k in range(points):
            tiles = Tiles(v, k * v_far, deep, 1, TILE_ROWS * deep)
            weights = Panels(packed, k * u_far + phase0 * c_in * width, width, u_panel)
            multiply(tiles, weights, Rows(m, k * m_far, c_out, edge), count, c_out, deep, phase0 == 0)
    for t in range(count):
        output_places(g, first + t, y.shape, outputs)
        from_m(g.form, of_m, t * c_out, of_y, 0, c_out)
        for place in outputs:
            if place != OUTSIDE:
                bias_leaky(flat_y, place, 1, c_out, c_out, b, 0, slope)


# --- the adjoint in x -------------------------------------------------------------------------------------------------


def conv2d_transpose(y: Any, w: Any, b: Any, slope: Any, stride: int, padding: Pair, number: int, x: Any) -> None:
    """Write v > 0 ? v : slope·v with v = convᵀ(y, w) + b into x (N, H, W, Cin); b may be empty."""
    tiles = math.prod(tiles_of(y.shape[1:3], FORMS[number].m))
    images = max(1, BLOCK // 2 // tiles)  # of one unit: tiles overlap within an image
    g = tiling(number, stride, padding, y.shape[1:3], images)
    packed = _packed_weights(w, g, True)
    y = np.ascontiguousarray(y)
    _adjoint_units(-(-len(y) // images), y, packed, b, slope, x, view=g, work=x.size + y.size)


@units
def _adjoint_units(unit, y, packed, b, slope, x, g):
    (n_images, h, w, c_in), c_out = x.shape, y.shape[3]
    points, phases, width = g.n * g.n, g.s * g.s, PANEL_BYTES // x.itemsize
    u_phase = (c_in + width - 1) // width * c_out * width
    v_far, m_far, u_far = BLOCK * c_in + APART, BLOCK * c_out + APART, phases * u_phase + APART
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    begin, end = unit * g.block, min(n_images, (unit + 1) * g.block)
    x[begin:end] = 0
    v, m, edge = scratch(points * v_far, x), scratch(points * m_far, x), scratch(TILE_ROWS * width, x)
    blank, waste = np.zeros(c_out, x.dtype), np.empty(c_in, x.dtype)
    pixels, outputs = np.empty(points, np.int64), np.empty(g.m * g.m, np.int64)
    of_y, of_m = Scattered(flat_y, outputs, blank), Scattered(m, places_apart(points, m_far), blank)
    of_v, of_x = Scattered(v, places_apart(points, v_far), waste), Scattered(flat_x, pixels, waste)
    for first in range(begin * g.down * g.across, end * g.down * g.across, BLOCK):
        count = min(BLOCK, end * g.down * g.across - first)
        for t in range(count):
            output_places(g, first + t, y.shape, outputs)
            to_m(g.form, of_y, 0, of_m, t * c_out, c_out)
        for phase in range(phases):
            for k in range(points):
                tiles = Tiles(m, k * m_far, c_out, 1, TILE_ROWS * c_out)
                weights = Panels(packed, k * u_far + phase * u_phase, width, c_out * width)
                multiply(tiles, weights, Rows(v, k * v_far, c_in, edge), count, c_in, c_out, True)
            for t in range(count):
                input_places(g, first + t, phase, x.shape, pixels)
                from_v(g.form, of_v, t * c_in, of_x, 0, c_in)
    bias_leaky(flat_x, begin * h * w * c_in, (end - begin) * h * w, c_in, c_in, b, 0, slope)


# --- the adjoint in w -------------------------------------------------------------------------------------------------


def conv2d_weight_grad(x: Any, y: Any, stride: int, padding: Pair, number: int, w: Any) -> None:
    """Write the gradient of ⟨conv2d(x, w), y⟩ with respect to w into w (k, k, Cin, Cout)."""
    deep = 32 if stride**2 * x.shape[3] >= 256 else 16  # channels of x in one unit
    g = tiling(number, stride, padding, y.shape[1:3], deep)
    width = PANEL_BYTES.make() // w.itemsize
    m = aligned(g.n**2 * ((y.shape[3] + width - 1) // width * len(y) * g.down * g.across * width + APART), w.dtype)
    if y.shape[3] % width:
        m[:] = 0
    _output_points_units(len(y), np.ascontiguousarray(y), m, view=g, work=m.size)
    count = stride**2 * -(-x.shape[3] // deep)
    _weight_grad_units(count, np.ascontiguousarray(x), m, w, view=g, work=x.size + m.size)


@units
def _output_points_units(image, y, m, g):
    """M = A y Aᵀ in panels of channels: (n², panels, T, width)."""
    c_out, total = y.shape[3], y.shape[0] * g.down * g.across
    width = PANEL_BYTES // y.itemsize
    panels = (c_out + width - 1) // width
    blank, outputs = np.zeros(c_out, y.dtype), np.empty(g.m * g.m, np.int64)
    of_y = Scattered(y.reshape(-1), outputs, blank)
    of_m = Scattered(m, places_apart(g.n * g.n, panels * total * width + APART), blank)
    for t in range(image * g.down * g.across, (image + 1) * g.down * g.across):
        output_places(g, t, y.shape, outputs)
        for panel in range(panels):
            columns = min(width, c_out - panel * width)
            to_m(g.form, of_y, panel * width, of_m, (panel * total + t) * width, columns)


@units
def _weight_grad_units(unit, x, m, dw, g):
    c_in, c_out, total = x.shape[3], dw.shape[3], x.shape[0] * g.down * g.across
    points, width = g.n * g.n, PANEL_BYTES // x.itemsize
    m_far = (c_out + width - 1) // width * total * width + APART
    groups = (c_in + g.block - 1) // g.block
    phase, c0 = unit // groups, unit % groups * g.block
    channels = min(g.block, c_in - c0)
    v_far, u_far = 2 * BLOCK * channels + APART, channels * c_out + APART
    v, u, edge = scratch(points * v_far, x), scratch(points * u_far, x), scratch(TILE_ROWS * width, x)
    blank, pixels, weights = np.zeros(channels, x.dtype), np.empty(points, np.int64), np.empty(g.r * g.r, np.int64)
    of_x, of_v = Scattered(x.reshape(-1), pixels, blank), Scattered(v, places_apart(points, v_far), blank)
    of_u, of_w = Scattered(u, places_apart(points, u_far), blank), Scattered(dw.reshape(-1), weights, blank)
    for first in range(0, total, 2 * BLOCK):
        count = min(2 * BLOCK, total - first)
        for t in range(count):
            input_places(g, first + t, phase, x.shape, pixels)
            to_v(g.form, of_x, c0, of_v, t * channels, channels)
        for k in range(points):
            tiles = Tiles(v, k * v_far, 1, channels, TILE_ROWS)
            outputs = Panels(m, k * m_far + first * width, width, total * width)
            multiply(tiles, outputs, Rows(u, k * u_far, c_out, edge), channels, c_out, count, first == 0)
    tap_places(g, phase, c_in * c_out, weights)
    for c in range(channels):
        from_u(g.form, of_u, c * c_out, of_w, (c0 + c) * c_out, c_out)
