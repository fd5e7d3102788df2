"""Layers for discriminators: noise and packing on the input, statistics of a batch, spectral norm.

A layer that reads a whole batch mixes its samples: a gradient penalty then sees the batch's mixture.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan import ops
from minigan.engine.device import device_of, to_device, to_numpy, xp
from minigan.engine.recorder import perform
from minigan.engine.tensor import Tensor, wrap
from minigan.nn.init import lecun
from minigan.nn.layers import LINEAR, Activation, Fusing, Weighted, require_room_for
from minigan.nn.module import Module
from minigan.nn.schedules import Schedule
from minigan.nn.sequential import can_fuse
from minigan.random import Generator, next_seed, shared

_init = shared("init", 1)  # as in layers.py: layers made one after the other differ


class InstanceNoise(Module):
    """In training, add N(0, σ²) to every entry: real and generated samples then overlap (1610.04490).

    ``sigma`` is a number or a :class:`Schedule` that anneals it. The noise comes from a stream whose counter is a
    buffer: a resumed run draws the same noise. Without a ``seed`` every layer gets a different one.
    """

    buffer_names = ("draws", "seed")

    def __init__(self, sigma: float | Schedule, seed: int | None = None) -> None:
        self.sigma = sigma if isinstance(sigma, Schedule) else Schedule(sigma)
        if min(self.sigma.start, self.sigma.end) < 0:
            raise ValueError(f"InstanceNoise: sigma must be >= 0, not {sigma}")
        self.seed = np.array(next_seed("noise") if seed is None else seed, np.uint64)
        self.draws = np.zeros((), np.int64)

    def forward(self, x: Tensor) -> Tensor:
        """Blur x."""
        return x + perform(self._noise, x.shape, x.dtype, x.device) if self.training else x

    def _noise(self, shape: tuple[int, ...], dtype: Any, device: str) -> Any:
        generator = Generator(int(self.seed), stream="augmentation", step=int(self.draws), device=device)
        self.draws = self.draws + 1
        return generator.normal(shape, dtype=dtype).data * np.dtype(dtype).type(self.sigma.value)

    def __repr__(self) -> str:
        return f"InstanceNoise({self.sigma.value:g})"


class Pack(Module):
    """PacGAN: join ``m`` consecutive samples along their last axis, so that D judges them together.

    (N, ..., C) to (N/m, ..., m·C): one logit for m samples, which shows a lack of variety (1712.04086). ValueError
    if N is not a multiple of m.
    """

    def __init__(self, m: int) -> None:
        if m < 1:
            raise ValueError(f"Pack: m must be at least 1, not {m}")
        self.m = m

    def forward(self, x: Tensor) -> Tensor:
        """Join the samples."""
        if x.shape[0] % self.m:
            raise ValueError(f"Pack: a batch of {x.shape[0]} cannot be cut into packs of {self.m}")
        parts = ops.reshape(x, (x.shape[0] // self.m, self.m, *x.shape[1:]))
        axes = (0, *range(2, x.ndim), 1, x.ndim)
        return ops.reshape(ops.transpose(parts, axes), (x.shape[0] // self.m, *x.shape[1:-1], self.m * x.shape[-1]))

    def __repr__(self) -> str:
        return f"Pack({self.m})"


class MinibatchStddev(Module):
    """Append one channel with the standard deviation of every feature over the batch, averaged (1710.10196).

    (N, ..., C) to (N, ..., C + 1). The deviation is the batch's (not the unbiased one), with 1e-8 under the root.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Append the channel."""
        spread = ops.mean(ops.sqrt(ops.var(x, axis=0) + 1e-8))
        return ops.concat([x, ops.broadcast_to(spread, (*x.shape[:-1], 1))], axis=-1)

    def __repr__(self) -> str:
        return "MinibatchStddev()"


class MinibatchDiscrimination(Module):
    """Append to every sample its closeness to the others of its batch (1606.03498, section 3.2).

    x (N, n_in) to (N, n_in + kernels): with M = x·w, w (n_in, kernels·dims), the feature of sample i and kernel b is
    Σ_{j ≠ i} exp(−‖M_ib − M_jb‖₁).
    """

    b = None

    def __init__(self, n_in: int, kernels: int = 16, dims: int = 5) -> None:
        if min(n_in, kernels, dims) < 1:
            raise ValueError(f"MinibatchDiscrimination: sizes must be positive, not {n_in}, {kernels}, {dims}")
        self.kernels, self.dims = kernels, dims
        self.fans = n_in, kernels * dims
        require_room_for(self.fans)
        self.w = wrap(lecun(_init, self.fans, *self.fans), requires_grad=True)

    def forward(self, x: Tensor) -> Tensor:
        """Append the features."""
        count = x.shape[0]
        m = ops.reshape(ops.matmul(x, self.w), (count, self.kernels, self.dims))
        gaps = ops.reshape(m, (count, 1, self.kernels, self.dims)) - ops.reshape(m, (1, count, self.kernels, self.dims))
        close = ops.exp(-ops.sum(ops.abs(gaps), axis=3))
        return ops.concat([x, ops.sum(close, axis=1) - 1.0], axis=1)  # without the sample itself, at distance 0

    def __repr__(self) -> str:
        return f"MinibatchDiscrimination({self.w.shape[0]}, {self.kernels}, {self.dims})"


