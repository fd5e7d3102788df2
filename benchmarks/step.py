"""One training step, side by side: minigan, PyTorch and JAX on the same networks, losses and optimisers.

    python -m benchmarks.step --peers torch,jax [--workloads mlp,dc8,dc28,dc28r1,dc64] [--rounds 5] [--write]
    python -m benchmarks.step --profile dc28

Every framework and variant runs in a process of its own, all of them alive at once and taken in turns: A B C A B C …,
so that what the machine does meanwhile falls on all alike. A turn is about a second of steps after an untimed one that
wakes the process up. Peers that are not installed, and variants that cannot do a workload, are named with the reason.
``--write`` puts the tables into benchmarks/RESULTS.md.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.workloads import WORKLOADS, find, operations

PACKAGES = {"torch": "torch", "jax": "optax"}
VARIANTS = {
    "minigan": ("traced", "eager"),
    "torch": ("eager", "channels-last, fused Adam", "compile"),
    "jax": ("jit",),
}
TURN_S = 1.0  # of steps in a turn


class Worker:
    """A process that runs steps when asked."""

    def __init__(self, framework, variant, workload, threads):
        self.name = name_of(framework, variant)
        self.framework = framework
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", framework, workload, variant, str(threads)],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.about = self.answer()
        self.times = []

    def answer(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": "the process ended without an answer"}

    def ask(self, command):
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return self.answer()

    def turn(self):
        """Run about TURN_S of steps and keep their mean time in ms."""
        once = self.ask(1)["ms"]
        self.times.append(self.ask(max(1, round(1e3 * TURN_S / once)))["ms"])

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def product_speed(threads):
    """Return the GFLOP/s of a large matrix product by NumPy's BLAS, in a process of its own."""
    program = (
        "import numpy as np, time; a = np.ones((2048, 2048), 'f'); b = a @ a; t = time.perf_counter();"
        "np.matmul(a, a, b); np.matmul(a, a, b); print(2 * 2 * 2048**3 / (time.perf_counter() - t) / 1e9)"
    )
    limits = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **limits}, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def missing_peers(names):
    """Return (the peers that are installed, the reasons why others are missing)."""
    peers, missing = [], []
    for peer in names:
        try:
            importlib.metadata.version(PACKAGES[peer])
            peers.append(peer)
        except importlib.metadata.PackageNotFoundError:
            missing.append(f"{peer}: not installed (pip install {PACKAGES[peer]})")
    return peers, missing


def name_of(framework, variant):
    return f"{framework}, {variant}" if len(VARIANTS[framework]) > 1 else framework


def measure(name, peers, rounds, threads, variants=None):
    """Return (rows, speed of the products, reasons): one row a variant, of those named in ``variants`` or of all."""
    workers, reasons, speeds = [], [], []
    for framework in ["minigan", *peers]:
        for variant in VARIANTS[framework]:
            if variants and name_of(framework, variant) not in variants:
                continue
            worker = Worker(framework, variant, name, threads)
            if "error" in worker.about:
                reasons.append(f"{worker.name}: {worker.about['error']}")
                worker.close()
            else:
                workers.append(worker)
    for number in range(rounds):
        print(f"\r{name}: turn {number + 1} of {rounds} ", end="", file=sys.stderr, flush=True)
        for worker in workers:
            worker.turn()
        speeds.append(product_speed(threads))
    print("\r" + " " * 40, end="\r", file=sys.stderr)
    rows = []
    for worker in workers:
        memory = worker.ask("memory")
        measured = {"name": worker.name, "framework": worker.framework, "times": worker.times}
        rows.append({**measured, **worker.about, **memory})
        worker.close()
    return rows, statistics.median(speeds), reasons


