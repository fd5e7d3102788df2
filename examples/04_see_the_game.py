"""See the game: two players circle, a penalty calms them, and a spectrum predicts both.

    python examples/04_see_the_game.py

The Dirac-GAN has one number a player: G puts a point at θ, the data is at 0, and D's logit is −ψx. Everything below
goes through the engine: there is no formula of the game in this file.
"""

import numpy as np

from minigan.gan import Game, NagarajanKolter, Simultaneous, make_players
from minigan.gan.objectives import MINIMAX
from minigan.gan.penalties import r1
from minigan.lab import small_games as games
from minigan.lab.stability import Linearised
from minigan.optim import SGD


def distance_after(steps, kind=Game, penalties=(), rate=0.2, **settings):
    """Play from (1, 1) and return how far from the equilibrium the players end."""
    small = games.dirac(1.0, 1.0)
    game = kind(small.generator, small.discriminator, MINIMAX, penalties, **settings)
    small.play(Simultaneous(game, *make_players(game, lambda p: SGD(p, rate))), steps)
    return small.distance()


def verdict(kind=Game, penalties=(), **settings):
    """Linearise the game at rest, and return the verdict."""
    small = games.dirac(0.0, 0.0)
    near = Linearised(kind(small.generator, small.discriminator, MINIMAX, penalties, **settings), small.real, small.z)
    return near.spectrum().verdict()


def main():
    """Compare three ways to play; return the distances they end at."""
    ways = {
        "minimax": {},
        "with R1, γ = 1": {"penalties": (r1(1.0),)},
        "with Nagarajan and Kolter's term": {"kind": NagarajanKolter, "eta": 0.5},
    }
    ends = {}
    for name, settings in ways.items():
        ends[name] = distance_after(200, **settings)
        print(f"{name}: {np.sqrt(2):.3f} from rest, {ends[name]:.3g} after 200 steps")
        print(f"    {verdict(**settings)}")
    return ends


if __name__ == "__main__":
    main()
