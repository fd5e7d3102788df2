"""Pictures: their sizes, their pixels, their frames."""

import gc
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from minigan.gan.objectives import OBJECTIVES
from minigan.run import pictures as plot
from minigan.run import tables

ROWS = ("loss_d", "loss_g", "accuracy_real", "accuracy_fake", "grad_norm_d", "grad_norm_g")


def metrics(steps, value=None):
    random = np.random.default_rng(0)
    return {"step": np.arange(1.0, steps + 1)} | {
        name: random.uniform(0.1, 1, steps) if value is None else np.full(steps, float(value)) for name in ROWS
    }


# --- grids ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "columns", "table"), [(1, 0, (1, 1)), (5, 0, (2, 3)), (64, 0, (8, 8)), (5, 2, (3, 2)), (3, 5, (1, 5))]
)
def test_a_grid_is_as_square_as_it_can_be(count, columns, table):
    picture = plot.image_grid(np.zeros((count, 8, 8, 1), np.float32), columns)
    assert picture.mode == "L"
    assert picture.size == (4 + table[1] * 52, 4 + table[0] * 52)


@pytest.mark.parametrize(("side", "zoom"), [(8, 6), (28, 1), (64, 1), (1, 48)])
def test_pixels_are_enlarged_to_be_seen(side, zoom):
    assert plot.image_grid(np.zeros((1, side, side, 1))).size == (8 + side * zoom,) * 2


def test_every_pixel_of_a_grid_is_where_it_belongs():
    images = np.linspace(-1, 1, 2 * 2 * 3, dtype=np.float32).reshape(2, 2, 3, 1)
    sheet = np.asarray(plot.image_grid(images, columns=2))
    zoom, gap = 16, 4
    assert sheet.shape == (gap + 2 * zoom + gap, gap + 2 * (3 * zoom + gap))
    wanted = np.round((images[..., 0] + 1) * 127.5)
    for i, left in enumerate((gap, gap + 3 * zoom + gap)):
        part = sheet[gap:-gap, left : left + 3 * zoom]
        assert np.array_equal(part[::zoom, ::zoom], wanted[i])
        assert np.array_equal(part[zoom - 1 :: zoom, zoom - 1 :: zoom], wanted[i])
    assert (sheet[:gap] == 90).all()
    assert (sheet[:, :gap] == 90).all()
    assert (sheet[:, gap + 3 * zoom : 2 * gap + 3 * zoom] == 90).all()


def test_grids_have_colour_and_clip_what_is_out_of_range():
    image = np.array([[[[-7.0, 0.0, 7.0]]]])
    picture = plot.image_grid(image)
    assert picture.mode == "RGB"
    assert picture.getpixel((4, 4)) == (0, 128, 255)


# --- clouds -----------------------------------------------------------------------------------------------------------


def share(picture, wanted):
    """Return the share of pixels that are red, blue or grey, in whatever shade."""
    r, g, b = np.asarray(picture).astype(int).transpose(2, 0, 1)
    found = {"red": r > b + 40, "blue": b > r + 40, "grey": (np.abs(r - b) < 9) & (r > 120) & (r < 230)}
    return found[wanted].mean()


def test_a_scatter_shows_both_clouds():
    random = np.random.default_rng(0)
    real, points = random.normal(size=(500, 2)), random.normal(size=(500, 2))
    picture = plot.scatter(points, real, "a title")
    assert picture.mode == "RGB"
    assert picture.size == (460, 460)
    assert share(picture, "red") > 0.01
    away = plot.scatter(points + 1000, real, "a title")  # the axes fit the real points, so these are out of sight
    assert share(away, "red") < 0.001
    assert share(away, "grey") > 0.02


# --- curves -----------------------------------------------------------------------------------------------------------


def test_smooth_is_a_centred_mean():
    assert np.array_equal(plot.smooth(np.arange(5.0)), np.arange(5.0))
    assert plot.smooth(np.full(300, 2.5)) == pytest.approx(2.5)
    values = np.random.default_rng(0).normal(size=300)
    wanted = [values[max(0, i - 5) : i + 6].mean() for i in range(300)]
    assert plot.smooth(values) == pytest.approx(np.array(wanted))


