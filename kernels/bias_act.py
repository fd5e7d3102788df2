"""y = act(x + b) in one pass over memory, and its derivative expressed through y.

    linear      y = v                      dy/dv = 1
    relu        y = max(v, 0)              dy/dv = [y > 0]                 (0 at v = 0, 1 at NaN)
    leaky_relu  y = v > 0 ? v : slope·v    dy/dv = y > 0 ? 1 : slope       (slope at v = 0)
    tanh        y = tanh v                 dy/dv = 1 − y²
    sigmoid     y = 1 / (1 + e^−v)         dy/dv = y (1 − y)

with v = x + b. Because the derivative needs y alone, x need not be kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan.kernels.cpu.jit import helper
from minigan.kernels.cpu.lanes import bias_leaky_run
from minigan.kernels.cpu.units import CHUNK, units
from minigan.kernels.dispatch import kernel
from minigan.kernels.gpu import launch as cuda

ROWS = 64  # rows whose sums are taken in their own dtype, before float64 adds them up
ACTIVATIONS = ("linear", "relu", "leaky_relu", "tanh", "sigmoid")


def sigmoid(v: Any) -> Any:
    """Return 1 / (1 + e^−v) without overflow at any v."""
    e = np.exp(-np.abs(v))
    return np.where(v >= 0, 1.0, e) / (1.0 + e)


def check_activation(activation: str, slope: float) -> None:
    """Raise ValueError unless the activation is known and its slope keeps the sign of v."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}: choose from {', '.join(ACTIVATIONS)}")
    if not slope >= 0:
        raise ValueError(f"the slope of leaky_relu must be >= 0, not {slope}")


@kernel
def bias_act(x: Any, b: Any | None, *, activation: str, slope: float) -> Any:
    """Return act(x + b) in the shape and dtype of x (..., C), for b (C,) or None; ValueError for a bad activation."""
    v = x if b is None else x + b
    if activation == "linear":
        return v.copy() if b is None else v
    if activation == "tanh":
        return np.tanh(v)
    if activation == "sigmoid":
        return sigmoid(v)
    below = slope * v if activation == "leaky_relu" and slope != 0 else np.where(np.isnan(v), v, 0)
    return np.where(v > 0, v, below).astype(x.dtype, copy=False)


@bias_act.check
def _check_bias_act(x: Any, b: Any | None, *, activation: str, slope: float) -> None:
    check_activation(activation, slope)
    check_bias(b, x.shape[-1:], "the last axis of x")


def check_bias(b: Any | None, wanted: tuple[int, ...], where: str) -> None:
    """Raise ValueError unless the bias has one entry for each channel."""
    if b is not None and (b.shape != wanted or not wanted):
        raise ValueError(f"b has shape {b.shape} but {where} wants {wanted or '(C,)'}")


def check_alike(first: str, x: Any, **others: Any) -> None:
    """Raise ValueError unless all others have the shape of x, which is called ``first``."""
    for name, other in others.items():
        if other.shape != x.shape:
            raise ValueError(f"{name} has shape {other.shape} but {first} has {x.shape}")


@kernel
def bias_act_grad(g: Any, y: Any, *, activation: str, slope: float) -> Any:
    """Return g · dy/dv, with g and y (...) of one shape: the gradient with respect to x (and, summed, to b)."""
    if activation == "linear":
        return g.copy()
    if activation == "tanh":
        return g * (1 - y * y)
    if activation == "sigmoid":
        return g * (y * (1 - y))
    if activation == "leaky_relu" and slope != 0:
        return np.where(y > 0, g, g * slope).astype(g.dtype, copy=False)
    return np.where(y <= 0, 0, g).astype(g.dtype, copy=False)


@bias_act_grad.check
def _check_bias_act_grad(g: Any, y: Any, *, activation: str, slope: float) -> None:
    check_activation(activation, slope)
    check_alike("g", g, y=y)


@kernel
def bias_act_sums(g: Any, y: Any, *, activation: str, slope: float) -> Any:
    """Return (g · dy/dv, its sum over all axes but the last): the gradients with respect to x and to b."""
    dv = bias_act_grad.implementations["reference"](g, y, activation=activation, slope=slope)
    return dv, dv.sum(tuple(range(g.ndim - 1)), dtype=np.float64).astype(g.dtype)


@bias_act_sums.check
def _check_bias_act_sums(g: Any, y: Any, *, activation: str, slope: float) -> None:
    _check_bias_act_grad(g, y, activation=activation, slope=slope)
    if not g.ndim:
        raise ValueError("g and y must be (..., C): a single number has no channels")


@bias_act.numba
def _bias_act(x: Any, b: Any | None, *, activation: str, slope: float) -> Any:
    y = np.empty_like(x, order="C", subok=False)
    bias_act_into(x, b, y, activation, slope)
    return y


def leaky_slope(dtype: Any, activation: str, slope: float) -> Any:
    """Return s where the activation is y = v > 0 ? v : s·v: 1 for linear and for those that :func:`finish` applies."""
    return dtype.type(slope if activation == "leaky_relu" else 0 if activation == "relu" else 1)


def finish(y: Any, activation: str) -> None:
    """Apply tanh or sigmoid in place: NumPy's are faster than what Numba makes of theirs."""
    if activation == "tanh":
        np.tanh(y, out=y)
    elif activation == "sigmoid":
        y[...] = sigmoid(y)


