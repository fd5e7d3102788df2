"""Data sets: the class, your data from arrays, and the bundled ones."""

from minigan.data.batch import Batch, as_batch
from minigan.data.bundled import DATASETS, Source, digits, grid, load, ring
from minigan.data.dataset import Dataset, batch_indices, from_arrays

__all__ = [
    "DATASETS",
    "Batch",
    "Dataset",
    "Source",
    "as_batch",
    "batch_indices",
    "digits",
    "from_arrays",
    "grid",
    "load",
    "ring",
]
