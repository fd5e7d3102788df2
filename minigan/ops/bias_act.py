"""y = act(x + b) as one op, its gradient as another op, and the activations made of them."""

from __future__ import annotations

from typing import Any

from minigan import kernels
from minigan.engine.primitive import primitive, primitive_with_results
from minigan.engine.tensor import Tensor
from minigan.ops.reduce import broadcast_to, sum_to


@primitive
def bias_act(x: Any, b: Any, *, activation: str, slope: float) -> Any:
    """act(x + b) as one pass: x (..., C), b (C,) or None; see minigan.kernels.bias_act."""
    return kernels.bias_act(x, b, activation=activation, slope=slope)


@primitive
def bias_act_grad(g: Any, y: Any, *, activation: str, slope: float) -> Any:
    """g · act'(v), through y = act(v) alone."""
    return kernels.bias_act_grad(g, y, activation=activation, slope=slope)


@primitive_with_results(2)
def bias_act_sums(g: Any, y: Any, *, activation: str, slope: float) -> Any:
    """(g · act'(v), the same summed over all axes but the last): the cotangents of v and of the bias in one pass."""
    return kernels.bias_act_sums(g, y, activation=activation, slope=slope)


def bias_act_vjp(g: Tensor, y: Tensor, b: Any, activation: str, slope: float) -> tuple[Tensor, Any]:
    """Return the cotangents of v = x + b and of b: the second is the first, summed over all axes but the last."""
    if activation == "linear":
        return g, lambda: sum_to(g, b.shape)
    if type(b) is Tensor and b.requires_grad:
        return bias_act_sums(g, y, activation=activation, slope=slope)
    return bias_act_grad(g, y, activation=activation, slope=slope), None


def _bias_act_grad_vjp(u: Tensor, out: Tensor, g: Any, y: Any, *, activation: str, slope: float) -> Any:
    dg = bias_act_grad(u, y, activation=activation, slope=slope)
    if activation == "tanh":
        return dg, u * g * (-2.0 * y)
    if activation == "sigmoid":
        return dg, u * g * (1.0 - 2.0 * y)
    return dg, None  # piecewise linear: act' is constant wherever it exists


def _bias_act_sum_vjp(u: Tensor, out: Tensor, g: Any, y: Any, **settings: Any) -> Any:
    return _bias_act_grad_vjp(broadcast_to(u, g.shape), out, g, y, **settings)


bias_act.defvjp_joint(
    lambda g, y, x, b, *, activation, slope: bias_act_vjp(g, y, b, activation, slope),
)
bias_act_grad.defvjp_joint(_bias_act_grad_vjp)
bias_act_sums.parts[0].defvjp_joint(_bias_act_grad_vjp)
bias_act_sums.parts[1].defvjp_joint(_bias_act_sum_vjp)


def relu(x: Any) -> Tensor:
    """max(x, 0); its derivative at 0 is 0."""
    return bias_act(x, None, activation="relu", slope=0.0)


def leaky_relu(x: Any, slope: float) -> Tensor:
    """Return x where x > 0, else slope·x, for slope >= 0; its derivative at 0 is the slope."""
    return bias_act(x, None, activation="leaky_relu", slope=slope)
