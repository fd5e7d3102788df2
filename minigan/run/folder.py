"""A run folder: the files that a training run writes, and how a run is begun and reopened.

config.toml  metrics.csv  variety.csv  checkpoints/  samples.png  samples/step_*.png  curves.png  training.gif
(and spectrum.csv, spectrum.png where asked for)
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from minigan.data import Dataset, load
from minigan.data.dataset import absent
from minigan.engine.device import why_not
from minigan.gan import saved
from minigan.gan.build import build
from minigan.gan.config import Config
from minigan.run import checkpoint, remains
from minigan.run.files import RunError as RunError
from minigan.run.files import write_atomically
from minigan.run.lock import locked
from minigan.run.run import Run as Run
from minigan.run.run import go_on as go_on

MOST = 1 << 26  # numbers in a sample


def create(folder: Path, config: Config, data: Dataset | None = None) -> Run:
    """Start a run in a new or empty folder, on ``data`` or on the data set that the settings name.

    The settings are written last, after a checkpoint of step 0: a folder with settings can be reopened, and one that a
    crash left without them can be used again. :class:`RunError` if the folder holds anything else, OSError if it cannot
    be written.
    """
    with begun(folder, config, data) as run:
        return run


@contextlib.contextmanager
def begun(folder: Path, config: Config, data: Dataset | None = None) -> Iterator[Run]:
    """Start a run as :func:`create` does, and keep other runs out of its folder during the ``with`` block.

    If the block ends with an error before the run is worth keeping (``run.kept``), all that it wrote is removed.
    """
    remains.require_startable(folder)
    run = Run(folder, config, build(config, data))  # raises for wrong settings before anything is written
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            remains.require_startable(folder, held=True)
            try:
                remains.clear(folder)
                run.save()
                write_atomically(folder / remains.SETTINGS, config.to_toml().encode())
                with run.locked_already():
                    yield run
            except BaseException:
                if not run.kept:
                    remains.remove(folder)
                raise
    except BaseException:
        for place in missing:
            with contextlib.suppress(OSError):  # it is not empty: what is in it stays
                place.rmdir()
        raise


def settings(folder: Path) -> Config:
    """Return the settings of the run in a folder; :class:`RunError` if there is no run, ValueError if they are wrong.

    OSError if the file cannot be read.
    """
    if not os.path.lexists(folder / remains.SETTINGS):
        raise RunError(f"{folder} holds no run: it has no {remains.SETTINGS}")
    return Config.from_toml(folder / remains.SETTINGS)


def trained_on(folder: Path) -> str | None:
    """Return the name of the data of a run, None if no checkpoint is left that says it."""
    return checkpoint.newest_notes(folder / "checkpoints").get("data")


def reopen(folder: Path, steps: int | None = None, data: Dataset | None = None) -> Run:
    """Restore the newest whole checkpoint of a run; ``steps`` sets a new goal, ``data`` is as for :func:`create`.

    :class:`RunError` if the folder holds no run, or if its settings or data differ from those of the checkpoint.
    Nothing is written before the run goes on.
    """
    config, found = _read(folder)
    if steps is not None and steps < found.step:
        raise RunError(f"{folder} is at step {found.step} already: give --steps of at least that")
    data = load(config.data) if data is None else data
    try:
        saved.require_same_data(found.saved.arrays, data)
    except saved.OtherData as error:
        raise RunError(_on_other_data(folder, found, data, error)) from None
    except ValueError as error:
        raise RunError(f"{found.path}: {error}") from None
    return _restore(folder, config, found, data, config.steps if steps is None else steps)


def reopen_for_samples(folder: Path) -> Run:
    """Restore the newest whole checkpoint of a run to make samples; its data and its device need not be here.

    Errors are those of :func:`reopen`. The run cannot go on.
    """
    config, found = _read(folder)
    complaints = []
    if config.device != "auto" and (reason := why_not(config.device)):
        complaints.append(f"the run's device {config.device} is not here ({reason}): the CPU makes the samples")
        config = replace(config, device="cpu", tf32=False)
    data = load(config.data)
    try:
        saved.require_same_data(found.saved.arrays, data)
    except saved.OtherData:
        data = _stand_in(found)
        found.saved.arrays[saved.DATA] = saved.hash_of(data)  # samples do not depend on the data
    except ValueError as error:
        raise RunError(f"{found.path}: {error}") from None
    run = _restore(folder, config, found, data, config.steps, for_samples=True)
    run.complaints += complaints
    return run


def _read(folder: Path) -> tuple[Config, checkpoint.Found]:
    """Return the settings of a run and its newest checkpoint, which was written with them and knows its data."""
    config, found = settings(folder), checkpoint.latest(folder / "checkpoints")
    _require_unedited(folder, config, found)
    if saved.DATA not in found.saved.arrays:
        version = found.saved.notes.get("version", "unknown")
        raise RunError(
            f"{found.path} was written by an older minigan (version {version}), which did not save the hash of its "
            "data: train again, or use the version that wrote it"
        )
    return config, found


def _require_unedited(folder: Path, config: Config, found: checkpoint.Found) -> None:
    """Raise :class:`RunError` unless a checkpoint's settings are those of its run."""
    try:
        then = tomllib.loads(found.saved.notes["config"])
    except (KeyError, ValueError, RecursionError):
        raise RunError(f"{found.path} does not say its settings: minigan did not write it") from None
    now = asdict(config)
    edited = [name for name, value in then.items() if name != "steps" and now.get(name, value) != value]
    if edited:
        where = folder / remains.SETTINGS
        raise RunError(f"{where} was edited since {found.path.name}: set {', '.join(edited)} back")


def _restore(
    folder: Path, config: Config, found: checkpoint.Found, data: Dataset, steps: int, *, for_samples: bool = False
) -> Run:
    """Return the run at its newest checkpoint, with a new goal."""
    goal = replace(config, steps=steps)
    run = Run(folder, goal, build(goal, data, for_samples=for_samples))
    run.stretched = steps != config.steps and (run.trainer.fade is not None or config.instance_noise > 0)
    try:
        run.trainer.load_state(found.saved.arrays)
        if run.trainer.steps != found.step:
            raise ValueError(f"its name is not that of its state, which is of step {run.trainer.steps}")
    except ValueError as error:
        older = [path for step, path in checkpoint.find(found.path.parent) if step < found.step]
        remedy = f"; remove this file to go back to {older[-1].name}" if older else ""
        raise RunError(f"{found.path}: {error}{remedy}") from None
    run.complaints = [f"{why}; using an older one" for why in found.skipped.values()]
    run.damaged = frozenset(found.skipped)
    run.last_saved = run.trainer.steps
    return run


def _stand_in(found: checkpoint.Found) -> Dataset:
    """Return a data set without samples, of the name and the shape that a checkpoint notes."""
    notes = found.saved.notes
    try:
        shape = tuple(json.loads(notes["data_shape"]))
        if math.prod(shape) > MOST:
            raise ValueError
        return absent(notes["data"], shape)
    except (KeyError, ValueError, TypeError, RecursionError):
        raise RunError(f"{found.path} does not say its data: minigan did not write it") from None


def _on_other_data(folder: Path, found: checkpoint.Found, data: Dataset, error: saved.OtherData) -> str:
    return (
        f"{found.path.name} was trained on {found.saved.notes.get('data')} (sha256 {error.sha256[:12]}), but the data "
        f"here is {data.name} (sha256 {data.fingerprint[:12]}): a run goes on with its own data alone, which "
        f"minigan.run.folder.reopen(pathlib.Path({str(folder)!r}), data=...) takes in Python"
    )
