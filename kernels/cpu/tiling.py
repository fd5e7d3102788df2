"""How Winograd's forms cut a convolution into tiles: which form is the best, and where the entries of a tile lie."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from minigan.kernels.cpu.forms import FORMS
from minigan.kernels.cpu.jit import helper
from minigan.kernels.cpu.packing import LANES
from minigan.kernels.cpu.sandwich import OUTSIDE

Pair = tuple[int, int]
WEIGHT_TRANSFORM = 100  # tiles whose products cost as much as the transform of the weights


def tiles_of(out: Pair, m: int) -> Pair:
    """Return how many tiles of m × m cover outputs of this size."""
    return -(-out[0] // m), -(-out[1] // m)


@functools.lru_cache(maxsize=256)
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


class Tiling(NamedTuple):
    """A convolution by one form, and the tiles of its outputs.

    ``form`` is the number of F(m, r), which takes n² products a tile; s is the stride. A tile has m × m outputs, and
    ``down`` × ``across`` tiles cover an image. A unit of work takes ``block`` tiles, images or channels.
    """

    form: int
    m: int
    r: int
    n: int
    s: int
    pad_h: int
    pad_w: int
    down: int
    across: int
    block: int


@functools.lru_cache(maxsize=256)
def tiling(number: int, stride: int, padding: Pair, out: Pair, block: int) -> Tiling:
    """Return the tiles of outputs (OH, OW) in the form of this number."""
    form = FORMS[number]
    return Tiling(number, form.m, form.r, form.n, stride, *padding, *tiles_of(out, form.m), block)


@helper
def places_apart(count, far):
    """Return where the points of a transform begin that lie ``far`` entries apart."""
    places = np.empty(count, np.int64)
    for k in range(count):
        places[k] = k * far
    return places


@helper
def tap_places(g, phase, channels, places):
    """Fill in where the r × r taps of a phase lie."""
    for i in range(g.r):
        for j in range(g.r):
            places[i * g.r + j] = ((g.s * i + phase // g.s) * g.s * g.r + g.s * j + phase % g.s) * channels


@helper
def input_places(g, tile, phase, shape, places):
    """Fill in where the n × n pixels of a phase lie that a tile of outputs needs; images are (N, H, W, C)."""
    image, rest = tile // (g.down * g.across), tile % (g.down * g.across)
    row, column = rest // g.across, rest % g.across
    _, h, w, channels = shape
    top, left = g.m * g.s * row + phase // g.s - g.pad_h, g.m * g.s * column + phase % g.s - g.pad_w
    for i in range(g.n):
        for j in range(g.n):
            at_h, at_w = top + g.s * i, left + g.s * j
            inside = 0 <= at_h < h and 0 <= at_w < w
            places[i * g.n + j] = ((image * h + at_h) * w + at_w) * channels if inside else OUTSIDE


@helper
def output_places(g, tile, shape, places):
    """Fill in where the m × m outputs of a tile lie; they are (N, OH, OW, C)."""
    image, rest = tile // (g.down * g.across), tile % (g.down * g.across)
    row, column = rest // g.across, rest % g.across
    _, oh, ow, channels = shape
    for i in range(g.m):
        for j in range(g.m):
            p, q = g.m * row + i, g.m * column + j
            places[g.m * i + j] = ((image * oh + p) * ow + q) * channels if p < oh and q < ow else OUTSIDE
