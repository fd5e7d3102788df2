"""Mode collapse on mixtures in the plane, the Helvetica scenario of 1406.2661: its causes and remedies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minigan.data import load
from minigan.gan.config import Config
from minigan.random import Generator
from minigan.studies.figures import bars, new_figure
from minigan.studies.report import Budget, Result, Study, Table, interval, listed
from minigan.studies.sweeps import SAMPLES, Outcome, best, figures_of, judge, seconds_of, sweep, train

STEPS = {"ring": 1000, "grid": 1000}
RECIPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "k = 5": {"d_steps": 5},
    "batch 32": {"batch_size": 32},
    "pack 2": {"pack": 2},
    "R1": {"penalty": "r1"},
    "WGAN-GP": {"objective": "wasserstein", "penalty": "wgan-gp", "gamma": 0.1},
}
FINAL_SEEDS = 5
POOR = 0.1  # share of high quality below which samples belong to no mode


def floors(name: str) -> dict[str, dict[str, float]]:
    """Return the figures of 2,000 samples of the mixture itself, and of uniform noise over its plane."""
    data = load(name)
    picks = Generator(1, stream="sample").permutation(len(data))[:SAMPLES]
    reach = np.abs(centres(name)).max() + 1
    noise = (2 * Generator(2, stream="sample").uniform((SAMPLES, 2)).numpy() - 1) * reach
    return {"perfect sampler": judge(data, data.reference()[picks]), "uniform noise": judge(data, noise)}


def centres(name: str) -> np.ndarray:
    """Return the centres of a mixture's modes, (K, 2)."""
    found = load(name).centres
    assert found is not None
    return found


def collapsed(outcomes: dict[str, dict[str, list[Outcome]]]) -> str:
    """Return which recipes make good samples of some modes only, and which are too poor to judge."""
    sharp, poor = [], []
    for name, found in outcomes.items():
        figures, total = figures_of(found), len(centres(name))
        for recipe in found:
            modes, quality = figures["modes"][recipe].mean, figures["high quality"][recipe].mean
            if quality < POOR:
                poor.append(f"{recipe} on the {name}")
            elif modes < 0.9 * total:
                sharp.append(f"{recipe} on the {name} ({quality:.0%}, {modes:.3g} of {total} modes)")
    sentences = f"Good samples of some modes alone, which is the collapse: {listed(sharp)}."
    if poor:
        sentences += f" Below {POOR:.0%} of high quality, too poor to judge a collapse: {listed(poor)}."
    return sentences


def run(budget: Budget) -> Result:
    """Train every recipe on ring and grid, and the default settings of the ring for their number of steps."""
    outcomes: dict[str, dict[str, list[Outcome]]] = {}
    for name, steps in STEPS.items():
        base = replace(Config.preset(name), penalty="none", width=32, batch_size=128, device="cpu")
        settings = {
            recipe: {"gamma": Config.preset(name).gamma, **changes} if "penalty" in changes else changes
            for recipe, changes in RECIPES.items()
        }
        outcomes[name] = sweep(base, settings, budget, steps)
    final = []
    preset = replace(Config.preset("ring"), device="cpu")
    for seed in range(FINAL_SEEDS):
        budget.report(f"ring, default settings, seed {seed + 1} of {FINAL_SEEDS}")
        final.append(train(replace(preset, seed=seed, log_every=1000, steps=budget.steps(int(preset.steps)))))

    tables, below = [], {name: floors(name) for name in outcomes}
    for name, found in outcomes.items():
        table = Table(
            f"{name}: {budget.steps(STEPS[name]):,} steps",
            ["recipe", "modes", "high quality", "reverse KL", "training, s"],
        )
        for kind, floor in below[name].items():
            table.add(kind, *floor.values(), "")
        by_figure, seconds = figures_of(found), seconds_of(found)
        for recipe in found:
            table.add(recipe, *(v[recipe] for v in by_figure.values()), seconds[recipe])
        tables.append(table)
    last = Table(
        f"ring, default settings (minigan train --data ring), {budget.steps(int(preset.steps)):,} steps",
        ["seed", "modes", "high quality", "reverse KL", "training, s"],
        [[seed, *run.figures.values(), run.seconds] for seed, run in enumerate(final)],
    )
    last.add("all", *(interval([r.figures[k] for r in final]) for k in final[0].figures),
             interval([r.seconds for r in final]))  # fmt: skip

    def draw(path: Path) -> None:
        figure = new_figure(12, 6.2)
        panels = figure.subplots(2, 3)
        for row, (name, found) in zip(panels, outcomes.items(), strict=True):
            values = figures_of(found)
            most, perfect = len(centres(name)), below[name]["perfect sampler"]
            shown = (("modes", f"modes found of {most}", float(most)), ("high quality", "share within 3σ", 1.0),
                     ("reverse KL", "reverse KL, nats", None))  # fmt: skip
            for axes, (key, unit, top_end) in zip(row, shown, strict=True):
                bars(axes, list(RECIPES), [values[key][recipe] for recipe in RECIPES], unit, top_end)
                axes.axvline(perfect[key], color="#555555", linestyle=":")
                axes.set_title(name if key == "modes" else "", loc="left", fontsize=11)
                if key != "modes":
                    axes.set_yticklabels([])
        figure.suptitle("Mode collapse by recipe; dotted: a perfect sampler")
        figure.savefig(path)

    readers = [best("modes", least=False), best("high quality", least=False), best("reverse KL")]
    by_data = " ".join(
        f"On the {name}: {' '.join(read(found) for read in readers)}" for name, found in outcomes.items()
    )
    worst = min(run.figures["high quality"] for run in final)
    noise = below["grid"]["uniform noise"]
    return Result(
        [*tables, last],
        draw,
        "Ring: 8 Gaussians of σ .01 on a circle of radius 1; grid: 25 of σ .05, spacing 2 (1712.04086). Multilayer "
        "perceptrons with 3 (ring) or 4 (grid) hidden layers of 64 units, latent 2, batch 128, Adam from 3e-3 down to "
        "0 in a line, non-saturating objective, k = 1, no penalty unless named (R1 with γ .01 on the ring and .1 on "
        f"the grid, WGAN-GP with λ .1); {budget.seeds} seeds in turns. 2,000 samples of the averaged weights; a mode "
        "is found if a sample lies within 3σ of it. The last table: the preset of the ring with 128 units, batch 256 "
        f"and R1, {FINAL_SEEDS} seeds.",
        f"{by_data} {collapsed(outcomes)} The ring's default settings find "
        f"{min(r.figures['modes'] for r in final):.0f} of 8 modes at least in every one of {FINAL_SEEDS} seeds, with "
        f"at least {worst:.1%} of high quality. Count alone is no measure: uniform noise finds {noise['modes']:.0f} of "
        f"25 modes with {noise['high quality']:.1%} of high quality.",
        "Two-dimensional mixtures of equal modes; short runs, in which slow recipes look poor, above all on the grid; "
        "recipes were not tuned one by one.",
    )


STUDY = Study("helvetica", "What makes G drop modes, and what brings them back?", run, seeds=3)
