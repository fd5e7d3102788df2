"""The register tile: the one place where machine vectors are written out, and what all products are made of.

    C[i, j] (+)= Σ_k A[i, k] · B[k, j]          i < TILE_ROWS, j < two vectors, k in order

A tile keeps TILE_ROWS × 2 vectors of C in registers while it walks k, so that every value it loads is used many times.
Each entry of C is one chain of fused multiply-adds in the order of k, whatever the tile it falls in: products come out
the same bit by bit however they are cut up and shared among threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan.kernels.cpu.jit import helper, late, vector_bytes
from minigan.kernels.cpu.lanes import transpose_square
from minigan.kernels.cpu.units import units

VECTOR_BYTES = late(vector_bytes)
PANEL_BYTES = late(lambda: 2 * vector_bytes())  # the columns of a tile lie side by side in two vectors
DEPTH = 256  # entries of k that one tile walks, so that what it reads of B stays in the first-level cache


def _tile_rows() -> int:
    """Return the rows of a tile: with two vectors of C each, they fill 32 registers halfway, or all of 16."""
    import llvmlite.binding as llvm

    x86 = llvm.get_process_triple().startswith(("x86", "i"))
    return 6 if x86 and vector_bytes() < 64 else 8


TILE_ROWS = late(_tile_rows)


@late
def tile() -> Any:
    """Build ``tile(a, a_at, a_row, a_col, b, b_at, b_row, k, c, c_at, c_row, rows, first)`` for loop nests.

    Arrays are given with the position of their first entry and their strides, all in entries; B's and C's columns lie
    side by side. k >= 1; ``rows`` (>= 1) cuts the tile at the lower edge of C; ``first`` starts from zero instead of
    from what C holds.
    """
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    tile_rows = TILE_ROWS.make()
    word, small, byte = ir.IntType(64), ir.IntType(32), ir.IntType(8)

    @intrinsic
    def tile(typing, a, a_at, a_row, a_col, b, b_at, b_row, ahead, stride, k, c, c_at, c_row, rows, first):
        at = types.intp
        signature = types.void(a, at, at, at, b, at, at, at, at, at, c, at, at, at, types.boolean)

        def generate(context, builder, signature, arguments):
            _, a_at, a_row, a_col, _, b_at, b_row, ahead, stride, k, _, c_at, c_row, rows, first = arguments
            number = context.get_value_type(signature.args[0].dtype)
            size = context.get_abi_sizeof(number)
            lanes = vector_bytes() // size
            vector = ir.VectorType(number, lanes)
            cells = [(i, j) for i in range(tile_rows) for j in range(2)]
            multiply_add = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(vector, [vector] * 3),
                f"llvm.fma.v{lanes}f{8 * size}",
            )

            def start(position, offset):
                array = context.make_array(signature.args[position])(context, builder, arguments[position])
                return builder.gep(array.data, [offset])

            def vector_at(pointer, j):
                return builder.bitcast(builder.gep(pointer, [word(j * lanes)]), vector.as_pointer())

            def load(pointer, j):
                value = builder.load(vector_at(pointer, j))
                value.align = size
                return value

            def spread(value):
                nothing = ir.Constant(vector, ir.Undefined)
                one = builder.insert_element(nothing, value, small(0))
                return builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(small, lanes), [0] * lanes))

            def row_offset(i, stride):
                """Rows beyond the edge repeat the last one, and come out equal to it."""
                inside = builder.icmp_signed("<", word(i), rows)
                return builder.mul(builder.select(inside, word(i), builder.sub(rows, word(1))), stride)

            # The empty assembly hides how the rows' offsets follow from one another: they stay in registers of their
            # own, where the compiler would otherwise add them up one after the other for every k.
            hide = ir.InlineAsm(ir.FunctionType(word, [word]), "", "=r,0")
            row_bytes = builder.mul(a_row, word(size))
            offsets = [builder.call(hide, [row_offset(i, row_bytes)]) if i else word(0) for i in range(tile_rows)]
            first_a, first_b, first_c = start(0, a_at), start(4, b_at), start(10, c_at)
            start_b = start(4, ahead)
            prefetch = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(ir.VoidType(), [byte.as_pointer(), small, small, small]),
                "llvm.prefetch.p0",
            )
            c_rows = [builder.gep(first_c, [row_offset(i, c_row)]) for i in range(tile_rows)]

            clear, more, head, loop, end = (
                builder.append_basic_block(name) for name in ("clear", "more", "head", "loop", "end")
            )
            builder.cbranch(first, clear, more)
            builder.position_at_end(clear)
            builder.branch(head)
            builder.position_at_end(more)
            loaded = [load(c_rows[i], j) for i, j in cells]
            builder.branch(head)

            builder.position_at_end(head)
            begin = [builder.phi(vector) for _ in cells]
            for phi, value in zip(begin, loaded, strict=True):
                phi.add_incoming(ir.Constant(vector, [0.0] * lanes), clear)
                phi.add_incoming(value, more)
            builder.branch(loop)

            builder.position_at_end(loop)
            step = builder.phi(word)
            sums = [builder.phi(vector) for _ in cells]
            row_of_b = builder.gep(first_b, [builder.mul(step, b_row)])
            column_of_a = builder.bitcast(builder.gep(first_a, [builder.mul(step, a_col)]), byte.as_pointer())
            soon = builder.gep(start_b, [builder.mul(step, stride)])
            builder.call(prefetch, [builder.bitcast(soon, byte.as_pointer()), small(0), small(2), small(1)])
            of_b = [load(row_of_b, j) for j in range(2)]
            grown = []
            for i in range(tile_rows):
                entry = builder.bitcast(builder.gep(column_of_a, [offsets[i]]), number.as_pointer())
                of_a = spread(builder.load(entry))
                grown += [builder.call(multiply_add, [of_a, of_b[j], sums[2 * i + j]]) for j in range(2)]
            following = builder.add(step, word(1))
            step.add_incoming(word(0), head)
            step.add_incoming(following, loop)
            for phi, before, after in zip(sums, begin, grown, strict=True):
                phi.add_incoming(before, head)
                phi.add_incoming(after, loop)
            builder.cbranch(builder.icmp_signed("<", following, k), loop, end)

            builder.position_at_end(end)
            for value, (i, j) in zip(grown, cells, strict=True):
                builder.store(value, vector_at(c_rows[i], j)).align = size
            return context.get_dummy_value()

        return signature, generate

    return tile


@late
def dot() -> Any:
    """Build ``dot(a, a_at, b, b_at, k)``: Σ a·b over k entries side by side, in lanes that are added up at the end."""
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    word, small = ir.IntType(64), ir.IntType(32)
    chains = 4  # sums at work at once, as one multiply-add takes about four steps to finish

    @intrinsic
    def dot(typing, a, a_at, b, b_at, k):
        signature = a.dtype(a, types.intp, b, types.intp, types.intp)

        def generate(context, builder, signature, arguments):
            number = context.get_value_type(signature.args[0].dtype)
            size = context.get_abi_sizeof(number)
            lanes = vector_bytes() // size
            vector = ir.VectorType(number, lanes)
            stride = word(lanes * chains)

            def multiply_add(kind, name):
                function = ir.FunctionType(kind, [kind] * 3)
                return cgutils.get_or_insert_function(builder.module, function, f"llvm.fma.{name}f{8 * size}")

            def start(position):
                array = context.make_array(signature.args[position])(context, builder, arguments[position])
                return builder.gep(array.data, [arguments[position + 1]])

            def load(pointer, at, chain):
                here = builder.gep(pointer, [builder.add(at, word(chain * lanes))])
                value = builder.load(builder.bitcast(here, vector.as_pointer()))
                value.align = size
                return value

            first_a, first_b, k = start(0), start(2), arguments[4]
            sums = [cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * lanes)) for _ in range(chains)]
            whole = builder.mul(builder.sdiv(k, stride), stride)
            with cgutils.for_range_slice(builder, word(0), whole, stride, word) as (at, _):
                for chain, total in enumerate(sums):
                    factors = load(first_a, at, chain), load(first_b, at, chain)
                    fma = multiply_add(vector, f"v{lanes}")
                    builder.store(builder.call(fma, [*factors, builder.load(total)]), total)

            totals = [builder.load(total) for total in sums]
            while len(totals) > 1:
                totals = [builder.fadd(x, y) for x, y in zip(totals[::2], totals[1::2], strict=True)]
            total, half = totals[0], lanes // 2
            while half:
                order = ir.Constant(ir.VectorType(small, lanes), [(i + half) % lanes for i in range(lanes)])
                total = builder.fadd(total, builder.shuffle_vector(total, total, order))
                half //= 2
            result = cgutils.alloca_once_value(builder, builder.extract_element(total, small(0)))
            with cgutils.for_range_slice(builder, whole, k, word(1), word) as (at, _):
                entries = [builder.load(builder.gep(p, [at])) for p in (first_a, first_b)]
                builder.store(builder.call(multiply_add(number, ""), [*entries, builder.load(result)]), result)
            return builder.load(result)

        return signature, generate

    return dot


@helper
def pack(b, b_at, b_row, b_col, k, n, packed, at):
    """Copy B (k, n) into panels as wide as a tile, (⌈n/width⌉, k, width), the last one filled up with zeros."""
    width, lanes = PANEL_BYTES // b.itemsize, VECTOR_BYTES // b.itemsize
    for j0 in range(0, n, width):
        columns = min(width, n - j0)
        panel = packed[at : at + k * width]
        if columns < width:
            panel[:] = 0
        start = b_at + j0 * b_col
        if b_col == 1:
            for p in range(k):
                row, entries = panel[p * width : (p + 1) * width], b[start + p * b_row : start + p * b_row + columns]
                for j in range(columns):
                    row[j] = entries[j]
        else:
            whole = k // lanes * lanes if b_row == 1 and columns == width else 0
            for p in range(0, whole, lanes):
                for j in range(0, width, lanes):
                    transpose_square(packed, at + p * width + j, width, b, start + j * b_col + p, b_col)
            for j in range(columns):
                for p in range(whole, k):
                    panel[p * width + j] = b[start + j * b_col + p * b_row]
        at += k * width


@late
def copy_rows() -> Any:
    """Build ``copy_rows(y, y_at, x, x_at)``: copy TILE_ROWS entries that lie side by side."""
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    tile_rows = TILE_ROWS.make()

    @intrinsic
    def copy_rows(typing, y, y_at, x, x_at):
        def generate(context, builder, signature, arguments):
            number = context.get_value_type(signature.args[0].dtype)
            places = []
            for position in (0, 2):
                array = context.make_array(signature.args[position])(context, builder, arguments[position])
                place = builder.gep(array.data, [arguments[position + 1]])
                places.append(builder.bitcast(place, ir.VectorType(number, tile_rows).as_pointer()))
            value = builder.load(places[1])
            value.align = context.get_abi_sizeof(number)
            builder.store(value, places[0]).align = value.align
            return context.get_dummy_value()

        return types.void(y, types.intp, x, types.intp), generate

    return copy_rows


@helper
def gather(a, a_at, a_row, a_col, m, k, tiles):
    """Copy A (m, k) tile by tile, (⌈m/TILE_ROWS⌉, k, TILE_ROWS): for matrices whose rows do not lie side by side."""
    whole = m // TILE_ROWS * TILE_ROWS
    for p in range(k):
        column = a_at + p * a_col
        if a_row == 1:
            for i0 in range(0, whole, TILE_ROWS):
                copy_rows(tiles, i0 * k + p * TILE_ROWS, a, column + i0)
        else:
            for i in range(whole):
                tiles[i // TILE_ROWS * TILE_ROWS * k + p * TILE_ROWS + i % TILE_ROWS] = a[column + i * a_row]
        for i in range(whole, m):
            tiles[whole * k + p * TILE_ROWS + i - whole] = a[column + i * a_row]


@helper
def multiply(a, a_at, a_row, a_col, a_tile, b, b_at, b_row, b_panel, m, n, k, c, c_at, c_row, first, edge):
    """C (m, n) = A (m, k) · B (k, n), added to what C holds unless ``first``, tile by tile on one thread.

    Tiles of A lie ``a_tile`` entries apart: TILE_ROWS · a_row, or k · TILE_ROWS where each tile is stored by itself.
    Panels of B lie ``b_panel`` apart: k · width for packed ones, width (with b_row, for n a multiple of it) for B as it
    is. ``edge`` (TILE_ROWS · width) is scratch for panels that C has not all columns of.
    """
    width = PANEL_BYTES // c.itemsize
    for p0 in range(0, k, DEPTH):
        depth = min(DEPTH, k - p0)
        fresh = first and p0 == 0
        for j0 in range(0, n, width):
            columns = min(width, n - j0)
            panel = b_at + j0 // width * b_panel + p0 * b_row
            stride = max(1, width * TILE_ROWS // max(m, TILE_ROWS))
            for i0 in range(0, m, TILE_ROWS):
                ahead = panel + b_panel + i0 // TILE_ROWS * stride * depth
                rows = min(TILE_ROWS, m - i0)
                here = a_at + i0 // TILE_ROWS * a_tile + p0 * a_col
                there = c_at + i0 * c_row + j0
                whole = columns == width
                if not (whole or fresh):
                    for i in range(rows):
                        for j in range(columns):
                            edge[i * width + j] = c[there + i * c_row + j]
                out, out_at, out_row = (c, there, c_row) if whole else (edge, 0, width)
                tile(a, here, a_row, a_col, b, panel, b_row, ahead, stride, depth, out, out_at, out_row, rows, fresh)
                if not whole:
                    for i in range(rows):
                        for j in range(columns):
                            c[there + i * c_row + j] = edge[i * width + j]


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
    _pack_units(1, b, b_row, b_col, k, n, panels, work=0)
    return panels


@units
def _pack_units(unit, b, b_row, b_col, k, n, panels):
    pack(b, 0, b_row, b_col, k, n, panels, 0)
