"""``minigan train``: train a GAN and write a run folder."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import itertools
import os
import shlex
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from minigan.cli.flags import Refusal, out_of_memory, parse, report_complaints
from minigan.cli.output import GuardedOutput, guarded_output
from minigan.cli.progress import progress
from minigan.engine.device import why_not
from minigan.gan.config import TABLES, Config
from minigan.gan.penalties import NONE, PENALTIES

MADE = (
    "samples.png", "curves.png", "training.gif", "samples", "metrics.csv", "variety.csv", "spectrum.csv",
    "spectrum.png", "checkpoints", "config.toml",
)  # fmt: skip
SIGPIPE = 13


@dataclass(frozen=True)
class Train(Config):
    """Train a GAN and write a run folder. Without options: a DCGAN on handwritten digits."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Run folder, new or empty; runs/DATA unless given."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """TOML file with settings; flags override it."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Continue the run in the folder; --steps may set a new goal."""


def _with_rows() -> type[Train]:
    """Return Train with the rows of every table, a user's too, in the help of its flag."""
    (tree,) = ast.parse(inspect.getsource(Config)).body
    assert isinstance(tree, ast.ClassDef)
    about = {
        before.target.id: str(after.value.value)
        for before, after in itertools.pairwise(tree.body)
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name)
        and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    }  # fmt: skip
    tables = {**TABLES, "penalty": [*PENALTIES, NONE]}
    fields = [
        (name, Annotated[str, tyro.conf.arg(help=f"{about[name]} One of: {', '.join(rows)}.")], getattr(Config, name))
        for name, rows in tables.items()
    ]
    return dataclasses.make_dataclass(
        "Train", fields, bases=(Train,), frozen=True, namespace={"__doc__": Train.__doc__}
    )


def _settings(options: Config) -> Config:
    return Config(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Config)})


def train(arguments: Sequence[str]) -> int:
    """Run ``minigan train``."""
    from minigan.run import folder as runs

    kind = _with_rows()
    options = parse(kind, arguments)
    if options.config is not None and options.resume:
        raise Refusal("--resume takes the settings from the run folder: remove --config")
    if not options.resume:
        base = Config.preset(options.data) if options.config is None else Config.from_toml(options.config)
        options = parse(kind, arguments, kind(**dataclasses.asdict(base)))
    folder = options.out or Path("runs") / options.data
    run = _resume(folder, arguments) if options.resume else runs.create(folder, _settings(options))
    return _train(run, folder)


def _resume(folder: Path, arguments: Sequence[str]) -> Any:
    from minigan.run import folder as runs

    saved = runs.settings(folder)
    kind = _with_rows()
    wanted = _settings(parse(kind, arguments, kind(**dataclasses.asdict(saved))))
    changed = [f.name for f in dataclasses.fields(Config) if getattr(saved, f.name) != getattr(wanted, f.name)]
    if set(changed) - {"steps"}:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in changed if name != "steps")
        raise Refusal(f"a resumed run keeps its settings, only --steps may change: remove {flags}")
    run = runs.reopen(folder, wanted.steps)
    report_complaints(run.complaints)
    # without its film it was interrupted between its last step and its pictures
    if run.trainer.steps >= wanted.steps and (folder / "training.gif").exists():
        raise Refusal(f"{folder} is at step {run.trainer.steps} already: give a larger --steps to continue")
    return run


def _train(run: Any, folder: Path) -> int:
    with guarded_output() as output, run.alone():
        _announce(run, folder)
        number = _loop(run, folder, output)
        trainer, again = run.trainer, f"minigan train --resume --out {shlex.quote(str(folder))}"
        if trainer.steps < run.config.steps:
            print(f"stopped at step {trainer.steps}; everything is saved. Continue with: {again}")
        else:
            _finish(run, folder, again)
    if isinstance(output.failure, BrokenPipeError):  # the reader is gone: leave as SIGPIPE would
        return 128 + SIGPIPE
    if output.failure:
        raise Refusal(
            f"cannot write to the terminal or log: {output.failure.strerror}; everything is saved at step "
            f"{trainer.steps} in {folder}. Continue with: {again}",
            1,
        )
    return 128 + number if number else 0


