"""The convolution triad: three gradients of one trilinear form, so that every order of derivative stays inside it.

    ⟨conv2d(x, w), y⟩ = ⟨x, conv2d_transpose(y, w)⟩ = ⟨w, conv2d_weight_grad(x, y)⟩

    y[n, p, q, o] = Σ_{i, j, c}  x[n, s·p + i − pad, s'·q + j − pad', c] · w[i, j, c, o]         (x is 0 outside)

x (N, H, W, Cin), w (kh, kw, Cin, Cout), y (N, OH, OW, Cout), OH = ⌊(H + 2·pad − kh) / s⌋ + 1; stride and padding are
pairs (vertical, horizontal). The fast version unrolls patches into rows (im2col), so that each of the three is one
matrix product: with P = patches(x) of shape (N·OH·OW, kh·kw·Cin),

    conv2d = P w        conv2d_weight_grad = Pᵀ y        conv2d_transpose = scatter of y wᵀ, the adjoint of patches
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan.kernels.dispatch import kernel
from minigan.kernels.jit import loops, prange

Pair = tuple[int, int]


def conv2d_output_shape(size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    """Return (OH, OW) for an input of ``size`` (H, W); ValueError when the kernel does not fit."""
    for name, pair, least in (("stride", stride, 1), ("padding", padding, 0)):
        if min(pair) < least:
            raise ValueError(f"{name} must be >= {least}, not {pair}")
    out = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True))
    if any(n + 2 * p < k for n, k, p in zip(size, kernel, padding, strict=True)):
        raise ValueError(f"a kernel of {kernel} does not fit in an input of {size} with padding {padding}")
    return out  # type: ignore[return-value]


def transposed_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair, output_padding: Pair) -> Pair:
    """Return (H, W) = (OH − 1)·s − 2·pad + k + output_padding, an input that conv2d maps to ``size`` (OH, OW)."""
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


def check_channels(name: str, found: int, wanted: int) -> None:
    """Raise ValueError unless an operand has the channels that the kernel's weights take."""
    if found != wanted:
        raise ValueError(f"{name} has {found} channels but w takes {wanted}")


def _taps(kernel: Pair, stride: Pair, out: Pair) -> Any:
    """Yield (i, j, rows, columns): the slices of a padded image that tap (i, j) of the kernel meets."""
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows = slice(i, i + stride[0] * (out[0] - 1) + 1, stride[0])
            columns = slice(j, j + stride[1] * (out[1] - 1) + 1, stride[1])
            yield i, j, rows, columns


@kernel
def conv2d(x: Any, w: Any, *, stride: Pair, padding: Pair) -> Any:
    """Correlate x (N, H, W, Cin) with w (kh, kw, Cin, Cout): returns (N, OH, OW, Cout)."""
    check_channels("x", x.shape[3], w.shape[2])
    out = conv2d_output_shape(x.shape[1:3], w.shape[:2], stride, padding)
    padded = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))
    y = np.zeros((x.shape[0], *out, w.shape[3]), x.dtype)
    for i, j, rows, columns in _taps(w.shape[:2], stride, out):
        y += padded[:, rows, columns] @ w[i, j]
    return y


@kernel
def conv2d_transpose(y: Any, w: Any, *, stride: Pair, padding: Pair, output_padding: Pair) -> Any:
    """Adjoint of conv2d in x: y (N, OH, OW, Cout), w (kh, kw, Cin, Cout) give (N, H, W, Cin)."""
    check_channels("y", y.shape[3], w.shape[3])
    h, v = transposed_size(y.shape[1:3], w.shape[:2], stride, padding, output_padding)
    padded = np.zeros((y.shape[0], h + 2 * padding[0], v + 2 * padding[1], w.shape[2]), y.dtype)
    for i, j, rows, columns in _taps(w.shape[:2], stride, y.shape[1:3]):
        padded[:, rows, columns] += y @ w[i, j].T
    return padded[:, padding[0] : padding[0] + h, padding[1] : padding[1] + v].copy()


