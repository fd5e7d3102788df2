"""A function and its pullback, compared with finite differences: which rows, which columns, and what a failure says.

The Jacobian J is compared entry by entry while it is small: a row is the gradient of one output entry, a column the
derivative along one argument entry. A large one is compared along random directions, one argument and one output at a
time, so that a small one does not hide beside a large one. The cost is linear in the number of columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minigan.testing.differences import EPS, ROUNDING, Ladder
from minigan.testing.layouts import laid_out
from minigan.testing.noise import Noise
from minigan.testing.verdict import SINGLE, GradientError, KinkError, NoiseError, Verdict, settle

FULL = 2000  # the most entries of a Jacobian that is compared whole
FEW = 16  # so many rows or columns are never replaced by random ones
DIRECTIONS = 4

Arrays = list[np.ndarray]
Pullback = Callable[[Arrays], Arrays]


@dataclass(frozen=True)
class Function:
    """``evaluate(point)`` gives values, ``linearise(point)`` values and a pullback of cotangents: lists of arrays.

    ``inputs`` and ``outputs`` name the arrays in messages. A right function is affine in its arguments from number
    ``affine`` on. An ``exact`` one gives the same bits each time. ``sizes`` are magnitudes that each value is
    rounded at, even if it is smaller.
    """

    evaluate: Callable[[Arrays], Arrays]
    linearise: Callable[[Arrays], tuple[Arrays, Pullback]]
    inputs: tuple[str, ...]
    outputs: Callable[[int], str]
    affine: int
    exact: bool = True
    sizes: tuple[float, ...] = ()


@dataclass(frozen=True)
class Settings:
    """What is allowed, and where in the check we are."""

    rtol: float
    step: float
    linear: bool
    where: str


class Column(NamedTuple):
    """A direction within one argument; ``entry`` is None for a random one."""

    argument: int
    direction: np.ndarray
    entry: tuple[int, ...] | None


def drawn(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return random numbers of either sign, none of them small."""
    return np.asarray(rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape))


