"""Tensors, networks and training on a device: the emulated one, whose kernels are those of a GPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import minigan as mg
from minigan import nn, optim
from minigan.cli import main as cli
from minigan.engine import device
from minigan.gan import Alternating, Config, Diverged, Game, Replayed, Trainer, build, make_players, penalties
from minigan.gan.models import MODELS
from minigan.gan.replay import CapturedStep
from minigan.kernels.gpu import emulator
from minigan.kernels.gpu import launch as cuda
from minigan.lab import stability
from minigan.random import Generator

if emulator.missing_compiler():
    pytest.skip(emulator.missing_compiler(), allow_module_level=True)

EMULATED = "cuda-emulated"


def test_a_tensor_moves_where_it_is_sent_and_its_gradient_comes_back():
    x = mg.tensor([[1.0, -2.0], [3.0, 0.5]], requires_grad=True)
    y = x.to(EMULATED)
    assert (x.device, y.device) == ("cpu", EMULATED)
    assert y.to(EMULATED) is y
    loss = mg.ops.sum(mg.ops.square(y @ y))
    assert loss.device == EMULATED
    gradient = mg.grad(loss, x)
    assert gradient.device == "cpu"
    np.testing.assert_allclose(gradient.data, mg.grad(mg.ops.sum(mg.ops.square(x @ x)), x).data, rtol=1e-6)
    np.testing.assert_array_equal(np.array(y.to("cpu").detach()), x.data)
    assert "device='cuda-emulated'" in repr(y)
    assert mg.tensor([1, 2], device=EMULATED).device == EMULATED


def test_devices_do_not_mix_by_themselves():
    x, y = mg.tensor([1.0, 2.0]), mg.tensor([1.0, 2.0], device=EMULATED)
    for mix in (lambda: x + y, lambda: y * x, lambda: mg.ops.concat([x, y]), lambda: mg.ops.maximum(y, x)):
        with pytest.raises(TypeError, match="Unsupported type"):
            mix()


def test_why_a_device_cannot_be_used_is_one_sentence():
    assert device.why_not("cpu") is None
    assert device.why_not(EMULATED) is None
    reason = device.why_not("cuda")
    if reason is None:
        assert device.resolve("auto") == "cuda"
        return
    assert "\n" not in reason
    assert device.resolve("auto") == "cpu"
    with pytest.raises(ValueError, match=r"device 'cuda': "):
        mg.tensor(1.0, device="cuda")


class Broken:
    """CuPy on a machine where something is amiss."""

    __version__ = "14.2.0"

    class CUDARuntimeError(RuntimeError):
        def __init__(self, status):
            super().__init__(f"error {status}")
            self.status = status

    def __init__(self, status, driver):
        self.status, self.driver = status, driver
        self.cuda = self
        self.runtime = self

    def getDeviceCount(self):  # noqa: N802
        if self.status:
            raise self.CUDARuntimeError(self.status)
        return 0

    def driverGetVersion(self):  # noqa: N802
        return self.driver

    def runtimeGetVersion(self):  # noqa: N802
        return 13000


@pytest.mark.parametrize(
    ("status", "driver", "words"),
    [
        (35, 0, "there is no NVIDIA driver on this machine"),
        (35, 12040, "CuPy is built for CUDA 13.0 but the driver knows CUDA 12.4: update it, or install cupy-cuda12x"),
        (100, 13000, "no GPU that can be seen: look at CUDA_VISIBLE_DEVICES"),
        (999, 13000, "error 999"),
        (0, 13000, "finds no GPU"),
    ],
)
def test_a_gpu_that_does_not_work_is_explained(monkeypatch, status, driver, words):
    monkeypatch.setattr(cuda, "load", lambda name: Broken(status, driver))
    monkeypatch.setattr(cuda.importlib.util, "find_spec", lambda name: object())
    assert words in cuda.reason_against.__wrapped__("cuda")


def test_random_numbers_are_the_same_bits_on_every_device():
    for dtype in (np.float32, np.float64):
        host, there = (Generator(5, device=name).uniform((3, 7), dtype=dtype) for name in ("cpu", EMULATED))
        assert there.device == EMULATED
        assert host.numpy().tobytes() == there.numpy().tobytes()
    assert np.array_equal(Generator(5).permutation(9), Generator(5, device=EMULATED).permutation(9))


def networks(kind):
    if kind == "dcgan":
        return MODELS["dcgan"]((8, 8, 1), 4, 4, True)
    generator = nn.Sequential(
        nn.Dense(4, 6), nn.BatchNorm(6), nn.ReLU(), nn.Dense(6, 64), nn.Tanh(), nn.Reshape(8, 8, 1)
    )
    return generator, nn.Sequential(
        nn.Flatten(), nn.Dense(64, 6), nn.LeakyReLU(), nn.Dropout(0.3, seed=1), nn.Dense(6, 1)
    )


@pytest.mark.parametrize("optimizer", [optim.SGD, optim.RMSProp, optim.Adam])
@pytest.mark.parametrize(("kind", "penalty"), [("dcgan", "r1"), ("dense", "wgan-gp")])
def test_a_training_step_agrees_with_the_cpu_parameter_by_parameter(kind, penalty, optimizer):
    found = []
    for where in ("cpu", EMULATED):
        start = Generator(3, stream="init")
        g, d = (nn.initialise(network, "lecun", start).to(where) for network in networks(kind))
        noise = Generator(7, stream="penalty", device=where)
        game = Game(g, d, penalties=[penalties.PENALTIES[penalty](0.5)], noise=noise)
        # a large ε: where a gradient is nearly 0, its last bit decides the sign of an adaptive step
        settings = {} if optimizer is optim.SGD else {"eps": 1e-2}
        players = make_players(
            game,
            lambda p: optimizer(p, 1e-2, ema_decay=0.5, **settings),  # noqa: B023
            lambda p: optimizer(p, 1e-2, **settings),  # noqa: B023
        )
        real = Generator(0, stream="data").normal((3, 8, 8, 1)).to(where)
        z = Generator(1, stream="latent-D").normal((3, 4)).to(where)
        step = Alternating(game, *players).step(lambda real=real: real, lambda z=z: z, lambda z=z: z)
        arrays = [p.numpy() for p in (*d.parameters(), *g.parameters(), *players[0].optimizer.average())]
        arrays += [device.to_numpy(b) for network in (g, d) for b in network.named_buffers().values()]
        found.append([*arrays, *(x.numpy() for x in (*step.discriminator, *step.generator) if x is not None)])
        assert all(p.device == where for p in (*d.parameters(), *g.parameters()))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


def test_a_traced_game_on_a_device_is_the_game_itself():
    found = []
    for replayed in (False, True):
        g, d = (nn.initialise(n, "lecun", Generator(3, stream="init")).to(EMULATED) for n in networks("dcgan"))
        game = Game(g, d)
        players = make_players(game, lambda p: optim.SGD(p, 1e-2))
        dynamics = Alternating(Replayed(game) if replayed else game, *players)
        real, z = Generator(0).normal((2, 8, 8, 1)).to(EMULATED), Generator(1).normal((2, 4)).to(EMULATED)
        for _ in range(3):
            dynamics.step(lambda real=real: real, lambda z=z: z, lambda z=z: z)
        found.append([p.numpy().tobytes() for p in (*d.parameters(), *g.parameters())])
    assert found[0] == found[1]


def small(where):
    return Config(device=where, model="mlp", data="ring", width=4, latent=2, batch_size=4, steps=3)


def test_a_run_goes_on_bitwise_on_a_device_and_can_change_it():
    whole, cut = build(small(EMULATED)), build(small(EMULATED))
    for _ in range(2):
        whole.step()
        cut.step()
    resumed = build(small(EMULATED))
    resumed.load_state(cut.state())
    whole.step()
    resumed.step()
    a, b = whole.state(), resumed.state()
    assert {name: x.tobytes() for name, x in a.items()} == {name: x.tobytes() for name, x in b.items()}
    assert all(type(x) is np.ndarray for x in a.values())
    elsewhere = build(small("cpu"))
    elsewhere.load_state(cut.state())
    found = elsewhere.step()
    assert np.isfinite(list(elsewhere.metrics(found).values())).all()
    np.testing.assert_allclose(elsewhere.sample(5), resumed.sample(5), rtol=1e-2, atol=1e-3)


def run(settings, steps, captured):
    """The state after some steps, and the trainer."""
    trainer = build(settings)
    if not captured:
        trainer._captured.reason = "for comparison"
    for _ in range(steps):
        found = trainer.step()
    assert (trainer._captured._graph is not None) == captured
    metrics = trainer.metrics(found)
    return {name: x.tobytes() for name, x in trainer.state().items()}, metrics, trainer


@pytest.mark.parametrize("penalty", ["none", "r1", "wgan-gp"])
def test_a_captured_step_is_the_eager_step_bit_by_bit(penalty):
    settings = replace(small(EMULATED), penalty=penalty, d_steps=2, ema=0.9)
    eager, captured = run(settings, 9, False), run(settings, 9, True)
    assert eager[:2] == captured[:2]


def test_a_captured_step_moves_the_running_statistics_of_batch_norm():
    settings = Config(device=EMULATED, width=2, latent=2, batch_size=3, penalty="r1")
    eager, captured = run(settings, 5, False), run(settings, 5, True)
    assert eager[:2] == captured[:2]
    assert any("running_mean" in name for name in captured[0])


def different(trainer, whole):
    """The names of what is not the same in a trainer's state."""
    return [name for name, x in trainer.state().items() if x.tobytes() != whole[name]]


