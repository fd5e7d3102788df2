"""What a right VJP keeps beside its numbers: other ways to call the same function give the same result.

One argument alone, one array given as two arguments, another layout in memory, and float32 in place of float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minigan.testing.compare import Comparison
from minigan.testing.function import OUTSIDE, Arrays, Function, Pullback
from minigan.testing.layouts import laid_out
from minigan.testing.noise import SINGLE, Noise

MODERATE = 1e-6, 1e6  # sizes of numbers whose squares and reciprocals are far from the ends of float32

Linearise = Callable[[Arrays], tuple[Arrays, Pullback]]
# grouped(variables, uses): argument i is the variable uses[i], or the constant at its place in the point if None
Grouped = Callable[[Arrays, list[int | None]], tuple[Arrays, Pullback]]


class Result(NamedTuple):
    """Values and the gradient for one list of cotangents, with the noise of both."""

    values: Arrays
    cotangents: Arrays
    gradient: Arrays
    noise: Noise


def check_promises(compared: Comparison, grouped: Grouped, given: Arrays, float32: bool, alone: bool = True) -> None:
    """Check all of them at the point of a comparison; ``given`` holds the arrays in the caller's layout."""
    function, point, names = compared.function, compared.point, compared.function.inputs
    plain = Result(compared.values, compared.cotangents, compared.gradient, compared.noise)

    def uses(*places: int) -> list[int | None]:
        return [0 if k in places else None for k in range(len(point))]

    def require(
        words: str, wanted: Result | None, linearise: Callable[[], tuple[Arrays, Pullback]], **kind: float
    ) -> None:
        with np.errstate(all="ignore"):
            if wanted is not None:
                _require(compared, words, wanted, linearise, **kind)

    for i in range(len(point)) if alone and len(point) > 1 else ():
        part = plain._replace(gradient=[plain.gradient[i]], noise=plain.noise.part(i))
        require(f"with {names[i]} alone differentiated", part, lambda i=i: grouped([point[i]], uses(i)))  # type: ignore[misc]
    for i, j in itertools.combinations(range(len(point)), 2):
        if point[i].shape == point[j].shape:
            distinct = _result(_summed(function, point, i, j), [point[i]], plain.cotangents, compared.sizes[i : i + 1])
            words = f"with one array given as {names[i]} and {names[j]}"
            require(words, distinct, lambda i=i, j=j: grouped([point[i]], uses(i, j)))  # type: ignore[misc]
    if not all(x.flags.c_contiguous for x in given):
        require("in the layout in memory that was given", plain, lambda: function.linearise(given))
    require("with arguments that are not contiguous", plain, lambda: function.linearise([laid_out(x) for x in point]))
    if float32:
        with np.errstate(all="ignore"):
            narrow = [x.astype(np.float32) for x in point]
        exact = [x.astype(np.float64) for x in narrow]
        cotangents = [g.astype(np.float32).astype(np.float64) for g in plain.cotangents]
        require(
            "in float32",
            _result(function, exact, cotangents, compared.sizes),
            lambda: function.linearise(narrow),
            unit=SINGLE,
        )


def _is_moderate(point: Arrays, wanted: Result) -> bool:
    """Return whether no number is so large or small that a step on the way from one to another may leave float32."""
    for a in (*point, *wanted.cotangents, *wanted.values, *wanted.gradient):
        sizes = np.abs(a[a != 0])
        if sizes.size and not (MODERATE[0] <= sizes.min() and sizes.max() <= MODERATE[1]):
            return False
    return True


def _summed(function: Function, point: Arrays, i: int, j: int) -> Function:
    """Return the function of one array that is given as arguments i and j, as copies."""

    def linearise(xs: Arrays) -> tuple[Arrays, Pullback]:
        values, pullback = function.linearise([xs[0].copy() if k in (i, j) else x for k, x in enumerate(point)])

        def both(g: Arrays) -> Arrays:
            found = pullback(g)
            return [found[i] + found[j]]

        return values, both

    return Function(function.evaluate, linearise, (function.inputs[i],), function.outputs, 1)


def _result(function: Function, point: Arrays, cotangents: Arrays, sizes: tuple[float, ...]) -> Result | None:
    """Return the result at another point; None where the function is not defined there."""
    try:
        with np.errstate(all="ignore"):
            values, pullback = function.linearise(point)
            if [y.shape for y in values] != [g.shape for g in cotangents]:
                return None
            gradient = pullback(cotangents)
    except OUTSIDE:
        return None
    if not all(np.isfinite(a).all() for a in (*values, *gradient)):
        return None
    return Result(values, cotangents, gradient, Noise(function, point, cotangents, values, gradient, sizes))


def _require(
    compared: Comparison,
    words: str,
    wanted: Result,
    linearise: Callable[[], tuple[Arrays, Pullback]],
    unit: float = 1.0,
) -> None:
    """Raise where another way and the plain call differ by more than rounding, in values or in gradients."""
    try:
        values, pullback = linearise()
    except (ValueError, TypeError, RuntimeError):
        if unit == 1.0:
            raise
        return  # the function does not take float32
    gradient = pullback(wanted.cotangents)
    names = compared.function.inputs

    def report(what: Callable[[int], str]) -> Callable[[int, tuple[int, ...], float, float], None]:
        return lambda i, entry, found, right: compared.fail(
            f"{words}, {what(i)} at entry {entry} is {found!r} instead of {right!r}"
        )

    pairs = (
        ("value", values, wanted.values, compared.function.outputs),
        (
            "gradient",
            gradient,
            wanted.gradient,
            lambda i: f"the gradient of {names[i]}" if len(names) > 1 else "the gradient",
        ),
    )
    may_overflow = unit != 1.0 and not _is_moderate(compared.point, wanted)  # in float32, which is no fault
    for of, found, right, name in pairs:
        if may_overflow:
            found = [np.where(np.isfinite(a), a, b) for a, b in zip(found, right, strict=True)]
        wanted.noise.require(found, right, report(name), of, unit)
