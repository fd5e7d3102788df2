"""The step in minigan: the public API and nothing else."""

import numpy as np

import minigan as mg
from minigan import kernels, nn
from minigan.engine import device
from minigan.gan import Alternating, Game, Replayed, make_players
from minigan.gan.penalties import r1
from minigan.gan.replay import CapturedStep
from minigan.optim import Adam
from minigan.random import Generator

BUILDERS = {
    "dense": nn.Dense,
    "conv": nn.Conv2d,
    "conv_transpose": nn.ConvTranspose2d,
    "batch_norm": nn.BatchNorm,
    "shape": nn.Reshape,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "flat": nn.Flatten,
}


def version():
    return f"minigan {mg.__version__}"


def build(workload, variant, place):
    """Return a function that trains one step, one that waits for it, and on a device one that returns its memory."""
    kernels.keep_memory()
    device.resolve(place.device)
    g, d = (
        nn.Sequential(*(BUILDERS[kind](*numbers) for kind, *numbers in layers)).to(place.device)
        for layers in (workload.generator, workload.discriminator)
    )
    penalties = [r1(workload.gamma)] if workload.gamma else []
    game = Game(g, d, penalties=penalties)
    players = make_players(
        game,
        lambda p: Adam(p, workload.lr, workload.betas),
        lambda p: Adam(p, workload.lr, workload.betas, ema_decay=workload.ema),
    )
    dynamics = Alternating(Replayed(game) if variant == "traced" else game, *players)
    real = Generator(0, stream="data", device=place.device).normal((workload.batch, *workload.shape))
    noise = {name: Generator(0, stream=name, device=place.device) for name in ("latent-D", "latent-G")}

    def draw(name):
        return lambda: noise[name].normal((workload.batch, workload.latent))

    def step(rows=None):
        return dynamics.step(lambda: real, draw("latent-D"), draw("latent-G"))

    if place.device == "cpu":
        return step, lambda: None
    return on_device(step, players, noise, variant == "captured", place)


def on_device(step, players, noise, captured, place):
    """Return the step, captured or not, a function that waits for the device, and one for the MiB of its arrays."""
    module, rows = device.module(place.device), np.zeros((1, 1), np.int64)
    graph = CapturedStep(step, players, noise) if captured else None

    def on_graph():
        with device.allow_tf32(place.precision == "tf32"):
            step() if graph is None else graph.step(rows)
        if graph is not None and graph.reason:
            raise RuntimeError(f"the step is not captured: {graph.reason}")

    def held():
        pools = [module.get_default_memory_pool(), *([graph._pool] if graph is not None else [])]
        return sum(pool.total_bytes() for pool in pools) / 2**20

    return on_graph, module.cuda.runtime.deviceSynchronize, held
