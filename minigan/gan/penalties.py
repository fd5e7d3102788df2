"""Penalties. Most are functions of ∇ₓD(x), so their gradient differentiates a gradient.

The gradient of Σ s over a batch with respect to its images holds ∇ₓs of each sample, as long as D treats samples one by
one. (Batch norm in D does not: the penalties then see the batch's mixture, as in every library.)

A new penalty is one row: a rule from D's inputs to a number, with its formula, its source and its usual weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from minigan.engine.autodiff import grad
from minigan.engine.device import as_array
from minigan.engine.gradmode import enable_grad
from minigan.engine.tensor import Tensor, wrap
from minigan.ops import flatten_samples, mean, relu, reshape, sqrt, square, sum, var
from minigan.ops.elementwise import raw
from minigan.random import Generator

Critic = Callable[[Tensor], Tensor]


class Seen(NamedTuple):
    """Samples x (N, ...) as D saw them, their logits, and the critic: D as a function of samples alone.

    In a conditional game the critic judges its input under the conditions of these samples.
    """

    x: Tensor
    logits: Tensor
    critic: Critic


class Look(NamedTuple):
    """The inputs of a penalty: real and generated samples, D's parameters, and a generator of noise."""

    real: Seen
    fake: Seen
    parameters: Sequence[Tensor] = ()
    noise: Generator | None = None


@dataclass(frozen=True)
class Penalty:
    """A term that D descends beside its loss: ``weight`` · ``factor`` · ``rule(look)``. ``r1(5.0)`` is r1 of weight 5.

    ``at_real``: whether the rule differentiates D's logits at the real samples themselves, which then require grad.
    """

    name: str
    formula: str
    source: str
    rule: Callable[[Look], Tensor]
    weight: float = 1.0
    factor: float = 1.0
    at_real: bool = False

    def __call__(self, weight: float) -> Penalty:
        """Return the same penalty with another weight; ValueError for one below 0."""
        if not weight >= 0:
            raise ValueError(f"{self.name}: the weight must be a number >= 0, not {weight}")
        return replace(self, weight=weight)

    def term(self, look: Look) -> Tensor:
        """Return the term that is added to D's loss, of shape ()."""
        return self.rule(look) * (self.weight * self.factor)

    def of(
        self,
        critic: Critic,
        real: Any,
        fake: Any = None,
        *,
        noise: Generator | None = None,
        parameters: Sequence[Tensor] = (),
    ) -> Tensor:
        """Return the term for a critic from samples to logits, outside a game: real and fake samples (N, ...)."""
        real = _variable(real) if self.at_real else _constant(real)
        fake = real if fake is None else _constant(fake)
        seen = [Seen(x, critic(x), critic) for x in (real, fake)]
        return self.term(Look(seen[0], seen[1], parameters, noise))


def _constant(x: Any) -> Tensor:
    return x if isinstance(x, Tensor) else wrap(as_array(x))


def _variable(x: Any) -> Tensor:
    """Return x as a node to differentiate with respect to: itself if it has a graph, else a new leaf."""
    return x if isinstance(x, Tensor) and x.requires_grad else wrap(as_array(raw(x)), requires_grad=True)


