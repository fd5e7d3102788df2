"""The slopes along a column: claims of the VJP against finite differences, and the entry that makes one fail."""

from __future__ import annotations

import numpy as np

from minigan.testing.differences import ROUNDING, Ladder, Levels
from minigan.testing.function import Settings, drawn
from minigan.testing.jacobian import Column, Entry, Jacobian
from minigan.testing.noise import Noise
from minigan.testing.verdict import SINGLE, Verdict, judge, settle

SEVERITY = ("wrong", "kink", "crossed", "steps", "undefined", "noise", "single")


class Slopes:
    """Compares columns of one Jacobian."""

    def __init__(self, jacobian: Jacobian, noise: Noise, settings: Settings) -> None:
        self.jacobian, self.noise, self.settings = jacobian, noise, settings
        self._row_noise: dict[int, list[float]] = {}

    def fault(self, column: Column) -> tuple[Column, int, Verdict] | None:
        """Return the row that fails worst, with its verdict and the column of the entry at fault; None if all agree."""
        with np.errstate(all="ignore"):
            found = self._fault(column)
            if found is None or column.entry is not None:
                return found and (column, *found)
            located = self.jacobian.unit(column.argument, self._culprit(column, found[1]))
            again = self._fault(located)
            return (column, *found) if again is None else (located, *again)

    def _ladder(self, column: Column) -> Ladder:
        return Ladder(self.jacobian.curves(column), self.jacobian.here, self.jacobian.size)

    def _fault(self, column: Column) -> tuple[int, Verdict] | None:
        claims, scales, roundings = self.jacobian.claims(column)
        tolerances = self.settings.rtol * (np.abs(claims) if column.entry is not None else scales) + roundings
        ladder = self._ladder(column)
        at = self.jacobian.point[column.argument]
        x = 1.0 if column.entry is None else abs(float(at[column.entry]))
        doubtful = self._doubtful(column, ladder, claims, tolerances, scales, x)
        if not doubtful:
            return None
        ladder.size = np.maximum(ladder.size, 4 / ROUNDING * self.jacobian.noise(self.noise.fine()[0]))
        top = int(np.ceil(np.log2(max(1.0, x)))) + 2
        bottom = int(np.floor(np.log2(x))) - 44 if x else -60
        verdicts = settle(ladder, doubtful, claims, tolerances, scales, top, min(bottom, top - 24))
        for row, verdict in verdicts.items():
            gap, claim = abs(claims[row] - verdict.slope), abs(claims[row])
            if verdict.kind in ("wrong", "noise"):
                known = max(self._rounding(column, row), ladder.rounding_elsewhere(row, top))
                if gap <= known and claim <= 100 * known:
                    verdict = verdict._replace(kind="right")
            if verdict.kind == "wrong":
                noisy = Ladder(ladder.curves, ladder.here, self.jacobian.noise(self.noise.wide()[0]) * 4 / ROUNDING)
                noisy.sides = ladder.sides
                again = judge(Levels(noisy), row, claims[row], tolerances[row], scales[row], 2.0**top, True)
                if again is not None and again.kind == "right":
                    verdict = again if again.error <= 0.01 * claim else again._replace(kind="noise")
            if verdict.kind == "wrong":
                verdict = self._crossed(column, row, verdict)
            single = self.jacobian.single and SINGLE[0] < verdict.noise < SINGLE[1]
            if single and verdict.kind in ("right", "wrong", "noise"):
                verdict = verdict._replace(kind="single")
            verdicts[row] = verdict
        worst = sorted((SEVERITY.index(v.kind), row) for row, v in verdicts.items() if v.kind != "right")
        return (worst[0][1], verdicts[worst[0][1]]) if worst else None

    def _doubtful(
        self, column: Column, ladder: Ladder, claims: np.ndarray, tolerances: np.ndarray, scales: np.ndarray, x: float
    ) -> list[int]:
        """Return the rows that three steps do not settle: far off, or with a gap between the sides, or too noisy."""
        linear = self.settings.linear or column.argument >= self.jacobian.function.affine
        first = 0 if linear else int(round(np.log2(self.settings.step * max(1.0, x))))
        slope, jump, rounding = ladder.quick(first, 1 if linear else 3)
        seen = rounding <= np.maximum(1e-5 * np.abs(claims), 1e-9 * scales)
        seen |= (claims == 0) & (slope == 0) & (jump == 0)
        smooth = np.abs(jump) <= 1e-4 * np.maximum(np.abs(claims), np.abs(slope)) + 64 * rounding
        near = np.abs(claims - slope) <= tolerances + rounding
        return [int(row) for row in np.flatnonzero(~(seen & smooth & near))]

    def _rounding(self, column: Column, row: int) -> float:
        """Return what rounding inside the VJP may add to a slope: more than its size where large terms cancel."""
        if row not in self._row_noise:
            base, cotangents = self.noise, self.jacobian.cotangents(row)
            noise = Noise(base.function, base.point, cotangents, base.values, base.gradient, base.sizes)
            self._row_noise[row] = [64 * float(a.max(initial=0.0)) for a in noise.wide()[1]]
        return self._row_noise[row][column.argument] * float(np.linalg.norm(column.direction))

    def _crossed(self, column: Column, row: int, verdict: Verdict) -> Verdict:
        """Return the verdict, or that of a kink if one crosses the point in another direction (two equal maxima)."""
        at = self.jacobian.point[column.argument]
        aside = Column(column.argument, drawn(np.random.default_rng(1), at.shape) * np.maximum(1.0, np.abs(at)), None)
        ladder = self._ladder(aside)
        ladder.climb(range(-40, -8))  # a kink that is only near does not reach the finest steps
        kink = Levels(ladder).kink(row)
        return verdict if kink is None else verdict._replace(kind="crossed", h=kink[0], sides=kink[1:])

    def _culprit(self, column: Column, verdict: Verdict) -> Entry:
        """Return an entry that makes a random direction fail: of two halves, the one that is further off, and so on."""
        entries, direction = np.arange(column.direction.size), column.direction.reshape(-1)
        e = int(round(np.log2(verdict.h)))
        while len(entries) > 1:
            halves, off = np.array_split(entries, 2), []
            for half in halves:
                v = np.zeros(direction.size)
                v[half] = direction[half]
                part = Column(column.argument, v.reshape(column.direction.shape), None)
                slope, jump, _ = self._ladder(part).quick(e, 3)
                gap = np.abs(jump) if verdict.kind == "kink" else np.abs(slope - self.jacobian.claims(part)[0])
                off.append(float(np.nan_to_num(gap, nan=np.inf).max()))
            entries = halves[int(np.argmax(off))]
        return tuple(int(i) for i in np.unravel_index(entries[0], column.direction.shape))


