"""Penalties, most of them functions of ∇ₓD(x), so that their own gradient is a derivative through a derivative.

The gradient of Σ s over a batch with respect to its images holds each sample's own ∇ₓs, as long as D treats samples one
by one (batch norm in D does not: the penalties then see the batch's mixture, as in every library).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minigan.engine.autodiff import grad
from minigan.engine.device import as_array
from minigan.engine.gradmode import enable_grad
from minigan.engine.tensor import Tensor
from minigan.ops import flatten_samples, mean, relu, reshape, sqrt, square, sum, var
from minigan.ops.elementwise import raw
from minigan.random import Generator

Discriminator = Callable[[Tensor], Tensor]


def _variable(x: Any) -> Tensor:
    """Return x as a node to differentiate with respect to: itself where it has a graph, or a new leaf."""
    return x if isinstance(x, Tensor) and x.requires_grad else Tensor(as_array(raw(x)), requires_grad=True)


def squared_norms(discriminator: Discriminator, x: Tensor, logits: Tensor | None = None) -> Tensor:
    """Return ‖∇ₓ s(x)‖² for every logit; ``x`` requires grad, ``logits`` are D(x) where they exist already.

    That is (N,), a number a sample, or (N/m,) where D judges packs of m that follow each other (PacGAN).
    """
    with enable_grad():  # a penalty can be watched inside no_grad too
        logits = discriminator(x) if logits is None else logits
        slope = grad(sum(logits), x, create_graph=True)
    squares = sum(square(flatten_samples(slope)), axis=1)
    packs = logits.shape[0]
    return squares if packs == len(squares) else sum(reshape(squares, (packs, len(squares) // packs)), axis=1)


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

    ``real`` and ``fake`` have one shape (N, ...); ``generator`` draws ε. The norm is that of every logit: of a sample,
    or of a pack, whose samples are mixed each by its own ε. Its gradient at ∇s = 0 does not exist; it is taken as 0.
    """
    return mean(square(_norms(discriminator, _mixed("wgan_gp", real, fake, generator)) - 1.0)) * weight


def _mixed(name: str, real: Any, fake: Any, generator: Generator) -> Tensor:
    """Return x̂ = εx + (1 − ε)G(z), ε ~ U[0, 1) for each sample."""
    a, b = (x if isinstance(x, Tensor) else Tensor(as_array(x)) for x in (real, fake))
    if a.shape != b.shape:
        raise ValueError(f"{name}: real {a.shape} and fake {b.shape} samples are mixed and need one shape")
    epsilon = generator.uniform((a.shape[0], *[1] * (a.ndim - 1)), dtype=a.dtype)
    return _variable(epsilon * a + (1 - epsilon) * b)


def _norms(discriminator: Discriminator, x: Tensor) -> Tensor:
    """Return ‖∇ₓ s(x)‖₂ for every sample, (N,), with a gradient of 0 where it is 0 and none exists."""
    tiny = 1e-30 if x.dtype == "float64" else 1e-12  # keeps √ differentiable at 0, and below rounding elsewhere
    return sqrt(squared_norms(discriminator, x) + tiny)


def lp(discriminator: Discriminator, real: Any, fake: Any, *, generator: Generator, weight: float = 10.0) -> Tensor:
    """One-sided WGAN-LP = λ E max(0, ‖∇s(x̂)‖₂ − 1)², x̂ as in :func:`wgan_gp` (1709.08894): only too steep costs."""
    norms = _norms(discriminator, _mixed("lp", real, fake, generator))
    return mean(square(relu(norms - 1.0))) * weight


def dragan(
    discriminator: Discriminator,
    real: Any,
    fake: Any = None,
    *,
    generator: Generator,
    weight: float = 10.0,
    spread: float = 0.5,
) -> Tensor:
    """DRAGAN = λ E (‖∇s(x + δ)‖₂ − 1)² near real samples (N, ...), in every direction from them (1705.07215).

    δ ~ N(0, (spread·std)²) in every entry, std the standard deviation of all entries of ``real``; ``generator`` draws
    it.
    """
    x = real if isinstance(real, Tensor) else Tensor(as_array(real))
    delta = generator.normal(x.shape, dtype=x.dtype) * (sqrt(var(x)) * spread)
    return mean(square(_norms(discriminator, _variable(x + delta)) - 1.0)) * weight


def weight_decay(parameters: Sequence[Tensor], *, weight: float = 1e-4) -> Tensor:
    """(λ/2) ‖θ‖² over all of ``parameters``: its gradient is λθ."""
    return squared_norm(parameters) * (weight / 2)


def nagarajan_kolter(value: Tensor, parameters: Sequence[Tensor], *, eta: float = 0.5) -> Tensor:
    """η ‖∇_{θ_D} V‖², which G adds to its loss (1706.04156): ``value`` is V (or −V), ``parameters`` are D's.

    A gradient through a gradient with respect to D's weights.
    """
    return eta * squared_norm(grad(value, list(parameters), create_graph=True, materialize_grads=True))


def squared_norm(parts: Sequence[Tensor]) -> Tensor:
    """Return Σ g² over all entries of all parts, a Tensor of shape ()."""
    total = sum(square(parts[0]))
    for part in parts[1:]:
        total = total + sum(square(part))
    return total


@dataclass(frozen=True)
class Penalty:
    """A penalty as the game uses it: name, formula, source, and which samples it differentiates at."""

    name: str
    formula: str
    source: str
    at_real: bool
    apply: Callable[..., Tensor]


def _apply_r1(discriminator: Any, real: Tensor, fake: Tensor, logits: Tensor, weight: float, _: Any) -> Tensor:
    return r1(discriminator, real, gamma=weight, logits=logits)


def _apply_r2(discriminator: Any, real: Tensor, fake: Tensor, logits: Tensor, weight: float, _: Any) -> Tensor:
    return r2(discriminator, real, fake, gamma=weight)


def _apply_decay(discriminator: Any, real: Tensor, fake: Tensor, logits: Tensor, weight: float, _: Any) -> Tensor:
    return weight_decay(discriminator.parameters(), weight=weight)


def _drawing(penalty: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a penalty that draws at random as the game calls it."""

    def apply(
        discriminator: Any, real: Tensor, fake: Tensor, logits: Tensor, weight: float, generator: Generator
    ) -> Tensor:
        return penalty(discriminator, real, fake, generator=generator, weight=weight)

    return apply


PENALTIES = {
    p.name: p
    for p in (
        Penalty("r1", "(γ/2) E_p ‖∇ₓs‖²", "arXiv:1801.04406", True, _apply_r1),
        Penalty("r2", "(γ/2) E_q ‖∇ₓs‖²", "arXiv:1801.04406", False, _apply_r2),
        Penalty("wgan-gp", "γ E (‖∇s(x̂)‖₂ − 1)²", "arXiv:1704.00028", False, _drawing(wgan_gp)),
        Penalty("lp", "γ E max(0, ‖∇s(x̂)‖₂ − 1)²", "arXiv:1709.08894", False, _drawing(lp)),
        Penalty("dragan", "γ E (‖∇s(x + δ)‖₂ − 1)²", "arXiv:1705.07215", False, _drawing(dragan)),
        Penalty("weight-decay", "(γ/2) ‖θ_D‖²", "Krogh and Hertz 1991", False, _apply_decay),
    )
}
