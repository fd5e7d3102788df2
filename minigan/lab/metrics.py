"""Honest numbers about samples: a Fréchet distance in pixels, class shares by nearest neighbours, modes found."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from minigan.random import Generator


def _flat(samples: np.ndarray) -> np.ndarray:
    samples = np.asarray(samples, dtype=np.float64)
    return samples.reshape(len(samples), math.prod(samples.shape[1:]))


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return ‖μ_a − μ_b‖² + tr(C_a + C_b − 2(C_a C_b)^½), the Fréchet distance of Gaussians fitted to two samples.

    ``a`` (M, ...) and ``b`` (N, ...) hold raw pixels, at least two samples each; no network is involved.
    ValueError for other shapes. Source: Dowson and Landau 1982; as a GAN metric 1706.08500.
    """
    a, b = _flat(a), _flat(b)
    if a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"frechet_distance: needs samples of one size, two or more each, got {a.shape} and {b.shape}")
    gap = a.mean(0) - b.mean(0)
    cov_a, cov_b = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
    return float(gap @ gap + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def half_against_half(data: np.ndarray, seed: int = 0) -> float:
    """Return the Fréchet distance of one random half of real data to the other."""
    order = Generator(seed, stream="shuffle").permutation(len(data))
    half = len(data) // 2
    return frechet_distance(data[order[:half]], data[order[half:]])


def real_floor(data: np.ndarray, splits: int = 10) -> float:
    """Return the Fréchet distance between random halves of real data, the mean of some splits: a generator's floor."""
    return float(np.mean([half_against_half(data, seed) for seed in range(splits)]))


def nearest_neighbour_labels(samples: np.ndarray, data: np.ndarray, labels: np.ndarray, k: int = 3) -> np.ndarray:
    """Return for every sample the most frequent label of its k nearest data points (ties: the nearest of them).

    ``samples`` (M, ...), ``data`` (N, ...), ``labels`` (N,) integers; Euclidean distance in pixels.
    """
    samples, data = _flat(samples), _flat(data)
    found = np.empty(len(samples), np.int64)
    for start in range(0, len(samples), 500):
        part = samples[start : start + 500]
        distance = (data**2).sum(1) - 2 * part @ data.T
        near = labels[np.argsort(distance, axis=1, kind="stable")[:, :k]]
        votes = (near[:, :, None] == near[:, None, :]).sum(2)
        found[start : start + 500] = near[np.arange(len(part)), votes.argmax(1)]
    return found


def class_shares(samples: np.ndarray, data: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the share of samples that the 3-nearest-neighbour judge puts in each class."""
    judged = nearest_neighbour_labels(samples, data, labels)
    return np.bincount(judged, minlength=int(labels.max()) + 1) / len(judged)


@dataclass(frozen=True)
class Modes:
    """How samples cover a mixture: modes hit, share of high quality, reverse KL in nats; see :func:`mode_coverage`."""

    found: int
    total: int
    high_quality: float
    reverse_kl: float


def mode_coverage(points: np.ndarray, centres: np.ndarray, sigma: float) -> Modes:
    """Judge 2-D points (N, 2) against a mixture of equal Gaussians at ``centres`` (K, 2) with deviation ``sigma``.

    A point is of high quality within 3σ of its nearest centre; a mode is found when it has such a point; the reverse KL
    is that of the shares of high-quality points against equal shares, KL(found ‖ uniform) (1712.04086).
    """
    distance = np.linalg.norm(np.asarray(points)[:, None, :] - centres[None], axis=2)
    good = distance.min(1) <= 3 * sigma
    counts = np.bincount(distance.argmin(1)[good], minlength=len(centres))
    shares = counts / max(1, counts.sum())
    seen = shares[shares > 0]
    kl = float((seen * np.log(seen * len(centres))).sum()) if counts.sum() else float("inf")
    return Modes(int((counts > 0).sum()), len(centres), float(good.mean()), kl)
