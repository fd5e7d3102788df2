"""How the players move on the game's gradients. Alternating steps are Algorithm 1 of 1406.2661.

Every scheme takes a game (whose gradients may be those of a variant: see :mod:`minigan.gan.variants`) and the two
players, and has one method, ``step``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from minigan.gan.game import Gradient, Losses
from minigan.gan.player import Player

Draw = Callable[[], Any]  # the next Batch of data or noise (or Tensor, or array)


@dataclass
class Step:
    """The losses of one training step: D's in its last turn, and G's."""

    discriminator: Losses
    generator: Losses


class Turns(Protocol):
    """The interface of a game for dynamics: a :class:`minigan.gan.Game`, or a replayed one."""

    def discriminator_gradient(self, real: Any, z: Any) -> Gradient:
        """Return D's gradient and losses."""

    def generator_gradient(self, real: Any, z: Any) -> Gradient:
        """Return G's gradient and losses."""

    def gradients(self, real: Any, z: Any) -> tuple[Gradient, Gradient]:
        """Return (D's, G's) gradient and losses at one point."""


@dataclass
class Dynamics:
    """A game and its players. Each Draw of a step returns the next minibatch of data or noise."""

    game: Turns
    discriminator: Player
    generator: Player

    k = 1  # minibatches of data that a step takes

    def step(self, next_real: Draw, noise_d: Draw, noise_g: Draw) -> Step:
        """Move both players once."""
        raise NotImplementedError


@dataclass
class Alternating(Dynamics):
    """Algorithm 1: D takes k steps, then G takes m, each on new noise."""

    k: int = 1
    m: int = 1

    def __post_init__(self) -> None:
        for name, count in (("k", self.k), ("m", self.m)):
            if count < 1:
                raise ValueError(f"Alternating: {name} must be at least 1, not {count}")

    def step(self, next_real: Draw, noise_d: Draw, noise_g: Draw) -> Step:
        """Move D k times on fresh data, then G m times."""
        # D ascends V = E log D(x) + E log(1 − D(G(z))), so it descends L_D = −V; no other sign is changed
        for _ in range(self.k):
            real = next_real()
            gradient, d = self.game.discriminator_gradient(real, noise_d())
            self.discriminator.move(gradient)
            del gradient  # its memory serves the next turn

        for _ in range(self.m):
            gradient, g = self.game.generator_gradient(real, noise_g())
            self.generator.move(gradient)
            del gradient
        return Step(d, g)


@dataclass
class Simultaneous(Dynamics):
    """Both players move at once, from one point, on one minibatch: w ← w + h·v(w)."""

    def step(self, next_real: Draw, noise_d: Draw, noise_g: Draw) -> Step:
        """Move both players on the same data and (G's) noise."""
        d, g = self.game.gradients(next_real(), noise_g())
        self.discriminator.move(d.parts)
        self.generator.move(g.parts)
        return Step(d.losses, g.losses)


@dataclass
class Extragradient(Dynamics):
    """Look ahead, then move from the starting point: w̃ = w + h·v(w), w ← w + h·v(w̃) (1711.00141, 1802.10551).

    Both gradients are taken on one minibatch. With Adam this is ExtraAdam (1802.10551, algorithm 4): the moments follow
    both gradients.
    """

    def step(self, next_real: Draw, noise_d: Draw, noise_g: Draw) -> Step:
        """Move both players on the same data and (G's) noise."""
        real, z = next_real(), noise_g()
        players = self.discriminator, self.generator
        returns = [player.bookmark(moments=False) for player in players]
        for player, gradient in zip(players, self.game.gradients(real, z), strict=True):
            player.move(gradient.parts)
        d, g = self.game.gradients(real, z)
        for back in returns:
            back()
        self.discriminator.move(d.parts)
        self.generator.move(g.parts)
        return Step(d.losses, g.losses)


# --- the table --------------------------------------------------------------------------------------------------------


class Pull(NamedTuple):
    """Maps u ↦ Jᵀ(rates · u) of a gradient field near a point, with the rates of both players, D alone, G alone."""

    both: Callable[[np.ndarray], np.ndarray]
    d: Callable[[np.ndarray], np.ndarray]
    g: Callable[[np.ndarray], np.ndarray]


def _at_once(u: np.ndarray, pull: Pull) -> np.ndarray:
    return u + pull.both(u)


def _in_turns(u: np.ndarray, pull: Pull) -> np.ndarray:
    u = u + pull.g(u)  # transposed, the later turn comes first
    return u + pull.d(u)


def _looking_ahead(u: np.ndarray, pull: Pull) -> np.ndarray:
    change = pull.both(u)
    return u + change + pull.both(change)


def _optimistic(u: np.ndarray, pull: Pull) -> np.ndarray:
    now, past = np.split(u, 2)
    change = pull.both(now)
    return np.concatenate([now + 2 * change + past, -change])


@dataclass(frozen=True)
class Scheme:
    """A way for players to move: the dynamics and their properties.

    ``linear(u, pull)`` is the transposed linear map of one step near a point of rest, on the last ``memory`` points;
    ``optimistic`` schemes need optimistic optimisers, and those with ``turns`` take k and m.
    """

    kind: type[Dynamics]
    linear: Callable[[np.ndarray, Pull], np.ndarray]
    optimistic: bool = False
    turns: bool = False

    @property
    def memory(self) -> int:
        """The number of points that a step depends on."""
        return 2 if self.optimistic else 1

    def make(self, game: Turns, discriminator: Player, generator: Player, k: int = 1, m: int = 1) -> Dynamics:
        """Return the dynamics; k and m count the turns of D and G in a step, for schemes with turns."""
        turns = {"k": k, "m": m} if self.turns else {}
        return self.kind(game, discriminator, generator, **turns)


DYNAMICS = {
    "alternating": Scheme(Alternating, _in_turns, turns=True),
    "simultaneous": Scheme(Simultaneous, _at_once),
    "extragradient": Scheme(Extragradient, _looking_ahead),
    "optimistic": Scheme(Simultaneous, _optimistic, optimistic=True),
}
