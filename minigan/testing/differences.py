"""Derivatives by finite differences, with an error that can be trusted.

Of a curve φ(t) = f(x + t·v) at t = 0, with values at 0 and at ±h for h = c·2ᵉ, c·2ᵉ⁻¹, c·2ᵉ⁻², …:

    D(h) = (φ(h) − φ(−h)) / 2h = φ′ + c₂h² + c₄h⁴ + …           the central difference
    R(h) = (64·D(h/4) − 20·D(h/2) + D(h)) / 45 = φ′ + O(h⁶)      Richardson's extrapolation: h² and h⁴ cancel
    S(h) = (φ(h) − 2φ(0) + φ(−h)) / h                           the slope on the right less the slope on the left
    J(h) = (16·S(h/4) − 10·S(h/2) + S(h)) / 7 = O(h⁵)            the same, extrapolated; at a kink it stays as it is

Two errors remain. Truncation falls with h, and |R(h) − R(h/2)| shows it. Rounding of φ by ±η makes an error of about
η/h, which grows as h falls, so w(h) = h·|R(h) − R(h/2)| falls with h until it stays near η. The largest w at h and at
all finer steps is therefore a noise that holds for h, however lucky two neighbours may be:

    error(h) = 4·max {w(h′): h′ ≤ h} / h + |J(h)|    where J stands out of that noise

The factor 4 covers slow convergence too: with φ = |x|^(3/2) each halving removes only 30% of the error. No fraction of
small numbers is near c: steps of 2ᵉ alone would all be whole periods of sin 2ᵏπx, and see it flat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

EPS = float(np.finfo(np.float64).eps)
ROUNDING = 2 * EPS  # of a value, at the least
SAFETY = 4.0
OFF = 0.8427  # c
SPAN = 8  # levels over which a kink's jump in slope must stay, and an O(h⁵) would have fallen by 2⁴⁰

Curve = Callable[[float], np.ndarray]


def central(ahead: np.ndarray, behind: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Return D(h)."""
    return (ahead - behind) / (2 * h)


def one_sided_gap(ahead: np.ndarray, here: np.ndarray, behind: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Return S(h)."""
    return ((ahead - here) - (here - behind)) / h


def richardson(d: np.ndarray) -> np.ndarray:
    """Return R of central differences whose steps halve from row to row, two rows fewer."""
    return (64 * d[2:] - 20 * d[1:-1] + d[:-2]) / 45


def jump_in_slope(s: np.ndarray) -> np.ndarray:
    """Return J of one-sided gaps whose steps halve from row to row, two rows fewer."""
    return (16 * s[2:] - 10 * s[1:-1] + s[:-2]) / 7


class Ladder:
    """Values of several curves at 0 and at ±c·2ᵉ for consecutive exponents e; NaN where a curve is not defined.

    ``size`` is the least magnitude that the values are rounded at (sums of large terms may be small).
    """

    def __init__(self, curves: Curve, here: np.ndarray, size: np.ndarray) -> None:
        self.curves, self.here, self.size = curves, here, np.maximum(size, np.abs(here))
        self.sides: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def climb(self, exponents: Iterable[int]) -> None:
        """Evaluate at ±c·2ᵉ for the exponents that are missing."""
        for e in exponents:
            if e not in self.sides:
                self.sides[e] = self.curves(OFF * 2.0**e), self.curves(-OFF * 2.0**e)

    def rows(self, exponents: Iterable[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return (h, D, S, magnitude), a row for each exponent; h is a column."""
        chosen = sorted(exponents, reverse=True)
        h = np.array([[OFF * 2.0**e] for e in chosen])
        ahead, behind = (np.array([self.sides[e][side] for e in chosen]) for side in (0, 1))
        magnitude = np.maximum(np.maximum(np.abs(ahead), np.abs(behind)), self.size)
        return h, central(ahead, behind, h), one_sided_gap(ahead, self.here, behind, h), magnitude

    def rounding_elsewhere(self, curve: int, top: int) -> float:
        """Return the rounding of slopes as the curve has them elsewhere, up to 1: beside them a saturated one is 0."""
        _, d, _, _ = self.rows([e for e in self.sides if e <= top])
        slopes = np.abs(d[:, curve])
        return 8 * EPS * min(1.0, float(slopes.max(initial=0.0, where=np.isfinite(slopes))))

    def quick(self, e: int, levels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (slope, jump, rounding error) from the steps c·2ᵉ, c·2ᵉ⁻¹ and c·2ᵉ⁻², or from the first alone."""
        self.climb(range(e - levels + 1, e + 1))
        h, d, s, magnitude = self.rows(range(e - levels + 1, e + 1))
        slope, jump = (d[0], s[0]) if levels == 1 else (richardson(d)[0], jump_in_slope(s)[0])
        return slope, jump, SAFETY * ROUNDING * magnitude.max(0) / h[0]


class Levels:
    """Estimates at every level of a ladder, coarse to fine: step h, slope R, its error, jump J and noise, per curve."""

    def __init__(self, ladder: Ladder) -> None:
        h, d, s, magnitude = ladder.rows(ladder.sides)
        slope, jump = richardson(d)[:-1], jump_in_slope(s)[:-1]
        step, self.h, self.here = h[:-3], h[:-3, 0], ladder.here
        same = (d == 0) & (s == 0)  # no value differs from φ(0): its terms may, by less than their rounding
        self.flat = same[:-3] & same[1:-2] & same[2:-1] & same[3:]
        self.magnitude = np.where(self.flat, np.maximum(magnitude[:-3], 1.0), magnitude[:-3])
        wobble = np.maximum(step * np.abs(slope - richardson(d)[1:]), ROUNDING * self.magnitude)
        defined = np.isfinite(wobble) & np.isfinite(jump)
        self.noise = np.maximum.accumulate(np.where(defined, wobble, 0.0)[::-1])[::-1]
        unsure = SAFETY * self.noise / step
        error = unsure + np.maximum(0.0, np.abs(jump) - unsure)
        self.slope, self.jump = np.where(defined, slope, 0.0), np.where(defined, jump, 0.0)
        self.error = np.where(defined, error, np.inf)

    def best(self, curve: int) -> int:
        """Return the level with the least error, or the first one where φ does not change at all if none convinces."""
        error, flat = self.error[:, curve], self.flat[:, curve]
        moving = np.where(flat, np.inf, error)
        best = int(np.argmin(moving))
        if moving[best] <= 0.1 * abs(self.slope[best, curve]) or not flat.any():
            return best
        return int(np.argmax(flat))

    def kink(self, curve: int) -> tuple[float, float, float] | None:
        """Return (h, slope on the left, slope on the right) if the two stay apart as the steps fall, else None.

        A jump in the values, be it one of rounding, would double with each halving of h. If finer steps see no jump in
        slope, the kink is near the point and not at it.
        """
        jump, unsure = np.abs(self.jump[:, curve]), SAFETY * self.noise[:, curve] / self.h
        clear = jump > 8 * unsure
        for k in range(len(jump) - 1, SPAN - 1, -1):
            first = jump[k - SPAN]
            if clear[k - SPAN : k + 1].all() and 0.5 * first <= jump[k] <= 2 ** (0.75 * SPAN) * first:
                if (jump + unsure < 0.5 * jump[k])[k:].any():
                    return None
                middle, half = float(self.slope[k, curve]), float(self.jump[k, curve]) / 2
                return float(self.h[k]), middle - half, middle + half
        return None
