"""What cannot fit into the memory is refused in a sentence, before anything is made or written."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minigan import nn
from minigan.data import Dataset
from minigan.gan import Config, build
from minigan.kernels import memory

RING = replace(Config.preset("ring"), width=8, batch_size=16, device="cpu")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"batch_size": 10**9},
            r"a training step takes at least .* [TG]B of memory, and .* are free: choose a smaller",
        ),
        ({"batch_size": 10**15}, "a training step takes at least .* TB of memory"),
        ({"data": "digits", "model": "dcgan", "batch_size": 10**8}, "a training step takes at least"),
        ({"batch_size": 10**6, "discrimination": 1}, "a training step takes at least"),  # pairs of samples
        ({"discrimination": 10**9}, r"a layer with weights \(16, 5000000000\) and their gradients takes at least"),
        ({"width": 10**6}, r"a layer with weights \(2000000, 2000000\) and their gradients takes at least"),
        ({"latent": 10**12}, "a layer with weights"),
        ({"rule": "unrolled", "unroll": 10**9}, "a training step takes at least .* or fewer steps of unroll"),
        ({"d_steps": 10**12}, "the order of the data takes at least"),
    ],
    ids=str,
)
def test_settings_that_cannot_fit_are_refused(changes, words):
    with pytest.raises(ValueError, match=words) as caught:
        build(replace(RING, **changes))
    assert "\n" not in str(caught.value)


def test_samples_that_cannot_fit_are_refused():
    trainer = build(RING)
    with pytest.raises(ValueError, match="making 1,000,000,000,000 samples takes at least 16 TB of memory"):
        trainer.sample(10**12)
    assert trainer.sample(3).shape == (3, 2)


def test_the_free_memory_decides(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 1e4)
    with pytest.raises(ValueError, match=r"a training step takes at least .* and 10 kB are free"):
        build(RING)
    monkeypatch.setattr(memory, "free_memory", lambda: 1e7)
    build(RING)


def test_measuring_leaves_the_networks_as_they_are():
    """Running statistics, singular vectors and counters of noise start where they would without."""
    config = replace(RING, batch_norm=True, spectral_norm=True, dropout=0.5, instance_noise=0.1)
    trainer = build(config)
    for network in (trainer.game.generator, trainer.game.discriminator):
        assert all(module.training for _, module in network.modules())
        for name, buffer in network.named_buffers().items():
            if name.endswith("draws"):
                assert buffer == 0
            if name.endswith("mean"):
                assert not buffer.any()
    layer = nn.SpectralNorm(nn.Dense(8, 8))
    start = layer.u.copy()
    layer.eval()(np.ones((2, 8), np.float32))
    assert np.array_equal(start, layer.u)


def test_a_containers_limit_counts(tmp_path):
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 200000\n")
    assert memory._of_group(tmp_path) == 500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._of_group(tmp_path) == float("inf")
    assert memory._of_group(tmp_path / "nowhere") == float("inf")
    old = tmp_path / "memory"
    old.mkdir()
    (old / "memory.limit_in_bytes").write_text("5000\n")
    (old / "memory.usage_in_bytes").write_text("3000\n")
    (old / "memory.stat").write_text("cache 1\n")
    (tmp_path / "memory.stat").unlink()
    assert memory._of_group(tmp_path) == 2000


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells a process its size")
def test_a_limit_of_the_address_space_counts():
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 45, before[1]))
        assert (1 << 44) < memory._of_limit() < (1 << 45)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_data_without_samples_is_refused():
    with pytest.raises(ValueError, match="data set nothing: it holds no samples"):
        Dataset("nothing", np.empty((0, 2), np.float32))
