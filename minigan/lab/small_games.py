"""Small games whose behaviour is known in closed form, as ordinary pairs of networks: they test the whole engine.

All are in float64. A logit is large on real samples, as in all of minigan. If D of the source is large on generated
ones, the sign of the logit is flipped, so that the parameters are the source's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigan.engine.tensor import Tensor, wrap
from minigan.gan.dynamics import Dynamics
from minigan.nn import Module
from minigan.ops import matmul


def _parameter(values: Any) -> Tensor:
    return wrap(np.array(values, np.float64), requires_grad=True)


class Shift(Module):
    """G(z) = θ + s·z: a point if ``scale`` is 0, else a Gaussian of that deviation. z (N, n), θ (n,)."""

    def __init__(self, theta: Any, scale: float = 0.0) -> None:
        self.theta = _parameter(np.atleast_1d(theta))
        self.scale = scale

    def forward(self, z: Tensor) -> Tensor:
        """Move z."""
        return self.theta + self.scale * z


class Linear(Module):
    """D's logit s(x) = sign · ψᵀx. x (N, n), ψ (n,), s (N, 1)."""

    def __init__(self, psi: Any, sign: float = 1.0) -> None:
        self.psi = _parameter(np.atleast_1d(psi))
        self.sign = sign

    def forward(self, x: Tensor) -> Tensor:
        """Weigh x."""
        return self.sign * matmul(x, self.psi.reshape((self.psi.size, 1)))


class Affine(Module):
    """D's logit s(x) = w·x + b for numbers x (N, 1): the best D between Gaussians of one variance is one."""

    def __init__(self, w: float = 0.0, b: float = 0.0) -> None:
        self.w, self.b = _parameter(w), _parameter(b)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh x."""
        return self.w * x + self.b


class Scale(Module):
    """G(z) = az."""

    def __init__(self, a: float) -> None:
        self.a = _parameter(a)

    def forward(self, z: Tensor) -> Tensor:
        """Stretch z."""
        return self.a * z


class Square(Module):
    """D's logit s(x) = w₂x² for numbers x (N, 1)."""

    def __init__(self, w2: float) -> None:
        self.w2 = _parameter(w2)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the square of x."""
        return self.w2 * x * x


@dataclass(frozen=True)
class SmallGame:
    """Two networks in float64, the minibatch that stands for all data and noise, and the equilibrium."""

    name: str
    source: str
    generator: Module
    discriminator: Module
    real: np.ndarray
    z: np.ndarray
    equilibrium: tuple[float, ...]  # (θ_G, θ_D), flat

    def point(self) -> np.ndarray:
        """Return (θ_G, θ_D), flat."""
        players = self.generator, self.discriminator
        return np.concatenate([p.numpy().ravel() for player in players for p in player.parameters()])

    def play(self, dynamics: Dynamics, steps: int) -> np.ndarray:
        """Move the game's players ``steps`` times, and return every point (steps + 1, n) on the way."""
        real, z, points = wrap(self.real), wrap(self.z), [self.point()]
        for _ in range(steps):
            dynamics.step(lambda: real, lambda: z, lambda: z)
            points.append(self.point())
        return np.array(points)

    def distance(self) -> float:
        """Return the Euclidean distance of (θ_G, θ_D) from the equilibrium."""
        return float(np.linalg.norm(self.point() - self.equilibrium))


def dirac(theta: float = 1.0, psi: float = 1.0, noise: float = 0.0, nodes: int = 4096) -> SmallGame:
    """Data at 0, G(z) = θ, D's ψ: V(θ, ψ) = f(θψ) + f(0), f(t) = −log(1 + e^−t) for minimax (1801.04406, section 2).

    With ``noise`` σ the points are smeared to N(·, σ²) (instance noise), by ``nodes`` midpoints of equal probability
    whose variance is σ² exactly.
    """
    z = _gaussian(nodes) if noise else np.zeros((1, 1))
    generator = Shift(theta, noise)
    return SmallGame("Dirac-GAN", "arXiv:1801.04406", generator, Linear(psi, -1.0), noise * z, z, (0.0, 0.0))


def bilinear(theta: Any, psi: Any) -> SmallGame:
    """V(θ, ψ) = θᵀψ with the Wasserstein objective: gradients circle the equilibrium at 0 (1711.00141)."""
    theta, psi = np.atleast_1d(theta), np.atleast_1d(psi)
    at_0 = np.zeros((1, theta.size))
    return SmallGame(
        "bilinear", "arXiv:1711.00141", Shift(theta), Linear(psi, -1.0), at_0, at_0, (0.0,) * (2 * theta.size)
    )


def linear_quadratic(a: float = 1.0, w2: float = 0.5, nodes: int = 4096) -> SmallGame:
    """G(z) = az, D(x) = w₂x², data and z ~ N(0, 1), Wasserstein objective: V = w₂(1 − a²) (1706.04156).

    Its equilibrium (a, w₂) = (1, 0) is not stable for plain gradient descent.
    """
    z = _gaussian(nodes)
    return SmallGame("linear-quadratic", "arXiv:1706.04156", Scale(a), Square(w2), z, z, (1.0, 0.0))


def gaussians(shift: float = 1.0, nodes: int = 4096) -> SmallGame:
    """Real N(d, 1) against generated N(θ, 1), D affine: D* has w = d − θ, b = −(d² − θ²)/2 (1406.2661, section 4)."""
    z = _gaussian(nodes)
    return SmallGame("Gaussian pair", "arXiv:1406.2661", Shift(0.0, 1.0), Affine(), z + shift, z, (shift, 0.0, 0.0))


def _gaussian(nodes: int) -> np.ndarray:
    """Return N(0, 1) as (nodes, 1) midpoints of equal probability, scaled to variance 1."""
    from statistics import NormalDist

    normal = NormalDist()
    half = np.array([normal.inv_cdf((i + 0.5) / nodes) for i in range(nodes)])
    return (half / math.sqrt(float(np.mean(half**2))))[:, None]
