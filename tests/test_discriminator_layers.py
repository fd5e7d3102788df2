"""Layers that discriminators are made with: noise, packs, statistics of a batch, spectral norm."""

from __future__ import annotations

import numpy as np
import pytest

import minigan as mg
from minigan import nn, ops
from minigan.gan import Game, Replayed
from minigan.random import Generator
from minigan.testing.gradcheck import check_grads


def normal(*shape, seed=0, dtype=np.float64):
    return Generator(seed).normal(shape, dtype=dtype).numpy()


# --- schedules and noise ----------------------------------------------------------------------------------------------


def test_a_schedule_goes_straight_and_stays():
    schedule = nn.Schedule(1.0, 0.2, 4)
    assert [schedule.at(step) for step in (0, 1, 2, 4, 9)] == pytest.approx([1, 0.8, 0.6, 0.2, 0.2])
    assert nn.Schedule(0.5).at(7) == 0.5
    for bad in ((float("nan"), 0.0, 3), (1.0, float("inf"), 3), (1.0, 0.0, 0)):
        with pytest.raises(ValueError, match="Schedule: needs finite numbers"):
            nn.Schedule(*bad)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_instance_noise_has_its_deviation_and_is_annealed(dtype):
    schedule = nn.Schedule(0.5, 0.0, 10)
    layer, x = nn.InstanceNoise(schedule, seed=3), mg.tensor(np.ones((100, 100), dtype))
    first = layer(x).numpy() - 1
    assert first.dtype == dtype
    assert (first.mean(), first.std()) == pytest.approx((0, 0.5), abs=0.02)
    schedule.at(5)
    second = layer(x).numpy() - 1
    assert second.std() == pytest.approx(0.25, abs=0.01)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.05
    schedule.at(10)
    np.testing.assert_array_equal(layer(x).numpy(), x.numpy())
    assert layer.eval()(x) is x
    assert layer.named_buffers()["draws"] == 3
    with pytest.raises(ValueError, match="sigma must be >= 0"):
        nn.InstanceNoise(-1.0)


def test_instance_noise_is_a_function_of_seed_and_counter():
    x = mg.tensor(np.zeros(50, np.float32))
    layer = nn.InstanceNoise(1.0, seed=7)
    first, second = layer(x).numpy(), layer(x).numpy()
    resumed = nn.InstanceNoise(1.0, seed=7)
    resumed.load_buffers({"draws": np.array(1)})
    np.testing.assert_array_equal(resumed(x).numpy(), second)
    assert (first != second).any()
    assert (nn.InstanceNoise(1.0)(x).numpy() != nn.InstanceNoise(1.0)(x).numpy()).any()


# --- packs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 2), (6, 4, 5, 3)])
@pytest.mark.parametrize("m", [1, 2, 3])
def test_packs_join_neighbours_along_the_last_axis(backend, shape, m):
    x = normal(*shape)
    packed = nn.Pack(m)(mg.tensor(x)).numpy()
    wanted = [np.concatenate(x[i : i + m], axis=-1) for i in range(0, len(x), m)]
    np.testing.assert_array_equal(packed, wanted)
    check_grads(nn.Pack(m), [x])


def test_a_batch_that_cannot_be_packed():
    with pytest.raises(ValueError, match="a batch of 5 cannot be cut into packs of 2"):
        nn.Pack(2)(mg.tensor(np.ones((5, 2))))
    with pytest.raises(ValueError, match="m must be at least 1, not 0"):
        nn.Pack(0)


# --- the whole batch --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 3), (4, 2, 3, 2)])
def test_minibatch_stddev_appends_the_mean_deviation(backend, shape):
    x = normal(*shape)
    y = nn.MinibatchStddev()(mg.tensor(x)).numpy()
    assert y.shape == (*shape[:-1], shape[-1] + 1)
    np.testing.assert_array_equal(y[..., :-1], x)
    np.testing.assert_allclose(y[..., -1], np.sqrt(x.var(0) + 1e-8).mean(), rtol=1e-12)
    check_grads(nn.MinibatchStddev(), [x])
    same = mg.tensor(np.ones(shape), requires_grad=True)
    found = nn.MinibatchStddev()(same)
    assert found.numpy()[..., -1].max() == pytest.approx(1e-4)
    assert np.isfinite(mg.grad(found.sum(), same).numpy()).all()


def test_minibatch_discrimination_measures_how_close_samples_are(backend):
    layer = nn.MinibatchDiscrimination(3, kernels=4, dims=2).astype(np.float64)
    layer.w.data[...] = normal(3, 8, seed=1)
    x, t = normal(5, 3), layer.w.numpy().reshape(3, 4, 2)
    y = layer(mg.tensor(x)).numpy()
    m = np.einsum("na,abc->nbc", x, t)
    close = np.exp(-np.abs(m[:, None] - m[None]).sum(3))
    for i in range(5):
        np.testing.assert_allclose(y[i], [*x[i], *(close[i].sum(0) - 1)], rtol=1e-12)
    check_grads(lambda x, t: layer.with_parameters([t])(x), [3 * x[:3], layer.w.numpy()])
    alike = layer(mg.tensor(np.ones((7, 3)))).numpy()
    np.testing.assert_allclose(alike[:, 3:], 6)
    with pytest.raises(ValueError, match="sizes must be positive"):
        nn.MinibatchDiscrimination(3, 0)


