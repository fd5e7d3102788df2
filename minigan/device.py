"""Where arrays live: the array module behind an array, moves between devices, and why a device cannot be used."""

from __future__ import annotations

from typing import Any

import numpy as np

DEVICES = ("cpu", "cuda")
NO_CUDA = "this version of minigan has no CUDA kernels: use device 'cpu'"


def xp(array: Any) -> Any:
    """Return the module (NumPy) whose functions take ``array``."""
    if isinstance(array, np.ndarray | np.generic | float | int):
        return np
    raise TypeError(f"no array module for {type(array).__name__}: {NO_CUDA}")


def device_of(array: Any) -> str:
    """Return the device that holds ``array``."""
    xp(array)
    return "cpu"


def resolve(device: str | None) -> str:
    """Return a usable device for ``device`` ("cpu", "cuda", "auto" or None); ValueError says why it cannot be used."""
    if device in (None, "auto", "cpu"):
        return "cpu"
    if device == "cuda":
        raise ValueError(f"device 'cuda': {NO_CUDA}")
    raise ValueError(f"unknown device {device!r}: choose from {', '.join(DEVICES)}")


def to_device(array: Any, device: str) -> Any:
    """Return ``array`` on ``device``: itself where it is there already."""
    resolve(device)
    return array


def to_numpy(array: Any) -> np.ndarray:
    """Return ``array`` as a NumPy array: itself where it is one."""
    return np.asarray(array)
