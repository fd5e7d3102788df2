"""Spectra against what training does: small games for every optimiser, and the digits GAN as it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from minigan.gan.config import Config
from minigan.gan.dynamics import Simultaneous
from minigan.gan.game import Game
from minigan.gan.games import SmallGame, dirac, gaussians
from minigan.gan.objectives import MINIMAX, NON_SATURATING, WASSERSTEIN
from minigan.gan.penalties import PENALTIES
from minigan.gan.rules import NagarajanKolter
from minigan.gan.stability import Linearised, effective_rates
from minigan.gan.trainer import Trainer
from minigan.optim import SGD, Adam, Optimizer, RMSProp
from minigan.random import Generator
from minigan.studies.figures import COLOURS, MARKERS, new_figure, tidy
from minigan.studies.report import Budget, Result, Study, Table
from minigan.tensor import Tensor

STEPS = 400
OPTIMISERS: dict[str, Any] = {
    "SGD .1": lambda p: SGD(p, 0.1),
    "RMSProp .01": lambda p: RMSProp(p, 0.01, alpha=0.9),
    "Adam .01": lambda p: Adam(p, 0.01, (0.5, 0.9)),
}
TERMS: dict[str, tuple[type[Game], tuple[Any, ...]]] = {
    "none": (Game, ()),
    "R1 γ=1": (Game, ((PENALTIES["r1"], 1.0),)),
    "NK η=.5": (NagarajanKolter, ()),
}
GAMES: dict[str, Any] = {"Dirac": dirac, "Gaussians": gaussians}
OBJECTIVES = (MINIMAX, NON_SATURATING, WASSERSTEIN)
PRODUCTS = 100  # of Arnoldi's method
MARKS = (50, 300, 1000)  # steps of the digits GAN at which its spectrum is taken


def rest(name: str) -> SmallGame:
    """Return the small game at its equilibrium."""
    return dirac(0.0, 0.0) if name == "Dirac" else gaussians(0.0, nodes=256)


def start(name: str) -> SmallGame:
    """Return the small game a little way off its equilibrium."""
    return dirac(0.3, 0.3) if name == "Dirac" else gaussians(0.5, nodes=256)


def converge(small: SmallGame, game: Game, make: Any) -> tuple[float, float, list[Optimizer]]:
    """Return (distance at the start, after STEPS simultaneous steps, the optimisers)."""
    players = [make(player.parameters()) for player in (game.discriminator, game.generator)]
    dynamics, real, z, before = Simultaneous(game, *players), Tensor(small.real), Tensor(small.z), small.distance()
    for _ in range(STEPS):
        dynamics.step(lambda: real, lambda: z, lambda: z)
    return before, small.distance(), players


def run(budget: Budget) -> Result:
    """Linearise small games at rest and play them; take the spectrum of the digits GAN along its training."""
    small_table = Table(
        f"small games: {STEPS} simultaneous steps from a little way off",
        ["game", "objective", "term", "rightmost eigenvalue", "settles", "largest stable step", "optimiser",
         "radius of its step at rest", "distance after / before"],
    )  # fmt: skip
    dots: dict[str, list[complex]] = {term: [] for term in TERMS}
    for name in GAMES:
        for objective in OBJECTIVES:
            for term, (kind, penalties) in TERMS.items():
                budget.tell(f"{name}, {objective.name}, {term}")
                small = rest(name)
                near = Linearised(kind(small.generator, small.discriminator, objective, penalties), small.real, small.z)
                spectrum = near.spectrum()
                dots[term] += list(spectrum.eigenvalues)
                for label, make in OPTIMISERS.items():
                    small = start(name)
                    game = kind(small.generator, small.discriminator, objective, penalties)
                    before, after, players = converge(small, game, make)
                    d, g = (effective_rates(player) for player in players)
                    verdict = spectrum.verdict().split(":")[0]
                    small_table.add(
                        name, objective.name, term, complex(spectrum.eigenvalues[0]), verdict, spectrum.largest_step(),
                        label, near.radius("simultaneous", g, d), after / before,
                    )  # fmt: skip

    digits = Table(
        "the digits GAN along its training, with and without R1",
        ["penalty", "step", "parameters", "rightmost", "largest in size", "largest stable step (at most)", "products"],
    )
    clouds: dict[tuple[str, int], np.ndarray] = {}
    for penalty in ("r1", "none"):
        trainer = Trainer(Config(device="cpu", penalty=penalty, width=32))
        z = Generator(5, stream="sample").normal((64, trainer.config.latent))
        for mark in sorted({budget.steps(mark) for mark in MARKS}):
            while trainer.steps < mark:
                trainer.step()
            budget.tell(f"digits, penalty {penalty}, spectrum at step {mark}")
            near = Linearised(trainer.game, trainer.samples[:64], z)
            spectrum = near.spectrum(products=PRODUCTS)
            found = spectrum.eigenvalues
            largest = found[np.argmax(np.abs(found))]
            digits.add(
                penalty, mark, spectrum.parameters, complex(found[0]), complex(largest), spectrum.largest_step(),
                near.products,
            )  # fmt: skip
            clouds[penalty, mark] = found

    def draw(path: Path) -> None:
        figure = new_figure(10.5, 4.8)
        left, right = figure.subplots(1, 2)
        for number, (term, values) in enumerate(dots.items()):
            left.plot(
                np.real(values), np.imag(values), MARKERS[number], color=COLOURS[number], markersize=7,
                markerfacecolor="none", label=f"penalty or term: {term}",
            )  # fmt: skip
        for number, ((penalty, mark), cloud) in enumerate(clouds.items()):
            right.plot(
                cloud.real, cloud.imag, MARKERS[number], color=COLOURS[number], markersize=6, markerfacecolor="none",
                label=f"{penalty}, step {mark}",
            )  # fmt: skip
        right.set_xscale("symlog", linthresh=1)
        right.set_yscale("symlog", linthresh=1)
        for axes, title in ((left, "small games at rest: all eigenvalues"), (right, "digits GAN: the edges")):
            axes.axvline(0, color="#222222", linewidth=1)
            axes.axhline(0, color="#9a9a9a", linewidth=0.8)
            tidy(axes, xlabel="Re λ: left of 0 settles", ylabel="Im λ: turns", title=title)
            axes.legend(fontsize=8, frameon=False)
        figure.savefig(path)

    return Result(
        [small_table, digits],
        draw,
        f"Dirac-GAN and a pair of Gaussians with an affine D, float64, {STEPS} simultaneous steps. Eigenvalues of the "
        "gradient field's Jacobian at the equilibrium by backward passes; the radius is that of the step with the "
        "rate that each parameter had at the end (for RMSProp and Adam the rate over the running scale, momentum "
        "left out). Digits: the default DCGAN with 32 channels, one minibatch of 64, Arnoldi's method with 100 "
        "products.",
        "Without a term minimax circles in the Dirac-GAN and settles in the pair of Gaussians, where D's own "
        "curvature damps it; Wasserstein circles in both, and the term of Nagarajan and Kolter settles it. Where the "
        "radius is below 1 gradient descent ends nearer than it began. The digits GAN is not at rest while it "
        "trains: eigenvalues to the right of 0 say that nearby points part along the flow there.",
        "A spectrum belongs to one point and one minibatch, and says nothing of far away. Adaptive optimisers change "
        "their scale as they go, so their radius is a snapshot; near rest their steps do not shrink with the "
        "gradient, and they hover.",
    )


STUDY = Study("stability", "Does the spectrum at rest foretell what training does?", run, seeds=1)
