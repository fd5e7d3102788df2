"""NumPy's functions on Tensors: ``np.exp(t)`` is ``ops.exp(t)``; those that no op stands for take constants alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minigan.engine.tensor import Tensor
from minigan.ops import elementwise, reduce, shape
from minigan.ops.dense import matmul

UFUNCS: dict[Any, Callable[..., Tensor]] = {
    np.absolute: elementwise.abs,
    np.add: elementwise.add,
    np.divide: elementwise.div,
    np.exp: elementwise.exp,
    np.log: elementwise.log,
    np.matmul: matmul,
    np.maximum: elementwise.maximum,
    np.minimum: elementwise.minimum,
    np.multiply: elementwise.mul,
    np.negative: elementwise.neg,
    np.positive: lambda x: x,
    np.power: elementwise.power,
    np.sqrt: elementwise.sqrt,
    np.square: elementwise.square,
    np.subtract: elementwise.sub,
    np.tanh: elementwise.tanh,
}
FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.amax: reduce.max,
    np.amin: reduce.min,
    np.broadcast_to: reduce.broadcast_to,
    np.clip: elementwise.clip,
    np.concatenate: shape.concat,
    np.max: reduce.max,
    np.mean: reduce.mean,
    np.min: reduce.min,
    np.ndim: lambda a: a.ndim,
    np.reshape: shape.reshape,
    np.shape: lambda a: a.shape,
    np.size: lambda a, axis=None: np.size(np.broadcast_to(0, a.shape), axis),  # without a look at the entries
    np.stack: shape.stack,
    np.sum: reduce.sum,
    np.transpose: shape.transpose,
    np.var: reduce.var,
    np.where: elementwise.where,
}
COMPARISONS = {np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal}


def array_ufunc(self: Tensor, ufunc: Any, method: str, *inputs: Any, **settings: Any) -> Any:
    """Call the op that a ufunc stands for; another ufunc gets arrays, which a Tensor that requires grad refuses."""
    name = f"np.{ufunc.__name__}"
    if method == "__call__" and not settings:
        if ufunc in UFUNCS:
            return UFUNCS[ufunc](*inputs)
        if ufunc in COMPARISONS or not any(isinstance(x, Tensor) and x.requires_grad for x in inputs):
            result = ufunc(*(x.data if isinstance(x, Tensor) else x for x in inputs))
            return Tensor(result) if ufunc in COMPARISONS else result
    raise TypeError(
        f"{name} does not take Tensors in this way: use an op of minigan.ops, or t.numpy() without its graph"
    )


def array_function(self: Tensor, function: Any, types: Any, args: Any, settings: Any) -> Any:
    """Call the op that a function of NumPy stands for; others get arrays, which refuse Tensors that require grad."""
    if function in FUNCTIONS:
        return FUNCTIONS[function](*args, **settings)
    return function(*_arrays(args), **{key: _arrays(value) for key, value in settings.items()})


def _arrays(value: Any) -> Any:
    if isinstance(value, Tensor):
        return np.asarray(value)
    if isinstance(value, list | tuple):
        return type(value)(map(_arrays, value))
    return value
