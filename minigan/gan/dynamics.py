"""How the players move. Alternating steps are Algorithm 1 of 1406.2661, with G's non-saturating loss where chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from minigan.gan.game import Game, Losses
from minigan.optim import Optimizer
from minigan.tensor import Tensor

Draw = Callable[[], Tensor]


@dataclass
class Step:
    """What one training step found: D's losses in its last turn, and G's."""

    discriminator: Losses
    generator: Losses


@dataclass
class Alternating:
    """Algorithm 1: D takes k steps, then G takes one. Each player has its own optimiser and its own noise."""

    game: Game
    discriminator_optimizer: Optimizer
    generator_optimizer: Optimizer
    k: int = 1

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"Alternating: k must be at least 1, not {self.k}")

    def step(self, next_real: Draw, noise_d: Draw, noise_g: Draw) -> Step:
        """Move both players once; each Draw returns the next minibatch of data or noise."""
        # D ascends V = E log D(x) + E log(1 − D(G(z))), which is to descend L_D = −V: the one place where a sign turns
        for _ in range(self.k):
            real, fake = next_real(), self.game.generate(noise_d())
            gradient, d = self.game.discriminator_gradient(real, fake)
            self.discriminator_optimizer.step(gradient)
            del gradient  # its memory serves G's turn

        gradient, g = self.game.generator_gradient(noise_g(), real)
        self.generator_optimizer.step(gradient)
        return Step(d, g)
