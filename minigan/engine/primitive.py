"""Primitives: the ops that the engine differentiates, each a function on arrays with its vector-Jacobian products.

    y = f(x₁, …, xₙ) with cotangent g = ∂L/∂y:    the rule of argument i returns g · ∂y/∂xᵢ

Rules are written with ops on Tensors, so a gradient can itself have a graph, and every higher derivative exists without
a second set of rules.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from minigan.engine.gradmode import current_mode, is_grad_enabled
from minigan.engine.recorder import recording
from minigan.engine.tensor import Tensor, tensor

Rule = Callable[..., Any]
_primitives: list[Primitive] = []


class Primitive:
    """An op that the engine differentiates: a function on arrays, and one rule for each array argument.

    Array arguments are positional (a Tensor, an array, a number or None), settings keyword-only. A rule is called as
    ``rule(g, y, *arguments, **settings)``: the cotangent and the result as Tensors, the arguments as they were given.
    """

    def __init__(self, forward: Callable[..., Any], name: str, *, register: bool = True) -> None:
        self.forward = forward
        self.name = name
        self.rules: tuple[Rule | None, ...] = ()
        self.joint_rule: Rule | None = None
        if register:
            _primitives.append(self)

    def defvjp(self, *rules: Rule | None) -> None:
        """Give one rule for each array argument; None for an argument that is never differentiated."""
        self.rules = rules

    def defvjp_joint(self, rule: Rule) -> None:
        """Give one rule that returns the cotangents of all arguments at once, because they share work.

        A cotangent may be a function without arguments; it is called only if a path leads to its argument.
        """
        self.joint_rule = rule

    def __call__(self, *args: Any, **settings: Any) -> Any:
        """Compute the result, and record the call if an argument requires grad."""
        record = False
        arrays = []
        for x in args:
            if type(x) is Tensor:
                arrays.append(x.data)
                if x.requires_grad:
                    record = True
            elif type(x) is not float and isinstance(x, np.generic):
                arrays.append(x.item())  # like a Python number, a NumPy scalar does not raise the dtype
            elif type(x) is list or type(x) is tuple:
                return self(*(tensor(a).data if isinstance(a, list | tuple) else a for a in args), **settings)
            else:
                arrays.append(x)
        try:
            data = self.forward(*arrays, **settings)
        except (ValueError, TypeError, IndexError) as error:
            kind = next(k for k in (ValueError, TypeError, IndexError) if isinstance(error, k))
            raise kind(f"{describe_call(self.name, arrays, settings)}: {error}") from None
        recorder = recording()
        if recorder is not None:
            data = recorder.add(self.forward, arrays, settings, data)
        if record and (current_mode() is None or is_grad_enabled()):
            return Tensor(data, True, self, args, settings)
        return Tensor(data)

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"


class MemoPrimitive(Primitive):
    """A primitive whose forward returns (y, memo): the memo stays on y, for its rule and for the caller."""

    def __call__(self, *args: Any, **settings: Any) -> Any:
        """Compute the result, with its memo."""
        y = super().__call__(*args, **settings)
        y.data, y.memo = y.data
        return y


class MultiPrimitive(Primitive):
    """A primitive with several results: each is a node with its own rules, ``parts[i]``."""

    def __init__(self, forward: Callable[..., Any], name: str, results: int) -> None:
        super().__init__(forward, name, register=False)
        self.parts = [Primitive(forward, f"{name}[{i}]") for i in range(results)]

    def __call__(self, *args: Any, **settings: Any) -> Any:
        """Compute the results as a tuple."""
        joint = super().__call__(*args, **settings)
        if not joint.requires_grad:
            return tuple(Tensor(data) for data in joint.data)
        return tuple(
            Tensor(data, True, part, args, settings) for part, data in zip(self.parts, joint.data, strict=True)
        )


def primitive(forward: Callable[..., Any]) -> Primitive:
    """Make a primitive of a function on arrays."""
    return _dressed(Primitive(forward, forward.__name__.strip("_")))


def primitive_with_memo(forward: Callable[..., Any]) -> MemoPrimitive:
    """Make a primitive of a function on arrays that returns (result, memo)."""
    return _dressed(MemoPrimitive(forward, forward.__name__.strip("_")))


def primitive_with_results(results: int) -> Callable[[Callable[..., Any]], MultiPrimitive]:
    """Make a primitive of a function on arrays that returns a tuple of ``results`` arrays."""
    return lambda forward: _dressed(MultiPrimitive(forward, forward.__name__.strip("_"), results))


P = TypeVar("P", bound=Primitive)


def _dressed(made: P) -> P:
    """Give a primitive the docstring and the names of its function."""
    functools.update_wrapper(made, made.forward)
    return made


def primitives() -> list[Primitive]:
    """Return every primitive, in the order of definition."""
    return list(_primitives)


def describe_call(name: str, arrays: Sequence[Any], settings: dict[str, Any]) -> str:
    """Return the call in words, with dtypes and shapes: the start of error messages."""
    words = [f"{x.dtype} {x.shape}" if hasattr(x, "shape") else repr(x) for x in arrays]
    return f"{name}({', '.join(words + [f'{key}={value!r}' for key, value in settings.items()])})"
