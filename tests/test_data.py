"""The data that comes with minigan, the order in which a run sees it, and the figures that judge samples."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigan.data import DATASETS, batch_indices, digits, grid, load, ring
from minigan.lab.metrics import (
    class_shares,
    frechet_distance,
    half_against_half,
    mode_coverage,
    nearest_neighbour_labels,
    real_floor,
)

# --- data sets --------------------------------------------------------------------------------------------------------


def test_digits_are_images_in_range():
    data = digits()
    assert data.reference().shape == (1797, 8, 8, 1)
    assert data.shape == (8, 8, 1)
    assert data.is_images
    assert data.reference().dtype == np.float32
    assert data.reference().min() == -1
    assert data.reference().max() == 1
    assert np.bincount(data.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.mark.oracle
def test_digits_are_those_of_scikit_learn():
    theirs = pytest.importorskip("sklearn.datasets").load_digits()
    ours = digits()
    assert np.array_equal((ours.reference()[..., 0] + 1) * 8, theirs.images)
    assert np.array_equal(ours.labels, theirs.target)


@pytest.mark.parametrize(("make", "modes", "sigma"), [(ring, 8, 0.01), (grid, 25, 0.05)])
def test_mixtures_have_their_means_and_deviation(make, modes, sigma):
    data = make()
    assert data.reference().shape == (10_000, 2)
    assert data.reference().dtype == np.float32
    assert not data.is_images
    assert data.sigma == sigma
    assert data.centres.shape == (modes, 2)
    counts = np.bincount(data.labels, minlength=modes)
    assert counts.max() - counts.min() <= 1
    off = (data.reference() - data.centres[data.labels]) / sigma
    error = 5 / math.sqrt(counts.min())
    for mode in range(modes):
        assert np.abs(off[data.labels == mode].mean(0)).max() < error
    assert np.abs(off.std(0) - 1).max() < 5 / math.sqrt(2 * len(off))
    assert abs(np.corrcoef(off.T)[0, 1]) < 0.05


def test_the_mixtures_lie_where_their_names_say():
    assert np.allclose(np.linalg.norm(ring(8).centres, axis=1), 1)
    assert len(np.unique(ring(8).centres.round(6), axis=0)) == 8
    assert sorted(map(tuple, grid(25).centres)) == [(x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)]


@pytest.mark.parametrize("make", [ring, grid])
def test_mixtures_are_a_function_of_their_seed(make):
    assert np.array_equal(make(100, 3).reference(), make(100, 3).reference())
    assert not np.array_equal(make(100, 3).reference(), make(100, 4).reference())


def test_load_knows_every_data_set_and_refuses_others():
    for name in DATASETS:
        assert load(name).name == name
    with pytest.raises(ValueError, match=r"unknown data 'mnist': choose from digits, ring, grid"):
        load("mnist")


# --- order ------------------------------------------------------------------------------------------------------------

sizes = st.integers(1, 40)
batches = st.integers(1, 100)
seeds = st.integers(0, 2**64 - 1)


@given(sizes, batches, seeds)
def test_every_epoch_passes_every_sample_once(size, batch, seed):
    epochs = 3
    numbers = range(-(-epochs * size // batch))
    parts = [batch_indices(size, batch, seed, number) for number in numbers]
    assert {part.shape for part in parts} == {(batch,)}
    stream = np.concatenate(parts)[: epochs * size].reshape(epochs, size)
    assert np.array_equal(np.sort(stream, axis=1), np.tile(np.arange(size), (epochs, 1)))


@given(sizes, batches, seeds, st.lists(st.integers(0, 50), min_size=1, max_size=6))
def test_a_batch_depends_on_seed_and_number_alone(size, batch, seed, numbers):
    fresh = [batch_indices(size, batch, seed, number) for number in numbers]
    kept = [indices.copy() for indices in fresh]
    for indices in fresh:
        indices[...] = -1  # a caller's array is its own
    for number, indices in zip(reversed(numbers), reversed(kept), strict=True):
        assert np.array_equal(batch_indices(size, batch, seed, number), indices)


def test_a_batch_may_span_epochs_and_exceed_the_data():
    first, second = batch_indices(10, 4, 0, 2)[:2], batch_indices(10, 4, 0, 2)[2:]
    whole = [batch_indices(10, 10, 0, epoch) for epoch in range(2)]
    assert np.array_equal(first, whole[0][8:])
    assert np.array_equal(second, whole[1][:2])
    assert np.array_equal(np.bincount(batch_indices(3, 9, 0, 5)), [3, 3, 3])


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [batch_indices(50, 50, seed, epoch).tolist() for seed in range(3) for epoch in range(3)]
    assert len(set(map(tuple, orders))) == 9


# --- Fréchet distance -------------------------------------------------------------------------------------------------


def normal(n, scales, seed=0):
    return np.random.default_rng(seed).normal(size=(n, len(scales))) * scales


def whitened(n, scales, seed=0):
    """Return n points whose sample mean is 0 and whose sample covariance is diag(scales²), both to rounding."""
    x = normal(n, np.ones(len(scales)), seed)
    x -= x.mean(0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T * scales


def test_frechet_of_a_sample_to_itself_is_zero():
    x = normal(200, [1, 2, 3])
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(digits().reference(), digits().reference()) == pytest.approx(0, abs=1e-4)


def test_frechet_of_a_shifted_sample_is_the_squared_shift():
    x, shift = normal(100, [1, 2, 3]), np.array([3.0, -4.0, 12.0])
    assert frechet_distance(x, x + shift) == pytest.approx(169, rel=1e-10)


def test_frechet_of_diagonal_covariances():
    a, b = np.array([1.0, 2.0, 0.5]), np.array([3.0, 1.0, 0.0])
    found = frechet_distance(whitened(300, a, 1), whitened(200, b, 2) + [0, 0, 2])
    assert found == pytest.approx(((a - b) ** 2).sum() + 4, rel=1e-7)


def test_frechet_of_covariances_that_do_not_commute():
    half = math.sqrt(0.5)
    turn = np.array([[half, -half], [half, half]])
    a, b = whitened(300, [2.0, 1.0], 1), whitened(300, [3.0, 1.0], 2) @ turn.T
    # tr (C_a C_b)^½ = √(tr(C_a C_b) + 2 √det(C_a C_b)) in two dimensions
    c_a, c_b = np.diag([4.0, 1.0]), turn @ np.diag([9.0, 1.0]) @ turn.T
    cross = math.sqrt(np.trace(c_a @ c_b) + 2 * math.sqrt(4 * 9))
    assert frechet_distance(a, b) == pytest.approx(5 + 10 - 2 * cross, rel=1e-9)


def test_frechet_is_symmetric_and_takes_images():
    a, b = normal(60, np.ones(12), 1).reshape(60, 2, 3, 2), normal(50, np.full(12, 2.0), 2).reshape(50, 2, 3, 2)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(a.reshape(60, -1), b.reshape(50, -1)), rel=1e-12)


def test_frechet_of_single_numbers():
    assert frechet_distance(np.array([0.0, 2.0]), np.array([1.0, 5.0])) == pytest.approx(4 + (8**0.5 - 2**0.5) ** 2)


@pytest.mark.parametrize("shapes", [((5, 2), (5, 3)), ((1, 2), (5, 2)), ((5, 2), (0, 2))])
def test_frechet_refuses_samples_that_do_not_fit(shapes):
    with pytest.raises(ValueError, match="frechet_distance"):
        frechet_distance(*map(np.zeros, shapes))


def test_real_half_against_real_half_is_a_low_floor():
    data = digits().reference()
    floor = half_against_half(data)
    assert floor == half_against_half(data, 0) != half_against_half(data, 1)
    assert 0.1 < floor < 1 < frechet_distance(data, data + 0.2)
    splits = [half_against_half(data, seed) for seed in range(3)]
    assert min(splits) < max(splits)
    assert real_floor(data, 3) == pytest.approx(np.mean(splits))


# --- modes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "modes"), [(ring, 8), (grid, 25)])
def test_a_perfect_sampler_sets_the_floor(make, modes):
    data = make()
    found = [mode_coverage(make(2500, seed).reference(), data.centres, data.sigma) for seed in range(1, 21)]
    assert all((m.found, m.total) == (modes, modes) for m in found)
    # a normal pair lies within 3σ with probability 1 − e^(−9/2) = 98.889 %
    assert np.mean([m.high_quality for m in found]) == pytest.approx(1 - math.exp(-4.5), abs=0.0025)


def test_reverse_kl_of_independent_draws():
    centres, random = ring(8).centres, np.random.default_rng(0)
    points = (centres[random.integers(8, size=2500)] + 0.01 * random.normal(size=(2500, 2)) for _ in range(200))
    # (K − 1) / 2N for N draws from K equal modes
    assert np.mean([mode_coverage(p, centres, 0.01).reverse_kl for p in points]) == pytest.approx(0.0014, abs=0.0003)


def test_missing_modes_are_counted():
    centres = ring(8).centres
    half = mode_coverage(np.repeat(centres[:4], 10, axis=0), centres, 0.01)
    assert (half.found, half.total, half.high_quality) == (4, 8, 1)
    assert half.reverse_kl == pytest.approx(math.log(2))
    uneven = mode_coverage(np.repeat(centres[:2], [30, 10], axis=0), centres, 0.01)
    assert uneven.reverse_kl == pytest.approx(0.75 * math.log(0.75 * 8) + 0.25 * math.log(0.25 * 8))


def test_uniform_noise_is_of_low_quality():
    data = ring()
    noise = np.random.default_rng(0).uniform(-1.5, 1.5, (2500, 2))
    area = 8 * math.pi * (3 * data.sigma) ** 2 / 9
    assert mode_coverage(noise, data.centres, data.sigma).high_quality == pytest.approx(area, abs=0.003)
    nothing = mode_coverage(np.zeros((10, 2)), data.centres, data.sigma)
    assert (nothing.found, nothing.high_quality, nothing.reverse_kl) == (0, 0, math.inf)


def test_high_quality_ends_at_three_sigma():
    points = np.array([[2.99, 0], [0, -2.99], [3.01, 0], [0, 3.01]])
    assert mode_coverage(points, np.zeros((1, 2)), 1.0).high_quality == 0.5


# --- nearest neighbours -----------------------------------------------------------------------------------------------


def test_the_judge_knows_the_data_itself():
    data = digits()
    assert np.array_equal(nearest_neighbour_labels(data.reference(), data.reference(), data.labels, k=1), data.labels)
    judged = nearest_neighbour_labels(data.reference(), data.reference(), data.labels)
    assert (judged == data.labels).mean() > 0.985
    shares = class_shares(data.reference(), data.reference(), data.labels)
    assert shares.shape == (10,)
    assert shares.sum() == pytest.approx(1)
    assert shares == pytest.approx(np.bincount(data.labels) / len(data.labels), abs=0.004)


def test_the_judge_generalises():
    data = digits()
    judged = nearest_neighbour_labels(data.reference()[1000:], data.reference()[:1000], data.labels[:1000])
    assert (judged == data.labels[1000:]).mean() > 0.94


def test_the_judge_takes_the_majority_and_breaks_ties_by_distance():
    data, labels = np.array([[0.0], [1.0], [1.2], [9.0]]), np.array([2, 1, 1, 0])
    assert nearest_neighbour_labels(np.array([[0.1]]), data, labels, k=3).tolist() == [1]
    assert nearest_neighbour_labels(np.array([[5.3], [0.1]]), data, np.array([3, 1, 2, 0]), k=3).tolist() == [0, 3]


def test_class_shares_of_one_class():
    data = digits()
    shares = class_shares(data.reference()[data.labels == 6], data.reference(), data.labels)
    assert shares[6] > 0.99
