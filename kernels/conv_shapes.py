"""Which shapes the convolution triad of conv.py takes, and which it gives."""

from __future__ import annotations

from typing import Any

from minigan.kernels.bias_act import check_activation, check_bias

Pair = tuple[int, int]


def conv2d_output_shape(size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    """Return (OH, OW) for an input of ``size`` (H, W); ValueError when the kernel does not fit."""
    _check_geometry(kernel, stride, padding)
    out = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True))
    if any(n + 2 * p < k for n, k, p in zip(size, kernel, padding, strict=True)):
        raise ValueError(f"a kernel of {kernel} does not fit in an input of {size} with padding {padding}")
    return out  # type: ignore[return-value]


def _check_geometry(kernel: Pair, stride: Pair, padding: Pair) -> None:
    for name, pair, least in (("kernel", kernel, 1), ("stride", stride, 1), ("padding", padding, 0)):
        if min(pair) < least:
            raise ValueError(f"{name} must be >= {least}, not {pair}")


def transposed_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair, output_padding: Pair) -> Pair:
    """Return (H, W) = (OH − 1)·s − 2·pad + k + output_padding, an input that conv2d maps to ``size`` (OH, OW)."""
    _check_geometry(kernel, stride, padding)
    for pad, step in zip(output_padding, stride, strict=True):
        if not 0 <= pad < step:
            raise ValueError(f"output_padding must be >= 0 and smaller than the stride {stride}, not {output_padding}")
    out = tuple(
        (n - 1) * s - 2 * p + k + extra
        for n, k, s, p, extra in zip(size, kernel, stride, padding, output_padding, strict=True)
    )
    if min(out) < 1:
        raise ValueError(f"an output of {size} with kernel {kernel}, padding {padding} comes from no input: {out}")
    return out  # type: ignore[return-value]


def check_conv2d(
    x: Any, w: Any, b: Any | None = None, *, stride: Pair, padding: Pair, activation: str = "linear", slope: float = 0.0
) -> None:
    """Raise ValueError for what conv2d does not take."""
    _check_axes("x (N, H, W, Cin) and w (kh, kw, Cin, Cout)", x, w)
    _check_channels("x", x, w.shape[2])
    check_activation(activation, slope)
    check_bias(b, w.shape[3:], f"the result of w {w.shape}")
    conv2d_output_shape(x.shape[1:3], w.shape[:2], stride, padding)


def check_conv2d_transpose(
    y: Any,
    w: Any,
    b: Any | None = None,
    *,
    stride: Pair,
    padding: Pair,
    output_padding: Pair,
    activation: str = "linear",
    slope: float = 0.0,
) -> None:
    """Raise ValueError for what conv2d_transpose does not take."""
    _check_axes("y (N, OH, OW, Cout) and w (kh, kw, Cin, Cout)", y, w)
    _check_channels("y", y, w.shape[3])
    check_activation(activation, slope)
    check_bias(b, w.shape[2:3], f"the result of w {w.shape}")
    transposed_size(y.shape[1:3], w.shape[:2], stride, padding, output_padding)


def check_weight_grad(x: Any, y: Any, *, kernel: Pair, stride: Pair, padding: Pair) -> None:
    """Raise ValueError unless y has the batch and the size that conv2d makes of x."""
    _check_axes("x (N, H, W, Cin) and y (N, OH, OW, Cout)", x, y)
    out = conv2d_output_shape(x.shape[1:3], kernel, stride, padding)
    if y.shape[:3] != (x.shape[0], *out):
        raise ValueError(f"y has (N, OH, OW) = {y.shape[:3]} but conv2d makes {(x.shape[0], *out)} of x {x.shape}")


def _check_axes(names: str, *arrays: Any) -> None:
    if any(array.ndim != 4 for array in arrays):
        raise ValueError(f"{names} must have 4 axes each")


def _check_channels(name: str, images: Any, wanted: int) -> None:
    if images.shape[3] != wanted:
        first = images.shape[1] == wanted
        hint = f": minigan's images are channels-last, so use transpose({name}, (0, 2, 3, 1))" if first else ""
        raise ValueError(f"{name} has {images.shape[3]} channels but w takes {wanted}{hint}")
