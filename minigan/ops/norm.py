"""Batch normalisation. Its gradient is a fused op too, whose own derivatives follow from the formula written in ops."""

from __future__ import annotations

from typing import Any

from minigan import kernels
from minigan.autodiff import primitive_with_memo, primitive_with_results
from minigan.ops.elementwise import sqrt
from minigan.ops.reduce import broadcast_to, mean, sum_to, var
from minigan.tensor import Tensor
from minigan.transforms import vjp


@primitive_with_memo
def _batch_norm(x: Any, gamma: Any, beta: Any, *, eps: float) -> Any:
    channels = x.shape[-1:]
    if x.ndim < 2 or gamma.shape != channels or beta.shape != channels:
        raise ValueError(f"x must be (..., C) with at least 2 axes, gamma and beta {channels or '(C,)'}")
    if x.size == 0:
        raise ValueError("there is nothing to normalise in an empty batch")
    if not x.dtype == gamma.dtype == beta.dtype:
        raise TypeError("x, gamma and beta must have one dtype")
    y, mu, v = kernels.batch_norm(x, gamma, beta, eps=eps)
    return y, (mu, v)


@primitive_with_results(3)
def batch_norm_grad(g: Any, x: Any, gamma: Any, *, eps: float, moments: Any) -> Any:
    """(dx, dγ, dβ) for the cotangent g; ``moments`` are the mean and variance of x, found in the forward pass."""
    return kernels.batch_norm_grad(g, x, gamma, mean=moments[0], var=moments[1], eps=eps)


_batch_norm.defvjp_joint(
    lambda g, y, x, gamma, beta, *, eps: batch_norm_grad(g, x, gamma, eps=eps, moments=y.memo),
)


def _formula(part: int, eps: float) -> Any:
    """Return batch_norm_grad[part] as a composition of ops, for its derivatives."""

    def formula(g: Tensor, x: Tensor, gamma: Tensor) -> Tensor:
        axes = tuple(range(x.ndim - 1))
        r = 1.0 / sqrt(var(x, axes) + eps)
        xhat = (x - mean(x, axes)) * r
        if part == 1:
            return sum_to(g * xhat, gamma.shape)
        return gamma * r * (g - mean(g, axes) - xhat * mean(g * xhat, axes))

    return formula


def _formula_vjp(part: int) -> Any:
    def rule(u: Tensor, out: Tensor, g: Any, x: Any, gamma: Any, **settings: Any) -> Any:
        _, pullback = vjp(_formula(part, settings["eps"]), g, x, gamma)
        return pullback(u)

    return rule


batch_norm_grad.parts[0].defvjp_joint(_formula_vjp(0))
batch_norm_grad.parts[1].defvjp_joint(_formula_vjp(1))
batch_norm_grad.parts[2].defvjp(lambda u, out, g, x, gamma, **_: broadcast_to(u, g.shape), None, None)


def batch_norm(x: Any, gamma: Any, beta: Any, *, eps: float = 1e-5) -> Tensor:
    """Normalise x (..., C) over all axes but the last to mean beta and spread gamma, both (C,) (1502.03167).

    The batch's mean and biased variance are in the result's ``memo``.
    """
    if not eps >= 0:
        raise ValueError(f"batch_norm: eps must be >= 0, not {eps}")
    return _batch_norm(x, gamma, beta, eps=eps)
