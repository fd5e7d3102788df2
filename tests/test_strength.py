"""How strong G's gradient is: the table a learner asks for, dead zones, and what reaches each layer."""

from __future__ import annotations

import numpy as np
import pytest

import minigan as mg
from minigan import nn
from minigan.gan import Game
from minigan.gan.objectives import (
    HINGE,
    LEAST_SQUARES,
    MINIMAX,
    NON_SATURATING,
    OBJECTIVES,
    RELATIVISTIC,
    WASSERSTEIN,
)
from minigan.lab import strength
from minigan.random import Generator

# s: saturating σ(s), non-saturating 1 − σ(s), as printed
TABLE = {
    4: (".982", ".0180"),
    0: (".5", ".5"),
    -3: (".0474", ".953"),
    -5: ("6.69e-3", ".993"),
    -10: ("4.54e-5", ".99995"),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("s", TABLE)
def test_the_table_of_gradient_strengths(backend, s, dtype):
    logit = np.array([s], dtype)
    for objective, text in zip((MINIMAX, NON_SATURATING), TABLE[s], strict=True):
        found = strength.slopes(objective, logit)
        assert found.dtype == dtype
        assert found[0] == pytest.approx(float(text), rel=6e-3)
    sigma = 1 / (1 + np.exp(-float(s)))
    exact = 2e-6 if dtype == np.float32 else 1e-12  # four digits and more
    assert strength.slopes(MINIMAX, logit)[0] == pytest.approx(sigma, rel=exact)
    assert strength.slopes(NON_SATURATING, logit)[0] == pytest.approx(1 / (1 + np.exp(float(s))), rel=exact)


def test_slopes_of_every_objective_at_many_logits(backend):
    s = np.linspace(-6, 6, 13)
    sigma = 1 / (1 + np.exp(-s))
    wanted = {
        "minimax": sigma,
        "non-saturating": 1 - sigma,
        "least-squares": np.abs(s - 1),
        "hinge": np.ones(13),
        "wasserstein": np.ones(13),
        "relativistic": 1 - sigma,
    }
    for objective in OBJECTIVES.values():
        np.testing.assert_allclose(strength.slopes(objective, s), wanted[objective.name], rtol=1e-12)
        grid = strength.slopes(objective, s.reshape(13, 1))
        np.testing.assert_array_equal(grid[:, 0], strength.slopes(objective, s))
    shifted = strength.slopes(RELATIVISTIC, s, s + 2)
    np.testing.assert_allclose(shifted, 1 / (1 + np.exp(-2)), rtol=1e-12)


def test_the_share_in_the_dead_zone(backend):
    s = np.array([-10.0, -6.0, -4.0, 0.0, 4.0, 5.0])
    assert strength.dead_share(MINIMAX, s) == pytest.approx(2 / 6)  # σ(−4) = .018
    assert strength.dead_share(NON_SATURATING, s) == pytest.approx(1 / 6)  # 1 − σ(5) = .0067
    assert strength.dead_share(WASSERSTEIN, s) == 0
    assert strength.dead_share(LEAST_SQUARES, np.array([1.0, 1.005, 2.0])) == pytest.approx(2 / 3)


def test_where_the_gradient_is_exactly_0(backend):
    smallest = {np.float32: 149 * np.log(2), np.float64: 1074 * np.log(2)}  # e^−x is rounded to 0 from ½ of it on
    for dtype, end in smallest.items():
        end += np.log(2)
        assert strength.dead_zone(MINIMAX, dtype) == (pytest.approx(-end, abs=2e-3), None)
        assert strength.dead_zone(NON_SATURATING, dtype) == (None, pytest.approx(end, abs=2e-3))
        assert strength.dead_zone(RELATIVISTIC, dtype) == (None, pytest.approx(end, abs=2e-3))
    for objective in (LEAST_SQUARES, HINGE, WASSERSTEIN):
        assert strength.dead_zone(objective) == (None, None)


def test_norms_by_layer_add_up_to_the_whole_gradient(backend):
    generator = nn.Sequential(nn.Dense(2, 4), nn.BatchNorm(4), nn.ReLU(), nn.Dense(4, 3))
    game = Game(generator, nn.Sequential(nn.Dense(3, 4), nn.Tanh(), nn.Dense(4, 1)))
    real, z = Generator(1).normal((6, 3)), Generator(2).normal((6, 2))
    found = strength.layer_norms(game, real, z)
    assert list(found) == ["layers.0", "layers.1", "layers.3"]
    gradient = game.generator_gradient(real, z).parts
    whole = sum(float((part.data**2).sum()) for part in gradient)
    assert sum(norm**2 for norm in found.values()) == pytest.approx(whole, rel=1e-5)
    last = [*mg.grad(game.generator_loss(real, z).loss, [generator[3].w, generator[3].b])]
    assert found["layers.3"] == pytest.approx(np.sqrt(sum(float((x.data**2).sum()) for x in last)), rel=1e-5)
