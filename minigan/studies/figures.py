"""Figures of studies: one style for all, drawn without a window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigan.run.pictures import new_figure, plain_ticks, smooth, tidy
from minigan.studies.report import Interval

# dark enough to distinguish in grey; each colour has one dash and one marker
COLOURS = ("#1f3b73", "#d1495b", "#2e8b57", "#b8860b", "#6a4c93", "#555555", "#0f8b8d", "#a44a3f", "#7f7f00")
DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)), (0, (8, 3)), (0, (2, 2)))
MARKERS = "os^Dv<>PX"

__all__ = ["COLOURS", "DASHES", "MARKERS", "bars", "columns", "line", "new_figure", "plain_ticks", "smooth", "tidy"]


def _reach(values: Sequence[Interval], most: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Return means (n,), 0 for a missing one, and the half-widths of intervals (2, n), cut at 0 and ``most``."""
    means = np.array([v.mean if np.isfinite(v.mean) else 0.0 for v in values])
    halves = np.array([0.0 if np.isnan(v.half) else v.half for v in values])
    up = halves if most is None else np.minimum(halves, np.maximum(most - means, 0.0))
    return means, np.stack([np.minimum(halves, means), up])


def line(axes: Any, x: Any, values: Sequence[Interval], number: int, label: str, most: float | None = None) -> None:
    """Draw intervals over x as a line with error bars, cut at 0 and ``most``."""
    means, reach = _reach(values, most)
    axes.errorbar(
        x, means, yerr=reach, color=COLOURS[number % len(COLOURS)], linestyle=DASHES[number % len(DASHES)],
        marker=MARKERS[number % len(MARKERS)], markersize=5, capsize=3, linewidth=1.5, label=label,
    )  # fmt: skip


def columns(axes: Any, names: Sequence[str], values: Sequence[Interval], most: float | None = None) -> None:
    """Draw one upright bar a name with its interval; none without a finite mean."""
    heights, reach = _reach(values, most)
    axes.bar(range(len(names)), heights, yerr=reach, color="#9db4d3", ecolor="#222222", capsize=4)
    axes.set_xticks(range(len(names)), names, rotation=20 if len(names) > 3 else 0)


def bars(axes: Any, names: Sequence[str], values: Sequence[Interval], unit: str, most: float | None = None) -> None:
    """Draw one horizontal bar a name with its interval and its number; the axis ends at ``most`` if given."""
    places = np.arange(len(names))[::-1]
    lengths, reach = _reach(values, most)
    axes.barh(places, lengths, xerr=reach, color="#9db4d3", ecolor="#222222", capsize=3, height=0.6)
    for place, value in zip(places, values, strict=True):
        text = str(value) if np.isfinite(value.mean) else "none in some run"
        axes.annotate(text, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8, color="#111111")
    axes.set_yticks(places, names)
    tidy(axes, xlabel=unit)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, None if most is None else 1.04 * most)
