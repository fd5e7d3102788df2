"""Batch normalisation. Its gradient is a fused op too; that op is differentiated by its formula written in ops."""

from __future__ import annotations

from typing import Any

from minigan import kernels
from minigan.engine.primitive import primitive_with_memo, primitive_with_results
from minigan.engine.tensor import Tensor
from minigan.engine.transforms import vjp
from minigan.ops.bias_act import bias_act_grad
from minigan.ops.elementwise import sqrt
from minigan.ops.reduce import broadcast_to, mean, sum_to, var


@primitive_with_memo
def _batch_norm(x: Any, gamma: Any, beta: Any, *, eps: float, activation: str, slope: float) -> Any:
    y, mu, v = kernels.batch_norm(x, gamma, beta, eps=eps, activation=activation, slope=slope)
    return y, (mu, v)


@primitive_with_results(3)
def batch_norm_grad(g: Any, x: Any, gamma: Any, *, moments: Any, y: Any, **settings: Any) -> Any:
    """(dx, dγ, dβ) for the cotangent g; ``moments`` (mean and variance of x) and y are the forward pass's."""
    return kernels.batch_norm_grad(g, x, y, gamma, mean=moments[0], var=moments[1], **settings)


@primitive_with_results(3)
def batch_norm_grad_vjp(u: Any, g: Any, x: Any, gamma: Any, *, moments: Any, y: Any, **settings: Any) -> Any:
    """(dg, dx, dγ): the cotangents of batch_norm_grad's arguments for the cotangent u of its first result."""
    return kernels.batch_norm_grad_vjp(u, g, x, y, gamma, mean=moments[0], var=moments[1], **settings)


_batch_norm.defvjp_joint(
    lambda g, y, x, gamma, beta, **settings: batch_norm_grad(g, x, gamma, moments=y.memo, y=y.data, **settings),
)


def _formula(part: int, y: Any, eps: float, activation: str, slope: float) -> Any:
    """Return batch_norm_grad[part] as a composition of ops, for its derivatives.

    The activation is piecewise linear, so its slope is a constant that depends on the sign of y alone.
    """

    def formula(g: Tensor, x: Tensor, gamma: Tensor) -> Tensor:
        if activation != "linear":
            g = bias_act_grad(g, y, activation=activation, slope=slope)
        axes = tuple(range(x.ndim - 1))
        r = 1.0 / sqrt(var(x, axes) + eps)
        xhat = (x - mean(x, axes)) * r
        if part == 1:
            return sum_to(g * xhat, gamma.shape)
        return gamma * r * (g - mean(g, axes) - xhat * mean(g * xhat, axes))

    return formula


def _dgamma_vjp(u: Tensor, out: Tensor, g: Any, x: Any, gamma: Any, *, moments: Any, **settings: Any) -> Any:
    return vjp(_formula(1, **settings), g, x, gamma)[1](u)


def _dbeta_vjp(u: Tensor, out: Tensor, g: Any, x: Any, gamma: Any, *, y: Any, **settings: Any) -> Any:
    spread = broadcast_to(u, g.shape)
    kind = {"activation": settings["activation"], "slope": settings["slope"]}
    return spread if kind["activation"] == "linear" else bias_act_grad(spread, y, **kind), None, None


batch_norm_grad.parts[0].defvjp_joint(
    lambda u, out, g, x, gamma, **settings: batch_norm_grad_vjp(u, g, x, gamma, **settings)
)
batch_norm_grad.parts[1].defvjp_joint(_dgamma_vjp)
batch_norm_grad.parts[2].defvjp_joint(_dbeta_vjp)


def _third_order(part: int) -> Any:
    def rule(w: Tensor, out: Tensor, u: Any, g: Any, x: Any, gamma: Any, *, moments: Any, **settings: Any) -> Any:
        def formula(u: Tensor, g: Tensor, x: Tensor, gamma: Tensor) -> Tensor:
            return vjp(_formula(0, **settings), g, x, gamma)[1](u)[part]

        return vjp(formula, u, g, x, gamma)[1](w)

    return rule


for number, primitive in enumerate(batch_norm_grad_vjp.parts):
    primitive.defvjp_joint(_third_order(number))


def batch_norm(
    x: Any, gamma: Any, beta: Any, *, eps: float = 1e-5, activation: str = "linear", slope: float = 0.0
) -> Tensor:
    """Normalise x (..., C) over all axes but the last to mean beta and spread gamma, both (C,) (1502.03167).

    ``activation`` (linear, relu, or leaky_relu with ``slope``) is applied in the same pass. The batch's mean and biased
    variance are in the result's ``memo``.
    """
    return _batch_norm(x, gamma, beta, eps=eps, activation=activation, slope=slope)
