"""The register tile: the one place where machine vectors are written out, and what all products are made of.

    C[i, j] (+)= Σ_k A[i, k] · B[k, j]          i < TILE_ROWS, j < two vectors, k in order

A tile keeps TILE_ROWS × 2 vectors of C in registers while it walks k, so that every value it loads is used many times.
Each entry of C is one chain of fused multiply-adds in the order of k, whatever the tile it falls in: products come out
the same bit by bit however they are cut up and shared among threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from minigan.kernels.cpu.jit import helper, late, vector_bytes

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
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    tile_rows = TILE_ROWS.make()
    word, small, byte = ir.IntType(64), ir.IntType(32), ir.IntType(8)

    @intrinsic
    def tile(typing, a, b, c, spot):
        def generate(context, builder, signature, arguments):
            a, b, c, spot = (
                kind.instance_class(*cgutils.unpack_tuple(builder, value))
                for kind, value in zip(signature.args, arguments, strict=True)
            )
            rows = spot.rows
            array_kind = signature.args[0].types[0]
            number = context.get_value_type(array_kind.dtype)
            size = context.get_abi_sizeof(number)
            lanes = vector_bytes() // size
            vector = ir.VectorType(number, lanes)
            cells = [(i, j) for i in range(tile_rows) for j in range(2)]
            multiply_add = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(vector, [vector] * 3),
                f"llvm.fma.v{lanes}f{8 * size}",
            )

            def start(data, offset):
                array = context.make_array(array_kind)(context, builder, data)
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
            row_bytes = builder.mul(a.row, word(size))
            offsets = [builder.call(hide, [row_offset(i, row_bytes)]) if i else word(0) for i in range(tile_rows)]
            first_a, first_b, first_c = start(a.data, spot.a), start(b.data, spot.b), start(c.data, spot.c)
            start_b = start(b.data, spot.ahead)
            prefetch = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(ir.VoidType(), [byte.as_pointer(), small, small, small]),
                "llvm.prefetch.p0",
            )
            c_rows = [builder.gep(first_c, [row_offset(i, c.row)]) for i in range(tile_rows)]

            clear, more, head, loop, end = (
                builder.append_basic_block(name) for name in ("clear", "more", "head", "loop", "end")
            )
            builder.cbranch(spot.fresh, clear, more)
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
            row_of_b = builder.gep(first_b, [builder.mul(step, b.row)])
            column_of_a = builder.bitcast(builder.gep(first_a, [builder.mul(step, a.col)]), byte.as_pointer())
            soon = builder.gep(start_b, [builder.mul(step, spot.stride)])
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
            builder.cbranch(builder.icmp_signed("<", following, spot.depth), loop, end)

            builder.position_at_end(end)
            for value, (i, j) in zip(grown, cells, strict=True):
                builder.store(value, vector_at(c_rows[i], j)).align = size
            return context.get_dummy_value()

        return types.void(a, b, c, spot), generate

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
