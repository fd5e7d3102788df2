"""A run as a stream of events: a trainer yields them, and observers of the run consume them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minigan.gan.dynamics import Step


@dataclass(frozen=True)
class Every:
    """The number of training steps between two events of a kind; 0 for no events."""

    row: int = 10
    picture: int = 150
    checkpoint: int = 500
    spectrum: int = 0


@dataclass(frozen=True)
class Event:
    """Something that happened at a step."""

    step: int


@dataclass(frozen=True)
class Stepped(Event):
    """A step and all its events are done; ``found`` holds the players' losses, None before the first step."""

    found: Step | None


@dataclass(frozen=True)
class Row(Event):
    """A row of metrics: numbers by name, see :meth:`minigan.gan.Trainer.metrics`."""

    values: dict[str, float]


@dataclass(frozen=True)
class Picture(Event):
    """Samples (n, ...) of the averaged generator, from the same latents every time."""

    samples: np.ndarray


@dataclass(frozen=True)
class SpectrumDue(Event):
    """The game's spectrum is due."""


@dataclass(frozen=True)
class CheckpointDue(Event):
    """A checkpoint is due."""
