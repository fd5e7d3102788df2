"""Layers one after the other."""

from __future__ import annotations

import numpy as np

from minigan.engine.gradmode import no_grad
from minigan.engine.tensor import Tensor, wrap
from minigan.nn.layers import Activation, Fusing
from minigan.nn.module import Module


def can_fuse(layer: Module, follower: Module) -> bool:
    """Return whether ``layer(x, follower)`` is known to be follower(layer(x)).

    It is where both are what this library wrote. A ``forward`` of somebody else's may mean anything.
    """
    if not isinstance(layer, Fusing) or not isinstance(follower, Activation):
        return False
    methods = layer.forward, layer.__call__, follower.forward, follower.__call__
    return all(str(method.__module__).startswith("minigan.") for method in methods) and layer.fuses(follower)


class Sequential(Module):
    """Apply layers in order; an activation is fused into the layer before it if possible (the same bits)."""

    def __init__(self, *layers: Module) -> None:
        for layer in layers:
            if not isinstance(layer, Module):
                raise TypeError(f"Sequential: every layer must be a Module, not {type(layer).__name__}")
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        """Return the last layer's output."""
        layers = iter(self.layers)
        layer = next(layers, None)
        while layer is not None:
            follower = next(layers, None)
            if follower is not None and can_fuse(layer, follower):
                x = layer(x, follower)
                follower = next(layers, None)
            else:
                x = layer(x)
            layer = follower
        return x

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> Module:
        return self.layers[index]

    def summary(self, shape: tuple[int, ...]) -> str:
        """Return a table of layer, output shape and parameters for one sample of ``shape`` (without the batch axis)."""
        rows, total = [("layer", "output", "parameters"), ("input", str(tuple(shape)), "")], 0
        x = wrap(np.zeros((1, *shape), np.float32))
        modes = {module: module.training for _, module in self.modules()}
        self.eval()
        try:
            with no_grad():
                for layer in self.layers:
                    x = layer(x)
                    count = sum(p.size for p in layer.named_parameters().values())
                    total += count
                    rows.append((repr(layer), str(x.shape[1:]), f"{count:,}" if count else ""))
        finally:
            for module, training in modes.items():
                module.training = training
        rows.append(("total", "", f"{total:,}"))
        left, middle = (max(len(row[i]) for row in rows) for i in (0, 1))
        lines = [f"{a:<{left}}  {b:<{middle}}  {c:>10}".rstrip() for a, b, c in rows]
        rule = "-" * max(map(len, lines))
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"
