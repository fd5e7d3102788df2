"""Progress of training: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

Report = Callable[[dict[str, float]], None]


def _describe(row: dict[str, float]) -> str:
    return (
        f"L_D {row['loss_d']:6.3f}  L_G {row['loss_g']:6.3f}  "
        f"D right on real {row['accuracy_real']:4.0%}, fake {row['accuracy_fake']:4.0%}  "
        f"|∇D| {row['grad_norm_d']:.2g}  |∇G| {row['grad_norm_g']:.2g}"
    )


@contextlib.contextmanager
def _live(goal: int, start: int) -> Iterator[Report]:
    """Show a bar with rate and time left, and the numbers of the last row under it."""
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    columns = (TextColumn("step {task.completed:.0f}/{task.total:.0f}"), BarColumn(bar_width=24))
    bar = Progress(*columns, TextColumn("{task.fields[rate]} step/s, left"), TimeRemainingColumn())
    task = bar.add_task("", total=goal, completed=start, rate="-")
    numbers = Text("", no_wrap=True)
    began = time.perf_counter()
    with Live(Group(bar, numbers), refresh_per_second=8):

        def report(row: dict[str, float]) -> None:
            rate = (row["step"] - start) / (time.perf_counter() - began)
            bar.update(task, completed=row["step"], rate=f"{rate:.0f}")
            numbers.plain = _describe(row)

        yield report


@contextlib.contextmanager
def progress(goal: int, start: int) -> Iterator[Report]:
    """Show a live bar on a terminal, plain lines elsewhere; yields the function that takes a row of metrics."""
    if sys.stdout.isatty():
        with _live(goal, start) as report:
            yield report
        return

    began = time.perf_counter()
    every = max(1, (goal - start) // 20)
    shown = start

    def line(row: dict[str, float]) -> None:
        nonlocal shown
        step = int(row["step"])
        if step < goal and step - shown < every:
            return
        shown = step
        rate = (step - start) / (time.perf_counter() - began)
        left = (goal - step) / rate
        print(f"step {step:6d}/{goal}  {_describe(row)}  {rate:.0f} step/s, {left:.0f} s left", flush=True)

    yield line
