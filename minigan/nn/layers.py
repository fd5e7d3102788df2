"""The layers. Images are channels-last; weights start by the "lecun" scheme until :func:`initialise` changes them."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import numpy as np

from minigan import ops
from minigan.engine.recorder import perform
from minigan.engine.tensor import Tensor, wrap
from minigan.kernels.memory import require_memory
from minigan.kernels.settings import whole
from minigan.nn.init import lecun
from minigan.nn.module import Module
from minigan.ops.conv import Pair, pair
from minigan.random import Generator, next_seed, shared

_init = shared("init", 0)  # layers made one after the other differ; every process makes the same ones
LARGE = 1 << 26  # bytes from which a layer looks at the free memory


def _parameter(values: Any) -> Tensor:
    return wrap(np.ascontiguousarray(values, dtype=np.float32), requires_grad=True)


def _positive(layer: str, **counts: int) -> None:
    for name, count in counts.items():
        with suppress(TypeError):
            if whole(name, count) >= 1:
                continue
        raise ValueError(f"{layer}: {name} must be a positive integer, not {count!r}")


def require_room_for(shape: tuple[int, ...]) -> None:
    """Raise ValueError if weights of this shape, with their gradients, do not fit into the free memory."""
    size = 8 * math.prod(shape)
    if size > LARGE:
        require_memory(size, f"a layer with weights {shape} and their gradients", "make it smaller")


# --- activations ------------------------------------------------------------------------------------------------------


class Activation(Module):
    """A pointwise function; one with a fused ``kind`` is applied in the same pass as the bias before it."""

    kind = ""
    slope = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to every entry."""
        return ops.bias_act(x, None, activation=self.kind, slope=self.slope)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.slope if self.kind == 'leaky_relu' else ''})"


class ReLU(Activation):
    """max(x, 0)."""

    kind = "relu"


class LeakyReLU(Activation):
    """x where x > 0, else slope·x."""

    kind = "leaky_relu"

    def __init__(self, slope: float = 0.2) -> None:
        if not slope >= 0:
            raise ValueError(f"LeakyReLU: the slope must be >= 0, not {slope}")
        self.slope = float(slope)


class Tanh(Activation):
    """Hyperbolic tangent."""

    kind = "tanh"


class Sigmoid(Activation):
    """1 / (1 + e^−x)."""

    kind = "sigmoid"


class Softplus(Module):
    """log(1 + e^x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to every entry."""
        return ops.softplus(x)

    def __repr__(self) -> str:
        return "Softplus()"


LINEAR = Activation()
LINEAR.kind = "linear"

# --- layers with weights ----------------------------------------------------------------------------------------------


class Fusing(Module):
    """A layer that can apply the activation after it in the same pass."""

    def fuses(self, activation: Activation) -> bool:
        """Return whether the layer can apply this activation."""
        return bool(activation.kind)

    def forward(self, x: Tensor, activation: Activation = LINEAR) -> Tensor:
        """Return act(layer(x)); subclasses must write this."""
        raise NotImplementedError


class Weighted(Fusing):
    """A layer with weights ``w`` and an optional bias ``b``."""

    w: Tensor
    b: Tensor | None

    def _start(self, shape: tuple[int, ...], fans: tuple[int, int], n_out: int, bias: bool) -> None:
        self.fans = fans
        require_room_for(shape)
        self.w = _parameter(lecun(_init, shape, *fans))
        self.b = _parameter(np.zeros(n_out)) if bias else None


class Dense(Weighted):
    """y = x w + b: x (..., n_in), w (n_in, n_out), y (..., n_out)."""

    def __init__(self, n_in: int, n_out: int, bias: bool = True) -> None:
        _positive("Dense", n_in=n_in, n_out=n_out)
        self._start((n_in, n_out), (n_in, n_out), n_out, bias)

    def forward(self, x: Tensor, activation: Activation = LINEAR) -> Tensor:
        """Return act(x w + b) as one fused op."""
        return ops.dense(x, self.w, self.b, activation=activation.kind, slope=activation.slope)

    def __repr__(self) -> str:
        return f"Dense({self.w.shape[0]}, {self.w.shape[1]}{', bias=False' if self.b is None else ''})"


class _Conv(Weighted):
    def _geometry(self, kernel: int | Pair, stride: int | Pair, padding: int | Pair) -> Pair:
        """Check and keep the geometry; return the kernel's size as a pair."""
        size, self.stride, self.padding = pair(kernel, "kernel"), pair(stride, "stride"), pair(padding, "padding")
        for name, both, least in (("kernel", size, 1), ("stride", self.stride, 1), ("padding", self.padding, 0)):
            if min(both) < least:
                raise ValueError(f"{type(self).__name__}: {name} must be >= {least}, not {both}")
        return size

    def __repr__(self) -> str:
        kh, kw, c_in, c_out = self.w.shape
        c_in, c_out = (c_out, c_in) if isinstance(self, ConvTranspose2d) else (c_in, c_out)
        return f"{type(self).__name__}({c_in}, {c_out}, {kh}x{kw}, stride={self.stride[0]}x{self.stride[1]})"


