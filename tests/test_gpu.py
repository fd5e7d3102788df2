"""What the emulated device is held to, on a real GPU: run by `pytest -m gpu` where there is one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigan import kernels
from minigan.engine import device
from minigan.gan import Config, build
from minigan.kernels.gpu import launch as cuda
from minigan.testing.gradcheck import check_row
from minigan.testing.optable import ROWS

from .test_kernels import GEOMETRIES, gamma, run_triad, triad
from .test_optable import HypothesisDraw, check_values

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(device.why_not("cuda") is not None, reason=str(device.why_not("cuda"))),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@given(data=st.data())
def test_values(row, data):
    check_values(row, "cuda", data)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@settings(max_examples=5)
@given(data=st.data())
def test_gradients(row, data):
    seed = data.draw(st.integers(0, 2**31), label="seed of the check")
    check_row(row, seed, HypothesisDraw(data), "cuda")


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_triad_is_exact_on_small_integers(geometry, tf32):
    rng = np.random.default_rng(0)
    (x, w, y), kept, extra, kernel = triad(geometry, lambda s: rng.integers(-8, 9, s), np.float32)
    wanted = run_triad(x, w, y, kept, extra, kernel)
    with cuda.allow_tf32(tf32):
        found = run_triad(*(device.to_device(a, "cuda") for a in (x, w, y)), kept, extra, kernel)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a.get(), b)


@pytest.mark.parametrize("shape", [(256, 128, 128), (1000, 777, 333), (5, 40_000, 3)])
def test_products_are_within_the_bound_of_a_dot_product(shape):
    m, k, n = shape
    x, w = (np.random.default_rng(i).standard_normal(s).astype(np.float32) for i, s in enumerate(((m, k), (k, n))))
    y = kernels.matmul(*(device.to_device(a, "cuda") for a in (x, w))).get()
    wide = x.astype(np.float64), w.astype(np.float64)
    assert (np.abs(y - wide[0] @ wide[1]) <= gamma(k) * (np.abs(wide[0]) @ np.abs(wide[1]))).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_bits_are_those_of_the_cpu(dtype):
    counters = {"seed": 2**40 + 7, "stream": 2, "step": 9}
    host, there = np.empty(100_003, dtype), device.module("cuda").empty(100_003, dtype)
    kernels.philox_uniform_(host, **counters)
    kernels.philox_uniform_(there, **counters)
    np.testing.assert_array_equal(there.get(), host)


@pytest.mark.parametrize("model", ["mlp", "dcgan"])
@pytest.mark.parametrize("penalty", ["none", "r1"])
def test_a_captured_step_is_the_eager_step_bit_by_bit_over_100_steps(model, penalty):
    data = {"mlp": "ring", "dcgan": "digits"}[model]
    config = replace(Config(), device="cuda", model=model, data=data, penalty=penalty, width=16, batch_size=16)
    states = []
    for reason in ("for comparison", None):
        trainer = build(config)
        trainer._captured.reason = reason
        for _ in range(100):
            found = trainer.step()
        assert np.isfinite(list(trainer.metrics(found).values())).all()
        states.append({name: x.tobytes() for name, x in trainer.state().items()})
    assert states[0] == states[1]
