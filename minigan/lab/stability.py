"""Whether the players settle: the spectrum of the game's gradient field near a point, and of the steps that follow it.

Both players' parameters are one point w = (θ_G, θ_D), which flows along v(w) = (−∇_G L_G, −∇_D L_D). With J = ∂v/∂w at
a point of rest,

    the flow settles               where every eigenvalue λ of J has Re λ < 0,
    steps w + h·v(w) settle        where h < 2|Re λ|/|λ|² for every λ too: the multipliers 1 + hλ lie inside the circle,
    other dynamics settle          where the eigenvalues of their step, made of J, lie inside the circle

(1706.04156, 1801.04406). J is never derived by hand: a product Jᵀu is one backward pass through the graph of the
gradient. All is computed in float64, on one minibatch that stands for the data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from minigan.data import Batch, as_batch
from minigan.engine.autodiff import backward
from minigan.engine.device import to_numpy
from minigan.engine.tensor import wrap
from minigan.gan.dynamics import DYNAMICS, Pull
from minigan.gan.game import Game
from minigan.nn import Module, SpectralNorm
from minigan.ops.elementwise import raw
from minigan.random import Generator

DENSE = 2000  # parameters up to which all eigenvalues are computed
PRODUCTS = 100  # steps of Arnoldi's method beyond that
BASIS_BYTES = 2**29  # the most memory that its basis may take
CONVERGED = 1e-3  # of the largest |λ|: the residual below which an eigenvalue counts as found
NEUTRAL = 1e-7  # of the largest |λ|: a smaller eigenvalue counts as 0


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of J, complex, by falling real part: all of them if ``whole``, else those at the edges.

    ``residuals`` are ‖Jᵀx − λx‖ for their unit eigenvectors x: 0 if all are computed directly. J is not symmetric:
    the error of an eigenvalue may exceed its residual.
    """

    eigenvalues: np.ndarray
    residuals: np.ndarray
    parameters: int
    whole: bool

    @property
    def moving(self) -> np.ndarray:
        """The eigenvalues that are not 0: a direction in which nothing changes says nothing about stability."""
        return self.eigenvalues[self._moves]

    @property
    def _moves(self) -> np.ndarray:
        size = np.abs(self.eigenvalues)
        return size > NEUTRAL * size.max(initial=0.0)

    def largest_step(self) -> float:
        """Return the h below which steps w + h·v(w) settle, the minimum of 2|Re λ|/|λ|²; 0 if there is none.

        An upper bound if not all eigenvalues are known.
        """
        found = self.moving
        if not found.size:
            return float("inf")
        if (found.real > -NEUTRAL * np.abs(found).max()).any():
            return 0.0
        return float((2 * -found.real / np.abs(found) ** 2).min())

    def verdict(self) -> str:
        """Return in a sentence whether the flow settles, and for which steps simultaneous gradient descent does."""
        known = "all" if self.whole else f"{len(self.eigenvalues)} at the edges of"
        about = f"{known} {self.parameters:,} eigenvalues"
        found = self.moving
        if not found.size:
            return f"nothing moves here: {about} are 0"
        scale = np.abs(found).max()
        worst, doubt = found[0], self.residuals[self._moves][0]
        if doubt > CONVERGED * scale or doubt > max(abs(worst.real), NEUTRAL * scale):
            return (
                f"unclear: the rightmost eigenvalue found is {_write(worst)}, with a residual of {doubt:.1g} ({about})"
            )
        if worst.real > NEUTRAL * scale:
            turning = " and turns" if abs(worst.imag) > NEUTRAL * scale else ""
            return f"unstable: the flow leaves{turning}, an eigenvalue is {_write(worst)} ({about})"
        if worst.real > -NEUTRAL * scale:
            return (
                f"circling: an eigenvalue is {_write(worst)}, with no real part, so the flow turns without settling "
                f"and every step of gradient descent spirals out ({about})"
            )
        flat = len(self.eigenvalues) - len(found)
        neutral = f"; {flat} directions in which nothing changes are left out" if flat else ""
        below = "" if self.whole else " at most"
        return (
            f"stable: the slowest eigenvalue is {_write(worst)}, and gradient descent settles for steps below"
            f"{below} {self.largest_step():.3g} ({about}{neutral})"
        )


