"""The tables of a run: CSV files of numbers that grow by one row at a time and stay readable after a crash."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from minigan.data import files
from minigan.run.files import RunError, append_whole, write_atomically

# the tables and their columns, after the step, which is the first one in all
TABLES = {
    "metrics.csv": (
        "loss_d", "loss_g", "penalty", "accuracy_real", "accuracy_fake", "grad_norm_d", "grad_norm_g", "slope_g",
        "dead_g", "turn", "progress",
    ),
    "variety.csv": ("spread", "entropy"),
    "spectrum.csv": ("real", "imaginary"),
}  # fmt: skip
LARGEST = 1e100  # far above all that float32 can make, and its square is finite
MOST = 1 << 30  # bytes of a table
LAST_STEP = 2**53  # above it float64 skips integers
REMEDY = "set it right, or remove the file: the run goes on without these rows"


def append(path: Path, row: dict[str, float]) -> None:
    """Add a row of numbers; a new table begins with a heading of their names. OSError names the path."""
    numbers = ",".join(f"{value:.9g}" for value in row.values())
    append_whole(path, f"{numbers}\r\n".encode(), f"{','.join(row)}\r\n".encode())


def _rows(path: Path) -> tuple[list[str], Iterator[tuple[int, str]]]:
    """Return the names of the columns, and (number, text) of every line, without an unfinished last one."""
    try:
        text = files.read(path, MOST).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RunError(f"{path} is not a table: byte {error.start} is not UTF-8; {REMEDY}") from None
    heading, *lines = text.split("\n")[:-1] or [""]  # the text after the last newline is unfinished
    names = heading.rstrip("\r").split(",") if heading.strip() else []
    if len(set(names)) < len(names):
        raise RunError(f"{path}, line 1: two columns have one name; {REMEDY}")
    return names, ((number, line.rstrip("\r")) for number, line in enumerate(lines, 2) if line.strip())


def _number(path: Path, line: int, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= LARGEST:
        raise RunError(f"{path}, line {line}, {name}: {_brief(text)} is not a number of a run; {REMEDY}")
    return value


def _step(path: Path, line: int, text: str) -> float:
    value = _number(path, line, "step", text)
    if not (0 <= value <= LAST_STEP and value.is_integer()):
        raise RunError(f"{path}, line {line}: {_brief(text)} is not the number of a step; {REMEDY}")
    return value


def _brief(text: str) -> str:
    return reprlib.repr(text)  # 30 characters of it


def _parsed(
    path: Path, names: list[str], lines: Iterator[tuple[int, str]], last: float = math.inf
) -> Iterator[tuple[str, list[float]]]:
    """Yield (text, numbers) of the lines up to step ``last``; :class:`RunError` names a line and a column."""
    before = -1.0
    for number, line in lines:
        if before < 0:
            _require_columns(path, names)
        parts = line.split(",")
        step = _step(path, number, parts[0])
        if step < before:
            raise RunError(f"{path}, line {number}: step {int(step)} follows step {int(before)}; {REMEDY}")
        before = step
        if step > last:
            continue
        if len(parts) != len(names):
            raise RunError(f"{path}, line {number}: {len(parts)} values for {len(names)} columns; {REMEDY}")
        yield line, [step, *(_number(path, number, *pair) for pair in zip(names[1:], parts[1:], strict=True))]


def _require_columns(path: Path, names: list[str]) -> None:
    if names[:1] != ["step"]:
        raise RunError(f"{path}, line 1: the first column must be step, not {_brief(','.join(names))}; {REMEDY}")
    missing = [name for name in TABLES.get(path.name, ()) if name not in names]
    if missing:
        raise RunError(
            f"{path} lacks the columns {', '.join(missing)}: another version wrote it, or it was edited; {REMEDY}"
        )


def read(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a table by name, without an unfinished last row; no columns without a table or rows.

    :class:`RunError` names the file, the line and the column if a value is no finite number, if steps fall, or if a
    column of TABLES is missing.
    """
    try:
        names, lines = _rows(path)
    except FileNotFoundError:
        return {}
    rows = [numbers for _, numbers in _parsed(path, names, lines)]
    return dict(zip(names, np.array(rows, dtype=np.float64).T, strict=True)) if rows else {}


def cut(path: Path, last: int) -> None:
    """Drop the rows later than step ``last``, and a row that a crash left half written.

    :class:`RunError`, as for :func:`read`, if the rows that stay are not whole, or if new ones would not fit them.
    """
    try:
        names, lines = _rows(path)
    except FileNotFoundError:
        return
    kept = [line for line, _ in _parsed(path, names, lines, last)]
    wanted = ["step", *TABLES.get(path.name, names[1:])]
    if kept and names != wanted:
        raise RunError(f"{path}, line 1: the columns must be {','.join(wanted)}, in this order; {REMEDY}")
    content = "".join(f"{line}\r\n" for line in [",".join(names), *kept]).encode()
    if not kept:
        path.unlink()
    elif content != files.read(path, MOST):
        write_atomically(path, content)
