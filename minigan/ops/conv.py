"""The convolution triad on Tensors. Each op's rules are the other two, so derivatives of every order stay inside it.

The two that return images can add a bias and apply an activation in the same call, as dense does.

Images are channels-last. Stride, padding and output padding are an int or a pair (vertical, horizontal).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan import kernels
from minigan.engine.primitive import primitive
from minigan.engine.tensor import Tensor
from minigan.kernels import settings
from minigan.ops.bias_act import bias_act_vjp

Pair = tuple[int, int]


def pair(value: int | Pair, name: str = "value") -> Pair:
    """Return an int as a pair of itself, and a pair as a tuple; TypeError for anything else."""
    try:
        return settings.pair(name, value if np.iterable(value) else (value, value))
    except TypeError:
        raise TypeError(f"{name} must be an int or a pair (vertical, horizontal), not {value!r}") from None


@primitive
def _conv2d(x: Any, w: Any, b: Any, *, stride: Pair, padding: Pair, activation: str, slope: float) -> Any:
    return kernels.conv2d(x, w, b, stride=stride, padding=padding, activation=activation, slope=slope)


@primitive
def _conv2d_transpose(
    y: Any, w: Any, b: Any, *, stride: Pair, padding: Pair, output_padding: Pair, activation: str, slope: float
) -> Any:
    geometry = {"stride": stride, "padding": padding, "output_padding": output_padding}
    return kernels.conv2d_transpose(y, w, b, **geometry, activation=activation, slope=slope)


@primitive
def _conv2d_weight_grad(x: Any, y: Any, *, kernel: Pair, stride: Pair, padding: Pair) -> Any:
    return kernels.conv2d_weight_grad(x, y, kernel=kernel, stride=stride, padding=padding)


LINEAR: dict[str, Any] = {"activation": "linear", "slope": 0.0}


def _back_to(size: Pair, y: Any, w: Any, stride: Pair, padding: Pair) -> Tensor:
    """Transposed convolution to images of ``size``; rows that conv2d never read are zeros."""
    kernel = w.shape[:2]
    extra = tuple((n + 2 * p - k) % s for n, p, k, s in zip(size, padding, kernel, stride, strict=True))
    return _conv2d_transpose(y, w, None, stride=stride, padding=padding, output_padding=extra, **LINEAR)


def _conv2d_vjp(
    g: Tensor, y: Tensor, x: Any, w: Any, b: Any, *, stride: Pair, padding: Pair, activation: str, slope: float
) -> Any:
    dv, db = bias_act_vjp(g, y, b, activation, slope)
    return (
        lambda: _back_to(x.shape[1:3], dv, w, stride, padding),
        lambda: _conv2d_weight_grad(x, dv, kernel=w.shape[:2], stride=stride, padding=padding),
        db,
    )


def _conv2d_transpose_vjp(
    g: Tensor,
    x: Tensor,
    y: Any,
    w: Any,
    b: Any,
    *,
    stride: Pair,
    padding: Pair,
    output_padding: Pair,
    activation: str,
    slope: float,
) -> Any:
    dv, db = bias_act_vjp(g, x, b, activation, slope)
    return (
        lambda: _conv2d(dv, w, None, stride=stride, padding=padding, **LINEAR),
        lambda: _conv2d_weight_grad(dv, y, kernel=w.shape[:2], stride=stride, padding=padding),
        db,
    )


_conv2d.defvjp_joint(_conv2d_vjp)
_conv2d_transpose.defvjp_joint(_conv2d_transpose_vjp)
_conv2d_weight_grad.defvjp(
    lambda g, w, x, y, *, kernel, stride, padding: _back_to(x.shape[1:3], y, g, stride, padding),
    lambda g, w, x, y, *, kernel, stride, padding: _conv2d(x, g, None, stride=stride, padding=padding, **LINEAR),
)


def conv2d(
    x: Any,
    w: Any,
    b: Any = None,
    *,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    activation: str = "linear",
    slope: float = 0.0,
) -> Tensor:
    """act(x ⋆ w + b): correlate x (N, H, W, Cin) with w (kh, kw, Cin, Cout), b (Cout,) or None: (N, OH, OW, Cout).

    OH = ⌊(H + 2·padding − kh) / stride⌋ + 1, and OW likewise. The activations are those of dense.
    """
    return _conv2d(
        x, w, b, stride=pair(stride, "stride"), padding=pair(padding, "padding"), activation=activation, slope=slope
    )


def conv2d_transpose(
    y: Any,
    w: Any,
    b: Any = None,
    *,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    output_padding: int | Pair = 0,
    activation: str = "linear",
    slope: float = 0.0,
) -> Tensor:
    """Exact adjoint of conv2d with the same w (kh, kw, Cin, Cout): y (N, OH, OW, Cout) gives (N, H, W, Cin).

    H = (OH − 1)·stride − 2·padding + kh + output_padding, with 0 <= output_padding < stride. A bias b (Cin,) and an
    activation are optional.
    """
    return _conv2d_transpose(
        y,
        w,
        b,
        stride=pair(stride, "stride"),
        padding=pair(padding, "padding"),
        output_padding=pair(output_padding, "output_padding"),
        activation=activation,
        slope=slope,
    )


def conv2d_weight_grad(
    x: Any, y: Any, *, kernel: int | Pair, stride: int | Pair = 1, padding: int | Pair = 0
) -> Tensor:
    """Adjoint of conv2d in w: x (N, H, W, Cin) and y (N, OH, OW, Cout) give (kh, kw, Cin, Cout)."""
    return _conv2d_weight_grad(
        x, y, kernel=pair(kernel, "kernel"), stride=pair(stride, "stride"), padding=pair(padding, "padding")
    )
