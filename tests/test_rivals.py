"""Rivals of gradient descent: evolution of G, and Markov chains on a trained pair, on games with known answers."""

from __future__ import annotations

import numpy as np
import pytest

import minigan as mg
from minigan import nn, optim
from minigan.gan import Game, make_players
from minigan.gan.objectives import NON_SATURATING
from minigan.lab import small_games as games
from minigan.lab.evolution import MUTATIONS, Evolution
from minigan.lab.mcmc import Calibration, calibrate, langevin, logits_of, metropolis_hastings
from minigan.random import Generator

# --- evolution --------------------------------------------------------------------------------------------------------


def evolving(**settings):
    small = games.gaussians(2.0, nodes=64)
    game = Game(small.generator, small.discriminator, NON_SATURATING)
    return small, Evolution(
        game, *make_players(game, lambda p: optim.Adam(p, 0.05, (0.5, 0.9), ema_decay=0.5)), **settings
    )


def test_the_fittest_child_stays():
    small, dynamics = evolving(diversity=0.0)
    real, z = mg.tensor(small.real), mg.tensor(small.z)
    for _ in range(5):
        dynamics.step(lambda: real, lambda: z, lambda: z)
    before = {name: np.copy(a) for name, a in dynamics.generator.optimizer.state().items()}
    theta, chosen = small.generator.theta.numpy().copy(), dict(dynamics.chosen)
    children = {}
    dynamics.discriminator.move(dynamics.game.discriminator_gradient(real, z).parts)
    for objective in MUTATIONS:
        dynamics.generator.optimizer.buffer[...] = theta
        dynamics.generator.optimizer.load_state(before)
        optimiser = dynamics.generator.optimizer
        optimiser.step(Game(small.generator, small.discriminator, objective).generator_gradient(real, z).parts)
        quality = 1 / (1 + np.exp(-logits_of(small.discriminator, small.generator(z))))
        children[objective.name] = quality.mean(), small.generator.theta.item(), optimiser.steps
    winner = max(children, key=lambda name: children[name][0])

    small, dynamics = evolving(diversity=0.0)
    for _ in range(6):
        dynamics.step(lambda: real, lambda: z, lambda: z)
    assert small.generator.theta.item() == pytest.approx(children[winner][1], rel=1e-12)
    assert dynamics.chosen[winner] == chosen[winner] + 1
    assert dynamics.generator.optimizer.steps == children[winner][2] == 6
    assert dynamics.gradients == 6 * (1 + 2 * 3)


def test_diversity_is_how_little_d_is_pushed():
    small, dynamics = evolving(diversity=0.5)
    quality, variety = dynamics.fitness(small.real, small.z)
    game = Game(small.generator, small.discriminator, NON_SATURATING)
    parts = game.discriminator_gradient(small.real, small.z).parts
    norm = np.sqrt(sum(float((p.data**2).sum()) for p in parts))
    assert quality == 0.5
    assert variety == pytest.approx(-0.5 * np.log(norm), rel=1e-12)


def test_evolution_finds_the_data():
    small, dynamics = evolving()
    rng = np.random.default_rng(0)
    for _ in range(400):
        z = mg.tensor(rng.standard_normal((64, 1)))
        dynamics.step(lambda: mg.tensor(rng.standard_normal((64, 1)) + 2), lambda z=z: z, lambda z=z: z)
    assert dynamics.generator.optimizer.average()[0].item() == pytest.approx(2.0, abs=0.4)
    assert sum(dynamics.chosen.values()) == 400


def test_what_cannot_evolve():
    for settings in ({"k": 0}, {"mutations": ()}):
        with pytest.raises(ValueError, match="Evolution: needs k >= 1 and a mutation"):
            evolving(**settings)


# --- chains -----------------------------------------------------------------------------------------------------------


def test_calibration_finds_the_scale_of_logits():
    rng = np.random.default_rng(0)
    real, fake = rng.standard_normal(20_000) + 1, rng.standard_normal(20_000)
    truth = 1.0, -0.5  # log N(1, 1)/N(0, 1) = x − ½
    found = calibrate(real, fake)
    assert (found.slope, found.shift) == pytest.approx(truth, abs=0.05)
    scaled = calibrate(4 * real + 3, 4 * fake + 3)
    np.testing.assert_allclose(scaled(4 * real + 3), found(real), atol=0.05)
    assert calibrate(real[:500], fake).slope == pytest.approx(1, abs=0.15)  # numbers do not count
    told = calibrate(np.array([5.0, 6.0]), np.array([-5.0, -6.0]))
    assert np.isfinite([told.slope, told.shift]).all()
    assert calibrate(fake, real) == Calibration(0.0, 0.0)  # worse than nothing
    assert calibrate(np.full(5, 3.0), np.full(4, 3.0)) == Calibration(0.0, 0.0)


@pytest.mark.parametrize("offset", [0.0, 300.0, -1e4])
@pytest.mark.parametrize("scale", [1e-3, 0.03, 1.0, 40.0])
def test_calibration_does_not_depend_on_the_scale_of_logits(scale, offset):
    rng = np.random.default_rng(1)
    real, fake = rng.standard_normal(4000) + 1, rng.standard_normal(3000)
    wanted, found = calibrate(real, fake), calibrate(scale * real + offset, scale * fake + offset)
    assert found.slope * scale == pytest.approx(wanted.slope, rel=1e-6)
    np.testing.assert_allclose(found(scale * real + offset), wanted(real), rtol=1e-5, atol=1e-5)