def _write(value: complex) -> str:
    if value.imag == 0:
        return f"{value.real:.3g}"
    return f"{value.real:.3g} ± {abs(value.imag):.3g}i"


class Linearised:
    """The gradient field of a game near a point: ``transposed(u)`` is Jᵀu. w = (θ_G, θ_D), flat, in float64.

    The point is the networks' present parameters, copied; later moves do not affect it. The singular vectors of a
    SpectralNorm are exact here and follow its weight, as they nearly do in training. ``real`` (N, ...) and ``z``
    (N, latent) are the minibatch. A product costs about two gradients and no forward pass; this object holds the
    graph of the gradient.
    """

    def __init__(self, game: Game, real: Any, z: Any) -> None:
        real, z = (_in_double(as_batch(x)) for x in (real, z))
        generator, discriminator = (_double(player) for player in (game.generator, game.discriminator))
        noise = Generator(game.noise.seed, stream=game.noise.stream, step=game.noise.step)
        twin = replace(game, generator=generator, discriminator=discriminator, noise=noise)
        d, g = twin.gradients(real, z, create_graph=True)
        self._point = [*generator.parameters(), *discriminator.parameters()]
        self._descent = [*g.parts, *d.parts]
        sizes = [p.size for p in self._point]
        self.size = sum(sizes)
        self.generator_size = sum(sizes[: len(g.parts)])
        self._cuts = np.cumsum(sizes)[:-1]
        self.products = 0

    @property
    def field(self) -> np.ndarray:
        """v at the point, (n,)."""
        return -np.concatenate([part.data.ravel() for part in self._descent])

    def transposed(self, u: np.ndarray) -> np.ndarray:
        """Return Jᵀu for u (n,)."""
        self.products += 1
        cut = np.split(np.asarray(u, np.float64), self._cuts)
        pairs = [(v, part.reshape(v.shape)) for v, part in zip(self._descent, cut, strict=True) if v.requires_grad]
        found = backward([v for v, _ in pairs], [wrap(-part) for _, part in pairs], self._point, False)
        return np.concatenate(
            [np.zeros(p.size) if x is None else x.data.ravel() for p, x in zip(self._point, found, strict=True)]
        )

    def _pull(self, rates: np.ndarray, u: np.ndarray) -> np.ndarray:
        return self.transposed(rates * u)

    def dense(self) -> np.ndarray:
        """Return J, (n, n): one product a row."""
        return _matrix(self.transposed, self.size)

    def spectrum(self, count: int = 10, products: int = PRODUCTS) -> Spectrum:
        """Return all eigenvalues of up to DENSE parameters, else those at the edges by Arnoldi's method.

        These are the ``count`` largest in size, which bound the step, and the ``count`` rightmost, which decide whether
        the flow settles, if ``products`` steps of the method found them; the rightmost one is always kept.
        """
        if self.size <= DENSE:
            found = np.linalg.eigvals(self.dense())
            return Spectrum(found[np.argsort(-found.real, kind="stable")], np.zeros(len(found)), self.size, True)
        values, residuals = arnoldi(self.transposed, self.size, products)
        good = residuals <= CONVERGED * np.abs(values).max()
        edge = np.zeros(len(values), bool)
        for reach in (np.abs(values), values.real):
            last = np.sort(reach)[-min(count, len(reach))]
            edge |= reach >= last - 1e-12 * np.abs(reach).max()  # both of a pair
        good[np.argmax(values.real)] = True
        order = np.argsort(-values.real, kind="stable")
        kept = order[(good & edge)[order]]
        return Spectrum(values[kept], residuals[kept], self.size, False)

    def radius(self, dynamics: str = "simultaneous", lr_g: Any = 0.1, lr_d: Any = 0.1) -> float:
        """Return the spectral radius of one step of a dynamic: below 1 it settles at this point of rest.

        The rates are numbers, or arrays with a rate for each parameter (:meth:`minigan.optim.Optimizer.rates`). If
        all multipliers are known, those of neutral directions, 1, are left out: 0 if there are no others.
        """
        if dynamics not in DYNAMICS:
            raise ValueError(f"unknown dynamics {dynamics!r}: choose from {', '.join(DYNAMICS)}")
        scheme, n, cut = DYNAMICS[dynamics], self.size, self.generator_size
        rates = np.concatenate([np.broadcast_to(lr_g, cut), np.broadcast_to(lr_d, n - cut)]).astype(np.float64)
        of_d, of_g = rates.copy(), rates.copy()
        of_d[:cut], of_g[cut:] = 0.0, 0.0
        pull = Pull(*(partial(self._pull, by) for by in (rates, of_d, of_g)))

        def product(u: np.ndarray) -> np.ndarray:
            return scheme.linear(u, pull)

        size = n * scheme.memory
        if size <= DENSE:
            found = np.linalg.eigvals(_matrix(product, size))
            change = np.abs(found - 1)
            return float(np.abs(found[change > NEUTRAL * change.max()]).max(initial=0.0))
        return float(np.abs(arnoldi(product, size, PRODUCTS)[0]).max())


