"""The strength of G's gradient: at one logit, in each layer, and the dead zone in which it is 0.

G learns through |dL_G/ds| at the logits s = D(G(z)). The saturating loss passes σ(s), which vanishes if D is sure of
itself (s ≪ 0), and the non-saturating one 1 − σ(s), which vanishes if D is fooled (1406.2661, section 3). The engine
computes all numbers by differentiating the objectives.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan.engine.device import to_numpy
from minigan.gan.game import Game
from minigan.gan.objectives import DEAD, Objective, slopes

REACH = 4096.0  # the largest |s| searched for an exact dead zone


def dead_share(objective: Objective, logits: Any, real_logits: Any = None) -> float:
    """Return the share of generated logits whose |dL_G/ds| is below DEAD."""
    return float((slopes(objective, logits, real_logits) < DEAD).mean())


def dead_zone(objective: Objective, dtype: Any = np.float32) -> tuple[float | None, float | None]:
    """Return the logits below and above which |dL_G/ds| is exactly 0 in this dtype, None if it never is.

    The search goes up to ±REACH, to a thousandth.
    """

    def alive(s: float) -> bool:
        return bool(slopes(objective, np.array([s], dtype))[0] > 0)

    ends: list[float | None] = []
    for sign in (-1.0, 1.0):
        if alive(sign * REACH):
            ends.append(None)
            continue
        inside, outside = 0.0, sign * REACH
        while abs(outside - inside) > 1e-3:
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if alive(middle) else (inside, middle)
        ends.append(outside)
    return ends[0], ends[1]


def layer_norms(game: Game, real: Any, z: Any) -> dict[str, float]:
    """Return the Euclidean norm of ∇L_G in every layer of G that has parameters, by the layer's path, from z on."""
    gradient = game.generator_gradient(real, z).parts
    squares: dict[str, float] = {}
    for name, part in zip(game.generator.named_parameters(), gradient, strict=True):
        layer = name.rpartition(".")[0] or name
        squares[layer] = squares.get(layer, 0.0) + float((to_numpy(part.data).astype(np.float64) ** 2).sum())
    return {layer: float(np.sqrt(square)) for layer, square in squares.items()}