# --- spectral norm ----------------------------------------------------------------------------------------------------

LAYERS = {
    "dense": (lambda: nn.Dense(6, 4), (3, 6)),
    "conv": (lambda: nn.Conv2d(2, 3, (3, 2), 2, 1), (2, 5, 6, 2)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 3, 4, 2, 1, bias=False), (2, 3, 3, 2)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_spectral_norm_divides_by_the_largest_singular_value(backend, kind):
    make, shape = LAYERS[kind]
    layer = make().astype(np.float64)
    normed, x = nn.SpectralNorm(layer), mg.tensor(normal(*shape))
    for _ in range(200):
        normed(x)
    w = layer.w.numpy()
    sigma = np.linalg.svd(w.reshape(-1, w.shape[-1]), compute_uv=False)[0]
    others = [layer.b] if layer.b is not None else []
    wanted = layer.with_parameters([mg.tensor(w / sigma), *others])(x).numpy()
    np.testing.assert_allclose(normed(x).numpy(), wanted, rtol=1e-9, atol=1e-12)
    u = normed.u
    normed.eval()(x)
    assert normed.u is u
    assert [p is q for p, q in zip(normed.parameters(), layer.parameters(), strict=True)] == [True] * (1 + len(others))


def test_one_power_iteration_a_call_and_no_gradient_through_it(backend):
    layer = nn.Dense(3, 2).astype(np.float64)
    normed, x = nn.SpectralNorm(layer), normal(4, 3)
    w, u = layer.w.numpy(), normed.u.astype(np.float64)
    v = w @ u / np.linalg.norm(w @ u)
    u = w.T @ v / np.linalg.norm(w.T @ v)
    np.testing.assert_allclose(normed(mg.tensor(x)).numpy(), x @ (w / (v @ w @ u)) + layer.b.numpy(), rtol=1e-10)
    np.testing.assert_allclose(normed.u, u, rtol=1e-9)
    still = nn.SpectralNorm(layer).eval()
    kept = still.u.astype(np.float64)
    left = w @ kept / np.linalg.norm(w @ kept)

    def by_hand(x, w, b):
        return ops.dense(x, w / ops.sum(ops.matmul(left[None], w) * kept[None]), b)

    arguments = [x, w, layer.b.numpy()]
    check_grads(by_hand, arguments)
    leaves = [mg.tensor(a, requires_grad=True) for a in arguments]
    wanted = mg.grad(ops.sum(ops.square(by_hand(*leaves))), leaves[1:])
    found = mg.grad(ops.sum(ops.square(still(mg.tensor(x)))), layer.parameters())
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-9)
    with pytest.raises(TypeError, match="needs a layer with weights, not ReLU"):
        nn.SpectralNorm(nn.ReLU())


def test_an_exact_singular_value_has_three_derivatives():
    layer, x = nn.Dense(5, 4).astype(np.float64), mg.tensor(normal(3, 5))
    # the differences below need a gap between the two largest singular values: not every draw has one
    layer.w.data[...] = np.linspace(-1, 1, 20).reshape(5, 4) + 0.3 * normal(5, 4, seed=2)
    normed, w, direction = nn.SpectralNorm(layer, exact=True), layer.w.numpy().copy(), normal(5, 4)

    def value(t):
        moved = mg.tensor(w) + t * direction
        return ops.sum(ops.square(normed.with_parameters([moved, layer.b])(x)))

    def by_hand(t):
        moved = w + t * direction
        sigma = np.linalg.svd(moved, compute_uv=False)[0]
        return ((x.numpy() @ (moved / sigma) + layer.b.numpy()) ** 2).sum()

    t = mg.tensor(0.0, requires_grad=True, dtype=np.float64)
    found = [value(t)]
    for _ in range(3):
        found.append(mg.grad(found[-1], t, create_graph=True))
    h = 2e-3
    at = {k: by_hand(k * h) for k in range(-4, 5)}  # central differences of the sixth order
    first = (45 * (at[1] - at[-1]) - 9 * (at[2] - at[-2]) + (at[3] - at[-3])) / (60 * h)
    second = (-490 * at[0] + 270 * (at[1] + at[-1]) - 27 * (at[2] + at[-2]) + 2 * (at[3] + at[-3])) / (180 * h**2)
    third = (
        -488 * (at[1] - at[-1]) + 338 * (at[2] - at[-2]) - 72 * (at[3] - at[-3]) + 7 * (at[4] - at[-4])
    ) / (240 * h**3)  # fmt: skip
    assert [y.item() for y in found] == pytest.approx([at[0], first, second, third], rel=1e-6)
    with pytest.raises(ValueError, match="exact singular values need device cpu, not cuda-emulated"):
        nn.SpectralNorm(nn.Dense(2, 2), exact=True).to("cuda-emulated")(mg.tensor([[1.0, 2.0]]).to("cuda-emulated"))
    estimated = nn.SpectralNorm(layer)
    for _ in range(500):
        estimated(x)
    np.testing.assert_allclose(estimated(x).numpy(), normed(x).numpy(), rtol=1e-9)


