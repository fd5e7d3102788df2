"""The figures of the main job: import time, `minigan train` with a cold and a warm kernel cache, and the samples.

    python -m benchmarks.main_job [--seeds 3]

Each training run is the whole command in a separate process, in a temporary folder. Prints a Markdown table.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from minigan import data
from minigan.lab.metrics import class_shares, frechet_distance, half_against_half


def run(arguments, folder, cache):
    began = time.perf_counter()
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="warm runs with seeds 0 to this number - 1")
    seeds = range(parser.parse_args().seeds)
    digits = data.digits()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bare, imported = [], []
        for _ in range(7):
            bare.append(run(["-c", "pass"], folder, folder / "cache"))
            imported.append(run(["-c", "import minigan"], folder, folder / "cache"))
        rows = [("`import minigan`", f"{statistics.median(imported) - statistics.median(bare):.2f} s")]

        cold = run(["-m", "minigan", "train", "--steps", "1", "--out", "first"], folder, folder / "cache")
        warm = run(["-m", "minigan", "train", "--steps", "1", "--out", "second"], folder, folder / "cache")
        rows.append(("kernel cache cold, more than warm", f"{cold - warm:.1f} s"))
        for seed in seeds:
            out = folder / f"run{seed}"
            train = ["-m", "minigan", "train", "--seed", str(seed), "--out", str(out)]
            rows.append((f"`minigan train`, seed {seed}", f"{run(train, folder, folder / 'cache'):.1f} s wall"))
            sample = ["-m", "minigan", "sample", str(out), "--count", "2000", "--out", f"{out}.npz"]
            run(sample, folder, folder / "cache")
            images = np.load(f"{out}.npz")["images"]
            shares = class_shares(images, digits.samples, digits.labels)
            rows.append(("Fréchet pixel distance, 2,000 samples", f"{frechet_distance(images, digits.samples):.3f}"))
            rows.append(("share of each class", f"{shares.min():.1%} to {shares.max():.1%}"))
    halves = [half_against_half(digits.samples, seed) for seed in range(10)]
    rows.append(("the same between random halves, 10 splits", f"{min(halves):.2f} to {max(halves):.2f}"))
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print("\n| what | figure |\n|---|---|")
    for what, figure in rows:
        print(f"| {what} | {figure} |")


if __name__ == "__main__":
    main()
