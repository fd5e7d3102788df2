"""One training step, side by side: minigan, PyTorch and JAX on the same networks, losses and optimisers.

    python -m benchmarks.step --peers torch,jax [--workloads mlp,dc8,dc28,dc28r1,dc64] [--rounds 5] [--write]
    python -m benchmarks.step --device cuda --peers torch [--workloads mlp,dc28,dc28r1,dc64] [--batches 64,128]
    python -m benchmarks.step --profile dc28

Every framework and variant runs in a separate process. All are alive at once and take turns, A B C A B C …, so that
other load on the machine affects all alike. A turn is about a second of steps after an untimed one that
wakes the process up. Peers that are not installed, and variants that cannot do a workload, are named with the reason.
``--write`` puts the tables into benchmarks/RESULTS.md.

On a GPU every workload runs at every batch size, with products in float32 and in TF32 for all frameworks alike.
"""

import argparse
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.worker import Place
from benchmarks.workloads import WORKLOADS, find, operations
from minigan.engine.device import why_not

PACKAGES = {"torch": "torch", "jax": "optax"}
ON_GPU = {"minigan": ("captured", "eager"), "torch": ("eager", "CUDA graphs", "compile")}
VARIANTS = {
    "cpu": {
        "minigan": ("traced", "eager"),
        "torch": ("eager", "channels-last, fused Adam", "compile"),
        "jax": ("jit",),
    },
    "cuda": ON_GPU,
    "cuda-emulated": ON_GPU,
}
TURN_S = {"cpu": 1.0, "cuda": 0.3, "cuda-emulated": 0.0}  # of steps in a turn

# GFLOP/s of large products of float32, by a library that is made for them, and on a GPU by our own kernel.
PRODUCTS = {
    "cpu": """
import numpy as np, time
a = np.ones((2048, 2048), 'f'); b = a @ a; began = time.perf_counter()
np.matmul(a, a, b); np.matmul(a, a, b)
print(2 * 2 * 2048**3 / (time.perf_counter() - began) / 1e9)
""",
    "cuda": """
import cupy, os, time
from minigan import kernels
from minigan.engine.device import allow_tf32
a = cupy.random.standard_normal((8192, 8192), dtype='f')
for product in (cupy.matmul, kernels.matmul):
    with allow_tf32(os.environ['CUPY_TF32'] == '1'):
        product(a, a); product(a, a); cupy.cuda.runtime.deviceSynchronize()
        began = time.perf_counter()
        for _ in range(5): product(a, a)
        cupy.cuda.runtime.deviceSynchronize()
    print(5 * 2 * 8192**3 / (time.perf_counter() - began) / 1e9)
""",
}


class Setting(NamedTuple):
    """The unit of measurement: a workload (as workloads.find reads it) and where it runs."""

    workload: str
    place: Place

    def __str__(self):
        return self.workload if self.place.device == "cpu" else f"{self.workload}, {self.place.precision}"


class Worker:
    """A process that runs steps when asked; ``about`` is its first answer, when it is ready."""

    def __init__(self, framework, variant, setting):
        self.name = name_of(framework, variant, setting.place.device)
        self.framework = framework
        self.turn_s = TURN_S[setting.place.device]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", framework, setting.workload, variant, *map(str, setting.place)],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.times = []

    @functools.cached_property
    def about(self):
        return self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": "the process ended without an answer"}

    def ask(self, command):
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return self.answer()

    def turn(self):
        """Run about a turn of steps and keep their mean time in ms."""
        once = self.ask(1)["ms"]
        self.times.append(self.ask(max(1, round(1e3 * self.turn_s / once)))["ms"])

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def show(what):
    """Show progress on one line of the terminal."""
    print(f"\r{what:60}\r{what}", end="", file=sys.stderr, flush=True)