def bias_act_into(x: Any, b: Any, y: Any, activation: str, slope: float) -> None:
    """Write act(x + b) into the C-contiguous y, which may be x itself."""
    if activation in ("tanh", "sigmoid"):
        np.copyto(y, x) if b is None else np.add(x, b, out=y)
        finish(y, activation)
        return
    below = leaky_slope(x.dtype, activation, slope)
    x, b = np.ascontiguousarray(x), b if b is None else np.ascontiguousarray(b)
    channels = CHUNK if b is None else max(1, b.size)
    rows = max(1, CHUNK // channels)
    flat, none = x.reshape(-1), x.reshape(-1)[:0]
    _bias_leaky_units(
        -(-x.size // (rows * channels)),
        flat,
        none if b is None else b,
        below,
        rows,
        channels,
        y.reshape(-1),
        work=x.size,
    )


@units
def _bias_leaky_units(chunk, x, b, slope, rows, channels, y):
    end = min(x.size, (chunk + 1) * rows * channels)
    for at in range(chunk * rows * channels, end, channels):
        bias_leaky_run(
            y, at, x, at, b if b.size else x, 0 if b.size else at, b.size > 0, slope, min(channels, end - at)
        )


@helper
def bias_leaky(y, at, rows, channels, stride, b, b_at, slope):
    """Apply v > 0 ? v : slope·v with v = y + b in place to ``rows`` runs of channels from ``at`` on; b may be empty."""
    if b.size:
        for place in range(at, at + rows * stride, stride):
            bias_leaky_run(y, place, y, place, b, b_at, True, slope, channels)
    elif slope != 1:
        for place in range(at, at + rows * stride, stride):
            bias_leaky_run(y, place, y, place, y, place, False, slope, channels)


@bias_act_grad.numba
def _bias_act_grad(g: Any, y: Any, *, activation: str, slope: float) -> Any:
    if activation not in ("relu", "leaky_relu"):
        return bias_act_grad.implementations["reference"](g, y, activation=activation, slope=slope)
    out = np.empty_like(g, order="C", subok=False)
    below = g.dtype.type(slope if activation == "leaky_relu" else 0)
    flat_g, flat_y = np.ascontiguousarray(g).reshape(-1), np.ascontiguousarray(y).reshape(-1)
    _leaky_grad_units(-(-out.size // CHUNK), flat_g, flat_y, below, out.reshape(-1), work=out.size)
    return out


@units
def _leaky_grad_units(chunk, g, y, slope, out):
    zero = g.dtype.type(0)
    part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
    dy, value, dv = g[part], y[part], out[part]
    if slope != 0:
        for i in range(dy.size):
            dv[i] = dy[i] if value[i] > 0 else slope * dy[i]
    else:
        for i in range(dy.size):
            dv[i] = zero if value[i] <= 0 else dy[i]


@bias_act_sums.numba
def _bias_act_sums(g: Any, y: Any, *, activation: str, slope: float) -> Any:
    if activation not in ("relu", "leaky_relu") or not g.size:
        return bias_act_sums.implementations["reference"](g, y, activation=activation, slope=slope)
    channels = g.shape[-1]
    dv = np.empty(g.shape, g.dtype)
    sums = np.zeros((-(-g.size // channels // ROWS), channels), g.dtype)
    flat_g, flat_y = (np.ascontiguousarray(a).reshape(-1, channels) for a in (g, y))
    _leaky_sums_units(
        len(sums), flat_g, flat_y, leaky_slope(g.dtype, activation, slope), dv.reshape(flat_g.shape), sums, work=g.size
    )
    return dv, sums.sum(0, dtype=np.float64).astype(g.dtype)


@units
def _leaky_sums_units(chunk, g, y, slope, dv, sums):
    zero = g.dtype.type(0)
    total = sums[chunk]
    for row in range(chunk * ROWS, min(g.shape[0], (chunk + 1) * ROWS)):
        dy, value, out = g[row], y[row], dv[row]
        if slope != 0:
            for c in range(dy.size):
                d = dy[c] if value[c] > 0 else slope * dy[c]
                out[c] = d
                total[c] += d
        else:
            for c in range(dy.size):
                d = zero if value[c] <= 0 else dy[c]
                out[c] = d
                total[c] += d


# --- CUDA -------------------------------------------------------------------------------------------------------------

_cu = cuda.Source("bias_act.cu")


@bias_act.cuda
def _bias_act_cuda(x: Any, b: Any | None, *, activation: str, slope: float) -> Any:
    xp = cuda.module_of(x)
    x, channels = xp.ascontiguousarray(x), x.shape[-1] if x.ndim else 1
    b, y = x if b is None else xp.ascontiguousarray(b), xp.empty_like(x)
    _cu.launch(
        "bias_act", x, b, y, x.size, channels, b is not x, ACTIVATIONS.index(activation), slope, work=x.size
    )  # fmt: skip
    return y


@bias_act_grad.cuda
def _bias_act_grad_cuda(g: Any, y: Any, *, activation: str, slope: float) -> Any:
    xp = cuda.module_of(g)
    g, y = xp.ascontiguousarray(g), xp.ascontiguousarray(y)
    dv = xp.empty_like(g)
    _cu.launch("bias_act_grad", g, y, dv, g.size, ACTIVATIONS.index(activation), slope, work=g.size)
    return dv


@bias_act_sums.cuda
def _bias_act_sums_cuda(g: Any, y: Any, *, activation: str, slope: float) -> Any:
    xp = cuda.module_of(g)
    g, y = xp.ascontiguousarray(g), xp.ascontiguousarray(y)
    width = g.shape[-1]
    rows = g.size // width if width else 0
    dv, sums = xp.empty_like(g), xp.empty(width, g.dtype)
    settings = ACTIVATIONS.index(activation), slope
    partial = _cu.sum_columns("bias_act_sums", 1, rows, width, g, y, dv, settings=settings)
    _cu.launch("add_columns", partial, sums, partial.shape[1], width, work=width)
    return dv, sums