def table(name, rows, speed):
    """Return Markdown lines: the variants with their ratios to ours, taken turn by turn."""
    ours = rows[0]
    flops = operations(find(name))
    lines = [
        f"### {name}",
        "",
        f"{flops / 1e9:.3g} GFLOP by the direct formulas; a 2048×2048 product runs at {speed:.0f} GFLOP/s",
        "",
        "| | ms a step, median (range) | times minigan's | GFLOP/s | peak MiB (above the import) | first step, s |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = row["times"]
        ratio = statistics.median(t / o for t, o in zip(times, ours["times"], strict=True))
        lines.append(
            f"| {row['name']} | {statistics.median(times):.3g} ({min(times):.3g} to {max(times):.3g}) | {ratio:.2f} "
            f"| {flops / statistics.median(times) / 1e6:.0f} | {row['peak_mib']:.0f} ({row['above_import_mib']:.0f}) "
            f"| {row['first_step_s']:.1f} |"
        )
    return lines


def summary(results):
    """Return Markdown lines: our speed against the best of each framework."""
    present = {row["framework"] for rows, _ in results.values() for row in rows}
    frameworks = [framework for framework in VARIANTS if framework in present - {"minigan"}]
    titles = " | ".join(f"best {framework} ÷ minigan" for framework in frameworks)
    lines = [f"| | minigan, ms | {titles} |", "|---|---|" + "---|" * len(frameworks)]
    for name, (rows, *_) in results.items():
        cells = []
        for framework in frameworks:
            theirs = [row["times"] for row in rows if row["framework"] == framework]
            if theirs:
                best = min(theirs, key=statistics.median)
                ratio = statistics.median(t / o for t, o in zip(best, rows[0]["times"], strict=True))
                cells.append(f"{ratio:.2f}")
            else:
                cells.append("–")
        lines.append(f"| {name} | {statistics.median(rows[0]['times']):.3g} | {' | '.join(cells)} |")
    return lines


def processor():
    with open("/proc/cpuinfo") as info:
        return next((line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.machine())


def heading(threads, versions):
    from minigan.kernels.jit import vector_bytes

    return [
        f"{processor()}, {threads} threads of {os.cpu_count()}, vectors of {8 * vector_bytes()} bits, "
        f"{platform.system()}, Python {platform.python_version()}, {', '.join(versions)}; {datetime.date.today()}",
        "",
    ]


def print_profile(name, threads, steps):
    worker = Worker("minigan", "eager", name, threads)
    found = worker.ask(f"profile {steps}")
    worker.close()
    total = found["total"]
    print(f"{name}: {total:.3f} ms a step\n")
    for op, shapes, calls, ms in found["rows"]:
        if ms > 0.002 * total:
            print(f"{ms:9.3f} ms {ms / total:6.1%} {calls:6.1f} × {op:22} {shapes}")
    rest = total - sum(ms for *_, ms in found["rows"])
    print(f"{rest:9.3f} ms {rest / total:6.1%}          Python: building and walking graphs, checks, allocation")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="", help="torch, jax, or both with a comma between")
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--profile", metavar="WORKLOAD", help="print where our own step spends its time, and stop")
    parser.add_argument("--write", action="store_true", help="write benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    if arguments.profile:
        return print_profile(arguments.profile, arguments.threads, 20)
    peers, missing = missing_peers(filter(None, arguments.peers.split(",")))
    results, reasons, versions = {}, list(missing), {}
    began = time.perf_counter()
    for name in arguments.workloads.split(","):
        rows, speed, why = measure(name, peers, arguments.rounds, arguments.threads)
        results[name] = rows, speed
        reasons += [f"{name}, {reason}" for reason in why]
        versions |= {row["version"]: None for row in rows}
        print("\n".join(table(name, rows, speed)), end="\n\n", flush=True)
    lines = [*heading(arguments.threads, versions), *summary(results), ""]
    lines += [f"Missing: {reason}" for reason in reasons] or ["Nothing is missing."]
    print("\n".join(lines))
    print(f"\n{time.perf_counter() - began:.0f} s", file=sys.stderr)
    if arguments.write:
        tables = [line for name, (rows, speed) in results.items() for line in ["", *table(name, rows, speed)]]
        title = ["# One training step", "", f"`python -m benchmarks.step {' '.join(sys.argv[1:])}`", ""]
        Path(__file__).with_name("RESULTS.md").write_text("\n".join([*title, *lines, *tables, ""]), encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
