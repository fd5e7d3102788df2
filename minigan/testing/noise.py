"""How much rounding may move a function's values and gradients: what two ways to the same number may differ by."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np

from minigan.testing.differences import EPS
from minigan.testing.function import OUTSIDE, Arrays, Function, drawn

TINY = 1e-37  # near the smallest normal number of float32
POINTS = 9  # five fourth differences: one alone is 0 by chance now and then
SINGLE = 2.0**29  # the unit of float32 over that of float64


def largest(x: np.ndarray) -> float:
    """Return the largest magnitude in an array, 1 if there is none above 0."""
    return float(np.abs(x).max(initial=0.0)) or 1.0


class Noise:
    """The rounding noise of a function at a point, measured only when a comparison is close.

    Fourth differences over steps so small that a smooth function is straight leave the noise alone. ``sizes`` are
    magnitudes that each gradient is rounded at, even if it is smaller.
    """

    def __init__(
        self,
        function: Function,
        point: Arrays,
        cotangents: Arrays,
        values: Arrays,
        gradient: Arrays,
        sizes: tuple[float, ...],
    ) -> None:
        self.function, self.point, self.cotangents = function, point, cotangents
        self.values, self.gradient, self.sizes = values, gradient, sizes
        self._fine: tuple[Arrays, Arrays] | None = None
        self._wide: tuple[Arrays, Arrays] | None = None

    def fine(self) -> tuple[Arrays, Arrays]:
        """Return the noise of values and gradients over steps of the arguments' last digits."""
        if self._fine is None:
            self._fine = self._over([2.0**-44 * np.abs(x) for x in self.point])
        return self._fine

    def wide(self) -> tuple[Arrays, Arrays]:
        """Return the noise of values and gradients over these and wider steps, which see rounding of large terms."""
        if self._wide is None:
            wide = self._over([2.0**-22 * largest(x) * np.ones(x.shape) for x in self.point])
            values, gradient = (
                [np.maximum(a, b) for a, b in zip(*pair, strict=True)] for pair in zip(self.fine(), wide, strict=True)
            )
            self._wide = values, gradient
        return self._wide

    def _over(self, sizes: Arrays) -> tuple[Arrays, Arrays]:
        """Return fourth differences, 0 where they leave the domain; not around the point, where odd errors cancel."""
        rng = np.random.default_rng(0)
        steps = [s * drawn(rng, s.shape) for s in sizes]
        near = [self._at([x + (k + 0.3) * d for x, d in zip(self.point, steps, strict=True)]) for k in range(POINTS)]
        if any(part is None for part in near):
            return [np.zeros(y.shape) for y in self.values], [np.zeros(g.shape) for g in self.gradient]
        found = []
        for kind in (0, 1):
            rows = zip(*(part[kind] for part in near if part is not None), strict=True)
            bends = [np.abs(np.diff(np.array(row), 4, axis=0)).max(0) / 4 for row in rows]
            found.append([np.nan_to_num(bend, nan=0.0, posinf=0.0) for bend in bends])
        return found[0], found[1]

    def part(self, i: int) -> Noise:
        """Return the noise for the gradient of argument i alone."""
        other = copy.copy(self)
        other.sizes = (self.sizes[i],)
        other.wide = lambda: (self.wide()[0], [self.wide()[1][i]])  # type: ignore[method-assign]
        return other

    def _at(self, point: Arrays) -> tuple[Arrays, Arrays] | None:
        try:
            with np.errstate(all="ignore"):
                values, pullback = self.function.linearise(point)
                gradient = pullback(self.cotangents)
        except OUTSIDE:
            return None  # outside of the domain
        same = [y.shape for y in values] == [y.shape for y in self.values]
        return (values, gradient) if same else None

    def require(
        self,
        found: Arrays,
        wanted: Arrays,
        report: Callable[[int, tuple[int, ...], float, float], None],
        of: str = "gradient",
        unit: float = 1.0,
    ) -> None:
        """Call ``report(array, entry, found, wanted)`` where arrays differ by more than rounding explains.

        ``unit`` is the unit of the arithmetic over that of float64.
        """
        for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
            gap = np.abs(a - b)
            size = max(float(np.abs(b).max(initial=0.0)), self.sizes[i] if of == "gradient" else 0.0)
            allowed = 64 * EPS * unit * size + (1e-10 if unit == 1.0 else 0.0) * np.abs(b) + (unit != 1.0) * TINY
            if not np.all(gap <= allowed):
                allowed = allowed + 64 * unit * self.wide()[0 if of == "value" else 1][i].max(initial=0.0)
            if not np.all(gap <= allowed):
                entry = tuple(map(int, np.unravel_index(np.argmax(gap - allowed), gap.shape)))
                report(i, entry, float(a[entry]), float(b[entry]))
