"""The memory of long runs: 20,000 steps of the ring and 5,000 of the digits, with all that a run writes.

``python -m benchmarks.soak`` prints the resident memory as the runs go on, and ends with 1 if one of them has grown by
more than BOUND since step SETTLED. Each run is a separate process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

RUNS = {"ring": 20_000, "digits": 5_000}
SETTLED = 1_000  # steps until caches, programs and the allocator have what they need
BOUND = 1.0  # MB
ROWS = 8  # rows of the table


def resident() -> float:
    """Return the resident memory of this process in MB (10⁶ bytes), as Linux counts it."""
    import resource

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def train(data: str, steps: int) -> None:
    """Train in this process, and print (step, MB) of every hundredth step as JSON."""
    from minigan import kernels
    from minigan.gan import Config, Stepped
    from minigan.run import folder as runs

    kernels.keep_memory()  # as the command line does
    seen = []
    with tempfile.TemporaryDirectory() as home:
        run = runs.create(Path(home) / "run", replace(Config.preset(data), steps=steps, device="cpu"))
        for event in run.events():
            if isinstance(event, Stepped) and event.step % 100 == 0 and event.step >= SETTLED:
                seen.append((event.step, resident()))
    print(json.dumps(seen))


def measure(data: str, steps: int) -> list[tuple[int, float]]:
    command = [sys.executable, "-m", "benchmarks.soak", "--run", data, "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{data}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", choices=RUNS, help="train this one here, and print the memory as JSON")
    parser.add_argument("--steps", type=int, help="steps in place of each run's own")
    options = parser.parse_args()
    if options.steps is not None and options.steps < 2 * SETTLED:
        parser.error(f"--steps must be at least {2 * SETTLED}")
    if options.run:
        train(options.run, options.steps or RUNS[options.run])
        return 0
    worst = 0.0
    for data, own in RUNS.items():
        steps, memory = np.array(measure(data, options.steps or own)).T
        print(f"{data}: resident memory in MB")
        for at in np.unique(np.linspace(0, len(steps) - 1, ROWS).round().astype(int)):
            print(f"  step {steps[at]:6.0f}  {memory[at]:8.2f}  {memory[at] - memory[0]:+6.2f}")
        growth = memory[-1] - memory[0]
        print(f"  growth after step {SETTLED}: {growth:+.2f} MB, largest {np.ptp(memory):.2f} (bound {BOUND:g})")
        worst = max(worst, growth)
    return int(worst > BOUND)


if __name__ == "__main__":
    sys.exit(main())
