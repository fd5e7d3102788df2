"""Hypothesis strategies for gradient checks: shapes, values away from kinks, and layouts in memory.

@given(strategies.arrays(away_from=(0.0,)))
def test_relu(x):
    check_grads(ops.relu, [x])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigan.testing.layouts import laid_out

try:
    from hypothesis import strategies as st
except ImportError:
    raise ImportError("minigan.testing.strategies needs Hypothesis: pip install hypothesis") from None


def shapes(
    min_dims: int = 0, max_dims: int = 3, min_side: int = 1, max_side: int = 4
) -> st.SearchStrategy[tuple[int, ...]]:
    """Draw shapes; sides of 0 only if ``min_side`` is 0."""
    return st.lists(st.integers(min_side, max_side), min_size=min_dims, max_size=max_dims).map(tuple)


def values(
    low: float = -3.0, high: float = 3.0, away_from: Sequence[float] = (), distance: float = 0.05
) -> st.SearchStrategy[float]:
    """Draw numbers from low to high, each at least ``distance`` from every kink in ``away_from``.

    ValueError if no number is left.
    """
    edges = [low]
    for kink in sorted(away_from):
        edges += [kink - distance, kink + distance]
    edges.append(high)
    pieces = [(max(a, low), min(b, high)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    pieces = [(a, b) for a, b in pieces if a <= b]
    if not pieces:
        raise ValueError(f"values: no number from {low} to {high} is {distance} away from {tuple(away_from)}")
    return st.one_of([st.floats(a, b, allow_nan=False, allow_subnormal=False) for a, b in pieces])


@st.composite
def layouts(draw: Any, array: np.ndarray) -> np.ndarray:
    """Draw a view with the values of ``array``: itself, or with permuted axes, gaps or negative strides in memory."""
    if not array.ndim:
        return array
    order = draw(st.permutations(range(array.ndim)))
    backwards = draw(st.sets(st.integers(0, array.ndim - 1)))
    return laid_out(array, order, draw(st.integers(1, 3)), sorted(backwards))


@st.composite
def arrays(
    draw: Any,
    shape: st.SearchStrategy[tuple[int, ...]] | tuple[int, ...] | None = None,
    *,
    low: float = -3.0,
    high: float = 3.0,
    away_from: Sequence[float] = (),
    distance: float = 0.05,
    dtype: Any = np.float64,
    contiguous: bool = False,
) -> np.ndarray:
    """Draw an array of :func:`values` in a shape (or one of :func:`shapes`), in any layout unless ``contiguous``."""
    lengths: tuple[int, ...] = shape if isinstance(shape, tuple) else draw(shapes() if shape is None else shape)
    size = math.prod(lengths)
    numbers = draw(st.lists(values(low, high, away_from, distance), min_size=size, max_size=size))
    array = np.array(numbers, dtype=dtype).reshape(lengths)
    return array if contiguous else draw(layouts(array))


@st.composite
def broadcasting(draw: Any, count: int = 2, **settings: Any) -> tuple[np.ndarray, ...]:
    """Draw ``count`` arrays whose shapes broadcast; settings are those of :func:`arrays`."""
    shape = draw(shapes())
    drawn = []
    for _ in range(count):
        sides = [draw(st.sampled_from((1, n))) for n in shape]
        drawn.append(draw(arrays(tuple(sides[draw(st.integers(0, len(sides))) :]), **settings)))
    return tuple(drawn)
