"""The two-player game: objectives, penalties, the game itself, how players move, and the loop around it."""

from minigan.gan import objectives, penalties
from minigan.gan.build import build
from minigan.gan.config import Config
from minigan.gan.dynamics import Alternating, Extragradient, Simultaneous, Step
from minigan.gan.events import CheckpointDue, Event, Every, Picture, Row, SpectrumDue, Stepped
from minigan.gan.game import Diverged, Game, Gradient, Losses
from minigan.gan.models import MODELS, dcgan, mlp
from minigan.gan.player import Player, make_players
from minigan.gan.replay import Replayed
from minigan.gan.trainer import Trainer
from minigan.gan.variants import Consensus, NagarajanKolter, Unrolled

__all__ = [
    "MODELS",
    "Alternating",
    "CheckpointDue",
    "Config",
    "Consensus",
    "Diverged",
    "Event",
    "Every",
    "Extragradient",
    "Game",
    "Gradient",
    "Losses",
    "NagarajanKolter",
    "Picture",
    "Player",
    "Replayed",
    "Row",
    "Simultaneous",
    "SpectrumDue",
    "Step",
    "Stepped",
    "Trainer",
    "Unrolled",
    "make_players",
    "build",
    "dcgan",
    "mlp",
    "objectives",
    "penalties",
]
