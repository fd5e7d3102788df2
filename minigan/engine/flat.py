"""Many arrays in one buffer, so that one call updates, averages or saves a whole network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigan import kernels
from minigan.engine.device import as_array, device_of, is_array
from minigan.engine.tensor import FLOATS, Tensor, tensor
from minigan.kernels.settings import number


def views(buffer: Any, shapes: Iterable[tuple[int, ...]]) -> list[Any]:
    """Cut a 1-D buffer into consecutive views of the given shapes."""
    cut, at = [], 0
    for shape in shapes:
        size = int(np.prod(shape, dtype=np.int64))
        cut.append(buffer[at : at + size].reshape(shape))
        at += size
    return cut


def buffer_of(tensors: Sequence[Tensor]) -> Any:
    """Return the 1-D buffer, or part of one, that the tensors view consecutively; None if they do not."""
    buffer = tensors[0].data.base if tensors else None
    if buffer is None or buffer.ndim != 1:
        return None
    start = at = _address(tensors[0].data)
    for t in tensors:
        if t.data.base is not buffer or not t.data.flags.c_contiguous or _address(t.data) != at:
            return None
        at += t.data.nbytes
    first = (start - _address(buffer)) // buffer.itemsize
    return buffer[first : first + (at - start) // buffer.itemsize]


def _address(array: Any) -> int:
    return array.__array_interface__["data"][0] if isinstance(array, np.ndarray) else array.data.ptr


def flatten_(tensors: Sequence[Tensor]) -> Any:
    """Move the data of leaf Tensors into one 1-D buffer, of which they become views, and return the buffer.

    Tensors that already lie in one buffer stay there. ValueError for leaves of several dtypes, or a leaf listed twice.
    """
    for t in tensors:
        if not isinstance(t, Tensor):
            raise TypeError(f"parameters must be Tensors, not {type(t).__name__}")
    if len({id(t) for t in tensors}) < len(tensors):
        raise ValueError("a parameter is listed twice")
    if any(t.op is not None or not t.requires_grad for t in tensors):
        raise ValueError("parameters must be leaves that require grad, not results of ops")
    dtypes = {t.dtype for t in tensors}
    if len(dtypes) > 1:
        raise ValueError(f"parameters must share one dtype, not {', '.join(sorted(map(str, dtypes)))}")
    buffer = buffer_of(tensors)
    if buffer is None:
        buffer = np.concatenate([t.data.reshape(-1) for t in tensors]) if tensors else np.empty(0, np.float32)
        for t, view in zip(tensors, views(buffer, [t.shape for t in tensors]), strict=True):
            t.data = view
    return buffer


def gather_(into: Sequence[Any], gradients: Sequence[Any]) -> None:
    """Write a gradient (a Tensor or an array) into each view of a buffer; ValueError if they do not fit.

    TypeError for what :func:`tensor` refuses.
    """
    if len(gradients) != len(into):
        raise ValueError(f"step: {len(gradients)} gradients for {len(into)} parameters")
    arrays = [g.data if isinstance(g, Tensor) else _array(i, g) for i, g in enumerate(gradients)]
    for i, (view, g) in enumerate(zip(into, arrays, strict=True)):
        if g.shape != view.shape:
            raise ValueError(f"step: gradient {i} has shape {g.shape}, its parameter {view.shape}")
    for view, g in zip(into, arrays, strict=True):
        view[...] = g


def _array(i: int, g: Any) -> Any:
    """Return gradient ``i``, no Tensor, as an array of numbers."""
    if not is_array(g) or isinstance(g, np.ma.MaskedArray) or g.dtype not in FLOATS:
        try:
            tensor(g, device=device_of(g))
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"step: gradient {i}: {error}") from None
    return as_array(g)


@dataclass(frozen=True)
class clip_norm:
    """Shortens a flat gradient longer than ``most`` to that Euclidean norm (1211.5063).

    An optimiser takes it as ``between``. ValueError unless ``most`` > 0. The step refuses a norm that is not finite.
    """

    most: float

    def __post_init__(self) -> None:
        if not number("clip_norm: the norm", self.most) > 0:
            raise ValueError(f"clip_norm: the norm must be a number > 0, not {self.most}")

    def __call__(self, buffer: Any) -> None:
        """Shorten the gradient in place."""
        norm = math.sqrt(kernels.squared_norm(buffer))
        if norm > self.most and math.isfinite(norm):
            buffer *= buffer.dtype.type(self.most / norm)
