"""Pairs of networks by name: a DCGAN for images (1511.06434) and a multilayer perceptron for anything."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from functools import partial

from minigan.nn import (
    Activation,
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Dropout,
    Flatten,
    InstanceNoise,
    LeakyReLU,
    MinibatchDiscrimination,
    MinibatchStddev,
    Module,
    Pack,
    ReLU,
    Reshape,
    Schedule,
    Sequential,
    Sigmoid,
    SpectralNorm,
    Tanh,
)
from minigan.nn.layers import Weighted

Pair = tuple[Sequential, Sequential]
MAX_LEVELS = 4
ACTIVATIONS: dict[str, Callable[[], Activation]] = {
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "tanh": Tanh,
    "sigmoid": Sigmoid,
}


def dcgan(
    shape: tuple[int, ...], latent: int, width: int, batch_norm: bool, depth: int = 2, activation: str = "relu"
) -> Pair:
    """Return (G, D) for images of ``shape`` (H, W, C): 4×4 stride-2 convolutions, ``width`` channels at full size.

    Each halving of the image doubles the channels, up to four times and while both sides stay even and above 3. Batch
    norm is in G only: in D it would mix the samples of a batch, which gradient penalties forbid. G's
    ``activation`` is a key of ACTIVATIONS; the images' size sets the depth, and ``depth`` is ignored. ValueError for
    data that is not images, or images that cannot be halved.
    """
    if len(shape) != 3:
        raise ValueError(f"model 'dcgan' makes images, but the data has samples of shape {shape}: use model 'mlp'")
    h, w, channels = shape
    levels = 0
    while levels < MAX_LEVELS and h % 2 == 0 and w % 2 == 0 and min(h, w) > 3:
        h, w, levels = h // 2, w // 2, levels + 1
    if not levels:
        raise ValueError(
            f"model 'dcgan' halves images at least once, and {shape[0]}x{shape[1]} cannot be halved: use model 'mlp'"
        )
    top = width * 2 ** (levels - 1)

    generator: list[Module] = [Dense(latent, h * w * top), Reshape(h, w, top)]
    discriminator: list[Module] = []
    for level in range(levels):
        n_in = top >> level
        n_out = n_in // 2 if level < levels - 1 else channels
        between = [*([BatchNorm(n_in)] if batch_norm else []), ACTIVATIONS[activation]()]
        generator += [*between, ConvTranspose2d(n_in, n_out, 4, 2, 1)]
        n_in = width << (level - 1) if level else channels
        discriminator += [Conv2d(n_in, width << level, 4, 2, 1), LeakyReLU(0.2)]
    return (
        Sequential(*generator, Tanh()),
        Sequential(*discriminator, Flatten(), Dense(h * w * top, 1)),
    )


def mlp(
    shape: tuple[int, ...], latent: int, width: int, batch_norm: bool, depth: int = 2, activation: str = "relu"
) -> Pair:
    """Return (G, D) with ``depth`` hidden layers of 2·width units each, for samples of any shape; images end in a tanh.

    G's ``activation`` is a key of ACTIVATIONS, D's a leaky ReLU.
    """
    size, hidden = math.prod(shape), 2 * width
    generator: list[Module] = []
    discriminator: list[Module] = [Flatten()]
    for layer in range(depth):
        generator += [Dense(hidden if layer else latent, hidden), *([BatchNorm(hidden)] if batch_norm else [])]
        generator.append(ACTIVATIONS[activation]())
        discriminator += [Dense(hidden if layer else size, hidden), LeakyReLU(0.2)]
    generator += [Dense(hidden, size), *([Tanh()] if len(shape) == 3 else []), Reshape(*shape)]
    return Sequential(*generator), Sequential(*discriminator, Dense(hidden, 1))


def dress(
    discriminator: Module,
    *,
    seed: int = 0,
    pack: int = 1,
    noise: Schedule | None = None,
    spectral_norm: bool = False,
    exact: bool = False,
    stddev: bool = False,
    discrimination: int = 0,
    dropout: float = 0.0,
) -> Sequential:
    """Return a discriminator with layers added around and between those it has, inside blocks too.

    ``noise`` blurs the samples and ``pack`` joins them before the first layer (the discriminator must be made for
    packed samples); ``dropout`` follows every activation; the last layer also reads statistics of the batch
    (``stddev``, or ``discrimination`` kernels); ``spectral_norm`` (``exact`` or not) wraps every layer with weights.
    ``seed`` seeds noise and dropout. TypeError for statistics of a batch in a network that does not end in a Dense
    layer.
    """
    if dropout:
        discriminator = discriminator.rebuilt(_Dropping(dropout, seed))
    if stddev or discrimination:
        discriminator = _with_statistics(discriminator, stddev, discrimination)
    if spectral_norm:
        discriminator = discriminator.rebuilt(partial(_normalised, exact))
    front: list[Module] = [*([InstanceNoise(noise, seed=seed)] if noise else []), *([Pack(pack)] if pack > 1 else [])]
    return Sequential(*front, *(discriminator.layers if type(discriminator) is Sequential else [discriminator]))


class _Dropped(Sequential):
    """An activation and its dropout."""


class _Dropping:
    """Puts a Dropout behind every activation; its seed follows from the activation's number among all layers."""

    def __init__(self, p: float, seed: int) -> None:
        self.p, self.seed, self.layers = p, seed, 0

    def __call__(self, module: Module) -> Module:
        """Return an activation with its dropout, and a Sequential with such pairs flattened."""
        if isinstance(module, Sequential):
            flat = (list(layer.layers) if isinstance(layer, _Dropped) else [layer] for layer in module.layers)
            layers = tuple(itertools.chain.from_iterable(flat))
            if type(module) is Sequential:
                return Sequential(*layers)
            twin = copy.copy(module)  # a subclass keeps its forward
            twin.layers = layers
            return twin
        if not any(True for _ in module.children()):
            self.layers += 1
        if not isinstance(module, Activation):
            return module
        return _Dropped(module, Dropout(self.p, seed=(self.seed + self.layers * 2**32) % 2**64))


def _normalised(exact: bool, module: Module) -> Module:
    """Return a layer with weights under spectral norm, once, and other modules as they are."""
    if isinstance(module, SpectralNorm) and isinstance(module.layer, SpectralNorm):  # the inner layer was wrapped first
        return SpectralNorm(module.layer.layer, module.exact)
    return SpectralNorm(module, exact) if isinstance(module, Weighted) else module


def _with_statistics(discriminator: Module, stddev: bool, kernels: int) -> Sequential:
    """Return a Sequential whose last layer, a Dense one, also reads statistics of the batch."""
    *layers, last = discriminator.layers if type(discriminator) is Sequential else [discriminator]
    if not isinstance(last, Dense):
        raise TypeError(f"dress: the discriminator must end in a Dense layer, not {last!r}")
    size = last.w.shape[0]
    if stddev:
        layers.append(MinibatchStddev())
        size += 1
    if kernels:
        layers.append(MinibatchDiscrimination(size, kernels))
        size += kernels
    return Sequential(*layers, Dense(size, last.w.shape[1], last.b is not None))


MODELS: dict[str, Callable[..., Pair]] = {"dcgan": dcgan, "mlp": mlp}
