"""The same game at a small network's own speed: each player's turn is traced, then replayed without the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigan.engine.device import as_array
from minigan.engine.tensor import Tensor
from minigan.engine.trace import Traced
from minigan.gan.game import Game, Gradient
from minigan.ops.conv import weights_stay
from minigan.ops.elementwise import raw


@dataclass
class TracedGame(Game):
    """A :class:`Game` with the same numbers, bit by bit, whose gradients are replayed from the third turn on.

    For networks, penalties and objectives that compute with ops alone and make the same calls whatever the data, as all
    of this package do: see :mod:`minigan.engine.trace` for what a trace cannot see, and what it checks. Changes to a
    network's layers and settings between turns are noticed.

    ``traces["discriminator"]`` and ``["generator"]`` hold the turns' source, for reading.
    """

    def __post_init__(self) -> None:
        turns: dict[str, Callable[..., Any]] = {
            "discriminator": super().discriminator_gradient,
            "generator": super().generator_gradient,
        }
        self.traces = {name: Traced(turn, self._read) for name, turn in turns.items()}

    def _read(self) -> Iterator[Any]:
        """Yield all that a turn reads: the game, and every module of both networks."""
        yield self
        for network in (self.generator, self.discriminator):
            yield from (module for _, module in network.modules())

    def discriminator_gradient(self, real: Any, z: Any) -> Gradient:
        """Return ∇_{θ_D} L_D and the losses."""
        with weights_stay():
            found = self.traces["discriminator"](_constant(real), _constant(z))
        # without a graph nobody can say where a number went wrong: the game itself works it out again, and does
        return found if np.isfinite(found.losses.loss.data) else super().discriminator_gradient(real, z)

    def generator_gradient(self, real: Any, z: Any) -> Gradient:
        """Return ∇_{θ_G} L_G and the losses."""
        with weights_stay():
            found = self.traces["generator"](_constant(real) if self.objective.paired else None, _constant(z))
        return found if np.isfinite(found.losses.loss.data) else super().generator_gradient(real, z)


def _constant(x: Any) -> Tensor:
    return x if type(x) is Tensor and x.op is None else Tensor(as_array(raw(x)))
