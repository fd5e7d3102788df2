"""Objectives: the losses of both players, from raw logits s = D(x). There is no sigmoid inside D.

With σ the sigmoid and sp(t) = log(1 + eᵗ): −log σ(s) = sp(−s) and −log(1 − σ(s)) = sp(s). Each player descends its
loss; E_p is the mean over real samples, E_q over generated ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from minigan.engine.autodiff import grad
from minigan.engine.device import to_numpy
from minigan.engine.tensor import Tensor, wrap
from minigan.ops import mean_loss
from minigan.ops.elementwise import raw


@dataclass(frozen=True)
class Objective(ABC):
    """A pair of losses. Logits are Tensors of any equal shape; each loss is a Tensor of shape ()."""

    name: str
    formula: str
    source: str
    equilibrium: tuple[float | None, float | None]  # (L_D, L_G) when the generated distribution equals the real one
    absolute: bool = True  # whether a logit means something by itself: no constant may be added to all of them
    paired: ClassVar[bool] = False  # whether the generator's loss needs the real logits too

    @abstractmethod
    def discriminator(self, real_logits: Any, fake_logits: Any) -> Tensor:
        """Return L_D."""

    @abstractmethod
    def generator(self, real_logits: Any, fake_logits: Any) -> Tensor:
        """Return L_G; only paired objectives need ``real_logits``."""

    @abstractmethod
    def accuracy(self, real_logits: np.ndarray, fake_logits: np.ndarray) -> tuple[float, float]:
        """Return the shares of real and of generated samples that D judges right."""


@dataclass(frozen=True)
class Separable(Objective):
    """An objective whose losses are means over real and over generated logits: L = ± E φ(s)."""

    real: str = ""  # the φ of D's loss on real logits
    fake: str = ""  # the φ of D's loss on generated logits
    real_sign: float = 1.0
    generated: str = ""  # the φ of G's loss
    generated_sign: float = 1.0
    threshold: float = 0.0  # the logit between "generated" and "real"

    def discriminator(self, real_logits: Any, fake_logits: Any) -> Tensor:
        """Return E_p φ_real(s) + E_q φ_fake(s)."""
        return _signed(self.real_sign, mean_loss(real_logits, self.real)) + mean_loss(fake_logits, self.fake)

    def generator(self, real_logits: Any, fake_logits: Any) -> Tensor:
        """Return ± E_q φ_generated(s)."""
        return _signed(self.generated_sign, mean_loss(fake_logits, self.generated))

    def accuracy(self, real_logits: np.ndarray, fake_logits: np.ndarray) -> tuple[float, float]:
        """Return the shares of real logits above the threshold, and of generated ones below it."""
        return float((real_logits > self.threshold).mean()), float((fake_logits < self.threshold).mean())


@dataclass(frozen=True)
class Paired(Objective):
    """Relativistic pairing: only the difference between a real and a generated logit counts."""

    paired: ClassVar[bool] = True

    def discriminator(self, real_logits: Any, fake_logits: Any) -> Tensor:
        """Return E sp(−(s(x) − s(y)))."""
        return mean_loss(_difference(real_logits, fake_logits), "softplus_neg")

    def generator(self, real_logits: Any, fake_logits: Any) -> Tensor:
        """Return E sp(−(s(y) − s(x)))."""
        return mean_loss(_difference(real_logits, fake_logits), "softplus")

    def accuracy(self, real_logits: np.ndarray, fake_logits: np.ndarray) -> tuple[float, float]:
        """Return, twice, the share of pairs in which the real sample has the larger logit: D judges pairs only."""
        share = float((real_logits > fake_logits).mean())
        return share, share


@dataclass(frozen=True)
class Smoothed(Objective):
    """An objective with real samples labelled ``label`` instead of 1: one-sided label smoothing (1606.03498).

    L_D = E_p [a·φ_real(s) + (1 − a)·φ_fake(s)] + E_q φ_fake(s), a = label; L_G does not change.
    """

    base: Separable = field(kw_only=True)
    label: float = 0.9

    def discriminator(self, real_logits: Any, fake_logits: Any) -> Tensor:
        """Return L_D."""
        base = self.base
        as_real = _signed(base.real_sign, mean_loss(real_logits, base.real))
        return (
            self.label * as_real
            + (1 - self.label) * mean_loss(real_logits, base.fake)
            + mean_loss(fake_logits, base.fake)
        )

    def generator(self, real_logits: Any, fake_logits: Any) -> Tensor:
        """Return L_G of the objective without smoothing."""
        return self.base.generator(real_logits, fake_logits)

    def accuracy(self, real_logits: np.ndarray, fake_logits: np.ndarray) -> tuple[float, float]:
        """Return the shares that D judges right, as the objective without smoothing counts them."""
        return self.base.accuracy(real_logits, fake_logits)


def smoothed(objective: Objective, label: float = 0.9) -> Smoothed:
    """Return the objective with one-sided label smoothing.

    ValueError for a label outside (0.5, 1], and for an objective without labels: of pairs, or with a loss linear in the
    logits, which would have no minimum (D gains by sending all logits to −∞).
    """
    if not isinstance(objective, Separable) or objective.real == "linear":
        raise ValueError(f"{objective.name} has no labels to smooth")
    if not 0.5 < label <= 1:
        raise ValueError(f"a smoothed label must be in (0.5, 1], not {label}")
    formula = f"{objective.formula}, a real sample counted as real by {label:g}"
    return Smoothed(
        objective.name, formula, "arXiv:1606.03498", (None, None), objective.absolute, base=objective, label=label
    )


def _signed(sign: float, loss: Tensor) -> Tensor:
    return loss if sign > 0 else -loss


def _difference(real_logits: Any, fake_logits: Any) -> Any:
    if real_logits is None or real_logits.shape != fake_logits.shape:
        shapes = [None if s is None else s.shape for s in (real_logits, fake_logits)]
        raise ValueError(
            f"relativistic: real and fake logits are paired and need one shape, got {shapes[0]}, {shapes[1]}"
        )
    return real_logits - fake_logits


def slopes(objective: Objective, logits: Any, real_logits: Any = None) -> np.ndarray:
    """Return |dL_G/ds| at every generated logit, as if it were a minibatch by itself.

    ``logits`` have any shape, float32 or float64, and the result has the same. Paired objectives compare with
    ``real_logits`` of the same shape, 0 unless given.
    """
    values = np.asarray(to_numpy(raw(logits)))
    s = wrap(values.copy(), requires_grad=True)
    partner = wrap(np.zeros_like(values) if real_logits is None else np.asarray(to_numpy(raw(real_logits))))
    loss = objective.generator(partner if objective.paired else None, s)
    return np.abs(grad(loss, s, materialize_grads=True).data) * values.dtype.type(values.size)


DEAD = 0.01  # a logit that passes less than this share of a unit of gradient is in the dead zone
LOG2 = 0.6931471805599453

MINIMAX = Separable(
    "minimax",
    "L_D = E_p sp(−s) + E_q sp(s);  L_G = −E_q sp(s),  dL_G/ds = −σ(s)",
    "arXiv:1406.2661, equation 1",
    (2 * LOG2, -LOG2),
    real="softplus_neg",
    fake="softplus",
    generated="softplus",
    generated_sign=-1.0,
)
NON_SATURATING = Separable(
    "non-saturating",
    "L_D = E_p sp(−s) + E_q sp(s);  L_G = E_q sp(−s),  dL_G/ds = −(1 − σ(s))",
    "arXiv:1406.2661, section 3",
    (2 * LOG2, LOG2),
    real="softplus_neg",
    fake="softplus",
    generated="softplus_neg",
)
LEAST_SQUARES = Separable(
    "least-squares",
    "L_D = ½ E_p (s − 1)² + ½ E_q s²;  L_G = ½ E_q (s − 1)²",
    "arXiv:1611.04076",
    (0.25, 0.125),
    real="square_to_one",
    fake="square",
    generated="square_to_one",
    threshold=0.5,
)
HINGE = Separable(
    "hinge",
    "L_D = E_p max(0, 1 − s) + E_q max(0, 1 + s);  L_G = −E_q s",
    "arXiv:1705.02894",
    (2.0, None),
    real="hinge_real",
    fake="hinge_fake",
    generated="linear",
    generated_sign=-1.0,
)
WASSERSTEIN = Separable(
    "wasserstein",
    "L_D = E_q s − E_p s;  L_G = −E_q s",
    "arXiv:1701.07875",
    (0.0, None),
    absolute=False,
    real="linear",
    real_sign=-1.0,
    fake="linear",
    generated="linear",
    generated_sign=-1.0,
)
RELATIVISTIC = Paired(
    "relativistic",
    "L_D = E sp(−(s(x) − s(y)));  L_G = E sp(−(s(y) − s(x)))",
    "arXiv:1807.00734",
    (LOG2, LOG2),
)

OBJECTIVES: dict[str, Objective] = {
    o.name: o for o in (MINIMAX, NON_SATURATING, LEAST_SQUARES, HINGE, WASSERSTEIN, RELATIVISTIC)
}
