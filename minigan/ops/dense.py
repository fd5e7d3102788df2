"""Matrix products, and the dense layer with its bias and activation fused."""

from __future__ import annotations

from typing import Any

from minigan import kernels
from minigan.engine.primitive import primitive
from minigan.engine.tensor import Tensor
from minigan.ops.bias_act import bias_act_vjp
from minigan.ops.elementwise import shape_of
from minigan.ops.shape import reshape, transpose


def _swap(x: Any) -> Tensor:
    """Swap the last two axes."""
    ndim = len(shape_of(x))
    return transpose(x, (*range(ndim - 2), ndim - 1, ndim - 2))


@primitive
def _matmul(x: Any, w: Any) -> Any:
    return kernels.matmul(x, w)


_matmul.defvjp(
    lambda g, y, x, w: _matmul(g, _swap(w)),
    lambda g, y, x, w: _matmul(_swap(x), g),
)


def matmul(x: Any, w: Any) -> Tensor:
    """x @ w as in NumPy: vectors, matrices, and stacks of matrices whose leading axes broadcast."""
    a, b = len(shape_of(x)), len(shape_of(w))
    if not a or not b:
        shapes = f"x {shape_of(x)}, w {shape_of(w)}"
        raise ValueError(f"matmul({shapes}): both need at least one axis; use * for a single number")
    rows = reshape(x, (1, -1)) if a == 1 else x
    columns = reshape(w, (-1, 1)) if b == 1 else w
    y = _matmul(rows, columns)
    if a > 1 and b > 1:
        return y
    keep = y.shape[:-2] + (() if a == 1 else y.shape[-2:-1]) + (() if b == 1 else y.shape[-1:])
    return reshape(y, keep)


@primitive
def _dense(x: Any, w: Any, b: Any, *, activation: str, slope: float) -> Any:
    return kernels.dense(x, w, b, activation=activation, slope=slope)


def _dense_vjp(g: Tensor, y: Tensor, x: Any, w: Any, b: Any, *, activation: str, slope: float) -> Any:
    dv, db = bias_act_vjp(g, y, b, activation, slope)
    return lambda: _matmul(dv, _swap(w)), lambda: _matmul(_swap(x), dv), db


_dense.defvjp_joint(_dense_vjp)


def dense(x: Any, w: Any, b: Any = None, *, activation: str = "linear", slope: float = 0.0) -> Tensor:
    """act(x w + b): x (..., n_in), w (n_in, n_out), b (n_out,) or None, result (..., n_out).

    ``activation`` is one of linear, relu, leaky_relu (with ``slope``), tanh, sigmoid.
    """
    shape = shape_of(x)
    if not shape:
        raise ValueError(f"dense(x {shape}): x must be (..., n_in), not a single number")
    if len(shape) == 2:
        return _dense(x, w, b, activation=activation, slope=slope)
    y = _dense(reshape(x, (-1, shape[-1])), w, b, activation=activation, slope=slope)
    return reshape(y, (*shape[:-1], y.shape[1]))
