"""The convolution triad: three gradients of one trilinear form, so that every order of derivative stays inside it.

    ⟨conv2d(x, w), y⟩ = ⟨x, conv2d_transpose(y, w)⟩ = ⟨w, conv2d_weight_grad(x, y)⟩

    y[n, p, q, o] = Σ_{i, j, c}  x[n, s·p + i − pad, s'·q + j − pad', c] · w[i, j, c, o]         (x is 0 outside)

x (N, H, W, Cin), w (kh, kw, Cin, Cout), y (N, OH, OW, Cout), OH = ⌊(H + 2·pad − kh) / s⌋ + 1; stride and padding are
pairs (vertical, horizontal). The first two can add a bias and apply an activation of bias_act on the way out.

The fast versions share one interface: kernels/cpu/winograd.py where it knows a geometry, kernels/cpu/im2col.py for the
rest, and a plain matrix product where x is its own matrix of patches.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from minigan.kernels import conv_shapes
from minigan.kernels.bias_act import ACTIVATIONS, bias_act, bias_act_into, finish, leaky_slope
from minigan.kernels.conv_shapes import Pair, conv2d_output_shape, transposed_size
from minigan.kernels.cpu import im2col, winograd
from minigan.kernels.dispatch import kernel
from minigan.kernels.gpu import launch as cuda
from minigan.kernels.matmul import add_parts_cuda, parts_of, product, tiles


def _taps(kernel: Pair, stride: Pair, out: Pair) -> Any:
    """Yield (i, j, rows, columns): the slices of a padded image that tap (i, j) of the kernel meets."""
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows = slice(i, i + stride[0] * (out[0] - 1) + 1, stride[0])
            columns = slice(j, j + stride[1] * (out[1] - 1) + 1, stride[1])
            yield i, j, rows, columns


@kernel
def conv2d(
    x: Any, w: Any, b: Any | None = None, *, stride: Pair, padding: Pair, activation: str = "linear", slope: float = 0.0
) -> Any:
    """Correlate x (N, H, W, Cin) with w (kh, kw, Cin, Cout), add b (Cout,), apply an activation: (N, OH, OW, Cout).

    Raises ValueError if the channels differ, the kernel does not fit in the padded x or the activation is unknown.
    """
    out = conv2d_output_shape(x.shape[1:3], w.shape[:2], stride, padding)
    padded = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))
    y = np.zeros((x.shape[0], *out, w.shape[3]), x.dtype)
    for i, j, rows, columns in _taps(w.shape[:2], stride, out):
        y += padded[:, rows, columns] @ w[i, j]
    return bias_act.implementations["reference"](y, b, activation=activation, slope=slope)


@kernel
def conv2d_transpose(
    y: Any,
    w: Any,
    b: Any | None = None,
    *,
    stride: Pair,
    padding: Pair,
    output_padding: Pair,
    activation: str = "linear",
    slope: float = 0.0,
) -> Any:
    """Adjoint of conv2d in x: y (N, OH, OW, Cout), w (kh, kw, Cin, Cout) give (N, H, W, Cin); b (Cin,), activation.

    Raises ValueError if the channels differ, ``output_padding`` is not below the stride or y comes from no x.
    """
    h, v = transposed_size(y.shape[1:3], w.shape[:2], stride, padding, output_padding)
    padded = np.zeros((y.shape[0], h + 2 * padding[0], v + 2 * padding[1], w.shape[2]), y.dtype)
    for i, j, rows, columns in _taps(w.shape[:2], stride, y.shape[1:3]):
        padded[:, rows, columns] += y @ w[i, j].T
    x = padded[:, padding[0] : padding[0] + h, padding[1] : padding[1] + v]
    return bias_act.implementations["reference"](x, b, activation=activation, slope=slope).copy()


@kernel
def conv2d_weight_grad(x: Any, y: Any, *, kernel: Pair, stride: Pair, padding: Pair) -> Any:
    """Adjoint of conv2d in w: x (N, H, W, Cin), y (N, OH, OW, Cout) give (kh, kw, Cin, Cout).

    Raises ValueError unless y has the batch and the size that conv2d makes of x.
    """
    padded = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))
    w = np.zeros((*kernel, x.shape[3], y.shape[3]), x.dtype)
    for i, j, rows, columns in _taps(kernel, stride, y.shape[1:3]):
        w[i, j] = np.einsum("npqc,npqo->co", padded[:, rows, columns], y)
    return w


conv2d.check(conv_shapes.check_conv2d)
conv2d_transpose.check(conv_shapes.check_conv2d_transpose)
conv2d_weight_grad.check(conv_shapes.check_weight_grad)

# --- the fast versions ------------------------------------------------------------------------------------------------


def _patches_are_rows(size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> bool:
    """Return whether x reshaped to rows is its matrix of patches: one patch an image, or one a pixel."""
    return padding == (0, 0) and (kernel == size or kernel == stride == (1, 1))


def _no_bias(x: Any, b: Any) -> Any:
    return np.empty(0, x.dtype) if b is None else np.ascontiguousarray(b)


@conv2d.numba
def _conv2d(
    x: Any, w: Any, b: Any | None = None, *, stride: Pair, padding: Pair, activation: str = "linear", slope: float = 0.0
) -> Any:
    out, kernel, c_out = conv2d_output_shape(x.shape[1:3], w.shape[:2], stride, padding), w.shape[:2], w.shape[3]
    y = np.empty((x.shape[0], *out, c_out), x.dtype)
    if not (y.size and w.size):
        reference = conv2d.implementations["reference"]
        return reference(x, w, b, stride=stride, padding=padding, activation=activation, slope=slope)
    b, below = _no_bias(x, b), leaky_slope(x.dtype, activation, slope)
    form = winograd.find_form(kernel, stride, w.shape[2:], len(x), out)
    if _patches_are_rows(x.shape[1:3], kernel, stride, padding):
        rows = x.reshape(y.size // c_out, -1)
        product(rows, w.reshape(-1, c_out), b, below, y.reshape(-1, c_out))
    elif form is not None:
        winograd.conv2d(x, w, b, below, stride[0], padding, form, y)
    else:
        im2col.conv2d(x, w, b, below, stride, padding, y)
    finish(y, activation)
    return y


@conv2d_transpose.numba
def _conv2d_transpose(
    y: Any,
    w: Any,
    b: Any | None = None,
    *,
    stride: Pair,
    padding: Pair,
    output_padding: Pair,
    activation: str = "linear",
    slope: float = 0.0,
) -> Any:
    kernel, (c_in, c_out) = w.shape[:2], w.shape[2:]
    size = transposed_size(y.shape[1:3], kernel, stride, padding, output_padding)
    x = np.empty((y.shape[0], *size, c_in), y.dtype)
    if not (x.size and w.size):
        geometry = {"stride": stride, "padding": padding, "output_padding": output_padding}
        reference = conv2d_transpose.implementations["reference"]
        return reference(y, w, b, **geometry, activation=activation, slope=slope)
    b, below = _no_bias(y, b), leaky_slope(y.dtype, activation, slope)
    form = winograd.find_form(kernel, stride, (c_in, c_out), len(y), y.shape[1:3])
    if _patches_are_rows(size, kernel, stride, padding):
        rows = x.reshape(y.size // c_out, -1)
        product(y.reshape(-1, c_out), w.reshape(-1, c_out).T, b[:0], below if not b.size else below.dtype.type(1), rows)
        if b.size:
            bias_act_into(x, b, x, "leaky_relu", below)
    elif form is not None:
        winograd.conv2d_transpose(y, w, b, below, stride[0], padding, form, x)
    else:
        im2col.conv2d_transpose(y, w, b, below, stride, padding, x)
    finish(x, activation)
    return x


@conv2d_weight_grad.numba
def _conv2d_weight_grad(x: Any, y: Any, *, kernel: Pair, stride: Pair, padding: Pair) -> Any:
    c_in, c_out = x.shape[3], y.shape[3]
    w = np.empty((*kernel, c_in, c_out), x.dtype)
    form = winograd.find_form(kernel, stride, (c_in, c_out), len(y), y.shape[1:3])
    if not (w.size and y.size):
        w[...] = 0
    elif _patches_are_rows(x.shape[1:3], kernel, stride, padding):
        rows = x.reshape(y.size // c_out, -1)
        product(rows.T, y.reshape(-1, c_out), w[0, 0, 0, :0], x.dtype.type(1), w.reshape(-1, c_out))
    elif form is not None:
        winograd.conv2d_weight_grad(x, y, stride[0], padding, form, w)
    else:
        im2col.conv2d_weight_grad(x, y, stride, padding, w)
    return w


# --- CUDA -------------------------------------------------------------------------------------------------------------

_cu = cuda.Source("conv.cu")


@functools.lru_cache(maxsize=256)
def _sizes(xp: Any, images: int, size: Pair, c_in: int, out: Pair, w: tuple[int, ...], stride: Pair, pad: Pair) -> Any:
    """Return the numbers of Geometry in conv.cu, in device memory."""
    return xp.asarray(np.array([images, *size, c_in, *out, w[3], *w[:2], *stride, *pad], np.int32))


@conv2d.cuda
def _conv2d_cuda(
    x: Any, w: Any, b: Any | None = None, *, stride: Pair, padding: Pair, activation: str = "linear", slope: float = 0.0
) -> Any:
    xp = cuda.module_of(x)
    out = conv2d_output_shape(x.shape[1:3], w.shape[:2], stride, padding)
    y = xp.empty((x.shape[0], *out, w.shape[3]), x.dtype)
    if y.size:
        sizes = _sizes(xp, len(x), x.shape[1:3], x.shape[3], out, w.shape, stride, padding)
        grid = tiles(y.size // w.shape[3], w.shape[3])
        _launch_activated("conv2d", x, w, b, y, sizes, activation, slope, grid)
    return y


@conv2d_transpose.cuda
def _conv2d_transpose_cuda(
    y: Any,
    w: Any,
    b: Any | None = None,
    *,
    stride: Pair,
    padding: Pair,
    output_padding: Pair,
    activation: str = "linear",
    slope: float = 0.0,
) -> Any:
    xp = cuda.module_of(y)
    size = transposed_size(y.shape[1:3], w.shape[:2], stride, padding, output_padding)
    x = xp.empty((y.shape[0], *size, w.shape[2]), y.dtype)
    if x.size:
        sizes = _sizes(xp, len(y), size, w.shape[2], y.shape[1:3], w.shape, stride, padding)
        pixels = len(y) * -(-size[0] // stride[0]) * -(-size[1] // stride[1])  # of the largest phase
        grid = tiles(pixels, w.shape[2], stride[0] * stride[1])
        _launch_activated("conv2d_transpose", y, w, b, x, sizes, activation, slope, grid)
    return x


def _launch_activated(
    kernel: str, x: Any, w: Any, b: Any, out: Any, sizes: Any, activation: str, slope: float, grid: Any
) -> None:
    """Launch a kernel that puts bias and activation on its tiles as they leave; without a bias x stands in, unread."""
    xp = cuda.module_of(x)
    x, w, bias = (xp.ascontiguousarray(a) for a in (x, w, x if b is None else b))
    settings = b is not None, ACTIVATIONS.index(activation), slope
    _cu.launch(kernel, x, w, bias, out, sizes, *settings, grid=grid, variant=(cuda.tf32(x),))


@conv2d_weight_grad.cuda
def _conv2d_weight_grad_cuda(x: Any, y: Any, *, kernel: Pair, stride: Pair, padding: Pair) -> Any:
    xp = cuda.module_of(x)
    w = xp.empty((*kernel, x.shape[3], y.shape[3]), x.dtype)
    if not w.size:
        return w
    x, y = xp.ascontiguousarray(x), xp.ascontiguousarray(y)
    outputs, taps = y.size // y.shape[3], w.size // y.shape[3]
    parts, length = parts_of(taps, y.shape[3], outputs)
    sums = w if parts == 1 else xp.empty((parts, *w.shape), w.dtype)
    sizes = _sizes(xp, len(x), x.shape[1:3], x.shape[3], y.shape[1:3], w.shape, stride, padding)
    grid = tiles(taps, y.shape[3], parts)
    _cu.launch("conv2d_weight_grad", x, y, sums, sizes, length, grid=grid, variant=(cuda.tf32(x),))
    if parts > 1:
        add_parts_cuda(sums, w)
    return w
