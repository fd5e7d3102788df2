"""Is a number the derivative of a curve? The verdict, and the errors that report one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minigan.testing.differences import ROUNDING, SAFETY, Ladder, Levels

TIGHT = 1e-4  # the largest error of finite differences, relative to the slope, that lets a gradient pass
CHUNK = 12  # levels that are added to a ladder at once
WIDEST = 24  # how many doublings above the first step are tried
STEPS = 1e-5  # noise beyond it, relative to the values, is no rounding
SINGLE = 1e-9, 1e-5  # the noise of float32, relative to the values


class GradientError(AssertionError):
    """A gradient disagrees with finite differences; the message names the entry, both numbers and the seed."""


class KinkError(GradientError):
    """The function has no derivative at the point: the message names the argument, the entry and its value."""


class NoiseError(GradientError):
    """The values of the function carry too much noise for a verdict."""


class Verdict(NamedTuple):
    """``kind`` is right, or one of slopes.SEVERITY; the slope and its error come from step ``h``."""

    kind: str
    slope: float
    error: float
    h: float
    noise: float
    sides: tuple[float, float] = (0.0, 0.0)


def judge(
    levels: Levels, curve: int, claim: float, tolerance: float, scale: float, far: float, final: bool
) -> Verdict | None:
    """Return a verdict on ``claim`` as the slope of a curve, or None if finer or coarser steps should say more.

    ``tolerance`` is allowed beside the error of the differences; ``scale`` is the size of the gradient around it. Steps
    beyond ``far`` do not speak against the best ones.
    """
    k = levels.best(curve)
    h, slope, error = float(levels.h[k]), float(levels.slope[k, curve]), float(levels.error[k, curve])
    noise, magnitude = float(levels.noise[k, curve]), float(levels.magnitude[k, curve])
    around = max(abs(float(levels.here[curve])), abs(slope) / 32)  # what φ is, or how it changes over a usual step

    def say(kind: str) -> Verdict:
        return Verdict(kind, slope, error, h, noise / around if around else 0.0)

    def is_tight(slope: float, error: float) -> bool:
        return error <= max(TIGHT * max(abs(claim), abs(slope)), 1e-9 * scale)

    if not np.isfinite(error):
        return say("undefined") if final else None
    agrees, tight = abs(claim - slope) <= tolerance + error, is_tight(slope, error)
    nothing = abs(slope) <= error and abs(claim) <= error  # both are zero up to the noise
    rounding = error * h <= 64 * SAFETY * ROUNDING * magnitude  # and the noise is that of float64
    kink = levels.kink(curve)
    if agrees and (tight and noise <= STEPS * around or nothing and rounding and kink is None):
        return say("right")
    if not final:
        return None
    if kink is not None and abs(kink[2] - kink[1]) > 2 * tolerance:
        return say("kink")._replace(h=kink[0], sides=kink[1:])
    for j in range(len(levels.h)):  # finer steps may see what the best ones stepped over, coarser ones past rounding
        other, doubt = float(levels.slope[j, curve]), float(levels.error[j, curve])
        if levels.h[j] <= far and abs(other - slope) > SAFETY * (error + doubt):
            if levels.flat[j, curve] and noise > STEPS * around:
                return say("steps")
            if not agrees and is_tight(other, doubt) and abs(claim - other) <= tolerance + doubt:
                return say("steps" if levels.flat[j, curve] else "right")
    if tight and noise > STEPS * around and not rounding:
        return say("noise")  # smooth from afar only
    if tight:
        return say("right" if agrees else "wrong")
    if agrees:
        return say("right" if nothing or rounding else "noise")
    return say("wrong" if error <= 0.5 * max(abs(claim), abs(slope)) else "noise")


def settle(
    ladder: Ladder,
    curves: Sequence[int],
    claims: np.ndarray,
    tolerances: np.ndarray,
    scales: np.ndarray,
    top: int,
    bottom: int,
) -> dict[int, Verdict]:
    """Return a verdict on each of the curves; the ladder grows from 2^top down to 2^bottom until all are."""
    low, high, final = top - CHUNK + 1, top, False
    settled: dict[int, Verdict] = {}
    while True:
        ladder.climb(range(high, low - 1, -1))
        levels = Levels(ladder)
        for c in [c for c in curves if c not in settled]:
            verdict = judge(levels, c, float(claims[c]), float(tolerances[c]), float(scales[c]), 2.0**top, final)
            if verdict is not None:
                settled[c] = verdict
        unsettled = [c for c in curves if c not in settled]
        if not unsettled:
            return settled
        if high < top + WIDEST and any(levels.best(c) == 0 for c in unsettled):
            high += CHUNK
        elif low > bottom:
            low = max(bottom, low - CHUNK)
        else:
            final = True
