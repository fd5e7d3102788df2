"""The two-player game: objectives, penalties, the game itself, how players move, and the loop around it."""

from minigan.gan import metrics, objectives, penalties
from minigan.gan.config import Config
from minigan.gan.dynamics import Alternating, Step
from minigan.gan.game import Diverged, Game, Losses
from minigan.gan.models import MODELS, dcgan, mlp
from minigan.gan.traced import TracedGame
from minigan.gan.trainer import Trainer

__all__ = [
    "MODELS",
    "Alternating",
    "Config",
    "Diverged",
    "Game",
    "Losses",
    "Step",
    "TracedGame",
    "Trainer",
    "dcgan",
    "metrics",
    "mlp",
    "objectives",
    "penalties",
]
