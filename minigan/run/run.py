"""A run that writes to its folder: the loop's events as files, saved states, and pictures at the end."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minigan import __version__
from minigan.data import Batch, batch_indices
from minigan.gan.build import make_objective
from minigan.gan.config import Config
from minigan.gan.events import CheckpointDue, Event, Picture, Row, SpectrumDue, Stepped
from minigan.gan.interrupts import Press, noted
from minigan.gan.trainer import Trainer
from minigan.lab.diagnosis import Varied, silent, watched
from minigan.lab.metrics import class_shares, frechet_distance, mode_coverage, real_floor
from minigan.lab.stability import Linearised, Spectrum
from minigan.random import Generator
from minigan.run import checkpoint, pictures, remains, tables
from minigan.run.files import RunError, write_atomically
from minigan.run.lock import locked

JUDGED = 2000  # samples for the final figures
_FRAME = re.compile(r"step_([0-9]+)\.png")


@dataclass
class Run:
    """A folder, and the trainer of its run: :func:`minigan.run.folder.create` and ``reopen`` make it."""

    folder: Path
    config: Config
    trainer: Trainer
    complaints: list[str] = field(default_factory=list)
    last_saved: int = -1
    stretched: bool = False  # whether schedules end at another step than at the start of the run
    damaged: frozenset[Path] = frozenset()  # later checkpoints, which this run replaces
    kept: bool = False  # whether the files of a new run must stay if the program ends with an error
    _is_alone: bool = False

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other runs out of the folder; :class:`RunError` if one is there, or was since this one was opened."""
        if self._is_alone:
            yield
            return
        with locked(self.folder):
            for step, path in checkpoint.find(self.folder / "checkpoints"):
                if step > self.last_saved and path not in self.damaged:
                    raise RunError(f"{self.folder} went on to step {step} since this run was opened: open it again")
            with self.locked_already():
                yield

    @contextlib.contextmanager
    def locked_already(self) -> Iterator[None]:
        """Know during the ``with`` block that this process holds the folder's lock for this run."""
        self._is_alone = True
        try:
            yield
        finally:
            self._is_alone = False

    def events(self) -> Iterator[Event]:
        """Train to ``config.steps``, write every event to the folder, and yield it, with findings of the diagnosis.

        The state is saved after the last step, when the consumer leaves the loop, and when a file cannot be written:
        the OSError says which, and what is saved. Ctrl-C waits until all of a step is written and saved.
        :class:`RunError` if another run writes to the folder.
        """
        if not len(self.trainer.data):
            raise RunError(f"{self.folder} was opened for samples, without its data {self.trainer.data.name}")
        with self.alone():
            go_on(self)
            yield from self._events()

    def _events(self) -> Iterator[Event]:
        until, trainer, first = int(self.config.steps), self.trainer, self.trainer.steps
        said_nothing_of = silent(trainer.game.objective, type(trainer.game))
        events = watched(trainer.events(until), trainer.data, until, said_nothing_of)
        event, ctrl_c = Event(-1), Press()
        try:
            while True:
                with noted(ctrl_c):
                    if (following := next(events, None)) is None:
                        break
                    event = following
                    self._write(event)
                self.kept |= isinstance(event, Stepped) and event.step > first
                yield event
                if isinstance(event, Stepped) and ctrl_c.pressed:  # all of the step is written
                    self.save()
                    raise KeyboardInterrupt
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
        try:
            self._put(event)
        except OSError as error:
            words = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
            with contextlib.suppress(OSError):
                self.save()
            words += f"; the state of step {self.trainer.steps} "
            if self.last_saved == self.trainer.steps:
                words += "is saved"
            else:
                words += f"could not be saved either, and the last saved one is that of step {self.last_saved}"
            raise OSError(error.errno, words) from None

    def _put(self, event: Event) -> None:
        match event:
            case Row(values=values):
                tables.append(self.folder / "metrics.csv", values)
            case Picture(step=step, samples=samples):
                (self.folder / "samples").mkdir(exist_ok=True)
                pictures.save(self.draw(samples), self.folder / "samples" / f"step_{step:07d}.png")
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
            about |= {"data": data.name, "data_shape": json.dumps(data.shape)}
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
        with self.alone():
            pictures.save(self.draw(self.trainer.sample(self.trainer.data.shown)), self.folder / "samples.png")
            if metrics := tables.read(self.folder / "metrics.csv"):
                pictures.curves(metrics, make_objective(self.config), self.folder / "curves.png")
            if spectra := tables.read(self.folder / "spectrum.csv"):
                pictures.spectra(spectra, self.folder / "spectrum.png")

    def finish(self) -> None:
        """Write the pictures from the files of the run, and last training.gif: a run that has it is finished."""
        with self.alone():
            self.picture()
            pictures.film([path for _, path in _frames(self.folder)], self.folder / remains.FILM)

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


def _frames(folder: Path) -> list[tuple[int, Path]]:
    """Return (step, path) of the pictures in samples/, by their steps."""
    if not (folder / "samples").is_dir():
        return []
    matches = ((_FRAME.fullmatch(path.name), path) for path in (folder / "samples").iterdir())
    return sorted((int(match[1]), path) for match, path in matches if match)


def go_on(run: Run) -> None:
    """Prepare a run for training: write its goal, and delete everything later than its state.

    A resumed run then writes the same files as an uninterrupted one. :class:`RunError` if a table is damaged.
    """
    with run.alone():
        last = run.trainer.steps or -1  # a run at step 0 writes what belongs to step 0 again
        for table in tables.TABLES:
            tables.cut(run.folder / table, last)
        for step, frame in _frames(run.folder):
            if step > last:
                frame.unlink()
        for path in run.damaged:
            with contextlib.suppress(FileNotFoundError):
                path.replace(path.with_name(f"{path.name}.damaged"))  # out of the way of the run's own
        if run.trainer.steps < run.config.steps:
            (run.folder / remains.FILM).unlink(missing_ok=True)
        remains.clear(run.folder)
        if Config.from_toml(run.folder / remains.SETTINGS) != run.config:
            write_atomically(run.folder / remains.SETTINGS, run.config.to_toml().encode())
