"""Layers that hold parameters, and ways to start them."""

from minigan.nn.discriminator import (
    InstanceNoise,
    MinibatchDiscrimination,
    MinibatchStddev,
    Pack,
    Schedule,
    SpectralNorm,
)
from minigan.nn.init import INITIALISERS, initialise
from minigan.nn.layers import (
    Activation,
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Dropout,
    Flatten,
    LeakyReLU,
    ReLU,
    Reshape,
    Sigmoid,
    Softplus,
    Tanh,
)
from minigan.nn.module import Module
from minigan.nn.sequential import Sequential

__all__ = [
    "INITIALISERS",
    "Activation",
    "BatchNorm",
    "Conv2d",
    "ConvTranspose2d",
    "Dense",
    "Dropout",
    "Flatten",
    "InstanceNoise",
    "LeakyReLU",
    "MinibatchDiscrimination",
    "MinibatchStddev",
    "Module",
    "Pack",
    "ReLU",
    "Reshape",
    "Schedule",
    "Sequential",
    "Sigmoid",
    "Softplus",
    "SpectralNorm",
    "Tanh",
    "initialise",
]
