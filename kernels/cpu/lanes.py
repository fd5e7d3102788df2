"""Operations on runs of numbers that lie side by side, for loop nests: whole vectors first, then single numbers.

A slice costs a loop nest more than a short run does: runs are given as a flat array and the place of the first entry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minigan.kernels.cpu.jit import late
from minigan.kernels.cpu.vector import Code, instruction


def _over_run(code: Code, pointers: Sequence[Any], count: Any, rule: Callable[..., Any]) -> None:
    """Write y ← rule(kind, y, x₁, …) over ``count`` entries, for pointers to the first entries of y, x₁, …

    ``rule`` computes with values of ``kind``: vectors, shorter vectors, single numbers.
    """
    build = code.builder
    begin = code.word(0)
    for step in sorted({code.lanes, min(4, code.lanes), 1}, reverse=True):  # short runs are often four numbers long
        kind = code.number if step == 1 else code.vector_of(step)
        end = build.mul(build.sdiv(count, code.word(step)), code.word(step))
        with code.span(begin, end, code.word(step)) as (at, _):
            places = [code.at(pointer, at) for pointer in pointers]
            code.store(rule(kind, *(code.load(place, kind) for place in places)), places[0])
        begin = end


@late
def copy_run() -> Any:
    """Build ``copy_run(y, y_at, x, x_at, count)``: y ← x."""

    @instruction
    def copy_run(code, y, y_at, x, x_at, count):
        _over_run(code, [code.at(y, y_at), code.at(x, x_at)], count, lambda kind, y, x: x)

    return copy_run


@late
def add_run() -> Any:
    """Build ``add_run(y, y_at, x, x_at, count)``: y ← y + x."""

    @instruction
    def add_run(code, y, y_at, x, x_at, count):
        _over_run(code, [code.at(y, y_at), code.at(x, x_at)], count, lambda kind, y, x: code.builder.fadd(y, x))

    return add_run


@late
def bias_leaky_run() -> Any:
    """Build ``bias_leaky_run(y, y_at, x, x_at, b, b_at, with_b, slope, count)``: y ← v > 0 ? v : slope·v, v = x (+ b).

    With slope 0 a NaN stays one, and −inf gives 0.
    """

    @instruction
    def bias_leaky_run(code, y, y_at, x, x_at, b, b_at, with_b, slope, count):
        build = code.builder
        flat = build.fcmp_ordered("==", slope, code.constant(0.0, slope.type))

        def rule(kind, y, x, b):
            zero = code.constant(0.0, kind)
            v = build.select(with_b, build.fadd(x, b), x)
            cut = build.select(build.fcmp_ordered("<=", v, zero), zero, v)
            below = build.select(flat, cut, build.fmul(v, code.spread(slope, kind)))
            return build.select(build.fcmp_ordered(">", v, zero), v, below)

        _over_run(code, [code.at(y, y_at), code.at(x, x_at), code.at(b, b_at)], count, rule)

    return bias_leaky_run


@late
def transpose_square() -> Any:
    """Build ``transpose_square(y, y_at, y_row, x, x_at, x_row)``: y[i, j] ← x[j, i] for i, j < lanes of a vector.

    Squares of half the size change places (Eklundh's scheme), then squares within them, down to single entries.
    """

    @instruction
    def transpose_square(code, y, y_at, y_row, x, x_at, x_row):
        lanes = code.lanes

        def places(pointer, row):
            return [code.at(pointer, code.builder.mul(row, code.word(i))) for i in range(lanes)]

        targets = places(code.at(y, y_at), y_row)
        rows = [code.load(place) for place in places(code.at(x, x_at), x_row)]
        half = lanes // 2
        while half:
            upper = [lane if not lane & half else lanes + lane - half for lane in range(lanes)]
            lower = [lane + half if not lane & half else lanes + lane for lane in range(lanes)]
            for i in range(lanes):
                if not i & half:
                    pair = rows[i], rows[i + half]
                    rows[i], rows[i + half] = code.shuffle(*pair, upper), code.shuffle(*pair, lower)
            half //= 2
        for place, row in zip(targets, rows, strict=True):
            code.store(row, place)

    return transpose_square
