"""A minibatch: samples and their conditions."""

from __future__ import annotations

from typing import Any, NamedTuple

from minigan.engine.device import as_array
from minigan.engine.tensor import Tensor, wrap
from minigan.ops.elementwise import raw


class Batch(NamedTuple):
    """Samples or noise ``x`` (N, ...), and the conditions ``given`` (N, K): a one-hot class or attributes of 0 and 1.

    Both are float32: a trace would treat integers as constants.
    """

    x: Tensor
    given: Tensor | None = None


def as_batch(x: Any) -> Batch:
    """Return x as a batch: itself, or a Tensor or an array of samples without conditions."""
    if isinstance(x, Batch):
        return x
    return Batch(x if isinstance(x, Tensor) else wrap(as_array(raw(x))))