def test_a_captured_run_is_resumed_bitwise():
    whole = run(small(EMULATED), 8, True)[0]
    cut = run(small(EMULATED), 5, True)[2]
    resumed = build(small(EMULATED))
    resumed.load_state(cut.state())
    for _ in range(3):
        resumed.step()
    assert different(resumed, whole) == ["movement"]  # which belongs to the rows of metrics
    cut.load_state(cut.state())
    for _ in range(3):
        cut.step()
    assert different(cut, whole) == ["movement"]


def test_a_captured_step_finds_what_is_not_finite_when_it_is_looked_at():
    trainer = build(small(EMULATED))
    for _ in range(4):
        trainer.step()
    trainer.game.generator.parameters()[0].data[0, 0] = np.nan
    found = trainer.step()
    with pytest.raises(Diverged, match=r"step 5: loss_d, .*not finite, in this step or in one since the last row"):
        trainer.metrics(found)


def test_what_cannot_be_captured_says_why():
    g, d = (network.to(EMULATED) for network in networks("dense"))
    game = Game(g, d)
    players = make_players(game, lambda p: optim.SGD(p, 0.1))
    noise = {name: Generator(0, stream=name, device=EMULATED) for name in ("latent-D", "latent-G")}
    samples = Generator(0).normal((6, 8, 8, 1)).to(EMULATED).data
    dynamics = Alternating(game, *players)
    draw = [lambda name=name: noise[name].normal((3, 4)) for name in noise]
    captured = CapturedStep(lambda rows: dynamics.step(lambda: mg.Tensor(samples[rows[0]]), *draw), players, noise)
    assert captured.reason == "the counters of Dropout are on the host"
    for _ in range(4):
        captured.step(np.arange(3)[None])
    assert captured._graph is None


