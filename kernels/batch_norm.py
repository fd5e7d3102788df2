"""Batch normalisation over all axes but the last (1502.03167), with the activation that follows it, and its gradients.

    μ_c = mean x,  v_c = mean (x − μ)²,  r = 1/√(v + ε),  x̂ = (x − μ) r,  y = act(γ x̂ + β)

With g the cotangent of y times act' (0, 1 or the slope, by the sign of y) and P a = a − mean a − x̂ · mean(a x̂), which
takes out of a what lies along 1 and x̂,

    dβ = Σ g     dγ = Σ g x̂     dx = γ r P g

whose own derivative is in batch_norm_vjp.py. x (..., C), γ β μ v (C,).

Sums run over chunks of rows of a constant size, in the dtype of x within a chunk and in float64 beyond, added in order:
the result does not depend on the number of threads. Moments are taken about each chunk's own mean, so that no digits
cancel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan.kernels.bias_act import ACTIVATIONS, bias_act, bias_act_grad, check_activation, check_alike, leaky_slope
from minigan.kernels.cpu.units import units
from minigan.kernels.dispatch import kernel
from minigan.kernels.gpu import launch as cuda

ROWS = 64  # rows of one partial sum


def check_settings(eps: float, activation: str, slope: float) -> None:
    """Raise ValueError unless ε can be added to a variance, and the activation's derivative follows from y's sign."""
    check_activation(activation, slope)
    if activation not in ("linear", "relu", "leaky_relu"):
        raise ValueError(f"batch norm is fused with linear, relu and leaky_relu, not {activation}")
    if not eps >= 0:
        raise ValueError(f"eps must be >= 0, not {eps}")


def check_channels(x: Any, **others: Any) -> None:
    """Raise ValueError unless x is (..., C) with a row or more, and every other array has an entry for each channel."""
    if x.ndim < 2 or any(other.shape != x.shape[-1:] for other in others.values()):
        names = " and ".join([", ".join(list(others)[:-1]), list(others)[-1]])
        raise ValueError(f"x must be (..., C) with at least 2 axes, {names} {x.shape[-1:] or '(C,)'}")
    if not x.size:
        raise ValueError("the batch is empty: batch norm needs at least one row")


@kernel
def batch_norm(x: Any, gamma: Any, beta: Any, *, eps: float, activation: str = "linear", slope: float = 0.0) -> Any:
    """Return (y, μ, v): y (..., C) normalised and activated, and the batch's mean and biased variance (C,).

    Raises ValueError for an activation that is not piecewise linear. Source: 1502.03167.
    """
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes, dtype=np.float64)
    var = np.square(x - mean).mean(axes)
    y = (gamma * ((x - mean) / np.sqrt(var + eps)) + beta).astype(x.dtype)
    y = bias_act.implementations["reference"](y, None, activation=activation, slope=slope)
    return y, mean.astype(x.dtype), var.astype(x.dtype)


@batch_norm.check
def _check_batch_norm(
    x: Any, gamma: Any, beta: Any, *, eps: float, activation: str = "linear", slope: float = 0.0
) -> None:
    check_settings(eps, activation, slope)
    check_channels(x, gamma=gamma, beta=beta)


def act_grad(g: Any, y: Any, activation: str, slope: float) -> Any:
    """Return g · dy/dv, by the reference."""
    return bias_act_grad.implementations["reference"](g, y, activation=activation, slope=slope)


@kernel
def batch_norm_grad(
    g: Any, x: Any, y: Any, gamma: Any, *, mean: Any, var: Any, eps: float, activation: str, slope: float
) -> Any:
    """Return (dx, dγ, dβ) for the cotangent g of y; ``mean`` and ``var`` are those that batch_norm returned."""
    g = act_grad(g, y, activation, slope)
    axes = tuple(range(x.ndim - 1))
    rows = x.size // x.shape[-1]
    r = 1 / np.sqrt(var + x.dtype.type(eps))
    xhat = (x - mean) * r
    dbeta = g.sum(axes, dtype=np.float64).astype(x.dtype)
    dgamma = np.sum(g * xhat, axes, dtype=np.float64).astype(x.dtype)
    dx = gamma * r * (g - dbeta / rows - xhat * (dgamma / rows))
    return dx.astype(x.dtype), dgamma, dbeta


@batch_norm_grad.check
def _check_batch_norm_grad(
    g: Any, x: Any, y: Any, gamma: Any, *, mean: Any, var: Any, eps: float, activation: str, slope: float
) -> None:
    check_settings(eps, activation, slope)
    check_channels(x, gamma=gamma, mean=mean, var=var)
    check_alike("x", x, g=g, y=y)


def as_rows(x: Any) -> Any:
    """Return x (..., C) as (N, C), contiguous."""
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])


def partial_sums(count: int, x: Any) -> Any:
    """Return zeros (count, chunks, C) for sums over the rows of x (N, C)."""
    return np.zeros((count, (x.shape[0] + ROWS - 1) // ROWS, x.shape[1]), x.dtype)


@batch_norm.numba
def _batch_norm(x: Any, gamma: Any, beta: Any, *, eps: float, activation: str = "linear", slope: float = 0.0) -> Any:
    flat = as_rows(x)
    sums = partial_sums(3, flat)
    _moments_units(sums.shape[1], flat, *sums, work=x.size)
    mean, var, scale, shift = np.empty((4, x.shape[-1]), x.dtype)
    _combine_units(1, *sums, len(flat), eps, *map(np.ascontiguousarray, (gamma, beta)), mean, var, scale, shift, work=0)
    y = np.empty(x.shape, x.dtype)
    below = leaky_slope(x.dtype, activation, slope)
    _scale_units(sums.shape[1], flat, scale, shift, below, y.reshape(flat.shape), work=x.size)
    return y, mean, var


@batch_norm_grad.numba
def _batch_norm_grad(
    g: Any, x: Any, y: Any, gamma: Any, *, mean: Any, var: Any, eps: float, activation: str, slope: float
) -> Any:
    flat_g, flat_x, flat_y, mean = as_rows(g), as_rows(x), as_rows(y), np.ascontiguousarray(mean)
    below = leaky_slope(x.dtype, activation, slope)
    r = 1 / np.sqrt(var + x.dtype.type(eps))
    sums = partial_sums(2, flat_x)
    _grad_sum_units(sums.shape[1], flat_g, flat_x, flat_y, below, mean, r, sums[0], sums[1], work=x.size)
    dgamma, dbeta = sums.sum(1, dtype=np.float64).astype(x.dtype)
    dx = np.empty(x.shape, x.dtype)
    rows = x.dtype.type(flat_x.shape[0])
    scale, flat_dx = gamma * r, dx.reshape(flat_x.shape)
    _grad_units(
        sums.shape[1], flat_g, flat_x, flat_y, below, mean, r, scale, dgamma / rows, dbeta / rows, flat_dx, work=x.size
    )
    return dx, dgamma, dbeta


@units
def _moments_units(chunk, x, centres, rests, squares):
    """For each chunk about its mean, and the sums of x and its square about it: the mean's rounding is in the first."""
    centre, rest, square = centres[chunk], rests[chunk], squares[chunk]
    begin, end = chunk * ROWS, min(x.shape[0], (chunk + 1) * ROWS)
    for row in range(begin, end):
        values = x[row]
        for c in range(values.size):
            centre[c] += values[c]
    share = x.dtype.type(1) / x.dtype.type(end - begin)
    for c in range(centre.size):
        centre[c] *= share
    for row in range(begin, end):
        values = x[row]
        for c in range(values.size):
            d = values[c] - centre[c]
            rest[c] += d
            square[c] += d * d