def squared_norms(critic: Critic, x: Tensor, logits: Tensor | None = None) -> Tensor:
    """Return ‖∇ₓ s(x)‖² for every logit; ``x`` requires grad, ``logits`` are D(x) if already computed.

    The result is (N,), one number a sample, or (N/m,) if D judges packs of m consecutive samples (PacGAN).
    """
    with enable_grad():  # a penalty can be evaluated inside no_grad too
        logits = critic(x) if logits is None else logits
        slope = grad(sum(logits), x, create_graph=True)
    squares = sum(square(flatten_samples(slope)), axis=1)
    packs = logits.shape[0]
    return squares if packs == len(squares) else sum(reshape(squares, (packs, len(squares) // packs)), axis=1)


def _norms(critic: Critic, x: Tensor) -> Tensor:
    """Return ‖∇ₓ s(x)‖₂ for every logit, with a gradient of 0 at 0, where it has none."""
    tiny = 1e-30 if x.dtype == "float64" else 1e-12  # keeps √ differentiable at 0, and below rounding elsewhere
    return sqrt(squared_norms(critic, x) + tiny)


def _drawn(look: Look) -> Generator:
    if look.noise is None:
        raise ValueError("a penalty that draws at random needs noise: pass a Generator")
    return look.noise


def _mixed(look: Look) -> Tensor:
    """Return x̂ = εx + (1 − ε)G(z), ε ~ U[0, 1) for each sample."""
    a, b = look.real.x, look.fake.x
    if a.shape != b.shape:
        raise ValueError(f"real {a.shape} and fake {b.shape} samples are interpolated and must have one shape")
    epsilon = _drawn(look).uniform((a.shape[0], *[1] * (a.ndim - 1)), dtype=a.dtype)
    return _variable(epsilon * a + (1 - epsilon) * b)


# --- the rules --------------------------------------------------------------------------------------------------------

SPREAD = 0.5  # DRAGAN's noise, in standard deviations of the data


def _r1(look: Look) -> Tensor:
    return mean(squared_norms(look.real.critic, look.real.x, look.real.logits))


def _r2(look: Look) -> Tensor:
    return mean(squared_norms(look.fake.critic, _variable(look.fake.x)))


def _wgan_gp(look: Look) -> Tensor:
    return mean(square(_norms(look.real.critic, _mixed(look)) - 1.0))


def _lp(look: Look) -> Tensor:
    return mean(square(relu(_norms(look.real.critic, _mixed(look)) - 1.0)))


def _dragan(look: Look) -> Tensor:
    x = look.real.x
    delta = _drawn(look).normal(x.shape, dtype=x.dtype) * (sqrt(var(x)) * SPREAD)
    return mean(square(_norms(look.real.critic, _variable(x + delta)) - 1.0))


def _weight_decay(look: Look) -> Tensor:
    return squared_norm(look.parameters)


def squared_norm(parts: Sequence[Tensor]) -> Tensor:
    """Return Σ g² over all entries of all parts, a Tensor of shape ()."""
    total = sum(square(parts[0]))
    for part in parts[1:]:
        total = total + sum(square(part))
    return total


def nagarajan_kolter(value: Tensor, parameters: Sequence[Tensor], *, eta: float = 0.5) -> Tensor:
    """η ‖∇_{θ_D} V‖², which G adds to its loss (1706.04156): ``value`` is V (or −V), ``parameters`` are D's.

    A gradient through a gradient with respect to D's weights.
    """
    return eta * squared_norm(grad(value, list(parameters), create_graph=True, materialize_grads=True))


# --- the table: γ of R1 and R2 includes the ½; x̂ = εx + (1 − ε)G(z); δ ~ N(0, (½ std x)²) in every direction ----------

r1 = Penalty("r1", "(γ/2) E_p ‖∇ₓs‖²", "arXiv:1801.04406, section 4.1", _r1, factor=0.5, at_real=True)
r2 = Penalty("r2", "(γ/2) E_q ‖∇ₓs‖²", "arXiv:1801.04406, section 4.1", _r2, factor=0.5)
wgan_gp = Penalty("wgan-gp", "γ E (‖∇s(x̂)‖₂ − 1)²", "arXiv:1704.00028", _wgan_gp, weight=10.0)
lp = Penalty("lp", "γ E max(0, ‖∇s(x̂)‖₂ − 1)²", "arXiv:1709.08894", _lp, weight=10.0)
dragan = Penalty("dragan", "γ E (‖∇s(x + δ)‖₂ − 1)²", "arXiv:1705.07215", _dragan, weight=10.0)
weight_decay = Penalty("weight-decay", "(γ/2) ‖θ_D‖²", "Krogh and Hertz 1991", _weight_decay, weight=1e-4, factor=0.5)

PENALTIES: dict[str, Penalty] = {p.name: p for p in (r1, r2, wgan_gp, lp, dragan, weight_decay)}
NONE = "none"


def parse(text: str, weight: float) -> tuple[Penalty, ...]:
    """Return the penalties that a text such as ``r1+r2`` names, all of one weight; none for ``none``.

    ValueError for a name that is not in the table.
    """
    if text == NONE:
        return ()
    for name in text.split("+"):
        if name not in PENALTIES:
            raise ValueError(f"unknown penalty {name!r}: choose from {', '.join([*PENALTIES, NONE])}")
    return tuple(PENALTIES[name](weight) for name in text.split("+"))
