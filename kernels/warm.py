"""Compile every kernel that training calls, by calling it: those first that a training step calls last.

Two processes that begin at the two ends of this list (see kernels/cpu/jit.py) share the wait of the very first step.
"""

from __future__ import annotations

import numpy as np

import minigan.kernels as kernels


def compile_kernels(dtype: str = "float32") -> None:
    """Call the kernels on a few numbers of a dtype, and leave their machine code in the cache on disk."""
    f, pairs = np.dtype(dtype), {"stride": (2, 2), "padding": (1, 1)}
    leaky = {"activation": "leaky_relu", "slope": 0.2}
    images, maps = np.ones((1, 4, 4, 16), f), np.ones((1, 2, 2, 16), f)
    thin, many = np.ones((1, 4, 4, 3), f), np.ones((4, 4, 16, 16), f)
    few = many[:, :, :3].copy()
    rows, square, p = np.ones((16, 16), f), np.ones((16, 16), f), np.ones(16, f)
    whole = {"output_padding": (0, 0), **pairs}

    kernels.adam_(p, p, p.copy(), p.copy(), p.copy(), lr=1.0, beta1=0.5, beta2=0.5, eps=1.0, step=1, decay=0.5)
    kernels.squared_norm(p)
    kernels.sum_axes(np.ones((512, 16), f), axes=(0,), keepdims=False)
    kernels.sum_axes(np.ones((2, 4096), f), axes=(1,), keepdims=False)
    y, mean, var = kernels.batch_norm(images, p, p, eps=1.0, **leaky)
    kernels.batch_norm_grad(y, images, y, p, mean=mean, var=var, eps=1.0, **leaky)
    kernels.conv2d_weight_grad(images, maps, kernel=(4, 4), **pairs)
    kernels.conv2d_weight_grad(thin, maps, kernel=(4, 4), **pairs)
    kernels.bias_act_sums(rows, rows, **leaky)
    kernels.bias_act_grad(rows, rows, **leaky)
    kernels.mean_loss(p, loss="softplus")
    kernels.matmul(rows, square[:, :1])
    kernels.conv2d(images, many, p, **pairs, **leaky)
    kernels.conv2d(thin, few, p, **pairs, **leaky)
    kernels.conv2d_transpose(maps, few, **whole)
    kernels.conv2d_transpose(maps, many, **whole)
    kernels.bias_act(rows, p, **leaky)
    kernels.matmul(rows, square)
    kernels.philox_normal_(rows, seed=0, stream=0, step=0)
    kernels.philox_bits_(np.ones(4, np.uint32), seed=0, stream=0, step=0)
