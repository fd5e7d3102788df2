"""Differentiable ops by family. In each file an op and its rule stand on adjacent lines."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan.engine.device import as_array
from minigan.engine.tensor import Tensor, wrap
from minigan.ops.bias_act import bias_act, leaky_relu, relu
from minigan.ops.conv import conv2d, conv2d_transpose, conv2d_weight_grad
from minigan.ops.dense import dense, matmul
from minigan.ops.elementwise import (
    abs,
    add,
    astype,
    clip,
    div,
    exp,
    log,
    maximum,
    minimum,
    mul,
    neg,
    power,
    raw,
    sigmoid,
    softplus,
    sqrt,
    square,
    sub,
    tanh,
    where,
)
from minigan.ops.from_numpy import array_function, array_ufunc
from minigan.ops.loss import mean_loss
from minigan.ops.norm import batch_norm
from minigan.ops.reduce import broadcast_to, logsumexp, max, mean, min, softmax, sum, sum_to, var
from minigan.ops.shape import concat, flatten_samples, getitem, pad, reshape, scatter_add, stack, to, transpose

__all__ = [
    "abs",
    "add",
    "astype",
    "batch_norm",
    "bias_act",
    "broadcast_to",
    "clip",
    "concat",
    "conv2d",
    "conv2d_transpose",
    "conv2d_weight_grad",
    "dense",
    "div",
    "exp",
    "flatten_samples",
    "getitem",
    "leaky_relu",
    "log",
    "logsumexp",
    "matmul",
    "max",
    "maximum",
    "mean",
    "mean_loss",
    "min",
    "minimum",
    "mul",
    "neg",
    "pad",
    "power",
    "relu",
    "reshape",
    "scatter_add",
    "sigmoid",
    "softmax",
    "softplus",
    "sqrt",
    "square",
    "stack",
    "sub",
    "sum",
    "sum_to",
    "tanh",
    "to",
    "transpose",
    "var",
    "where",
]


def _compare(ufunc: Any) -> Any:
    return lambda x, y: wrap(as_array(ufunc(raw(x), raw(y))))


def _axes(x: Tensor, *axes: Any) -> Tensor:
    return transpose(x, axes[0] if len(axes) == 1 else axes or None)


def _swapped(op: Any) -> Any:
    return lambda x, y: op(y, x)


for name, method in {
    "__add__": lambda x, y: add(x, y),
    "__radd__": lambda x, y: add(y, x),
    "__sub__": lambda x, y: sub(x, y),
    "__rsub__": lambda x, y: sub(y, x),
    "__mul__": lambda x, y: mul(x, y),
    "__rmul__": lambda x, y: mul(y, x),
    "__truediv__": lambda x, y: div(x, y),
    "__rtruediv__": lambda x, y: div(y, x),
    "__array_function__": array_function,
    "__array_ufunc__": array_ufunc,
    "__pow__": power,
    "__rpow__": _swapped(power),
    "__abs__": lambda x: abs(x),
    "__pos__": lambda x: x,
    "__matmul__": matmul,
    "__rmatmul__": _swapped(matmul),
    "__neg__": lambda x: neg(x),
    "__eq__": _compare(np.equal),
    "__ne__": _compare(np.not_equal),
    "__hash__": object.__hash__,
    "__lt__": _compare(np.less),
    "__le__": _compare(np.less_equal),
    "__gt__": _compare(np.greater),
    "__ge__": _compare(np.greater_equal),
    "__getitem__": getitem,
    "__iter__": lambda x: (x[i] for i in range(len(x))),
    "T": property(transpose),
    "sum": sum,
    "mean": mean,
    "var": var,
    "max": max,
    "min": min,
    "reshape": reshape,
    "transpose": _axes,
    "astype": astype,
    "to": to,
    "sum_to": sum_to,
}.items():
    setattr(Tensor, name, method)
del name, method
