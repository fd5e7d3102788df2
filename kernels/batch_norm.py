"""Batch normalisation over all axes but the last (1502.03167), forward and backward.

    μ_c = mean x,  v_c = mean (x − μ)²,  r = 1/√(v + ε),  x̂ = (x − μ) r,  y = γ x̂ + β

    dβ = Σ g     dγ = Σ g x̂     dx = γ r (g − mean g − x̂ · mean(g x̂))

x (..., C), γ β μ v (C,). The sums run in float64 over chunks of rows of a constant size, added in order: the result
does not depend on the number of threads. The mean is taken first and the squares about it, so that no digits cancel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan.kernels.dispatch import kernel
from minigan.kernels.jit import loops, prange

ROWS = 256  # rows of one partial sum


@kernel
def batch_norm(x: Any, gamma: Any, beta: Any, *, eps: float) -> Any:
    """Return (y, μ, v): y (..., C) normalised, and the batch's mean and biased variance (C,)."""
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes, dtype=np.float64)
    var = np.square(x - mean).mean(axes)
    y = gamma * ((x - mean) / np.sqrt(var + eps)) + beta
    return y.astype(x.dtype), mean.astype(x.dtype), var.astype(x.dtype)


@kernel
def batch_norm_grad(g: Any, x: Any, gamma: Any, *, mean: Any, var: Any, eps: float) -> Any:
    """Return (dx, dγ, dβ) for the cotangent g of y, given the mean and variance that batch_norm returned."""
    axes = tuple(range(x.ndim - 1))
    rows = x.size // x.shape[-1]
    r = 1 / np.sqrt(var + x.dtype.type(eps))
    xhat = (x - mean) * r
    dbeta = g.sum(axes, dtype=np.float64).astype(x.dtype)
    dgamma = np.sum(g * xhat, axes, dtype=np.float64).astype(x.dtype)
    dx = gamma * r * (g - dbeta / rows - xhat * (dgamma / rows))
    return dx.astype(x.dtype), dgamma, dbeta


def _rows(x: Any) -> Any:
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])


def _partial_sums(x: Any) -> Any:
    return np.zeros((2, (x.shape[0] + ROWS - 1) // ROWS, x.shape[1]), np.float64)


@batch_norm.numba
def _batch_norm(x: Any, gamma: Any, beta: Any, *, eps: float) -> Any:
    flat = _rows(x)
    sums = _partial_sums(flat)
    _sum_loops(flat, sums[0], work=x.size)
    mean = sums[0].sum(0) / flat.shape[0]
    _square_loops(flat, mean, sums[1], work=x.size)
    var = sums[1].sum(0) / flat.shape[0]
    scale = gamma / np.sqrt(var + eps)
    shift = beta - mean * scale
    y = np.empty(x.shape, x.dtype)
    _scale_loops(flat, scale, shift, y.reshape(flat.shape), work=x.size)
    return y, mean.astype(x.dtype), var.astype(x.dtype)


@batch_norm_grad.numba
def _batch_norm_grad(g: Any, x: Any, gamma: Any, *, mean: Any, var: Any, eps: float) -> Any:
    flat_g, flat_x = _rows(g), _rows(x)
    r = 1 / np.sqrt(var + x.dtype.type(eps))
    sums = _partial_sums(flat_x)
    _grad_sum_loops(flat_g, flat_x, mean, r, sums[0], sums[1], work=x.size)
    dgamma, dbeta = sums.sum(1).astype(x.dtype)
    dx = np.empty(x.shape, x.dtype)
    rows = x.dtype.type(flat_x.shape[0])
    _grad_loops(flat_g, flat_x, mean, r, gamma * r, dgamma / rows, dbeta / rows, dx.reshape(flat_x.shape), work=x.size)
    return dx, dgamma, dbeta


@loops
def _sum_loops(x, total):
    for chunk in prange(total.shape[0]):
        sums = total[chunk]
        for row in range(chunk * ROWS, min(x.shape[0], (chunk + 1) * ROWS)):
            values = x[row]
            for c in range(values.size):
                sums[c] += values[c]


@loops
def _square_loops(x, mean, total):
    for chunk in prange(total.shape[0]):
        sums = total[chunk]
        for row in range(chunk * ROWS, min(x.shape[0], (chunk + 1) * ROWS)):
            values = x[row]
            for c in range(values.size):
                d = values[c] - mean[c]
                sums[c] += d * d


@loops
def _scale_loops(x, scale, shift, y):
    for chunk in prange((x.shape[0] + ROWS - 1) // ROWS):
        for row in range(chunk * ROWS, min(x.shape[0], (chunk + 1) * ROWS)):
            values, out = x[row], y[row]
            for c in range(values.size):
                out[c] = values[c] * scale[c] + shift[c]


@loops
def _grad_sum_loops(g, x, mean, r, dgamma, dbeta):
    for chunk in prange(dgamma.shape[0]):
        sums, products = dbeta[chunk], dgamma[chunk]
        for row in range(chunk * ROWS, min(x.shape[0], (chunk + 1) * ROWS)):
            dy, values = g[row], x[row]
            for c in range(values.size):
                sums[c] += dy[c]
                products[c] += dy[c] * ((values[c] - mean[c]) * r[c])


@loops
def _grad_loops(g, x, mean, r, scale, dgamma, dbeta, dx):
    for chunk in prange((x.shape[0] + ROWS - 1) // ROWS):
        for row in range(chunk * ROWS, min(x.shape[0], (chunk + 1) * ROWS)):
            dy, values, out = g[row], x[row], dx[row]
            for c in range(values.size):
                xhat = (values[c] - mean[c]) * r[c]
                out[c] = scale[c] * (dy[c] - dbeta[c] - xhat * dgamma[c])
