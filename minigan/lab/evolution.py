"""A rival of gradient descent for G: children by several objectives, of which the fittest survives (1803.00657)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigan.data import as_batch
from minigan.engine.autodiff import grad
from minigan.engine.gradmode import no_grad
from minigan.gan.dynamics import Draw, Dynamics, Step
from minigan.gan.game import Game, Gradient
from minigan.gan.objectives import LEAST_SQUARES, MINIMAX, NON_SATURATING, Objective
from minigan.gan.penalties import squared_norm
from minigan.ops import mean, sigmoid

MUTATIONS: tuple[Objective, ...] = (MINIMAX, NON_SATURATING, LEAST_SQUARES)


@dataclass
class Evolution(Dynamics):
    """E-GAN with one parent: D takes k steps, then G one step by each mutation, and the fittest child stays.

    Fitness is quality + ``diversity`` · variety (see :meth:`fitness`). ``chosen`` counts the wins of each mutation;
    ``gradients`` counts all gradient evaluations.
    """

    game: Game
    k: int = 1
    diversity: float = 0.05
    mutations: tuple[Objective, ...] = MUTATIONS

    def __post_init__(self) -> None:
        if self.k < 1 or not self.mutations:
            raise ValueError(f"Evolution: needs k >= 1 and a mutation, not {self.k} and {len(self.mutations)}")
        self.chosen = {objective.name: 0 for objective in self.mutations}
        self.gradients = 0

    def step(self, next_real: Draw, noise_d: Draw, noise_g: Draw) -> Step:
        """Move D, then G by selection; one minibatch judges the fitness of all children."""
        for _ in range(self.k):
            real = next_real()
            gradient, d = self.game.discriminator_gradient(real, noise_d())
            self.discriminator.move(gradient)
        z, judged_on = noise_g(), noise_d()
        parent = self._bookmark()
        best: tuple[float, Callable[[], None], Gradient, str] | None = None
        for objective in self.mutations:
            child = self._game(objective).generator_gradient(real, z)
            self.generator.move(child.parts)
            score = sum(self.fitness(real, judged_on))
            score = score if np.isfinite(score) else -np.inf
            if best is None or score > best[0]:
                best = score, self._bookmark(), child, objective.name
            parent()
        assert best is not None
        best[1]()
        self.chosen[best[3]] += 1
        self.gradients += self.k + 2 * len(self.mutations)
        return Step(d, best[2].losses)

    def _bookmark(self) -> Callable[[], None]:
        """Return a function that restores the present state of both players (calls change D's buffers too)."""
        returns = [player.bookmark() for player in (self.generator, self.discriminator)]

        def back() -> None:
            for each in returns:
                each()

        return back

    def fitness(self, real: Any, z: Any) -> tuple[float, float]:
        """Return (E σ(D(G(z))), −γ log ‖∇_{θ_D} L_D‖): how real samples look, and how weakly they push D."""
        fake = self.game.generate(z)
        with no_grad():
            quality = mean(sigmoid(self.game.judge(*fake))).item()
        loss = self.game.objective.discriminator(self.game.judge(*as_batch(real)), self.game.judge(*fake))
        norm = squared_norm(grad(loss, self.game.discriminator.parameters())).item()
        return quality, -self.diversity * 0.5 * float(np.log(max(norm, 1e-30)))

    def _game(self, objective: Objective) -> Game:
        return Game(self.game.generator, self.game.discriminator, objective)
