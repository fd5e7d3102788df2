"""From settings to a run: networks, players, the game, the trainer. Nothing else in minigan.gan reads a Config."""

from __future__ import annotations

from dataclasses import replace

from minigan.data import Dataset, load
from minigan.engine.device import resolve, why_no_tf32
from minigan.gan import penalties
from minigan.gan.config import Config
from minigan.gan.dynamics import DYNAMICS, Dynamics
from minigan.gan.events import Every
from minigan.gan.game import Game
from minigan.gan.memory import require_room
from minigan.gan.models import MODELS, dress
from minigan.gan.objectives import OBJECTIVES, Objective, smoothed
from minigan.gan.player import Player
from minigan.gan.replay import Replayed
from minigan.gan.trainer import Trainer
from minigan.gan.variants import VARIANTS
from minigan.nn import FADES, Module, Schedule, initialise
from minigan.optim import OPTIMISERS
from minigan.random import Generator


def make_networks(config: Config, shape: tuple[int, ...]) -> tuple[Module, Module]:
    """Return (G, D) for samples of ``shape``, not initialised; ValueError if the model does not fit them."""
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
        exact=VARIANTS[config.rule].twice,
        stddev=config.stddev,
        discrimination=config.discrimination,
        dropout=config.dropout,
    )


def make_player(config: Config, network: Module, lr: float, ema: float = 0.0) -> Player:
    """Return a network with its optimiser."""
    kind, optimistic = OPTIMISERS[config.optimizer], DYNAMICS[config.dynamics].optimistic
    betas = config.beta1, config.beta2
    return Player(network, kind.make(network.parameters(), lr, ema, optimistic=optimistic, betas=betas))


def make_objective(config: Config) -> Objective:
    """Return the objective with its labels, and with both players' losses at equal distributions."""
    objective: Objective = OBJECTIVES[config.objective]
    if config.label < 1:
        objective = smoothed(objective, config.label)
    if not VARIANTS[config.rule].kind.by_objective:  # G descends a distance, which is 0 for equal distributions
        objective = replace(objective, equilibrium=(objective.equilibrium[0], 0.0))
    return objective


def make_game(config: Config, generator: Module, discriminator: Module, noise: Generator) -> Game:
    """Return the game of two networks."""
    variant = VARIANTS[config.rule]
    settings = {field: getattr(config, name) for field, name in variant.takes.items()}
    terms = penalties.parse(config.penalty, config.gamma)
    return variant.kind(generator, discriminator, make_objective(config), terms, noise, **settings)


def make_dynamics(config: Config, game: Game) -> Dynamics:
    """Return the dynamics of a game: replayed on the CPU; a GPU captures the whole step instead."""
    discriminator = make_player(config, game.discriminator, config.lr_d)
    discriminator.optimizer.limit = config.clip or None
    generator = make_player(config, game.generator, config.lr_g, config.ema)
    turns = Replayed(game) if generator.device == "cpu" else game
    return DYNAMICS[config.dynamics].make(turns, discriminator, generator, config.d_steps, config.g_steps)


def device_for(config: Config) -> str:
    """Return the device that the settings name; ValueError if it is not here, or cannot do what they ask for."""
    device = resolve(config.device)
    if config.spectral_norm and VARIANTS[config.rule].twice and device != "cpu":
        raise ValueError(
            f"rule {config.rule} with spectral_norm needs second derivatives of singular values: device must be cpu"
        )
    if config.tf32 and (reason := why_no_tf32(device)):
        raise ValueError(f"tf32: {reason}")
    return device


def build(config: Config, data: Dataset | None = None, *, for_samples: bool = False) -> Trainer:
    """Return the run of these settings, on ``data`` or on the data set that they name.

    ValueError if the settings do not fit the data or the machine, or a step not the memory, unless it is
    ``for_samples`` alone.
    """
    data = load(config.data) if data is None else data
    start, device = Generator(config.seed, stream="init"), device_for(config)
    networks = make_networks(config, data.shape)
    if device == "cpu" and not for_samples:  # a GPU's memory says itself when it is full
        ahead = config.unroll if "unroll" in VARIANTS[config.rule].takes else 0
        require_room(
            *networks, data.shape, latent=config.latent, batch=config.batch_size, pack=config.pack, turns=1 + ahead
        )
    generator, discriminator = (initialise(network, config.init, start).to(device) for network in networks)
    game = make_game(config, generator, discriminator, Generator(config.seed, stream="penalty", device=device))
    return Trainer(
        game,
        make_dynamics(config, game),
        data,
        latent=config.latent,
        batch=config.batch_size,
        seed=config.seed,
        every=Every(config.log_every, config.sample_every, config.checkpoint_every, config.spectrum_every),
        fade=FADES[config.lr_schedule],
        goal=config.steps,
        tf32=config.tf32,
    )
