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

from minigan.engine.device import is_array
from minigan.engine.gradmode import current_mode, is_grad_enabled
from minigan.engine.recorder import recording
from minigan.engine.tensor import FLOAT32, FLOATS, Tensor, native, tensor, wrap
from minigan.kernels import in_one_moment

Rule = Callable[..., Any]
_primitives: list[Primitive] = []


class Primitive:
    """An op that the engine differentiates: a function on arrays, and one rule for each array argument.

    Array arguments are positional (a Tensor, an array, a number or None), settings keyword-only. A rule is called as
    ``rule(g, y, *arguments, **settings)``: the cotangent, the result and the arguments, arrays as Tensors.

    One rule holds for what goes in: arrays are float32 or float64, and with ``integers`` also integers and bools, which
    do not mix with floats (but a bool mask does); NumPy's scalars count as Python's numbers. TypeError for the rest.
    Numbers that no array goes with become arrays by the rule of :func:`tensor`, of one dtype.
    A recorded call keeps copies of arrays that are not Tensors: their owner may write into them before the gradient.
    """

    def __init__(
        self, forward: Callable[..., Any], name: str, *, register: bool = True, integers: bool = False
    ) -> None:
        self.forward = forward
        self.name = name
        self.integers = integers
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
        record = odd = found = False
        arrays = []
        for x in args:
            if type(x) is Tensor:
                data = x.data
                found = True
                arrays.append(data)
                if x.requires_grad:
                    record = True
                elif data.dtype is not FLOAT32 and data.dtype not in FLOATS:
                    odd = True
            elif x is None or type(x) is float or type(x) is int:
                arrays.append(x)
            else:
                odd = True
                arrays.append(_operand(self.name, x))
                found = found or is_array(arrays[-1])
        if not found:
            odd, arrays = True, _made_of_numbers(arrays)
        if odd:
            self._check(arrays, settings)
        try:
            data = self.forward(*arrays, **settings)
        except (ValueError, TypeError, IndexError) as error:
            kind = next(k for k in (ValueError, TypeError, IndexError) if isinstance(error, k))
            raise kind(f"{describe_call(self.name, arrays, settings)}: {error}") from None
        if record and current_mode() is not None and not is_grad_enabled():
            record = False
            if not in_one_moment():
                leaves = [x.data for x in args if type(x) is Tensor and x.requires_grad and x.op is None]
                data = _apart(data, leaves)  # an optimiser writes into them, and no graph would notice
        if odd:
            foreign = [a for x, a in zip(args, arrays, strict=True) if type(x) is not Tensor and is_array(a)]
            data = _apart(data, foreign)
            args = tuple(_kept(x, a, record) for x, a in zip(args, arrays, strict=True))
        recorder = recording()
        if recorder is not None:
            data = recorder.add(self.forward, arrays, settings, data)
        return wrap(data, True, self, args, settings) if record else wrap(data)

    def _check(self, arrays: Sequence[Any], settings: dict[str, Any]) -> None:
        """Raise TypeError for dtypes that this op does not take."""
        found = [x.dtype for x in arrays if is_array(x)]
        floats = [d for d in found if d in FLOATS] + [x for x in arrays if type(x) is float]
        whole = [d for d in found if d.kind in "iub"]
        if all(d in FLOATS for d in found) or (whole and len(whole) == len(found) and self.integers and not floats):
            return
        call = describe_call(self.name, arrays, settings)
        if any(d not in FLOATS and d.kind not in "iub" for d in found):
            raise TypeError(f"{call}: arrays must be float32, float64, integers or bools")
        if not self.integers:
            raise TypeError(f'{call}: arrays must be float32 or float64: use astype("float32")')
        if any(d.kind != "b" for d in whole) or len(whole) == len(found):
            raise TypeError(f'{call}: integers do not mix with floats: use astype("float32") on them')

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"


def _operand(name: str, x: Any) -> Any:
    """Return an argument that is no Tensor and no Python number as a plain array or a number; TypeError for others."""
    if isinstance(x, np.generic):
        x = x.item()  # like a Python number, a NumPy scalar does not raise the dtype
    if isinstance(x, bool | int | float):
        return x
    if isinstance(x, list | tuple):
        return tensor(x).data
    if isinstance(x, np.ndarray) and not isinstance(x, np.ma.MaskedArray):
        return np.require(x, native(x.dtype), "A")
    if is_array(x) and not isinstance(x, np.ndarray):
        return x
    raise TypeError(f"{name}: arguments are Tensors, arrays and real numbers, not {type(x).__name__}")


def _made_of_numbers(arguments: list[Any]) -> list[Any]:
    """Return numbers as arrays of the dtype that :func:`tensor` gives to them all; None stays None."""
    dtype = tensor([x for x in arguments if x is not None]).dtype
    return [None if x is None else np.array(x, dtype) for x in arguments]


def _kept(given: Any, array: Any, record: bool) -> Any:
    """Return an argument as a graph holds it: an array as a Tensor, copied if the graph is recorded."""
    if type(given) is Tensor or not is_array(array):
        return given if type(given) is Tensor else array
    return wrap(_copied(array) if record else array)


def _copied(array: Any) -> Any:
    copied, recorder = array.copy(), recording()
    return copied if recorder is None else recorder.add(_copied, [array], {}, copied)


def _apart(data: Any, foreign: Sequence[Any]) -> Any:
    """Return a result that shares no memory with arrays that somebody may write into later, in the same layout."""
    return data.copy("K") if any(_may_share_memory(data, array) for array in foreign) else data


def _may_share_memory(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.may_share_memory(a, b)
    return is_array(a) and is_array(b) and _owner(a) is _owner(b)


def _owner(array: Any) -> Any:
    """Return the array whose memory a view on a device shows."""
    return array if getattr(array, "base", None) is None else array.base


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
            return tuple(wrap(data) for data in joint.data)
        return tuple(
            wrap(data, True, part, joint.inputs, settings) for part, data in zip(self.parts, joint.data, strict=True)
        )


def primitive(forward: Callable[..., Any]) -> Primitive:
    """Make a primitive of a function on arrays of floats."""
    return _dressed(Primitive(forward, forward.__name__.strip("_")))


def primitive_of_numbers(forward: Callable[..., Any]) -> Primitive:
    """Make a primitive of a function on arrays of floats, integers or bools."""
    return _dressed(Primitive(forward, forward.__name__.strip("_"), integers=True))


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
