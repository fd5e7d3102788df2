"""Explain a run from its folder: a paragraph and a picture."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minigan.gan.build import make_objective
from minigan.gan.config import Config
from minigan.gan.objectives import OBJECTIVES
from minigan.gan.variants import VARIANTS
from minigan.lab.diagnosis import SYMPTOMS, Spell, Variety, silent, spells
from minigan.run import pictures, tables
from minigan.run.folder import RunError, settings, trained_on

BRIEF = 3  # rows of metrics: shorter spells that ended before the run are left out


@dataclass(frozen=True)
class Explanation:
    """A run in words, and the data behind them."""

    config: Config
    metrics: dict[str, np.ndarray]
    varieties: list[tuple[int, Variety]]
    spells: list[Spell]
    passing: int = 0  # spells that are left out
    data: str | None = None  # the name of the data, as a checkpoint says it

    def text(self, width: int = 100) -> str:
        """Return the paragraph, and a line for every finding."""
        config, last = self.config, {name: column[-20:] for name, column in self.metrics.items()}
        parts = [self._fate(last), self._balance(last)]
        if self.varieties:
            step, found = self.varieties[-1]
            parts.append(
                f"At step {step} the samples are {found.spread:.0%} as far apart as the data, and their classes or "
                f"modes have {found.entropy:.0%} of the entropy of even ones."
            )
        if self.passing:
            parts.append(f"Left out: spells of trouble that were over within {BRIEF} rows of metrics ({self.passing}).")
        elif not self.spells:
            parts.append("No rule for trouble found any.")
        findings = [
            textwrap.fill(
                f"steps {spell.first} to {spell.last}, {spell.kind}: {spell.sentence}",
                width,
                initial_indent="- ",
                subsequent_indent="  ",
            )
            for spell in self.spells
        ]
        data = self.data or f"data that no checkpoint names (its settings say {config.data})"
        head = f"{config.model} on {data}, {config.objective}, penalty {config.penalty}, rule {config.rule}."
        return "\n".join([textwrap.fill(" ".join([head, *parts]), width), *findings])

    def _fate(self, last: dict[str, np.ndarray]) -> str:
        step = int(self.metrics["step"][-1])
        words = f"The run got to step {step} of {int(self.config.steps)}."
        wanted = make_objective(self.config).equilibrium
        found = []
        for player, value in zip("dg", wanted, strict=True):
            at = f", {value:.3f} where the two distributions agree" if value is not None else ""
            found.append(f"L_{player.upper()} is {last[f'loss_{player}'].mean():.3f} in the mean of the last rows{at}")
        return f"{words} {'; '.join(found)}."

    def _balance(self, last: dict[str, np.ndarray]) -> str:
        parts = [self._judgement(last["accuracy_real"].mean(), last["accuracy_fake"].mean())]
        if VARIANTS[self.config.rule].kind.by_objective:
            parts.append(f"The mean |dL_G/ds| of generated samples is {last['slope_g'].mean():.2g}.")
        parts.append(f"The cosine between successive moves is {last['turn'].mean():.2f} in the mean of the last rows.")
        return " ".join(parts)

    def _judgement(self, real: float, fake: float) -> str:
        """Return a sentence about D's accuracy on both kinds."""
        if not OBJECTIVES[self.config.objective].absolute:
            return "D's accuracy says nothing under this objective: a constant may be added to all logits."
        if OBJECTIVES[self.config.objective].paired:
            return f"D finds the real one of {real:.0%} of pairs."
        if min(real, fake) > 0.9:
            who = "it tells nearly all of them apart, far ahead of G"
        elif real > 0.9 and fake < 0.1:
            who = "it takes nearly everything for real"
        elif fake > 0.9 and real < 0.1:
            who = "it takes nearly everything for generated"
        elif real + fake < 1.2:
            who = "it can hardly tell them apart: G has caught up, or D is weak; the variety and the samples show which"
        else:
            who = "neither player is far ahead"
        return f"D is right on {real:.0%} of real and {fake:.0%} of generated samples: {who}."

    def draw(self, path: Path) -> None:
        """Draw the inputs of the rules, with the spells of their findings, into a PNG file."""
        pictures.diagnosis(self.metrics, [(step, v.spread, v.entropy) for step, v in self.varieties], self.spells, path)


def explain(folder: Path) -> Explanation:
    """Read a run folder; :class:`minigan.run.folder.RunError` if it holds no run, or no metrics of this version."""
    config = settings(folder)
    metrics = tables.read(folder / "metrics.csv")
    if not metrics:
        raise RunError(f"{folder} has no metrics yet: train first")
    seen = tables.read(folder / "variety.csv")
    varieties = [
        (int(step), Variety(float(spread), float(entropy)))
        for step, spread, entropy in zip(*(seen.get(name, ()) for name in ("step", "spread", "entropy")), strict=True)
    ]
    but = silent(OBJECTIVES[config.objective], VARIANTS[config.rule].kind)
    found = spells(metrics, varieties, int(config.steps), but)
    least, end = (BRIEF - 1) * int(config.log_every), metrics["step"][-1]
    kept = [s for s in found if s.last - s.first >= least or s.last == end or SYMPTOMS[s.kind].always]
    return Explanation(config, metrics, varieties, kept, len(found) - len(kept), trained_on(folder))
