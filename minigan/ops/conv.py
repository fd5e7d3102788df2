"""The convolution triad on Tensors. Each op's rules are the other two, so derivatives of every order stay inside it.

Images are channels-last. Stride, padding and output padding are an int or a pair (vertical, horizontal).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan import kernels
from minigan.autodiff import primitive
from minigan.tensor import Tensor

Pair = tuple[int, int]


def pair(value: int | Pair, name: str = "value") -> Pair:
    """Return ``value`` twice, or the pair that it is; TypeError for anything else."""
    both = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(both) != 2 or not all(isinstance(n, int | np.integer) for n in both):
        raise TypeError(f"{name} must be an int or a pair (vertical, horizontal), not {value!r}")
    return int(both[0]), int(both[1])


def _check(x: Any, w: Any, names: str) -> None:
    if x.ndim != 4 or w.ndim != 4:
        raise ValueError(f"{names} must have 4 axes each")
    if x.dtype != w.dtype:
        raise TypeError(f"{names} have dtypes {x.dtype} and {w.dtype}: bring both to one dtype")


@primitive
def _conv2d(x: Any, w: Any, *, stride: Pair, padding: Pair) -> Any:
    _check(x, w, "x (N, H, W, Cin) and w (kh, kw, Cin, Cout)")
    return kernels.conv2d(x, w, stride=stride, padding=padding)


@primitive
def _conv2d_transpose(y: Any, w: Any, *, stride: Pair, padding: Pair, output_padding: Pair) -> Any:
    _check(y, w, "y (N, OH, OW, Cout) and w (kh, kw, Cin, Cout)")
    return kernels.conv2d_transpose(y, w, stride=stride, padding=padding, output_padding=output_padding)


@primitive
def _conv2d_weight_grad(x: Any, y: Any, *, kernel: Pair, stride: Pair, padding: Pair) -> Any:
    _check(x, y, "x (N, H, W, Cin) and y (N, OH, OW, Cout)")
    return kernels.conv2d_weight_grad(x, y, kernel=kernel, stride=stride, padding=padding)


def _back_to(size: Pair, y: Any, w: Any, stride: Pair, padding: Pair) -> Tensor:
    """Transposed convolution that returns to images of ``size``: the rows conv2d never reached come back as zeros."""
    kernel = w.shape[:2]
    extra = tuple((n + 2 * p - k) % s for n, p, k, s in zip(size, padding, kernel, stride, strict=True))
    return _conv2d_transpose(y, w, stride=stride, padding=padding, output_padding=extra)


_conv2d.defvjp(
    lambda g, y, x, w, *, stride, padding: _back_to(x.shape[1:3], g, w, stride, padding),
    lambda g, y, x, w, *, stride, padding: _conv2d_weight_grad(
        x, g, kernel=w.shape[:2], stride=stride, padding=padding
    ),
)
_conv2d_transpose.defvjp(
    lambda g, x, y, w, *, stride, padding, output_padding: _conv2d(g, w, stride=stride, padding=padding),
    lambda g, x, y, w, *, stride, padding, output_padding: _conv2d_weight_grad(
        g, y, kernel=w.shape[:2], stride=stride, padding=padding
    ),
)
_conv2d_weight_grad.defvjp(
    lambda g, w, x, y, *, kernel, stride, padding: _back_to(x.shape[1:3], y, g, stride, padding),
    lambda g, w, x, y, *, kernel, stride, padding: _conv2d(x, g, stride=stride, padding=padding),
)


def conv2d(x: Any, w: Any, *, stride: int | Pair = 1, padding: int | Pair = 0) -> Tensor:
    """Correlate x (N, H, W, Cin) with w (kh, kw, Cin, Cout): (N, OH, OW, Cout).

    OH = ⌊(H + 2·padding − kh) / stride⌋ + 1, and OW likewise.
    """
    return _conv2d(x, w, stride=pair(stride, "stride"), padding=pair(padding, "padding"))


def conv2d_transpose(
    y: Any, w: Any, *, stride: int | Pair = 1, padding: int | Pair = 0, output_padding: int | Pair = 0
) -> Tensor:
    """Exact adjoint of conv2d with the same w (kh, kw, Cin, Cout): y (N, OH, OW, Cout) gives (N, H, W, Cin).

    H = (OH − 1)·stride − 2·padding + kh + output_padding, with 0 <= output_padding < stride.
    """
    return _conv2d_transpose(
        y,
        w,
        stride=pair(stride, "stride"),
        padding=pair(padding, "padding"),
        output_padding=pair(output_padding, "output_padding"),
    )


def conv2d_weight_grad(
    x: Any, y: Any, *, kernel: int | Pair, stride: int | Pair = 1, padding: int | Pair = 0
) -> Tensor:
    """Adjoint of conv2d in w: x (N, H, W, Cin) and y (N, OH, OW, Cout) give (kh, kw, Cin, Cout)."""
    return _conv2d_weight_grad(
        x, y, kernel=pair(kernel, "kernel"), stride=pair(stride, "stride"), padding=pair(padding, "padding")
    )