def _in_double(batch: Batch) -> Batch:
    """Return a batch in float64 on the CPU."""
    x, given = (part if part is None else wrap(np.asarray(to_numpy(raw(part)), np.float64)) for part in batch)
    assert x is not None
    return Batch(x, given)


def _double(player: Module) -> Module:
    """Return a copy of the network in float64 on the CPU."""
    parameters = [wrap(p.numpy().astype(np.float64), requires_grad=True) for p in player.parameters()]
    twin = player.with_parameters(parameters)
    twin.load_buffers({name: to_numpy(buffer) for name, buffer in twin.named_buffers().items()})
    for _, module in twin.modules():
        if isinstance(module, SpectralNorm):
            module.exact = True
    return twin


def _matrix(product: Callable[[np.ndarray], np.ndarray], size: int) -> np.ndarray:
    """Return the images (n, n) of the unit vectors, one a row: the transpose of the map's matrix."""
    return np.stack([product(unit) for unit in np.eye(size)])


def arnoldi(
    product: Callable[[np.ndarray], np.ndarray], size: int, products: int = PRODUCTS
) -> tuple[np.ndarray, np.ndarray]:
    """Return (Ritz values, residuals) of a linear map on vectors (size,), from one Krylov space without restarts.

    Values at the edges of the spectrum, on every side, come out first and best. Source: Arnoldi 1951. The basis holds
    products + 1 vectors, or as many as fit into BASIS_BYTES.
    """
    products = max(2, min(products, size, BASIS_BYTES // (8 * size) - 1))
    basis = np.empty((products + 1, size))
    small = np.zeros((products + 1, products))
    start = np.cos(np.arange(size) * np.pi * (3 - 5**0.5))  # fixed, and in no special direction
    basis[0] = start / np.linalg.norm(start)
    for k in range(products):
        w = product(basis[k])
        scale = np.linalg.norm(w)
        for _ in range(2):  # twice: after one pass, rounding leaves a part of the earlier directions
            part = basis[: k + 1] @ w
            w = w - part @ basis[: k + 1]
            small[: k + 1, k] += part
        small[k + 1, k] = np.linalg.norm(w)
        if small[k + 1, k] <= 1e-13 * scale:  # the space is invariant: its values are exact
            small[k + 1, k], products = 0.0, k + 1
            break
        basis[k + 1] = w / small[k + 1, k]
    values, vectors = np.linalg.eig(small[:products, :products])
    return values, small[products, products - 1] * np.abs(vectors[-1])
