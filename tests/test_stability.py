"""Eigenvalues near a point of rest: the Dirac-GAN's to three digits, others by theory and by finite differences."""

from __future__ import annotations

import numpy as np
import pytest

import minigan as mg
from minigan import nn, optim
from minigan.gan import Game, Simultaneous, make_players, penalties
from minigan.gan.objectives import MINIMAX, NON_SATURATING, WASSERSTEIN
from minigan.gan.variants import Consensus, NagarajanKolter
from minigan.lab import small_games as games
from minigan.lab import stability
from minigan.lab.stability import Linearised, Spectrum, arnoldi
from minigan.random import Generator

R1 = penalties.r1


def linearised(small, kind=Game, objective=MINIMAX, *terms, **settings):
    game = kind(small.generator, small.discriminator, objective, terms, **settings)
    return Linearised(game, small.real, small.z)


# rule: (what makes the game, instance noise, one of the eigenvalues at 0, spectral radius of a step of .2)
TABLE = {
    "minimax": ((Game, MINIMAX), 0.0, 0.5j, "1.0050"),
    "non-saturating": ((Game, NON_SATURATING), 0.0, 0.5j, "1.0050"),
    "wasserstein": ((Game, WASSERSTEIN), 0.0, 1j, "1.0198"),
    "R1 .3": ((Game, MINIMAX, R1(0.3)), 0.0, -0.15 + 0.477j, ".9747"),
    "R1 1": ((Game, MINIMAX, R1(1.0)), 0.0, -0.5, ".9000"),
    "instance noise": ((Game, MINIMAX), 0.7, -0.1225 + 0.485j, ".9803"),
    "consensus": ((Consensus, MINIMAX), 0.0, -0.25 + 0.5j, ".9552"),
    "Nagarajan-Kolter": ((NagarajanKolter, MINIMAX), 0.0, -0.125 + 0.484j, ".9798"),
    "wasserstein, Nagarajan-Kolter": ((NagarajanKolter, WASSERSTEIN), 0.0, -0.5 + 0.866j, ".9165"),
}


@pytest.mark.parametrize("row", TABLE)
def test_the_spectrum_of_the_dirac_gan(backend, row):
    game, noise, eigenvalue, radius = TABLE[row]
    field = linearised(games.dirac(0.0, 0.0, noise), *game)
    found = field.spectrum().eigenvalues
    tolerance = 1e-7 if row == "R1 1" else 1e-9  # a double eigenvalue moves by the root of a rounding
    np.testing.assert_allclose(np.sort(found.imag), np.sort(-found.imag), atol=tolerance)
    assert found.real == pytest.approx(eigenvalue.real, abs=max(tolerance, 1e-5 if noise else 0))
    assert found.imag.max() == pytest.approx(eigenvalue.imag, abs=max(tolerance, 5e-4 if eigenvalue.imag % 0.5 else 0))
    assert field.radius("simultaneous", 0.2, 0.2) == pytest.approx(float(radius), abs=5e-5)


# --- small games with other closed forms ------------------------------------------------------------------------------


def test_the_linear_quadratic_game_turns_about_its_equilibrium():
    small = games.linear_quadratic(1.0, 0.0, nodes=100)
    found = linearised(small, Game, WASSERSTEIN)
    np.testing.assert_allclose(found.field, 0, atol=1e-12)
    np.testing.assert_allclose(found.dense(), [[0, 2], [-2, 0]], atol=1e-9)  # V = w₂(1 − a²)
    assert "circling: an eigenvalue is" in found.spectrum().verdict()
    calmed = linearised(small, NagarajanKolter, WASSERSTEIN, eta=0.5).spectrum()
    assert calmed.verdict().startswith("stable: the slowest eigenvalue is")


def test_the_gaussian_pair_rests_where_both_agree():
    small = games.gaussians(0.0, nodes=400)
    found = linearised(small, Game, NON_SATURATING)
    np.testing.assert_allclose(found.field, 0, atol=1e-12)
    # w = (θ, w, b): near rest v_θ = w/2, and D follows ½(x − θ)-features by −¼ of their second moments
    np.testing.assert_allclose(found.dense(), [[0, 0.5, 0], [-0.5, -0.5, 0], [0, 0, -0.5]], atol=1e-9)
    assert found.spectrum().largest_step() == pytest.approx(2.0, rel=1e-9)


