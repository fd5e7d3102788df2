"""One setting changed at a time, all else equal: training runs for common questions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from minigan.data import Dataset, load
from minigan.gan.build import build
from minigan.gan.config import Config
from minigan.gan.events import Every, Row
from minigan.gan.game import Diverged
from minigan.lab.metrics import frechet_distance, mode_coverage, real_floor
from minigan.studies.figures import COLOURS, DASHES, columns, line, new_figure, plain_ticks, smooth, tidy
from minigan.studies.report import Budget, Interval, Result, Study, Table, interval, listed

SAMPLES = 2000


@dataclass
class Outcome:
    """The outcome of one run: its figures by name, its rows of metrics, and its training in seconds and steps."""

    figures: dict[str, float]
    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    steps: int = 0

    def accuracy(self) -> list[float]:
        """Return the mean of D's accuracies on both kinds, row by row."""
        return [(row["accuracy_real"] + row["accuracy_fake"]) / 2 for row in self.rows]


def judge(data: Dataset, samples: np.ndarray | None) -> dict[str, float]:
    """Return the figures of samples: a Fréchet distance for images, mode coverage for points; None is the worst."""
    if samples is None or not np.isfinite(samples).all():
        worst = {"modes": 0.0, "high quality": 0.0, "reverse KL": float("inf")}
        return {"Fréchet distance": float("inf")} if data.centres is None else worst
    if data.centres is None:
        return {"Fréchet distance": frechet_distance(samples, data.reference())}
    found = mode_coverage(samples, data.centres, data.sigma)
    return {"modes": float(found.found), "high quality": found.high_quality, "reverse KL": found.reverse_kl}


def train(config: Config) -> Outcome:
    """Train a run in memory and judge it; a run that diverges counts as the worst."""
    trainer, rows = build(config), []
    samples: np.ndarray | None = None
    began = time.perf_counter()
    try:
        for event in trainer.events(int(config.steps), Every(row=config.log_every, picture=0, checkpoint=0)):
            if isinstance(event, Row):
                rows.append(event.values)
        seconds = time.perf_counter() - began
        samples = trainer.sample(SAMPLES)
    except Diverged:
        seconds = time.perf_counter() - began
    return Outcome(judge(trainer.data, samples), rows, seconds, int(config.steps))


def sweep(base: Config, settings: dict[str, dict[str, Any]], budget: Budget, steps: int) -> dict[str, list[Outcome]]:
    """Train every setting (changes of ``base`` by name) with every seed."""
    found: dict[str, list[Outcome]] = {name: [] for name in settings}
    total = len(settings) * budget.seeds
    for seed in range(budget.seeds):  # seed by seed, so that other load on the machine affects all settings alike
        for name, changes in settings.items():
            number = sum(map(len, found.values())) + 1
            budget.report(f"run {number} of {total}: {name}, seed {seed}")
            changes = dict(changes)
            share = changes.pop("share", 1.0)  # of the steps
            given = {"steps": round(share * budget.steps(steps)), "log_every": max(1, round(10 * share)), **changes}
            found[name].append(train(replace(base, seed=seed, device="cpu", **given)))
    return found


def figures_of(outcomes: dict[str, list[Outcome]]) -> dict[str, dict[str, Interval]]:
    """Return {figure: {setting: interval over seeds}}."""
    names = list(next(iter(outcomes.values()))[0].figures)
    return {
        name: {setting: interval([run.figures.get(name, np.inf) for run in runs]) for setting, runs in outcomes.items()}
        for name in names
    }


def table_of(title: str, head: str, outcomes: dict[str, list[Outcome]]) -> Table:
    """Return a table with a row a setting: figures, D's accuracy and seconds of training, over seeds."""
    found, right, seconds = figures_of(outcomes), accuracy_of(outcomes), seconds_of(outcomes)
    table = Table(title, [head, *found, "D's accuracy, last quarter", "training, s"])
    for setting in outcomes:
        table.add(setting, *(values[setting] for values in found.values()), right[setting], seconds[setting])
    return table


