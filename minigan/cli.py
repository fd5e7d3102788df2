"""The command line: one function a command. Whatever goes wrong is said in one sentence, without a traceback."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

import minigan
from minigan.device import why_not
from minigan.flags import Refusal, parse
from minigan.gan.config import Config
from minigan.lab import explain, study
from minigan.progress import progress

USAGE = """usage: minigan COMMAND [options]

  train    train a GAN and write a run folder: pictures, curves, checkpoints
  explain  say what happened in a run, and draw it
  study    run a small experiment: a table, a figure, its protocol
  sample   make samples from a run
  check    check the gradient of every op on this machine
  doctor   say what works here, and how to mend what does not

`minigan COMMAND --help` lists the options; `minigan train` alone trains on handwritten digits."""

MADE = (
    "samples.png", "curves.png", "training.gif", "samples", "metrics.csv", "variety.csv", "spectrum.csv",
    "spectrum.png", "checkpoints", "config.toml",
)  # fmt: skip
SIGPIPE = 13


# --- train ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Train(Config):
    """Train a GAN and write a run folder. Without options: a DCGAN on handwritten digits."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Run folder, new or empty; runs/DATA unless given."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """TOML file with settings, which flags override."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with the run in the folder; --steps may set a new goal."""


def _settings(options: Config) -> Config:
    return Config(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Config)})


def train(arguments: Sequence[str]) -> int:
    """Run ``minigan train``."""
    from minigan import run as runs

    options = parse(Train, arguments)
    if options.config is not None and options.resume:
        raise Refusal("--resume takes the settings from the run folder: take --config away")
    if not options.resume:
        base = Config.preset(options.data) if options.config is None else Config.from_toml(options.config)
        options = parse(Train, arguments, Train(**dataclasses.asdict(base)))
    folder = options.out or Path("runs") / options.data
    run = _resume(folder, arguments) if options.resume else runs.create(folder, _settings(options))
    return _train(run, folder)


def _resume(folder: Path, arguments: Sequence[str]) -> Any:
    from minigan import run as runs

    if not (folder / "config.toml").is_file():
        raise Refusal(f"{folder} holds no run to resume: it has no config.toml")
    saved = Config.from_toml(folder / "config.toml")
    wanted = _settings(parse(Train, arguments, Train(**dataclasses.asdict(saved))))
    changed = [f.name for f in dataclasses.fields(Config) if getattr(saved, f.name) != getattr(wanted, f.name)]
    if set(changed) - {"steps"}:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in changed if name != "steps")
        raise Refusal(f"a resumed run keeps its settings, only --steps may change: take {flags} away")
    run = runs.reopen(folder, wanted.steps)
    _tell(run.complaints)
    if run.trainer.steps >= wanted.steps:
        if (folder / "training.gif").exists():
            raise Refusal(f"{folder} is at step {run.trainer.steps} already: give a larger --steps to go on")
        return run  # it was interrupted between its last step and its pictures
    runs.go_on(run)
    return run


def _tell(complaints: Sequence[str]) -> None:
    for complaint in complaints:
        print(f"minigan: {complaint}; taking an older one", file=sys.stderr)


def _train(run: Any, folder: Path) -> int:
    from minigan.gan import Diverged

    trainer, config = run.trainer, run.config
    sizes = [sum(p.size for p in network.parameters()) for network in (trainer.generator, trainer.discriminator)]
    what = "images" if trainer.dataset.is_images else "points"
    print(
        f"{config.model} on {config.data}: {len(trainer.dataset.samples):,} {what} of {_times(trainer.dataset.shape)}, "
        f"G {sizes[0]:,} and D {sizes[1]:,} parameters, {config.objective} objective, penalty {config.penalty}"
    )
    print(f"from step {trainer.steps} to {config.steps} on {trainer.device}, into {folder}/", flush=True)
    if run.stretched:
        print(f"its schedules end at step {config.steps} now: in one go it would have been another run", flush=True)
    if config.device == "auto" and trainer.device == "cpu":
        print(f"device auto is the CPU here: {why_not('cuda')}", flush=True)
    with _signals() as stop, progress(config.steps, trainer.steps) as report:

        def tell(row: dict[str, float]) -> None:
            try:
                report(row)
            except BrokenPipeError:  # nobody reads on: save and stop, as for a signal
                stop.number = stop.number or SIGPIPE
                sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115

        def warn(finding: Any) -> None:
            print(f"step {finding.step}, {finding.kind}: {finding.sentence}", flush=True)

        try:
            finished = run.train(tell, lambda: stop.number != 0, warn)
        except (Diverged, MemoryError) as error:
            said = str(error) if isinstance(error, Diverged) else _full(error)
            last = f"the last good checkpoint is step {run.last_saved}" if run.last_saved >= 0 else "nothing was saved"
            raise Refusal(f"{said}; {last}, and the files so far are kept in {folder}", 1) from None
        except ValueError as error:  # not the user's doing: keep the traceback
            raise RuntimeError(f"training failed at step {trainer.steps + 1}; please report this") from error
    again = f"minigan train --resume --out {shlex.quote(str(folder))}"
    if not finished:
        print(f"stopped at step {trainer.steps}; everything is saved. Go on with: {again}")
        return 128 + stop.number
    run.finish()
    for line in run.judge():
        print(line)
    made = [f"{name}/" if (folder / name).is_dir() else name for name in MADE if (folder / name).exists()]
    print(f"made in {folder}/: {', '.join(made)}")
    print(f"next: minigan explain {shlex.quote(str(folder))}, or")
    print(f"      minigan sample {shlex.quote(str(folder))} --count 2000 --out samples.npz")
    return 0


