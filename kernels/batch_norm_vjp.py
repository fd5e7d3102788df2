"""The derivative of batch normalisation's gradient, which gradient penalties ask for.

With the names of batch_norm.py: P is its own adjoint, and a cotangent u of dx = γ r P g leads to

    dg = γ r P u     dγ = Σ r u P g     dx = −γ r² (mean(g x̂) P u + mean(u x̂) P g + x̂ · mean(u P g))
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan.kernels.batch_norm import ROWS, act_grad, as_rows, check_channels, check_settings, code, partial_sums
from minigan.kernels.bias_act import ACTIVATIONS, check_alike, leaky_slope
from minigan.kernels.cpu.units import units
from minigan.kernels.dispatch import kernel
from minigan.kernels.gpu import launch as cuda


@kernel
def batch_norm_grad_vjp(
    u: Any, g: Any, x: Any, y: Any, gamma: Any, *, mean: Any, var: Any, eps: float, activation: str, slope: float
) -> Any:
    """Return the cotangents (dg, dx, dγ) of batch_norm_grad's arguments for the cotangent u of its dx alone."""
    inner = act_grad(g, y, activation, slope)
    axes = tuple(range(x.ndim - 1))
    r = 1 / np.sqrt(var + x.dtype.type(eps))
    xhat = (x - mean) * r

    def average(a: Any) -> Any:
        return a.mean(axes, dtype=np.float64)

    def project(a: Any) -> Any:
        return a - average(a) - xhat * average(a * xhat)

    pu, pg = project(u), project(inner)
    dx = -gamma * r * r * (average(inner * xhat) * pu + average(u * xhat) * pg + xhat * average(u * pg))
    dgamma = np.sum(r * u * pg, axes)
    dg = act_grad((gamma * r * pu).astype(x.dtype), y, activation, slope)
    return dg, dx.astype(x.dtype), dgamma.astype(x.dtype)


@batch_norm_grad_vjp.check
def _check(
    u: Any, g: Any, x: Any, y: Any, gamma: Any, *, mean: Any, var: Any, eps: float, activation: str, slope: float
) -> None:
    check_settings(eps, activation, slope)
    check_channels(x, gamma=gamma, mean=mean, var=var)
    check_alike("x", x, u=u, g=g, y=y)


@batch_norm_grad_vjp.numba
def _batch_norm_grad_vjp(
    u: Any, g: Any, x: Any, y: Any, gamma: Any, *, mean: Any, var: Any, eps: float, activation: str, slope: float
) -> Any:
    flat_u, flat_g, flat_x, flat_y = map(as_rows, (u, g, x, y))
    mean = np.ascontiguousarray(mean)
    below = leaky_slope(x.dtype, activation, slope)
    r = 1 / np.sqrt(var + x.dtype.type(eps))
    sums = partial_sums(5, flat_x)
    _vjp_sum_units(sums.shape[1], flat_u, flat_g, flat_x, flat_y, below, mean, r, sums, work=x.size)
    mean_u, mean_g, mean_ux, mean_gx, mean_ug = sums.sum(1, dtype=np.float64) / len(flat_x)
    along = mean_ug - mean_u * mean_g - mean_ux * mean_gx  # mean(u P g)
    dg, dx = np.empty(x.shape, x.dtype), np.empty(x.shape, x.dtype)
    numbers = np.stack([mean, r, mean_u, mean_g, mean_ux, mean_gx, along, gamma]).astype(x.dtype)
    shape = flat_x.shape
    _vjp_units(
        sums.shape[1], flat_u, flat_g, flat_x, flat_y, below, numbers, dg.reshape(shape), dx.reshape(shape), work=x.size
    )
    return dg, dx, (r * along * len(flat_x)).astype(x.dtype)


@units
def _vjp_sum_units(chunk, u, g, x, y, slope, mean, r, sums):
    one = x.dtype.type(1)
    sum_u, sum_g, sum_ux = sums[0, chunk], sums[1, chunk], sums[2, chunk]
    sum_gx, sum_ug = sums[3, chunk], sums[4, chunk]
    for row in range(chunk * ROWS, min(x.shape[0], (chunk + 1) * ROWS)):
        du, dy, values, sign = u[row], g[row], x[row], y[row]
        for c in range(values.size):
            d = dy[c] * (one if sign[c] > 0 else slope)
            xhat = (values[c] - mean[c]) * r[c]
            sum_u[c] += du[c]
            sum_g[c] += d
            sum_ux[c] += du[c] * xhat
            sum_gx[c] += d * xhat
            sum_ug[c] += du[c] * d


@units
def _vjp_units(chunk, u, g, x, y, slope, numbers, dg, dx):
    one = x.dtype.type(1)
    mean, r, mean_u, mean_g = numbers[0], numbers[1], numbers[2], numbers[3]
    mean_ux, mean_gx, along, gamma = numbers[4], numbers[5], numbers[6], numbers[7]
    for row in range(chunk * ROWS, min(x.shape[0], (chunk + 1) * ROWS)):
        du, dy, values, sign, out_g, out_x = u[row], g[row], x[row], y[row], dg[row], dx[row]
        for c in range(values.size):
            passed = one if sign[c] > 0 else slope
            xhat = (values[c] - mean[c]) * r[c]
            pu = du[c] - mean_u[c] - xhat * mean_ux[c]
            pg = dy[c] * passed - mean_g[c] - xhat * mean_gx[c]
            scale = gamma[c] * r[c]
            out_g[c] = scale * pu * passed
            out_x[c] = -scale * r[c] * (mean_gx[c] * pu + mean_ux[c] * pg + xhat * along[c])


# --- CUDA -------------------------------------------------------------------------------------------------------------


@batch_norm_grad_vjp.cuda
def _batch_norm_grad_vjp_cuda(
    u: Any, g: Any, x: Any, y: Any, gamma: Any, *, mean: Any, var: Any, eps: float, activation: str, slope: float
) -> Any:
    xp = cuda.module_of(x)
    u, g, x, y, gamma, mean = map(xp.ascontiguousarray, (u, g, x, y, gamma, mean))
    width = x.shape[-1]
    rows, act = x.size // width, (ACTIVATIONS.index(activation), slope)
    r = 1 / xp.sqrt(var + x.dtype.type(eps))
    dg, dx = xp.empty_like(x), xp.empty_like(x)
    means, dgamma = xp.empty((5, width), x.dtype), xp.empty(width, x.dtype)
    partial = code.sum_columns("vjp_sums", 5, rows, width, u, g, x, y, mean, r, settings=act)
    code.launch("finish_vjp", partial, r, means, dgamma, rows, partial.shape[1], width, work=width)
    code.launch("vjp", u, g, x, y, mean, r, gamma, means, dg, dx, x.size, width, *act, work=x.size)
    return dg, dx, dgamma
