"""How the players' point moves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minigan.engine.device import to_numpy
from minigan.optim import Optimizer
from minigan.random import Generator

WINDOW = 20  # rows of metrics that are looked back on
SKETCH = 64  # numbers that stand for all parameters of both players in Movement


class Movement:
    """How the players' point moves from row to row of the metrics: on and on, or round in circles.

    Both players' parameters are sketched by SKETCH signed sums, which keep lengths and angles to about 1/√SKETCH.
    ``turn`` is the cosine between this move and the last one, ``progress`` how far the point got over the last WINDOW
    rows, as a share of the way it went. Both are 1 until there are two moves.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._optimizers = list(optimizers)
        self._signs = [
            np.where(Generator(i, stream="augmentation").uniform(o.buffer.size).numpy() < 0.5, -1, 1).astype(np.int8)
            for i, o in enumerate(self._optimizers)
        ]
        self.points = np.zeros((0, SKETCH))

    def _sketch(self) -> np.ndarray:
        total = np.zeros(SKETCH)
        for signs, optimizer in zip(self._signs, self._optimizers, strict=True):
            signed = to_numpy(optimizer.buffer) * signs
            whole = len(signed) // SKETCH * SKETCH
            total += signed[:whole].reshape(-1, SKETCH).sum(0, dtype=np.float64)
            total[: len(signed) - whole] += signed[whole:]
        return total

    def look(self) -> tuple[float, float]:
        """Return (turn, progress) now, and remember where the point is."""
        self.points = np.concatenate([self.points[-WINDOW:], self._sketch()[None]])
        moves = np.diff(self.points, axis=0)
        lengths = np.linalg.norm(moves, axis=1)
        if len(moves) < 2 or not (lengths > 0).all():
            return 1.0, 1.0
        turn = moves[-1] @ moves[-2] / (lengths[-1] * lengths[-2])
        return float(turn), float(np.linalg.norm(self.points[-1] - self.points[0]) / lengths.sum())

    def state(self) -> np.ndarray:
        """Return what must be kept to go on bitwise, always of one shape: rows not there yet are NaN."""
        kept = np.full((WINDOW + 1, SKETCH), np.nan)
        kept[: len(self.points)] = self.points
        return kept

    def load_state(self, kept: np.ndarray) -> None:
        """Take over a saved :meth:`state`."""
        self.points = kept[np.isfinite(kept).all(1)]