@units
def _combine_units(unit, centres, rests, squares, rows, eps, gamma, beta, mean, var, scale, shift):
    """Put the chunks' moments together in float64, in order: the moments of all rows, and y = x · scale + shift."""
    sums, spreads = np.zeros(mean.size, np.float64), np.zeros(mean.size, np.float64)
    for chunk in range(centres.shape[0]):
        centre, rest, count = centres[chunk], rests[chunk], min(ROWS, rows - chunk * ROWS)
        for c in range(sums.size):
            sums[c] += count * np.float64(centre[c]) + np.float64(rest[c])
    for chunk in range(centres.shape[0]):
        centre, rest, square = centres[chunk], rests[chunk], squares[chunk]
        count = min(ROWS, rows - chunk * ROWS)
        for c in range(sums.size):
            left = np.float64(rest[c]) / count
            apart = np.float64(centre[c]) + left - sums[c] / rows
            spreads[c] += np.float64(square[c]) + count * (apart * apart - left * left)
    for c in range(sums.size):
        factor = np.float64(gamma[c]) / np.sqrt(spreads[c] / rows + eps)
        mean[c], var[c], scale[c] = sums[c] / rows, spreads[c] / rows, factor
        shift[c] = np.float64(beta[c]) - sums[c] / rows * factor