def test_a_network_of_normed_layers_is_lipschitz():
    network = nn.Sequential(
        nn.SpectralNorm(nn.Dense(5, 16)), nn.LeakyReLU(), nn.SpectralNorm(nn.Dense(16, 16)), nn.LeakyReLU(),
        nn.SpectralNorm(nn.Dense(16, 1)),
    ).astype(np.float64)  # fmt: skip
    for p in network.parameters():
        p.data *= 5
    x = normal(50, 5)
    for _ in range(100):
        network(mg.tensor(x))
    y = network(mg.tensor(x)).numpy()[:, 0]
    gaps = np.abs(y[:, None] - y[None]) / (np.linalg.norm(x[:, None] - x[None], axis=2) + 1e-30)
    assert gaps.max() <= 1 + 1e-6


# --- in a traced game -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [nn.InstanceNoise(nn.Schedule(0.3, 0.0, 8), seed=1), nn.Dense(2, 6)],
        lambda: [nn.Pack(2), nn.Dense(4, 6)],
        lambda: [nn.Dense(2, 6), nn.LeakyReLU(), nn.MinibatchStddev(), nn.Dense(7, 6)],
        lambda: [nn.Dense(2, 6), nn.MinibatchDiscrimination(6, 3, 2), nn.Dense(9, 6)],
        lambda: [nn.SpectralNorm(nn.Dense(2, 6))],
    ],
    ids=["instance noise", "pack", "stddev", "discrimination", "spectral norm"],
)
def test_a_traced_game_replays_them(layers):
    def play(replayed):
        discriminator = nn.Sequential(*layers(), nn.LeakyReLU(), nn.Dense(6, 1))
        generator = nn.Sequential(nn.Dense(2, 4), nn.ReLU(), nn.Dense(4, 2))
        for number, player in enumerate((generator, discriminator)):
            nn.initialise(player, "he", Generator(number))
            for i, p in enumerate(player.parameters()):
                if p.ndim == 2:
                    p.data[...] = Generator(10 * number + i).normal(p.shape).data
        plain, found = Game(generator, discriminator), []
        game = Replayed(plain) if replayed else plain
        for step in range(6):
            for layer in discriminator.layers:
                if isinstance(layer, nn.InstanceNoise):
                    layer.sigma.at(step)
            real, z = normal(8, 2, seed=step, dtype=np.float32), normal(8, 2, seed=50 + step, dtype=np.float32)
            for turn in (game.discriminator_gradient, game.generator_gradient):
                gradient, losses = turn(real, z)
                found += [g.numpy().tobytes() for g in gradient] + [losses.loss.item()]
        if replayed:
            programs = [p for turn in game.traces.values() for p in turn._programs.values()]
            assert len(programs) == 2
            assert all(program.trusted for program in programs)
        return found

    assert play(False) == play(True)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("make", [lambda: nn.Dense(40, 7), lambda: nn.Dense(7, 40), lambda: nn.Conv2d(3, 5, 4)])
def test_spectral_norm_holds_before_any_training(make, exact):
    """At once, and after an initialiser: σ of the weight that is used is 1."""
    layer = nn.SpectralNorm(make(), exact).eval()
    for scheme in (None, "dcgan", "he"):
        if scheme:
            nn.initialise(layer, scheme, Generator(3, stream="init"))
        matrix = layer.layer.w.data.reshape(-1, layer.layer.w.shape[-1])
        shown = np.eye(len(matrix), dtype=np.float32)
        if layer.layer.w.ndim == 4:
            kh, kw, c_in, _ = layer.layer.w.shape
            shown = shown.reshape(-1, kh, kw, c_in)
        used = (layer(mg.tensor(shown)) - layer(mg.tensor(np.zeros_like(shown)))).numpy().reshape(len(matrix), -1)
        np.testing.assert_allclose(np.linalg.svd(used, compute_uv=False)[0], 1.0, rtol=2e-6)


def test_spectral_norm_of_a_zero_weight_can_grow():
    layer = nn.SpectralNorm(nn.Dense(3, 2))
    layer.layer.w.data[...] = 0
    layer.restart()
    assert np.linalg.norm(layer.u) == pytest.approx(1.0)
