"""Y = A X Aᵀ for a small constant matrix A and an X whose entries are rows of channels: Winograd's transforms.

The matrices hold many zeros and ones, so a product with one is a few additions and multiply-adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from minigan.kernels.cpu.vector import instruction

Matrix = Sequence[Sequence[float]]
OUTSIDE = -1  # stands for the place of an entry that lies outside the image


class Scattered(NamedTuple):
    """A matrix whose entry n (row by row) is a row of channels: that at data[at + places[n]] for the ``at`` of a call.

    Where the place is OUTSIDE, ``outside`` stands for it: zeros to read, or memory to write to and never read.
    """

    data: Any
    places: Any
    outside: Any


def sandwich(matrices: Sequence[Matrix], *, add: bool = False) -> Any:
    """Build ``f(which, x, x_at, y, y_at, channels)`` for loop nests: y ← A x Aᵀ, added to y with ``add``.

    A (p, q) is ``matrices[which]``; x (q, q) and y (p, p) are Scattered. ``channels`` is a multiple of the entries of a
    vector.
    """

    @instruction
    def apply(code, which, x, x_at, y, y_at, channels):
        build = code.builder

        def combine(coefficients, values):
            """Return Σ coefficient · value, leaving out zeros."""
            total = None
            for factor, value in sorted(zip(coefficients, values, strict=True), key=lambda pair: abs(pair[0]) != 1):
                if not factor:
                    continue
                by = code.constant(float(factor))
                if total is None:
                    total = value if factor == 1 else build.fneg(value) if factor == -1 else build.fmul(value, by)
                elif abs(factor) == 1:
                    total = build.fadd(total, value) if factor == 1 else build.fsub(total, value)
                else:
                    total = code.fma(value, by, total)
            return total

        def entries(matrix, at, count):
            """Return pointers to the entries, or to what stands for them."""
            start, pointers = code.at(matrix.data, at), []
            for n in range(count):
                place = build.load(code.at(matrix.places, code.word(n)))
                inside = build.icmp_signed(">=", place, code.word(0))
                pointers.append(build.select(inside, code.at(start, place), matrix.outside))
            return pointers

        def write(a):
            p, q = len(a), len(a[0])
            sources, targets = entries(x, x_at, q * q), entries(y, y_at, p * p)
            with code.span(code.word(0), channels, code.word(code.lanes)) as (at, _):
                half = []  # A X, a column at a time, so that few values wait in registers
                for j in range(q):
                    column = [code.load(code.at(pointer, at)) for pointer in sources[j::q]]
                    half.append([combine(row, column) for row in a])
                results = [combine(row, [column[i] for column in half]) for i in range(p) for row in a]
                for target, value in zip(targets, results, strict=True):
                    place = code.at(target, at)
                    code.store(build.fadd(code.load(place), value) if add else value, place)

        code.choose(which, [partial(write, matrix) for matrix in matrices])

    return apply
