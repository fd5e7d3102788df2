"""y = act(x + b) in one pass over memory, and its derivative expressed through y.

    linear      y = v                      dy/dv = 1
    relu        y = max(v, 0)              dy/dv = [y > 0]                 (0 at v = 0)
    leaky_relu  y = v > 0 ? v : slope·v    dy/dv = y > 0 ? 1 : slope       (slope at v = 0)
    tanh        y = tanh v                 dy/dv = 1 − y²
    sigmoid     y = 1 / (1 + e^−v)         dy/dv = y (1 − y)

with v = x + b. Because the derivative needs y alone, x need not be kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan.kernels.dispatch import kernel
from minigan.kernels.jit import CHUNK, loops, prange

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
def bias_act(x: Any, b: Any, *, activation: str, slope: float) -> Any:
    """Return act(x + b): x (..., C), b (C,) or None; same shape and dtype as x."""
    check_activation(activation, slope)
    v = x if b is None else x + b
    if activation == "linear":
        return v.copy() if b is None else v
    if activation == "tanh":
        return np.tanh(v)
    if activation == "sigmoid":
        return sigmoid(v)
    below = slope * v if activation == "leaky_relu" and slope != 0 else np.where(np.isnan(v), v, 0)
    return np.where(v > 0, v, below).astype(x.dtype, copy=False)


@kernel
def bias_act_grad(g: Any, y: Any, *, activation: str, slope: float) -> Any:
    """Return g · dy/dv, with g and y (...) of one shape: the gradient with respect to x (and, summed, to b)."""
    check_activation(activation, slope)
    if activation == "linear":
        return g.copy()
    if activation == "tanh":
        return g * (1 - y * y)
    if activation == "sigmoid":
        return g * (y * (1 - y))
    return np.where(y > 0, g, g * slope if activation == "leaky_relu" and slope != 0 else 0).astype(g.dtype, copy=False)


@bias_act.numba
def _bias_act(x: Any, b: Any, *, activation: str, slope: float) -> Any:
    check_activation(activation, slope)
    y = np.empty_like(x, order="C", subok=False)
    bias_act_into(x, b, y, activation, slope)
    return y


def bias_act_into(x: Any, b: Any, y: Any, activation: str, slope: float) -> None:
    """Write act(x + b) into the C-contiguous y, which may be x itself."""
    if activation in ("tanh", "sigmoid"):
        v = x if b is None else np.add(x, b, out=y)
        if activation == "tanh":
            np.tanh(v, out=y)
        else:
            y[...] = sigmoid(v)
        return
    channels = x.shape[-1] if x.ndim and b is not None else 1
    bias = np.zeros(1, x.dtype) if b is None else np.ascontiguousarray(b)
    kind = 0 if activation == "linear" else 1 if activation == "leaky_relu" and slope != 0 else 2
    flat = np.ascontiguousarray(x).reshape(-1)
    _bias_act_loops(flat, bias, channels, kind, x.dtype.type(slope), y.reshape(-1), work=flat.size)


@loops
def _bias_act_loops(x, b, channels, kind, slope, y):
    rows = max(1, CHUNK // max(1, channels))
    size = x.size
    step = rows * channels if b.size == channels and channels > 1 else CHUNK
    for chunk in prange((size + step - 1) // step):
        low = chunk * step
        high = min(size, low + step)
        if kind == 0:
            for start in range(low, high, channels):
                for c in range(channels):
                    y[start + c] = x[start + c] + b[c]
        elif kind == 1:
            for start in range(low, high, channels):
                for c in range(channels):
                    v = x[start + c] + b[c]
                    y[start + c] = v if v > 0 else slope * v
        else:
            for start in range(low, high, channels):
                for c in range(channels):
                    v = x[start + c] + b[c]
                    y[start + c] = v if (v > 0 or v != v) else 0


@bias_act_grad.numba
def _bias_act_grad(g: Any, y: Any, *, activation: str, slope: float) -> Any:
    check_activation(activation, slope)
    if activation not in ("relu", "leaky_relu"):
        return bias_act_grad.implementations["reference"](g, y, activation=activation, slope=slope)
    out = np.empty_like(g, order="C", subok=False)
    below = g.dtype.type(slope if activation == "leaky_relu" else 0)
    flat_g, flat_y = np.ascontiguousarray(g).reshape(-1), np.ascontiguousarray(y).reshape(-1)
    _leaky_grad_loops(flat_g, flat_y, below, out.reshape(-1), work=out.size)
    return out


@loops
def _leaky_grad_loops(g, y, slope, out):
    for chunk in prange((g.size + CHUNK - 1) // CHUNK):
        for i in range(chunk * CHUNK, min(g.size, (chunk + 1) * CHUNK)):
            out[i] = g[i] if y[i] > 0 else (g[i] * slope if slope != 0 else 0)
