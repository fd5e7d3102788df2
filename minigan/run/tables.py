"""The tables of a run: CSV files that grow by one row at a time and stay readable after a crash."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from minigan.run.checkpoint import write_atomically

TABLES = ("metrics.csv", "variety.csv", "spectrum.csv")  # all have the step in their first column


def append(path: Path, row: dict[str, float]) -> None:
    """Add a row of numbers; a new table begins with a heading of their names."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(row)
        writer.writerow([f"{value:.9g}" for value in row.values()])


def read(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a table by name, without an unfinished last row; no columns without a table."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # text after the last newline is unfinished
    names, *rows = list(csv.reader(lines)) or [[]]
    whole = [row for row in rows if len(row) == len(names)]
    columns = np.array(whole, dtype=np.float64).reshape(len(whole), len(names))
    return dict(zip(names, columns.T, strict=True))


def cut(path: Path, last: int) -> None:
    """Drop the rows later than step ``last``, and a row that a crash left half written."""
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
    write_atomically(path, text.getvalue().encode())
