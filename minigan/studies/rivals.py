"""Gradient descent, evolution and Markov chains on the same mixture, for the same price."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minigan.data import load
from minigan.gan.build import build
from minigan.gan.config import Config
from minigan.gan.events import Every
from minigan.gan.trainer import Trainer
from minigan.lab.evolution import Evolution
from minigan.lab.mcmc import calibrate, langevin, logits_of, metropolis_hastings
from minigan.random import Generator
from minigan.studies.figures import bars, new_figure
from minigan.studies.report import Budget, Result, Study, Table, interval
from minigan.studies.sweeps import SAMPLES, judge

STEPS = 1600  # of gradient descent: two gradients each
SHARE = 0.7  # of the budget that trains the pair for the chains
DATA = "ring"
MOST = 1_000_000  # steps, if only the seconds count
PAIR = f"the pair that chains begin with ({SHARE:.0%})"


def train(config: Config, gradients: float, seconds: float, evolve: bool = False) -> tuple[Trainer, int, float]:
    """Train until the gradients or the seconds are spent, and return (trainer, gradients, seconds)."""
    trainer, each = build(config), 2
    if evolve:
        dynamics = Evolution(trainer.game, trainer.discriminator, trainer.generator)
        trainer.dynamics = dynamics
        each = 1 + 2 * len(dynamics.mutations)
    until, began = int(min(gradients, each * MOST) // each), time.perf_counter()
    for _ in trainer.events(until, Every(0, 0, 0, 0)):
        if time.perf_counter() - began >= seconds:
            break
    return trainer, each * trainer.steps, time.perf_counter() - began


def chains(
    trainer: Trainer, seed: int, count: int, way: str, price: dict[tuple[str, str], list[float]]
) -> dict[str, np.ndarray]:
    """Return samples of the pair by Metropolis–Hastings and by Langevin, and note their cost."""
    generator, discriminator = trainer.averaged_generator(), trainer.game.discriminator
    noise, held_out = Generator(seed, stream="sample", step=10), trainer.data.reference()[-count:]

    def draw(n: int) -> Any:
        return noise.normal((n, trainer.latent))

    scale = calibrate(logits_of(discriminator, held_out), logits_of(discriminator, generator(draw(count))))
    found, ways = {}, {}
    ways["Metropolis–Hastings"] = lambda: metropolis_hastings(
        generator, discriminator, scale, draw, held_out, Generator(seed, stream="augmentation"), 60
    )[0]
    ways["Langevin"] = lambda: langevin(
        generator, discriminator, scale, draw(count), Generator(seed, stream="augmentation"), 60, 0.01
    )
    for name, sampled in ways.items():
        began = time.perf_counter()
        found[name] = sampled()
        price.setdefault((way, name), []).append(time.perf_counter() - began)
    return found


def run(budget: Budget) -> Result:
    """Give every rival the gradients of gradient descent, and then its seconds."""
    steps, data = budget.steps(STEPS), load(DATA)
    base = replace(Config.preset(DATA), device="cpu", width=32, steps=steps, lr_schedule="constant", ema=0.98)
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    price: dict[tuple[str, str], list[float]] = {}

    def note(way: str, rival: str, samples: np.ndarray, gradients: float, seconds: float) -> None:
        row = {**judge(data, samples), "gradients": float(gradients), "training, s": seconds}
        for key, value in row.items():
            found.setdefault((way, rival), {}).setdefault(key, []).append(value)

    train(replace(base, steps=4), 16, 60.0)  # kernels are compiled before anything is timed
    for seed in range(budget.seeds):
        config = replace(base, seed=seed)
        budget.report(f"seed {seed + 1} of {budget.seeds}: gradient descent")
        trainer, spent, seconds = train(config, 2 * steps, np.inf)
        samples = trainer.sample(SAMPLES)
        for way in ("gradients", "seconds"):
            note(way, "gradient descent", samples, spent, seconds)
        limits: tuple[float, float]
        for way, limits in (("gradients", (spent, np.inf)), ("seconds", (np.inf, seconds))):
            budget.report(f"seed {seed + 1} of {budget.seeds}: evolution for the same {way}")
            evolved, count, took = train(config, limits[0], limits[1], evolve=True)
            note(way, "evolution", evolved.sample(SAMPLES), count, took)
            budget.report(f"seed {seed + 1} of {budget.seeds}: chains on a pair trained for {SHARE:.0%} of the {way}")
            short, count, took = train(config, SHARE * limits[0], SHARE * limits[1])
            note(way, PAIR, short.sample(SAMPLES), count, took)
            for rival, samples in chains(short, seed, SAMPLES, way, price).items():
                note(way, rival, samples, count, took)

    table = Table(
        f"{DATA}: every rival has the budget of gradient descent",
        ["same", "rival", "modes", "high quality", "reverse KL", "gradients of training", "training, s", "sampling, s"],
    )
    for (way, rival), row in found.items():
        cells = [interval(row[key]) for key in ("modes", "high quality", "reverse KL", "gradients", "training, s")]
        table.add(way, rival, *cells, interval(price[way, rival]) if (way, rival) in price else "")

    def draw(path: Path) -> None:
        figure = new_figure(10.5, 5.2)
        panels = figure.subplots(2, 2)
        for row, way in zip(panels, ("gradients", "seconds"), strict=True):
            rivals = [rival for kind, rival in found if kind == way]
            for axes, key in zip(row, ("high quality", "reverse KL"), strict=True):
                unit = {"high quality": "share within 3σ, more is better", "reverse KL": "reverse KL, less is better"}
                shown = [interval(found[way, rival][key]) for rival in rivals]
                bars(axes, rivals, shown, unit[key], 1.0 if key == "high quality" else None)
                axes.set_title(f"for the same {way}" if key == "high quality" else "", loc="left", fontsize=11)
                if key != "high quality":
                    axes.set_yticklabels([])
        figure.suptitle(f"Rivals of gradient descent on the {DATA}")
        figure.savefig(path)

    def values(way: str, rival: str) -> float:
        return interval(found[way, rival]["high quality"]).mean

    return Result(
        [table],
        draw,
        "The ring of 8 with its preset, but 64 hidden units, a constant learning rate and averages over some 50 steps. "
        f"Gradient descent: {steps:,} steps of D and G. Evolution (E-GAN): one parent, mutations minimax, "
        "non-saturating and least squares, fitness E σ(D(G(z))) + .05 · (−log ‖∇L_D‖); a gradient of fitness counts "
        f"as one. Chains: a pair trained for {SHARE:.0%} of the price; D calibrated by Platt's scaling on the last "
        f"{SAMPLES:,} data points (seen in training too); 60 proposals for each of {SAMPLES:,} chains, or 60 Langevin "
        f"steps of .01; the last column has their seconds. {budget.seeds} seeds, means with 95% intervals.",
        f"For the same gradients, evolution has {values('gradients', 'evolution'):.0%} of high quality where gradient "
        f"descent has {values('gradients', 'gradient descent'):.0%}; for the same seconds "
        f"{values('seconds', 'evolution'):.0%}. Chains bring the pair's {values('gradients', PAIR):.0%} to "
        f"{values('gradients', 'Metropolis–Hastings'):.0%} (Metropolis–Hastings) and "
        f"{values('gradients', 'Langevin'):.0%} (Langevin), without a step of training.",
        "One mixture in the plane and one size of network. Chains pay for every sample, training once, so "
        "the cheaper one depends on the number of samples. Evolution had one parent; a population may do more.",
    )


STUDY = Study("rivals", "What do evolution and Markov chains give for the price of gradient descent?", run, seeds=3)
