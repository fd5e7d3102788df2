"""The two-player game: objectives, penalties, the game itself, how players move, and the loop around it."""

from minigan.gan import objectives, penalties
from minigan.gan.config import Config
from minigan.gan.dynamics import Alternating, Extragradient, Simultaneous, Step
from minigan.gan.game import Diverged, Game, Gradient, Losses
from minigan.gan.models import MODELS, dcgan, mlp
from minigan.gan.traced import TracedGame
from minigan.gan.trainer import Trainer
from minigan.gan.variants import Consensus, NagarajanKolter, Unrolled

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
    "mlp",
    "objectives",
    "penalties",
]
