"""Spectra against training: small games for every optimiser, and the digits GAN as it trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from minigan.gan.build import build
from minigan.gan.config import Config
from minigan.gan.dynamics import Simultaneous
from minigan.gan.game import Game
from minigan.gan.objectives import MINIMAX, NON_SATURATING, WASSERSTEIN
from minigan.gan.penalties import r1
from minigan.gan.player import make_players
from minigan.gan.variants import NagarajanKolter
from minigan.lab.small_games import SmallGame, dirac, gaussians
from minigan.lab.stability import Linearised, Spectrum
from minigan.optim import SGD, Adam, Optimizer, RMSProp
from minigan.random import Generator
from minigan.studies.figures import COLOURS, MARKERS, new_figure, tidy
from minigan.studies.report import Budget, Result, Study, Table, brief, interval, listed

STEPS = 400
OPTIMISERS: dict[str, Any] = {
    "SGD .1": lambda p: SGD(p, 0.1),
    "RMSProp .01": lambda p: RMSProp(p, 0.01, alpha=0.9),
    "Adam .01": lambda p: Adam(p, 0.01, (0.5, 0.9)),
}
TERMS: dict[str, tuple[type[Game], tuple[Any, ...]]] = {
    "no term": (Game, ()),
    "R1 γ=1": (Game, (r1(1.0),)),
    "NK η=.5": (NagarajanKolter, ()),
}
GAMES: dict[str, Callable[[bool], SmallGame]] = {  # at the equilibrium, or a little way off
    "Dirac": lambda off: dirac(0.3, 0.3) if off else dirac(0.0, 0.0),
    "Gaussians": lambda off: gaussians(0.5 if off else 0.0, nodes=256),
}
OBJECTIVES = (MINIMAX, NON_SATURATING, WASSERSTEIN)
PRODUCTS = 100  # of Arnoldi's method
WIDTH = 32  # of the digits GAN
MARKS = (50, 600)  # steps of the digits GAN at which its spectrum is taken


@dataclass(frozen=True)
class Look:
    """The spectrum at a point of training, and ‖v‖ there."""

    spectrum: Spectrum
    speed: float

    @property
    def leaves(self) -> bool:
        """Whether an eigenvalue with a small residual lies right of 0."""
        return self.spectrum.verdict().startswith("unstable")


def converge(small: SmallGame, game: Game, make: Any) -> tuple[float, float, list[Optimizer]]:
    """Return (distance at the start, after STEPS simultaneous steps, the optimisers)."""
    players, before = make_players(game, make), small.distance()
    small.play(Simultaneous(game, *players), STEPS)
    return before, small.distance(), [player.optimizer for player in players]


def small_games(budget: Budget) -> tuple[Table, dict[str, list[complex]]]:
    """Linearise every small game at rest and play it; return the table, and {term: eigenvalues}."""
    table = Table(
        f"small games: {STEPS} simultaneous steps from a little way off",
        ["game", "objective", "term", "rightmost eigenvalue", "settles", "largest stable step", "optimiser",
         "radius of its step at rest", "distance after / before"],
    )  # fmt: skip
    dots: dict[str, list[complex]] = {term: [] for term in TERMS}
    for (name, make_game), objective, (term, (kind, penalties)) in product(GAMES.items(), OBJECTIVES, TERMS.items()):
        budget.report(f"{name}, {objective.name}, {term}")
        small = make_game(False)
        near = Linearised(kind(small.generator, small.discriminator, objective, penalties), small.real, small.z)
        spectrum = near.spectrum()
        dots[term] += list(spectrum.eigenvalues)
        for label, make in OPTIMISERS.items():
            small = make_game(True)
            game = kind(small.generator, small.discriminator, objective, penalties)
            before, after, players = converge(small, game, make)
            d, g = (player.rates() for player in players)
            table.add(
                name, objective.name, term, complex(spectrum.moving[0]), spectrum.verdict().split(":")[0],
                spectrum.largest_step(), label, near.radius("simultaneous", g, d), after / before,
            )  # fmt: skip
    return table, dots


def digits_gan(budget: Budget) -> dict[tuple[str, int], list[Look]]:
    """Return spectra of the digits GAN along its training: {(penalty, step): one a seed}."""
    found: dict[tuple[str, int], list[Look]] = {}
    for seed, penalty in product(range(budget.seeds), ("r1", "none")):
        trainer = build(Config(device="cpu", penalty=penalty, width=WIDTH, seed=seed))
        z = Generator(seed, stream="sample", step=5).normal((64, trainer.latent))
        for mark in sorted({budget.steps(mark) for mark in MARKS}):
            budget.report(f"digits, seed {seed + 1} of {budget.seeds}, penalty {penalty}, to step {mark}")
            trainer.train(mark)
            near = Linearised(trainer.game, trainer.data.reference()[:64], z)
            look = Look(near.spectrum(products=PRODUCTS), float(np.linalg.norm(near.field)))
            found.setdefault((penalty, mark), []).append(look)
    return found


def digits_table(looks: dict[tuple[str, int], list[Look]]) -> Table:
    """Return a row a penalty and step, over seeds."""
    table = Table(
        "the digits GAN along its training, with and without R1",
        ["penalty", "step", "‖v‖", "Re of the rightmost", "|Im| of it", "|λ| of the largest", "unstable, of seeds"],
    )
    for (penalty, mark), found in looks.items():
        first = [look.spectrum.eigenvalues[0] for look in found]
        table.add(
            penalty, mark, interval([look.speed for look in found]), interval([x.real for x in first]),
            interval([abs(x.imag) for x in first]),
            interval([float(np.abs(look.spectrum.eigenvalues).max()) for look in found]),
            f"{sum(look.leaves for look in found)} of {len(found)}",
        )  # fmt: skip
    return table


def reading(small: Table, looks: dict[tuple[str, int], list[Look]]) -> str:
    """Return how often the radius at rest predicted gradient descent, and where the digits GAN was unstable."""
    parts = []
    for label in OPTIMISERS:
        rows = [row for row in small.rows if row[6] == label]
        below = [row[8] for row in rows if row[7] < 1]
        above = [row[8] for row in rows if row[7] >= 1]
        if label.startswith("SGD"):
            right = sum(left < 1 for left in below) + sum(left >= 1 for left in above)
            parts.append(
                f"{label} ended nearer than it began if the radius at rest is below 1, and no nearer if not, in "
                f"{right} of {len(rows)} settings."
            )
        else:
            ends = [_between(group) for group in (below, above)]
            parts.append(f"{label} ended at {ends[0]} of its first distance with a radius below 1, at {ends[1]} above.")
    for name in GAMES:
        settling: dict[str, list[str]] = {term: [] for term in TERMS}
        for row in small.rows:
            if row[0] == name and row[4] == "stable" and row[1] not in settling[row[2]]:
                settling[row[2]].append(row[1])
        under = "; ".join(f"with {term} for {listed(names)}" for term, names in settling.items())
        parts.append(f"The flow of {name} settles {under}.")
    for penalty in ("r1", "none"):
        found = [look for (p, _), all_ in looks.items() for look in all_ if p == penalty]
        parts.append(
            f"The digits GAN with penalty {penalty}: ‖v‖ from {_between([look.speed for look in found])}, so not at "
            f"rest; an eigenvalue right of 0, so that nearby points diverge, in {sum(look.leaves for look in found)} "
            f"of {len(found)} spectra."
        )
    return " ".join(parts)


def _between(values: Sequence[float]) -> str:
    return f"{brief(min(values), 2)} to {brief(max(values), 2)}" if values else "no case"


def run(budget: Budget) -> Result:
    """Linearise small games at rest and play them; take the spectrum of the digits GAN along its training."""
    small_table, dots = small_games(budget)
    looks = digits_gan(budget)

    def draw(path: Path) -> None:
        figure = new_figure(12, 4.8)
        left, right = figure.subplots(1, 2)
        for number, (term, values) in enumerate(dots.items()):
            left.plot(
                np.real(values), np.imag(values), MARKERS[number], color=COLOURS[number], markersize=7,
                markerfacecolor="none", label=term,
            )  # fmt: skip
        for number, ((penalty, mark), found) in enumerate(looks.items()):
            cloud = np.concatenate([look.spectrum.eigenvalues for look in found])
            right.plot(
                cloud.real, cloud.imag, MARKERS[number], color=COLOURS[number], markersize=6, markerfacecolor="none",
                label=f"{'R1' if penalty == 'r1' else 'no penalty'}, step {mark}",
            )  # fmt: skip
        right.set_xscale("symlog", linthresh=1)
        right.set_yscale("symlog", linthresh=1)
        for axes, title in ((left, "small games at rest: all eigenvalues"), (right, "digits GAN: the edges")):
            axes.axvline(0, color="#222222", linewidth=1)
            axes.axhline(0, color="#9a9a9a", linewidth=0.8)
            tidy(axes, xlabel="Re λ: left of 0 settles", ylabel="Im λ: turns", title=title)
            axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1))
        figure.savefig(path)

    size = next(iter(looks.values()))[0].spectrum.parameters
    return Result(
        [small_table, digits_table(looks)],
        draw,
        f"Dirac-GAN and a pair of Gaussians with an affine D, float64, {STEPS} simultaneous steps; nothing in them is "
        "random. Eigenvalues of the gradient field's Jacobian at the equilibrium by backward passes; the radius is "
        "that of the step with the rate that each parameter had at the end (for RMSProp and Adam the rate over the "
        f"running scale, momentum left out). Digits: the default DCGAN with {WIDTH} channels ({size:,} parameters), "
        f"one minibatch of 64, Arnoldi's method with {PRODUCTS} products; {budget.seeds} seeds, means with 95% "
        "intervals.",
        reading(small_table, looks),
        "A spectrum belongs to one point and one minibatch, and says nothing about distant points. Adaptive optimisers "
        "change their scale as they go, so their radius is a snapshot; near rest their steps do not shrink with the "
        "gradient, and they hover.",
    )


STUDY = Study("stability", "Does the spectrum at rest predict training?", run)