def product_speeds(place):
    """Return the GFLOP/s of large products, in a separate process: by BLAS, and on a GPU by our own kernel."""
    if place.device not in PRODUCTS:
        return []
    limits = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(place.threads))
    limits["CUPY_TF32"] = str(int(place.precision == "tf32"))
    done = subprocess.run(
        [sys.executable, "-c", PRODUCTS[place.device]],
        env={**os.environ, **limits}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [float(line) for line in done.stdout.split()]


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


def name_of(framework, variant, device):
    return f"{framework}, {variant}" if len(VARIANTS[device][framework]) > 1 else framework


def start(setting, peers, variants=None):
    """Start the processes of a setting: one a variant, of those named in ``variants`` or of all."""
    device = setting.place.device
    return [
        Worker(framework, variant, setting)
        for framework in ["minigan", *peers]
        for variant in VARIANTS[device].get(framework, ())
        if not variants or name_of(framework, variant, device) in variants
    ]


def measure(setting, workers, rounds):
    """Return (rows, speeds of the products, reasons): one row a worker that can do it. All workers end."""
    reasons = [f"{worker.name}: {worker.about['error']}" for worker in workers if "error" in worker.about]
    ready = [worker for worker in workers if "error" not in worker.about]
    speeds = []
    for number in range(rounds):
        show(f"{setting}: turn {number + 1} of {rounds}")
        for worker in ready:
            worker.turn()
        if setting.place.device == "cpu" or not number:
            speeds.append(product_speeds(setting.place))
    show("")
    rows = []
    for worker in ready:
        measured = {"name": worker.name, "framework": worker.framework, "times": worker.times}
        rows.append({**measured, **worker.about, **worker.ask("memory")})
    for worker in workers:
        worker.close()
    return rows, [statistics.median(column) for column in zip(*speeds, strict=True)], reasons


def table(setting, rows, speeds):
    """Return Markdown lines: the variants with their ratios to ours, taken turn by turn."""
    flops = operations(find(setting.workload))
    size = 2048 if setting.place.device == "cpu" else 8192
    said = [
        f"at {speed:.0f} GFLOP/s by {who}" for speed, who in zip(speeds, ("the BLAS", "our own kernel"), strict=False)
    ]
    runs = f"; a {size}×{size} product runs {' and '.join(said)}" if said else ""
    lines = [f"### {setting}", "", f"{flops / 1e9:.3g} GFLOP by the direct formulas{runs}", ""]
    if not rows:
        return [*lines, "Nothing could be measured."]
    ours = rows[0]
    memory = "peak MiB (above the import)" if setting.place.device == "cpu" else "peak MiB of the device"
    lines += [
        f"| | ms a step, median (range) | times minigan's | GFLOP/s | {memory} | first step, s |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        times, middle = row["times"], statistics.median(row["times"])
        ratio = statistics.median(t / o for t, o in zip(times, ours["times"], strict=True))
        above = f" ({row['above_import_mib']:.0f})" if "above_import_mib" in row else ""
        lines.append(
            f"| {row['name']} | {middle:.3g} ({min(times):.3g} to {max(times):.3g}) | {ratio:.2f} "
            f"| {flops / middle / 1e6:.0f} | {row['peak_mib']:.0f}{above} | {row['first_step_s']:.1f} |"
        )
    return lines


def summary(results):
    """Return Markdown lines: our speed against the best of each framework, on a GPU against each of its variants."""
    kinds = {}  # columns: the rows that a cell takes the best of
    for setting, (rows, *_) in results.items():
        for row in rows:
            if row["framework"] != "minigan":
                title = row["name"] if setting.place.device != "cpu" else f"best {row['framework']}"
                kinds.setdefault(title, set()).add(row["name"])
    titles = " | ".join(f"{title} ÷ minigan" for title in kinds)
    lines = [f"| | minigan, ms | {titles} |", "|---|---|" + "---|" * len(kinds)]
    for setting, (rows, *_) in results.items():
        if not rows:
            continue
        cells = []
        for names in kinds.values():
            theirs = [row["times"] for row in rows if row["name"] in names]
            if theirs:
                best = min(theirs, key=statistics.median)
                ratio = statistics.median(t / o for t, o in zip(best, rows[0]["times"], strict=True))
                cells.append(f"{ratio:.2f}")
            else:
                cells.append("–")
        lines.append(f"| {setting} | {statistics.median(rows[0]['times']):.3g} | {' | '.join(cells)} |")
    return lines


def processor():
    with open("/proc/cpuinfo") as info:
        return next((line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.machine())


def heading(place, versions):
    from minigan.kernels.cpu.jit import vector_bytes
    from minigan.kernels.gpu import launch as cuda

    there = [] if place.device == "cpu" else [cuda.describe(place.device)]
    vectors = f"vectors of {8 * vector_bytes()} bits"
    return [
        f"{', '.join([*there, processor()])}, {place.threads} threads of {os.cpu_count()}, {vectors}, "
        f"{platform.system()}, Python {platform.python_version()}, {', '.join(versions)}; {datetime.date.today()}",
        "",
    ]


def print_profile(name, threads, steps):
    worker = Worker("minigan", "eager", Setting(name, Place("cpu", "float32", threads)))
    if "error" in worker.about:
        raise SystemExit(worker.about["error"])
    found = worker.ask(f"profile {steps}")
    worker.close()
    total = found["total"]
    print(f"{name}: {total:.3f} ms a step\n")
    for op, shapes, calls, ms in found["rows"]:
        if ms > 0.002 * total:
            print(f"{ms:9.3f} ms {ms / total:6.1%} {calls:6.1f} × {op:22} {shapes}")
    rest = total - sum(ms for *_, ms in found["rows"])
    print(f"{rest:9.3f} ms {rest / total:6.1%}          Python: building and walking graphs, checks, allocation")


def groups(names, device, batches, threads):
    """Return lists of settings whose processes may be alive together: on a GPU all sizes and precisions of a workload.

    Compiling and starting takes most of the time there, and an idle process takes nothing from the others.
    """
    if device == "cpu":
        return [[Setting(name, Place(device, "float32", threads))] for name in names]
    return [
        [
            Setting(
                f"{name}:batch={batch}" if ":" not in name else f"{name},batch={batch}", Place(device, how, threads)
            )
            for batch in batches
            for how in ("float32", "tf32")
        ]
        for name in names
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="", help="torch, jax, or both with a comma between")
    parser.add_argument("--workloads", help="all five, or on a GPU all but dc8")
    parser.add_argument("--device", default="cpu", choices=VARIANTS, help="cuda-emulated only rehearses")
    parser.add_argument("--batches", default="64,128", help="batch sizes on a GPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--profile", metavar="WORKLOAD", help="print where our own step spends its time, and stop")
    parser.add_argument("--write", action="store_true", help="write benchmarks/RESULTS.md (on a GPU GPU.md)")
    arguments = parser.parse_args()
    if arguments.profile:
        return print_profile(arguments.profile, arguments.threads, 20)
    device = arguments.device
    reason = why_not(device)
    if reason:
        raise SystemExit(f"device {device!r}: {reason}")
    peers, missing = missing_peers(filter(None, arguments.peers.split(",")))
    default = WORKLOADS if device == "cpu" else [name for name in WORKLOADS if name != "dc8"]
    names = arguments.workloads.split(",") if arguments.workloads else default
    batches = [int(batch) for batch in arguments.batches.split(",")]
    results, reasons, versions = {}, list(missing), {}
    began = time.perf_counter()
    for group in groups(names, device, batches, arguments.threads):
        started = {setting: start(setting, peers) for setting in group}
        for workers in started.values():  # all are ready before anything is timed
            for worker in workers:
                show(f"waiting for {worker.name}")
                _ = worker.about
        for setting, workers in started.items():
            rows, speeds, why = measure(setting, workers, arguments.rounds)
            results[setting] = rows, speeds
            reasons += [f"{setting}, {reason}" for reason in why]
            versions |= {row["version"]: None for row in rows}
            print("\n".join(table(setting, rows, speeds)), end="\n\n", flush=True)
    lines = [*heading(Place(device, "float32", arguments.threads), versions), *summary(results), ""]
    lines += [f"Missing: {reason}" for reason in reasons] or ["Nothing is missing."]
    print("\n".join(lines))
    print(f"\n{time.perf_counter() - began:.0f} s", file=sys.stderr)
    if arguments.write:
        tables = [line for setting, (rows, speeds) in results.items() for line in ["", *table(setting, rows, speeds)]]
        where = "on the CPU" if device == "cpu" else "on a GPU"
        title = [f"# One training step {where}", "", f"`python -m benchmarks.step {' '.join(sys.argv[1:])}`", ""]
        path = Path(__file__).with_name("RESULTS.md" if device == "cpu" else "GPU.md")
        path.write_text("\n".join([*title, *lines, *tables, ""]), encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
