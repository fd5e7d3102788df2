"""A run folder: what a training run writes to the disk, and how it is read back.

config.toml  metrics.csv  variety.csv  checkpoints/  samples.png  samples/step_*.png  curves.png  training.gif
(and spectrum.csv, spectrum.png where asked for)
"""

from __future__ import annotations

import csv
import io
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from minigan import __version__
from minigan.data import batch_indices
from minigan.gan.build import make_objective
from minigan.gan.config import Config
from minigan.gan.trainer import Trainer
from minigan.lab.diagnosis import WINDOW, Finding, Variety, look_at, look_at_variety, silent, variety
from minigan.lab.metrics import class_shares, frechet_distance, mode_coverage, real_floor
from minigan.lab.stability import Linearised, Spectrum
from minigan.random import Generator
from minigan.run import checkpoint
from minigan.run import pictures as plot

SHOWN = 64  # images of a sample grid
POINTS = 2000  # points of a sample cloud, and samples behind the closing figures


class RunError(ValueError):
    """A run folder cannot be used; the message says what to do."""


@dataclass
class Run:
    """A folder and the trainer whose run it holds. Make one with :func:`create` or :func:`reopen`."""

    folder: Path
    trainer: Trainer
    complaints: list[str]
    last_saved: int = -1
    rows: list[dict[str, float]] = field(default_factory=list)
    told: set[str] = field(default_factory=set)
    stretched: bool = False  # whether schedules end elsewhere than when it began

    @property
    def config(self) -> Config:
        """The settings of the run."""
        return self.trainer.config

    def train(
        self,
        report: Callable[[dict[str, float]], None],
        stop: Callable[[], bool],
        warn: Callable[[Finding], None] = lambda finding: None,
    ) -> bool:
        """Train to ``config.steps``, writing as it goes; ``report`` gets every row of metrics.

        ``warn`` gets what the diagnosis finds, each kind once. Returns False where ``stop()`` ended it early. Either
        way the state is saved when it returns.
        """
        with np.errstate(all="ignore"):  # what is not finite is found and told by the trainer
            return self._train(report, stop, warn)

    def _train(
        self,
        report: Callable[[dict[str, float]], None],
        stop: Callable[[], bool],
        warn: Callable[[Finding], None],
    ) -> bool:
        trainer, config = self.trainer, self.config
        if trainer.steps == 0 and not (self.folder / "variety.csv").exists():
            self.picture()
        while trainer.steps < config.steps and not stop():
            found = trainer.step()
            if trainer.steps % config.log_every == 0 or trainer.steps == config.steps:
                row = trainer.metrics(found)
                self._append("metrics.csv", row)
                report(row)
                self.rows = [*self.rows[1 - WINDOW :], row]
                self._warn(look_at(self.rows, silent(self.config.objective, self.config.rule)), warn)
            if trainer.steps % config.sample_every == 0 or trainer.steps == config.steps:
                finding = look_at_variety(self.picture(), trainer.steps, int(config.steps))
                self._warn([finding] if finding else [], warn)
            if config.spectrum_every and trainer.steps % config.spectrum_every == 0:
                self.look_at_spectrum()
            if trainer.steps % config.checkpoint_every == 0:
                self.save()
        self.save()
        return trainer.steps >= config.steps

    def save(self) -> None:
        """Write a checkpoint of this step, unless it is on the disk already."""
        if self.last_saved != self.trainer.steps:
            self.trainer.require_finite()
            about = {"version": __version__, "numpy": np.__version__, "config": self.config.to_toml()}
            checkpoint.save(self.folder / "checkpoints", self.trainer.steps, self.trainer.state(), about)
            self.last_saved = self.trainer.steps

    def _warn(self, findings: Iterable[Finding], warn: Callable[[Finding], None]) -> None:
        for finding in findings:
            if finding.kind not in self.told:
                self.told.add(finding.kind)
                warn(finding)

    def _append(self, name: str, row: dict[str, float]) -> None:
        path = self.folder / name
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(row)
            writer.writerow([f"{value:.9g}" for value in row.values()])

    def picture(self) -> Variety:
        """Write the samples of this step, from the same latents every time, and how varied they are."""
        folder, data = self.folder / "samples", self.trainer.dataset
        folder.mkdir(exist_ok=True)
        samples = self._shown()
        self.draw(samples).save(folder / f"step_{self.trainer.steps:07d}.png")
        found = variety(samples, data.samples, data.labels, data.centres)
        self._append("variety.csv", {"step": self.trainer.steps, "spread": found.spread, "entropy": found.entropy})
        return found

    def look_at_spectrum(self) -> Spectrum:
        """Write the eigenvalues at the edges of the game's spectrum at this step, on one minibatch for the whole run.

        100 products of Arnoldi's method in float64, about two gradients each.
        """
        trainer, count = self.trainer, self.config.batch_size
        real = trainer.samples[batch_indices(len(trainer.samples), count, self.config.seed, 0)]
        z = Generator(self.config.seed, stream="sample", step=2).normal((count, self.config.latent))
        found = Linearised(trainer.game, real, z).spectrum()
        for value in found.eigenvalues:
            self._append("spectrum.csv", {"step": trainer.steps, "real": value.real, "imaginary": value.imag})
        return found

    def _shown(self) -> np.ndarray:
        return self.trainer.sample(SHOWN if self.trainer.dataset.is_images else POINTS)

    def draw(self, samples: np.ndarray) -> Any:
        """Return samples as a picture: a grid of images, or a cloud of points over the data."""
        if self.trainer.dataset.is_images:
            return plot.image_grid(samples)
        return plot.scatter(samples, self.trainer.dataset.samples, f"{self.config.data}, step {self.trainer.steps}")

    def finish(self) -> None:
        """Write samples.png, curves.png and training.gif from what the run left behind."""
        self.draw(self._shown()).save(self.folder / "samples.png")
        if (self.folder / "metrics.csv").exists():
            metrics = plot.read_metrics(self.folder / "metrics.csv")
            plot.curves(metrics, make_objective(self.config), self.folder / "curves.png")
        if (self.folder / "spectrum.csv").exists():
            plot.spectra(plot.read_metrics(self.folder / "spectrum.csv"), self.folder / "spectrum.png")
        plot.film(sorted((self.folder / "samples").glob("step_*.png")), self.folder / "training.gif")

    def judge(self) -> list[str]:
        """Return sentences that measure 2,000 samples against the data, with the floor that real data sets."""
        data = self.trainer.dataset
        samples = self.trainer.sample(POINTS)
        if data.centres is not None:
            modes = mode_coverage(samples, data.centres, data.sigma)
            return [
                f"{modes.found} of {modes.total} modes found; {modes.high_quality:.1%} of {POINTS:,} samples within 3σ "
                f"of a mode; reverse KL {modes.reverse_kl:.3f}"
            ]
        distance, floor = frechet_distance(samples, data.samples), real_floor(data.samples)
        lines = [
            f"Fréchet distance over raw pixels, {POINTS:,} samples to all {len(data.samples):,} images: "
            f"{distance:.3f} (between real halves: {floor:.2f}, mean of 10 splits)"
        ]
        if data.labels is not None:
            shares = class_shares(samples, data.samples, data.labels)
            lines.append(
                f"share of each class by a 3-nearest-neighbour judge: {shares.min():.1%} to {shares.max():.1%}"
            )
        return lines


