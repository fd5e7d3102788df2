"""What a user brings in that does not fit, or what is easily forgotten: refused in a sentence, or right after all."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

import minigan as mg
from minigan import nn
from minigan.data import Dataset, from_arrays
from minigan.gan import Alternating, Game, Replayed, Trainer, make_players, penalties
from minigan.kernels.cpu.kept import MOST, Kept
from minigan.lab.diagnosis import variety
from minigan.random import Generator

EMULATED = "cuda-emulated"


def networks(device="cpu"):
    mg.manual_seed(1)
    return nn.Dense(4, 2).to(device), nn.Sequential(nn.Dense(2, 8), nn.LeakyReLU(0.2), nn.Dense(8, 1)).to(device)


def points(count=32):
    return from_arrays(np.random.default_rng(0).standard_normal((count, 2)), name="points")


def trainer(game, **settings):
    return Trainer(game, mg.optim.Adam, points(), latent=4, batch=8, **settings)


def bits(made):
    return {name: array.tobytes() for name, array in made.state().items()}


@pytest.mark.parametrize("penalty", [penalties.wgan_gp, penalties.lp, penalties.dragan])
def test_a_penalty_draws_on_the_networks_device_from_the_trainers_seed(penalty):
    runs = [trainer(Game(*networks(), penalties=[penalty(1.0)]), seed=seed) for seed in (0, 0, 5)]
    for run in runs:
        run.train(2)
    assert bits(runs[0]) == bits(runs[1])
    assert bits(runs[0]) != bits(runs[2])
    own = Game(*networks(), penalties=[penalty(1.0)], noise=Generator(9, stream="penalty"))
    assert trainer(own, seed=5).noise["penalty"].seed == 9
    assert runs[2].noise["penalty"].seed == 5


def test_a_penalty_draws_on_a_device():
    from minigan.kernels.gpu import emulator

    if emulator.missing_compiler():
        pytest.skip(emulator.missing_compiler())
    game = Game(*networks(EMULATED), penalties=[penalties.wgan_gp(1.0)])
    assert game.noise.device == EMULATED
    made = trainer(game)
    made.train(1)
    assert made.steps == 1


def test_parts_that_do_not_belong_together():
    game, other = Game(*networks()), Game(*networks())
    for turns in (other, Replayed(other)):
        with pytest.raises(ValueError, match="play another game"):
            Trainer(game, Alternating(turns, *make_players(other, mg.optim.Adam)), points(), latent=4)
    Trainer(game, Alternating(Replayed(game), *make_players(game, mg.optim.Adam)), points(), latent=4)
    with pytest.raises(ValueError, match="needs the goal"):
        trainer(game, fade=lambda done: 1 - done).train(1)
    with pytest.raises(ValueError, match="takes no conditions"):
        trainer(game).sample(3, given=np.ones((3, 2)))


@pytest.mark.parametrize(
    ("error", "words", "make"),
    [
        (TypeError, "float32 or uint8, not float64", lambda x: Dataset("own", x)),
        (TypeError, "float32 or uint8, not int64", lambda x: Dataset("own", x.astype(int))),
        (ValueError, "cannot have 3 labels", lambda x: Dataset("own", x.astype("f"), labels=np.zeros(3, int))),
        (ValueError, "cannot have 3 attributes", lambda x: Dataset("own", x.astype("f"), attributes=np.zeros((3, 2)))),
        (ValueError, "but there are 1 names", lambda x: from_arrays(x, np.arange(8) % 3, names=("one",))),
        (ValueError, "2 attributes, but 1 names", lambda x: from_arrays(x, np.zeros((8, 2), int), names=("one",))),
        (ValueError, r"points are \(N, 2\), not \(8, 5\)", lambda x: from_arrays(np.ones((8, 5)))),
    ],
)
def test_data_that_does_not_fit(error, words, make):
    with pytest.raises(error, match=words):
        make(np.random.default_rng(0).standard_normal((8, 2)))


def test_nobody_writes_the_data_through_a_reference():
    data = points()
    before = data.fingerprint
    with pytest.raises(ValueError, match="read-only"):
        data.reference()[0] = 7
    assert replace(data).fingerprint == before


def test_a_single_class_is_no_collapse():
    samples = np.random.default_rng(0).standard_normal((40, 2))
    assert variety(samples, samples, np.zeros(40, int), None).entropy == 1.0
    assert variety(samples, samples, None, np.zeros((1, 2))).entropy == 1.0


class Pair(NamedTuple):
    first: nn.Module
    second: nn.Module


class Holder(nn.Module):
    def __init__(self):
        self.pair = Pair(nn.Dense(2, 2), nn.Dense(2, 2))
        self.ordered = OrderedDict(last=nn.Dense(2, 1))

    def forward(self, x):
        return self.ordered["last"](self.pair.second(self.pair.first(x)))


def test_modules_in_named_tuples_and_dicts_of_other_types_are_rebuilt():
    network = Holder()
    made = network.rebuilt(lambda m: nn.SpectralNorm(m) if isinstance(m, nn.Dense) else m)
    assert isinstance(made.pair, Pair)
    assert isinstance(made.ordered, OrderedDict)
    assert all(isinstance(m, nn.SpectralNorm) for m in (*made.pair, *made.ordered.values()))
    assert isinstance(network.pair.first, nn.Dense)
    assert made(mg.tensor(np.ones((3, 2), "f"))).shape == (3, 1)


def test_kept_results_of_many_threads():
    kept, wrong = Kept(), []

    def use(seed):
        rng = np.random.default_rng(seed)
        arrays = [rng.standard_normal(3) for _ in range(MOST)]
        for turn in range(20):
            for i, array in enumerate(arrays):
                if kept(array, "sum", lambda array=array: float(array.sum())) != float(array.sum()):
                    wrong.append((seed, turn, i))

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(kept) <= MOST
