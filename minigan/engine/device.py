"""Where arrays live: the array module behind an array, moves between devices, and why a device cannot be used.

Arrays of CuPy are on "cuda", NumPy's on "cpu". On "cuda-emulated" the same CUDA source runs on the CPU, slowly, with
every memory access checked. Only a call of :func:`to_device` moves an array to another device.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan.kernels.gpu import launch as cuda
from minigan.kernels.gpu.launch import allow_tf32 as allow_tf32
from minigan.kernels.gpu.launch import sizes_told as sizes_told

DEVICES = ("cpu", "cuda", "cuda-emulated")


def xp(array: Any) -> Any:
    """Return the module (NumPy, CuPy or its stand-in) whose functions take ``array``."""
    return np if isinstance(array, np.ndarray | np.generic | float | int) else cuda.module_of(array)


def module(device: str) -> Any:
    """Return the array module of a device."""
    return np if device == "cpu" else cuda.load(device)


def device_of(array: Any) -> str:
    """Return the device that holds ``array``."""
    return cuda.device_of(array) or "cpu"


def is_array(x: Any) -> bool:
    """Return whether x is an array of any device."""
    return isinstance(x, np.ndarray) or cuda.device_of(x) is not None


def as_array(x: Any) -> Any:
    """Return x itself if it is an array of any device, else a NumPy array of it."""
    return x if is_array(x) else np.asarray(x)


def may_look(array: Any) -> bool:
    """Return whether the host may read values now: not while the device's stream captures a graph."""
    return isinstance(array, np.ndarray) or not xp(array).cuda.get_current_stream().is_capturing()


def why_not(device: str) -> str | None:
    """Return in a sentence why a device cannot be used, or None if it can."""
    return None if device == "cpu" else cuda.reason_against(device)


def why_no_tf32(device: str) -> str | None:
    """Return in a sentence why a usable device cannot compute products in TF32, or None if it can."""
    if device == "cpu":
        return "TF32 needs device cuda or cuda-emulated, and this is the CPU"
    if cuda.has_tf32(device):
        return None
    return f"{cuda.describe(device)} has no tensor cores for TF32: it needs sm_80 or newer"


def require_known(device: str) -> None:
    """Raise ValueError unless ``device`` is the name of one, which need not be here, or "auto"."""
    if device not in ("auto", *DEVICES):
        raise ValueError(f"unknown device {device!r}: choose from auto, {', '.join(DEVICES)}")


def resolve(device: str | None) -> str:
    """Return a usable device for ``device``, or the best one for "auto"; ValueError says why it cannot be used."""
    if device is None:
        return "cpu"
    if device == "auto":
        return "cpu" if why_not("cuda") else "cuda"
    require_known(device)
    reason = why_not(device)
    if reason:
        raise ValueError(f"device {device!r}: {reason}")
    return device


def to_device(array: Any, device: str) -> Any:
    """Return ``array`` on ``device``: itself if it is there already."""
    if device_of(array) == device:
        return array
    host = to_numpy(array)
    if device == "cpu":
        return host
    with sizes_told(resolve(device)):
        return module(device).asarray(host)


def to_numpy(array: Any) -> np.ndarray:
    """Return ``array`` (or anything that NumPy can convert) as a NumPy array: itself if it is one."""
    return np.asarray(array) if device_of(array) == "cpu" else array.get()
