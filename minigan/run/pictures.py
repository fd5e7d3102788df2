"""Pictures: grids of samples, point clouds, curves of a run, and its film. Nothing here opens a window.

They look the same for every user: matplotlib's settings of the user are neither read nor changed.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import os
import struct
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from minigan.data import files
from minigan.gan.objectives import Objective
from minigan.lab.diagnosis import SYMPTOMS
from minigan.run.files import RunError, write_atomically

INK, BLUE, RED, GREY = "#222222", "#1f6fb4", "#d1495b", "#9a9a9a"
FRAME_MS = 160
MOST = 1 << 28  # bytes of a frame


def image_grid(images: np.ndarray, columns: int = 0) -> Image.Image:
    """Lay out images (N, H, W, 1 or 3) in [−1, 1] as one picture, each pixel enlarged to a visible square."""
    count, h, w, channels = images.shape
    columns = columns or int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    zoom, gap = max(1, 48 // max(h, w)), 4
    pixels = ((images.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)
    pixels = pixels.repeat(zoom, axis=1).repeat(zoom, axis=2)
    sheet = np.full((rows * (h * zoom + gap) + gap, columns * (w * zoom + gap) + gap, channels), 90, np.uint8)
    for i, image in enumerate(pixels):
        top, left = gap + i // columns * (h * zoom + gap), gap + i % columns * (w * zoom + gap)
        sheet[top : top + h * zoom, left : left + w * zoom] = image
    return Image.fromarray(sheet[..., 0] if channels == 1 else sheet)


@functools.cache
def load_matplotlib() -> Any:
    """Import matplotlib, also where the user has chosen a backend that this Python lacks (a notebook's, say).

    OSError if matplotlib cannot read the user's matplotlibrc.
    """
    chosen = os.environ.pop("MPLBACKEND", None) if "matplotlib" not in sys.modules else None
    try:
        import matplotlib
    except (ValueError, OSError) as error:
        raise OSError(f"matplotlib cannot be loaded: {error}; look at your matplotlibrc and MPLCONFIGDIR") from error
    finally:
        if chosen is not None:
            os.environ["MPLBACKEND"] = chosen
    with contextlib.suppress(ValueError):
        if chosen:
            matplotlib.rcParams["backend"] = chosen
    return matplotlib


@contextlib.contextmanager
def our_style() -> Iterator[None]:
    """Draw with matplotlib's defaults in the ``with`` block, or in the function that this decorates; free its figures.

    The parts of a figure refer to one another in circles: without a collection a run holds dozens of dead ones. Those
    are young, and a collection of young objects is quick.
    """
    matplotlib = load_matplotlib()
    with matplotlib.rc_context({k: v for k, v in matplotlib.rcParamsDefault.items() if k != "backend"}):
        collecting = gc.isenabled()
        gc.disable()  # what is made here stays young
        try:
            yield
        finally:
            gc.collect(1)
            if collecting:
                gc.enable()


def new_figure(width: float, height: float) -> Any:
    """Return a figure of this size in inches, drawn without a window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> None:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_atomically(path, content.getvalue())


def save(image: Image.Image, path: Path) -> None:
    """Write a picture as a PNG file; OSError names the path."""
    content = io.BytesIO()
    image.save(content, format="PNG")
    write_atomically(path, content.getvalue())


def tidy(axes: Any, **settings: Any) -> None:
    """Set labels and limits, and the look that all panels share."""
    axes.set(**settings)
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def plain_ticks(axis: Any) -> None:
    """Label a logarithmic axis at 1, 2 and 5 times the powers of ten, in plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def legend_above(axes: Any, columns: int) -> None:
    """Put the legend in a row above the panel, at the right, so that it covers no line."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="lower right", bbox_to_anchor=(1, 1), ncols=columns, fontsize=8, frameon=False, borderaxespad=0.2
        )


def along(axes: Any, metrics: dict[str, np.ndarray], columns: dict[str, str]) -> None:
    """Draw two columns {name: label} of metrics over the steps: every row faint, their running mean strong."""
    steps = metrics["step"]
    few = dict(marker="o", markersize=3) if len(steps) < 3 else {}
    for (key, label), colour, dashes in zip(columns.items(), (BLUE, RED), ("-", "--"), strict=True):
        axes.plot(steps, metrics[key], color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(steps, smooth(metrics[key]), dashes, color=colour, linewidth=1.6, label=label, **few)


@our_style()
def scatter(points: np.ndarray, real: np.ndarray, title: str) -> Image.Image:
    """Draw generated points (N, 2) over real ones, on axes that fit the real ones, or without real ones."""
    figure = new_figure(4.6, 4.6)
    axes = figure.add_subplot()
    if len(real):
        axes.scatter(*real[:1000].T, s=14, color=GREY, alpha=0.5, linewidths=0, label="real")
    axes.scatter(*points.T, s=5, color=RED, alpha=0.6, linewidths=0, label="generated")
    reach = 1.3 * np.abs(real if len(real) else points).max(initial=0) or 1.0
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title=title, xlabel="x₁", ylabel="x₂")
    legend = axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=2, fontsize=9, frameon=False, markerscale=2.5
    )
    for handle in legend.legend_handles:
        handle.set_alpha(1)
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())


