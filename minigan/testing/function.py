"""What the checks know of a function: lists of arrays in, lists of arrays out, and its pullback."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = list[np.ndarray]
Pullback = Callable[[Arrays], Arrays]
OUTSIDE = (ValueError, ArithmeticError, AssertionError)  # what a function raises for a point outside of its domain


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

    def magnitudes(self, values: Arrays) -> Arrays:
        """Return what each entry of the values is rounded at."""
        sizes = self.sizes or (0.0,) * len(values)
        return [np.maximum(np.abs(y), size) for y, size in zip(values, sizes, strict=True)]


@dataclass(frozen=True)
class Settings:
    """What is allowed, and where in the check we are."""

    rtol: float
    step: float
    linear: bool
    where: str


def named_leaves(args: Iterable[Any]) -> dict[str, Any]:
    """Return the leaves of arguments that are nested lists, tuples and dicts, in order, by names: ``argument 1[0]``."""
    return dict(leaf for i, x in enumerate(args) for leaf in _named(f"argument {i}", x))


def _named(name: str, x: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(x, dict | list | tuple):
        for key, part in x.items() if isinstance(x, dict) else enumerate(x):
            yield from _named(f"{name}[{key!r}]", part)
    else:
        yield name, x


def drawn(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return random numbers of either sign, none of them small."""
    return np.asarray(rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape))
