"""What a user brings in: networks, data, labels, conditions, an objective, a penalty, an optimiser, a data set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import minigan as mg
from minigan import nn, ops
from minigan.cli import main as cli
from minigan.gan import Config, build
from minigan.gan.dynamics import DYNAMICS
from minigan.gan.objectives import OBJECTIVES, Separable
from minigan.gan.penalties import PENALTIES, Penalty
from minigan.gan.variants import VARIANTS
from minigan.optim import OPTIMISERS, Kind
from minigan.random import Generator

RING = replace(Config.preset("ring"), width=4, batch_size=12, steps=8, device="cpu", log_every=2)


class Block(nn.Module):
    """A residual block: x + conv(relu(conv(x))), its layers in a list, a dict and an attribute."""

    def __init__(self, channels):
        self.first = [nn.Conv2d(channels, channels, 3, 1, 1), nn.LeakyReLU(0.2)]
        self.rest = {"second": nn.Conv2d(channels, channels, 3, 1, 1)}

    def forward(self, x):
        y = x
        for layer in self.first:
            y = layer(y)
        return x + self.rest["second"](y)


class MyGenerator(nn.Module):
    def __init__(self, latent=64):
        self.head = nn.Sequential(nn.Dense(latent, 2 * 2 * 8), nn.BatchNorm(32), nn.ReLU(), nn.Reshape(2, 2, 8))
        self.up = nn.ConvTranspose2d(8, 8, 4, 2, 1)
        self.block = Block(8)
        self.last = nn.ConvTranspose2d(8, 3, 4, 2, 1)

    def forward(self, z):
        return ops.tanh(self.last(self.block(self.up(self.head(z)))))


class MyDiscriminator(nn.Module):
    def __init__(self):
        self.first = nn.Conv2d(3, 8, 4, 2, 1)
        self.activation = nn.LeakyReLU(0.2)
        self.block = Block(8)
        self.judge = nn.Sequential(nn.Flatten(), nn.Dense(4 * 4 * 8, 1))

    def forward(self, x):
        return self.judge(self.block(self.activation(self.first(x))))


def pictures(count=96):
    """Colour images, 8×8: a class for each of three colours."""
    labels = np.arange(count) % 3
    images = Generator(0).uniform((count, 8, 8, 3)).numpy() * 60
    images[np.arange(count), :, :, labels] += 180
    return images.astype(np.uint8), labels


def test_own_networks_and_data_enter_in_three_lines():
    images_uint8, labels = pictures()
    G, D = MyGenerator(), MyDiscriminator()  # noqa: N806
    game = mg.gan.Game(G, D, mg.gan.objectives.HINGE, penalties=[mg.gan.penalties.r1(1.0)])
    trainer = mg.gan.Trainer(game, mg.optim.Adam, data=mg.data.from_arrays(images_uint8, labels))
    rows, shown = [], []
    for event in trainer.events(until=60):
        if isinstance(event, mg.gan.Row):
            rows.append(event.values)
        if isinstance(event, mg.gan.Picture):
            shown.append(event.samples)
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50, 60]
    assert [samples.shape for samples in shown] == [(64, 8, 8, 3)] * 2
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    assert rows[-1]["penalty"] > 0
    trained = all(turn._programs and all(p.trusted for p in turn._programs.values())
                  for name, turn in trainer.dynamics.game.traces.items() if name != "both")  # fmt: skip
    assert trained, "own networks are replayed too"
    assert np.abs(shown[1] - shown[0]).mean() > 0.05, "the samples have moved"
    state = trainer.state()
    again = mg.gan.Trainer(
        mg.gan.Game(MyGenerator(), MyDiscriminator(), game.objective, game.penalties), mg.optim.Adam, trainer.data
    )
    again.load_state(state)
    for run in (trainer, again):
        run.train(63)
    assert all(np.array_equal(a, again.state()[name], equal_nan=True) for name, a in trainer.state().items())


# --- one row in one table ---------------------------------------------------------------------------------------------


def trains(config, tmp_path, *flags):
    """Train by the library and by the command line, and return the library's last row."""
    trainer = build(config)
    rows = [event.values for event in trainer.events(config.steps) if isinstance(event, mg.gan.Row)]
    (tmp_path / "own.toml").write_text(replace(config, steps=4).to_toml(), encoding="utf-8")
    assert cli.main(["train", "--config", str(tmp_path / "own.toml"), *flags, "--out", str(tmp_path / "run")]) == 0
    assert cli.main(["explain", str(tmp_path / "run")]) == 0
    assert np.isfinite(list(rows[-1].values())).all()
    return rows[-1]