# --- networks ---------------------------------------------------------------------------------------------------------


def pair(objective, kind=Game, terms=(), seed=0, **settings):
    generator = nn.Sequential(nn.Dense(2, 3), nn.BatchNorm(3), nn.Tanh(), nn.Dense(3, 2))
    discriminator = nn.Sequential(nn.Dense(2, 4), nn.Tanh(), nn.Dense(4, 1))
    rng = np.random.default_rng(seed)
    for player in (generator, discriminator):
        for p in player.parameters():
            p.data[...] = rng.standard_normal(p.shape)
    return kind(generator, discriminator, objective, terms, **settings)


REAL, Z = (Generator(seed).normal((6, 2)).numpy() for seed in (1, 2))


def differences(game, h=1e-5):
    """J by central differences of the gradients, in float64."""
    players = game.generator.astype(np.float64), game.discriminator.astype(np.float64)
    parameters = [p for player in players for p in player.parameters()]
    columns = []
    for p in parameters:
        for i in np.ndindex(p.shape):
            sides = []
            for step in (h, -h):
                p.data[i] += step
                d, g = game.gradients(REAL.astype(np.float64), Z.astype(np.float64))
                sides.append(-np.concatenate([part.data.ravel() for part in (*g.parts, *d.parts)]))
                p.data[i] -= step
            columns.append((sides[0] - sides[1]) / (2 * h))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize(
    ("kind", "settings", "terms"),
    [
        (Game, {}, ()),
        (Game, {}, (R1(2.0), penalties.r2(1.0))),
        (Consensus, {"strength": 0.3}, ()),
        (NagarajanKolter, {"eta": 0.4}, (R1(0.5),)),
    ],
    ids=["plain", "r1 and r2", "consensus", "Nagarajan-Kolter"],
)
@pytest.mark.parametrize("objective", [MINIMAX, NON_SATURATING, WASSERSTEIN], ids=lambda o: o.name)
def test_the_jacobian_is_that_of_finite_differences(objective, kind, settings, terms):
    game = pair(objective, kind, terms, **settings)
    found = Linearised(game, REAL, Z).dense()
    assert found.shape == (found.shape[0],) * 2
    np.testing.assert_allclose(found, differences(game), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", [Game, NagarajanKolter])
def test_the_jacobian_follows_singular_vectors(kind):
    game = pair(MINIMAX, kind)
    layers = game.discriminator.layers
    normed = [nn.SpectralNorm(layer) if isinstance(layer, nn.Dense) else layer for layer in layers]
    exact = [nn.SpectralNorm(layer, exact=True) if isinstance(layer, nn.Dense) else layer for layer in layers]
    found = Linearised(kind(game.generator, nn.Sequential(*normed), MINIMAX), REAL, Z).dense()
    wanted = differences(kind(game.generator, nn.Sequential(*exact), MINIMAX))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)


def test_looking_changes_nothing():
    game = pair(MINIMAX, terms=(penalties.wgan_gp(1.0),))
    game.noise = Generator(3, stream="penalty")
    buffers = {name: value.copy() for name, value in game.generator.named_buffers().items()}
    before = [p.numpy().copy() for p in game.generator.parameters()]
    found = Linearised(game, REAL, Z)
    assert found.spectrum().whole
    assert game.noise.step == 0
    for name, value in game.generator.named_buffers().items():
        np.testing.assert_array_equal(value, buffers[name])
    for p, value in zip(game.generator.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.numpy(), value)