@kernel
def conv2d_weight_grad(x: Any, y: Any, *, kernel: Pair, stride: Pair, padding: Pair) -> Any:
    """Adjoint of conv2d in w: x (N, H, W, Cin), y (N, OH, OW, Cout) give (kh, kw, Cin, Cout)."""
    check_output(x, y, kernel, stride, padding)
    padded = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))
    w = np.zeros((*kernel, x.shape[3], y.shape[3]), x.dtype)
    for i, j, rows, columns in _taps(kernel, stride, y.shape[1:3]):
        w[i, j] = np.einsum("npqc,npqo->co", padded[:, rows, columns], y)
    return w


def check_output(x: Any, y: Any, kernel: Pair, stride: Pair, padding: Pair) -> None:
    """Raise ValueError unless y has the batch and the size that conv2d makes of x."""
    out = conv2d_output_shape(x.shape[1:3], kernel, stride, padding)
    if y.shape[:3] != (x.shape[0], *out):
        raise ValueError(f"y has (N, OH, OW) = {y.shape[:3]} but conv2d makes {(x.shape[0], *out)} of x {x.shape}")


@conv2d.numba
def _conv2d(x: Any, w: Any, *, stride: Pair, padding: Pair) -> Any:
    check_channels("x", x.shape[3], w.shape[2])
    out = conv2d_output_shape(x.shape[1:3], w.shape[:2], stride, padding)
    rows = _patches(x, w.shape[:2], stride, padding, out)
    y = np.empty((x.shape[0], *out, w.shape[3]), x.dtype)
    np.matmul(rows, w.reshape(-1, w.shape[3]), out=y.reshape(-1, w.shape[3]))
    return y


@conv2d_transpose.numba
def _conv2d_transpose(y: Any, w: Any, *, stride: Pair, padding: Pair, output_padding: Pair) -> Any:
    check_channels("y", y.shape[3], w.shape[3])
    size = transposed_size(y.shape[1:3], w.shape[:2], stride, padding, output_padding)
    rows = np.matmul(y.reshape(-1, y.shape[3]), w.reshape(-1, w.shape[3]).T)
    x = np.zeros((y.shape[0], *size, w.shape[2]), y.dtype)
    _scatter_loops(rows, *w.shape[:2], *stride, *padding, *y.shape[1:3], x, work=rows.size)
    return x


@conv2d_weight_grad.numba
def _conv2d_weight_grad(x: Any, y: Any, *, kernel: Pair, stride: Pair, padding: Pair) -> Any:
    check_output(x, y, kernel, stride, padding)
    rows = _patches(x, kernel, stride, padding, y.shape[1:3])
    w = np.empty((*kernel, x.shape[3], y.shape[3]), x.dtype)
    np.matmul(rows.T, y.reshape(-1, y.shape[3]), out=w.reshape(-1, y.shape[3]))
    return w


def _patches(x: Any, kernel: Pair, stride: Pair, padding: Pair, out: Pair) -> Any:
    """Unroll the patches of x into rows: (N·OH·OW, kh·kw·C)."""
    rows = np.empty((x.shape[0] * out[0] * out[1], kernel[0] * kernel[1] * x.shape[3]), x.dtype)
    _patches_loops(np.ascontiguousarray(x), *kernel, *stride, *padding, *out, rows, work=rows.size)
    return rows


@loops
def _patches_loops(x, kh, kw, sh, sw, ph, pw, oh, ow, rows):
    n_images, h, w, channels = x.shape
    for line in prange(n_images * oh):  # one line of outputs
        n = line // oh
        top = (line % oh) * sh - ph
        for q in range(ow):
            left = q * sw - pw
            row = rows[line * ow + q]
            for i in range(kh):
                for j in range(kw):
                    at = (i * kw + j) * channels
                    if 0 <= top + i < h and 0 <= left + j < w:
                        for c in range(channels):
                            row[at + c] = x[n, top + i, left + j, c]
                    else:
                        for c in range(channels):
                            row[at + c] = 0


@loops
def _scatter_loops(rows, kh, kw, sh, sw, ph, pw, oh, ow, x):
    n_images, h, w, channels = x.shape
    for n in prange(n_images):  # one image a thread: no two threads add to one place
        for p in range(oh):
            for q in range(ow):
                row = rows[(n * oh + p) * ow + q]
                for i in range(kh):
                    for j in range(kw):
                        y0 = p * sh - ph + i
                        x0 = q * sw - pw + j
                        if 0 <= y0 < h and 0 <= x0 < w:
                            at = (i * kw + j) * channels
                            for c in range(channels):
                                x[n, y0, x0, c] += row[at + c]
