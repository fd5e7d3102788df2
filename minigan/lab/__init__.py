"""Ways to look at a game: metrics, diagnosis, stability, gradient strength, small games, rivals of gradient descent."""

from minigan.lab import diagnosis, evolution, mcmc, metrics, small_games, stability, strength

__all__ = ["diagnosis", "evolution", "mcmc", "metrics", "small_games", "stability", "strength"]