def test_nagarajan_kolter_signs_on_random_small_networks():
    """Where G has found the data and D is 0, minimax settles, Wasserstein turns, and with their term it settles."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        hidden = nn.Sequential(nn.Dense(2, 3), nn.Tanh()).astype(np.float64)
        hidden[0].w.data[...] = rng.standard_normal((2, 3))
        players = games.Shift(np.zeros(2), 1.0), nn.Sequential(Fixed(hidden), games.Linear(np.zeros(3)))
        z = rng.standard_normal((50, 2))

        def made(objective, kind=Game, players=players, z=z, **settings):
            return Linearised(kind(*players, objective, **settings), z, z).spectrum()

        minimax, wasserstein = made(MINIMAX), made(WASSERSTEIN)
        helped = made(WASSERSTEIN, NagarajanKolter, eta=0.5)
        moving = np.abs(wasserstein.eigenvalues) > 1e-9
        assert np.abs(wasserstein.eigenvalues.real).max() <= 1e-10
        assert moving.sum() == 4
        assert minimax.moving.real.max() < -1e-6
        assert helped.moving.real.max() < -1e-6


class Fixed(nn.Module):
    """A network whose parameters nobody plays with."""

    def __init__(self, network):
        self._network = [network.with_parameters([p.detach() for p in network.parameters()])]

    def forward(self, x):
        return self._network[0](x)


# --- many parameters --------------------------------------------------------------------------------------------------


@pytest.fixture
def wide():
    generator = nn.Sequential(nn.Dense(4, 12), nn.BatchNorm(12), nn.ReLU(), nn.Dense(12, 6))
    discriminator = nn.Sequential(nn.Dense(6, 16), nn.LeakyReLU(), nn.Dense(16, 1))
    rng = np.random.default_rng(1)
    for player in (generator, discriminator):
        for p in player.parameters():
            p.data[...] = rng.standard_normal(p.shape) / np.sqrt(p.shape[0])
    game = Game(generator, discriminator, NON_SATURATING, (R1(1.0),))
    return Linearised(game, Generator(1).normal((20, 6)), Generator(2).normal((20, 4)))


def test_the_edges_of_a_large_spectrum_are_those_of_the_dense_one(wide, monkeypatch):
    whole = wide.spectrum()
    assert (whole.whole, len(whole.eigenvalues)) == (True, wide.size)
    monkeypatch.setattr(stability, "DENSE", 0)
    wide.products = 0
    found = wide.spectrum(count=5, products=120)
    assert not found.whole
    assert wide.products <= 120
    size = np.abs(whole.eigenvalues).max()
    gaps = np.abs(found.eigenvalues[:, None] - whole.eigenvalues).min(1)
    assert (gaps <= 1e-6 * size).all()
    for key in (np.abs, np.real):
        np.testing.assert_allclose(
            np.sort(key(found.eigenvalues))[-5:], np.sort(key(whole.eigenvalues))[-5:], rtol=1e-6, atol=1e-8 * size
        )
    assert found.largest_step() >= whole.largest_step() * (1 - 1e-6)
    assert "at the edges of" in found.verdict()
    for dynamics in ("simultaneous", "alternating", "extragradient", "optimistic"):
        coarse = wide.radius(dynamics, 0.02, 0.05)
        with monkeypatch.context() as patch:
            patch.setattr(stability, "DENSE", 10_000)
            assert coarse == pytest.approx(wide.radius(dynamics, 0.02, 0.05), rel=1e-6)


def test_arnoldi_stops_where_its_space_is_invariant():
    values, residuals = arnoldi(lambda u: np.array([2.0, 2.0, -1.0, -1.0]) * u, 4)
    np.testing.assert_allclose(np.sort(values.real), [-1, 2], rtol=1e-12)
    np.testing.assert_allclose(residuals, 0, atol=1e-12)


# --- steps and words --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_radius_of_every_dynamic_at_the_dirac_equilibrium(rate):
    field = linearised(games.dirac(0.0, 0.0), Game, MINIMAX, R1(0.3))
    j = np.array([[0, -0.5], [0.5, -0.3]])
    both = np.eye(2) + rate * j
    d, g = np.eye(2), np.eye(2)
    d[1] += rate * j[1]
    g[0] += rate * j[0]
    steps = {
        "simultaneous": both,
        "alternating": g @ d,
        "extragradient": np.eye(2) + rate * j @ both,
        "optimistic": np.block([[np.eye(2) + 2 * rate * j, -rate * j], [np.eye(2), np.zeros((2, 2))]]),
    }
    for dynamics, step in steps.items():
        wanted = np.abs(np.linalg.eigvals(step)).max()
        assert field.radius(dynamics, rate, rate) == pytest.approx(wanted, rel=1e-9), dynamics
    np.testing.assert_allclose(field.dense(), j, atol=1e-12)
    with pytest.raises(ValueError, match="unknown dynamics 'newton': choose from alternating"):
        field.radius("newton")


def test_directions_in_which_nothing_changes_do_not_count_in_the_radius():
    small = games.gaussians(0.0, nodes=100)
    field = linearised(small, NagarajanKolter, WASSERSTEIN, eta=0.5)
    assert "stable" in field.spectrum().verdict()
    assert field.radius("simultaneous", 0.1, 0.1) < 0.999
    slow = linearised(games.dirac(0.0, 0.0), Game, MINIMAX, R1(0.3))
    for rate in (1e-3, 1e-9):  # 1 + h λ with λ = −.15 ± .477i
        assert (1 - slow.radius("simultaneous", rate, rate)) / rate == pytest.approx(
            0.15, rel=1e-2 if rate > 1e-5 else 0.1
        )
    defective = np.array([0.0, 0.0, -1.0]) + 1e-9 * np.array([1, -1, 0])
    assert Spectrum(np.sort(defective.astype(complex))[::-1], np.zeros(3), 3, True).verdict().startswith("stable")


def test_steps_settle_below_the_largest_step_and_not_above():
    small = games.dirac(0.01, 0.01)
    field = linearised(games.dirac(0.0, 0.0), Game, MINIMAX, R1(0.3))
    h = field.spectrum().largest_step()
    assert h == pytest.approx(2 * 0.15 / 0.25, rel=1e-9)
    for factor, settles in ((0.97, True), (1.03, False)):
        assert (field.radius("simultaneous", factor * h, factor * h) < 1) == settles
        game = Game(small.generator, small.discriminator, MINIMAX, (R1(0.3),))
        before = small.distance()
        small.play(Simultaneous(game, *make_players(game, lambda p: optim.SGD(p, factor * h))), 100)  # noqa: B023
        assert (small.distance() < before) == settles


@pytest.mark.parametrize(
    ("values", "words", "step"),
    [
        (
            [-1, -0.5],
            "stable: the slowest eigenvalue is -0.5, and gradient descent settles for steps below 2 (all 2",
            2,
        ),
        ([-0.1 + 1j, -0.1 - 1j], "stable: the slowest eigenvalue is -0.1 ± 1i", 0.2 / 1.01),
        ([0.5j, -0.5j], "circling: an eigenvalue is 0 ± 0.5i", 0),
        ([0.2 + 1j, 0.2 - 1j], "unstable: the flow leaves and turns, an eigenvalue is 0.2 ± 1i", 0),
        ([0.2, -1], "unstable: the flow leaves, an eigenvalue is 0.2 (", 0),
        ([0, -1], "1 directions in which nothing changes are left out", 2),
        ([0, 0], "nothing moves here: all 2 eigenvalues are 0", np.inf),
    ],
)
def test_the_verdict_is_in_words(values, words, step):
    values = np.array(sorted(values, key=lambda v: -np.real(v)), complex)
    found = Spectrum(values, np.zeros(len(values)), len(values), True)
    assert words in found.verdict()
    assert found.largest_step() == pytest.approx(step)


def test_a_rightmost_eigenvalue_that_is_not_settled_is_not_judged():
    found = Spectrum(np.array([-0.1 + 0j, -5]), np.array([0.3, 0.0]), 3000, False)
    told = "unclear: the rightmost eigenvalue found is -0.1, with a residual of 0.3 (2 at the edges of 3,000"
    assert found.verdict().startswith(told)
    far = Spectrum(np.array([1.6 + 0j, -5]), np.array([1.5, 0.0]), 3000, False)  # as of a map far from normal
    assert far.verdict().startswith("unclear")
    assert Spectrum(far.eigenvalues, np.array([1e-3, 0.0]), 3000, False).verdict().startswith("unstable")


def test_effective_rates_are_how_far_a_unit_of_gradient_moves():
    def parameter():
        return mg.tensor(np.array([1.0, 2.0, 3.0]), requires_grad=True)

    g = np.array([0.5, -2.0, 4.0])
    assert optim.SGD([parameter()], 0.3).rates() == 0.3
    for optimiser in (optim.RMSProp([parameter()], 0.1), optim.Adam([parameter()], 0.1)):
        before = optimiser.buffer.copy()
        optimiser.step([g])
        moved = optimiser.buffer - before
        np.testing.assert_allclose(-optimiser.rates() * g, moved, rtol=1e-6)
