"""One step of an optimiser, and of the moving average of what it optimises, in one pass over flat buffers.

    SGD      u ← μ u + (g + λ p)                             p ← p − lr u
    RMSProp  v ← α v + (1 − α) g²                            p ← p − lr g / (√v + ε)
    Adam     m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²  p ← p − lr m̂ / (√v̂ + ε),  m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ)
    average  e ← e + (1 − decay)(p − e)                      skipped when e is empty

Every array is one-dimensional, contiguous and of one dtype, and changed in place; g is only read.
Sources: RMSProp, Tieleman and Hinton 2012; Adam 1412.6980.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigan.kernels.cpu.units import CHUNK, units
from minigan.kernels.dispatch import kernel, writable
from minigan.kernels.gpu import launch as cuda

LANES = 256


def _average(p: Any, ema: Any, decay: float) -> None:
    if ema.size:
        ema += (1 - decay) * (p - ema)


@kernel
def sgd_(p: Any, g: Any, u: Any, ema: Any, *, lr: float, momentum: float, weight_decay: float, decay: float) -> None:
    """Step p against g with momentum buffer u (empty without momentum), and its average ema (or empty)."""
    d = g + weight_decay * p
    if u.size:
        u *= momentum
        u += d
        d = u
    p -= lr * d
    _average(p, ema, decay)


@kernel
def rmsprop_(p: Any, g: Any, v: Any, ema: Any, *, lr: float, alpha: float, eps: float, decay: float) -> None:
    """Step p against g scaled by its running root mean square √v, and its average ema (or empty)."""
    v *= alpha
    v += (1 - alpha) * g * g
    p -= lr * g / (np.sqrt(v) + eps)
    _average(p, ema, decay)


@kernel
def adam_(
    p: Any,
    g: Any,
    m: Any,
    v: Any,
    ema: Any,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
    decay: float,
) -> None:
    """Step p against g with moments m and v at step ``step`` (from 1), and its average ema (or empty)."""
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * g * g
    p -= lr / (1 - beta1**step) * m / (np.sqrt(v) / math.sqrt(1 - beta2**step) + eps)
    _average(p, ema, decay)


@kernel
def squared_norm(g: Any) -> float:
    """Return Σ g² of a flat array, summed in float64."""
    return float(np.square(g, dtype=np.float64).sum())


@squared_norm.check
def _check_norm(g: Any) -> None:
    if g.ndim != 1:
        raise ValueError(f"g must be 1-D, not {g.shape}")


def _check_flat(p: Any, **others: Any) -> None:
    """Raise ValueError unless the arrays are flat, as long as p (u and ema may be empty), and those but g writable."""
    for name, array in {"p": p, **others}.items():
        empty = name in ("u", "ema") and array.shape == (0,)
        if not empty and (array.ndim != 1 or array.shape != p.shape or not array.flags.c_contiguous):
            raise ValueError(f"{name} must be 1-D, contiguous and as long as p {p.shape}, not {array.shape}")
    writable(p=p, **{name: array for name, array in others.items() if name != "g"})


@sgd_.check
def _check_sgd(p: Any, g: Any, u: Any, ema: Any, **settings: Any) -> None:
    _check_flat(p, g=g, u=u, ema=ema)


@rmsprop_.check
def _check_rmsprop(p: Any, g: Any, v: Any, ema: Any, **settings: Any) -> None:
    _check_flat(p, g=g, v=v, ema=ema)


@adam_.check
def _check_adam(
    p: Any, g: Any, m: Any, v: Any, ema: Any, *, beta1: float, beta2: float, step: Any, **settings: Any
) -> None:
    _check_flat(p, g=g, m=m, v=v, ema=ema)
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ValueError(f"Adam's betas must be in [0, 1), not {beta1} and {beta2}")
    if isinstance(step, int) and step < 1:
        raise ValueError(f"Adam counts its steps from 1, not from {step}")


def _scalars(p: Any, *values: float) -> tuple[Any, ...]:
    return tuple(p.dtype.type(value) for value in values)


@squared_norm.numba
def _squared_norm(g: Any) -> float:
    sums = np.zeros((g.size + CHUNK - 1) // CHUNK, np.float64)
    _square_units(sums.size, np.ascontiguousarray(g), sums, work=g.size)
    return float(sums.sum())


@units
def _square_units(chunk, g, sums):
    part = g[chunk * CHUNK : (chunk + 1) * CHUNK]
    totals = np.zeros(LANES, np.float64)  # a sum for each lane: a loop of additions that need not wait for one another
    for at in range(0, part.size, LANES):
        entries = part[at : at + LANES]
        for lane in range(entries.size):
            totals[lane] += np.float64(entries[lane]) * np.float64(entries[lane])
    for lane in range(LANES):
        sums[chunk] += totals[lane]


@sgd_.numba
def _sgd_(p: Any, g: Any, u: Any, ema: Any, *, lr: float, momentum: float, weight_decay: float, decay: float) -> None:
    _sgd_units(-(-p.size // CHUNK), p, g, u, ema, *_scalars(p, lr, momentum, weight_decay, 1 - decay), work=p.size)


@rmsprop_.numba
def _rmsprop_(p: Any, g: Any, v: Any, ema: Any, *, lr: float, alpha: float, eps: float, decay: float) -> None:
    _rmsprop_units(-(-p.size // CHUNK), p, g, v, ema, *_scalars(p, lr, alpha, 1 - alpha, eps, 1 - decay), work=p.size)


@adam_.numba
def _adam_(
    p: Any,
    g: Any,
    m: Any,
    v: Any,
    ema: Any,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
    decay: float,
) -> None:
    rate, root = lr / (1 - beta1**step), math.sqrt(1 - beta2**step)
    scalars = _scalars(p, rate, root, beta1, 1 - beta1, beta2, 1 - beta2, eps, 1 - decay)
    _adam_units(-(-p.size // CHUNK), p, g, m, v, ema, *scalars, work=p.size)


# Each loop runs over a chunk's own slices from 0: so the compiler sees that no index can be negative, and vectorises.


@units
def _sgd_units(chunk, p, g, u, ema, lr, momentum, weight_decay, rate):
    part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
    w, d = p[part], g[part]
    if u.size:
        velocity = u[part]
        for i in range(w.size):
            velocity[i] = momentum * velocity[i] + (d[i] + weight_decay * w[i])
            w[i] -= lr * velocity[i]
    else:
        for i in range(w.size):
            w[i] -= lr * (d[i] + weight_decay * w[i])
    if ema.size:
        average = ema[part]
        for i in range(w.size):
            average[i] += rate * (w[i] - average[i])


@units
def _rmsprop_units(chunk, p, g, v, ema, lr, alpha, beta, eps, rate):
    part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
    w, d, square = p[part], g[part], v[part]
    for i in range(w.size):
        square[i] = alpha * square[i] + beta * d[i] * d[i]
        w[i] -= lr * d[i] / (np.sqrt(square[i]) + eps)
    if ema.size:
        average = ema[part]
        for i in range(w.size):
            average[i] += rate * (w[i] - average[i])


@units
def _adam_units(chunk, p, g, m, v, ema, lr, root, beta1, alpha1, beta2, alpha2, eps, rate):
    part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
    w, d, first, second = p[part], g[part], m[part], v[part]
    for i in range(w.size):
        first[i] = beta1 * first[i] + alpha1 * d[i]
        second[i] = beta2 * second[i] + alpha2 * d[i] * d[i]
        w[i] -= lr * first[i] / (np.sqrt(second[i]) / root + eps)
    if ema.size:
        average = ema[part]
        for i in range(w.size):
            average[i] += rate * (w[i] - average[i])


# --- CUDA -------------------------------------------------------------------------------------------------------------

_cu = cuda.Source("optimisers.cu")


def _on_device(xp: Any, value: Any, dtype: Any) -> Any:
    """Return a number as a device array of one entry; an array that is there already is read when the kernel runs."""
    return value if isinstance(value, xp.ndarray) else xp.asarray(np.full(1, value, dtype))


def _array_or(p: Any, array: Any) -> tuple[Any, bool]:
    """Return an array that may be left out (empty) as a pointer, and whether it is there."""
    return (array, True) if array.size else (p, False)


@sgd_.cuda
def _sgd_cuda(
    p: Any, g: Any, u: Any, ema: Any, *, lr: float, momentum: float, weight_decay: float, decay: float
) -> None:
    rate = _on_device(cuda.module_of(p), lr, np.float64)
    (u, with_u), (ema, with_ema) = _array_or(p, u), _array_or(p, ema)
    _cu.launch(
        "sgd", p, g, u, ema, p.size, rate, momentum, weight_decay, decay, with_u, with_ema, work=p.size
    )  # fmt: skip


@rmsprop_.cuda
def _rmsprop_cuda(p: Any, g: Any, v: Any, ema: Any, *, lr: float, alpha: float, eps: float, decay: float) -> None:
    rate = _on_device(cuda.module_of(p), lr, np.float64)
    ema, with_ema = _array_or(p, ema)
    _cu.launch("rmsprop", p, g, v, ema, p.size, rate, alpha, eps, decay, with_ema, work=p.size)


@adam_.cuda
def _adam_cuda(
    p: Any,
    g: Any,
    m: Any,
    v: Any,
    ema: Any,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
    decay: float,
) -> None:
    xp = cuda.module_of(p)
    rate, number = _on_device(xp, lr, np.float64), _on_device(xp, step, np.uint64)
    ema, with_ema = _array_or(p, ema)
    _cu.launch("adam", p, g, m, v, ema, p.size, rate, number, beta1, beta2, eps, decay, with_ema, work=p.size)


@squared_norm.cuda
def _squared_norm_cuda(g: Any) -> float:
    xp = cuda.module_of(g)
    total = xp.empty(1, np.float64)
    partial = _cu.sum_columns("squares", 1, g.size, 1, xp.ascontiguousarray(g))
    _cu.launch("add_squares", partial, total, partial.shape[1], grid=(1,), block=(1,))
    return float(total[0])
