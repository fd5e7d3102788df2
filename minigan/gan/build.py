"""What a run's settings make: networks, players, the game, the trainer. Only this file reads a Config."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from minigan.data import Dataset, load
from minigan.engine.device import resolve
from minigan.gan.config import Config
from minigan.gan.dynamics import Alternating, Dynamics, Extragradient, Simultaneous
from minigan.gan.events import Every
from minigan.gan.game import Game
from minigan.gan.models import MODELS, dress
from minigan.gan.objectives import OBJECTIVES, Objective, smoothed
from minigan.gan.penalties import PENALTIES
from minigan.gan.player import Player
from minigan.gan.traced import TracedGame
from minigan.gan.trainer import Trainer
from minigan.gan.variants import RULES, TWICE
from minigan.nn import Module, Schedule, initialise
from minigan.optim import SGD, Adam, OptimisticAdam, OptimisticSGD, Optimizer, RMSProp
from minigan.random import Generator


def make_networks(config: Config, shape: tuple[int, ...]) -> tuple[Module, Module]:
    """Return (G, D) for samples of ``shape``, not started yet; ValueError where the model does not fit them."""
    make = MODELS[config.model]
    sizes = config.latent, config.width, config.batch_norm, config.depth, config.activation
    generator, discriminator = make(shape, *sizes)
    if config.pack > 1:
        discriminator = make((*shape[:-1], shape[-1] * config.pack), *sizes)[1]
    fading = Schedule(config.instance_noise, 0.0, max(1, int(config.steps))) if config.instance_noise else None
    return generator, dress(
        discriminator,
        seed=config.seed,
        pack=config.pack,
        noise=fading,
        spectral_norm=config.spectral_norm,
        exact=config.rule in TWICE,
        stddev=config.stddev,
        discrimination=config.discrimination,
        dropout=config.dropout,
    )


def make_optimizer(config: Config, player: Module, lr: float, ema: float = 0.0) -> Optimizer:
    """Return a player's optimiser."""
    parameters, optimistic = player.parameters(), config.dynamics == "optimistic"
    if config.optimizer == "adam":
        kind = OptimisticAdam if optimistic else Adam
        return kind(parameters, lr, (config.beta1, config.beta2), ema_decay=ema)
    if config.optimizer == "sgd":
        return (OptimisticSGD if optimistic else SGD)(parameters, lr, ema_decay=ema)
    return RMSProp(parameters, lr, ema_decay=ema)


def make_objective(config: Config) -> Objective:
    """Return the objective with its labels, and with the losses of both players where the distributions agree."""
    objective: Objective = OBJECTIVES[config.objective]
    if config.label < 1:
        objective = smoothed(objective, config.label)
    if config.rule == "feature-matching":  # G descends a distance, which is 0 there
        objective = replace(objective, equilibrium=(objective.equilibrium[0], 0.0))
    return objective


def make_game(config: Config, generator: Module, discriminator: Module, noise: Generator) -> Game:
    """Return the game of two networks: traced where its players take turns on the CPU by the plain rule."""
    objective = make_objective(config)
    names = [] if config.penalty == "none" else config.penalty.split("+")
    parts: list[Any] = [generator, discriminator, objective, tuple((PENALTIES[n], config.gamma) for n in names), noise]
    if config.rule != "none":
        settings = {
            "consensus": {"strength": config.rule_weight},
            "nagarajan-kolter": {"eta": config.rule_weight},
            "unrolled": {"unroll": config.unroll, "rate": config.lr_d},
        }
        return RULES[config.rule](*parts, **settings.get(config.rule, {}))  # type: ignore[arg-type]
    traced = config.dynamics == "alternating" and all(p.device == "cpu" for p in generator.parameters())
    return (TracedGame if traced else Game)(*parts)


def make_dynamics(config: Config, played: Game) -> Dynamics:
    """Return how the players move: optimistic players move at once, by optimisers that are optimistic."""
    discriminator = Player(played.discriminator, make_optimizer(config, played.discriminator, config.lr_d))
    discriminator.optimizer.limit = config.clip or None
    generator = Player(played.generator, make_optimizer(config, played.generator, config.lr_g, config.ema))
    if config.dynamics == "alternating":
        return Alternating(played, discriminator, generator, k=config.d_steps, m=config.g_steps)
    return (Extragradient if config.dynamics == "extragradient" else Simultaneous)(played, discriminator, generator)


FADES: dict[str, Callable[[float], float] | None] = {
    "constant": None,
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
}


def build(config: Config, data: Dataset | None = None) -> Trainer:
    """Return the run that settings describe, on ``data`` or on the data set that they name.

    ValueError where the settings do not fit the data.
    """
    data = data or load(config.data)
    start, device = Generator(config.seed, stream="init"), resolve(config.device)
    generator, discriminator = (
        initialise(network, config.init, start).to(device) for network in make_networks(config, data.shape)
    )
    played = make_game(config, generator, discriminator, Generator(config.seed, stream="penalty", device=device))
    return Trainer(
        played,
        make_dynamics(config, played),
        data,
        latent=config.latent,
        batch=config.batch_size,
        seed=config.seed,
        every=Every(config.log_every, config.sample_every, config.checkpoint_every, config.spectrum_every),
        fade=FADES[config.lr_schedule],
        goal=config.steps,
        tf32=config.tf32,
    )
