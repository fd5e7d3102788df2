"""The workloads: five training steps, described once and built by every framework from the same description.

A network is a tuple of layers, each a name with its numbers; images are written (H, W, C) whatever the framework's own
order is. A step is: D descends softplus(−D(x)) + softplus(D(G(z))), plus R1 = γ/2 E‖∇ₓD(x)‖² where γ > 0, then G
descends softplus(−D(G(z))); Adam for both. G(z) is computed for each player, on new noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

Layer = tuple[Any, ...]


@dataclass(frozen=True)
class Workload:
    """A pair of networks and how they are trained; ``shape`` is one sample's, ``gamma`` R1's, ``ema`` G's average."""

    name: str
    batch: int
    latent: int
    shape: tuple[int, ...]
    generator: tuple[Layer, ...]
    discriminator: tuple[Layer, ...]
    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    gamma: float = 0.0
    ema: float = 0.0


def dense(n_in: int, n_out: int, bias: bool = True) -> Layer:
    """A dense layer."""
    return "dense", n_in, n_out, bias


def down(c_in: int, c_out: int, bias: bool = False, kernel: int = 4, stride: int = 2, padding: int = 1) -> Layer:
    """A convolution."""
    return "conv", c_in, c_out, kernel, stride, padding, bias


def up(c_in: int, c_out: int, bias: bool = False, kernel: int = 4, stride: int = 2, padding: int = 1) -> Layer:
    """A transposed convolution."""
    return "conv_transpose", c_in, c_out, kernel, stride, padding, bias


def norm(channels: int) -> Layer:
    """A batch normalisation."""
    return "batch_norm", channels


def shape(*sizes: int) -> Layer:
    """A reshape of every sample."""
    return "shape", *sizes


RELU, LEAKY, TANH, FLAT = ("relu",), ("leaky_relu", 0.2), ("tanh",), ("flat",)

MLP = Workload(
    "mlp", 256, 2, (2,),
    (dense(2, 128), RELU, dense(128, 128), RELU, dense(128, 2)),
    (dense(2, 128), LEAKY, dense(128, 128), LEAKY, dense(128, 1)),
)  # fmt: skip

DC8 = Workload(
    "dc8", 64, 64, (8, 8, 1),
    (dense(64, 512), shape(2, 2, 128), norm(128), RELU, up(128, 64, True), norm(64), RELU, up(64, 1, True), TANH),
    (down(1, 64, True), LEAKY, down(64, 128, True), LEAKY, FLAT, dense(512, 1)),
    lr=1e-3, betas=(0.5, 0.99), gamma=1.0, ema=0.995,
)  # fmt: skip


def dc28(base: int = 64, batch: int = 64) -> Workload:
    """28×28×1 images, ``base`` channels at 14×14."""
    top = 2 * base
    return Workload(
        "dc28", batch, 100, (28, 28, 1),
        (dense(100, 49 * top, False), shape(7, 7, top), norm(top), RELU, up(top, base), norm(base), RELU,
         up(base, 1, True), TANH),
        (down(1, base, True), LEAKY, down(base, top), norm(top), LEAKY, FLAT, dense(49 * top, 1)),
    )  # fmt: skip


def dc64(base: int = 64, batch: int = 32) -> Workload:
    """64×64×3 images, ``base`` channels at 32×32, no dense layer (1511.06434)."""

    def grow(c_in: int, c_out: int) -> tuple[Layer, ...]:
        return up(c_in, c_out), norm(c_out), RELU

    def shrink(c_in: int, c_out: int) -> tuple[Layer, ...]:
        return down(c_in, c_out), norm(c_out), LEAKY

    top = 8 * base
    return Workload(
        "dc64", batch, 100, (64, 64, 3),
        (shape(1, 1, 100), up(100, top, False, 4, 1, 0), norm(top), RELU, *grow(top, top // 2),
         *grow(top // 2, top // 4), *grow(top // 4, base), up(base, 3), TANH),
        (down(3, base), LEAKY, *shrink(base, 2 * base), *shrink(2 * base, 4 * base), *shrink(4 * base, top),
         down(top, 1, False, 4, 1, 0), FLAT),
    )  # fmt: skip


WORKLOADS = {w.name: w for w in (MLP, DC8, dc28(), replace(dc28(), name="dc28r1", gamma=10.0), dc64())}


def find(text: str) -> Workload:
    """Return a workload by name, or one of another size: ``dc28:base=32,batch=128``; ``base`` for dc28 and dc64."""
    name, _, sizes = text.partition(":")
    if not sizes:
        return WORKLOADS[name]
    numbers = {key: int(value) for key, value in (part.split("=") for part in sizes.split(","))}
    make = {"dc28": dc28, "dc28r1": dc28, "dc64": dc64}
    found = make[name](**numbers) if name in make else replace(WORKLOADS[name], **numbers)
    return replace(found, name=text, gamma=WORKLOADS[name].gamma)


def _forward_operations(layers: tuple[Layer, ...], sample: tuple[int, ...]) -> list[float]:
    """Return 2 · multiplications of every layer with weights, for one sample of this shape."""
    counts = []
    for kind, *numbers in layers:
        if kind == "dense":
            counts.append(2.0 * numbers[0] * numbers[1])
            sample = (numbers[1],)
        elif kind in ("conv", "conv_transpose"):
            c_in, c_out, k, s, p, _ = numbers
            h, w = sample[:2]
            if kind == "conv":
                h, w = ((n + 2 * p - k) // s + 1 for n in (h, w))
                counts.append(2.0 * h * w * k * k * c_in * c_out)
            else:
                counts.append(2.0 * h * w * k * k * c_in * c_out)
                h, w = ((n - 1) * s - 2 * p + k for n in (h, w))
            sample = (h, w, c_out)
        elif kind == "shape":
            sample = tuple(numbers)
        elif kind == "flat":
            size = 1
            for n in sample:
                size *= n
            sample = (size,)
    return counts


def operations(workload: Workload) -> float:
    """Return the floating-point operations of one step's products by the direct formulas.

    D's turn: G forward; D forward, gradients of its weights and of all inputs but the first, on real and generated
    samples. G's turn: both forward, D's gradients of inputs, G's of weights and of all inputs but the first. R1 adds
    D's gradients of inputs, and theirs: a forward pass and gradients of weights.
    """
    g = _forward_operations(workload.generator, (workload.latent,))
    d = _forward_operations(workload.discriminator, workload.shape)
    total = sum(g) + 2 * (2 * sum(d) + sum(d[1:])) + sum(g) + 2 * sum(d) + sum(g) + sum(g[1:])
    if workload.gamma:
        total += 3 * sum(d)
    return workload.batch * total
