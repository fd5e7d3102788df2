"""Operations on runs of numbers that lie side by side, for loop nests: a vector at a time, then what is left over.

A slice costs a loop nest more than a short run does: runs are given as a flat array and the place of the first entry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minigan.kernels.cpu.jit import late, vector_bytes


def _emit(context: Any, builder: Any, signature: Any, arguments: Any, runs: int, rule: Callable[..., Any]) -> Any:
    """Write the code for y ← rule(kind, y, x₁, …) over ``count`` entries, the last argument.

    The first ``runs`` pairs of arguments are the arrays and places of y, x₁, …; ``rule`` computes with LLVM values of
    ``kind``, a vector or a single number.
    """
    from llvmlite import ir
    from numba.core import cgutils

    word = ir.IntType(64)
    number = context.get_value_type(signature.args[0].dtype)
    size = context.get_abi_sizeof(number)
    lanes = vector_bytes() // size
    pointers = []
    for i in range(runs):
        array = context.make_array(signature.args[2 * i])(context, builder, arguments[2 * i])
        pointers.append(builder.gep(array.data, [arguments[2 * i + 1]]))
    count = arguments[-1]
    spans, begin = [], word(0)
    for step in sorted({lanes, min(4, lanes), 1}, reverse=True):  # short runs are often four numbers long
        end = builder.mul(builder.sdiv(count, word(step)), word(step))
        spans.append((number if step == 1 else ir.VectorType(number, step), begin, end, step))
        begin = end
    for kind, begin, end, step in spans:
        with cgutils.for_range_slice(builder, begin, end, word(step), word) as (at, _):
            places = [builder.bitcast(builder.gep(p, [at]), kind.as_pointer()) for p in pointers]
            values = [builder.load(place) for place in places]
            for value in values:
                value.align = size
            builder.store(rule(kind, *values), places[0]).align = size
    return context.get_dummy_value()


@late
def copy_run() -> Any:
    """Build ``copy_run(y, y_at, x, x_at, count)``: y ← x."""
    from numba import types
    from numba.extending import intrinsic

    @intrinsic
    def copy_run(typing, y, y_at, x, x_at, count):
        def generate(context, builder, signature, arguments):
            return _emit(context, builder, signature, arguments, 2, lambda kind, y, x: x)

        return types.void(y, types.intp, x, types.intp, types.intp), generate

    return copy_run


@late
def add_run() -> Any:
    """Build ``add_run(y, y_at, x, x_at, count)``: y ← y + x."""
    from numba import types
    from numba.extending import intrinsic

    @intrinsic
    def add_run(typing, y, y_at, x, x_at, count):
        def generate(context, builder, signature, arguments):
            return _emit(context, builder, signature, arguments, 2, lambda kind, y, x: builder.fadd(y, x))

        return types.void(y, types.intp, x, types.intp, types.intp), generate

    return add_run


@late
def bias_leaky_run() -> Any:
    """Build ``bias_leaky_run(y, y_at, x, x_at, b, b_at, with_b, slope, count)``: y ← v > 0 ? v : slope·v, v = x (+ b).

    With slope 0 a NaN stays one, and −inf gives 0.
    """
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    @intrinsic
    def bias_leaky_run(typing, y, y_at, x, x_at, b, b_at, with_b, slope, count):
        at = types.intp

        def generate(context, builder, signature, arguments):
            with_b, slope = arguments[6:8]
            flat = builder.fcmp_ordered("==", slope, ir.Constant(slope.type, 0.0))

            def spread(kind, value):
                if kind == value.type:
                    return value
                nothing, place = ir.Constant(kind, ir.Undefined), ir.Constant(ir.IntType(32), 0)
                one = builder.insert_element(nothing, value, place)
                return builder.shuffle_vector(
                    one, nothing, ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
                )

            def rule(kind, y, x, b):
                zero = ir.Constant(kind, [0.0] * kind.count if hasattr(kind, "count") else 0.0)
                v = builder.select(with_b, builder.fadd(x, b), x)
                cut = builder.select(builder.fcmp_ordered("<=", v, zero), zero, v)
                below = builder.select(flat, cut, builder.fmul(v, spread(kind, slope)))
                return builder.select(builder.fcmp_ordered(">", v, zero), v, below)

            return _emit(context, builder, signature, arguments, 3, rule)

        signature = types.void(y, at, x, at, b, at, types.boolean, y.dtype, at)
        return signature, generate

    return bias_leaky_run


@late
def transpose_square() -> Any:
    """Build ``transpose_square(y, y_at, y_row, x, x_at, x_row)``: y[i, j] ← x[j, i] for i, j < lanes of a vector.

    Squares of half the size change places (Eklundh's scheme), then squares within them, down to single entries.
    """
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    @intrinsic
    def transpose_square(typing, y, y_at, y_row, x, x_at, x_row):
        at = types.intp

        def generate(context, builder, signature, arguments):
            number = context.get_value_type(signature.args[0].dtype)
            size = context.get_abi_sizeof(number)
            lanes = vector_bytes() // size
            order = ir.VectorType(ir.IntType(32), lanes)

            def places(position):
                array = context.make_array(signature.args[position])(context, builder, arguments[position])
                first, apart = builder.gep(array.data, [arguments[position + 1]]), arguments[position + 2]
                rows = [builder.gep(first, [builder.mul(apart, ir.IntType(64)(i))]) for i in range(lanes)]
                return [builder.bitcast(row, ir.VectorType(number, lanes).as_pointer()) for row in rows]

            targets, rows = places(0), [builder.load(place) for place in places(3)]
            for row in rows:
                row.align = size
            half = lanes // 2
            while half:
                upper = [lane if not lane & half else lanes + lane - half for lane in range(lanes)]
                lower = [lane + half if not lane & half else lanes + lane for lane in range(lanes)]
                for i in range(lanes):
                    if not i & half:
                        pair = rows[i], rows[i + half]
                        rows[i], rows[i + half] = (
                            builder.shuffle_vector(*pair, ir.Constant(order, chosen)) for chosen in (upper, lower)
                        )
                half //= 2
            for place, row in zip(targets, rows, strict=True):
                builder.store(row, place).align = size
            return context.get_dummy_value()

        return types.void(y, at, at, x, at, at), generate

    return transpose_square
