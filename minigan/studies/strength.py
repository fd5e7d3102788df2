"""The gradient that each objective leaves a poor G: by formula, and measured on an untrained generator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from minigan.data import batch_indices
from minigan.gan.build import build
from minigan.gan.config import Config
from minigan.gan.game import Game
from minigan.gan.objectives import MINIMAX, NON_SATURATING, OBJECTIVES
from minigan.lab.strength import DEAD, dead_share, dead_zone, layer_norms, slopes
from minigan.random import Generator
from minigan.studies.figures import COLOURS, DASHES, MARKERS, new_figure, tidy
from minigan.studies.report import Budget, Result, Study, Table, brief, interval, listed

LOGITS = (4, 0, -3, -5, -10)
STEPS = 150  # of D alone: G is not trained
LINES = {  # in the figure; on the left the relativistic slope, against a real logit of 0, is the non-saturating one
    "minimax": "minimax",
    "non-saturating": "non-saturating",
    "least-squares": "least-squares",
    "hinge, wasserstein": "hinge",
    "relativistic": "relativistic",
}


def run(budget: Budget) -> Result:
    """Tabulate |dL_G/ds|, and measure the gradient of each layer of an untrained G while D learns."""
    formula = Table("|dL_G/ds| of one generated sample", ["s", "D", "saturating", "non-saturating", "ratio"])
    for s in LOGITS:
        logit = np.array([float(s)])
        a, b = (float(slopes(objective, logit)[0]) for objective in (MINIMAX, NON_SATURATING))
        formula.add(s, 1 / (1 + np.exp(-float(s))), a, b, b / a)

    zones = Table(
        "the logits beyond which |dL_G/ds| is exactly 0",
        ["objective", "float32 below", "float32 above", "float64 below", "float64 above"],
    )
    for objective in OBJECTIVES.values():
        ends = [*dead_zone(objective), *dead_zone(objective, np.float64)]
        zones.add(objective.name, *("never" if end is None else end for end in ends))

    steps = budget.steps(STEPS)
    marks = sorted({0, *(round(steps * part) for part in (0.1, 0.25, 0.5, 1.0))})
    norms: dict[tuple[str, int], list[float]] = {}
    layers: dict[str, dict[str, list[float]]] = {name: {} for name in OBJECTIVES}
    shares: dict[tuple[str, int], list[float]] = {}
    logits_seen: dict[int, list[float]] = {}
    for seed in range(budget.seeds):
        trainer = build(replace(Config(), seed=seed, penalty="none", device="cpu"))
        game = Game(trainer.game.generator, trainer.game.discriminator)
        real = trainer.data.reference()[:64]
        z = Generator(seed, stream="sample").normal((64, trainer.latent))
        for step in range(steps + 1):
            if step in marks:
                budget.report(f"seed {seed + 1} of {budget.seeds}, step {step} of {steps}")
                found = game.losses(real, z)[0]
                logits_seen.setdefault(step, []).append(float(found.fake_logits.data.mean()))
                for name, objective in OBJECTIVES.items():
                    judged = Game(trainer.game.generator, trainer.game.discriminator, objective)
                    parts = layer_norms(judged, real, z)
                    norms.setdefault((name, step), []).append(float(np.linalg.norm(list(parts.values()))))
                    share = dead_share(objective, found.fake_logits, found.real_logits)
                    shares.setdefault((name, step), []).append(share)
                    if step == marks[-1]:
                        for layer, norm in parts.items():
                            layers[name].setdefault(layer, []).append(norm)
            rows = batch_indices(len(trainer.data), 64, seed, step)
            noise = Generator(seed, stream="latent-D", step=step).normal((64, trainer.latent))
            trainer.discriminator.move(game.discriminator_gradient(trainer.data.batch(rows), noise).parts)

    measured = Table(
        "the gradient that reaches an untrained G while D learns",
        ["objective", "steps of D", "mean logit of samples", "norm of G's gradient", f"share below {DEAD}"],
    )
    for name in OBJECTIVES:
        for step in marks:
            measured.add(
                name, step, interval(logits_seen[step]), interval(norms[name, step]), interval(shares[name, step])
            )
    made = dict(trainer.game.generator.modules())
    by_layer = Table(
        f"norm by layer of G after {marks[-1]} steps of D",
        ["objective", *(repr(made[path]) for path in layers["minimax"])],
        [[name, *(interval(values) for values in found.values())] for name, found in layers.items()],
    )  # fmt: skip

    def draw(path: Path) -> None:
        figure = new_figure(12, 4.6)
        left, right = figure.subplots(1, 2)
        s = np.linspace(-10, 6, 321)
        for number, (label, name) in enumerate(LINES.items()):
            style = dict(color=COLOURS[number], linestyle=DASHES[number], label=label)
            if name != "relativistic":
                left.plot(s, slopes(OBJECTIVES[name], s), linewidth=1.6, **style)
            logs = [interval([float(np.log10(norm)) for norm in norms[name, step]]) for step in marks]
            means = np.array([10**v.mean for v in logs])
            halves = np.array([0.0 if np.isnan(v.half) else v.half for v in logs])
            bars = means * (1 - 10**-halves), means * (10**halves - 1)
            right.errorbar(marks, means, yerr=bars, marker=MARKERS[number], markersize=5, capsize=3, **style)
        left.set_yscale("log")
        left.set_ylim(2e-5, 20)
        left.axhline(DEAD, color="#9a9a9a", linewidth=1)
        left.annotate("dead zone below", (-9.8, DEAD * 1.15), fontsize=8, color="#555555")
        tidy(left, xlabel="logit s of a generated sample", ylabel="|dL_G/ds|", title="gradient of one sample")
        right.set_yscale("log")
        tidy(right, xlabel="steps of D, G untrained", ylabel="‖∇L_G‖ over all of G", title="measured on digits")
        right.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1))
        figure.supxlabel("on the left the relativistic slope, against a real logit of 0, is the non-saturating one",
                         fontsize=8)  # fmt: skip
        figure.savefig(path)

    ratios = listed([f"{brief(row[4])} at s = {row[0]}" for row in formula.rows])
    never = [row[0] for row in zones.rows if set(row[1:]) == {"never"}]
    weak, strong = (interval(norms[name, marks[-1]]).mean for name in ("minimax", "non-saturating"))
    return Result(
        [formula, zones, measured, by_layer],
        draw,
        "Slopes are derivatives of the objectives by the engine. The measured part: the default DCGAN on digits, G "
        f"as initialised, D trained alone for {steps} steps of Adam at 1e-3 with the non-saturating (= minimax) "
        f"loss and no penalty, batch 64; then ‖∇L_G‖ under every objective on one minibatch of 64. {budget.seeds} "
        "seeds, means with 95% intervals.",
        f"After {marks[-1]} steps of D the non-saturating loss leaves G {brief(strong / max(weak, 1e-30))} times the "
        f"gradient of the saturating one. By the formula their ratio is {ratios}. However far out the logit, "
        f"|dL_G/ds| is not 0 in either precision under {listed(never)}.",
        "A larger gradient is not a better one: direction and noise count too. D was trained by one loss, not by "
        "each objective's loss; no G was trained.",
    )


STUDY = Study("gradient-strength", "How much gradient does each objective leave a poor generator?", run)
