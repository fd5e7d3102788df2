"""Better samples from a trained pair without more training: D says which samples to keep, or where to move.

If D is calibrated, e^s is the density of the data over that of G. Metropolis–Hastings with G as the proposal (MH-GAN,
1811.11357) then samples the data within G's support, and Langevin steps in latent space (DDLS, 2003.06060) follow its
gradient through G. Networks and their latents may be on any device; chains are kept on the host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigan.engine.autodiff import grad
from minigan.engine.device import device_of, to_device, to_numpy
from minigan.engine.gradmode import no_grad
from minigan.engine.tensor import Tensor, wrap
from minigan.gan.game import apply
from minigan.nn import Module
from minigan.ops import sum
from minigan.random import Generator


@dataclass(frozen=True)
class Calibration:
    """P(real | s) = σ(slope·s + shift): Platt's scaling of D's logits."""

    slope: float
    shift: float

    def __call__(self, logits: Any) -> Any:
        """Return the calibrated logits."""
        return self.slope * logits + self.shift


def calibrate(real_logits: Any, fake_logits: Any, steps: int = 50) -> Calibration:
    """Fit :class:`Calibration` by logistic regression (Newton's method) on held-out logits of both kinds.

    Both kinds have equal weight, whatever their numbers. Logits may have any scale and offset, which are removed first.
    A ridge of a thousandth keeps the slope finite if D separates all samples. If D is worse than chance, slope and
    shift are 0.
    """
    kinds = [np.ravel(to_numpy(logits)).astype(np.float64) for logits in (real_logits, fake_logits)]
    s = np.concatenate(kinds)
    weight = np.concatenate([np.full(len(kind), 0.5 / len(kind)) for kind in kinds])
    real = np.repeat([1.0, 0.0], [len(kind) for kind in kinds])
    middle = weight @ s
    spread = np.sqrt(weight @ (s - middle) ** 2)
    if spread <= 1e-12 * abs(middle):
        return Calibration(0.0, 0.0)
    features = np.stack([(s - middle) / spread, np.ones_like(s)], axis=1)
    found, ridge = np.zeros(2), np.diag([1e-3, 0.0])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.clip(features @ found, -500, 500)))
        slope = features.T @ (weight * (p - real)) + ridge @ found
        bend = (features.T * (weight * p * (1 - p))) @ features + ridge
        move = np.linalg.solve(bend, slope)
        found = found - move / max(1.0, float(np.abs(move).max()))  # at most 1: Newton can overshoot far out
        if np.abs(move).max() < 1e-10:
            break
    if found[0] <= 0:
        return Calibration(0.0, 0.0)
    return Calibration(float(found[0] / spread), float(found[1] - found[0] * middle / spread))


def logits_of(discriminator: Module, samples: Any) -> np.ndarray:
    """Return D's logits (N,) of samples (N, ...), by D in inference; ValueError for a D that judges packs."""
    with no_grad():
        return np.array(to_numpy(_judged(_in_inference(discriminator), samples).data))


def _in_inference(player: Module) -> Module:
    """Return a twin in inference on the same parameters; the player does not change."""
    return player.with_parameters(player.parameters()).eval()


def _judged(discriminator: Module, samples: Any) -> Tensor:
    """Return one logit (N,) a sample, from D on its device."""
    array = samples.data if isinstance(samples, Tensor) else samples
    device = next((p.device for p in discriminator.parameters()), device_of(array))
    x = samples if isinstance(samples, Tensor) else wrap(to_device(array, device))
    found = apply(discriminator, x, None)
    if found.size != len(samples):
        raise ValueError(
            f"a discriminator with {found.size} logits for {len(samples)} samples cannot judge them singly: "
            "use one without packs"
        )
    return found.reshape(-1)


def metropolis_hastings(
    generator: Module,
    discriminator: Module,
    calibration: Calibration,
    draw: Callable[[int], Tensor],
    start: Any,
    random: Generator,
    length: int = 100,
) -> tuple[np.ndarray, float]:
    """Return (the last states of chains, their share of accepted proposals) (1811.11357).

    One chain begins at each real sample in ``start`` (N, ...); a chain that accepts none takes one more proposal.
    ``draw(n)`` returns n latents. With ``random`` a proposal x′ is accepted with probability
    min(1, (D(x)⁻¹ − 1)/(D(x′)⁻¹ − 1)) = min(1, e^{s′ − s}).
    """
    if length < 1:
        raise ValueError(f"metropolis_hastings: length must be at least 1, not {length}")
    states = np.array(to_numpy(start))
    at = calibration(logits_of(discriminator, states))
    moved = np.zeros(len(states), bool)
    taken = 0
    for step in range(length + 1):
        with no_grad():
            proposals = to_numpy(apply(generator, draw(len(states)), None).data)
        there = calibration(logits_of(discriminator, proposals))
        accept = np.log(random.uniform(len(states), dtype=np.float64).numpy() + 1e-300) < there - at
        if step == length:
            accept = ~moved  # a chain that never left its real sample must not end there
        else:
            taken += int(accept.sum())
        states[accept], at[accept] = proposals[accept], there[accept]
        moved |= accept
    return states, taken / (length * len(states))


def langevin(
    generator: Module,
    discriminator: Module,
    calibration: Calibration,
    z: Any,
    random: Generator,
    steps: int = 100,
    size: float = 0.01,
) -> np.ndarray:
    """Return G(z) after Langevin steps on E(z) = ½‖z‖² − s(G(z)), from latents (N, latent) (2003.06060).

    z ← z − (ε/2)∇E + √ε·n, n ~ N(0, 1), ε = ``size``; s is the calibrated logit, by D in inference. ValueError
    for a D that judges packs.
    """
    judge = _in_inference(discriminator)
    array = z.data if isinstance(z, Tensor) else z
    device, z = device_of(array), np.array(to_numpy(array))
    for _ in range(steps):
        leaf = wrap(to_device(z, device), requires_grad=True)
        slope = calibration.slope * to_numpy(grad(sum(_judged(judge, apply(generator, leaf, None))), leaf).data)
        noise = random.normal(z.shape, dtype=z.dtype).numpy()
        z = z - z.dtype.type(size / 2) * (z - slope) + z.dtype.type(size**0.5) * noise
    with no_grad():
        return np.array(to_numpy(apply(generator, wrap(to_device(z, device)), None).data))
