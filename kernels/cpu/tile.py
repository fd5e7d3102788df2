"""The register tile, from which all products are made.

    C[i, j] (+)= Σ_k A[i, k] · B[k, j]          i < TILE_ROWS, j < two vectors, k in order

One step of k, with R = TILE_ROWS; every cell is a vector register:

                             B[k, :]   │ first half │ second half │    2 loads
                                       ├────────────┼─────────────┤
    A[0, k]    in all lanes  ────────▶ │  C[0, :]   │   C[0, :]   │ ╮
    A[1, k]    in all lanes  ────────▶ │  C[1, :]   │   C[1, :]   │ │ 2 R multiply-adds
      …                                │     …      │      …      │ │
    A[R−1, k]  in all lanes  ────────▶ │ C[R−1, :]  │  C[R−1, :]  │ ╯

A tile keeps its 2 R vectors of C in registers while it walks k, so that every value it loads is used many times. With
16 registers R is 6: 12 for C, 2 for B, 1 for A. Each entry of C is one chain of fused multiply-adds in the order of k,
whichever tile it falls in: products have the same bits however they are cut up and shared among threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from minigan.kernels.cpu.jit import helper, late, vector_bytes
from minigan.kernels.cpu.vector import instruction

PANEL_BYTES = late(lambda: 2 * vector_bytes())  # the columns of a tile lie side by side in two vectors
DEPTH = 256  # entries of k that one tile walks, so that what it reads of B stays in the first-level cache


def _tile_rows() -> int:
    """Return the rows of a tile: with two vectors of C each, they fill 32 registers halfway, or all of 16."""
    import llvmlite.binding as llvm

    x86 = llvm.get_process_triple().startswith(("x86", "i"))
    return 6 if x86 and vector_bytes() < 64 else 8


TILE_ROWS = late(_tile_rows)


# --- views: flat arrays with the place of their first entry and their strides, all in entries -------------------------


class Matrix(NamedTuple):
    """A matrix: entry (i, j) is data[at + i·row + j·col]."""

    data: Any
    at: int
    row: int
    col: int


class Tiles(NamedTuple):
    """A (m, k): entry (i, p) of tile t is data[at + t·tile + i·row + p·col].

    ``tile`` is TILE_ROWS · row for a matrix as it lies, TILE_ROWS · k for one whose tiles are stored one by one.
    """

    data: Any
    at: int
    row: int
    col: int
    tile: int


class Panels(NamedTuple):
    """B (k, n): row p of panel j is data[at + j·panel + p·row] and the entries that follow it.

    ``panel`` is k · width for packed panels, width for a matrix as it lies (if n is a multiple of the width).
    """

    data: Any
    at: int
    row: int
    panel: int


class Rows(NamedTuple):
    """C (m, n): row i begins at data[at + i·row]; ``edge`` (TILE_ROWS · width) is scratch for an incomplete panel."""

    data: Any
    at: int
    row: int
    edge: Any


class Spot(NamedTuple):
    """One tile's work: the places of its first entries in A, B and C, its depth, and the rows that C has for it.

    ``fresh`` starts from zero instead of from what C holds. While the tile walks k, it asks the cache for the entries
    of the next panel, ``stride`` apart from ``ahead`` on.
    """

    a: int
    b: int
    c: int
    depth: int
    rows: int
    fresh: bool
    ahead: int
    stride: int


@late
def tile() -> Any:
    """Build ``tile(a, b, c, spot)`` for loop nests, of Tiles, Panels, Rows and a Spot; 1 <= rows, 1 <= depth."""
    tile_rows = TILE_ROWS.make()
    cells = [(i, j) for i in range(tile_rows) for j in range(2)]

    @instruction
    def tile(code, a, b, c, spot):
        build = code.builder

        def half(pointer, j):
            return code.at(pointer, code.word(j * code.lanes))

        def row_offset(i, stride):
            """Rows beyond the edge repeat the last one, and come out equal to it."""
            inside = build.icmp_signed("<", code.word(i), spot.rows)
            return build.mul(build.select(inside, code.word(i), build.sub(spot.rows, code.word(1))), stride)

        # Hidden, so that a row is read at column + offset, two registers. A compiler that sees how these follow from
        # one another keeps a pointer for every row, and runs out of registers: products take up to 1.5 times as long.
        row_bytes, column_bytes = (build.mul(stride, code.word(code.size)) for stride in (a.row, a.col))
        offsets = [code.hidden(row_offset(i, row_bytes)) if i else code.word(0) for i in range(tile_rows)]
        start_a, start_b, start_c = code.at(a.data, spot.a), code.at(b.data, spot.b), code.at(c.data, spot.c)
        ahead = code.at(b.data, spot.ahead)
        out = [code.at(start_c, row_offset(i, c.row)) for i in range(tile_rows)]

        def products_added(step, sums):
            row_of_b = code.at(start_b, build.mul(step, b.row))
            column_of_a = code.at(build.bitcast(start_a, code.bytes), code.hidden(build.mul(step, column_bytes)))
            code.prefetch(code.at(ahead, build.mul(step, spot.stride)))
            of_b = [code.load(half(row_of_b, j)) for j in range(2)]
            grown = []
            for i, offset in enumerate(offsets):
                of_a = code.spread(code.load(code.at(column_of_a, offset), code.number))
                grown += [code.fma(of_a, of_b[j], sums[2 * i + j]) for j in range(2)]
            return grown

        sums = code.either(
            spot.fresh,
            lambda: [code.constant(0.0) for _ in cells],
            lambda: [code.load(half(out[i], j)) for i, j in cells],
        )
        for (i, j), total in zip(cells, code.repeat(spot.depth, sums, products_added), strict=True):
            code.store(total, half(out[i], j))

    return tile


@late
def dot() -> Any:
    """Build ``dot(a, a_at, b, b_at, k)``: Σ a·b over k entries side by side, in lanes that are added up at the end."""
    chains = 4  # sums at work at once, as one multiply-add takes about four steps to finish

    @instruction(result=lambda types, a, *_: a.dtype)
    def dot(code, a, a_at, b, b_at, k):
        build = code.builder
        a, b = code.at(a, a_at), code.at(b, b_at)

        def add(total, at, kind):
            factors = [code.load(code.at(pointer, at), kind) for pointer in (a, b)]
            build.store(code.fma(*factors, build.load(total)), total)

        sums = [code.variable(code.constant(0.0)) for _ in range(chains)]
        stride = code.word(code.lanes * chains)
        whole = build.mul(build.sdiv(k, stride), stride)
        with code.span(code.word(0), whole, stride) as (at, _):
            for chain, total in enumerate(sums):
                add(total, build.add(at, code.word(chain * code.lanes)), code.vector)
        totals = [build.load(total) for total in sums]
        while len(totals) > 1:
            totals = [build.fadd(x, y) for x, y in zip(totals[::2], totals[1::2], strict=True)]
        vector, half = totals[0], code.lanes // 2
        while half:
            turned = code.shuffle(vector, vector, [(i + half) % code.lanes for i in range(code.lanes)])
            vector = build.fadd(vector, turned)
            half //= 2
        total = code.variable(build.extract_element(vector, code.small(0)))
        with code.span(whole, k, code.word(1)) as (at, _):
            add(total, at, code.number)
        return build.load(total)

    return dot


@helper
def multiply(a, b, c, m, n, k, first):
    """C (m, n) = A (m, k) · B (k, n), added to what C holds unless ``first``, tile by tile on one thread."""
    width = PANEL_BYTES // c.data.itemsize
    for p0 in range(0, k, DEPTH):
        depth = min(DEPTH, k - p0)
        fresh = first and p0 == 0
        for j0 in range(0, n, width):
            columns = min(width, n - j0)
            whole = columns == width
            out = c if whole else Rows(c.edge, 0, width, c.edge)
            panel = b.at + j0 // width * b.panel + p0 * b.row
            stride = max(1, width * TILE_ROWS // max(m, TILE_ROWS))
            for i0 in range(0, m, TILE_ROWS):
                ahead = panel + b.panel + i0 // TILE_ROWS * stride * depth
                rows = min(TILE_ROWS, m - i0)
                here = a.at + i0 // TILE_ROWS * a.tile + p0 * a.col
                there = c.at + i0 * c.row + j0
                if not (whole or fresh):
                    for i in range(rows):
                        for j in range(columns):
                            c.edge[i * width + j] = c.data[there + i * c.row + j]
                tile(a, b, out, Spot(here, panel, there if whole else 0, depth, rows, fresh, ahead, stride))
                if not whole:
                    for i in range(rows):
                        for j in range(columns):
                            c.data[there + i * c.row + j] = c.edge[i * width + j]
