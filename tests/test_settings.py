"""Every setting of a run changes it, goes on bitwise when resumed, and is refused where it does not fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from minigan import nn, optim
from minigan.gan import Alternating, Config, Extragradient, Simultaneous, build
from minigan.gan.models import MODELS, dress
from minigan.gan.variants import VARIANTS

RING = replace(Config.preset("ring"), width=4, batch_size=12, steps=8, device="cpu", lr_schedule="constant")

CHANGES = {
    **{f"penalty {name}": {"penalty": name} for name in ("r2", "wgan-gp", "lp", "dragan", "weight-decay", "r1+r2")},
    "no penalty": {"penalty": "none"},
    "simultaneous": {"dynamics": "simultaneous"},
    "extragradient": {"dynamics": "extragradient"},
    "optimistic": {"dynamics": "optimistic"},
    "optimistic sgd": {"dynamics": "optimistic", "optimizer": "sgd"},
    "consensus": {"rule": "consensus", "rule_weight": 0.1},
    "nagarajan-kolter": {"rule": "nagarajan-kolter", "rule_weight": 0.1},
    "unrolled": {"rule": "unrolled", "unroll": 2},
    "feature matching": {"rule": "feature-matching"},
    "simultaneous consensus": {"rule": "consensus", "dynamics": "simultaneous", "optimizer": "rmsprop"},
    "k": {"d_steps": 2},
    "m": {"g_steps": 2},
    "pack": {"pack": 3},
    "instance noise": {"instance_noise": 0.3},
    "spectral norm": {"spectral_norm": True, "penalty": "none"},
    "spectral norm, unrolled": {"spectral_norm": True, "rule": "unrolled", "unroll": 2},
    "stddev": {"stddev": True},
    "discrimination": {"discrimination": 3},
    "dropout": {"dropout": 0.3},
    "clip": {"clip": 0.05, "optimizer": "rmsprop", "objective": "wasserstein", "penalty": "none"},
    "smoothing": {"label": 0.9},
    "depth": {"depth": 2},
    "activation": {"activation": "tanh"},
    "rmsprop": {"optimizer": "rmsprop"},
    "sgd": {"optimizer": "sgd"},
    "linear": {"lr_schedule": "linear"},
    "cosine": {"lr_schedule": "cosine"},
}


def run(config, cut=None):
    """The state after eight steps, in one go or with a new trainer from step ``cut`` on."""
    trainer = build(config)
    while trainer.steps < config.steps:
        if trainer.steps == cut:
            state, trainer = trainer.state(), build(config)
            trainer.load_state(state)
        found = trainer.step()
    assert np.isfinite(list(trainer.metrics(found).values())).all()
    return {name: array.tobytes() for name, array in trainer.state().items()}


@pytest.fixture(scope="module")
def plain():
    return run(RING)


@pytest.mark.parametrize("change", CHANGES)
def test_a_setting_changes_the_run_which_is_resumed_bitwise(change, plain):
    config = replace(RING, **CHANGES[change])
    whole = run(config)
    assert run(config, cut=3) == whole
    shared = [name for name in plain.keys() & whole.keys() if name.startswith("generator/parameters")]
    assert any(plain[name] != whole[name] for name in shared)
    assert build(replace(config, seed=1)).sample(3).shape == (3, 2)


def test_what_the_settings_make():
    def made(**changes):
        return build(replace(RING, **changes))

    assert [type(made(dynamics=name).dynamics) for name in ("alternating", "simultaneous", "extragradient")] == [
        Alternating,
        Simultaneous,
        Extragradient,
    ]
    optimistic = made(dynamics="optimistic")
    assert type(optimistic.dynamics) is Simultaneous
    assert type(optimistic.generator.optimizer) is optim.OptimisticAdam
    assert {type(made(rule=name).game) for name in VARIANTS} == {variant.kind for variant in VARIANTS.values()}
    assert made(d_steps=2, g_steps=3).dynamics.m == 3
    clipped = made(clip=0.01)
    clipped.step()
    assert max(np.abs(p.numpy()).max() for p in clipped.game.discriminator.parameters()) <= np.float32(0.01)
    assert max(np.abs(p.numpy()).max() for p in clipped.game.generator.parameters()) > 0.1
    assert [(p.name, p.weight) for p in made(penalty="r1+r2", gamma=3.0).game.penalties] == [("r1", 3.0), ("r2", 3.0)]


def test_schedules_end_at_nothing():
    for schedule, middle in (("linear", 0.5), ("cosine", 0.5)):
        trainer = build(replace(RING, lr_schedule=schedule, instance_noise=0.4))
        (noise,) = (layer for _, layer in trainer.game.discriminator.modules() if isinstance(layer, nn.InstanceNoise))
        seen = []
        for _ in range(RING.steps):
            trainer.step()
            seen.append((trainer.generator.optimizer.lr / RING.lr_g, noise.sigma.value))
        assert seen[0] == (1.0, 0.4)
        assert seen[4] == pytest.approx((middle, 0.2))
        assert 0 < seen[-1][0] < 0.13
        assert seen[-1][1] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch_size": 10, "pack": 3}, "batch_size 10 must be a multiple of pack 3"),
        ({"dynamics": "optimistic", "optimizer": "rmsprop"}, "optimistic dynamics need optimizer adam or sgd"),
        ({"dynamics": "extragradient", "d_steps": 2}, "extragradient dynamics move both players once"),
        ({"label": 0.4}, r"label: a smoothed label must be in \(0.5, 1\], not 0.4"),
        ({"label": 0.9, "objective": "relativistic"}, "label: relativistic has no labels to smooth"),
        ({"label": 0.9, "objective": "wasserstein"}, "label: wasserstein has no labels to smooth"),
        ({"penalty": "r1+r7"}, "unknown penalty 'r7': choose from r1, r2, wgan-gp, lp, dragan, weight-decay, none"),
        ({"penalty": "r1+none"}, "unknown penalty 'none'"),
        ({"rule": "newton"}, "unknown rule 'newton': choose from consensus"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        ({"pack": 0}, "pack must be at least 1, not 0"),
        ({"clip": -1.0}, "clip must be a number >= 0, not -1.0"),
        ({"spectral_norm": True, "rule": "unrolled", "device": "cuda-emulated"}, "rule unrolled with spectral_norm"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        build(replace(RING, **change))


def test_rules_that_differentiate_twice_have_exact_singular_values():
    for rule, exact in (("consensus", True), ("unrolled", True), ("feature-matching", False), ("none", False)):
        discriminator = build(replace(RING, rule=rule, spectral_norm=True)).game.discriminator
        layers = [layer for layer in discriminator.layers if isinstance(layer, nn.SpectralNorm)]
        assert [layer.exact for layer in layers] == [exact] * (RING.depth + 1)


def test_a_dressed_discriminator():
    discriminator = MODELS["dcgan"]((8, 8, 2), 4, 4, True)[1]
    dressed = dress(
        discriminator, pack=2, noise=nn.Schedule(0.1), spectral_norm=True, stddev=True, discrimination=3, dropout=0.2
    )
    assert [repr(layer).split("(")[0] for layer in dressed.layers] == [
        "InstanceNoise", "Pack", "SpectralNorm", "LeakyReLU", "Dropout", "SpectralNorm", "LeakyReLU", "Dropout",
        "Flatten", "MinibatchStddev", "MinibatchDiscrimination", "SpectralNorm",
    ]  # fmt: skip
    assert dressed[-1].layer.w.shape == (discriminator[-1].w.shape[0] + 1 + 3, 1)
    assert [repr(layer) for layer in dress(discriminator).layers] == [repr(layer) for layer in discriminator.layers]
    seeds = [int(layer.seed) for layer in dressed.layers if isinstance(layer, nn.Dropout)]
    assert len(set(seeds)) == 2
    with pytest.raises(TypeError, match="the discriminator must end in a Dense layer, not Flatten"):
        dress(nn.Sequential(nn.Dense(2, 2), nn.Flatten()), stddev=True)
