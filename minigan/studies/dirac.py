"""The Dirac-GAN: one parameter a player, and every way to lose or find the equilibrium."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minigan.gan.dynamics import Alternating, Dynamics, Simultaneous
from minigan.gan.game import Game
from minigan.gan.objectives import MINIMAX, NON_SATURATING, WASSERSTEIN, Objective
from minigan.gan.penalties import r1
from minigan.gan.player import make_players
from minigan.gan.variants import Consensus, NagarajanKolter
from minigan.lab.small_games import SmallGame, dirac
from minigan.lab.stability import NEUTRAL, Linearised
from minigan.optim import SGD
from minigan.studies.figures import COLOURS, new_figure
from minigan.studies.report import Budget, Result, Study, Table, listed

STEP, STEPS = 0.2, 500

# rule: (kind of game with its settings, objective, penalties, deviation of instance noise)
RULES: dict[str, tuple[Callable[..., Game], Objective, tuple[Any, ...], float]] = {
    "minimax": (Game, MINIMAX, (), 0.0),
    "non-saturating": (Game, NON_SATURATING, (), 0.0),
    "Wasserstein, no clip": (Game, WASSERSTEIN, (), 0.0),
    "minimax + R1 γ=.3": (Game, MINIMAX, (r1(0.3),), 0.0),
    "minimax + R1 γ=1": (Game, MINIMAX, (r1(1.0),), 0.0),
    "instance noise σ=.7": (Game, MINIMAX, (), 0.7),
    "consensus γ=1": (partial(Consensus, strength=1.0), MINIMAX, (), 0.0),
    "Nagarajan–Kolter η=.5": (partial(NagarajanKolter, eta=0.5), MINIMAX, (), 0.0),
    "Wasserstein + NK η=.5": (partial(NagarajanKolter, eta=0.5), WASSERSTEIN, (), 0.0),
}


def make(rule: str, theta: float, psi: float) -> tuple[SmallGame, Game]:
    """Return the small game of a rule at a point, and the game that is played on it."""
    kind, objective, terms, noise = RULES[rule]
    small = dirac(theta, psi, noise, nodes=256)
    return small, kind(small.generator, small.discriminator, objective, terms)


def play(rule: str, scheme: type[Dynamics], steps: int, h: float = STEP) -> np.ndarray:
    """Return the points (steps + 1, 2) of gradient descent with step h from (1, 1)."""
    small, game = make(rule, 1.0, 1.0)
    return small.play(scheme(game, *make_players(game, lambda p: SGD(p, h))), steps)


def field(rule: str, grid: np.ndarray) -> np.ndarray:
    """Return v at points (n, 2)."""
    found = []
    for theta, psi in grid:
        small, game = make(rule, theta, psi)
        d, g = game.gradients(small.real, small.z)
        found.append([-g.parts[0].item(), -d.parts[0].item()])
    return np.array(found)


def reading(table: Table) -> str:
    """Return which rules turn without damping, and which ended near, at about the starting distance, or far."""
    began = np.hypot(1, 1)
    turning = [row[0] for row in table.rows if abs(row[1].real) <= NEUTRAL * abs(row[1])]
    parts = [f"Eigenvalues are imaginary, so that nothing damps the flow near rest, under {listed(turning)}."]
    for column, scheme in ((5, "simultaneous"), (6, "alternating")):
        share = {row[0]: row[column] / began for row in table.rows}
        far = [rule for rule, left in share.items() if left > 1.1]
        about = [rule for rule, left in share.items() if 0.01 < left <= 1.1]
        parts.append(
            f"After {scheme} steps {listed(far, 'no rule')} had gone outwards, and {listed(about, 'no rule')} had kept "
            "a hundredth of the distance or more; all others settled."
        )
    nearest = min(table.rows, key=lambda row: row[6])
    parts.append(f"The nearest of all by alternating steps is {nearest[0]}, at {nearest[6]:.2g}.")
    return " ".join(parts)


def run(budget: Budget) -> Result:
    """Play every rule both ways, and linearise it at rest."""
    table = Table(
        f"Dirac-GAN from (1, 1), h = {STEP}, {STEPS} steps",
        ["rule", "eigenvalues at 0", "largest stable step", "radius, simultaneous", "radius, alternating",
         "distance, simultaneous", "distance, alternating"],
    )  # fmt: skip
    paths = {}
    for number, rule in enumerate(RULES, 1):
        budget.report(f"{rule} ({number} of {len(RULES)})")
        small, game = make(rule, 0.0, 0.0)
        near = Linearised(game, small.real, small.z)
        spectrum = near.spectrum()
        ends = {scheme: play(rule, scheme, STEPS) for scheme in (Simultaneous, Alternating)}
        radii = [near.radius(name, STEP, STEP) for name in ("simultaneous", "alternating")]
        far = [float(np.hypot(*points[-1])) for points in ends.values()]
        table.add(rule, complex(spectrum.eigenvalues[0]), spectrum.largest_step(), *radii, *far)
        paths[rule] = ends

    def draw(path: Path) -> None:
        figure = new_figure(10.5, 10.5)
        side = np.linspace(-2, 2, 13)
        grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
        for axes, (rule, ends) in zip(figure.subplots(3, 3, sharex=True, sharey=True).flat, paths.items(), strict=True):
            v = field(rule, grid)
            size = np.linalg.norm(v, axis=1, keepdims=True)
            axes.quiver(*grid.T, *(v / (size + 1e-9) * np.sqrt(size)).T, color="#b5b5b5", angles="xy", width=0.004)
            for (scheme, points), colour, dashes in zip(ends.items(), COLOURS, ("-", "--"), strict=False):
                shown = points[: 120 if abs(points).max() < 50 else 40]
                axes.plot(*shown.T, dashes, color=colour, linewidth=1.2, label=scheme.__name__.lower())
            axes.plot(1, 1, "o", color="#222222", markersize=5)
            axes.plot(0, 0, "+", color="#222222", markersize=9)
            axes.set(xlim=(-2, 2), ylim=(-2, 2), aspect="equal")
            axes.set_title(rule, fontsize=10)
        for axes in figure.axes[-3:]:
            axes.set_xlabel("θ: where G puts its point")
        for axes in figure.axes[::3]:
            axes.set_ylabel("ψ: D's slope")
        figure.axes[0].legend(loc="lower left", fontsize=8)
        figure.suptitle("The flow, and the first 120 steps of h = .2 from (1, 1); data and rest at +")
        figure.savefig(path)

    return Result(
        [table],
        draw,
        f"Data at 0, G(z) = θ, logit −ψx, all in float64. Gradient descent of step {STEP} for {STEPS} steps from (1, "
        "1), both players at once or D first. Eigenvalues are those of the gradient field's Jacobian at 0, by "
        "backward passes through the gradient, not from formulas. Instance noise is 256 midpoints of a Gaussian, "
        "with exactly its variance.",
        reading(table),
        "One number a player: nothing about networks, minibatches or how good samples look.",
    )


STUDY = Study("dirac", "Which rules let the smallest GAN settle, and how fast?", run, seeds=1)
