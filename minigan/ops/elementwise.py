"""Elementwise ops. Broadcasting follows NumPy; the engine undoes it, so rules ignore it.

Conventions at kinks: relu'(0) = 0, leaky_relu'(0) = slope, abs'(0) = 0, clip' = 1 on its bounds, maximum and minimum
give each of two equal entries half, sqrt'(0) = inf. At NaN relu, maximum and minimum pass the gradient on, abs and
clip stop it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minigan import kernels
from minigan.engine.device import as_array, device_of, is_array, to_device, xp
from minigan.engine.primitive import primitive, primitive_of_numbers
from minigan.engine.recorder import recording
from minigan.engine.tensor import FLOATS, Tensor, tensor, wrap
from minigan.kernels.settings import number


def constant(function: Callable[..., Any], *arguments: Any) -> Tensor:
    """Return function(*arguments) as a Tensor without graph: a factor whose derivative is zero wherever it exists.

    ``arguments`` are arrays and settings. The function is defined at module level: a recorder notes it by name.
    """
    result = as_array(function(*arguments))
    recorder = recording()
    return wrap(result if recorder is None else recorder.add(function, arguments, {}, result))


def raw(x: Any) -> Any:
    """Return the array (or number) behind a Tensor, or ``x`` itself; TypeError for lists and tuples."""
    if isinstance(x, list | tuple):
        raise TypeError(f"expected a Tensor or an array here, not a {type(x).__name__}: use minigan.engine.tensor")
    return x.data if type(x) is Tensor else x


def shape_of(x: Any) -> tuple[int, ...]:
    """Return the shape of a Tensor or an array, and () for a number; TypeError for anything else."""
    array = raw(x)
    if not hasattr(array, "shape") and not isinstance(array, int | float):
        raise TypeError(f"expected a Tensor, an array or a number here, not {type(x).__name__}")
    return getattr(array, "shape", ())


# --- arithmetic -------------------------------------------------------------------------------------------------------


@primitive_of_numbers
def add(x: Any, y: Any) -> Any:
    """x + y."""
    return x + y


add.defvjp(lambda g, out, x, y: g, lambda g, out, x, y: g)


@primitive_of_numbers
def sub(x: Any, y: Any) -> Any:
    """x − y."""
    return x - y


sub.defvjp(lambda g, out, x, y: g, lambda g, out, x, y: -g)


@primitive_of_numbers
def mul(x: Any, y: Any) -> Any:
    """x · y."""
    return x * y


mul.defvjp(lambda g, out, x, y: g * y, lambda g, out, x, y: g * x)


@primitive
def div(x: Any, y: Any) -> Any:
    """x / y."""
    return x / y


div.defvjp(lambda g, out, x, y: g / y, lambda g, out, x, y: -g * out / y)


@primitive_of_numbers
def neg(x: Any) -> Any:
    """−x."""
    return -x


neg.defvjp(lambda g, y, x: -g)


@primitive
def _power(x: Any, *, exponent: float) -> Any:
    return x**exponent


_power.defvjp(lambda g, y, x, *, exponent: g * (exponent * power(x, exponent - 1)) if exponent else g * 0.0)


@primitive
def _exponential(x: Any, *, base: float) -> Any:
    return base**x


_exponential.defvjp(lambda g, y, x, *, base: g * (y * math.log(base)))


def _has_entries(x: Any) -> bool:
    return isinstance(x, Tensor | list | tuple) or is_array(x)


def power(x: Any, exponent: Any) -> Tensor:
    """x to a constant exponent, whose derivative is 0 everywhere for exponent 0; or a number x > 0 to a Tensor."""
    if not _has_entries(exponent):
        return _power(x, exponent=number("power: the exponent", exponent))
    if _has_entries(x):
        raise TypeError("power: the exponent must be a number, unless x is one: use exp(y * log(x))")
    base = number("power: a number to a Tensor", x)
    if not base > 0:
        raise ValueError(f"power: a number to a Tensor must be > 0, not {x}")
    return _exponential(exponent, base=base)


@primitive_of_numbers
def _astype(x: Any, *, dtype: Any) -> Any:
    return x.astype(dtype)


_astype.defvjp(lambda g, y, x, *, dtype: _astype(g, dtype=x.dtype))


def astype(x: Any, dtype: Any) -> Tensor:
    """Return x in another dtype; integers and booleans are constants."""
    dtype = np.dtype(dtype)
    if dtype not in FLOATS and (dtype.kind not in "iub" or not dtype.isnative):
        raise TypeError(f"astype: the dtype must be float32, float64, integer or bool, not {dtype}")
    return _astype(x if dtype in FLOATS else raw(x), dtype=dtype)


# --- functions --------------------------------------------------------------------------------------------------------


@primitive
def exp(x: Any) -> Any:
    """e^x."""
    return xp(x).exp(x)


exp.defvjp(lambda g, y, x: g * y)


@primitive
def log(x: Any) -> Any:
    """Natural logarithm."""
    return xp(x).log(x)


log.defvjp(lambda g, y, x: g / x)


@primitive
def sqrt(x: Any) -> Any:
    """Square root; its derivative at 0 is inf."""
    return xp(x).sqrt(x)


sqrt.defvjp(lambda g, y, x: g * 0.5 / y)


@primitive_of_numbers
def square(x: Any) -> Any:
    """x²."""
    return x * x


square.defvjp(lambda g, y, x: g * (2.0 * x))


@primitive_of_numbers
def abs(x: Any) -> Any:
    """|x|; its derivative at 0 is 0."""
    return xp(x).abs(x)


def _sign(x: Any) -> Any:
    return (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype)  # 0 at NaN


abs.defvjp(lambda g, y, x: g * constant(_sign, x.data))


@primitive
def tanh(x: Any) -> Any:
    """Hyperbolic tangent."""
    return xp(x).tanh(x)


tanh.defvjp(lambda g, y, x: g * (1.0 - y * y))


@primitive
def sigmoid(x: Any) -> Any:
    """σ(x) = 1 / (1 + e^−x), without overflow at any x."""
    return kernels.bias_act(x, None, activation="sigmoid", slope=0.0)


sigmoid.defvjp(lambda g, y, x: g * (y * (1.0 - y)))


@primitive
def softplus(x: Any) -> Any:
    """log(1 + e^x), without overflow at any x."""
    m = xp(x)
    return m.maximum(x, 0) + m.log1p(m.exp(-m.abs(x)))


softplus.defvjp(lambda g, y, x: g * sigmoid(x))

# --- piecewise linear functions ---------------------------------------------------------------------------------------


@primitive_of_numbers
def maximum(x: Any, y: Any) -> Any:
    """The larger of x and y."""
    return np.maximum(x, y)


@primitive_of_numbers
def minimum(x: Any, y: Any) -> Any:
    """The smaller of x and y."""
    return np.minimum(x, y)


def _share(g: Tensor, winner: Any, other: Any) -> Tensor:
    """Pass g at entries where ``winner`` is the result, and half of it at ties."""
    return g * constant(_won, raw(winner), raw(other), g.dtype)


def _won(a: Any, b: Any, dtype: Any) -> Any:
    return (~((a < b) | (a == b)) + 0.5 * (a == b)).astype(dtype)  # both win where one is NaN


maximum.defvjp(lambda g, out, x, y: _share(g, x, y), lambda g, out, x, y: _share(g, y, x))
minimum.defvjp(lambda g, out, x, y: _share(g, raw(y), raw(x)), lambda g, out, x, y: _share(g, raw(x), raw(y)))


@primitive
def _clip(x: Any, *, low: float, high: float) -> Any:
    return xp(x).clip(x, low, high)


def _inside(x: Any, low: float, high: float, dtype: Any) -> Any:
    return ((x >= low) & (x <= high)).astype(dtype)


_clip.defvjp(lambda g, y, x, *, low, high: g * constant(_inside, x.data, low, high, g.dtype))


def clip(x: Any, low: float | None = None, high: float | None = None) -> Tensor:
    """Return x held between ``low`` and ``high`` (None: no bound); the derivative is 1 on the bounds, 0 outside."""
    least = -math.inf if low is None else number("clip: low", low)
    most = math.inf if high is None else number("clip: high", high)
    if not least <= most:
        raise ValueError(f"clip: low must not exceed high, got low={low}, high={high}")
    return _clip(x, low=least, high=most)


@primitive_of_numbers
def _where(x: Any, y: Any, *, condition: Any) -> Any:
    return np.where(condition, x, y)


_where.defvjp(
    lambda g, out, x, y, *, condition: _where(g, 0.0, condition=condition),
    lambda g, out, x, y, *, condition: _where(0.0, g, condition=condition),
)


def where(condition: Any, x: Any, y: Any) -> Tensor:
    """Return x where ``condition`` (a bool array or Tensor, a constant) holds, else y."""
    if x is None or y is None:
        raise TypeError("where: x and y are Tensors, arrays or numbers, not None")
    given = raw(condition)
    condition = as_array(given)
    if condition.dtype != bool:
        raise TypeError(f"where: the condition must be bool, not {condition.dtype}")
    if condition is given and type(given) is not Tensor:
        condition = condition.copy()  # its owner may write into it before the gradient
    if not is_array(raw(x)) and not is_array(raw(y)):
        x, y = tensor([x, y], device=device_of(condition))  # two numbers lie where the condition does
    if not condition.ndim:  # a single truth value goes with arrays of any device
        condition = to_device(condition, next((device_of(raw(v)) for v in (x, y) if is_array(raw(v))), "cpu"))
    return _where(x, y, condition=condition)