def test_a_step_that_looks_at_values_is_done_without_a_graph():
    def nosy(look):
        return look.real.logits.sum() * (1e-3 * float(look.real.logits.data[0, 0]))

    penalty = penalties.Penalty("nosy", "", "", nosy)
    results = []
    for captured in (False, True):
        trainer = build(small(EMULATED))
        trainer.game.penalties = (penalty,)
        if not captured:
            trainer._captured.reason = "for comparison"
        for number in range(5):
            if captured and number == 2:
                with pytest.warns(
                    RuntimeWarning, match="the training step is not captured: CUDARuntimeError: .*reading"
                ):
                    trainer.step()
            else:
                trainer.step()
        assert trainer._captured._graph is None
        results.append({name: x.tobytes() for name, x in trainer.state().items()})
    assert results[0] == results[1]


# --- settings of a device ---------------------------------------------------------------------------------------------


def points(**settings):
    return replace(Config.preset("ring"), device=EMULATED, width=4, batch_size=8, **settings)


def test_tf32_is_a_setting_of_a_run_and_changes_its_products():
    weights = []
    for tf32 in (False, True):
        trainer = build(points(tf32=tf32))
        for _ in range(4):  # the last of them captured
            trainer.step()
        assert trainer._captured.reason is None
        weights.append(trainer.game.generator.parameters()[0].numpy())
        assert not cuda._tf32.get()
    np.testing.assert_allclose(weights[1], weights[0], rtol=0.1, atol=0.01)
    assert (weights[0] != weights[1]).any()
    with pytest.raises(ValueError, match="tf32: TF32 needs device cuda or cuda-emulated"):
        build(Config(device="cpu", tf32=True))


