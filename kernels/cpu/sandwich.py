"""Y = A X Aᵀ for a small constant matrix A and an X whose entries are rows of channels: Winograd's transforms.

The matrices hold many zeros and ones, so a product with one is a few additions and multiply-adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from minigan.kernels.cpu.jit import vector_bytes

Matrix = Sequence[Sequence[float]]
OUTSIDE = -1  # stands for the place of an entry that lies outside the image


class Scattered(NamedTuple):
    """A matrix whose entry n (row by row) is a row of channels: that at data[at + places[n]] for the ``at`` of a call.

    Where the place is OUTSIDE, ``outside`` stands for it: zeros that are read, or memory for what nobody will read.
    """

    data: Any
    places: Any
    outside: Any


def sandwich(matrices: Sequence[Matrix], *, add: bool = False) -> Any:
    """Build ``f(which, x, x_at, y, y_at, channels)`` for loop nests: y ← A x Aᵀ, added to y with ``add``.

    A (p, q) is ``matrices[which]``; x (q, q) and y (p, p) are Scattered. ``channels`` is a multiple of the entries of a
    vector.
    """
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    word = ir.IntType(64)

    @intrinsic
    def apply(typing, which, x, x_at, y, y_at, channels):
        at = types.intp
        signature = types.void(at, x, at, y, at, at)

        def generate(context, builder, signature, arguments):
            which, channels = arguments[0], arguments[5]
            number = context.get_value_type(x.types[0].dtype)
            size = context.get_abi_sizeof(number)
            lanes = vector_bytes() // size
            vector = ir.VectorType(number, lanes)
            kind = ir.FunctionType(vector, [vector] * 3)
            multiply_add = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{lanes}f{8 * size}")

            def combine(coefficients, values):
                """Return Σ coefficient · value, leaving out zeros."""
                total = None
                for factor, value in sorted(zip(coefficients, values, strict=True), key=lambda pair: abs(pair[0]) != 1):
                    if not factor:
                        continue
                    by = ir.Constant(vector, [float(factor)] * lanes)
                    if total is None:
                        total = (
                            value if factor == 1 else builder.fneg(value) if factor == -1 else builder.fmul(value, by)
                        )
                    elif abs(factor) == 1:
                        total = builder.fadd(total, value) if factor == 1 else builder.fsub(total, value)
                    else:
                        total = builder.call(multiply_add, [value, by, total])
                return total

            def entries(position, count):
                """Return pointers to the entries of x (argument 1) or y (3), or to what stands for them."""
                kinds = signature.args[position].types
                fields = cgutils.unpack_tuple(builder, arguments[position])
                data, places, outside = (
                    context.make_array(kind)(context, builder, field).data
                    for kind, field in zip(kinds, fields, strict=True)
                )
                start = builder.gep(data, [arguments[position + 1]])
                pointers = []
                for n in range(count):
                    place = builder.load(builder.gep(places, [word(n)]))
                    inside = builder.icmp_signed(">=", place, word(0))
                    pointers.append(builder.select(inside, builder.gep(start, [place]), outside))
                return pointers

            def emit(matrix):
                q = len(matrix[0])
                sources, targets = entries(1, q * q), entries(3, len(matrix) ** 2)
                with cgutils.for_range_slice(builder, word(0), channels, word(lanes), word) as (at, _):

                    def place(pointer):
                        return builder.bitcast(builder.gep(pointer, [at]), vector.as_pointer())

                    def load(pointer):
                        value = builder.load(place(pointer))
                        value.align = size
                        return value

                    half = []
                    for j in range(q):  # a column of X at a time, so that few values wait in registers
                        column = [load(pointer) for pointer in sources[j::q]]
                        half.append([combine(row, column) for row in matrix])
                    results = [
                        combine(row, [column[i] for column in half]) for i in range(len(matrix)) for row in matrix
                    ]
                    for target, value in zip(targets, results, strict=True):
                        if add:
                            value = builder.fadd(load(target), value)
                        builder.store(value, place(target)).align = size

            done = builder.append_basic_block("done")
            choice = builder.switch(which, done)
            for number_of_matrix, matrix in enumerate(matrices):
                block = builder.append_basic_block(f"matrix{number_of_matrix}")
                choice.add_case(word(number_of_matrix), block)
                builder.position_at_end(block)
                emit(matrix)
                builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return signature, generate

    return apply