@our_style()
def curves(metrics: dict[str, np.ndarray], objective: Objective, path: Path) -> None:
    """Draw losses with their equilibrium lines, D's accuracy and the gradient norms of a run into a PNG file."""
    figure = new_figure(8.5, 8)
    losses, accuracy, norms = figure.subplots(3, 1, sharex=True)
    along(losses, metrics, {"loss_d": "discriminator", "loss_g": "generator"})
    along(accuracy, metrics, {"accuracy_real": "on real samples", "accuracy_fake": "on generated samples"})
    along(norms, metrics, {"grad_norm_d": "discriminator", "grad_norm_g": "generator"})
    for name, value, colour in zip(("L_D", "L_G"), objective.equilibrium, (BLUE, RED), strict=True):
        if value is not None:
            losses.axhline(
                value, color=colour, linestyle=":", linewidth=1.2, label=f"{name} at equilibrium = {value:.3f}"
            )
    accuracy.axhline(0.5, color=GREY, linestyle=":", linewidth=1.2, label="chance = 0.5")
    positive = any((metrics[key] > 0).any() for key in ("grad_norm_d", "grad_norm_g"))
    tidy(losses, ylabel="loss")
    tidy(accuracy, ylabel="accuracy of D", ylim=(-0.03, 1.03))
    tidy(norms, ylabel="gradient norm", xlabel="training step", yscale="log" if positive else "linear")
    if positive:
        plain_ticks(norms.yaxis)
    for axes in (losses, accuracy, norms):
        legend_above(axes, 4)
    figure.suptitle(f"{objective.name} game")
    _save(figure, path)


@our_style()
def spectra(rows: dict[str, np.ndarray], path: Path) -> None:
    """Draw eigenvalues (columns step, real, imaginary) over the run, and in the plane, into a PNG file."""
    figure = new_figure(10.5, 4.6)
    over, plane = figure.subplots(1, 2)
    steps = np.unique(rows["step"])
    shades = np.linspace(0.75, 0.0, len(steps))
    for step, shade in zip(steps, shades, strict=True):
        at = rows["step"] == step
        over.plot(rows["step"][at], rows["real"][at], "_", color=BLUE, markersize=9)
        plane.plot(
            rows["real"][at], rows["imaginary"][at], "o", color=str(shade), markersize=5, markerfacecolor="none",
            label=f"step {int(step)}" if step in (steps[0], steps[-1]) else None,
        )  # fmt: skip
    over.axhline(0, color=INK, linewidth=1)
    plane.axvline(0, color=INK, linewidth=1)
    tidy(
        over, xlabel="training step", ylabel="Re λ: below 0 settles", title="eigenvalues at the edges", yscale="symlog"
    )
    tidy(plane, xlabel="Re λ", ylabel="Im λ: turns", title="darker: later", xscale="symlog", yscale="symlog")
    plane.legend(fontsize=8, frameon=False)
    _save(figure, path)


@our_style()
def diagnosis(
    metrics: dict[str, np.ndarray], varieties: list[tuple[int, float, float]], spells: Sequence[Any], path: Path
) -> None:
    """Draw the inputs of a diagnosis's rules, shaded over their findings, into a PNG file.

    ``varieties`` are (step, spread, entropy), ``spells`` have kind, first and last step.
    """
    figure = new_figure(8.5, 8.5)
    accuracy, strength, movement, samples = figure.subplots(4, 1, sharex=True)
    along(accuracy, metrics, {"accuracy_real": "D right on real", "accuracy_fake": "D right on generated"})
    along(strength, metrics, {"slope_g": "mean |dL_G/ds|", "dead_g": "share in the dead zone"})
    along(movement, metrics, {"turn": "cosine of successive moves", "progress": "distance / path"})
    if varieties:
        at, spread, entropy = zip(*varieties, strict=True)
        samples.plot(at, spread, "-", color=BLUE, marker="o", markersize=3, label="distance between samples / data")
        samples.plot(at, entropy, "--", color=RED, marker="s", markersize=3, label="entropy of classes or modes / most")
    panels = {"accuracy": accuracy, "gradient": strength, "movement": movement, "variety": samples}
    for spell in spells:
        axes = panels[SYMPTOMS[spell.kind].panel]
        width = max(spell.last - spell.first, 0.004 * metrics["step"][-1])
        axes.axvspan(spell.first, spell.first + width, color="#e8c547", alpha=0.35, linewidth=0)
        at = spell.first, 0.04
        axes.annotate(spell.kind, at, xycoords=("data", "axes fraction"), fontsize=8, color=INK, annotation_clip=True)
    labels = "accuracy of D", "gradient of G", "movement", "variety"
    for axes, label in zip(figure.axes, labels, strict=True):
        low, high = axes.get_ylim()
        tidy(axes, ylabel=label, ylim=(min(low, -0.05), max(high, 1.05)))
        legend_above(axes, 2)
    samples.set_xlabel("training step")
    figure.suptitle("Inputs of the rules; shaded: findings")
    _save(figure, path)


def smooth(values: np.ndarray, windows: int = 30) -> np.ndarray:
    """Return a centred running mean, shorter at the ends; its window is the run over ``windows``."""
    half = len(values) // (2 * windows)
    total = np.concatenate([[0.0], np.cumsum(values)])
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def film(frames: list[Path], path: Path) -> None:
    """Join PNG frames into an animated GIF that rests on the last one; :class:`RunError` names a damaged frame."""
    images = []
    for frame in frames:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(io.BytesIO(files.read(frame, MOST)), formats=["PNG"]) as image:
                    images.append(image.convert("L" if image.mode == "L" else "RGB").quantize(32))
        except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError, Warning) as error:
            said = error.strerror if isinstance(error, OSError) and error.strerror else "it is not a whole PNG picture"
            raise RunError(f"{frame}: {said}; remove it, and the film goes without it") from None
    if not images:
        return
    times = [FRAME_MS] * (len(images) - 1) + [12 * FRAME_MS]
    content = io.BytesIO()
    first, *rest = images
    first.save(content, format="GIF", save_all=True, append_images=rest, duration=times, loop=0, optimize=True)
    write_atomically(path, content.getvalue())
