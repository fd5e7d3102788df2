"""A module: a function with parameters, which can be called with other parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np

from minigan.engine.autodiff import renew
from minigan.engine.device import resolve, to_device
from minigan.engine.flat import flatten_
from minigan.engine.habits import missing
from minigan.engine.recorder import perform_on_a_passing
from minigan.engine.tensor import FLOATS, Tensor


def _refilled(container: Any, parts: list[Any]) -> Any:
    """Return a list, tuple, named tuple or dict of the same type with other parts."""
    if isinstance(container, dict):
        twin = copy.copy(container)
        twin.update(zip(container, parts, strict=True))
        return twin
    return type(container)(*parts) if hasattr(container, "_fields") else type(container)(parts)


def _rebuilt_in(value: Any, f: Callable[[Module], Module], known: dict[int, Module]) -> Any:
    """Return an attribute with the modules in it rebuilt: itself if nothing changed.

    A function inside a method would refer to itself, and so keep the parameters alive until a garbage collection.
    """
    if isinstance(value, Module):
        return value._rebuilt(f, known)
    if isinstance(value, list | tuple | dict):
        parts = list(value.values() if isinstance(value, dict) else value)
        new = [part._rebuilt(f, known) if isinstance(part, Module) else part for part in parts]
        if any(a is not b for a, b in zip(new, parts, strict=True)):
            return _refilled(value, new)
    return value


class Module:
    """The base of layers and networks: subclass it, set Tensors and Modules as attributes, and write ``forward``.

    Tensors that require grad are parameters; names listed in ``buffer_names`` are arrays that belong to the state (the
    running statistics of a batch norm, say) but are not trained. Buffers are replaced, never written into, so a copy
    made by :meth:`with_parameters` does not change them here.

    A ``conditional`` network's ``forward(x, given)`` also takes the conditions (N, K) of its samples or noise. A layer
    that an initialiser may start holds a weight ``w`` and a bias ``b`` (or None), and declares ``fans``: (fan-in,
    fan-out).
    """

    buffer_names: tuple[str, ...] = ()
    fans: tuple[int, int] | None = None
    conditional: bool = False
    training: bool = True

    def restart(self) -> None:
        """Follow weights that were started again: :func:`initialise` calls it. Most modules have nothing to do."""

    def forward(self, *inputs: Any) -> Tensor:
        """Compute the output; subclasses must write this."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Apply the module: the same as ``forward``."""
        return self.forward(*args, **kwargs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __getattr__(self, name: str) -> Any:
        return missing("Module", self, name)

    def children(self) -> Iterator[tuple[str, Module]]:
        """Yield (name, module) for every module held directly, also in lists and dicts."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, list | tuple | dict):
                parts = value.items() if isinstance(value, dict) else enumerate(value)
                yield from ((f"{name}.{key}", part) for key, part in parts if isinstance(part, Module))

    def modules(self) -> Iterator[tuple[str, Module]]:
        """Yield (path, module) for this module and all below it."""
        yield "", self
        for name, child in self.children():
            for path, module in child.modules():
                yield f"{name}.{path}".rstrip("."), module

    def named_parameters(self) -> dict[str, Tensor]:
        """Return every parameter by its path, in the order of definition; a shared one by its first path."""
        found: dict[str, Tensor] = {}
        seen = set()
        for path, module in self.modules():
            for name, value in vars(module).items():
                if isinstance(value, Tensor) and value.requires_grad and value not in seen:
                    seen.add(value)
                    found[f"{path}.{name}".lstrip(".")] = value
        return found

    def parameters(self) -> list[Tensor]:
        """Return every parameter, in the order of definition; together they are views of one flat buffer."""
        found = list(self.named_parameters().values())
        if all(p.op is None for p in found):  # false after with_parameters(results of ops)
            flatten_(found)
        return found

    def named_buffers(self) -> dict[str, np.ndarray]:
        """Return every buffer by its path."""
        return {
            f"{path}.{name}".lstrip("."): getattr(module, name)
            for path, module in self.modules()
            for name in module.buffer_names
        }

    def load_buffers(self, buffers: dict[str, np.ndarray]) -> None:
        """Set the buffers named by their paths."""
        owners = dict(self.modules())
        for path, value in buffers.items():
            owner, _, name = path.rpartition(".")
            setattr(owners[owner], name, value)

    def with_parameters(self, tensors: Sequence[Tensor]) -> Self:
        """Return the same network on other parameters; nothing is copied, and buffers are shared until they change.

        ValueError unless ``tensors`` match :meth:`parameters` in number and shapes.
        """
        own = self.named_parameters()
        if [t.shape for t in tensors] != [p.shape for p in own.values()]:
            raise ValueError(
                f"with_parameters needs {len(own)} Tensors of shapes {[p.shape for p in own.values()]}, "
                f"not {len(tensors)} of shapes {[t.shape for t in tensors]}"
            )
        table = dict(zip(map(id, own.values()), tensors, strict=True))

        def on_others(module: Module) -> Module:
            twin = copy.copy(module)
            for name, value in vars(module).items():
                if isinstance(value, Tensor) and id(value) in table:
                    setattr(twin, name, table[id(value)])
            return twin

        made = self.rebuilt(on_others)
        for (_, twin), (_, module) in zip(made.modules(), self.modules(), strict=True):
            if module.buffer_names:
                perform_on_a_passing(twin, twin._take_buffers, module)
        return made

    def rebuilt(self, f: Callable[[Module], Module]) -> Any:
        """Return the network with every module m in it replaced by ``f(m)``, inner ones first.

        A module that stands in several places is replaced by one. This network does not change: modules that hold a
        replaced one are copied, and parameters are shared. A change reaches modules inside a block too:
        ``D.rebuilt(lambda m: mg.nn.SpectralNorm(m) if isinstance(m, mg.nn.Conv2d) else m)``.
        """
        return self._rebuilt(f, {})

    def _rebuilt(self, f: Callable[[Module], Module], known: dict[int, Module]) -> Module:
        if id(self) in known:
            return known[id(self)]

        changed = {name: _rebuilt_in(value, f, known) for name, value in vars(self).items()}
        twin = self
        if any(changed[name] is not value for name, value in vars(self).items()):
            twin = copy.copy(self)
            vars(twin).update(changed)
        known[id(self)] = f(twin)
        return known[id(self)]

    def _take_buffers(self, other: Module) -> None:
        for name in self.buffer_names:
            setattr(self, name, getattr(other, name))

    def to(self, device: str) -> Self:
        """Move the parameters and the buffers of floats to ``device``, and return the module.

        An optimiser made before holds the old parameters: make it afterwards.
        """
        device = resolve(device)
        for p in self.named_parameters().values():
            p.data = to_device(p.data, device)
        renew(self.parameters())
        buffers = self.named_buffers().items()
        self.load_buffers({name: to_device(b, device) for name, b in buffers if b.dtype.kind == "f"})
        return self

    def astype(self, dtype: Any) -> Self:
        """Make the parameters and the buffers of floats float32 or float64, and return the module.

        An optimiser made before holds the old parameters: make it afterwards.
        """
        if np.dtype(dtype) not in FLOATS:
            raise TypeError(f"parameters are float32 or float64, not {np.dtype(dtype)}")
        for p in self.named_parameters().values():
            p.data = p.data.astype(dtype)
        renew(self.parameters())
        buffers = self.named_buffers().items()
        self.load_buffers({name: b.astype(dtype) for name, b in buffers if b.dtype.kind == "f"})
        return self

    def train(self, mode: bool = True) -> Self:
        """Switch this module and all below it to training behaviour, and return it."""
        for _, module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Switch to inference: batch norm uses its running statistics, dropout does nothing."""
        return self.train(False)