@units
def _scale_units(chunk, x, scale, shift, slope, y):
    zero = x.dtype.type(0)
    for row in range(chunk * ROWS, min(x.shape[0], (chunk + 1) * ROWS)):
        values, out = x[row], y[row]
        if slope == 1:
            for c in range(values.size):
                out[c] = values[c] * scale[c] + shift[c]
        elif slope == 0:
            for c in range(values.size):
                v = values[c] * scale[c] + shift[c]
                out[c] = zero if v <= 0 else v
        else:
            for c in range(values.size):
                v = values[c] * scale[c] + shift[c]
                out[c] = v if v > 0 else slope * v


@units
def _grad_sum_units(chunk, g, x, y, slope, mean, r, dgamma, dbeta):
    one = x.dtype.type(1)
    sums, products = dbeta[chunk], dgamma[chunk]
    for row in range(chunk * ROWS, min(x.shape[0], (chunk + 1) * ROWS)):
        dy, values, sign = g[row], x[row], y[row]
        for c in range(values.size):
            d = dy[c] * (one if sign[c] > 0 else slope)
            sums[c] += d
            products[c] += d * ((values[c] - mean[c]) * r[c])


@units
def _grad_units(chunk, g, x, y, slope, mean, r, scale, dgamma, dbeta, dx):
    one = x.dtype.type(1)
    for row in range(chunk * ROWS, min(x.shape[0], (chunk + 1) * ROWS)):
        dy, values, sign, out = g[row], x[row], y[row], dx[row]
        for c in range(values.size):
            xhat = (values[c] - mean[c]) * r[c]
            out[c] = scale[c] * (dy[c] * (one if sign[c] > 0 else slope) - dbeta[c] - xhat * dgamma[c])


# --- CUDA -------------------------------------------------------------------------------------------------------------

code = cuda.Source("batch_norm.cu")


@batch_norm.cuda
def _batch_norm_cuda(
    x: Any, gamma: Any, beta: Any, *, eps: float, activation: str = "linear", slope: float = 0.0
) -> Any:
    xp = cuda.module_of(x)
    x, gamma, beta = map(xp.ascontiguousarray, (x, gamma, beta))
    width = x.shape[-1]
    rows = x.size // width
    y = xp.empty_like(x)
    mean, var, scale, shift = (xp.empty(width, x.dtype) for _ in range(4))
    partial = code.sum_columns("moments", 2, rows, width, x)
    counts = rows, partial.shape[1], width
    code.launch("finish_moments", partial, x, gamma, beta, mean, var, scale, shift, *counts, eps, work=width)
    code.launch("normalise", x, scale, shift, y, x.size, width, ACTIVATIONS.index(activation), slope, work=x.size)
    return y, mean, var


@batch_norm_grad.cuda
def _batch_norm_grad_cuda(
    g: Any, x: Any, y: Any, gamma: Any, *, mean: Any, var: Any, eps: float, activation: str, slope: float
) -> Any:
    xp = cuda.module_of(x)
    g, x, y, gamma, mean = map(xp.ascontiguousarray, (g, x, y, gamma, mean))
    width = x.shape[-1]
    rows, act = x.size // width, (ACTIVATIONS.index(activation), slope)
    r = 1 / xp.sqrt(var + x.dtype.type(eps))
    dx, dgamma, dbeta = xp.empty_like(x), xp.empty(width, x.dtype), xp.empty(width, x.dtype)
    partial = code.sum_columns("grad_sums", 2, rows, width, g, x, y, mean, r, settings=act)
    code.launch("finish_grad", partial, dgamma, dbeta, partial.shape[1], width, work=width)
    code.launch("input_grad", g, x, y, mean, r, gamma, dgamma, dbeta, dx, rows, width, *act, work=x.size)
    return dx, dgamma, dbeta