def _loop(run: Any, folder: Path, output: GuardedOutput) -> int:
    """Train until the goal, a signal, or a failure of the output; return the number of the signal, or 0."""
    from minigan.gan import Diverged, Row
    from minigan.lab.diagnosis import Finding
    from minigan.run.folder import RunError

    trainer, config = run.trainer, run.config
    again = f"minigan train --resume --out {shlex.quote(str(folder))}"
    with _signals() as stop, progress(config.steps, trainer.steps) as report:
        try:
            with contextlib.closing(run.events()) as events:
                for event in events:
                    if isinstance(event, Row):
                        report(event.values)
                    elif isinstance(event, Finding):
                        print(f"step {event.step}, {event.kind}: {event.sentence}", flush=True)
                    if stop.number or output.failure:
                        break
        except (Diverged, MemoryError) as error:
            said = str(error) if isinstance(error, Diverged) else out_of_memory(error)
            last = f"the last good checkpoint is step {run.last_saved}"
            raise Refusal(f"{said}; {last}, and the files so far are kept in {folder}", 1) from None
        except OSError as error:
            raise Refusal(f"{error.strerror or error}. Set this right, and continue with: {again}", 1) from None
        except RunError:
            raise
        except ValueError as error:  # a bug of minigan's: keep the traceback
            raise RuntimeError(f"training failed at step {trainer.steps + 1}; please report this") from error
    return stop.number if trainer.steps < config.steps else 0


def _finish(run: Any, folder: Path, again: str) -> None:
    """Write the pictures of a finished run, and print what it made."""
    try:
        run.finish()
    except OSError as error:
        done = f"the run is saved at step {run.trainer.steps}"
        raise Refusal(f"{error.strerror or error}; {done}. Set this right, and continue with: {again}", 1) from None
    for line in run.judge():
        print(line)
    made = [f"{name}/" if (folder / name).is_dir() else name for name in MADE if (folder / name).exists()]
    print(f"made in {folder}/: {', '.join(made)}")
    print(f"next: minigan explain {shlex.quote(str(folder))}, or")
    print(f"      minigan sample {shlex.quote(str(folder))} --count 2000 --out samples.npz")


def _announce(run: Any, folder: Path) -> None:
    """Print the model, the data, the steps, the device and the folder."""
    trainer, config, data = run.trainer, run.config, run.trainer.data
    sizes = [player.optimizer.buffer.size for player in (trainer.generator, trainer.discriminator)]
    print(
        f"{config.model} on {data.name}: {len(data):,} {'images' if data.is_images else 'points'} of "
        f"{_times(data.shape)}, G {sizes[0]:,} and D {sizes[1]:,} parameters, {config.objective} objective, "
        f"penalty {config.penalty}"
    )
    print(f"from step {trainer.steps} to {config.steps} on {trainer.device}, into {folder}/", flush=True)
    if run.stretched:
        print(f"its schedules end at step {config.steps} now: a run to there in one go would differ", flush=True)
    if config.device == "auto" and trainer.device == "cpu":
        print(f"device auto is the CPU here: {why_not('cuda')}", flush=True)


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) if len(shape) > 1 else f"{shape[0]} numbers"


class _Stop:
    number = 0


@contextlib.contextmanager
def _signals() -> Iterator[_Stop]:
    """Turn the first Ctrl-C or SIGTERM into a request to stop after this step; a second one ends at once."""
    stop, old = _Stop(), {}

    def request(number: int, frame: Any) -> None:
        if stop.number:
            os._exit(128 + number)
        stop.number = number

    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError):  # handlers can be set in the main thread only
            old[number] = signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
