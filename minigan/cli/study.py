"""``minigan study``: run a small experiment."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from minigan.cli.flags import Refusal, parse


@dataclass(frozen=True)
class StudyOptions:
    """Run a small experiment and write its table, figure and protocol; without a name, list them."""

    name: Annotated[str, tyro.conf.arg(metavar="NAME"), tyro.conf.Positional] = ""
    """Name of the study."""
    full: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The long protocol: 4 times the training steps and at least 5 seeds."""
    seeds: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Runs of every setting; the study's default unless given."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder for the files; studies/NAME unless given."""
    force: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Overwrite files in the folder."""


def study(arguments: Sequence[str]) -> int:
    """Run ``minigan study``."""
    from rich.console import Console
    from rich.table import Table

    from minigan.studies import STUDIES, Budget, cell, summary, timed, write

    options: StudyOptions = parse(StudyOptions, arguments, name="study")
    if not options.name:
        for name, known in STUDIES.items():
            print(f"{name:24} {known.question}")
        return 0
    if options.name not in STUDIES:
        raise Refusal(f"there is no study {options.name!r}: choose from {', '.join(STUDIES)}")
    if options.seeds is not None and not 1 <= options.seeds <= 16:
        raise Refusal(f"--seeds must be from 1 to 16, not {options.seeds}")
    chosen = STUDIES[options.name]
    folder = options.out or Path("studies") / options.name
    if folder.exists() and not folder.is_dir():
        raise Refusal(f"{folder} is a file: choose another --out")
    if folder.exists() and any(folder.iterdir()) and not options.force:
        raise Refusal(f"{folder} exists already and is left as it is: choose another --out, or add --force")
    folder.mkdir(parents=True, exist_ok=True)  # fails before the work if the folder cannot be written
    seeds = options.seeds or (max(5, chosen.seeds) if options.full and chosen.seeds > 1 else chosen.seeds)
    live = sys.stdout.isatty()

    def report(what: str) -> None:
        print(f"\r{what:78}", end="", flush=True) if live else print(what, flush=True)

    print(chosen.question, flush=True)
    budget = Budget(seeds, 4.0 if options.full else 1.0, report)
    result, seconds = timed(chosen, budget)
    if live:
        print("\r" + " " * 78, end="\r")
    width = shutil.get_terminal_size().columns if live else 160
    for table in result.tables:
        shown = Table(*table.headings, title=table.title)
        for row in table.rows:
            shown.add_row(*map(cell, row))
        Console(width=width).print(shown)
    print(summary(result, min(100, width)))
    made = write(chosen, result, folder, seconds, budget)
    print(f"made in {folder}/ in {seconds:.0f} s: {', '.join(path.name for path in made)}")
    return 0
