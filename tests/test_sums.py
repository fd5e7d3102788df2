"""Sums lose no digits: float32 against float64, over every choice of axes."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest

import minigan as mg
from minigan import kernels, ops

U32, U64 = 2.0**-24, 2.0**-53


def within_a_rounding(found, x, axes, keepdims=False):
    """|ŷ − y| ≤ u |y| + n u₆₄ Σ |x|: one rounding of the result, and those of a sum of n terms in float64."""
    wide = x.astype(np.longdouble)
    wanted, size = wide.sum(axes, keepdims=keepdims), np.abs(wide).sum(axes, keepdims=keepdims)
    count = x.size / max(1, wanted.size)
    u = U32 if x.dtype == np.float32 else U64
    assert found.shape == wanted.shape
    assert found.dtype == x.dtype
    assert (np.abs(found - wanted) <= 1.0001 * (u * np.abs(wanted) + count * U64 * size)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape",
    [
        (),
        (0,),
        (0, 3),
        (5,),
        (4097,),
        (9000, 3),
        (3, 9000),
        (7, 5, 700),
        (2, 1, 4100),
        (65, 129, 2),
        (1, 8193),
        (130, 600),
    ],
)
def test_a_sum_over_any_axes_is_off_by_one_rounding(shape, dtype):
    x = np.asarray(np.random.default_rng(0).standard_normal(shape) + 1, dtype)
    for count in range(len(shape) + 1):
        for axes in itertools.combinations(range(len(shape)), count):
            for keepdims in (False, True):
                for backend in ("reference", "numba"):
                    with kernels.use(backend):
                        within_a_rounding(kernels.sum_axes(x, axes=axes, keepdims=keepdims), x, axes, keepdims)
                within_a_rounding(kernels.sum_axes(x.T.copy().T, axes=axes, keepdims=keepdims), x, axes, keepdims)


def test_wide_rows_are_summed_without_a_copy_of_all():
    """Sums of chunks take a part of the memory of x: over 64 rows of 65,536 columns, one row of float64."""
    x = np.ones((64, 65_536), np.float32)
    kernels.sum_axes(x, axes=(0,), keepdims=False)
    tracemalloc.start()
    try:
        assert (kernels.sum_axes(x, axes=(0,), keepdims=False) == 64).all()
        assert tracemalloc.get_traced_memory()[1] < x.nbytes / 4
    finally:
        tracemalloc.stop()


def test_a_million_rows_of_a_tenth():
    x = np.full((1_000_000, 2), 0.1, np.float32)
    assert ops.mean(x, axis=0).data.tolist() == [np.float32(0.1)] * 2
    noise = mg.random.Generator(0).normal((1_000_000, 2)) + 100.0
    wide = noise.data.astype(np.float64)
    np.testing.assert_allclose(ops.var(noise, axis=0).data, wide.var(0), rtol=1e-5)
    np.testing.assert_allclose(ops.mean(noise, axis=0).data, wide.mean(0), rtol=6e-8)


def test_the_gradient_of_a_bias_has_all_its_digits():
    g = mg.random.Generator(1).uniform((200_000, 3))
    for activation in ("linear", "relu", "tanh"):
        b = mg.tensor(np.ones(3, np.float32), requires_grad=True)
        y = ops.bias_act(np.zeros((200_000, 3), np.float32), b, activation=activation, slope=0.0)
        slope = 1 - np.tanh(np.float64(1)) ** 2 if activation == "tanh" else 1.0
        wanted = (g.data.astype(np.float64) * slope).sum(0)
        np.testing.assert_allclose(mg.grad(y, b, g).data, wanted, rtol=6e-7)
        if activation == "linear":
            np.testing.assert_allclose(mg.grad(y, b, g).data, wanted, rtol=6e-8)


def test_repeated_indices_add_up_without_loss():
    x = mg.tensor([0.0], requires_grad=True)
    y = x[np.zeros(200_000, int)]
    g = np.full(200_000, 0.1, np.float32)
    np.testing.assert_allclose(mg.grad(y, x, g).data, 200_000 * np.float64(np.float32(0.1)), rtol=6e-8)


def test_the_bits_do_not_depend_on_threads_or_layout():
    x = np.random.default_rng(0).standard_normal((300, 70, 9)).astype(np.float32)
    for axes in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        plain = kernels.sum_axes(x, axes=axes, keepdims=False)
        for other in (np.asfortranarray(x), x[::-1].copy()[::-1]):
            assert kernels.sum_axes(other, axes=axes, keepdims=False).tobytes() == plain.tobytes()
