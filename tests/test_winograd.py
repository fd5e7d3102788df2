"""Fewer multiplications, the same convolution: in exact fractions, on integers, within proven bounds of rounding."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

import minigan as mg
from minigan import kernels
from minigan.kernels.cpu import kept, winograd
from minigan.kernels.cpu.forms import FORMS
from minigan.kernels.cpu.kept import MOST, Kept
from minigan.testing.references import np_conv2d, np_conv2d_transpose, np_conv2d_weight_grad

from .test_kernels import gamma

NAMES = [f"F({form.m},{form.r})" for form in FORMS]
EXACT = [0, 2]  # forms whose matrices hold halves at most: nothing is rounded on small integers
GEOMETRIES = {  # (N, H, W, Cin, Cout, padding): outputs that fill their tiles and others, one block of tiles and many
    2: [
        (1, 2, 2, 16, 16, (1, 1)),
        (3, 14, 10, 16, 48, (1, 1)),
        (2, 11, 21, 32, 16, (0, 2)),
        (70, 8, 8, 16, 32, (1, 1)),
    ],
    3: [(1, 3, 3, 16, 16, (0, 0)), (2, 7, 10, 32, 48, (1, 1)), (40, 9, 8, 16, 16, (2, 0))],
}
CASES = [(number, geometry) for number, form in enumerate(FORMS) for geometry in GEOMETRIES[form.r]]


def cases(numbers):
    return pytest.mark.parametrize(
        ("number", "geometry"),
        [c for c in CASES if c[0] in numbers],
        ids=lambda v: NAMES[v] if v in range(3) else str(v),
    )


@pytest.mark.parametrize("form", FORMS, ids=NAMES)
def test_a_form_is_an_identity_of_fractions(form):
    """yⱼ = Σᵢ dⱼ₊ᵢ gᵢ for every pair of unit vectors d and g, hence for all, as both sides are bilinear."""
    a_t, g, b_t = form.a_t(), form.g(), form.b_t()
    for place, tap in itertools.product(range(form.n), range(form.r)):
        products = [g[k][tap] * b_t[k][place] for k in range(form.n)]
        for j in range(form.m):
            assert sum(a_t[j][k] * products[k] for k in range(form.n)) == Fraction(place == j + tap)


def arrays(number, geometry, draw, dtype):
    n, h, w, c_in, c_out, padding = geometry
    taps = FORMS[number].r
    kernel, stride = ((4, 4), (2, 2)) if taps == 2 else ((3, 3), (1, 1))
    out = kernels.conv2d_output_shape((h, w), kernel, stride, padding)
    x, weights, y = (draw(s).astype(dtype) for s in ((n, h, w, c_in), (*kernel, c_in, c_out), (n, *out, c_out)))
    extra = tuple((size + 2 * p - k) % s for size, p, k, s in zip((h, w), padding, kernel, stride, strict=True))
    return x, weights, y, {"stride": stride, "padding": padding}, extra


def triad(x, w, y, settings, extra):
    return (
        kernels.conv2d(x, w, **settings),
        kernels.conv2d_transpose(y, w, output_padding=extra, **settings),
        kernels.conv2d_weight_grad(x, y, kernel=w.shape[:2], **settings),
    )


def np_triad(x, w, y, settings, extra):
    return (
        np_conv2d(x, w, **settings),
        np_conv2d_transpose(y, w, output_padding=extra, **settings),
        np_conv2d_weight_grad(x, y, w.shape[:2], **settings),
    )


@pytest.fixture
def forced(monkeypatch, number):
    """Use the form whatever the size."""
    monkeypatch.setattr(winograd, "find_form", lambda *_: number)


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@cases(EXACT)
def test_exact_on_small_integers(number, geometry, dtype):
    rng = np.random.default_rng(0)
    x, w, y, settings, extra = arrays(number, geometry, lambda s: rng.integers(-4, 5, s), dtype)
    found = triad(x, w, y, settings, extra)
    for a, b in zip(found, np_triad(x, w, y, settings, extra), strict=True):
        assert a.dtype == dtype
        np.testing.assert_array_equal(a, b)
    forms = [float((a.astype(float) * b).sum()) for a, b in zip(found, (y, x, w), strict=True)]
    assert forms[0] == forms[1] == forms[2]


@pytest.mark.usefixtures("forced")
@cases(range(len(FORMS)))
def test_every_form_in_float64(number, geometry):
    rng = np.random.default_rng(1)
    x, w, y, settings, extra = arrays(number, geometry, rng.standard_normal, np.float64)
    for a, b in zip(triad(x, w, y, settings, extra), np_triad(x, w, y, settings, extra), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13 * np.abs(b).max())


def bounds(x, w, y, settings, number):
    """Return what the three sums would be with every term taken positive, step by step as the form takes them.

    Every rounding in the computation is of a partial sum of these terms, so γ of the number of roundings times this
    bounds the error, whatever the order.
    """
    form = FORMS[number]
    a_t, g, b_t = (np.abs(np.array(m, float)) for m in (form.a_t(), form.g(), form.b_t()))
    (s, _), (ph, pw), m, n = settings["stride"], settings["padding"], form.m, form.n
    x, w, y = np.abs(x), np.abs(w), np.abs(y)
    down, across = winograd.tiles_of(y.shape[1:3], m)
    tall, wide = s * (m * (down - 1) + n), s * (m * (across - 1) + n)
    padded = np.zeros((len(x), max(tall, x.shape[1] + ph), max(wide, x.shape[2] + pw), x.shape[3]))
    padded[:, ph : ph + x.shape[1], pw : pw + x.shape[2]] = x
    whole = np.zeros((len(y), m * down, m * across, y.shape[3]))
    whole[:, : y.shape[1], : y.shape[2]] = y
    forward, back, weight = np.zeros_like(whole), np.zeros_like(padded), np.zeros(w.shape)

    def sandwich(a, block):
        return np.einsum("ip,jq,...pqc->...ijc", a, a, block, optimize=True)

    for a, b in itertools.product(range(s), range(s)):
        u = np.einsum("ip,jq,pqco->ijco", g, g, w[a::s, b::s], optimize=True)
        du = np.zeros_like(u)
        for row, column in itertools.product(range(down), range(across)):
            inputs = (
                slice(None),
                slice(s * m * row + a, s * (m * row + n - 1) + a + 1, s),
                slice(s * m * column + b, s * (m * column + n - 1) + b + 1, s),
            )
            outputs = slice(None), slice(m * row, m * row + m), slice(m * column, m * column + m)
            v, dm = sandwich(b_t, padded[inputs]), sandwich(a_t.T, whole[outputs])
            forward[outputs] += sandwich(a_t, np.einsum("tijc,ijco->tijo", v, u))
            back[inputs] += sandwich(b_t.T, np.einsum("tijo,ijco->tijc", dm, u))
            du += np.einsum("tijc,tijo->ijco", v, dm)
        weight[a::s, b::s] = np.einsum("ip,jq,ijco->pqco", g, g, du, optimize=True)
    return (
        forward[:, : y.shape[1], : y.shape[2]],
        back[:, ph : ph + x.shape[1], pw : pw + x.shape[2]],
        weight,
    )


@pytest.mark.usefixtures("forced")
@cases(range(len(FORMS)))
def test_float32_is_within_the_bound_of_its_sums(number, geometry):
    rng = np.random.default_rng(2)
    x, w, y, settings, extra = arrays(number, geometry, rng.standard_normal, np.float32)
    found = triad(x, w, y, settings, extra)
    wide = [a.astype(np.float64) for a in (x, w, y)]
    exact, size = np_triad(*wide, settings, extra), bounds(*wide, settings, number)
    tiles = len(x) * int(np.prod(winograd.tiles_of(y.shape[1:3], FORMS[number].m)))
    phases, steps = settings["stride"][0] ** 2, 8 * FORMS[number].n  # roundings of the four transforms on a path
    lengths = (phases * x.shape[3], 9 * y.shape[3], tiles)
    for a, b, bound, k in zip(found, exact, size, lengths, strict=True):
        assert (np.abs(a - b) <= gamma(k + steps) * bound).all()
        assert np.sqrt(np.mean((a - b) ** 2)) <= 4e-6 * np.sqrt(np.mean(b**2))  # what is seen is far smaller


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("activation", kernels.ACTIVATIONS)
@cases(range(len(FORMS)))
def test_bias_and_activation_on_the_way_out(number, geometry, activation):
    rng = np.random.default_rng(3)
    x, w, y, settings, extra = arrays(number, geometry, rng.standard_normal, np.float64)
    kind = {"activation": activation, "slope": 0.2}
    b, c = rng.standard_normal(w.shape[3]), rng.standard_normal(w.shape[2])
    with kernels.use("reference"):
        wanted = (
            kernels.conv2d(x, w, b, **settings, **kind),
            kernels.conv2d_transpose(y, w, c, **settings, output_padding=extra, **kind),
        )
    found = (
        kernels.conv2d(x, w, b, **settings, **kind),
        kernels.conv2d_transpose(y, w, c, **settings, output_padding=extra, **kind),
    )
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def test_the_form_follows_the_size():
    def find(kernel=(4, 4), stride=(2, 2), channels=(64, 128), images=64, out=(7, 7)):
        number = winograd.find_form(kernel, stride, channels, images, out)
        return None if number is None else NAMES[number]

    assert find() == "F(4,2)"
    assert find(out=(2, 2)) == "F(2,2)"  # a tile of 4 would be mostly empty
    assert find(images=1, out=(4, 4)) == "F(2,2)"  # few tiles: transforming the weights is most of the work
    assert find(kernel=(3, 3), stride=(1, 1)) == "F(2,3)"
    assert find(channels=(3, 64)) is None  # too thin
    assert find(channels=(64, 24)) is None  # no whole vectors
    assert find(kernel=(5, 5)) is None
    assert find(kernel=(3, 3)) is None


@pytest.fixture
def transforms(monkeypatch):
    """Return a list that grows with every transform of weights."""
    seen, units = [], winograd._weights_units
    monkeypatch.setattr(winograd, "_weights_units", lambda *args, **kwargs: (seen.append(1), units(*args, **kwargs)))
    monkeypatch.setattr(winograd, "_kept", Kept())
    return seen


def test_weights_are_transformed_once_while_they_stay_the_same(transforms):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 8, 8, 16)), rng.standard_normal((4, 4, 16, 32))
    y = rng.standard_normal((3, 4, 4, 32))
    settings = {"stride": (2, 2), "padding": (1, 1)}

    def both():
        back = kernels.conv2d_transpose(y, w, output_padding=(0, 0), **settings)
        return kernels.conv2d(x, w, **settings), back

    expected = both()
    for _ in range(3):
        assert [a.tobytes() for a in both()] == [a.tobytes() for a in expected]
    assert len(transforms) == 2  # once for each of the two
    assert kernels.conv2d(x, w.copy(), **settings).tobytes() == expected[0].tobytes()
    assert len(transforms) == 3  # equal weights in another array are others
    assert len(winograd._kept) == 2  # and that array is gone
    w *= 2
    np.testing.assert_array_equal(both()[0], 2 * expected[0])
    assert len(transforms) == 5


@pytest.mark.parametrize("write", [lambda w: w.__setitem__((3, 1, 15, 31), 7.0), lambda w: np.negative(w, out=w)])
def test_a_write_into_weights_is_never_missed(transforms, write):
    """A finite difference by hand, or weights clipped in place, must not meet the transform of the weights before."""
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((2, 8, 8, 16)).astype("f4"), rng.standard_normal((4, 4, 16, 32)).astype("f4")
    settings = {"stride": (2, 2), "padding": (1, 1)}
    kernels.conv2d(x, w, **settings)
    write(w)
    found = kernels.conv2d(x, w, **settings)
    assert found.tobytes() == kernels.conv2d(x, w.copy(), **settings).tobytes()
    assert len(transforms) == 3


def test_a_moment_compares_once(transforms, monkeypatch):
    compared, bits = [], kept._bits
    monkeypatch.setattr(kept, "_bits", lambda array: (compared.append(1), bits(array))[1])
    x, w, settings = np.ones((1, 8, 8, 16)), np.ones((4, 4, 16, 16)), {"stride": (2, 2), "padding": (1, 1)}
    for _ in range(3):
        kernels.conv2d(x, w, **settings)
    assert len(compared) == 2 * 2  # the array and its copy
    with kernels.one_moment():
        for _ in range(3):
            kernels.conv2d(x, w, **settings)
        with kernels.one_moment():
            kernels.conv2d(x, w, **settings)
    assert len(compared) == 2 * 3
    w[0] = 2
    with kernels.one_moment():
        found = kernels.conv2d(x, w, **settings)
    np.testing.assert_allclose(found, kernels.conv2d(x, w.copy(), **settings))
    assert len(transforms) == 3


def test_an_optimisers_step_renews_the_transforms(transforms):
    layer = mg.nn.Conv2d(16, 16, 4, 2, 1)
    optimiser = mg.optim.SGD(layer.parameters(), 0.5)
    x = mg.random.Generator(0).normal((2, 8, 8, 16))
    before = layer(x).numpy()
    layer(x)
    assert len(transforms) == 1
    optimiser.step([np.ones(p.shape, np.float32) for p in layer.parameters()])
    assert not np.array_equal(layer(x).numpy(), before)
    assert len(transforms) == 2
    assert (
        layer(x).numpy().tobytes()
        == kernels.conv2d(x.data, layer.w.numpy(), layer.b.numpy(), stride=(2, 2), padding=(1, 1)).tobytes()
    )


def test_large_weights_and_many_are_not_kept(transforms, monkeypatch):
    x, settings = np.ones((1, 8, 8, 16)), {"stride": (2, 2), "padding": (1, 1)}
    many = [np.full((4, 4, 16, 16), float(i)) for i in range(MOST + 3)]
    for w in many:
        kernels.conv2d(x, w, **settings)
    assert len(winograd._kept) == MOST
    monkeypatch.setattr(winograd, "_kept", Kept())
    monkeypatch.setattr(winograd, "KEPT", 100)
    kernels.conv2d(x, many[0], **settings)
    assert len(winograd._kept) == 0