def said_in_help(word, capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    return word in capsys.readouterr().out


def test_an_objective_is_one_row(monkeypatch, tmp_path, capsys):
    absolute = Separable(
        "steep", "L_D = E_p sp(−s) + E_q sp(s);  L_G = ½ E_q (s − 1)²", "here", (None, None),
        real="softplus_neg", fake="softplus", generated="square_to_one",
    )  # fmt: skip
    monkeypatch.setitem(OBJECTIVES, "steep", absolute)
    row = trains(replace(RING, objective="steep"), tmp_path, "--objective", "steep")
    assert row["loss_g"] >= 0
    assert said_in_help("steep", capsys)


def test_a_penalty_is_one_row(monkeypatch, tmp_path, capsys):
    drift = Penalty("drift", "γ E_p s²", "arXiv:1710.10196", lambda look: ops.mean(ops.square(look.real.logits)))
    monkeypatch.setitem(PENALTIES, "drift", drift)
    config = replace(RING, penalty="r1+drift", gamma=0.5)
    assert [p.name for p in build(config).game.penalties] == ["r1", "drift"]
    assert trains(config, tmp_path, "--penalty", "drift")["penalty"] > 0
    assert said_in_help("drift", capsys)


def test_an_optimiser_is_one_row(monkeypatch, tmp_path, capsys):
    class Sign(mg.optim.Optimizer):
        """p ← p − lr·sign(g)."""

        def _step_(self):
            self.buffer -= self.lr * np.sign(self.gradient)

    monkeypatch.setitem(OPTIMISERS, "sign", Kind(Sign))
    trains(replace(RING, optimizer="sign", lr_d=1e-3, lr_g=1e-3), tmp_path, "--optimizer", "sign")
    with pytest.raises(ValueError, match="optimistic dynamics need optimizer adam or sgd, not sign"):
        replace(RING, optimizer="sign", dynamics="optimistic")
    assert said_in_help("sign", capsys)


def test_a_data_set_is_one_row(monkeypatch, tmp_path, capsys):
    images, labels = pictures()
    source = mg.data.Source(
        lambda: mg.data.from_arrays(images, labels, name="colours", names=("red", "green", "blue")),
        {"width": 4, "batch_size": 16, "steps": 6, "log_every": 2},
    )
    monkeypatch.setitem(mg.data.DATASETS, "colours", source)
    config = Config.preset("colours")
    assert (config.width, config.steps) == (4, 6)
    trains(replace(config, device="cpu"), tmp_path, "--data", "colours")
    assert said_in_help("colours", capsys)


# --- conditional networks ---------------------------------------------------------------------------------------------


class Conditional(nn.Module):
    conditional = True

    def __init__(self, *sizes, conditions):
        layers = [nn.Dense(sizes[0] + conditions, sizes[1]), nn.LeakyReLU(0.2), nn.Dense(sizes[1], sizes[2])]
        self.net = nn.Sequential(*layers)

    def forward(self, x, given):
        return self.net(ops.concat([x, given], axis=1))


def wheel():
    """Three clusters in the plane, a class each."""
    labels = np.arange(120) % 3
    angle = 2 * np.pi * labels / 3
    centres = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return mg.data.from_arrays(centres + 0.02 * Generator(1).normal((120, 2)).numpy(), labels, name="wheel")


def conditional(variant="none", scheme="alternating", data=None, k=1, replayed=True):
    start = Generator(3, stream="init")
    networks = [nn.initialise(Conditional(*sizes, conditions=3), "he", start) for sizes in ((4, 16, 2), (2, 16, 1))]
    game = VARIANTS[variant].kind(*networks, penalties=[mg.gan.penalties.r1(0.1), mg.gan.penalties.wgan_gp(0.1)])
    players = mg.gan.make_players(game, lambda p: mg.optim.Adam(p, 5e-3, (0.5, 0.99)))
    turns = mg.gan.Replayed(game) if replayed else game
    dynamics = DYNAMICS[scheme].make(turns, *players, k=k)
    return mg.gan.Trainer(game, dynamics, data or wheel(), latent=4, batch=32)


def test_a_conditional_game_learns_its_classes_and_resumes_bitwise():
    trainer = conditional()
    trainer.train(700)
    angle = 2 * np.pi * np.arange(3) / 3
    centres = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for number in range(3):
        samples = trainer.sample(50, given=np.tile(np.eye(3)[number], (50, 1)))
        nearest = np.linalg.norm(samples[:, None] - centres, axis=2).argmin(1)
        assert (nearest == number).mean() > 0.9
    cut = conditional()
    cut.load_state(trainer.state())
    for run in (trainer, cut):
        run.train(704)
    assert "noise/condition" in trainer.state()
    assert all(a.tobytes() == cut.state()[name].tobytes() for name, a in trainer.state().items())
    assert np.array_equal(trainer.sample(9, seed=4), cut.sample(9, seed=4))


@pytest.mark.parametrize("scheme", DYNAMICS)
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "feature-matching"])
def test_conditions_reach_every_variant_and_scheme(variant, scheme):
    runs = [conditional(variant, scheme, k=2 if scheme == "alternating" else 1, replayed=replayed)
            for replayed in (False, True)]  # fmt: skip
    for run in runs:
        run.train(5)
    plain, replayed = (run.state() for run in runs)
    assert all(a.tobytes() == replayed[name].tobytes() for name, a in plain.items())