def _full(error: MemoryError) -> str:
    return f"out of memory ({error}): a smaller --batch-size or --width needs less"


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


# --- sample -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """Make samples from the averaged generator of a run: an .npz of arrays, or a .png grid to look at."""

    run: Annotated[Path, tyro.conf.arg(metavar="RUN"), tyro.conf.Positional]
    """Folder of a run."""
    count: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Number of samples; 2000 unless given, 64 for a .png of images, which holds up to 400."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("samples.npz")
    """samples.npz with the array "images" (N, H, W, C) float32 in [-1, 1] ("points" for points), or a .png."""
    seed: int = 1
    """Seed of the noise."""
    force: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Overwrite the file if it exists."""


def sample(arguments: Sequence[str]) -> int:
    """Run ``minigan sample``."""
    from minigan import checkpoint
    from minigan import run as runs

    options = parse(Sample, arguments)
    suffix = options.out.suffix.lower()
    if suffix not in (".npz", ".png"):
        raise Refusal(f"--out must end in .npz or .png, not {options.out.name!r}")
    if options.count is not None and not 1 <= options.count <= (400 if suffix == ".png" else sys.maxsize):
        raise Refusal(f"--count must be at least 1, and at most 400 for a .png, not {options.count}")
    if options.out.exists() and not options.force:
        raise Refusal(f"{options.out} exists already: choose another --out, or add --force")
    run = runs.reopen(options.run)
    _tell(run.complaints)
    images = run.trainer.dataset.is_images
    count = options.count or (64 if suffix == ".png" and images else 2000)
    samples = run.trainer.sample(count, options.seed)
    content = io.BytesIO()
    if suffix == ".npz":
        arrays: dict[str, Any] = {"images" if images else "points": samples}
        np.savez_compressed(content, **arrays)
    else:
        run.draw(samples).save(content, format="PNG")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write_atomically(options.out, content.getvalue())
    print(f"{count:,} samples of step {run.trainer.steps} are in {options.out}")
    return 0


# --- check and doctor -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """Check the gradient of every op against finite differences on this machine, to second order."""

    device: str = "cpu"
    """cpu, cuda or cuda-emulated."""
    backend: str = "numba"
    """CPU kernels to check: numba or reference."""
    seed: int = 0
    """Seed of the inputs."""


def check(arguments: Sequence[str]) -> int:
    """Run ``minigan check``."""
    from rich.console import Console
    from rich.table import Table

    from minigan.device import resolve
    from minigan.kernels import use
    from minigan.optable import ROWS
    from minigan.testing import check_row

    options = parse(Check, arguments)
    device = resolve(options.device)
    table = Table(
        "op", "orders", "", "ms", title=f"gradients on {device}" + (f", {options.backend}" if device == "cpu" else "")
    )
    failures = []
    with use(options.backend):
        for row in ROWS:
            began = time.perf_counter()
            try:
                check_row(row, options.seed, device=device)
                verdict = "ok"
            except AssertionError as error:
                verdict = "[red]wrong[/red]"
                failures.append(f"{row.name}: {error}")
            table.add_row(row.name, f"1 to {row.order}", verdict, f"{(time.perf_counter() - began) * 1e3:.0f}")
    Console().print(table)
    for failure in failures:
        print(failure)
    print(f"{len(ROWS) - len(failures)} of {len(ROWS)} ops have the right gradients")
    return 1 if failures else 0


@dataclass(frozen=True)
class Doctor:
    """Say what works on this machine, and the sentence that mends what does not."""


def doctor(arguments: Sequence[str]) -> int:
    """Run ``minigan doctor``."""
    from minigan.doctor import examine

    parse(Doctor, arguments)
    findings = examine()
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        print(f"{'ok' if finding.works else '--'}  {finding.what:<{width}}  {finding.detail}")
        if finding.remedy:
            print(f"    {'':<{width}}  {finding.remedy}")
    return 0 if all(finding.works for finding in findings if finding.needed) else 1


# --- the front door ---------------------------------------------------------------------------------------------------

COMMANDS = {
    "train": train,
    "explain": explain,
    "study": study,
    "sample": sample,
    "check": check,
    "doctor": doctor,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0 done, 1 failed, 2 refused, 130 and 143 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console without our letters is no reason to stop
    if arguments[:1] == ["--version"]:
        print(f"minigan {minigan.__version__}")
        return 0
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if arguments else 2
    try:
        if arguments[0] not in COMMANDS:
            raise Refusal(f"there is no command {arguments[0]!r}: choose from {', '.join(COMMANDS)}")
        return COMMANDS[arguments[0]](arguments[1:])
    except Refusal as refusal:
        print(f"minigan: {refusal}", file=sys.stderr)
        return refusal.code
    except ValueError as error:  # settings, files and folders that do not fit
        print(f"minigan: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"minigan: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("minigan: interrupted", file=sys.stderr)
        return 130
    except MemoryError as error:
        print(f"minigan: {_full(error)}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
