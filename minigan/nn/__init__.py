"""Layers that hold parameters, and ways to start them."""

from minigan.nn.discriminator import (
    InstanceNoise,
    MinibatchDiscrimination,
    MinibatchStddev,
    Pack,
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
    LeakyReLU,
    ReLU,
    Sigmoid,
    Softplus,
    Tanh,
)
from minigan.nn.module import Module
from minigan.nn.schedules import FADES, Schedule
from minigan.nn.sequential import Sequential
from minigan.nn.shapes import Flatten, Reshape

__all__ = [
    "FADES",
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
