"""The bundled data sets: handwritten digits and two mixtures in the plane. A new one is a row in DATASETS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np

from minigan.data.dataset import Dataset
from minigan.random import Generator


def digits() -> Dataset:
    """Return the 1,797 handwritten UCI digits, 8×8, one channel, pixel p of 0 … 16 as p/8 − 1 (CC BY 4.0)."""
    with resources.files("minigan.data").joinpath("digits.npz").open("rb") as file, np.load(file) as archive:
        images, labels = archive["images"], archive["labels"]
    return Dataset("digits", (images.astype(np.float32) / 8 - 1)[..., None], labels.astype(np.int64))


def _mixture(name: str, centres: np.ndarray, sigma: float, count: int, seed: int) -> Dataset:
    generator = Generator(seed, stream="data")
    which = generator.permutation(count) % len(centres)
    points = centres[which] + sigma * generator.normal((count, 2), dtype=np.float64).data
    return Dataset(name, points.astype(np.float32), which, centres=centres, sigma=sigma)


def ring(count: int = 10_000, seed: int = 0) -> Dataset:
    """Return points from 8 equal Gaussians on the unit circle, σ = 0.01 (1712.04086)."""
    angle = 2 * np.pi * np.arange(8) / 8
    return _mixture("ring", np.stack([np.cos(angle), np.sin(angle)], axis=1), 0.01, count, seed)


def grid(count: int = 10_000, seed: int = 0) -> Dataset:
    """Return points from 25 equal Gaussians on the grid −4, −2, 0, 2, 4 squared, σ = 0.05 (1712.04086)."""
    axis = np.arange(-4.0, 5.0, 2.0)
    return _mixture("grid", np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2), 0.05, count, seed)


@dataclass(frozen=True)
class Source:
    """A data set: the function that loads it, and the settings of a run that replace the defaults."""

    load: Callable[[], Dataset]
    preset: Mapping[str, Any] = field(default_factory=dict)


POINTS = {
    "model": "mlp", "depth": 3, "gamma": 0.01, "steps": 3000, "batch_size": 256, "latent": 2, "batch_norm": False,
    "lr_d": 3e-3, "lr_g": 3e-3, "lr_schedule": "linear",
}  # fmt: skip
DATASETS: dict[str, Source] = {
    "digits": Source(digits),
    "ring": Source(ring, POINTS),
    "grid": Source(grid, {**POINTS, "depth": 4, "gamma": 0.1, "steps": 6000}),
}


def load(name: str) -> Dataset:
    """Return the data set called ``name``; ValueError lists the known names."""
    if name not in DATASETS:
        raise ValueError(f"unknown data {name!r}: choose from {', '.join(DATASETS)}")
    return DATASETS[name].load()
