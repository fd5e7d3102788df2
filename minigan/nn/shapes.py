"""Layers that give samples another shape."""

from __future__ import annotations

from minigan import ops
from minigan.engine.tensor import Tensor
from minigan.nn.module import Module
from minigan.ops.shape import whole_numbers


class Flatten(Module):
    """(N, ...) to (N, the product of the rest)."""

    def forward(self, x: Tensor) -> Tensor:
        """Flatten every sample."""
        return ops.flatten_samples(x)

    def __repr__(self) -> str:
        return "Flatten()"


class Reshape(Module):
    """(N, ...) to (N, *shape)."""

    def __init__(self, *shape: int) -> None:
        self.shape = whole_numbers("Reshape: a length", shape[0] if len(shape) == 1 else shape)

    def forward(self, x: Tensor) -> Tensor:
        """Give every sample the shape."""
        return ops.reshape(x, (x.shape[0], *self.shape))

    def __repr__(self) -> str:
        return f"Reshape({', '.join(map(str, self.shape))})"
