"""A player: a network and the optimiser that moves it, with the moving average of its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigan.engine.autodiff import renew
from minigan.engine.device import device_of, to_device, to_numpy
from minigan.engine.tensor import Tensor
from minigan.gan.game import Game
from minigan.nn import Module
from minigan.optim import Optimizer
from minigan.random import Generator

WINDOW = 20  # rows of metrics that Movement and the rules of a diagnosis read
SKETCH = 64  # numbers that stand for all parameters of both players in Movement


@dataclass(eq=False)
class Player:
    """A network and its optimiser, which holds exactly the network's parameters.

    ValueError if the optimiser moves other Tensors than ``network.parameters()``.
    """

    network: Module
    optimizer: Optimizer

    def __post_init__(self) -> None:
        own = self.network.parameters()
        if len(own) != len(self.optimizer.parameters) or any(
            a is not b for a, b in zip(own, self.optimizer.parameters, strict=True)
        ):
            raise ValueError("Player: the optimiser must hold the parameters of the network, in their order")

    @property
    def device(self) -> str:
        """The device of the parameters."""
        return device_of(self.optimizer.buffer)

    def move(self, gradient: Sequence[Any]) -> None:
        """Take one step of the optimiser against a gradient: a Tensor or array for each parameter."""
        self.optimizer.step(gradient)

    def bookmark(self, *, moments: bool = True) -> Callable[[], None]:
        """Return a function that restores the player's present state.

        Without ``moments`` it restores only the parameters and their average; moments, the number of steps and the
        network's buffers keep their later values.
        """
        optimizer, network = self.optimizer, self.network
        parameters, average = optimizer.buffer.copy(), optimizer.ema.copy()
        state, buffers = (optimizer.state(), network.named_buffers()) if moments else (None, {})

        def back() -> None:
            optimizer.buffer[...] = parameters
            optimizer.ema[...] = average
            if state is not None:
                optimizer.load_state(state)
                network.load_buffers(buffers)
            renew(optimizer.parameters)

        return back

    def averaged(self, device: str) -> Module:
        """Return a copy of the network on ``device``, on its averaged weights (without an average, on its weights)."""
        weights = self.optimizer.average() if self.optimizer.ema_decay else self.optimizer.parameters
        return self.network.with_parameters([weight.detach().to(device) for weight in weights]).to(device)

    def state(self) -> dict[str, np.ndarray]:
        """Return the player's state by name: parameters, buffers, moments, average, number of steps."""
        named = self.network.named_parameters()
        arrays = {f"parameters/{name}": p.numpy() for name, p in named.items()}
        arrays |= {f"buffers/{name}": to_numpy(b) for name, b in self.network.named_buffers().items()}
        return arrays | {f"optimizer/{name}": array for name, array in self.optimizer.state().items()}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Restore a saved :meth:`state` of a player with the same network and optimiser."""
        for name, p in self.network.named_parameters().items():
            p.data[...] = to_device(state[f"parameters/{name}"], self.device)
        renew(self.network.parameters())
        buffers = self.network.named_buffers().items()
        saved = {name: state[f"buffers/{name}"].copy() for name, _ in buffers}
        self.network.load_buffers({name: to_device(saved[name], device_of(now)) for name, now in buffers})
        self.optimizer.load_state(part(state, "optimizer"))


MakeOptimizer = Callable[[Sequence[Tensor]], Optimizer]


def make_players(
    game: Game, discriminator: MakeOptimizer, generator: MakeOptimizer | None = None
) -> tuple[Player, Player]:
    """Return the players (D, G) of a game; functions from parameters make the optimisers, one for both or one each.

    ``make_players(game, mg.optim.Adam)``, or ``make_players(game, lambda p: mg.optim.SGD(p, 0.1))``.
    """
    makers = (discriminator, game.discriminator), (generator or discriminator, game.generator)
    d, g = (Player(network, make(network.parameters())) for make, network in makers)
    return d, g


def part(state: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Return the arrays of a state whose names begin with ``name/``, with that prefix removed."""
    prefix = f"{name}/"
    return {key.removeprefix(prefix): array for key, array in state.items() if key.startswith(prefix)}


class Movement:
    """The movement of the players' point from row to row of the metrics: onwards, or in circles.

    SKETCH signed sums stand for both players' parameters: they keep lengths and angles to about 1/√SKETCH.
    ``turn`` is the cosine between this move and the last one, ``progress`` the distance between the point now and
    WINDOW rows ago, as a share of the length of its path. Both are 1 until there are two moves.
    """

    def __init__(self, players: Sequence[Player]) -> None:
        self._players = list(players)
        self._signs = [
            np.where(Generator(i, stream="augmentation").uniform(size).numpy() < 0.5, -1, 1).astype(np.int8)
            for i, size in enumerate(player.optimizer.buffer.size for player in self._players)
        ]
        self.points = np.zeros((0, SKETCH))

    def _sketch(self) -> np.ndarray:
        total = np.zeros(SKETCH)
        for signs, player in zip(self._signs, self._players, strict=True):
            signed = to_numpy(player.optimizer.buffer) * signs
            whole = len(signed) // SKETCH * SKETCH
            total += signed[:whole].reshape(-1, SKETCH).sum(0, dtype=np.float64)
            total[: len(signed) - whole] += signed[whole:]
        return total

    def look(self) -> tuple[float, float]:
        """Return (turn, progress) now, and remember the point."""
        self.points = np.concatenate([self.points[-WINDOW:], self._sketch()[None]])
        moves = np.diff(self.points, axis=0)
        lengths = np.linalg.norm(moves, axis=1)
        if len(moves) < 2 or not (lengths > 0).all():
            return 1.0, 1.0
        turn = moves[-1] @ moves[-2] / (lengths[-1] * lengths[-2])
        return float(turn), float(np.linalg.norm(self.points[-1] - self.points[0]) / lengths.sum())

    def state(self) -> np.ndarray:
        """Return the state that a bitwise resume needs, always of one shape: missing rows are NaN."""
        kept = np.full((WINDOW + 1, SKETCH), np.nan)
        kept[: len(self.points)] = self.points
        return kept

    def load_state(self, kept: np.ndarray) -> None:
        """Restore a saved :meth:`state`."""
        self.points = kept[np.isfinite(kept).all(1)]
