"""The data set: how samples are stored, how they are returned, and the order in which a run sees them."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from minigan.data.batch import Batch
from minigan.engine.device import device_of, to_device, xp
from minigan.engine.tensor import Tensor, wrap
from minigan.random import Generator


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples (N, ...) with their classes or attributes. Only this class reads ``storage``; others ask for a batch.

    ``storage`` is float32, returned as it is, or uint8, with 0 … 255 returned as −1 … 1; images are
    (N, H, W, C), points (N, 2). ``labels`` (N,) are classes from 0 on, ``attributes`` (N, A) zeros and ones, ``names``
    those of the classes or attributes. ``centres`` (K, 2) and ``sigma`` are those of a mixture.
    """

    name: str
    storage: Any
    labels: np.ndarray | None = None
    attributes: np.ndarray | None = None
    names: tuple[str, ...] = ()
    centres: np.ndarray | None = None
    sigma: float = 0.0

    def __post_init__(self) -> None:
        if not len(self.storage):
            raise ValueError(f"data set {self.name}: it holds no samples")
        if self.storage.dtype not in (np.dtype(np.float32), np.dtype(np.uint8)):
            raise TypeError(f"the storage of a data set is float32 or uint8, not {self.storage.dtype}: use from_arrays")
        for name, array in (("labels", self.labels), ("attributes", self.attributes)):
            if array is not None and len(array) != len(self.storage):
                raise ValueError(f"{len(self.storage)} samples cannot have {len(array)} {name}")
        known = len(self.names)
        if self.names and self.labels is not None and known <= int(self.labels.max()):
            raise ValueError(f"the classes go up to {int(self.labels.max())}, but there are {known} names")
        if self.names and self.attributes is not None and known != self.attributes.shape[1]:
            raise ValueError(f"there are {self.attributes.shape[1]} attributes, but {known} names")

    def __len__(self) -> int:
        return len(self.storage)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.storage.shape[1:]

    @property
    def is_images(self) -> bool:
        """Whether samples are images."""
        return len(self.shape) == 3

    @property
    def shown(self) -> int:
        """The number of samples in a picture: a grid of images, or a cloud of points."""
        return 64 if self.is_images else 2000

    @property
    def conditions(self) -> int:
        """The number of conditions K that a sample is given: classes or attributes, 0 for none."""
        if self.labels is not None:
            return max(len(self.names), int(self.labels.max()) + 1)
        return 0 if self.attributes is None else self.attributes.shape[1]

    def batch(self, rows: Any, *, given: bool = True) -> Batch:
        """Return the samples of some rows (n,) as float32, with their conditions if ``given``."""
        return Batch(wrap(self._samples(rows)), self.given(rows) if given else None)

    def given(self, rows: Any) -> Tensor | None:
        """Return the conditions (n, K) of some rows: one-hot classes, or attributes; None without labels."""
        if self.labels is not None:
            return wrap(self._one_hot[self.labels[rows]])
        return None if self.attributes is None else wrap(self.attributes[rows].astype(np.float32))

    def reference(self, count: int | None = None) -> np.ndarray:
        """Return the samples of :meth:`part`, or all samples without a count, as one float32 array (count, ...)."""
        return self._samples(slice(None)) if count is None else self.part(count)._samples(slice(None))

    def part(self, count: int) -> Dataset:
        """Return ``count`` rows as a data set, the same ones in every call; the whole set if it has no more."""
        if count >= len(self):
            return self
        rows = Generator(0, stream="shuffle").permutation(len(self))[:count]
        some = {"labels": self.labels, "attributes": self.attributes}
        return replace(self, storage=self.storage[rows], **{n: a[rows] for n, a in some.items() if a is not None})

    def _samples(self, rows: Any) -> Any:
        found = self.storage[rows]
        if found.dtype == np.uint8:
            return found * np.float32(1 / 127.5) - np.float32(1)
        if isinstance(found, np.ndarray) and found.base is not None:  # nobody may write the data through a slice
            found = found.view()
            found.flags.writeable = False
        return found

    @functools.cached_property
    def _one_hot(self) -> Any:
        return xp(self.labels).eye(self.conditions, dtype=np.float32)

    def to(self, device: str) -> Dataset:
        """Return the same data set with its arrays on ``device``: itself if they are there already."""
        if device_of(self.storage) == device:
            return self
        moved = {
            name: to_device(array, device)
            for name, array in (("storage", self.storage), ("labels", self.labels), ("attributes", self.attributes))
            if array is not None
        }
        return replace(self, **moved)

    @functools.cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of all samples, labels and attributes."""
        digest = hashlib.sha256()
        for array in (self.storage, self.labels, self.attributes):
            if array is not None:
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


class _Absent(Dataset):
    def __post_init__(self) -> None:
        """Take an empty storage."""


def absent(name: str, shape: tuple[int, ...]) -> Dataset:
    """Return a data set whose samples are not here: its name, and the ``shape`` of a sample."""
    return _Absent(name, np.empty((0, *shape), np.float32))


def from_arrays(samples: Any, labels: Any = None, *, names: tuple[str, ...] = (), name: str = "arrays") -> Dataset:
    """Return a data set of your arrays, without a copy.

    ``samples`` are images (N, H, W) or (N, H, W, C), uint8 or floats in [−1, 1], or points (N, 2) of floats. ``labels``
    are classes (N,) from 0 on, or attributes (N, A) of zeros and ones. ValueError or TypeError says what does not fit.
    """
    samples = np.asarray(samples)
    if samples.ndim not in (2, 3, 4) or not samples.size:
        raise ValueError(f"from_arrays: samples are images (N, H, W[, C]) or points (N, 2), not {samples.shape}")
    if samples.ndim == 2 and samples.shape[1] != 2:
        raise ValueError(f"from_arrays: points are (N, 2), not {samples.shape}")
    if samples.ndim == 3:
        samples = samples[..., None]
    if samples.ndim == 4 and samples.shape[1] in (1, 3) and samples.shape[3] not in (1, 3):
        raise ValueError(
            f"from_arrays: images are channels-last (N, H, W, C), and {samples.shape} looks like (N, C, H, W): "
            "use images.transpose(0, 2, 3, 1)"
        )
    if samples.dtype != np.uint8:
        if samples.dtype.kind != "f":
            raise TypeError(f"from_arrays: samples are uint8 or floats, not {samples.dtype}")
        samples = samples.astype(np.float32, copy=False)
        if not np.isfinite(samples).all():
            raise ValueError("from_arrays: samples hold NaN or infinity: remove them first")
        if samples.ndim == 4 and np.abs(samples).max() > 1:
            low, high = samples.min(), samples.max()
            raise ValueError(
                f"from_arrays: floats of images must lie in [-1, 1], and these lie from {low:g} to {high:g}: "
                "scale them, or give 0 … 255 as uint8"
            )
    return Dataset(name, samples, *_labels(labels, len(samples)), tuple(names))


def _labels(labels: Any, count: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return (classes, attributes), at least one of them None; ValueError for labels that are neither."""
    if labels is None:
        return None, None
    labels = np.asarray(labels)
    if labels.ndim not in (1, 2) or len(labels) != count:
        raise ValueError(f"from_arrays: {count} samples need labels ({count},) or ({count}, A), not {labels.shape}")
    if labels.ndim == 1:
        if labels.dtype.kind not in "iu" or labels.min() < 0:
            raise ValueError(f"from_arrays: classes are integers from 0 on, not {labels.dtype} from {labels.min()}")
        return labels.astype(np.int64), None
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("from_arrays: attributes (N, A) must be zeros and ones")
    return None, labels.astype(np.uint8)


@lru_cache(maxsize=4)
def _order(size: int, seed: int, epoch: int) -> np.ndarray:
    return Generator(seed, stream="shuffle", step=epoch).permutation(size)


def batch_indices(size: int, batch: int, seed: int, number: int) -> np.ndarray:
    """Return the rows of minibatch ``number`` (from 0): each epoch passes every sample once, in a new random order.

    The rows follow from (seed, number) alone, so that a run need not save them; a batch may span several epochs.
    """
    first = number * batch
    epochs = range(first // size, (first + batch - 1) // size + 1)
    order = np.concatenate([_order(size, seed, epoch) for epoch in epochs])
    start = first - epochs[0] * size
    return order[start : start + batch]