def test_a_gpu_without_tensor_cores_makes_true_products_and_says_so(monkeypatch):
    class Turing:
        cuda = runtime = None

        def getDeviceProperties(self, number):  # noqa: N802
            return {"name": b"Tesla T4", "major": 7, "minor": 5}

    turing = Turing()
    turing.cuda, turing.runtime, turing.__version__ = turing, turing, "14.2.0"
    monkeypatch.setattr(cuda, "load", lambda name: turing)
    monkeypatch.setattr(cuda, "has_tf32", cuda.has_tf32.__wrapped__)
    assert (
        device.why_no_tf32("cuda")
        == "Tesla T4 (sm_75), CuPy 14.2.0 has no tensor cores for TF32: it needs sm_80 or newer"
    )
    monkeypatch.setattr(cuda, "device_of", lambda array: "cuda")
    with device.allow_tf32():
        assert not cuda.tf32(np.ones(1, np.float32))


def test_a_full_memory_is_told_in_sizes():
    pool = emulator.get_default_memory_pool()
    trainer = build(points())
    trainer.step()
    pool.set_limit(pool.used_bytes() + 1000)
    try:
        with pytest.raises(MemoryError, match=r"CUDA on this CPU .* MiB more are wanted; arrays hold .* MiB are free"):
            trainer.step()
        with pytest.raises(MemoryError, match=r"9.5 MiB more are wanted"):
            device.to_device(np.ones(2_500_000, np.float32), EMULATED)
    finally:
        pool.set_limit(0)
    trainer.step()
    assert emulator.cuda.runtime.memGetInfo()[1] > 2**28


def test_samples_of_an_emulated_run_are_those_of_its_weights_on_the_cpu():
    trainer, host = build(points()), build(replace(points(), device="cpu"))
    trainer.step()
    host.load_state(trainer.state())
    np.testing.assert_array_equal(trainer.sample(5), host.sample(5))
    assert {p.device for p in trainer.game.generator.parameters()} == {EMULATED}


def test_a_run_that_fills_the_memory_says_what_is_kept(tmp_path, capsys, monkeypatch):
    pool, step = emulator.get_default_memory_pool(), Trainer.step

    def fill(trainer):
        pool.set_limit(pool.used_bytes() + 100 if trainer.steps == 1 else 0)
        return step(trainer)

    monkeypatch.setattr(Trainer, "step", fill)
    arguments = f"train --data ring --device {EMULATED} --width 4 --batch-size 8 --steps 5 --checkpoint-every 1"
    try:
        assert cli.main([*arguments.split(), "--out", str(tmp_path / "run")]) == 1
    finally:
        pool.set_limit(0)
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("minigan: out of memory (on CUDA on this CPU ")
    assert "use a smaller --batch-size or --width; the last good checkpoint is step 1, and" in said
    monkeypatch.undo()
    assert cli.main(f"train --resume --steps 3 --out {tmp_path / 'run'}".split()) == 0


def test_a_spectrum_on_a_device_is_that_of_its_weights():
    trainer, host = build(points(penalty="wgan-gp")), build(replace(points(penalty="wgan-gp"), device="cpu"))
    trainer.step()
    host.load_state(trainer.state())
    found, wanted = (
        stability.Linearised(t.game, t.data.reference()[:8], Generator(1, device=t.device).normal((8, t.latent))).field
        for t in (trainer, host)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