class SpectralNorm(Fusing):
    """A layer whose weight is divided by its largest singular value (1802.05957); a Dense one is 1-Lipschitz then.

    The weight counts as a matrix (the product of its other axes, its last one). σ = vᵀWu: v and u start from the
    singular vectors of the first weight, and follow the weight by one power iteration for each call in training; no
    gradient flows through them. So σ's gradient is exact once they have converged, and second derivatives treat them as
    constants. Call ``restart()`` after setting the weight by hand.

    ``exact``: σ from the eigenvectors of WᵀW instead, exact to the third derivative; slower, and on the CPU only.
    """

    buffer_names = ("u",)

    def __init__(self, layer: Weighted, exact: bool = False) -> None:
        if not isinstance(layer, Weighted):
            raise TypeError(f"SpectralNorm: needs a layer with weights, not {type(layer).__name__}")
        self.layer = layer
        self.exact = exact
        self.restart()

    def _first_right_vector(self) -> Any:
        """Return the right singular vector (columns,) of the largest singular value."""
        w = to_numpy(self.layer.w.data).astype(np.float64)
        matrix = w.reshape(-1, w.shape[-1])
        wide = matrix.shape[0] < matrix.shape[1]
        _, vectors = np.linalg.eigh(matrix @ matrix.T if wide else matrix.T @ matrix)
        u = matrix.T @ vectors[:, -1] if wide else vectors[:, -1]
        u = u if u.any() else np.ones(u.shape)  # all directions are equal to a zero weight
        return (u / np.linalg.norm(u)).astype(np.float32)

    def restart(self) -> None:
        """Take u from the weight as it is now."""
        self.u = self._first_right_vector()

    def fuses(self, activation: Activation) -> bool:
        """Return whether the wrapped layer fuses this activation."""
        return can_fuse(self.layer, activation)

    def forward(self, x: Tensor, activation: Activation = LINEAR) -> Tensor:
        """Apply the layer with its weight divided by σ."""
        w = self.layer.w
        matrix = ops.reshape(w, (w.size // w.shape[-1], w.shape[-1]))
        sigma = self._largest(matrix) if self.exact else self._estimate(matrix)
        others = [p for p in self.layer.named_parameters().values() if p is not w]
        layer = self.layer.with_parameters([w / sigma, *others])
        return layer(x) if activation is LINEAR else layer(x, activation)

    def _estimate(self, matrix: Tensor) -> Tensor:
        left, right = perform(self._iterate, matrix.data)
        return ops.sum(ops.matmul(left, matrix) * right)

    def _largest(self, matrix: Tensor) -> Tensor:
        """Return ‖Wu‖/‖u‖ with u the first eigenvector of WᵀW, which follows W.

        u moves by (λ₁ − WᵀW)⁺ d(WᵀW) u, to first order. σ is stationary in u, so the missing second-order terms
        change it in the fourth order.
        """
        if device_of(matrix.data) != "cpu":
            raise ValueError(f"SpectralNorm: exact singular values need device cpu, not {matrix.device}")
        first, resolvent = perform(self._eigenvectors, matrix.data)
        pushed = ops.matmul(ops.transpose(matrix), ops.matmul(matrix, first))
        u = first + ops.matmul(resolvent, pushed)
        return ops.sqrt(ops.sum(ops.square(ops.matmul(matrix, u))) / ops.sum(ops.square(u)))

    def _eigenvectors(self, matrix: Any) -> tuple[Any, Any]:
        """Return u (columns, 1) and (λ₁ − WᵀW)⁺ (columns, columns)."""
        weight = matrix.astype(np.float64)  # float32 would lose the gaps, which are differences
        values, vectors = np.linalg.eigh(weight.T @ weight)
        gaps = values[-1] - values[:-1]
        apart = gaps > 1e-12 * values[-1]
        others = vectors[:, :-1][:, apart]
        resolvent = ((others / gaps[apart]) @ others.T).astype(matrix.dtype)
        return vectors[:, -1:].astype(matrix.dtype), resolvent

    def _iterate(self, matrix: Any) -> tuple[Any, Any]:
        """Return the estimated singular vectors (1, rows) and (1, columns); in training, iterate once."""
        array = xp(matrix)
        u = to_device(self.u, device_of(matrix)).astype(matrix.dtype)
        v = matrix @ u
        v = v / (array.sqrt((v * v).sum()) + 1e-12)
        if self.training:
            u = matrix.T @ v
            u = u / (array.sqrt((u * u).sum()) + 1e-12)
            self.u = u
        return v[None], u[None]

    def __repr__(self) -> str:
        return f"SpectralNorm({self.layer!r})"
