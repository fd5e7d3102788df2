"""Studies and their reports: tables, a figure and the protocol behind them."""

from __future__ import annotations

import csv
import json
import math
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minigan.run.pictures import our_style

# quantiles .975 of Student's t by degrees of freedom
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


@dataclass(frozen=True)
class Budget:
    """The size of a study: ``scale`` multiplies training steps, ``seeds`` are the runs of every setting.

    A study calls ``report`` with its progress.
    """

    seeds: int = 3
    scale: float = 1.0
    report: Callable[[str], None] = lambda what: None

    def steps(self, count: int) -> int:
        """Return a number of steps at this scale."""
        return max(1, round(count * self.scale))


@dataclass
class Table:
    """Rows of cells under headings, written as CSV and printed."""

    title: str
    headings: Sequence[str]
    rows: list[list[Any]] = field(default_factory=list)

    def add(self, *cells: Any) -> None:
        """Add a row."""
        if len(cells) != len(self.headings):
            raise ValueError(f"{self.title}: {len(cells)} cells for {len(self.headings)} headings")
        self.rows.append(list(cells))


@dataclass
class Result:
    """The results of a study. ``draw`` writes the figure to a path."""

    tables: list[Table]
    draw: Callable[[Path], None]
    protocol: str
    reading: str
    limits: str


@dataclass(frozen=True)
class Study:
    """A question, and the function that answers it within a budget."""

    name: str
    question: str
    run: Callable[[Budget], Result]
    seeds: int = 3  # by default; 1 if nothing is random


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% interval by Student's t over seeds; the half-width is NaN for one seed, both for none."""

    mean: float
    half: float

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return "none"
        return brief(self.mean) if math.isnan(self.half) else f"{brief(self.mean)} ± {brief(self.half, 2)}"


def brief(value: float, digits: int = 3) -> str:
    """Return a number rounded to some digits, with an exponent only if it is very large or small."""
    return f"{float(f'{value:.{digits}g}'):g}"


def interval(values: Sequence[float]) -> Interval:
    """Return the mean and 95% interval of one number a seed."""
    array = np.asarray(values, np.float64)
    if len(array) < 2 or not np.isfinite(array).all():
        return Interval(float(array.mean()) if len(array) else math.nan, math.nan)
    quantile = T[min(len(array) - 2, len(T) - 1)]
    return Interval(float(array.mean()), float(quantile * array.std(ddof=1) / math.sqrt(len(array))))


def listed(names: Sequence[str], none: str = "none") -> str:
    """Return names as a list within a sentence."""
    *most, last = names or [none]
    return f"{', '.join(most)} and {last}" if most else last


def cell(value: Any) -> str:
    """Return a cell as text."""
    if isinstance(value, complex | np.complexfloating):
        return f"{value.real:.4g}" if value.imag == 0 else f"{value.real:.4g} ± {abs(value.imag):.4g}i"
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def write(study: Study, result: Result, folder: Path, seconds: float, budget: Budget) -> list[Path]:
    """Write table.csv (table_2.csv, …), figure.png and protocol.md into a folder, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number, table in enumerate(result.tables, 1):
        path = folder / ("table.csv" if number == 1 else f"table_{number}.csv")
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(table.headings)
            writer.writerows([[cell(value) for value in row] for row in table.rows])
        made.append(path)
    with our_style():
        result.draw(folder / "figure.png")
    lines = [f"# {study.name}", "", study.question, "", "## Protocol", "", result.protocol, ""]
    lines += ["## Reading", "", result.reading, "", "## What this does not show", "", result.limits, ""]
    about = {"seeds": budget.seeds, "scale": budget.scale, "seconds": round(seconds, 1)}
    lines += [f"`{json.dumps(about)}`", ""]
    (folder / "protocol.md").write_text("\n".join(lines), encoding="utf-8")
    return [*made, folder / "figure.png", folder / "protocol.md"]


def summary(result: Result, width: int) -> str:
    """Return the reading and its limits as paragraphs."""
    return "\n".join(textwrap.fill(text, width) for text in (result.reading, "It does not show: " + result.limits))


def timed(study: Study, budget: Budget) -> tuple[Result, float]:
    """Run a study and return (result, seconds)."""
    began = time.perf_counter()
    return study.run(budget), time.perf_counter() - began
