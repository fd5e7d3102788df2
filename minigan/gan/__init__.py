"""The two-player game: objectives, penalties, the game itself, how players move, and the loop around it."""

from minigan.gan import diagnosis, games, metrics, objectives, penalties, stability, strength
from minigan.gan.config import Config
from minigan.gan.dynamics import Alternating, Extragradient, Simultaneous, Step
from minigan.gan.game import Diverged, Game, Gradient, Losses
from minigan.gan.models import MODELS, dcgan, mlp
from minigan.gan.rules import Consensus, NagarajanKolter, Unrolled
from minigan.gan.traced import TracedGame
from minigan.gan.trainer import Trainer

__all__ = [
    "MODELS",
    "Alternating",
    "Config",
    "Consensus",
    "Diverged",
    "Extragradient",
    "Game",
    "Gradient",
    "Losses",
    "NagarajanKolter",
    "Simultaneous",
    "Step",
    "TracedGame",
    "Trainer",
    "Unrolled",
    "dcgan",
    "diagnosis",
    "games",
    "metrics",
    "mlp",
    "objectives",
    "penalties",
    "stability",
    "strength",
]
