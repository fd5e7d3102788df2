"""The step in minigan: the public API and nothing else."""

import minigan as mg
from minigan import nn
from minigan.gan import Alternating, Game, TracedGame
from minigan.gan.penalties import PENALTIES
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


def build(workload, variant, threads):
    """Return a function that trains one step."""
    g, d = (
        nn.Sequential(*(BUILDERS[kind](*numbers) for kind, *numbers in layers))
        for layers in (workload.generator, workload.discriminator)
    )
    penalties = ((PENALTIES["r1"], workload.gamma),) if workload.gamma else ()
    game = TracedGame if variant == "traced" else Game
    dynamics = Alternating(
        game(g, d, penalties=penalties),
        Adam(d.parameters(), workload.lr, workload.betas),
        Adam(g.parameters(), workload.lr, workload.betas, ema_decay=workload.ema),
    )
    real = Generator(0, stream="data").normal((workload.batch, *workload.shape))
    noise = {name: Generator(0, stream=name) for name in ("latent-D", "latent-G")}

    def draw(name):
        return lambda: noise[name].normal((workload.batch, workload.latent))

    def step():
        return dynamics.step(lambda: real, draw("latent-D"), draw("latent-G"))

    return step, lambda: None
