"""Data that comes with minigan: real handwritten digits and two synthetic mixtures in the plane."""

from minigan.data.datasets import DATASETS, Dataset, batch_indices, digits, grid, load, ring

__all__ = ["DATASETS", "Dataset", "batch_indices", "digits", "grid", "load", "ring"]
