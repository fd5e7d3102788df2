"""The game: objectives and penalties against closed forms, the players' steps, and the bundled networks."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

import minigan as mg
from minigan import nn, ops, optim
from minigan.gan import MODELS, Alternating, Game, dcgan, make_players, mlp, objectives, penalties
from minigan.gan.objectives import (
    HINGE,
    LEAST_SQUARES,
    MINIMAX,
    NON_SATURATING,
    OBJECTIVES,
    RELATIVISTIC,
    WASSERSTEIN,
)
from minigan.random import Generator
from minigan.testing.gradcheck import check_grads

DTYPES = [np.float32, np.float64]
LOG2 = math.log(2)


def sigmoid(s):
    return 1 / (1 + math.exp(-s))


def logits(*values, dtype=np.float64):
    return mg.tensor(np.array(values, dtype), requires_grad=True)


# --- objectives -------------------------------------------------------------------------------------------------------


def test_the_objectives_and_what_they_say_of_themselves():
    assert list(OBJECTIVES) == ["minimax", "non-saturating", "least-squares", "hinge", "wasserstein", "relativistic"]
    for name, objective in OBJECTIVES.items():
        assert objective.name == name
        assert objective.formula.count("L_") >= 2
        assert objective.source.startswith("arXiv:1")


@pytest.mark.parametrize(
    ("objective", "discriminator", "generator"),
    [
        (MINIMAX, 2 * LOG2, -LOG2),
        (NON_SATURATING, 2 * LOG2, LOG2),
        (LEAST_SQUARES, 0.5, 0.5),
        (HINGE, 2, 0),
        (WASSERSTEIN, 0, 0),
        (RELATIVISTIC, LOG2, LOG2),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_losses_at_logits_of_0(backend, objective, discriminator, generator, dtype):
    s = mg.tensor(np.zeros((5, 1), dtype))
    for loss, expected in ((objective.discriminator(s, s), discriminator), (objective.generator(s, s), generator)):
        assert loss.shape == ()
        assert loss.dtype == dtype
        assert loss.item() == pytest.approx(expected, rel=1e-7 if dtype == np.float32 else 1e-15)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=lambda o: o.name)
def test_equilibrium_values(backend, objective):
    s = mg.tensor(np.full((4, 1), 0.5 if objective is LEAST_SQUARES else 0.0))
    found = objective.discriminator(s, s).item(), objective.generator(s, s).item()
    for value, expected in zip(found, objective.equilibrium, strict=True):
        assert expected is None or value == pytest.approx(expected, rel=1e-14)


# real and generated logits 1 and −2, then 3 and 0.5: L_D, L_G by hand
@pytest.mark.parametrize(
    ("objective", "discriminator", "generator"),
    [
        (LEAST_SQUARES, (0 + 4) / 4 + (4 + 0.25) / 4, (9 + 0.25) / 4),
        (HINGE, 0 + 1.5 / 2, 1.5 / 2),
        (WASSERSTEIN, -0.75 - 2, 0.75),
        (MINIMAX, -sum(map(math.log, (sigmoid(1), sigmoid(3), sigmoid(2), sigmoid(-0.5)))) / 2, None),
        (NON_SATURATING, None, -(math.log(sigmoid(-2)) + math.log(sigmoid(0.5))) / 2),
        (
            RELATIVISTIC,
            -(math.log(sigmoid(3)) + math.log(sigmoid(2.5))) / 2,
            -math.log(sigmoid(-3) * sigmoid(-2.5)) / 2,
        ),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_losses_by_hand(backend, objective, discriminator, generator):
    real, fake = logits(1, 3), logits(-2, 0.5)
    if discriminator is not None:
        assert objective.discriminator(real, fake).item() == pytest.approx(discriminator, rel=1e-14)
    if generator is not None:
        assert objective.generator(real, fake).item() == pytest.approx(generator, rel=1e-14)


def test_identities_of_softplus(backend):
    s = np.linspace(-30, 30, 121)
    t = mg.tensor(s)
    np.testing.assert_allclose((ops.softplus(t) - ops.softplus(-t)).numpy(), s, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(ops.softplus(-t).numpy(), -np.log(ops.sigmoid(t).numpy()), rtol=1e-12, atol=2e-15)
    real, fake = logits(*s), logits(*(s[::-1] / 3))
    assert MINIMAX.discriminator(real, fake).item() == pytest.approx(NON_SATURATING.discriminator(real, fake).item())
    both = NON_SATURATING.generator(None, fake).item() + MINIMAX.generator(None, fake).item()
    assert both == pytest.approx(-fake.numpy().mean(), abs=1e-12)
    swapped = RELATIVISTIC.discriminator(fake, real).item()
    assert RELATIVISTIC.generator(real, fake).item() == pytest.approx(swapped, rel=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("s", "d", "saturating", "non_saturating"),
    [
        (4, 0.982, 0.982, 0.0180),
        (0, 0.5, 0.5, 0.5),
        (-3, 0.0474, 0.0474, 0.953),
        (-5, 6.69e-3, 6.69e-3, 0.993),
        (-10, 4.54e-5, 4.54e-5, 0.99995),
    ],
)
def test_gradient_strength(backend, dtype, s, d, saturating, non_saturating):
    assert ops.sigmoid(mg.tensor(np.array(s, dtype))).item() == pytest.approx(d, rel=2e-3)
    for objective, table, exact in (
        (MINIMAX, saturating, -sigmoid(s)),
        (NON_SATURATING, non_saturating, -sigmoid(-s)),
    ):
        x = mg.tensor(np.array([[s]], dtype), requires_grad=True)
        slope = mg.grad(objective.generator(None, x), x)
        assert slope.dtype == dtype
        assert slope.item() == pytest.approx(exact, rel=2e-7 if dtype == np.float32 else 1e-14)
        assert -slope.item() == pytest.approx(table, rel=2e-3)


EXTREMES = {  # at s = −1e4, +1e4: L_D where real logits are s, where generated ones are s, and L_G; then their slopes
    "minimax": ([1e4, 0], [0, 1e4], [0, -1e4], [-1, 0], [0, 1], [0, -1]),
    "non-saturating": ([1e4, 0], [0, 1e4], [1e4, 0], [-1, 0], [0, 1], [-1, 0]),
    "least-squares": ([10001**2 / 2, 9999**2 / 2], [5e7, 5e7], [10001**2 / 2, 9999**2 / 2])
    + ([-10001, 9999], [-1e4, 1e4], [-10001, 9999]),
    "hinge": ([10001, 0], [0, 10001], [1e4, -1e4], [-1, 0], [0, 1], [-1, -1]),
    "wasserstein": ([1e4, -1e4], [-1e4, 1e4], [1e4, -1e4], [-1, -1], [1, 1], [-1, -1]),
    "relativistic": ([1e4, 0], [0, 1e4], [1e4, 0], [-1, 0], [0, 1], [-1, 0]),
}
AT_0 = {"minimax": LOG2, "non-saturating": LOG2, "least-squares": None, "hinge": 1, "wasserstein": 0, "relativistic": 0}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sign", [0, 1], ids=["-1e4", "+1e4"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_extreme_logits(backend, name, sign, dtype):
    objective, value = OBJECTIVES[name], (-1e4, 1e4)[sign]
    rel = 1e-6 if dtype == np.float32 else 1e-12
    expected = [row[sign] for row in EXTREMES[name]]
    other = {"least-squares": (0.5, 0.0)}.get(name, (AT_0[name],) * 2)  # what the logit of 0 adds to L_D
    for turn in range(3):
        s, zero = logits(value, dtype=dtype), logits(0, dtype=dtype)
        if turn == 2:
            loss, add = objective.generator(zero, s), 0
        else:
            loss = objective.discriminator(*((s, zero), (zero, s))[turn])
            add = other[1 - turn]
        slope = mg.grad(loss, s, create_graph=True)
        assert loss.item() == pytest.approx(expected[turn] + add, rel=rel, abs=1e-30)
        assert slope.item() == pytest.approx(expected[3 + turn], rel=rel, abs=1e-30)
        if name == "least-squares":
            assert mg.grad(slope, s).item() == 1
        elif name in ("minimax", "non-saturating", "relativistic"):
            assert mg.grad(slope, s).item() == 0


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=lambda o: o.name)
def test_gradients_of_the_objectives(backend, objective):
    rng = np.random.default_rng(0)
    args = [rng.uniform(1.1, 3, (4, 1)) * [[1], [-1], [0.3], [-0.3]] for _ in range(2)]
    check_grads(objective.discriminator, args)
    check_grads(objective.generator, args)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=lambda o: o.name)
def test_accuracy(objective):
    real, fake = np.array([2.0, 0.7, 0.3, -1.0]), np.array([-1.0, 0.3, 0.7, -2.0])
    expected = {"least-squares": (0.5, 0.75), "relativistic": (0.75, 0.75)}
    assert objective.accuracy(real, fake) == expected.get(objective.name, (0.75, 0.5))


def test_separable_objectives_take_batches_of_different_sizes():
    assert WASSERSTEIN.discriminator(logits(1, 2, 3), logits(4)).item() == 2


@pytest.mark.parametrize("real", [None, "longer"])
@pytest.mark.parametrize("player", ["discriminator", "generator"])
def test_relativistic_pairs_need_one_shape(real, player):
    real = None if real is None else logits(1, 2, 3)
    with pytest.raises(ValueError, match=r"relativistic: .*one shape, got (None|\(3,\)), \(2,\)"):
        getattr(RELATIVISTIC, player)(real, logits(1, 2))


# --- penalties --------------------------------------------------------------------------------------------------------


def half_square(x):
    """D(x) = ‖x‖²/2, so ∇D(x) = x."""
    return ops.sum(ops.square(x), axis=1) * 0.5


def linear_discriminator(w):
    return nn.Dense(len(w), 1).with_parameters([logits(*([v] for v in w)), logits(0.5)])


@pytest.mark.parametrize("penalty", [penalties.r1, penalties.r2])
def test_r1_and_r2_of_a_linear_discriminator(backend, penalty):
    w = [1.0, -2.0, 0.5]
    network, x = linear_discriminator(w), Generator(0).normal((5, 3), dtype=np.float64)
    value = penalty(3.0).of(network, x, x)
    assert value.item() == pytest.approx(1.5 * 5.25, rel=1e-14)
    (gradient,) = mg.grad(value, network.parameters()[:1])
    np.testing.assert_allclose(gradient.numpy()[:, 0], 3 * np.array(w), rtol=1e-14)


def test_r1_is_at_real_samples_and_r2_at_generated_ones(backend):
    real, fake = logits([3.0, 4.0], [0.0, 1.0]), logits([1.0, 1.0], [2.0, 0.0])
    assert penalties.r1.of(half_square, real, fake).item() == 0.5 * (25 + 1) / 2
    assert penalties.r2.of(half_square, real, fake).item() == 0.5 * (2 + 4) / 2
    with pytest.raises(ValueError, match="r1: the weight must be a number >= 0, not -1"):
        penalties.r1(-1)


@pytest.mark.parametrize("penalty", [penalties.r1, penalties.r2])
def test_penalties_take_arrays(penalty):
    x = np.array([[3.0, 4.0]])
    assert penalty(2.0).of(half_square, x, x).item() == 25


def test_wgan_gp_takes_the_norm_of_every_sample_by_itself(backend):
    x = mg.tensor(np.array([[3.0, 4.0], [0.6, 0.8]]))  # norms 5 and 1; over the batch it would be √26
    found = penalties.wgan_gp(10.0).of(half_square, x, x, noise=Generator(0))
    assert found.item() == pytest.approx(10 * (16 + 0) / 2, rel=1e-12)


def test_wgan_gp_draws_an_epsilon_for_every_sample(backend):
    real, fake = mg.tensor(np.tile([1.0, 0.0], (2, 1))), mg.tensor(np.zeros((2, 2)))
    epsilon = Generator(5, stream="penalty").uniform((2, 1), dtype=np.float64).numpy()
    assert epsilon[0] != epsilon[1]
    generator = Generator(5, stream="penalty")
    found = penalties.wgan_gp.of(half_square, real, fake, noise=generator)  # ‖∇D(x̂)‖ = ε
    assert found.item() == pytest.approx(10 * ((epsilon - 1) ** 2).mean(), rel=1e-12)
    assert generator.step == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_wgan_gp_is_finite_where_the_gradient_vanishes(backend, dtype):
    w = mg.tensor(np.zeros((3, 1), dtype), requires_grad=True)
    x = mg.tensor(np.ones((4, 3), dtype))
    value = penalties.wgan_gp(2.0).of(lambda x: ops.dense(x, w), x, x, noise=Generator(0))
    assert value.dtype == dtype
    assert value.item() == pytest.approx(2, rel=1e-5)
    np.testing.assert_array_equal(mg.grad(value, w).numpy(), 0)


def test_wgan_gp_needs_one_shape():
    with pytest.raises(ValueError, match=r"real \(2, 3\) and fake \(3, 3\)"):
        penalties.wgan_gp.of(half_square, mg.tensor(np.ones((2, 3))), mg.tensor(np.ones((3, 3))), noise=Generator(0))
    with pytest.raises(ValueError, match="draws at random needs noise"):
        penalties.wgan_gp.of(half_square, np.ones((2, 3)), np.ones((2, 3)))


def test_penalties_of_packs_take_the_norm_of_what_d_judges(backend):
    w, x = np.array([[1.0], [2.0], [-1.0], [0.5]]), Generator(2).normal((6, 2), dtype=np.float64)
    packed = nn.Sequential(nn.Pack(2), nn.Dense(4, 1).astype(np.float64))
    packed[1].w.data[...] = w
    assert penalties.r1(1.0).of(packed, x).item() == pytest.approx(0.5 * (w**2).sum(), rel=1e-12)
    found = penalties.wgan_gp(1.0).of(packed, x, x, noise=Generator(0)).item()
    assert found == pytest.approx((np.sqrt((w**2).sum()) - 1) ** 2, rel=1e-12)


def test_lp_costs_only_what_is_too_steep(backend):
    x = mg.tensor(np.array([[3.0, 4.0], [0.6, 0.8], [0.3, 0.4]]))  # norms 5, 1 and 0.5
    found = penalties.lp(10.0).of(half_square, x, x, noise=Generator(0))
    assert found.item() == pytest.approx(10 * 16 / 3, rel=1e-12)
    with pytest.raises(ValueError, match=r"real \(3, 2\) and fake \(2, 2\)"):
        penalties.lp.of(half_square, x, x[:2], noise=Generator(0))


def test_dragan_looks_around_real_samples_in_every_direction(backend):
    real = Generator(1).normal((4000, 2), dtype=np.float64).numpy() * 3
    delta = Generator(7, stream="penalty").normal(real.shape, dtype=np.float64).numpy() * 0.5 * real.std()
    assert (np.sign(delta[:, 0]) != np.sign(delta[:, 1])).mean() == pytest.approx(0.5, abs=0.05)
    generator = Generator(7, stream="penalty")
    found = penalties.dragan(2.0).of(half_square, real, noise=generator)  # ∇D(x) = x
    assert found.item() == pytest.approx(2 * ((np.linalg.norm(real + delta, axis=1) - 1) ** 2).mean(), rel=1e-10)
    assert generator.step == 1


def test_weight_decay_pulls_every_weight_towards_0(backend):
    network = linear_discriminator([3.0, -4.0])
    value = penalties.weight_decay(0.5).of(network, np.ones((1, 2)), parameters=network.parameters())
    assert value.item() == pytest.approx(0.25 * (25 + 0.25), rel=1e-14)
    for gradient, p in zip(mg.grad(value, network.parameters()), network.parameters(), strict=True):
        np.testing.assert_allclose(gradient.numpy(), 0.5 * p.numpy(), rtol=1e-14)
    game = Game(network, network, MINIMAX, (penalties.weight_decay(0.5),))
    assert game.discriminator_loss(np.ones((1, 2)), np.ones((1, 2))).penalty.item() == value.item()


def test_the_penalty_of_nagarajan_and_kolter_is_a_gradient_through_a_gradient(backend):
    real, theta = mg.tensor(np.array([[2.0]])), logits([3.0])

    def value_of(theta):
        w, b = logits([1.5]), logits(0.5)
        loss = MINIMAX.discriminator(real @ w + b, theta @ w + b)
        return penalties.nagarajan_kolter(loss, [w, b], eta=0.5)

    sigma = 1 / (1 + np.exp(-np.array([2.0, 3.0]) * 1.5 - 0.5))
    slopes = -(1 - sigma[0]) * np.array([2, 1]) + sigma[1] * np.array([3, 1])
    assert value_of(theta).item() == pytest.approx(0.5 * (slopes**2).sum(), rel=1e-12)
    check_grads(value_of, [np.array([[3.0]])])


@pytest.mark.parametrize("name", [name for name in penalties.PENALTIES if name != "weight-decay"])
def test_every_penalty_in_a_game_is_differentiated_through_the_parameters(backend, name):
    network = nn.Sequential(nn.Dense(2, 3), nn.Tanh(), nn.Dense(3, 1))
    real, fake = (Generator(seed).normal((3, 2), dtype=np.float64) for seed in (1, 2))
    penalty = penalties.PENALTIES[name]

    def of_weights(*tensors):
        game = Game(network, network.with_parameters(tensors), MINIMAX, (penalty(0.7),))
        return game.discriminator_loss(real, fake).penalty

    rng = np.random.default_rng(4)
    values = [rng.standard_normal(p.shape) for p in network.parameters()]
    check_grads(of_weights, values)
    assert of_weights(*map(mg.tensor, values)).item() > 0
    assert penalty.source.startswith("arXiv:")


ON_REAL = {  # D's loss on a real logit, and on a generated one
    "minimax": (lambda s: np.logaddexp(0, -s), lambda s: np.logaddexp(0, s)),
    "least-squares": (lambda s: (s - 1) ** 2 / 2, lambda s: s**2 / 2),
    "hinge": (lambda s: np.maximum(0, 1 - s), lambda s: np.maximum(0, 1 + s)),
}
ON_REAL["non-saturating"] = ON_REAL["minimax"]


@pytest.mark.parametrize("label", [0.9, 0.7])
@pytest.mark.parametrize("objective", [MINIMAX, NON_SATURATING, LEAST_SQUARES, HINGE], ids=lambda o: o.name)
def test_one_sided_label_smoothing(backend, objective, label):
    smooth = objectives.smoothed(objective, label)
    real, fake = np.array([[2.0], [-1.4], [0.3]]), np.array([[0.5], [-3.0]])
    as_real, as_fake = ON_REAL[objective.name]
    wanted = (label * as_real(real) + (1 - label) * as_fake(real)).mean() + as_fake(fake).mean()
    assert smooth.discriminator(real, fake).item() == pytest.approx(wanted, rel=1e-12)
    check_grads(smooth.discriminator, [real, fake])
    assert smooth.generator(None, fake).item() == objective.generator(None, fake).item()
    assert smooth.accuracy(real, fake) == objective.accuracy(real, fake)


def test_a_smoothed_least_square_aims_at_the_label(backend):
    x = logits([1.3])
    loss = objectives.smoothed(LEAST_SQUARES, 0.9).discriminator(x, np.array([[-0.4]]))
    assert mg.grad(loss, x).item() == pytest.approx(1.3 - 0.9, rel=1e-12)


def test_labels_that_cannot_be_smoothed():
    for objective in (RELATIVISTIC, WASSERSTEIN):
        with pytest.raises(ValueError, match=f"{objective.name} has no labels to smooth"):
            objectives.smoothed(objective)
    for label in (0.5, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"in \(0.5, 1\]"):
            objectives.smoothed(HINGE, label)


@pytest.mark.parametrize("penalty", ["r1", "r2", "wgan_gp"])
def test_gradients_through_the_weights(backend, penalty):
    network = nn.Sequential(nn.Dense(2, 3), nn.Tanh(), nn.Dense(3, 1))
    real, fake = (Generator(seed).normal((3, 2), dtype=np.float64) for seed in (1, 2))
    rng = np.random.default_rng(4)

    def of_weights(*tensors):
        weighted = getattr(penalties, penalty)(2.0)
        return weighted.of(network.with_parameters(tensors), real, fake, noise=Generator(3))

    check_grads(of_weights, [rng.standard_normal(p.shape) for p in network.parameters()])


@pytest.mark.parametrize("penalty", ["r2", "wgan_gp"])
def test_penalties_follow_samples_that_have_a_graph_and_hold_others_constant(penalty):
    network = nn.Sequential(nn.Dense(2, 3), nn.Tanh(), nn.Dense(3, 1)).astype(np.float64)
    apply, real = getattr(penalties, penalty).of, np.ones((1, 2))

    def of_theta(theta):
        return apply(network, mg.tensor(real), theta * 2.0, noise=Generator(0))

    check_grads(of_theta, [np.array([[1.0, 2.0]])])
    theta = mg.tensor([[1.0, 2.0]], dtype=np.float64, requires_grad=True)
    with pytest.raises(ValueError, match="path"):
        mg.grad(apply(network, mg.tensor(real), (theta * 2.0).detach(), noise=Generator(0)), theta)


# --- the game ---------------------------------------------------------------------------------------------------------


R1 = penalties.r1


def small_game(objective=NON_SATURATING, *terms):
    generator = nn.Sequential(nn.Dense(2, 4), nn.ReLU(), nn.Dense(4, 3))
    discriminator = nn.Sequential(nn.Dense(3, 4), nn.LeakyReLU(), nn.Dense(4, 1))
    return Game(generator, discriminator, objective, terms)


def noise(seed, width=2):
    return Generator(seed).normal((5, width))


def snapshot(network):
    return b"".join(p.numpy().tobytes() for p in network.parameters())


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=lambda o: o.name)
def test_a_players_step_leaves_the_other_player_alone(backend, objective):
    game, real = small_game(objective, R1(1.0)), noise(0, 3)
    d, g = (optim.SGD(player.parameters(), 0.1) for player in (game.discriminator, game.generator))
    before = snapshot(game.generator), snapshot(game.discriminator)
    gradient, losses = game.discriminator_gradient(real, noise(1))
    assert [x.shape for x in gradient] == [p.shape for p in game.discriminator.parameters()]
    assert losses.real_logits.shape == losses.fake_logits.shape == (5, 1)
    assert not any(x.requires_grad or x.inputs for x in losses if x is not None)  # they hold no graph, and its memory
    d.step(gradient)
    middle = snapshot(game.generator), snapshot(game.discriminator)
    assert (middle[0] == before[0], middle[1] == before[1]) == (True, False)
    gradient, losses = game.generator_gradient(real, noise(2))
    assert [x.shape for x in gradient] == [p.shape for p in game.generator.parameters()]
    assert losses.penalty is None
    g.step(gradient)
    after = snapshot(game.generator), snapshot(game.discriminator)
    assert (after[0] == middle[0], after[1] == middle[1]) == (False, True)


def test_the_discriminator_does_not_see_the_generators_graph():
    game = small_game()
    fake = game.generate(noise(1))
    assert not fake.x.requires_grad
    with pytest.raises(ValueError, match="path"):
        mg.grad(game.discriminator_loss(noise(0, 3), fake).loss, game.generator.parameters())


def test_penalties_add_up_in_the_discriminators_loss(backend):
    r2, gp = penalties.r2, penalties.wgan_gp
    game = small_game(HINGE, R1(2.0), r2(3.0), gp(5.0))
    real, fake = noise(0, 3), game.generate(noise(1))
    losses = game.discriminator_loss(real, fake)
    d = game.discriminator
    expected = (
        penalties.r1(2.0).of(d, real).item()
        + penalties.r2(3.0).of(d, real, fake.x).item()
        + penalties.wgan_gp(5.0).of(d, real, fake.x, noise=Generator(0, stream="penalty")).item()
    )
    assert losses.penalty.item() == pytest.approx(expected, rel=1e-5)
    assert (losses.loss - losses.penalty).item() == pytest.approx(
        HINGE.discriminator(d(real), d(fake.x)).item(), rel=1e-5
    )


@pytest.mark.parametrize("terms", [(), (R1(1.0),)], ids=["plain", "r1"])
def test_the_game_takes_arrays(terms):
    game = small_game(NON_SATURATING, *terms)
    real, fake = noise(0, 3), game.generate(noise(1).numpy())
    expected = game.discriminator_loss(real, fake).loss.item()
    assert game.discriminator_loss(real.numpy(), fake).loss.item() == expected


@pytest.mark.parametrize("k", [1, 3])
def test_the_discriminator_takes_k_steps_on_fresh_samples(backend, k):
    calls = []

    def draw(name, width):
        def fresh():
            calls.append(name)
            return noise(len(calls), width)

        return fresh

    game = small_game()
    players = make_players(game, lambda p: optim.SGD(p, 0.1))
    step = Alternating(game, *players, k=k).step(draw("real", 3), draw("noise of D", 2), draw("noise of G", 2))
    assert calls == ["real", "noise of D"] * k + ["noise of G"]
    assert [player.optimizer.steps for player in players] == [k, 1]
    assert step.discriminator.loss.item() > 0
    assert step.generator.real_logits is None


def test_no_steps_of_the_discriminator_are_refused():
    game = small_game()
    players = make_players(game, lambda p: optim.SGD(p, 0.1))
    with pytest.raises(ValueError, match="k must"):
        Alternating(game, *players, k=0).step(lambda: noise(0, 3), lambda: noise(1), lambda: noise(2))


# --- the best discriminator between N(d, 1) and N(0, 1) ---------------------------------------------------------------

BEST = [(1.0, 1.163451396750418), (2.0, 0.7126327204262274)]


def quadrature_loss(w, b, d):
    """L_D of s = wx + b, the expectations by Gauss-Hermite quadrature."""
    x, weights = np.polynomial.hermite_e.hermegauss(120)
    weights = weights / weights.sum()
    return (weights * (ops.softplus(-(w * (x + d) + b)) + ops.softplus(w * x + b))).sum()


@pytest.mark.parametrize(("d", "loss"), BEST)
def test_training_finds_the_best_discriminator(backend, d, loss):
    w, b = logits(0.0), logits(0.0)
    optimiser = optim.SGD([w, b], 0.5, momentum=0.9)
    for _ in range(300):
        optimiser.step(mg.grad(quadrature_loss(w, b, d), [w, b]))
    assert (w.item(), b.item()) == pytest.approx((d, -d * d / 2), abs=1e-4)
    assert quadrature_loss(w, b, d).item() == pytest.approx(loss, abs=1e-8)


@pytest.mark.parametrize(("d", "loss"), BEST)
def test_the_minimax_loss_of_the_best_discriminator(backend, d, loss):
    normal = NormalDist()
    x = np.array([normal.inv_cdf((i + 0.5) / 20_000) for i in range(20_000)])
    real, fake = (mg.tensor((d * points - d * d / 2)[:, None]) for points in (x + d, x))
    assert MINIMAX.discriminator(real, fake).item() == pytest.approx(loss, abs=3e-5)


# --- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (64, 64, 3), (8, 12, 2)])
@pytest.mark.parametrize("model", MODELS)
def test_networks_fit_their_images(model, shape, batch_norm):
    generator, discriminator = MODELS[model](shape, 5, 4, batch_norm)
    images = generator(noise(0, 5))
    assert images.shape == (5, *shape)
    assert np.abs(images.numpy()).max() <= 1
    assert discriminator(images).shape == (5, 1)
    assert any(isinstance(m, nn.BatchNorm) for _, m in generator.modules()) == batch_norm
    assert not any(isinstance(m, nn.BatchNorm) for _, m in discriminator.modules())


def test_dcgan_doubles_channels_at_every_halving():
    generator, discriminator = dcgan((64, 64, 3), 10, 8, False)
    convolutions = [m for _, m in discriminator.modules() if isinstance(m, nn.Conv2d)]
    assert [m.w.shape for m in convolutions] == [(4, 4, 3, 8), (4, 4, 8, 16), (4, 4, 16, 32), (4, 4, 32, 64)]
    transposed = [m for _, m in generator.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [m.w.shape for m in transposed] == [(4, 4, 32, 64), (4, 4, 16, 32), (4, 4, 8, 16), (4, 4, 3, 8)]
    assert generator[0].w.shape == (10, 4 * 4 * 64)


def test_mlp_makes_points_without_bounds():
    generator, discriminator = mlp((2,), 3, 8, False)
    points = generator(100.0 * noise(0, 3))
    assert points.shape == (5, 2)
    assert np.abs(points.numpy()).max() > 1
    assert discriminator(points).shape == (5, 1)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2,), r"samples of shape \(2,\): use model 'mlp'"),
        ((8, 8), r"samples of shape \(8, 8\)"),
        ((7, 7, 1), "7x7 cannot be halved"),
        ((8, 9, 1), "8x9 cannot be halved"),
        ((2, 8, 1), "2x8 cannot be halved"),
    ],
)
def test_dcgan_refuses_what_it_cannot_halve(shape, message):
    with pytest.raises(ValueError, match=message):
        dcgan(shape, 5, 4, True)
