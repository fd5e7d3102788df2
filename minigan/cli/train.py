"""``minigan train``: train a GAN and write a run folder."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import inspect
import itertools
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from minigan.cli.flags import Refusal, out_of_memory, parse, report_complaints
from minigan.cli.progress import progress
from minigan.cli.signals import Interrupted, Stop, stopping
from minigan.cli.streams import SIGPIPE, Patient
from minigan.engine.device import why_not
from minigan.gan.config import TABLES, Config
from minigan.gan.penalties import NONE, PENALTIES
from minigan.kernels.cpu.jit import say
from minigan.kernels.memory import TooLarge
from minigan.run.remains import FILM, WRITTEN


@dataclass(frozen=True)
class Train(Config):
    """Train a GAN and write a run folder. Without options: a DCGAN on handwritten digits."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Run folder, new or empty; runs/DATA unless given."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """TOML file with settings; flags override it."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Continue the run in the folder; --steps may set a new goal."""


@functools.cache
def _sentences() -> dict[str, str]:
    """Return the sentence under each setting in the source of Config."""
    (tree,) = ast.parse(inspect.getsource(Config)).body
    assert isinstance(tree, ast.ClassDef)
    return {
        before.target.id: str(after.value.value)
        for before, after in itertools.pairwise(tree.body)
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name)
        and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    }  # fmt: skip


def _with_rows() -> type[Train]:
    """Return Train with the rows of every table, a user's too, in the help of its flag."""
    about = _sentences()
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
    from minigan.run.pictures import load_matplotlib

    kind = _with_rows()
    options = parse(kind, arguments)
    if options.config is not None and options.resume:
        raise Refusal("--resume takes the settings from the run folder: remove --config")
    if not options.resume:
        base = Config.preset(options.data) if options.config is None else Config.from_toml(options.config)
        options = parse(kind, arguments, kind(**dataclasses.asdict(base)))
    folder = options.out or Path("runs") / options.data
    load_matplotlib()  # what it refuses, it refuses before the run
    with stopping() as stop:
        if options.resume:
            return _train(_resume(folder, arguments), folder, stop)
        with runs.begun(folder, _settings(options)) as run:
            return _train(run, folder, stop)


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
    run.kept = True
    report_complaints(run.complaints)
    if run.trainer.steps == wanted.steps and (folder / FILM).exists():
        raise Refusal(f"{folder} is at step {run.trainer.steps} already: give a larger --steps to continue")
    return run


def _train(run: Any, folder: Path, stop: Stop) -> int:
    """Train, print what happens, and return the exit code."""
    again = f"minigan train --resume --out {shlex.quote(str(folder))}"
    with contextlib.redirect_stdout(Patient(sys.stdout)) as output, run.alone():
        _announce(run, folder)
        whole = _follow(run, stop, output)
        stop.waits = False  # the state is saved
        done = whole and run.trainer.steps >= run.config.steps
        if done:
            _finish(run, folder, again)
        else:
            _interrupted(run, folder, whole, again)
    if isinstance(output.failed, BrokenPipeError):  # the reader is gone: leave as SIGPIPE would
        return 128 + SIGPIPE
    if output.failed is not None:
        run.kept = True
        where = f"everything is saved at step {run.last_saved} in {folder}" + (
            "" if done else f". Continue with: {again}"
        )
        raise Refusal(f"the output cannot be written: {output.failed.strerror}; {where}", 1)
    return 0 if done else 128 + stop.number


def _follow(run: Any, stop: Stop, output: Patient) -> bool:
    """Train to the end or until a request to stop, which waits for a whole step from the second one on.

    Return whether the last step is whole: if not, the state before it is saved.
    """
    from minigan.gan import Diverged
    from minigan.run.folder import RunError

    trainer = run.trainer
    again = f"minigan train --resume --out {shlex.quote(str(run.folder))}"
    try:
        _report(run, stop, output)
    except Interrupted:  # in the first step
        run.kept = True
        return False
    except (Diverged, MemoryError, TooLarge) as error:
        said = out_of_memory(error) if isinstance(error, MemoryError) else str(error)
        run.kept |= isinstance(error, Diverged)  # its metrics tell why
        kept = f"the last good checkpoint is step {run.last_saved}, and the files so far are kept in {run.folder}"
        raise Refusal(f"{said}; {kept if run.kept else 'nothing was trained'}", 1) from None
    except OSError as error:
        if not run.kept:  # nothing was trained, so nothing is kept
            raise
        raise Refusal(f"{error.strerror or error}. Set this right, and continue with: {again}", 1) from None
    except RunError:
        raise
    except ValueError as error:  # a bug of minigan's: keep the traceback
        raise RuntimeError(f"training failed at step {trainer.steps + 1}; please report this") from error
    return True


def _report(run: Any, stop: Stop, output: Patient) -> None:
    """Train, and print the progress, until the end, a signal, or an output that cannot be written."""
    from minigan.gan import Row, Stepped
    from minigan.lab.diagnosis import Finding

    first = run.trainer.steps
    with progress(run.config.steps, first) as report, contextlib.closing(run.events()) as events:
        for event in events:
            if isinstance(event, Row):
                report(event.values)
            elif isinstance(event, Finding):
                print(f"step {event.step}, {event.kind}: {event.sentence}", flush=True)
            elif isinstance(event, Stepped) and event.step > first and not stop.waits:
                stop.waits = True
            if stop.number or output.failed is not None:
                break


def _interrupted(run: Any, folder: Path, whole: bool, again: str) -> None:
    """Write the pictures of a run that stops early, and print how to go on."""
    from minigan.gan import Diverged

    if whole:
        try:
            run.picture()
        except OSError as error:  # the state is saved
            say(f"{error.filename or folder}: {error.strerror or error}")
        except Diverged as error:
            say(str(error))
    print(f"stopped at step {run.last_saved}; everything is saved. Continue with: {again}")


def _finish(run: Any, folder: Path, again: str) -> None:
    """Write the pictures of a finished run, and print what it made."""
    from minigan.gan import Diverged

    done = f"the run is saved at step {run.trainer.steps}"
    try:
        run.finish()
        for line in run.judge():
            print(line)
    except Diverged as error:
        raise Refusal(f"{error}; {done}, and minigan explain says how it came to this", 1) from None
    except OSError as error:
        raise Refusal(f"{error.strerror or error}; {done}. Set this right, and continue with: {again}", 1) from None
    made = [f"{name}/" if (folder / name).is_dir() else name for name in WRITTEN if (folder / name).exists()]
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
