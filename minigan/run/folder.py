"""A run folder: the files that a training run writes, and how they are read back.

config.toml  metrics.csv  variety.csv  checkpoints/  samples.png  samples/step_*.png  curves.png  training.gif
(and spectrum.csv, spectrum.png where asked for)
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minigan import __version__
from minigan.data import Batch, Dataset, batch_indices
from minigan.gan.build import build, make_objective
from minigan.gan.config import Config
from minigan.gan.events import CheckpointDue, Event, Picture, Row, SpectrumDue, Stepped
from minigan.gan.trainer import Trainer
from minigan.lab.diagnosis import Varied, silent, watched
from minigan.lab.metrics import class_shares, frechet_distance, mode_coverage, real_floor
from minigan.lab.stability import Linearised, Spectrum
from minigan.random import Generator
from minigan.run import checkpoint, pictures, tables

JUDGED = 2000  # samples for the final figures


class RunError(ValueError):
    """A run folder cannot be used; the message says what to do."""


@dataclass
class Run:
    """A folder, and the trainer of its run. Make one with :func:`create` or :func:`reopen`."""

    folder: Path
    config: Config
    trainer: Trainer
    complaints: list[str]
    last_saved: int = -1
    stretched: bool = False  # whether schedules end at another step than at the start of the run

    def events(self) -> Iterator[Event]:
        """Train to ``config.steps``, write every event to the folder, and yield it, with findings of the diagnosis.

        The state is saved after the last step, and when the consumer leaves the loop.
        """
        until, trainer = int(self.config.steps), self.trainer
        begun = trainer.steps == 0 and (self.folder / "variety.csv").exists()  # step 0 is on the disk already
        said_nothing_of = silent(trainer.game.objective, type(trainer.game))
        events = watched(trainer.events(until), trainer.data, until, said_nothing_of)
        event = Event(-1)
        try:
            for event in events:
                if not (begun and event.step == 0):
                    self._write(event)
                yield event
        except GeneratorExit:
            while not isinstance(event, Stepped):  # write the whole of this step
                event = next(events)
                self._write(event)
            self.save()
            raise
        self.save()

    def train(self) -> None:
        """Train to ``config.steps``, and write every event to the folder."""
        for _ in self.events():
            pass

    def _write(self, event: Event) -> None:
        match event:
            case Row(values=values):
                tables.append(self.folder / "metrics.csv", values)
            case Picture(step=step, samples=samples):
                (self.folder / "samples").mkdir(exist_ok=True)
                self.draw(samples).save(self.folder / "samples" / f"step_{step:07d}.png")
            case Varied(step=step, variety=found):
                row = {"step": step, "spread": found.spread, "entropy": found.entropy}
                tables.append(self.folder / "variety.csv", row)
            case SpectrumDue():
                self.look_at_spectrum()
            case CheckpointDue():
                self.save()

    def save(self) -> None:
        """Write a checkpoint of this step, unless it is on the disk already."""
        if self.last_saved != self.trainer.steps:
            self.trainer.require_finite()
            data = self.trainer.data
            about = {"version": __version__, "numpy": np.__version__, "config": self.config.to_toml()}
            about |= {"data": data.name, "data_sha256": data.fingerprint}
            checkpoint.save(self.folder / "checkpoints", self.trainer.steps, self.trainer.state(), about)
            self.last_saved = self.trainer.steps

    def look_at_spectrum(self) -> Spectrum:
        """Write the eigenvalues at the edges of the game's spectrum at this step, on one minibatch for the whole run.

        100 products of Arnoldi's method in float64, about two gradients each.
        """
        trainer = self.trainer
        rows = batch_indices(len(trainer.data), trainer.batch, trainer.seed, 0)
        real = trainer.data.batch(rows, given=trainer.game.conditional)
        z = Generator(trainer.seed, stream="sample", step=2).normal((trainer.batch, trainer.latent))
        found = Linearised(trainer.game, real, Batch(z, real.given)).spectrum()
        for value in found.eigenvalues:
            row = {"step": trainer.steps, "real": value.real, "imaginary": value.imag}
            tables.append(self.folder / "spectrum.csv", row)
        return found

    def draw(self, samples: np.ndarray) -> Any:
        """Return samples as a picture: a grid of images, or a cloud of points over the data."""
        if self.trainer.data.is_images:
            return pictures.image_grid(samples)
        title = f"{self.trainer.data.name}, step {self.trainer.steps}"
        return pictures.scatter(samples, self.trainer.data.reference(), title)

    def picture(self) -> None:
        """Write samples.png, curves.png and spectrum.png from the files of the run so far."""
        self.draw(self.trainer.sample(self.trainer.data.shown)).save(self.folder / "samples.png")
        if (self.folder / "metrics.csv").exists():
            metrics = tables.read(self.folder / "metrics.csv")
            pictures.curves(metrics, make_objective(self.config), self.folder / "curves.png")
        if (self.folder / "spectrum.csv").exists():
            pictures.spectra(tables.read(self.folder / "spectrum.csv"), self.folder / "spectrum.png")

    def finish(self) -> None:
        """Write the pictures and training.gif from the files of the run."""
        self.picture()
        pictures.film(sorted((self.folder / "samples").glob("step_*.png")), self.folder / "training.gif")

    def judge(self) -> list[str]:
        """Return sentences that compare 2,000 samples with the data, and with the floor that real data sets."""
        data = self.trainer.data
        samples = self.trainer.sample(JUDGED)
        if data.centres is not None:
            modes = mode_coverage(samples, data.centres, data.sigma)
            return [
                f"{modes.found} of {modes.total} modes found; {modes.high_quality:.1%} of {JUDGED:,} samples within 3σ "
                f"of a mode; reverse KL {modes.reverse_kl:.3f}"
            ]
        distance, floor = frechet_distance(samples, data.reference()), real_floor(data.reference())
        lines = [
            f"Fréchet distance over raw pixels, {JUDGED:,} samples to all {len(data):,} images: "
            f"{distance:.3f} (between real halves: {floor:.2f}, mean of 10 splits)"
        ]
        if data.labels is not None:
            shares = class_shares(samples, data.reference(), data.labels)
            lines.append(
                f"share of each class by a 3-nearest-neighbour judge: {shares.min():.1%} to {shares.max():.1%}"
            )
        return lines


def create(folder: Path, config: Config, data: Dataset | None = None) -> Run:
    """Start a run in a new or empty folder, on ``data`` or on the data set that the settings name.

    :class:`RunError` if the folder is not empty, OSError if it cannot be written.
    """
    if (folder / "config.toml").exists() or (folder.exists() and not folder.is_dir()):
        raise RunError(
            f"{folder} exists already and is left as it is: continue its run with --resume, or choose another --out"
        )
    if folder.exists() and (inside := next(folder.iterdir(), None)):  # a hidden file, perhaps
        raise RunError(f"{folder} is not empty, it holds {inside.name}: choose another --out")
    trainer = build(config, data)  # raises for wrong settings before anything is written
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.write_atomically(folder / "config.toml", config.to_toml().encode())
    return Run(folder, config, trainer, [])


def reopen(folder: Path, steps: int | None = None, data: Dataset | None = None) -> Run:
    """Restore the newest whole checkpoint of a run; ``steps`` sets a new goal, ``data`` is as for :func:`create`.

    :class:`RunError` if the folder holds no run, or if its settings or data differ from those of the checkpoint.
    Nothing is written: see :func:`go_on`.
    """
    if not (folder / "config.toml").is_file():
        raise RunError(f"{folder} holds no run: it has no config.toml")
    config = Config.from_toml(folder / "config.toml")
    stretched = steps is not None and steps != config.steps
    if steps is not None:
        config = replace(config, steps=steps)
    run = Run(folder, config, build(config, data), [])
    run.stretched = stretched and (run.trainer.fade is not None or config.instance_noise > 0)
    if not checkpoint.find(folder / "checkpoints"):
        raise RunError(f"{folder} has no checkpoint yet: remove it and train again")
    arrays, path, run.complaints = checkpoint.latest(folder / "checkpoints")
    _require_the_same(run, checkpoint.notes(path), path)
    try:
        run.trainer.load_state(arrays)
    except ValueError as error:
        raise RunError(f"{path}: {error}") from None
    run.last_saved = run.trainer.steps
    return run


def _require_the_same(run: Run, notes: dict[str, str], path: Path) -> None:
    """Raise :class:`RunError` unless a checkpoint's notes are those of this run's settings and data."""
    then, now = tomllib.loads(notes.get("config", "")), asdict(run.config)
    edited = [name for name, value in then.items() if name != "steps" and now.get(name, value) != value]
    if edited:
        raise RunError(f"{run.folder / 'config.toml'} was edited since {path.name}: set {', '.join(edited)} back")
    data = run.trainer.data
    if (notes.get("data"), notes.get("data_sha256")) != (data.name, data.fingerprint):
        was = f"{notes.get('data', 'data without a name')} (sha256 {notes.get('data_sha256', 'unknown')[:12]})"
        raise RunError(
            f"{path.name} was trained on {was}, but the data here is {data.name} (sha256 {data.fingerprint[:12]}): "
            "use the data that it was trained on"
        )


def go_on(run: Run) -> None:
    """Prepare a reopened run for training: write its goal, and delete everything later than its checkpoint.

    A resumed run then writes the same files as an uninterrupted one.
    """
    checkpoint.write_atomically(run.folder / "config.toml", run.config.to_toml().encode())
    for table in tables.TABLES:
        tables.cut(run.folder / table, run.trainer.steps)
    for step, later in checkpoint.find(run.folder / "checkpoints"):
        if step > run.trainer.steps:
            later.unlink()  # it is damaged, and must not count as one of the last two
    for picture in (run.folder / "samples").glob("step_*.png"):
        if int(picture.stem.removeprefix("step_")) > run.trainer.steps:
            picture.unlink()