def sentence(jacobian: Jacobian, column: Column, row: int, verdict: Verdict) -> str:
    """Return what is wrong, and where."""
    name = jacobian.function.inputs[column.argument]
    place = f"{name}, a random direction, {jacobian.label(row)}: "
    if column.entry is not None:
        value = float(jacobian.point[column.argument][column.entry])
        place = f"{name}, entry {column.entry}, value {value!r}, {jacobian.label(row)}: "
    claim = float(jacobian.claims(column)[0][row])
    numbers = f"gradient {claim!r}, finite differences {verdict.slope!r} ± {verdict.error:.1e}"
    left, right = verdict.sides
    return (
        place
        + {
            "wrong": f"{numbers} (step {verdict.h:.1g})",
            "kink": f"the function has a kink: its slope is {left:.6g} on the left and {right:.6g} on the right, "
            "so it has no gradient to compare: move the point away",
            "crossed": f"the function has a kink in another direction, with slopes of {left:.6g} and {right:.6g} along "
            "it (two entries may be equal in a maximum), so it has no gradient to compare: move the point away",
            "steps": "the function changes in steps: it is flat at the point, and its slope over "
            f"{verdict.h:.1g} is {verdict.slope:.6g}: differences cannot check its gradient",
            "undefined": "the function is not finite on both sides, however near: move the point away from the border",
            "noise": f"{numbers}: the values carry a noise of {verdict.noise:.0e} of their size "
            "(float32 rounds at 6e-08, float64 at 1e-16), too much for a verdict",
            "single": "the values are numbers of float32 although the arguments are float64: "
            "something inside computes in float32, and finite differences cannot see past its rounding",
        }[verdict.kind]
    )