def create(folder: Path, config: Config) -> Run:
    """Start a run in a new or empty folder; :class:`RunError` where there is one already, OSError if unwritable."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(
            f"{folder} exists already and is left as it is: go on with it by --resume, or choose another --out"
        )
    trainer = Trainer(config)  # says what is wrong with the settings before anything is written
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.write_atomically(folder / "config.toml", config.to_toml().encode())
    return Run(folder, trainer, [])


def reopen(folder: Path, steps: int | None = None) -> Run:
    """Go back to the newest whole checkpoint of a run; ``steps`` sets a new goal.

    :class:`RunError` where the folder holds no run, or settings were edited. Nothing is written: see :func:`go_on`.
    """
    if not (folder / "config.toml").is_file():
        raise RunError(f"{folder} holds no run: it has no config.toml")
    config = Config.from_toml(folder / "config.toml")
    stretched = steps is not None and steps != config.steps
    if steps is not None:
        config = replace(config, steps=steps)
    run = Run(folder, Trainer(config), [])
    run.stretched = stretched and (config.lr_schedule != "constant" or config.instance_noise > 0)
    if not checkpoint.find(folder / "checkpoints"):
        raise RunError(f"{folder} has no checkpoint yet: remove it and train anew")
    arrays, path, run.complaints = checkpoint.latest(folder / "checkpoints")
    then, now = tomllib.loads(checkpoint.notes(path).get("config", "")), asdict(config)
    edited = [name for name, value in then.items() if name != "steps" and now.get(name, value) != value]
    if edited:
        raise RunError(f"{folder / 'config.toml'} was edited since {path.name}: set {', '.join(edited)} back")
    try:
        run.trainer.load_state(arrays)
    except ValueError as error:
        raise RunError(f"{path}: {error}") from None
    run.last_saved = run.trainer.steps
    return run


def go_on(run: Run) -> None:
    """Prepare a reopened run for training: write its goal, and drop what is later than its checkpoint.

    So going on gives the same files as never having stopped.
    """
    checkpoint.write_atomically(run.folder / "config.toml", run.config.to_toml().encode())
    for table in ("metrics.csv", "variety.csv", "spectrum.csv"):
        _cut(run.folder / table, run.trainer.steps)
    for step, later in checkpoint.find(run.folder / "checkpoints"):
        if step > run.trainer.steps:
            later.unlink()  # damaged, or it would have been taken: it must not count as one of the last two
    for picture in (run.folder / "samples").glob("step_*.png"):
        if int(picture.stem.removeprefix("step_")) > run.trainer.steps:
            picture.unlink()


def _cut(path: Path, last: int) -> None:
    """Drop rows later than step ``last``, and what a crash left half written."""
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row]
    kept = [row for row in rows[1:] if len(row) == len(rows[0]) and float(row[0]) <= last]
    if not kept:
        path.unlink()
        return
    text = io.StringIO(newline="")
    csv.writer(text).writerows([rows[0], *kept])
    checkpoint.write_atomically(path, text.getvalue().encode())
