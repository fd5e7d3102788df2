"""``minigan check``: check the gradient of every op on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from minigan.cli.flags import parse


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

    from minigan.engine.device import resolve
    from minigan.kernels import use
    from minigan.testing.gradcheck import check_row
    from minigan.testing.optable import ROWS

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