def pair(shift, d):
    """G makes N(shift, 1), D knows the ratio to N(d, 1)."""
    generator = games.Shift(shift, 1.0)
    return generator, games.Affine(d - shift, (shift**2 - d**2) / 2)


def test_metropolis_hastings_turns_g_into_the_data():
    generator, discriminator = pair(0.0, 1.0)
    random, noise = Generator(1), Generator(2)
    start = Generator(3).normal((4000, 1), dtype=np.float64).numpy() + 1
    found, accepted = metropolis_hastings(
        generator, discriminator, Calibration(1.0, 0.0), lambda n: noise.normal((n, 1), dtype=np.float64), start,
        random, 60,
    )  # fmt: skip
    assert (found.mean(), found.std()) == pytest.approx((1, 1), abs=0.05)
    assert 0.3 < accepted < 0.9
    assert not np.isin(found, start).any()
    same, accepted = metropolis_hastings(
        generator, discriminator, Calibration(0.0, 0.0), lambda n: noise.normal((n, 1), dtype=np.float64), start,
        random, 5,
    )  # fmt: skip
    assert accepted == 1.0  # a D that says nothing refuses nothing
    assert same.mean() == pytest.approx(0, abs=0.06)


def test_langevin_follows_d_through_g():
    generator, discriminator = pair(0.0, 1.0)
    z = Generator(4).normal((4000, 1), dtype=np.float64)
    found = langevin(generator, discriminator, Calibration(1.0, 0.0), z, Generator(5), steps=400, size=0.05)
    assert (found.mean(), found.std()) == pytest.approx((1, 1), abs=0.06)  # E = ½z² − z: N(1, 1)
    np.testing.assert_array_equal(
        langevin(generator, discriminator, Calibration(1.0, 0.0), z, Generator(5), steps=0), generator(z).numpy()
    )


def test_langevin_follows_d_as_it_is_in_inference():
    generator, judge = nn.Dense(2, 3), nn.Dense(3, 1)
    forgetful = nn.Sequential(nn.InstanceNoise(5.0), nn.Dropout(0.9), judge)
    z = Generator(0).normal((6, 2)).numpy()
    found = [langevin(generator, d, Calibration(1.0, 0.0), z, Generator(3), 3) for d in (judge, forgetful)]
    np.testing.assert_array_equal(*found)
    assert forgetful.training


@pytest.mark.parametrize("device", ["cpu", "cuda-emulated"])
def test_chains_take_float32_networks(device):
    generator = nn.Sequential(nn.Dense(2, 4), nn.ReLU(), nn.Dense(4, 3)).to(device)
    discriminator = nn.Sequential(nn.Dense(3, 4), nn.LeakyReLU(), nn.Dense(4, 1)).to(device)
    noise, start = Generator(0, device=device), Generator(1).normal((7, 3)).numpy()
    scale = calibrate(logits_of(discriminator, start), logits_of(discriminator, generator(noise.normal((9, 2)))))
    found, _ = metropolis_hastings(
        generator, discriminator, scale, lambda n: noise.normal((n, 2)), start, Generator(2), 3
    )
    assert (found.shape, found.dtype) == ((7, 3), np.float32)
    still = generator.with_parameters([p.detach() for p in generator.parameters()])
    found = langevin(still, discriminator, scale, noise.normal((7, 2)), Generator(3), 3)
    assert (found.shape, found.dtype) == ((7, 3), np.float32)


def test_chains_need_a_judge_of_single_samples():
    packed = nn.Sequential(nn.Pack(2), nn.Dense(6, 1))
    with pytest.raises(ValueError, match="4 logits for 8 samples cannot judge them singly"):
        logits_of(packed, np.ones((8, 3), np.float32))
    with pytest.raises(ValueError, match="4 logits for 8 samples cannot judge them singly"):
        langevin(nn.Dense(2, 3), packed, Calibration(1.0, 0.0), np.ones((8, 2), np.float32), Generator(0))
    generator, discriminator = pair(0.0, 1.0)
    with pytest.raises(ValueError, match="length must be at least 1"):
        metropolis_hastings(
            generator, discriminator, Calibration(1.0, 0.0), lambda n: mg.tensor(np.ones((n, 1))), np.ones((2, 1)),
            Generator(0), 0,
        )  # fmt: skip


def test_rejected_children_leave_no_trace_in_batch_norm():
    generator = nn.Sequential(nn.Dense(1, 3), nn.BatchNorm(3), nn.ReLU(), nn.Dense(3, 1)).astype(np.float64)
    discriminator = games.Affine(0.3, -0.1)
    seen = {}
    for mutations in (MUTATIONS, *((objective,) for objective in MUTATIONS)):
        players = [
            player.with_parameters([mg.tensor(p.numpy().copy(), requires_grad=True) for p in player.parameters()])
            for player in (discriminator, generator)
        ]
        critic, twin = players
        game = Game(twin, critic, NON_SATURATING)
        dynamics = Evolution(game, *make_players(game, lambda p: optim.SGD(p, 0.1)), mutations=mutations, diversity=0.0)
        z = Generator(1).normal((8, 1), dtype=np.float64)
        dynamics.step(lambda z=z: z + 3, lambda z=z: z, lambda z=z: z)
        seen[tuple(o.name for o in mutations)] = twin.named_buffers(), dynamics.chosen
    every, chosen = seen.pop(tuple(o.name for o in MUTATIONS))
    alone, _ = seen[(next(name for name, count in chosen.items() if count),)]
    assert set(every) == set(alone) != set()
    for name, value in alone.items():
        np.testing.assert_array_equal(every[name], value)