class Conv2d(_Conv):
    """Correlation of images (N, H, W, c_in) with w (kh, kw, c_in, c_out)."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        bias: bool = True,
    ) -> None:
        _positive("Conv2d", c_in=c_in, c_out=c_out)
        kh, kw = self._geometry(kernel, stride, padding)
        fan_out = c_out * kh * kw // math.prod(self.stride)
        self._start((kh, kw, c_in, c_out), (c_in * kh * kw, max(1, fan_out)), c_out, bias)

    def forward(self, x: Tensor, activation: Activation = LINEAR) -> Tensor:
        """Return act(x ⋆ w + b) as one fused op."""
        geometry = {"stride": self.stride, "padding": self.padding}
        return ops.conv2d(x, self.w, self.b, **geometry, activation=activation.kind, slope=activation.slope)


class ConvTranspose2d(_Conv):
    """The adjoint of Conv2d(c_out, c_in, …): images (N, H, W, c_in) grow by the stride; w is (kh, kw, c_out, c_in)."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        bias: bool = True,
        output_padding: int | Pair = 0,
    ) -> None:
        _positive("ConvTranspose2d", c_in=c_in, c_out=c_out)
        kh, kw = self._geometry(kernel, stride, padding)
        self.output_padding = pair(output_padding, "output_padding")
        fan_in = c_in * kh * kw // math.prod(self.stride)
        self._start((kh, kw, c_out, c_in), (max(1, fan_in), c_out * kh * kw), c_out, bias)

    def forward(self, x: Tensor, activation: Activation = LINEAR) -> Tensor:
        """Return act(convᵀ(x, w) + b) as one fused op."""
        geometry = {"stride": self.stride, "padding": self.padding, "output_padding": self.output_padding}
        return ops.conv2d_transpose(x, self.w, self.b, **geometry, activation=activation.kind, slope=activation.slope)


# --- layers that behave differently in training -----------------------------------------------------------------------


class BatchNorm(Fusing):
    """Normalise over all axes but the last, then scale by gamma and shift by beta (1502.03167).

    Training uses the batch's statistics, and moves the running ones towards them by ``momentum``; inference uses the
    running ones. The running variance is the unbiased one.
    """

    buffer_names = ("running_mean", "running_var")

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        _positive("BatchNorm", channels=channels)
        if not (eps >= 0 and 0 <= momentum <= 1):
            raise ValueError(f"BatchNorm: eps must be >= 0 and momentum in [0, 1], not {eps} and {momentum}")
        self.gamma, self.beta = _parameter(np.ones(channels)), _parameter(np.zeros(channels))
        self.eps, self.momentum = eps, momentum
        self.running_mean, self.running_var = np.zeros(channels, np.float32), np.ones(channels, np.float32)

    def fuses(self, activation: Activation) -> bool:
        """Return whether the activation is piecewise linear: its gradient then follows from the sign of the result."""
        return activation.kind in ("relu", "leaky_relu")

    def forward(self, x: Tensor, activation: Activation = LINEAR) -> Tensor:
        """Normalise x (..., channels), then apply the activation."""
        if x.shape[-1:] != self.gamma.shape:
            raise ValueError(f"{self!r}: the last axis of x {x.shape} must have {self.gamma.shape[0]} channels")
        if not self.training:
            mean, inverse = perform(self._standing, x.dtype)
            scale = self.gamma * inverse
            shift = self.beta - scale * mean
            return ops.bias_act(x * scale, shift, activation=activation.kind, slope=activation.slope)
        if x.size == x.shape[-1]:
            raise ValueError(
                f"{self!r}: training needs more than one value for each channel, and x {x.shape} has one: "
                "use a larger batch, or eval()"
            )
        y = ops.batch_norm(x, self.gamma, self.beta, eps=self.eps, activation=activation.kind, slope=activation.slope)
        perform(self._follow, *y.memo, x.size // x.shape[-1])
        return y

    def _standing(self, dtype: Any) -> tuple[Any, Any]:
        """Return the running mean, and one over the running standard deviation."""
        return self.running_mean, (1.0 / np.sqrt(self.running_var + self.eps)).astype(dtype)

    def _follow(self, mean: Any, var: Any, rows: int) -> None:
        """Move the running statistics towards those of a batch with this many rows."""
        new = self.momentum
        self.running_mean = (1 - new) * self.running_mean + new * mean
        self.running_var = (1 - new) * self.running_var + new * var * (rows / max(1, rows - 1))

    def __repr__(self) -> str:
        return f"BatchNorm({self.gamma.shape[0]})"


class Dropout(Module):
    """In training, zero each entry with probability p and divide the rest by 1 − p; in inference do nothing.

    The mask comes from a counter-based stream whose counter is a buffer: a resumed run draws the same masks.
    Without a ``seed`` every layer gets a different one, by the order in which layers are made.
    """

    buffer_names = ("draws", "seed")

    def __init__(self, p: float = 0.5, seed: int | None = None) -> None:
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: p must be in [0, 1), not {p}")
        self.p = p
        self.seed = np.array(next_seed("dropout") if seed is None else seed, np.uint64)
        self.draws = np.zeros((), np.int64)

    def forward(self, x: Tensor) -> Tensor:
        """Drop entries of x."""
        if not self.training or self.p == 0:
            return x
        return x * perform(self._mask, x.shape, x.dtype, x.device)

    def _mask(self, shape: tuple[int, ...], dtype: Any, device: str) -> Any:
        generator = Generator(int(self.seed), stream="dropout", step=int(self.draws), device=device)
        self.draws = self.draws + 1
        return (generator.uniform(shape, dtype=dtype).data >= self.p) / np.dtype(dtype).type(1 - self.p)

    def __repr__(self) -> str:
        return f"Dropout({self.p})"
