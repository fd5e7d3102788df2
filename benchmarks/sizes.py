"""Cost against size: ms a step and peak memory of dc28 over the batch size and over the channels, beside PyTorch.

    python -m benchmarks.sizes [--rounds 3] [--write]

Everything is measured as in benchmarks.step: a process for each variant, taken in turns. ``--write`` puts the table
into benchmarks/SIZES.md and the picture into benchmarks/sizes.png; without it the picture is ./sizes.png.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, ScalarFormatter

from benchmarks.step import Setting, heading, measure, missing_peers, start
from benchmarks.worker import Place

BATCHES = (8, 16, 32, 64, 128, 256, 512)
CHANNELS = (16, 32, 64, 128)
OURS = "minigan, traced"
LINES = {  # by name: colour, dashes, marker
    OURS: ("black", "-", "o"),
    "torch, eager": ("tab:red", "--", "s"),
    "torch, channels-last, fused Adam": ("tab:orange", ":", "^"),
}
PANELS = (("ms a step", "ms"), ("peak memory of the process, MiB", "peak_mib"))


def cost(rows):
    """Return {variant: {"ms": median, "peak_mib": …}}."""
    return {row["name"]: {"ms": statistics.median(row["times"]), "peak_mib": row["peak_mib"]} for row in rows}


def draw(found, path):
    """Draw {("batch" or "base", size): cost} as four panels."""
    figure, panels = plt.subplots(2, 2, figsize=(9, 6.5), layout="constrained")
    for column, (axis, label) in enumerate(
        (("batch", "batch size (64 base channels)"), ("base", "base channels (batch 64)"))
    ):
        sizes = [size for kind, size in found if kind == axis]
        for row, (title, field) in enumerate(PANELS):
            panel = panels[row][column]
            for name, (colour, dashes, marker) in LINES.items():
                values = [found[axis, size].get(name, {}).get(field) for size in sizes]
                if any(value is not None for value in values):
                    panel.plot(sizes, values, dashes, color=colour, marker=marker, markersize=5, label=name)
            panel.set(xscale="log", xlabel=label, ylabel=title)
            panel.xaxis.set(major_locator=FixedLocator(sizes), major_formatter=ScalarFormatter())
            panel.xaxis.set_minor_locator(NullLocator())
            if field == "ms":
                panel.set_yscale("log")
                panel.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter=ScalarFormatter())
                panel.yaxis.set_minor_locator(NullLocator())
            else:
                panel.set_ylim(bottom=0)
            panel.grid(which="major", alpha=0.3)
    panels[0][0].legend(frameon=False)
    figure.suptitle("One training step of dc28 (28×28×1 images) against its size")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def table(found):
    """Return Markdown lines: the figures that are drawn, with PyTorch's better variant over ours."""
    names = [name for name in LINES if any(name in costs for costs in found.values())]
    lines = [
        f"| batch, base | {' | '.join(f'{name}: ms, MiB' for name in names)} | best torch ÷ minigan, time, memory |",
        "|---|" + "---|" * (len(names) + 1),
    ]
    for (axis, size), costs in found.items():
        cells = [f"{costs[name]['ms']:.3g}, {costs[name]['peak_mib']:.0f}" if name in costs else "–" for name in names]
        ratios = "–"
        if len(costs) > 1:
            best = {field: min(c[field] for name, c in costs.items() if name != OURS) for field in ("ms", "peak_mib")}
            ratios = ", ".join(f"{best[field] / costs[OURS][field]:.2f}" for field in ("ms", "peak_mib"))
        sizes = f"{size}, 64" if axis == "batch" else f"64, {size}"
        lines.append(f"| {sizes} | {' | '.join(cells)} | {ratios} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--write", action="store_true", help="write benchmarks/SIZES.md and benchmarks/sizes.png")
    arguments = parser.parse_args()
    peers, missing = missing_peers(["torch"])
    began = time.perf_counter()
    found, versions, reasons = {}, {}, list(missing)
    place = Place("cpu", "float32", arguments.threads)
    for worker in start(Setting(f"dc28:batch={BATCHES[0]}", place), [], LINES):  # compiles what is not cached
        worker.close()
    for axis, sizes in (("batch", BATCHES), ("base", CHANNELS)):
        for size in sizes:
            name = f"dc28:{axis}={size}"
            setting = Setting(name, place)
            rows, _, why = measure(setting, start(setting, peers, LINES), arguments.rounds)
            found[axis, size] = cost(rows)
            versions |= {row["version"]: None for row in rows}
            reasons += [f"{name}, {reason}" for reason in why]
            print(
                f"{name}: "
                + "; ".join(f"{n} {c['ms']:.3g} ms {c['peak_mib']:.0f} MiB" for n, c in found[axis, size].items()),
                flush=True,
            )
    folder = Path(__file__).parent if arguments.write else Path()
    draw(found, folder / "sizes.png")
    lines = [*heading(place, versions), *table(found), ""]
    lines += [f"Missing: {reason}" for reason in reasons]
    print("\n".join(lines))
    print(f"\n{time.perf_counter() - began:.0f} s; the picture is {folder / 'sizes.png'}", file=sys.stderr)
    if arguments.write:
        title = ["# Cost against size", "", f"`python -m benchmarks.sizes {' '.join(sys.argv[1:])}`", ""]
        text = "\n".join([*title, *lines, "", "![ms a step and memory against batch size and channels](sizes.png)", ""])
        (folder / "SIZES.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
