"""The Jacobian in rows from a pullback, and the curves of its columns.

It is compared entry by entry while it is small: a row is the gradient of one output entry, a column the derivative
along one argument entry. A large one is compared along random directions, one argument and one output at a time, so
that a small one does not hide beside a large one. The cost is linear in the number of columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from minigan.testing.differences import EPS, Curve
from minigan.testing.function import OUTSIDE, Arrays, Function, drawn

FULL = 2000  # the most entries of a Jacobian that is compared whole
FEW = 16  # so many rows or columns are never replaced by random ones
DIRECTIONS = 4

Entry = tuple[int, ...]


class Column(NamedTuple):
    """A direction within one argument; ``entry`` is None for a random one."""

    argument: int
    direction: np.ndarray
    entry: Entry | None


class Jacobian:
    """The rows as the VJP has them, and values along columns for finite differences.

    ``here`` are the values of the rows at the point, ``size`` what they are rounded at.
    """

    def __init__(
        self, function: Function, point: Arrays, values: Arrays, cotangents: Arrays, pull: Callable[[Arrays], Arrays]
    ) -> None:
        self.function, self.point, self.values, self.random = function, point, values, cotangents
        n_in, n_out = sum(x.size for x in point), sum(y.size for y in values)
        self.units = n_in * n_out <= FULL or n_out <= FEW
        self.few = n_in * n_out <= FULL or n_in <= FEW
        self.single = True  # have all values so far been numbers of float32?
        self.places: list[tuple[int, Entry | None]] = [
            (k, entry) for k, y in enumerate(values) for entry in (np.ndindex(y.shape) if self.units else [None])
        ]
        pulled = [pull(self.cotangents(row)) for row in range(len(self.places))]
        self.rows = [np.array([row[i].reshape(-1) for row in pulled]) for i in range(len(point))]
        self.here = self._project(values)
        sizes = function.magnitudes(values)
        norms = [np.linalg.norm((g * s).reshape(-1)) for g, s in zip(cotangents, sizes, strict=True)]
        self.size = self._project(sizes) if self.units else np.array(norms)

    def label(self, row: int) -> str:
        """Return the name of a row."""
        k, entry = self.places[row]
        return self.function.outputs(k) + (" times a random cotangent" if entry is None else f", entry {entry}")

    def cotangents(self, row: int) -> Arrays:
        """Return the cotangents whose pullback is a row: a unit, or one output's random cotangent."""
        k, entry = self.places[row]
        found = [np.zeros_like(y) for y in self.values]
        if entry is None:
            found[k] = self.random[k]
        else:
            found[k][entry] = 1.0
        return found

    def _project(self, values: Arrays) -> np.ndarray:
        if self.units:
            return np.concatenate([y.reshape(-1) for y in values])
        return np.array([np.vdot(g, y) for g, y in zip(self.random, values, strict=True)])

    def noise(self, noise: Arrays) -> np.ndarray:
        """Return the noise of the rows' values from that of the outputs; 0 where rows are sums of many."""
        return self._project(noise) if self.units else np.zeros(len(self.places))

    def columns(self, rng: np.random.Generator) -> Iterator[Column]:
        """Yield unit columns, or random ones for each argument."""
        for i, x in enumerate(self.point):
            if self.few:
                for entry in np.ndindex(x.shape):
                    yield self.unit(i, entry)
            elif x.size:
                for _ in range(DIRECTIONS if len(self.point) == 1 else DIRECTIONS // 2):
                    yield Column(i, drawn(rng, x.shape) * np.maximum(1.0, np.abs(x)), None)

    def unit(self, i: int, entry: Entry) -> Column:
        """Return the column of one argument entry."""
        direction = np.zeros_like(self.point[i])
        direction[entry] = 1.0
        return Column(i, direction, entry)

    def claims(self, column: Column) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the slopes along a column as the VJP has them, the sizes of the rows around, and their rounding."""
        rows, v = self.rows[column.argument], column.direction.reshape(-1)
        if column.entry is not None:
            scales = np.abs(rows).max(1)
            return rows[:, int(np.argmax(v))], scales, 8 * EPS * scales
        parts = rows * v
        return rows @ v, np.sqrt((parts**2).sum(1)), 8 * EPS * np.abs(parts).sum(1)

    def curves(self, column: Column) -> Curve:
        """Return t ↦ the rows' values at x + t·v; NaN where the function is not defined."""

        def along(t: float) -> np.ndarray:
            moved = list(self.point)
            moved[column.argument] = self.point[column.argument] + t * column.direction
            try:
                values = self.function.evaluate(moved)
            except OUTSIDE:
                return np.full(len(self.here), np.nan)
            if [y.shape for y in values] != [y.shape for y in self.values]:
                return np.full(len(self.here), np.nan)
            self.single = self.single and all(np.array_equal(y, y.astype(np.float32), equal_nan=True) for y in values)
            return self._project(values)

        return along
