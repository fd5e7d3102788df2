"""Draw the README's first picture from a run on digits: python examples/pictures/make_game.py runs/digits"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.patches import FancyBboxPatch

from minigan.random import Generator
from minigan.run import folder
from minigan.run.pictures import new_figure

INK, BLUE, RED = "#222222", "#1f6fb4", "#d1495b"
SIDE = 4  # pictures along a side of a grid


def grid(images):
    """Return SIDE² images (n, 8, 8, 1) in [−1, 1] as one array, with lines between them."""
    tiles = np.pad(images[: SIDE**2, :, :, 0], ((0, 0), (1, 1), (1, 1)), constant_values=0.2)
    rows = tiles.reshape(SIDE, SIDE, *tiles.shape[1:])
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)


def show(figure, image, box, title, colour):
    """Draw an array in a box (left, bottom, width, height) of the figure, in shares of it."""
    axes = figure.add_axes(box)
    axes.imshow(image, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(colour)
        spine.set_linewidth(2)
    axes.set_title(title, fontsize=11, color=colour, pad=6)


def network(canvas, x, y, name, what, colour):
    """Draw a network as a box at its middle."""
    canvas.add_patch(FancyBboxPatch((x - 0.055, y - 0.11), 0.11, 0.22, "round,pad=0.01", fc="white", ec=colour, lw=2))
    canvas.text(x, y + 0.02, name, ha="center", va="center", fontsize=22, color=colour, weight="bold")
    canvas.text(x, y - 0.07, what, ha="center", va="center", fontsize=9, color=colour)


def arrow(canvas, start, end, colour=INK, text="", above=0.03, **style):
    """Draw an arrow with words over its middle."""
    canvas.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.8, **style})
    middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + above
    canvas.text(*middle, text, ha="center", va="center", fontsize=9.5, color=colour)


def main(run, out):
    """Draw the picture of a run folder into a PNG file."""
    trainer = folder.reopen(run).trainer
    z = Generator(trainer.seed, stream="sample", step=1).normal((SIDE**2, trainer.latent)).numpy()
    figure = new_figure(10, 4.8)
    figure.set_layout_engine("none")
    canvas = figure.add_axes((0, 0, 1, 1))
    canvas.set(xlim=(0, 1), ylim=(0, 1))
    canvas.axis("off")
    show(figure, z[:, : SIDE**2] / 2.5, (0.015, 0.20, 0.13, 0.27), "noise z", INK)
    show(figure, grid(trainer.sample(SIDE**2)), (0.40, 0.15, 0.17, 0.36), "generated: G(z)", RED)
    show(figure, grid(trainer.data.reference(SIDE**2)), (0.40, 0.58, 0.17, 0.36), "real: x", BLUE)
    network(canvas, 0.265, 0.335, "G", "generator", RED)
    network(canvas, 0.745, 0.55, "D", "discriminator", BLUE)
    arrow(canvas, (0.15, 0.335), (0.20, 0.335))
    arrow(canvas, (0.33, 0.335), (0.40, 0.335))
    arrow(canvas, (0.575, 0.76), (0.68, 0.61))
    arrow(canvas, (0.575, 0.34), (0.68, 0.49))
    arrow(canvas, (0.81, 0.55), (0.90, 0.55))
    canvas.text(0.945, 0.55, "real?\nσ(s)", ha="center", va="center", fontsize=12, color=INK)
    arrow(canvas, (0.945, 0.65), (0.75, 0.68), BLUE, "D learns to be right", 0.19, connectionstyle="arc3,rad=0.5")
    canvas.plot([0.945, 0.945, 0.265], [0.47, 0.08, 0.08], color=RED, linewidth=1.8, linestyle="--")
    arrow(canvas, (0.265, 0.08), (0.265, 0.20), RED)
    canvas.text(0.76, 0.11, "G learns, through D, to be taken for real", ha="center", fontsize=9.5, color=RED)
    figure.savefig(out)
    print(f"wrote {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("game.png"))
    arguments = parser.parse_args()
    main(arguments.run, arguments.out)
