"""Numbers that change over a run: a straight line for layers, and the fading of learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable


class Schedule:
    """A number that moves from ``start`` to ``end`` in a straight line over ``steps``.

    Layers and optimisers hold the schedule and read :attr:`value`; the trainer calls :meth:`at` with each step.
    """

    def __init__(self, start: float, end: float | None = None, steps: int = 1) -> None:
        if not all(math.isfinite(x) for x in (start, start if end is None else end)) or steps < 1:
            raise ValueError(f"Schedule: needs finite numbers and steps >= 1, not {start}, {end} and {steps}")
        self.start, self.end, self.steps = float(start), float(start if end is None else end), steps
        self.value = self.start

    def at(self, step: int) -> float:
        """Move to ``step`` and return the number there."""
        part = min(1.0, step / self.steps)
        self.value = self.start + (self.end - self.start) * part
        return self.value

    def __repr__(self) -> str:
        return f"Schedule({self.start:g} to {self.end:g} over {self.steps}, now {self.value:g})"


# the learning rate over its initial value, as a function of the finished share of a run; None for constant
FADES: dict[str, Callable[[float], float] | None] = {
    "constant": None,
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
}
