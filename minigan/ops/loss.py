"""The mean of a pointwise loss over logits, with value and slope from one kernel; see minigan.kernels.losses."""

from __future__ import annotations

from typing import Any

from minigan import kernels
from minigan.engine.primitive import primitive, primitive_with_memo
from minigan.engine.tensor import Tensor
from minigan.ops.elementwise import sigmoid


@primitive_with_memo
def _mean_loss(s: Any, *, loss: str) -> Any:
    return kernels.mean_loss(s, loss=loss)


@primitive
def loss_slope(s: Any, *, loss: str, slope: Any) -> Any:
    """∂ mean φ(s) / ∂s, which the forward pass computed already: it is ``slope``."""
    return slope


_mean_loss.defvjp(lambda g, y, s, *, loss: g * loss_slope(s, loss=loss, slope=y.memo))


def _curvature(s: Tensor, loss: str) -> Any:
    """φ''(s), wherever it exists; None if it is zero everywhere."""
    if loss in ("softplus", "softplus_neg"):
        p = sigmoid(s)
        return p * (1.0 - p)
    return 1.0 if loss in ("square", "square_to_one") else None


def _loss_slope_vjp(u: Tensor, out: Tensor, s: Tensor, *, loss: str, slope: Any) -> Any:
    curvature = _curvature(s, loss)
    return None if curvature is None else u * curvature * (1.0 / s.size)


loss_slope.defvjp(_loss_slope_vjp)


def mean_loss(s: Any, loss: str) -> Tensor:
    """Return the mean of a pointwise ``loss`` (a name in minigan.kernels.LOSSES) over all logits s, shape ()."""
    return _mean_loss(s, loss=loss)
