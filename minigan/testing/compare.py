"""One order of a check: a function and its pullback at a point, held to what they promise and to finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import numpy as np

from minigan.engine.autodiff import WrongShape
from minigan.testing.function import Arrays, Function, Settings, drawn
from minigan.testing.jacobian import Jacobian
from minigan.testing.layouts import laid_out
from minigan.testing.noise import Noise
from minigan.testing.slopes import Slopes, sentence
from minigan.testing.verdict import GradientError, KinkError, NoiseError

KINDS = {"kink": KinkError, "crossed": KinkError, "steps": KinkError, "undefined": KinkError, "noise": NoiseError}


class Comparison:
    """One order of one check."""

    def __init__(self, function: Function, point: Arrays, settings: Settings, rng: np.random.Generator) -> None:
        self.function, self.point, self.settings, self.rng = function, point, settings, rng
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
        sizes = self.function.magnitudes(self.values)
        parts = [(g * s).reshape(-1) for g, s in zip(self.cotangents, sizes, strict=True)]
        total = float(np.linalg.norm(np.concatenate(parts))) if parts else 0.0
        return tuple(total / float(np.abs(x).max(initial=1.0)) for x in self.point)

    def fail(self, text: str, kind: type[GradientError] = GradientError) -> NoReturn:
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
        try:
            found = self.pullback(cotangents)
        except WrongShape as error:
            self.fail(str(error))
        self._require_same(cotangents, kept, "a cotangent was changed in place")
        for name, x, g in zip(self.function.inputs, self.point, found, strict=True):
            if x.shape != g.shape:
                self.fail(f"the gradient of {name} has shape {g.shape} where the argument has {x.shape}")
            if g.dtype != np.float64:
                self.fail(f"the gradient of {name} is {g.dtype} although the argument is float64")
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
        jacobian = Jacobian(self.function, self.point, self.values, self.cotangents, self.pull)
        slopes = Slopes(jacobian, self.noise, self.settings)
        for column in jacobian.columns(self.rng):
            fault = slopes.fault(column)
            if fault is not None:
                self.fail(sentence(jacobian, *fault), KINDS.get(fault[2].kind, GradientError))
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
