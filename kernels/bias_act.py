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
    # the three others are one function: y = v > 0 ? v : slope·v with slope 1 for linear, and 0 for relu
    below = x.dtype.type({"linear": 1.0, "relu": 0.0}.get(activation, slope))
    x = np.ascontiguousarray(x)
    if b is None:
        _leaky_loops(x.reshape(-1), below, y.reshape(-1), work=x.size)
    else:
        rows = (-1, max(1, b.size))
        _bias_leaky_loops(x.reshape(rows), np.ascontiguousarray(b), below, y.reshape(rows), work=x.size)


@loops
def _leaky_loops(x, slope, y):
    zero = x.dtype.type(0)
    for chunk in prange((x.size + CHUNK - 1) // CHUNK):
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        v, out = x[part], y[part]
        if slope != 0:
            for i in range(v.size):
                out[i] = v[i] if v[i] > 0 else slope * v[i]
        else:
            for i in range(v.size):
                out[i] = zero if v[i] <= 0 else v[i]  # NaN stays NaN, and −inf gives 0


@loops
def _bias_leaky_loops(x, b, slope, y):
    zero = x.dtype.type(0)
    rows = max(1, CHUNK // b.size)
    for chunk in prange((x.shape[0] + rows - 1) // rows):
        for row in range(chunk * rows, min(x.shape[0], (chunk + 1) * rows)):
            v, out = x[row], y[row]
            if slope != 0:
                for c in range(v.size):
                    t = v[c] + b[c]
                    out[c] = t if t > 0 else slope * t
            else:
                for c in range(v.size):
                    t = v[c] + b[c]
                    out[c] = zero if t <= 0 else t


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
    zero = g.dtype.type(0)
    for chunk in prange((g.size + CHUNK - 1) // CHUNK):
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        dy, value, dv = g[part], y[part], out[part]
        if slope != 0:
            for i in range(dy.size):
                dv[i] = dy[i] if value[i] > 0 else slope * dy[i]
        else:
            for i in range(dy.size):
                dv[i] = dy[i] if value[i] > 0 else zero
