"""Ways to start weights. Fan-in is the number of inputs of one output, fan-out the number of outputs of one input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minigan.engine.autodiff import renew
from minigan.engine.device import to_device
from minigan.random import Generator

Initialiser = Callable[[Generator, tuple[int, ...], int, int], np.ndarray]


def dcgan(generator: Generator, shape: tuple[int, ...], fan_in: int, fan_out: int) -> np.ndarray:
    """N(0, 0.02²), independent of the fans (1511.06434)."""
    return 0.02 * generator.normal(shape).data


def he(generator: Generator, shape: tuple[int, ...], fan_in: int, fan_out: int) -> np.ndarray:
    """N(0, 2/fan_in): keeps the variance of activations through ReLUs (1502.01852)."""
    return math.sqrt(2 / fan_in) * generator.normal(shape).data


def glorot(generator: Generator, shape: tuple[int, ...], fan_in: int, fan_out: int) -> np.ndarray:
    """U(−a, a), a = √(6/(fan_in + fan_out)) (Glorot and Bengio 2010)."""
    return math.sqrt(6 / (fan_in + fan_out)) * (2 * generator.uniform(shape).data - 1)


def lecun(generator: Generator, shape: tuple[int, ...], fan_in: int, fan_out: int) -> np.ndarray:
    """U(−a, a), a = 1/√fan_in: variance 1/(3 fan_in)."""
    return (2 * generator.uniform(shape).data - 1) / math.sqrt(fan_in)


INITIALISERS: dict[str, Initialiser] = {"dcgan": dcgan, "he": he, "glorot": glorot, "lecun": lecun}


def initialise(module: Any, scheme: str, generator: Generator) -> Any:
    """Start every weight of a network by ``scheme`` (a key of INITIALISERS), and every bias at 0; return the module.

    Batch norm keeps its gamma 1 and beta 0.
    """
    if scheme not in INITIALISERS:
        raise ValueError(f"unknown initialiser {scheme!r}: choose from {', '.join(INITIALISERS)}")
    for _, part in module.modules():
        if part.fans is not None:
            values = INITIALISERS[scheme](generator, part.w.shape, *part.fans)
            part.w.data[...] = to_device(values, part.w.device)
            if part.b is not None:
                part.b.data[...] = 0
    renew(module.parameters())
    for _, part in module.modules():
        part.restart()
    return module
