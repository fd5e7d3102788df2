"""Gradient penalties on D: functions of ∇ₓD(x), so their own gradient is a derivative through a derivative.

The gradient of Σ s over a batch with respect to its images holds each sample's own ∇ₓs, as long as D treats samples one
by one (batch norm in D does not: the penalties then see the batch's mixture, as in every library).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minigan.autodiff import grad
from minigan.device import as_array
from minigan.gradmode import enable_grad
from minigan.ops import flatten_samples, mean, sqrt, square, sum
from minigan.ops.elementwise import raw
from minigan.random import Generator
from minigan.tensor import Tensor

Discriminator = Callable[[Tensor], Tensor]


def _variable(x: Any) -> Tensor:
    """Return x as a node to differentiate with respect to: itself where it has a graph, or a new leaf."""
    return x if isinstance(x, Tensor) and x.requires_grad else Tensor(as_array(raw(x)), requires_grad=True)


def squared_norms(discriminator: Discriminator, x: Tensor, logits: Tensor | None = None) -> Tensor:
    """Return ‖∇ₓ s(x)‖² for every sample, (N,); ``x`` requires grad, ``logits`` are D(x) where they exist already."""
    with enable_grad():  # a penalty can be watched inside no_grad too
        logits = discriminator(x) if logits is None else logits
        slope = grad(sum(logits), x, create_graph=True)
    return sum(square(flatten_samples(slope)), axis=1)


def r1(
    discriminator: Discriminator, real: Any, fake: Any = None, *, gamma: float = 1.0, logits: Tensor | None = None
) -> Tensor:
    """R1 = (γ/2) E_p ‖∇ₓ s(x)‖² (1801.04406, section 4.1; our γ includes the ½).

    ``real`` (N, ...) holds real samples. ``logits`` saves a forward pass where D(real) was computed from a ``real``
    that requires grad.
    """
    x = _variable(real)
    return mean(squared_norms(discriminator, x, logits)) * (gamma / 2)


def r2(discriminator: Discriminator, real: Any, fake: Any, *, gamma: float = 1.0) -> Tensor:
    """R2 = (γ/2) E_q ‖∇ₓ s(x)‖², on generated samples (N, ...) (1801.04406)."""
    return mean(squared_norms(discriminator, _variable(fake))) * (gamma / 2)


def wgan_gp(
    discriminator: Discriminator, real: Any, fake: Any, *, generator: Generator, weight: float = 10.0
) -> Tensor:
    """WGAN-GP = λ E (‖∇s(x̂)‖₂ − 1)², x̂ = εx + (1 − ε)G(z), ε ~ U[0, 1) for each sample (1704.00028).

    ``real`` and ``fake`` have one shape (N, ...); ``generator`` draws ε. The norm is taken per sample. The gradient of
    the norm at ∇s = 0 does not exist; it is taken as 0.
    """
    a, b = (x if isinstance(x, Tensor) else Tensor(as_array(x)) for x in (real, fake))
    if a.shape != b.shape:
        raise ValueError(f"wgan_gp: real {a.shape} and fake {b.shape} samples are mixed and need one shape")
    epsilon = generator.uniform((a.shape[0], *[1] * (a.ndim - 1)), dtype=a.dtype)
    squares = squared_norms(discriminator, _variable(epsilon * a + (1 - epsilon) * b))
    tiny = 1e-30 if a.dtype == "float64" else 1e-12  # keeps √ differentiable at 0, and below rounding elsewhere
    return mean(square(sqrt(squares + tiny) - 1.0)) * weight


@dataclass(frozen=True)
class Penalty:
    """A penalty as the game uses it: name, formula, source, and which samples it differentiates at."""

    name: str
    formula: str
    source: str
    at_real: bool
    apply: Callable[..., Tensor]


def _apply_r1(discriminator: Discriminator, real: Tensor, fake: Tensor, logits: Tensor, gamma: float, _: Any) -> Tensor:
    return r1(discriminator, real, gamma=gamma, logits=logits)


def _apply_r2(discriminator: Discriminator, real: Tensor, fake: Tensor, logits: Tensor, gamma: float, _: Any) -> Tensor:
    return r2(discriminator, real, fake, gamma=gamma)


def _apply_gp(
    discriminator: Discriminator, real: Tensor, fake: Tensor, logits: Tensor, gamma: float, generator: Generator
) -> Tensor:
    return wgan_gp(discriminator, real, fake, generator=generator, weight=gamma)


PENALTIES = {
    p.name: p
    for p in (
        Penalty("r1", "(γ/2) E_p ‖∇ₓs‖²", "arXiv:1801.04406", True, _apply_r1),
        Penalty("r2", "(γ/2) E_q ‖∇ₓs‖²", "arXiv:1801.04406", False, _apply_r2),
        Penalty("wgan-gp", "γ E (‖∇s(x̂)‖₂ − 1)²", "arXiv:1704.00028", False, _apply_gp),
    )
}
