"""The algebra of minimal filtering (1509.09308): m outputs of r taps by m + r − 1 products, in exact fractions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Form:
    """F(m, r): m outputs of r taps from n = m + r − 1 inputs by n products, by interpolation at n − 1 points and ∞."""

    m: int
    r: int
    points: tuple[Fraction, ...]

    @property
    def n(self) -> int:
        """The number of inputs, of points, and of products."""
        return self.m + self.r - 1

    def a_t(self) -> list[list[Fraction]]:
        """Aᵀ (m, n): row j holds the j-th powers of the points."""
        last = self.m - 1
        return [[p**j for p in self.points] + [Fraction(j == last)] for j in range(self.m)]

    def g(self) -> list[list[Fraction]]:
        """G (n, r): row i is (1, p, p², …) / Π (p − q) over the other points q."""
        rows = []
        for p in self.points:
            others = math.prod(p - q for q in self.points if q != p)
            rows.append([p**j / others for j in range(self.r)])
        return [*rows, [Fraction(j == self.r - 1) for j in range(self.r)]]

    def b_t(self) -> list[list[Fraction]]:
        """Bᵀ (n, n): row i holds the coefficients of Π (x − q) over the other points, the last one over all."""
        rows = []
        for p in (*self.points, None):
            polynomial = [Fraction(1)]
            for q in self.points:
                if q != p:
                    shifted, scaled = [Fraction(0), *polynomial], [q * c for c in polynomial] + [Fraction(0)]
                    polynomial = [a - b for a, b in zip(shifted, scaled, strict=True)]
            rows.append(polynomial + [Fraction(0)] * (self.n - len(polynomial)))
        return rows


def _points(*values: int) -> tuple[Fraction, ...]:
    return tuple(map(Fraction, values))


FORMS = (Form(2, 2, _points(0, 1)), Form(4, 2, _points(0, 1, -1, 2)), Form(2, 3, _points(0, 1, -1)))