class Comparison:
    """One order of one check."""

    def __init__(self, function: Function, point: Arrays, settings: Settings, rng: np.random.Generator) -> None:
        self.function, self.point, self.settings, self.rng = function, point, settings, rng
        self.single = True  # have all values so far been numbers of float32?
        kept = [x.copy() for x in point]
        self.values, self.pullback = function.linearise(point)
        self._require_same(point, kept, "an argument was changed in place")
        self._check_values()
        self.cotangents = [drawn(rng, y.shape) for y in self.values]
        self.gradient = self.pull(self.cotangents)
        self._require_same(point, kept, "an argument was changed in place")
        self.sizes = self._sizes()
        self.noise = Noise(function, point, self.cotangents, self.values, self.gradient, self.sizes)

    def _sizes(self) -> tuple[float, ...]:
        """Return the magnitude that gradients are rounded at if they come from the values: |gᵀy| / |x|, in norms."""
        sizes = self.function.sizes or (0.0,) * len(self.values)
        parts = [
            (g * np.maximum(np.abs(y), s)).reshape(-1)
            for g, y, s in zip(self.cotangents, self.values, sizes, strict=True)
        ]
        total = float(np.linalg.norm(np.concatenate(parts))) if parts else 0.0
        return tuple(total / float(np.abs(x).max(initial=1.0)) for x in self.point)

    def fail(self, text: str, kind: type[GradientError] = GradientError) -> None:
        """Raise with the order and the seed."""
        raise kind(f"{self.settings.where}: {text}")

    def _require_same(self, arrays: Arrays, kept: Arrays, text: str) -> None:
        if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(arrays, kept, strict=True)):
            self.fail(text)

    def _check_values(self) -> None:
        for k, y in enumerate(self.values):
            if y.dtype != np.float64:
                self.fail(
                    f"{self.function.outputs(k)} is {y.dtype} although the arguments are float64: something inside "
                    f"computes in {y.dtype}"
                )
            if not np.isfinite(y).all():
                entry = tuple(map(int, np.argwhere(~np.isfinite(y))[0]))
                self.fail(f"{self.function.outputs(k)} is {y[entry]} at entry {entry}: check at another point")
        again = self.function.evaluate(self.point)
        if [y.shape for y in again] != [y.shape for y in self.values]:
            self.fail("two calls with the same arguments gave different shapes: the function is random or has a memory")
        for k, (a, b) in enumerate(zip(self.values, again, strict=True)):
            if not np.array_equal(a, b):
                self.fail(
                    f"two calls with the same arguments differ by {np.abs(a - b).max():.1e} in "
                    f"{self.function.outputs(k)}: the function is random or has a memory"
                )

    def pull(self, cotangents: Arrays) -> Arrays:
        """Return the gradients for the cotangents, checked for shape, dtype, NaN and changes in place."""
        kept = [g.copy() for g in cotangents]
        found = self.pullback(cotangents)
        self._require_same(cotangents, kept, "a cotangent was changed in place")
        for name, x, g in zip(self.function.inputs, self.point, found, strict=True):
            if x.shape != g.shape or g.dtype != np.float64:
                self.fail(f"{name} is float64 {x.shape}, its gradient {g.dtype} {g.shape}")
            if not np.isfinite(g).all():
                entry = tuple(map(int, np.argwhere(~np.isfinite(g))[0]))
                self.fail(f"the gradient of {name} is {g[entry]} at entry {entry}, value {float(x[entry])!r}")
        return found

    def run(self) -> None:
        """Compare everything; raise :class:`GradientError` at the first fault."""
        if not (self.cotangents and any(x.size for x in self.point) and any(y.size for y in self.values)):
            return
        self._check_again()
        self._check_pullback()
        self._make_rows()
        for column in self._columns():
            self._compare(column)
        self._check_again()

    def _differs(self, when: str) -> Callable[[int, tuple[int, ...], float, float], None]:
        def report(i: int, entry: tuple[int, ...], found: float, wanted: float) -> None:
            name = self.function.inputs[i]
            self.fail(f"{when} the gradient of {name} at entry {entry} is {found!r} instead of {wanted!r}")

        return report

    def _check_pullback(self) -> None:
        """Check what any pullback keeps: linearity, any layout of the cotangents, and the same result again."""
        other = [drawn(self.rng, y.shape) for y in self.values]
        alone, both = self.pull(other), self.pull([a + b for a, b in zip(self.cotangents, other, strict=True)])
        added = [a + b for a, b in zip(self.gradient, alone, strict=True)]
        self.noise.require(both, added, self._differs("for a sum of two cotangents (the VJP is not linear in them)"))
        apart = self.pull([laid_out(h) for h in other])
        self.noise.require(apart, alone, self._differs("for cotangents that are not contiguous"))

    def _check_again(self) -> None:
        again = self.pull(self.cotangents)
        if self.function.exact:
            self._require_same(again, self.gradient, "the same VJP called twice gave different bits")
        self.noise.require(again, self.gradient, self._differs("at a second call, after others,"))

    # --- rows and columns ---------------------------------------------------------------------------------------------

    def _make_rows(self) -> None:
        """Pull back every row: unit cotangents, or one random cotangent for each output."""
        n_in, n_out = sum(x.size for x in self.point), sum(y.size for y in self.values)
        self.whole = n_in * n_out <= FULL
        units = self.whole or n_out <= FEW
        self.weights: Arrays | None = None if units else self.cotangents
        self.labels: list[str] = []
        self.row_noise: dict[int, list[float]] = {}
        self.places: list[tuple[int, tuple[int, ...] | None]] = []
        for k, y in enumerate(self.values):
            for entry in np.ndindex(y.shape) if units else [None]:
                self.places.append((k, entry))
                random = " times a random cotangent" if entry is None else f", entry {entry}"
                self.labels.append(self.function.outputs(k) + random)
        pulled = [self.pull(self._cotangents_of(row)) for row in range(len(self.places))]
        self.jacobian = [np.array([row[i].reshape(-1) for row in pulled]) for i in range(len(self.point))]
        self.here = self._project(self.values)
        floors = self.function.sizes or (0.0,) * len(self.values)
        sizes = [np.maximum(np.abs(y), s) for y, s in zip(self.values, floors, strict=True)]
        self.size = (
            self._project(sizes)
            if units
            else np.array([np.linalg.norm((g * s).reshape(-1)) for g, s in zip(self.cotangents, sizes, strict=True)])
        )

    def _cotangents_of(self, row: int) -> Arrays:
        k, entry = self.places[row]
        cotangents = [np.zeros_like(v) for v in self.values]
        if entry is None:
            cotangents[k] = self.cotangents[k]
        else:
            cotangents[k][entry] = 1.0
        return cotangents

    def _project(self, values: Arrays) -> np.ndarray:
        if self.weights is None:
            return np.concatenate([y.reshape(-1) for y in values])
        return np.array([np.vdot(g, y) for g, y in zip(self.weights, values, strict=True)])

    def _columns(self) -> Iterator[Column]:
        few = self.whole or sum(x.size for x in self.point) <= FEW
        for i, x in enumerate(self.point):
            if few:
                for entry in np.ndindex(x.shape):
                    yield self._unit(i, entry)
            elif x.size:
                for _ in range(DIRECTIONS if len(self.point) == 1 else DIRECTIONS // 2):
                    yield Column(i, drawn(self.rng, x.shape) * np.maximum(1.0, np.abs(x)), None)

    def _unit(self, i: int, entry: tuple[int, ...]) -> Column:
        direction = np.zeros_like(self.point[i])
        direction[entry] = 1.0
        return Column(i, direction, entry)

    def _curves(self, column: Column) -> Callable[[float], np.ndarray]:
        nowhere = np.full(len(self.here), np.nan)

        def curves(t: float) -> np.ndarray:
            moved = list(self.point)
            moved[column.argument] = self.point[column.argument] + t * column.direction
            try:
                values = self.function.evaluate(moved)
            except (ValueError, ArithmeticError, AssertionError):
                return nowhere  # the step left the domain
            if [y.shape for y in values] != [y.shape for y in self.values]:
                return nowhere
            self.single = self.single and all(np.array_equal(y, y.astype(np.float32), equal_nan=True) for y in values)
            return self._project(values)

        return curves

    # --- comparing ----------------------------------------------------------------------------------------------------

    def _claims(self, column: Column) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the slopes along a column as the VJP has them, their tolerances, and the sizes of the rows around."""
        rows, v = self.jacobian[column.argument], column.direction.reshape(-1)
        if column.entry is not None:
            claims, scales = rows[:, int(np.argmax(v))], np.abs(rows).max(1)
            return claims, self.settings.rtol * np.abs(claims) + 8 * EPS * scales, scales
        parts = rows * v
        scales = np.sqrt((parts**2).sum(1))
        return rows @ v, self.settings.rtol * scales + 8 * EPS * np.abs(parts).sum(1), scales

    def _compare(self, column: Column) -> None:
        with np.errstate(all="ignore"):
            found = self._failure(column)
            if found is None:
                return
            row, verdict = found
            if column.entry is None:
                entry = self._culprit(column, verdict)
                located = self._unit(column.argument, entry)
                again = self._failure(located)
                if again is not None:
                    column, (row, verdict) = located, again
            self._report(column, row, verdict)

    def _failure(self, column: Column) -> tuple[int, Verdict] | None:
        """Return the worst row and its verdict, or None if all agree."""
        claims, tolerances, scales = self._claims(column)
        ladder = Ladder(self._curves(column), self.here, self.size)
        x = abs(float(self.point[column.argument][column.entry])) if column.entry is not None else 1.0
        linear = self.settings.linear or column.argument >= self.function.affine
        first = 0 if linear else int(round(np.log2(self.settings.step * max(1.0, x))))
        slope, jump, rounding = ladder.quick(first, 1 if linear else 3)
        fine = rounding <= np.maximum(1e-5 * np.abs(claims), 1e-9 * scales)
        fine |= (claims == 0) & (slope == 0) & (jump == 0)
        smooth = np.abs(jump) <= 1e-4 * np.maximum(np.abs(claims), np.abs(slope)) + 64 * rounding
        fine &= smooth & (np.abs(claims - slope) <= tolerances + rounding)
        doubtful = [int(c) for c in np.flatnonzero(~fine)]
        if not doubtful:
            return None
        if self.weights is None:
            ladder.size = np.maximum(ladder.size, 4 / ROUNDING * self._project(self.noise.fine()[0]))
        top = int(np.ceil(np.log2(max(1.0, x)))) + 2
        bottom = int(np.floor(np.log2(x))) - 44 if x else -60
        verdicts = settle(ladder, doubtful, claims, tolerances, scales, top, min(bottom, top - 24))
        for c, verdict in verdicts.items():
            if verdict.kind in ("wrong", "noise"):
                known = self._rounding_of_claim(column, c)
                if abs(claims[c] - verdict.slope) <= known and abs(claims[c]) <= 100 * known:
                    verdicts[c] = verdict._replace(kind="right")
        for kind in ("wrong", "kink", "steps", "undefined", "noise"):
            for c, verdict in verdicts.items():
                if verdict.kind == kind:
                    return c, verdict
        for c, verdict in verdicts.items():
            if self.single and SINGLE[0] < verdict.noise < SINGLE[1]:
                return c, verdict._replace(kind="noise")
        return None

    def _rounding_of_claim(self, column: Column, row: int) -> float:
        """Return what rounding inside the VJP may add to a slope: more than its size where large terms cancel."""
        if row not in self.row_noise:
            cotangents = self._cotangents_of(row)
            noise = Noise(self.function, self.point, cotangents, self.values, self.gradient, self.sizes)
            self.row_noise[row] = [64 * float(a.max(initial=0.0)) for a in noise.wide()[1]]
        return self.row_noise[row][column.argument] * float(np.linalg.norm(column.direction))

    def _culprit(self, column: Column, verdict: Verdict) -> tuple[int, ...]:
        """Return an entry that makes a random direction fail: of two halves, the one that is further off, and so on."""
        entries = np.arange(column.direction.size)
        e = int(round(np.log2(verdict.h)))
        while len(entries) > 1:
            halves = np.array_split(entries, 2)
            off = []
            for half in halves:
                v = np.zeros(column.direction.size)
                v[half] = column.direction.reshape(-1)[half]
                part = Column(column.argument, v.reshape(column.direction.shape), None)
                slope, jump, _ = Ladder(self._curves(part), self.here, self.size).quick(e, 3)
                gap = np.abs(jump) if verdict.kind == "kink" else np.abs(slope - self._claims(part)[0])
                off.append(np.nan_to_num(gap, nan=np.inf).max())
            entries = halves[int(np.argmax(off))]
        return tuple(int(i) for i in np.unravel_index(entries[0], column.direction.shape))

    def _report(self, column: Column, row: int, verdict: Verdict) -> None:
        name = self.function.inputs[column.argument]
        if column.entry is None:
            place = f"{name}, a random direction, {self.labels[row]}"
        else:
            value = float(self.point[column.argument][column.entry])
            place = f"{name}, entry {column.entry}, value {value!r}, {self.labels[row]}"
        claim = float(self._claims(column)[0][row])
        slope, error, h = verdict.slope, verdict.error, verdict.h
        if self.single and SINGLE[0] < verdict.noise < SINGLE[1] and verdict.kind in ("noise", "wrong"):
            self.fail(
                f"{place}: the values are numbers of float32 although the arguments are float64: something inside "
                "computes in float32, and finite differences cannot see past its rounding"
            )
        if verdict.kind == "wrong":
            self.fail(f"{place}: gradient {claim!r}, finite differences {slope!r} ± {error:.1e} (step {h:.1g})")
        if verdict.kind == "kink":
            left, right = verdict.sides
            text = f"the function has a kink: its slope is {left:.6g} on the left and {right:.6g} on the right"
            self.fail(f"{place}: {text}, so it has no gradient to compare: move the point away", KinkError)
        if verdict.kind == "steps":
            text = f"the function changes in steps: it is flat at the point, and its slope over {h:.1g} is {slope:.6g}"
            self.fail(f"{place}: {text}: differences cannot check its gradient", KinkError)
        if verdict.kind == "undefined":
            text = "the function is not finite on both sides, however near: move the point away from the border"
            self.fail(f"{place}: {text}", KinkError)
        self.fail(
            f"{place}: gradient {claim!r}, finite differences {slope!r} ± {error:.1e}: the values carry a noise of "
            f"{verdict.noise:.0e} of their size (float32 rounds at 6e-08, float64 at 1e-16), too much for a verdict",
            NoiseError,
        )