def accuracy_of(outcomes: dict[str, list[Outcome]]) -> dict[str, Interval]:
    """Return {setting: D's accuracy on both kinds, in the mean of the last quarter of the rows} over seeds."""
    return {
        setting: interval([float(np.mean(run.accuracy()[-(len(run.rows) // 4) - 1 :])) for run in runs if run.rows])
        for setting, runs in outcomes.items()
    }


def seconds_of(outcomes: dict[str, list[Outcome]]) -> dict[str, Interval]:
    """Return {setting: seconds of training} over seeds."""
    return {setting: interval([run.seconds for run in runs]) for setting, runs in outcomes.items()}


@dataclass(frozen=True)
class Sweep:
    """A study of one setting: the base, the changes, and the function that reads the outcomes."""

    name: str
    question: str
    axis: str
    base: Config
    settings: dict[str, dict[str, Any]]
    steps: int
    read: Reader
    limits: str
    positions: Sequence[float] = ()  # of numeric settings on the axis, rising

    def run(self, budget: Budget) -> Result:
        """Train everything; draw figures over the setting, and D's accuracy along the runs."""
        outcomes = sweep(self.base, self.settings, budget, self.steps)

        def draw(path: Path) -> None:
            figure = new_figure(11.5, 4.4)
            left, right = figure.subplots(1, 2)
            self._draw_figures(left, outcomes)
            self._draw_accuracy(right, outcomes)
            figure.savefig(path)

        kept = {name: getattr(self.base, name) for name in ("model", "objective", "penalty", "gamma", "batch_size")}
        protocol = (
            f"{self.base.data}, {', '.join(f'{key} {value}' for key, value in kept.items())}, Adam at "
            f"{self.base.lr_d:g} and {self.base.lr_g:g}, {budget.steps(self.steps):,} steps unless the setting says "
            f"otherwise, {budget.seeds} seeds a setting, taken in turns; {SAMPLES:,} samples of the averaged weights. "
            "Means with 95% intervals of Student's t over seeds."
        )
        title = f"{self.axis} on {self.base.data}"
        return Result([table_of(title, self.axis, outcomes)], draw, protocol, self.read(outcomes), self.limits)

    def _draw_figures(self, axes: Any, outcomes: dict[str, list[Outcome]]) -> None:
        """Draw the figures over the setting."""
        data = load(self.base.data)
        shown = "high quality" if data.centres is not None else "Fréchet distance"
        values, most = figures_of(outcomes)[shown], 1.0 if data.centres is not None else None
        if self.positions:
            kept = [(x, v) for x, v in zip(self.positions, values.values(), strict=True) if np.isfinite(v.mean)]
            line(axes, [x for x, _ in kept], [v for _, v in kept], 0, shown, most)
            axes.set_xscale("log" if self.positions[-1] > 8 * self.positions[0] else "linear")
            axes.set_xticks(list(self.positions), list(values))
            axes.minorticks_off()
        else:
            columns(axes, list(values), list(values.values()), most)
        if data.centres is None:
            floor = real_floor(data.reference())
            axes.axhline(floor, color="#555555", linestyle=":", label=f"real half against half: {floor:.2f}")
            if self.positions:
                axes.set_yscale("log")
                plain_ticks(axes.yaxis)
            axes.legend(frameon=False, fontsize=8)
        unit = "share within 3σ of a mode" if most else "Fréchet distance over pixels, less is better"
        tidy(axes, xlabel=self.axis, ylabel=unit)

    def _draw_accuracy(self, axes: Any, outcomes: dict[str, list[Outcome]]) -> None:
        """Draw the accuracy of D along the runs, the mean over seeds; over shares of the run if lengths differ."""
        shares = any("share" in changes for changes in self.settings.values())
        for number, (setting, runs) in enumerate(outcomes.items()):
            both = [run.accuracy() for run in runs]
            length = min(map(len, both))  # a run that diverged is shorter
            if length:
                steps = np.array([row["step"] for row in runs[0].rows[:length]])
                mean = np.mean([one[:length] for one in both], axis=0)
                style = dict(color=COLOURS[number % len(COLOURS)], linestyle=DASHES[number % len(DASHES)])
                axes.plot(steps / max(runs[0].steps, 1) if shares else steps, smooth(mean, 10), label=setting, **style)
        axes.axhline(0.5, color="#9a9a9a", linewidth=1)
        unit = "share of the run" if shares else "training step"
        tidy(axes, xlabel=unit, ylabel="accuracy of D, both kinds", ylim=(0.4, 1.03))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(title=self.axis, fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1))

    def study(self, seeds: int = 3) -> Study:
        """Return the study."""
        return Study(self.name, self.question, self.run, seeds)


Reader = Callable[[dict[str, list[Outcome]]], str]


def best(figure: str, least: bool = True) -> Reader:
    """Return a reader that names the best setting, and those whose intervals overlap with it."""

    def read(outcomes: dict[str, list[Outcome]]) -> str:
        values = figures_of(outcomes)[figure]
        whole = {name: value for name, value in values.items() if np.isfinite(value.mean)}
        lost = [name for name in values if name not in whole]
        text = f"{listed(lost)} had no finite {figure} in some run. " if lost else ""
        if not whole:
            return text.rstrip()
        first = (min if least else max)(whole, key=lambda name: whole[name].mean)
        top = whole[first]
        text += f"Best by {figure}: {first} ({top})"
        near = [name for name, value in whole.items() if name != first and not _apart(value, top)]
        if near:
            return f"{text}; {listed(near)} cannot be distinguished from it with these seeds."
        if len(whole) == 1:
            return f"{text}, the only one that can be judged."
        return f"{text}, apart from all others by more than the intervals."

    return read


def _apart(a: Interval, b: Interval) -> bool:
    """Return whether two means differ by more than the sum of half-widths; never if one has no interval."""
    return bool(abs(a.mean - b.mean) > np.nan_to_num(a.half, nan=np.inf) + np.nan_to_num(b.half, nan=np.inf))


def in_what_time(outcomes: dict[str, list[Outcome]]) -> str:
    """Return the best by Fréchet distance, and the range of training times."""
    seconds = seconds_of(outcomes)
    quick, slow = (choose(seconds, key=lambda name: seconds[name].mean) for choose in (min, max))
    return (
        f"{best('Fréchet distance')(outcomes)} The same number of steps took from {seconds[quick]} s ({quick}) to "
        f"{seconds[slow]} s ({slow})."
    )


def how_right(outcomes: dict[str, list[Outcome]]) -> str:
    """Return D's accuracy by its number of steps."""
    right = [f"{value} with k = {setting}" for setting, value in accuracy_of(outcomes).items()]
    return f"Over the last quarter D is right on a share of {listed(right)}. {best('Fréchet distance')(outcomes)}"


DIGITS = Config(device="cpu", width=32, ema=0.99)  # .99: short runs must not sample their start
SMALL = "One small data set, one architecture, few seeds and steps: an order of settings may turn with any of these."

SWEEPS = [
    Sweep(
        "learning-rate", "How fast may both players learn?", "learning rate of both", DIGITS,
        {f"{lr:g}": {"lr_d": lr, "lr_g": lr} for lr in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)}, 500,
        best("Fréchet distance"), SMALL + " Equal rates only; equal numbers of steps favour large ones.",
        (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    ),
    Sweep(
        "batch-size", "Do larger minibatches help, sample for sample?", "batch size", DIGITS,
        {str(b): {"batch_size": b, "share": 64 / b, "ema": 0.99 ** (b / 64)} for b in (8, 16, 32, 64, 128)}, 500,
        best("Fréchet distance"), SMALL + " The same number of samples, and one learning rate, for all.",
        (8, 16, 32, 64, 128),
    ),
    Sweep(
        "depth", "How deep should the networks of a small GAN be?", "hidden layers", replace(
            Config.preset("ring"), device="cpu", width=32),
        {str(d): {"depth": d} for d in (1, 2, 3, 4, 5)}, 1200,
        best("high quality", least=False), SMALL + " Points in the plane, not images; width stays the same.",
        (1, 2, 3, 4, 5),
    ),
    Sweep(
        "activation", "Which activation suits G?", "activation of G", DIGITS,
        {name: {"activation": name} for name in ("relu", "leaky_relu", "tanh", "sigmoid")}, 600,
        best("Fréchet distance"), SMALL + " With batch norm in G and He's start, which suit ReLUs.",
    ),
    Sweep(
        "objectives", "Which objective gives the best digits, and in what time?", "objective", DIGITS,
        {name: {"objective": name} for name in (
            "minimax", "non-saturating", "least-squares", "hinge", "wasserstein", "relativistic")}, 500,
        in_what_time, SMALL + " One γ of R1 and one learning rate for all, tuned for none. D's accuracy says nothing "
        "under wasserstein.",
    ),
    Sweep(
        "discriminator-accuracy", "How right is D along a run, by its number of steps?", "k (steps of D a step of G)",
        replace(DIGITS, penalty="none"), {str(k): {"d_steps": k} for k in (1, 2, 5)}, 500,
        how_right, SMALL + " Accuracy on training data, at one threshold.",
    ),
]  # fmt: skip