def test_metrics_are_read_by_name(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("step,loss\r\n1,0.5\r\n2,1e-3\r\n", encoding="utf-8")
    found = tables.read(path)
    assert {name: values.tolist() for name, values in found.items()} == {"step": [1, 2], "loss": [0.5, 0.001]}
    path.write_text("step,loss\n", encoding="utf-8")
    assert tables.read(path) == {}


def test_figures_are_freed_when_they_are_drawn(tmp_path):
    from matplotlib.figure import Figure

    points = np.random.default_rng(0).normal(size=(50, 2))
    gc.collect()
    for _ in range(4):
        plot.scatter(points, points, "cloud")
        plot.curves(metrics(5), OBJECTIVES["hinge"], tmp_path / "curves.png")
    assert sum(type(thing) is Figure for thing in gc.get_objects()) <= 2


@pytest.mark.parametrize(
    ("objective", "columns"),
    [("non-saturating", metrics(200)), ("wasserstein", metrics(1)), ("hinge", metrics(30, value=0))],
    ids=["long", "one row", "zero gradients"],
)
def test_curves_are_a_picture_of_their_run(tmp_path, objective, columns):
    path = tmp_path / "curves.png"
    plot.curves(columns, OBJECTIVES[objective], path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.size == (850, 800)
        assert share(picture.convert("RGB"), "blue") > 0.0005


# --- films ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 5])
def test_a_film_has_its_frames_and_rests_on_the_last(tmp_path, count, channels):
    frames = [tmp_path / f"{i}.png" for i in range(count)]
    for i, frame in enumerate(frames):
        plot.image_grid(np.full((4, 8, 8, channels), i / 5 - 1)).save(frame)
    plot.film(frames, tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        assert film.format == "GIF"
        assert film.n_frames == count
        shown = []
        for i in range(count):
            film.seek(i)
            shown.append((film.info.get("duration"), film.convert("L").getpixel((8, 8))))
    levels = [level for _, level in shown]
    assert levels == pytest.approx([round(127.5 * i / 5) for i in range(count)], abs=3)
    if count > 1:
        assert [time for time, _ in shown] == [160] * (count - 1) + [1920]


# --- the user's matplotlib --------------------------------------------------------------------------------------------

HOSTILE = {
    "text.usetex": True,
    "font.size": 60.0,
    "axes.facecolor": "red",
    "savefig.dpi": 10.0,
    "savefig.format": "svg",
}


def test_pictures_do_not_depend_on_the_users_settings(tmp_path):
    import matplotlib

    points = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    objective = OBJECTIVES["non-saturating"]

    def draw(name):
        plot.curves(metrics(5), objective, tmp_path / name)
        return (tmp_path / name).read_bytes(), np.asarray(plot.scatter(points, points, "title")).tobytes()

    plain = draw("plain.png")
    with matplotlib.rc_context(HOSTILE):
        assert draw("hostile.png") == plain
        assert matplotlib.rcParams["font.size"] == 60


BACKENDS = """
import os, sys
import numpy as np
from minigan.run import pictures
points = np.zeros((3, 2), np.float32)
assert pictures.scatter(points, points + 1, "title").size == (460, 460)
assert "matplotlib.pyplot" not in sys.modules
import matplotlib
print(os.environ["MPLBACKEND"], matplotlib.rcParams["backend"])
"""


@pytest.mark.parametrize(
    ("backend", "kept"), [("module://matplotlib_inline.backend_inline", False), ("odd", False), ("svg", True)]
)
def test_pictures_do_not_depend_on_the_users_backend(backend, kept):
    done = subprocess.run(
        [sys.executable, "-c", BACKENDS], env={**os.environ, "MPLBACKEND": backend}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{backend} ")
    assert kept == (done.stdout == f"{backend} {backend}\n")
