"""Data sets as arrays in memory, and the order in which a run sees them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np

from minigan.random import Generator


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples (N, ...) as float32; images are (N, H, W, C) in [−1, 1], points (N, 2).

    ``labels`` (N,) where classes are known; ``centres`` (K, 2) and ``sigma`` where the data is a mixture.
    """

    name: str
    samples: np.ndarray
    labels: np.ndarray | None = None
    centres: np.ndarray | None = None
    sigma: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.samples.shape[1:]

    @property
    def is_images(self) -> bool:
        """Whether samples are images."""
        return len(self.shape) == 3

    @property
    def shown(self) -> int:
        """The number of samples in a picture: a grid of images, or a cloud of points."""
        return 64 if self.is_images else 2000

    @functools.cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of all samples and labels: two data sets that train alike have the same."""
        digest = hashlib.sha256()
        for array in (self.samples, self.labels):
            if array is not None:
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.samples)


def digits() -> Dataset:
    """Return the 1,797 handwritten UCI digits, 8×8, one channel, pixel p of 0 … 16 as p/8 − 1 (CC BY 4.0)."""
    with resources.files("minigan.data").joinpath("digits.npz").open("rb") as file, np.load(file) as archive:
        images, labels = archive["images"], archive["labels"]
    return Dataset("digits", (images.astype(np.float32) / 8 - 1)[..., None], labels.astype(np.int64))


def _mixture(name: str, centres: np.ndarray, sigma: float, count: int, seed: int) -> Dataset:
    generator = Generator(seed, stream="data")
    which = generator.permutation(count) % len(centres)
    points = centres[which] + sigma * generator.normal((count, 2), dtype=np.float64).data
    return Dataset(name, points.astype(np.float32), which, centres, sigma)


def ring(count: int = 10_000, seed: int = 0) -> Dataset:
    """Return points from 8 equal Gaussians on the unit circle, σ = 0.01 (1712.04086)."""
    angle = 2 * np.pi * np.arange(8) / 8
    return _mixture("ring", np.stack([np.cos(angle), np.sin(angle)], axis=1), 0.01, count, seed)


def grid(count: int = 10_000, seed: int = 0) -> Dataset:
    """Return points from 25 equal Gaussians on the grid −4, −2, 0, 2, 4 squared, σ = 0.05 (1712.04086)."""
    axis = np.arange(-4.0, 5.0, 2.0)
    return _mixture("grid", np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2), 0.05, count, seed)


DATASETS: dict[str, Callable[[], Dataset]] = {"digits": digits, "ring": ring, "grid": grid}


def load(name: str) -> Dataset:
    """Return the data set called ``name``; ValueError lists those there are."""
    if name not in DATASETS:
        raise ValueError(f"unknown data {name!r}: choose from {', '.join(DATASETS)}")
    return DATASETS[name]()


@lru_cache(maxsize=4)
def _order(size: int, seed: int, epoch: int) -> np.ndarray:
    return Generator(seed, stream="shuffle", step=epoch).permutation(size)


def batch_indices(size: int, batch: int, seed: int, number: int) -> np.ndarray:
    """Return the indices of minibatch ``number`` (from 0): each epoch passes every sample once, in an order of its own.

    Derived from (seed, number) alone, so nothing has to be saved to resume; a batch may span two epochs.
    """
    first = number * batch
    epochs = range(first // size, (first + batch - 1) // size + 1)
    order = np.concatenate([_order(size, seed, epoch) for epoch in epochs])
    start = first - epochs[0] * size
    return order[start : start + batch]
