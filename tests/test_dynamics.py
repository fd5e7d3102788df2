"""How players move: schemes, rules and optimistic optimisers, held to the closed forms of small games."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minigan as mg
from minigan import nn, optim
from minigan.gan import Alternating, Extragradient, Game, Replayed, Simultaneous, make_players, penalties
from minigan.gan.objectives import LEAST_SQUARES, MINIMAX, NON_SATURATING, OBJECTIVES, RELATIVISTIC, WASSERSTEIN
from minigan.gan.penalties import squared_norm
from minigan.gan.variants import Consensus, FeatureMatching, NagarajanKolter, Unrolled
from minigan.lab import small_games as games
from minigan.random import Generator
from minigan.testing.gradcheck import check_grads

R1 = penalties.r1


def play(small, kind, objective, scheme, steps, h, *terms, optimiser=optim.SGD, **settings):
    """Move a small game ``steps`` times by gradient descent of step h, and return its points."""
    game = kind(small.generator, small.discriminator, objective, terms, **settings)
    return small.play(scheme(Replayed(game), *make_players(game, lambda p: optimiser(p, h))), steps)


# --- the Dirac-GAN ----------------------------------------------------------------------------------------------------

# (kind of game, its settings, objective, penalties, instance noise): distances after 500 steps of .2 from (1, 1)
TABLE = {
    "minimax": ((Game, {}, MINIMAX, (), 0.0), "3.097", "1.413"),
    "non-saturating": ((Game, {}, NON_SATURATING, (), 0.0), "0.6402", "0.2706"),
    "wasserstein": ((Game, {}, WASSERSTEIN, (), 0.0), "2.56e4", "1.434"),
    "R1 .3": ((Game, {}, MINIMAX, [R1(0.3)], 0.0), "2.6e-6", "2.4e-7"),
    "R1 1": ((Game, {}, MINIMAX, [R1(1.0)], 0.0), "9.5e-22", "8.5e-17"),
    "instance noise": ((Game, {}, MINIMAX, (), 0.7), "5.7e-5", "4.4e-6"),
    "consensus": ((Consensus, {"strength": 1.0}, MINIMAX, (), 0.0), "2.6e-10", "1.8e-11"),
    "Nagarajan-Kolter": ((NagarajanKolter, {"eta": 0.5}, MINIMAX, (), 0.0), "5.5e-5", "4.7e-6"),
    "wasserstein, Nagarajan-Kolter": ((NagarajanKolter, {"eta": 0.5}, WASSERSTEIN, (), 0.0), "2.4e-19", "1.6e-24"),
}


def as_printed(text):
    """A figure with half a unit of its last digit either way."""
    mantissa, _, exponent = text.partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return pytest.approx(float(text), rel=0, abs=0.51 * unit)


@pytest.mark.parametrize("scheme", [Simultaneous, Alternating])
@pytest.mark.parametrize("row", TABLE)
def test_where_the_dirac_gan_ends(row, scheme):
    (kind, settings, objective, terms, noise), *distances = TABLE[row]
    small = games.dirac(noise=noise, nodes=256)
    play(small, kind, objective, scheme, 500, 0.2, *terms, **settings)
    assert small.distance() == as_printed(distances[scheme is Alternating])


FIRST = {
    Simultaneous: [(0.9731058578630005, 1.0268941421369995), (0.945473815106594, 1.0530788300884015)],
    Alternating: [(0.9729221690478511, 1.0268941421369995), (0.9451062173963731, 1.0530774969335988)],
}


@pytest.mark.parametrize("scheme", FIRST)
def test_first_steps_of_the_dirac_gan(backend, scheme):
    points = play(games.dirac(), Game, MINIMAX, scheme, 2, 0.1)
    np.testing.assert_allclose(points[1:], FIRST[scheme], rtol=0, atol=1e-12)


def test_a_simultaneous_step_of_the_dirac_gan_moves_outwards_by_its_slope():
    h = 0.1
    points = play(games.dirac(0.7, -1.3), Game, MINIMAX, Simultaneous, 40, h)
    slope = 1 / (1 + np.exp(points[:-1].prod(1)))  # f'(θψ)
    grown = (points[:-1] ** 2).sum(1) * (1 + h**2 * slope**2)
    np.testing.assert_allclose((points[1:] ** 2).sum(1), grown, rtol=1e-12)


# --- the bilinear game: z = θ + iψ, v = iz ----------------------------------------------------------------------------

ROTATIONS = {  # how z moves in one step of h, from the one before it where that counts
    "simultaneous": (Game, Simultaneous, optim.SGD, lambda z, past, h: z * (1 + 1j * h)),
    "extragradient": (Game, Extragradient, optim.SGD, lambda z, past, h: z * (1 + 1j * h * (1 + 1j * h))),
    "optimistic": (Game, Simultaneous, optim.OptimisticSGD, lambda z, past, h: z + 1j * h * (2 * z - past)),
    "consensus": (Consensus, Simultaneous, optim.SGD, lambda z, past, h: z * (1 + h * (1j - 1))),
}


@pytest.mark.parametrize("name", ROTATIONS)
def test_the_bilinear_game_turns_as_it_must(backend, name):
    kind, scheme, optimiser, move = ROTATIONS[name]
    h, start = 0.1, np.array([1.0 - 0.5j, 0.25 + 2j])
    small = games.bilinear(start.real, start.imag)
    points = play(small, kind, WASSERSTEIN, scheme, 60, h, optimiser=optimiser)
    past, z = np.zeros(2), start
    for theta1, theta2, psi1, psi2 in points:
        np.testing.assert_allclose([theta1 + 1j * psi1, theta2 + 1j * psi2], z, rtol=1e-12)
        past, z = z, move(z, past, h)


def test_alternating_steps_conserve_their_quadratic_form():
    h = 0.2
    for theta, psi in play(games.dirac(), Game, WASSERSTEIN, Alternating, 50, h):
        assert theta**2 + h * theta * psi + psi**2 == pytest.approx(2 + h, rel=1e-12)


def test_only_some_dynamics_reach_the_bilinear_equilibrium():
    def end(kind=Game, scheme=Simultaneous, optimiser=optim.SGD):
        small = games.bilinear([1.0, -2.0], [0.5, 1.0])
        play(small, kind, WASSERSTEIN, scheme, 2000, 0.1, optimiser=optimiser)
        return small.distance()

    assert end() > 100
    assert 0.5 < end(scheme=Alternating) < 5
    assert end(scheme=Extragradient) < 1e-3
    assert end(optimiser=optim.OptimisticSGD) < 1e-4
    assert end(kind=Consensus) < 1e-12


def test_m_steps_of_the_generator():
    small = games.bilinear(1.0, 1.0)
    game = Game(small.generator, small.discriminator, WASSERSTEIN)
    players = make_players(game, lambda p: optim.SGD(p, 0.1))
    zero = mg.tensor(small.real)
    Alternating(game, *players, k=2, m=3).step(lambda: zero, lambda: zero, lambda: zero)
    psi = 1 + 2 * 0.1
    np.testing.assert_allclose(small.point(), [1 - 3 * 0.1 * psi, psi], rtol=1e-15)
    with pytest.raises(ValueError, match="m must be at least 1, not 0"):
        Alternating(game, *players, m=0)


# --- rules ------------------------------------------------------------------------------------------------------------


def network(*sizes):
    layers = [layer for pair in zip(sizes, sizes[1:], strict=False) for layer in (nn.Dense(*pair), nn.Tanh())]
    made = nn.Sequential(*layers[:-1]).astype(np.float64)
    rng = np.random.default_rng(sum(sizes))
    for p in made.parameters():
        p.data[...] = rng.standard_normal(p.shape)
    return made


def pair(kind, objective, terms=(), **settings):
    return kind(network(2, 3, 2), network(2, 4, 1), objective, terms, **settings)


REAL, Z = (Generator(seed).normal((5, 2), dtype=np.float64).numpy() for seed in (1, 2))


def at(game, generator, discriminator):
    """The same objective and penalties for other parameters."""
    return Game(
        game.generator.with_parameters(generator),
        game.discriminator.with_parameters(discriminator),
        game.objective,
        game.penalties,
    )


SCALARS = {  # what each player descends, as a number
    "consensus": (
        Consensus,
        {"strength": 0.7},
        lambda d, g, norms, game: (d.loss + 0.35 * sum(norms), g.loss + 0.35 * sum(norms)),
    ),
    "Nagarajan-Kolter": (NagarajanKolter, {"eta": 0.3}, lambda d, g, norms, game: (d.loss, g.loss + 0.3 * norms[0])),
}


@pytest.mark.parametrize("objective", [MINIMAX, LEAST_SQUARES, RELATIVISTIC], ids=lambda o: o.name)
@pytest.mark.parametrize("rule", SCALARS)
def test_rules_descend_the_loss_they_say(backend, rule, objective):
    kind, settings, scalars = SCALARS[rule]
    game = pair(kind, objective, **settings)
    sizes = len(game.generator.parameters())

    def descended(player):
        def of_parameters(*tensors):
            found = at(game, tensors[:sizes], tensors[sizes:])
            d, g = found.losses(REAL, Z)
            own = mg.grad(d.loss, list(tensors[sizes:]), create_graph=True)
            other = mg.grad(g.loss, list(tensors[:sizes]), create_graph=True)
            return scalars(d, g, [squared_norm(own), squared_norm(other)], found)[player]

        return of_parameters

    everything = [*game.generator.parameters(), *game.discriminator.parameters()]
    for player, found in enumerate(game.gradients(REAL, Z)):
        wanted = mg.grad(descended(player)(*everything), everything)
        mine = wanted[sizes:] if player == 0 else wanted[:sizes]
        for a, b in zip(found.parts, mine, strict=True):
            np.testing.assert_allclose(a.data, b.data, rtol=1e-10, atol=1e-14)
        check_grads(descended(player), [p.numpy() for p in everything], order=1)
    alone = game.discriminator_gradient(REAL, Z), game.generator_gradient(REAL, Z)
    for one, both in zip(alone, game.gradients(REAL, Z), strict=True):
        for a, b in zip(one.parts, both.parts, strict=True):
            np.testing.assert_allclose(a.data, b.data, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("terms", [(), (R1(0.5),)], ids=["plain", "r1"])
def test_the_unrolled_loss_is_differentiated_through_all_its_steps(terms):
    game = pair(Unrolled, NON_SATURATING, terms, unroll=5, rate=0.3)

    def of_generator(*tensors):
        """L_G after five steps of D, each by hand."""
        d = game.discriminator.parameters()
        for _ in range(5):
            slopes = mg.grad(at(game, tensors, d).losses(REAL, Z)[0].loss, d, create_graph=True)
            d = [p - 0.3 * slope for p, slope in zip(d, slopes, strict=True)]
        return at(game, tensors, d).losses(REAL, Z)[1].loss

    parameters = game.generator.parameters()
    check_grads(of_generator, [p.numpy() for p in parameters], order=1)
    wanted = mg.grad(of_generator(*parameters), parameters)
    found = game.generator_gradient(REAL, Z)
    for a, b in zip(found.parts, wanted, strict=True):
        np.testing.assert_allclose(a.data, b.data, rtol=1e-10)
    assert found.losses.loss.item() == pytest.approx(of_generator(*parameters).item(), rel=1e-12)
    short = pair(Unrolled, NON_SATURATING, terms, unroll=5, rate=0.0).generator_gradient(REAL, Z).parts
    plain = pair(Game, NON_SATURATING, terms).generator_gradient(REAL, Z).parts
    for a, b in zip(short, plain, strict=True):
        np.testing.assert_allclose(a.data, b.data, rtol=1e-12)


def test_feature_matching_compares_mean_features(backend):
    game = pair(FeatureMatching, NON_SATURATING)
    features = nn.Sequential(*game.discriminator.layers[:-1])

    def of_generator(*tensors):
        fake = game.generator.with_parameters(tensors)(mg.tensor(Z))
        gap = mg.ops.mean(features(mg.tensor(REAL)), axis=0) - mg.ops.mean(features(fake), axis=0)
        return mg.ops.sum(mg.ops.square(gap))

    parameters = game.generator.parameters()
    found = game.generator_gradient(REAL, Z)
    assert found.losses.loss.item() == pytest.approx(of_generator(*parameters).item(), rel=1e-12)
    for a, b in zip(found.parts, mg.grad(of_generator(*parameters), parameters), strict=True):
        np.testing.assert_allclose(a.data, b.data, rtol=1e-10)
    check_grads(of_generator, [p.numpy() for p in parameters], order=1)
    with pytest.raises(TypeError, match="FeatureMatching: D must be Sequential, not Linear"):
        FeatureMatching(game.generator, games.Linear([1.0, 1.0])).generator_gradient(REAL, Z)
    with pytest.raises(ValueError, match="the layers before D's last one have no weights"):
        FeatureMatching(game.generator, nn.Sequential(game.discriminator)).generator_gradient(REAL, Z)
    game.discriminator.conditional = True
    with pytest.raises(TypeError, match="D must judge without conditions"):
        game.generator_gradient(REAL, Z)


def test_unrolling_the_bilinear_game_by_hand():
    small = games.bilinear(0.5, 2.0)
    game = Unrolled(small.generator, small.discriminator, WASSERSTEIN, unroll=3, rate=0.1)
    (gradient,), _ = game.generator_gradient(small.real, small.z)
    assert gradient.item() == pytest.approx(2.0 + 2 * 3 * 0.1 * 0.5, rel=1e-14)  # L_G = θ(ψ + 3·.1·θ)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=lambda o: o.name)
def test_both_gradients_at_one_point_are_those_of_the_turns(backend, objective):
    game = pair(Game, objective, (R1(0.5),))
    for both, turn in zip(game.gradients(REAL, Z), (game.discriminator_gradient, game.generator_gradient), strict=True):
        alone = turn(REAL, Z)
        for a, b in zip(both.parts, alone.parts, strict=True):
            np.testing.assert_allclose(a.data, b.data, rtol=1e-12, atol=1e-15)
            assert not a.requires_grad
        assert both.losses.loss.item() == pytest.approx(alone.losses.loss.item(), rel=1e-14)


# --- optimistic optimisers --------------------------------------------------------------------------------------------


def test_optimistic_adam_takes_the_move_twice_and_the_last_one_back():
    p = mg.tensor(np.array([1.0, -2.0, 3.0]), requires_grad=True)
    twin = mg.tensor(p.numpy().copy(), requires_grad=True)
    settings = {"lr": 0.1, "betas": (0.5, 0.9), "ema_decay": 0.8}
    optimistic, adam = optim.OptimisticAdam([p], **settings), optim.Adam([twin], 0.1, (0.5, 0.9))
    rng, past, average, place = np.random.default_rng(0), np.zeros(3), p.numpy().copy(), p.numpy().copy()
    for _ in range(5):
        g = rng.standard_normal(3)
        before = twin.numpy().copy()
        optimistic.step([g])
        adam.step([g])
        move = twin.numpy() - before
        place = place + 2 * move - past
        past = move
        average += 0.2 * (place - average)
        np.testing.assert_allclose(p.numpy(), place, rtol=1e-13)
        np.testing.assert_allclose(optimistic.average()[0].numpy(), average, rtol=1e-13)
    other = optim.OptimisticAdam([mg.tensor(np.zeros(3), requires_grad=True)], **settings)
    other.load_state(optimistic.state())
    assert sorted(optimistic.state()) == ["ema", "first", "past", "second", "steps"]


def test_extragradient_with_adam_follows_both_gradients_and_averages_once():
    small = games.dirac()
    game = Game(small.generator, small.discriminator, MINIMAX)
    players = make_players(game, lambda p: optim.Adam(p, 0.1, ema_decay=0.5))
    d, g = (player.optimizer for player in players)
    zero = mg.tensor(small.real)
    Extragradient(game, *players).step(lambda: zero, lambda: zero, lambda: zero)
    assert (d.steps, g.steps) == (2, 2)
    theta, psi = small.point()
    assert g.average()[0].item() == pytest.approx((1 + theta) / 2, rel=1e-14)
    assert d.average()[0].item() == pytest.approx((1 + psi) / 2, rel=1e-14)
    assert math.hypot(theta - 0.9, psi - 1.1) < 0.01  # Adam's first moves are of size lr
