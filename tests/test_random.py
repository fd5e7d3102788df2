"""Random numbers: known answers of Philox, distributions, and independence of streams and steps."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigan as mg
from minigan import kernels
from minigan.kernels import philox as philox_module
from minigan.random import STREAMS, Generator

MASK = 0xFFFFFFFF
WORDS = st.integers(0, MASK)


def philox(counter, key):
    """Philox 4x32-10, one block, in Python integers."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & MASK, (a >> 32) ^ c3 ^ k1, a & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return [c0, c1, c2, c3]


def words_at(block, seed, stream, step):
    return philox((block & MASK, block >> 32, stream, step), (seed & MASK, seed >> 32))


def bits(size, seed=0, stream=0, step=0):
    out = np.full(size, 0xDEADBEEF, np.uint32)
    kernels.philox_bits_(out, seed=seed, stream=stream, step=step)
    return out


# --- bits -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([MASK] * 4, [MASK] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_the_philox_of_these_tests_gives_the_known_answers_of_random123(counter, key, words):
    assert philox(counter, key) == words


def test_the_kernel_gives_the_first_known_answer(backend):
    assert bits(4).tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@pytest.mark.parametrize("name", ["reference", "numba"])
@given(seed=st.integers(0, 2**64 - 1), stream=WORDS, step=WORDS, size=st.integers(0, 41))
def test_kernel_is_philox(name, seed, stream, step, size):
    expected = [word for block in range((size + 3) // 4) for word in words_at(block, seed, stream, step)]
    with kernels.use(name):
        assert bits(size, seed, stream, step).tolist() == expected[:size]


@pytest.mark.parametrize("size", [16383, 16384, 16385, 70_001])  # around a chunk, and enough for several threads
def test_large_draws(size):
    numba = bits(size, 2**64 - 1, 7, MASK)
    with kernels.use("reference"):
        np.testing.assert_array_equal(numba, bits(size, 2**64 - 1, 7, MASK))
    for at in (0, 16383, size // 2, size - 1):
        if at < size:
            assert numba[at] == words_at(at // 4, 2**64 - 1, 7, MASK)[at % 4]


def test_a_shorter_draw_is_the_beginning_of_a_longer_one(backend):
    assert bits(5, 3).tolist() == bits(50, 3)[:5].tolist()


# --- uniform ----------------------------------------------------------------------------------------------------------


def test_uniform_float32_is_24_bits_of_a_word(backend):
    u = Generator(5, stream="data", step=3).uniform(1001).numpy()
    assert u.dtype == np.float32
    np.testing.assert_array_equal(u * 2.0**24, bits(1001, 5, STREAMS["data"], 3) >> 8)


def test_uniform_float64_is_53_bits_of_two_words(backend):
    u = Generator(5).uniform((7, 11), dtype=np.float64).numpy()
    words = bits(2 * 77, 5).astype(object).reshape(-1, 2)
    expected = [((int(high) << 32 | int(low)) >> 11) * 2.0**-53 for low, high in words]
    assert u.dtype == np.float64
    np.testing.assert_array_equal(u.reshape(-1), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniform_stays_below_one_even_when_all_bits_are_set(dtype):
    highest = philox_module._fractions(lambda out, **_: out.fill(MASK), 3, np.dtype(dtype), 0, 0, 0).astype(dtype)
    assert (highest < 1).all()
    assert (highest == np.nextafter(dtype(1), dtype(0))).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniform_is_uniform(dtype):
    u = np.sort(Generator(1).uniform(100_000, dtype=dtype).numpy())
    assert u[0] >= 0
    assert u[-1] < 1
    assert kolmogorov_smirnov(u) < 1.95


def kolmogorov_smirnov(cdf):
    """Return √n·sup|F_n − F| from F at the sorted sample; one sample in a thousand exceeds 1.95."""
    n = len(cdf)
    ranks = np.arange(n)
    return math.sqrt(n) * max(((ranks + 1) / n - cdf).max(), (cdf - ranks / n).max())


# --- normal -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normal_is_normal(dtype):
    n = 100_000
    x = Generator(2).normal(n, dtype=dtype).numpy()
    assert x.dtype == dtype
    assert np.isfinite(x).all()
    x = np.sort(x.astype(np.float64))
    for power, expected, deviation in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):  # deviation: Var x^power
        assert abs((x**power).mean() - expected) < 4 * math.sqrt(deviation / n)
    assert kolmogorov_smirnov(np.array([(1 + math.erf(v / math.sqrt(2))) / 2 for v in x])) < 1.95


def test_the_two_normals_of_a_pair_are_uncorrelated():
    x = Generator(3).normal((100_000, 2), dtype=np.float64).numpy()
    for a, b in ((x[:, 0], x[:, 1]), (x[:, 0] ** 2, x[:, 1] ** 2), (x[1:, 0], x[:-1, 1])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / math.sqrt(len(a))


@pytest.mark.parametrize("size", [0, 1, 2, 7, 20_001])
@pytest.mark.parametrize("kind", ["uniform", "normal"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_are_the_same_on_both_backends(dtype, kind, size):
    numba = getattr(Generator(4), kind)(size, dtype=dtype).numpy()
    with kernels.use("reference"):
        reference = getattr(Generator(4), kind)(size, dtype=dtype).numpy()
    if kind == "normal" and dtype == np.float64:  # the logarithm of one library may end in another bit than the other's
        np.testing.assert_array_max_ulp(numba, reference, 4)
    else:
        assert numba.tobytes() == reference.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("word", [0, MASK])
def test_normals_are_finite_at_the_ends_of_the_range(dtype, word):
    x = philox_module._normals(lambda out, **_: out.fill(word), np.empty(4, dtype), 0, 0, 0)
    assert np.isfinite(x).all()
    assert np.abs(x).max() < 9


# --- permutation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 17, 1797])
def test_permutation_is_one_and_the_same_every_time(backend, n):
    order = Generator(6).permutation(n)
    assert sorted(order) == list(range(n))
    np.testing.assert_array_equal(order, Generator(6).permutation(n))
    with kernels.use("reference"):
        np.testing.assert_array_equal(order, Generator(6).permutation(n))


def test_permutations_are_about_equally_frequent():
    generator = Generator(7, stream="shuffle")
    counts = Counter(tuple(generator.permutation(4)) for _ in range(2400))
    assert len(counts) == 24
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < 49.7  # χ², 23 degrees of freedom, 0.1%


# --- generators -------------------------------------------------------------------------------------------------------


def test_streams_and_steps_and_seeds_give_different_numbers():
    draws = {
        (seed, stream, step): Generator(seed, stream=stream, step=step).normal(2000, dtype=np.float64).numpy()
        for seed in (0, 1, 2**32)
        for stream in ("default", "latent-D", "latent-G")
        for step in (0, 1)
    }
    for a, b in combinations(draws.values(), 2):
        assert not (a == b).any()
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(2000)


def test_every_seed_gives_other_weights_dropout_and_noise():
    """So do seeds that differ in half of their bits alone, and neighbouring ones."""

    def made(seed):
        mg.manual_seed(seed)
        layers = [mg.nn.Dropout(), mg.nn.Dropout(), mg.nn.InstanceNoise(0.1), mg.nn.InstanceNoise(0.1)]
        drawn = mg.nn.Dense(2, 2).w, mg.nn.MinibatchDiscrimination(2, 2, 1).w
        return [int(layer.seed) for layer in layers], [w.data.tobytes() for w in drawn]

    try:
        found = {seed: made(seed) for seed in (0, 1, 2, 3, 2**32, 2**32 + 1, 2**63, 2**64 - 1)}
        assert made(2**32 + 1) == found[2**32 + 1]
    finally:
        mg.manual_seed(0)
    assert found[0][0] == [0, 1, 0, 1]  # as in a new process
    seeds = [seed for one in found for seed in found[one][0] if one]
    assert len(set(seeds)) == len(seeds)
    weights = [w for one in found for w in found[one][1]]
    assert len(set(weights)) == len(weights)


def test_every_stream_has_its_own_number():
    assert len(set(STREAMS.values())) == len(STREAMS)
    first = [Generator(0, stream=name).uniform().item() for name in STREAMS]
    assert len(set(first)) == len(STREAMS)


def test_a_draw_advances_the_step_by_one_whatever_its_size_and_kind():
    generator = Generator(8)
    generator.normal((3, 4))
    generator.uniform(1000)
    generator.permutation(5)
    assert generator.step == 3
    resumed = Generator(8, step=3)
    assert generator.normal(9).numpy().tobytes() == resumed.normal(9).numpy().tobytes()


def test_at_goes_to_a_step_and_leaves_the_generator_where_it_was():
    generator = Generator(9, stream="sample")
    draws = [generator.uniform(3).numpy() for _ in range(4)]
    again = generator.at(2)
    assert (again.seed, again.stream, again.step, generator.step) == (9, "sample", 2, 4)
    np.testing.assert_array_equal(again.uniform(3).numpy(), draws[2])
    assert repr(again) == "Generator(seed=9, stream='sample', step=3)"


@pytest.mark.parametrize(("shape", "expected"), [((), ()), (3, (3,)), ((2, 3), (2, 3)), ((4, 0), (4, 0)), ([2], (2,))])
@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_shapes(backend, kind, shape, expected):
    x = getattr(Generator(0), kind)(shape)
    assert x.shape == expected
    assert x.dtype == np.float32
    assert not x.requires_grad


def test_numpy_integers_are_seeds():
    assert Generator(np.int64(5)).uniform(3).numpy().tolist() == Generator(5).uniform(3).numpy().tolist()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Generator(-1), ValueError, "seed.*-1"),
        (lambda: Generator(2**64), ValueError, "seed.*18446744073709551616"),
        (lambda: Generator(1.5), TypeError, "a seed must be an integer, not 1.5"),
        (lambda: Generator("1"), TypeError, "a seed must be an integer, not '1'"),
        (lambda: Generator(0, stream="noise"), ValueError, "unknown stream 'noise'.*latent-D"),
        (lambda: Generator(0, step=-1), ValueError, "step.*-1"),
        (lambda: Generator(0, step=2**32), ValueError, "step.*4294967296"),
        (lambda: Generator(0, step=1.5), TypeError, "a step must be an integer, not 1.5"),
        (lambda: Generator(0).normal(2.5), TypeError, "a length must be an integer, not 2.5"),
        (lambda: Generator(0).uniform((True, 2)), TypeError, "a length must be an integer, not True"),
        (lambda: Generator(0).permutation(2.5), TypeError, "n must be an integer, not 2.5"),
        (lambda: Generator(0).at(-1), ValueError, "step.*-1"),
        (lambda: Generator(0).uniform(3, dtype=np.int32), TypeError, "float32 or float64, not int32"),
        (lambda: Generator(0).normal(3, dtype=np.float16), TypeError, "float32 or float64, not float16"),
        (lambda: Generator(0).normal((-1, 2)), ValueError, "negative"),
        (lambda: Generator(0).permutation(-1), ValueError, "negative"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