def test_conditions_are_drawn_as_often_as_they_are_in_the_data():
    data = wheel()
    rare = mg.data.from_arrays(data.reference(), (np.arange(120) % 10 == 0).astype(int), name="rare")
    trainer = conditional(data=mg.data.from_arrays(data.reference(), np.minimum(rare.labels * 2, 2), name="rare"))
    shares = np.mean([trainer._latent(trainer.noise["latent-G"]).given.data.mean(0) for _ in range(100)], axis=0)
    np.testing.assert_allclose(shares, [0.9, 0.0, 0.1], atol=0.02)


def test_what_a_conditional_game_refuses():
    plain = mg.data.from_arrays(wheel().reference())
    with pytest.raises(ValueError, match="the networks are conditional, but arrays has no labels and no attributes"):
        conditional(data=plain)
    trainer = conditional()
    game = trainer.game
    with pytest.raises(ValueError, match=r"4 samples need conditions of shape \(4, 3\), not \(1, 3\)"):
        trainer.sample(4, given=[[1, 0, 0]])
    with pytest.raises(ValueError, match="Conditional is conditional, and these samples have no conditions"):
        game.discriminator_loss(np.zeros((4, 2), np.float32), np.zeros((4, 2), np.float32))
    with pytest.raises(TypeError, match="the objective must be one of minigan.gan.objectives, not 'hinge'"):
        mg.gan.Game(game.generator, game.discriminator, "hinge")
    with pytest.raises(TypeError, match=r"a penalty must be one of minigan.gan.penalties, such as r1\(1.0\), not 'r1'"):
        mg.gan.Game(game.generator, game.discriminator, penalties=["r1"])


# --- layers inside of blocks ------------------------------------------------------------------------------------------


def weighted(network):
    return [(path, m) for path, m in network.modules() if isinstance(m, nn.Conv2d | nn.Dense)]


def test_every_weight_in_a_block_is_reached():
    network = MyDiscriminator()
    assert len(weighted(network)) == 4
    dressed = mg.gan.models.dress(network, spectral_norm=True, dropout=0.25, seed=5)
    norms = [m for _, m in dressed.modules() if isinstance(m, nn.SpectralNorm)]
    assert len(norms) == 4
    assert {id(norm.layer) for norm in norms} == {id(m) for _, m in weighted(network)}
    dropouts = [m for _, m in dressed.modules() if isinstance(m, nn.Dropout)]
    assert len(dropouts) == sum(isinstance(m, nn.LeakyReLU) for _, m in network.modules()) == 2
    assert len({int(m.seed) for m in dropouts}) == 2
    assert len([m for _, m in network.modules() if isinstance(m, nn.SpectralNorm | nn.Dropout)]) == 0
    twice = mg.gan.models.dress(dressed, spectral_norm=True)
    assert not any(isinstance(m.layer, nn.SpectralNorm) for _, m in twice.modules() if isinstance(m, nn.SpectralNorm))

    before = {path: m.w.numpy() for path, m in weighted(network)}
    nn.initialise(dressed, "dcgan", Generator(0, stream="init"))
    for path, m in weighted(network):
        assert not np.array_equal(m.w.numpy(), before[path]), path
        assert m.w.numpy().std() == pytest.approx(0.02, rel=0.25), path

    x = Generator(1).normal((6, 8, 8, 3))
    dressed.eval()
    for _ in range(60):
        for norm in norms:
            norm.train()
        dressed(x)
    for norm in norms:
        matrix = norm.layer.w.numpy().reshape(-1, norm.layer.w.shape[-1])
        sigma = float(norm._estimate(mg.Tensor(matrix)).data)
        assert sigma == pytest.approx(np.linalg.svd(matrix, compute_uv=False)[0], rel=1e-3)


