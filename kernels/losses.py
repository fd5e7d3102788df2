"""The mean of a pointwise loss over logits s, and its slope, in one pass. Stable at |s| = 1e4 and beyond.

    softplus        log(1 + e^s)        σ(s)            −log(1 − D) for D = σ(s)
    softplus_neg    log(1 + e^−s)      −σ(−s)           −log D
    square          s²/2                s
    square_to_one   (s − 1)²/2          s − 1
    hinge_fake      max(0, 1 + s)       [s > −1]
    hinge_real      max(0, 1 − s)      −[s < 1]
    linear          s                   1

σ(s) is never formed and then logged: in float32 that gives −inf from s ≈ 17. The slope is that of the mean: φ'(s)/n.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan.kernels.bias_act import sigmoid
from minigan.kernels.cpu.units import units
from minigan.kernels.dispatch import kernel
from minigan.kernels.gpu import launch as cuda

LOSSES = ("softplus", "softplus_neg", "square", "square_to_one", "hinge_fake", "hinge_real", "linear")

_FORMULAS: dict[str, Any] = {
    "softplus": lambda s: (np.maximum(s, 0) + np.log1p(np.exp(-np.abs(s))), sigmoid(s)),
    "softplus_neg": lambda s: (np.maximum(-s, 0) + np.log1p(np.exp(-np.abs(s))), -sigmoid(-s)),
    "square": lambda s: (s * s / 2, s),
    "square_to_one": lambda s: ((s - 1) ** 2 / 2, s - 1),
    "hinge_fake": lambda s: (np.maximum(1 + s, 0), np.where(s <= -1, 0, 1)),
    "hinge_real": lambda s: (np.maximum(1 - s, 0), np.where(s >= 1, 0, -1)),
    "linear": lambda s: (s, np.ones_like(s)),
}


@kernel
def mean_loss(s: Any, *, loss: str) -> Any:
    """Return (mean φ(s), φ'(s)/n): a 0-d array and one of the shape of s (any shape, n entries)."""
    value, slope = _FORMULAS[loss](s)
    return np.asarray(value.mean(dtype=np.float64).astype(s.dtype)), (slope / s.size).astype(s.dtype)


@mean_loss.check
def _check(s: Any, *, loss: str) -> None:
    if loss not in LOSSES:
        raise ValueError(f"unknown loss {loss!r}: choose from {', '.join(LOSSES)}")
    if s.size == 0:
        raise ValueError("the mean over no logits is not defined")


@mean_loss.numba
def _mean_loss(s: Any, *, loss: str) -> Any:
    value, slope = np.zeros(1, np.float64), np.empty(s.shape, s.dtype)
    _loss_units(1, np.ascontiguousarray(s).reshape(-1), LOSSES.index(loss), value, slope.reshape(-1), work=0)
    return value.astype(s.dtype).reshape(()), slope


@units
def _loss_units(unit, s, loss, value, slope):
    total = 0.0
    for i in range(s.size):  # logits are few: one a sample, so one thread adds them in order
        t = np.float64(s[i])
        if loss <= 1:
            v = t if loss == 0 else -t
            e = np.exp(-abs(v))
            p = 1 / (1 + e) if v >= 0 else e / (1 + e)
            total += max(v, 0.0) + np.log1p(e) if v == v else v
            d = p if loss == 0 else -p
        elif loss <= 3:
            d = t - (loss - 2)
            total += 0.5 * d * d
        elif loss <= 5:
            sign = 1.0 if loss == 4 else -1.0
            margin = 1 + sign * t
            total += margin if (margin > 0 or margin != margin) else 0.0
            d = 0.0 if margin <= 0 else sign
        else:
            total += t
            d = 1.0
        slope[i] = d / s.size
    value[0] = total / s.size


# --- CUDA -------------------------------------------------------------------------------------------------------------

_cu = cuda.Source("losses.cu")


@mean_loss.cuda
def _mean_loss_cuda(s: Any, *, loss: str) -> Any:
    xp = cuda.module_of(s)
    s = xp.ascontiguousarray(s)
    value, slope = xp.empty((), s.dtype), xp.empty_like(s)
    block = (1, cuda.COLUMN_THREADS)
    _cu.launch("mean_loss", s, value, slope, s.size, LOSSES.index(loss), grid=(1,), block=block)
    return value, slope