def test_a_module_that_stands_twice_is_rebuilt_once():
    shared = nn.Dense(4, 4)
    network = nn.Sequential(shared, nn.ReLU(), shared)
    made = network.rebuilt(lambda m: nn.SpectralNorm(m) if isinstance(m, nn.Dense) else m)
    assert made[0] is made[2]
    assert isinstance(made[0], nn.SpectralNorm)
    assert network[0] is shared
    assert network.rebuilt(lambda m: m) is network


def test_statistics_of_a_batch_need_a_dense_layer_at_the_end():
    with pytest.raises(TypeError, match="the discriminator must end in a Dense layer, not MyDiscriminator"):
        mg.gan.models.dress(MyDiscriminator(), stddev=True)


# --- data -------------------------------------------------------------------------------------------------------------


def test_batches_of_arrays():
    images, labels = pictures(30)
    data = mg.data.from_arrays(images, labels)
    x, given = data.batch(np.array([4, 0, 7]))
    np.testing.assert_allclose(x.data, images[[4, 0, 7]] / 127.5 - 1, atol=1e-6)
    assert x.dtype == given.dtype == np.float32
    assert given.data.tolist() == np.eye(3)[labels[[4, 0, 7]]].tolist()
    assert (len(data), data.shape, data.conditions) == (30, (8, 8, 3), 3)
    assert data.reference().shape == (30, 8, 8, 3)
    few = data.reference(7)
    assert few.shape == (7, 8, 8, 3)
    assert np.array_equal(few, data.reference(7))
    grey = mg.data.from_arrays(images[..., 0], np.stack([labels == 0, labels > 0], axis=1))
    assert grey.shape == (8, 8, 1)
    assert grey.batch(np.arange(2)).given.data.tolist() == [[1, 0], [0, 1]]
    assert mg.data.from_arrays(images).batch(np.arange(2)).given is None
    ends = mg.data.from_arrays(np.array([[[0, 255]]], np.uint8)).batch(np.arange(1)).x.data.ravel()
    np.testing.assert_allclose(ends, [-1, 1], atol=1e-6)
    assert len({data.fingerprint, grey.fingerprint, mg.data.from_arrays(images, labels[::-1].copy()).fingerprint}) == 3


@pytest.mark.parametrize(
    ("samples", "labels", "words"),
    [
        (np.zeros((5,), np.uint8), None, r"samples are images .* not \(5,\)"),
        (np.zeros((0, 8, 8), np.uint8), None, r"samples are images .* not \(0, 8, 8\)"),
        (np.zeros((5, 3, 8, 8), np.uint8), None, r"channels-last .*, and \(5, 3, 8, 8\) looks like"),
        (np.full((5, 8, 8, 1), 200.0), None, r"floats of images must lie in \[-1, 1\], and these lie from 200 to 200"),
        (np.full((5, 8, 8, 1), np.nan), None, "samples hold NaN"),
        (np.zeros((5, 8, 8), np.int64), None, "samples are uint8 or floats, not int64"),
        (np.zeros((5, 8, 8), np.uint8), np.zeros(4, int), r"5 samples need labels \(5,\) or \(5, A\), not \(4,\)"),
        (np.zeros((5, 8, 8), np.uint8), np.full(5, -1), "classes are integers from 0 on, not int64 from -1"),
        (np.zeros((5, 8, 8), np.uint8), np.full(5, 0.5), "classes are integers from 0 on, not float64"),
        (np.zeros((5, 8, 8), np.uint8), np.full((5, 2), 3), "attributes .* must be zeros and ones"),
    ],
)
def test_arrays_that_are_no_data(samples, labels, words):
    with pytest.raises((ValueError, TypeError), match=words):
        mg.data.from_arrays(samples, labels)
