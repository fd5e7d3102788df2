"""Reverse-mode differentiation: primitives, their vector-Jacobian products, and gradients of any order.

    y = f(x₁, …, xₙ) with cotangent g = ∂L/∂y:    the rule of argument i returns g · ∂y/∂xᵢ

Rules are written with ops on Tensors, so the gradient is itself a graph where one asks for it (``create_graph``), and
every higher derivative exists without a second set of rules. There is no ``.grad`` slot: cotangents live in a dict for
the time of one call, and only nodes on a path from the output to what is asked for are visited.
"""

from __future__ import annotations

import functools
import inspect
import operator
import sys
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np

from minigan.tensor import FLOATS, Tensor, next_id

# --- whether ops record a graph ---------------------------------------------------------------------------------------


class _Mode:
    """One entered ``with`` block. Blocks form a chain from inner to outer, held by a context variable.

    A generator that yields inside a block must not switch recording off for its consumer: a block entered by a
    generator counts only while that generator's frame is on the stack, and blocks may be left in any order.
    """

    __slots__ = ("active", "enabled", "frame", "outer")

    def __init__(self, enabled: bool, outer: _Mode | None, frame: int | None) -> None:
        self.enabled = enabled
        self.outer = outer
        self.frame = frame
        self.active = True

    def on_stack(self) -> bool:
        frame: Any = sys._getframe(1)
        while frame is not None:
            if id(frame) == self.frame:
                return True
            frame = frame.f_back
        return False


_mode: ContextVar[_Mode | None] = ContextVar("minigan_grad_mode", default=None)
_current_mode = _mode.get


def is_grad_enabled() -> bool:
    """Return whether ops on Tensors that require grad record a graph here."""
    mode = _current_mode()
    while mode is not None:
        if mode.active and (mode.frame is None or mode.on_stack()):
            return mode.enabled
        mode = mode.outer
    return True


_SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class _GradMode:
    enabled: bool

    def __init__(self) -> None:
        self._entered: list[_Mode] = []

    def __enter__(self) -> None:
        frame = sys._getframe(1)
        suspendable = frame.f_code.co_flags & _SUSPENDABLE
        mode = _Mode(self.enabled, _mode.get(), id(frame) if suspendable else None)
        self._entered.append(mode)
        _mode.set(mode)

    def __exit__(self, *error: object) -> None:
        self._entered.pop().active = False
        mode = _mode.get()
        while mode is not None and not mode.active:
            mode = mode.outer
        _mode.set(mode)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate a function or a generator function: its body runs in this mode."""
        make = type(self)
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generator(*args: Any, **kwargs: Any) -> Any:
                with make():
                    return (yield from function(*args, **kwargs))

            return generator

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                with make():
                    return await function(*args, **kwargs)

            return coroutine

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with make():
                return function(*args, **kwargs)

        return wrapper


class no_grad(_GradMode):  # noqa: N801
    """Record no graph inside the ``with`` block, or inside the function it decorates."""

    enabled = False


class enable_grad(_GradMode):  # noqa: N801
    """Record a graph inside the ``with`` block even where an outer block switched recording off."""

    enabled = True


# --- primitives -------------------------------------------------------------------------------------------------------

Rule = Callable[..., Any]
_primitives: list[Primitive] = []


class Primitive:
    """An op that the engine differentiates: a function on arrays, and one rule for each array argument.

    Array arguments are positional (a Tensor, an array, a number or None), settings keyword-only. A rule is called as
    ``rule(g, y, *arguments, **settings)``: the cotangent and the result as Tensors, the arguments as they were given.
    """

    def __init__(self, forward: Callable[..., Any], name: str) -> None:
        self.forward = forward
        self.name = name
        self.rules: tuple[Rule | None, ...] = ()
        self.joint_rule: Rule | None = None
        _primitives.append(self)

    def defvjp(self, *rules: Rule | None) -> None:
        """Give one rule for each array argument; None where there is nothing to differentiate."""
        self.rules = rules

    def defvjp_joint(self, rule: Rule) -> None:
        """Give one rule that returns the cotangents of all arguments at once, where they share their work."""
        self.joint_rule = rule

    def __call__(self, *args: Any, **settings: Any) -> Any:
        """Compute the result, and record how where an argument requires grad."""
        record = False
        arrays = []
        for x in args:
            if type(x) is Tensor:
                arrays.append(x.data)
                if x.requires_grad:
                    record = True
            elif isinstance(x, np.generic):
                arrays.append(x.item())  # NumPy scalars are as weak as Python's: they do not raise the dtype
            else:
                arrays.append(x)
        try:
            data = self.forward(*arrays, **settings)
        except (ValueError, TypeError) as error:
            kind = ValueError if isinstance(error, ValueError) else TypeError
            raise kind(f"{describe_call(self.name, arrays, settings)}: {error}") from None
        if record and (_current_mode() is None or is_grad_enabled()):
            return Tensor(data, True, self, args, settings)
        return Tensor(data)

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"


class MemoPrimitive(Primitive):
    """A primitive whose forward returns (y, memo): the memo stays on y for its rule and for whoever asked for y."""

    def __call__(self, *args: Any, **settings: Any) -> Any:
        """Compute the result, with its memo."""
        y = super().__call__(*args, **settings)
        y.data, y.memo = y.data
        return y


class MultiPrimitive(Primitive):
    """A primitive with several results: each is a node with its own rules, ``parts[i]``."""

    def __init__(self, forward: Callable[..., Any], name: str, results: int) -> None:
        super().__init__(forward, name)
        _primitives.remove(self)
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
    """Return the call in words, with dtypes and shapes: what error messages start with."""
    words = [f"{x.dtype} {x.shape}" if hasattr(x, "shape") else repr(x) for x in arrays]
    return f"{name}({', '.join(words + [f'{key}={value!r}' for key, value in settings.items()])})"


# --- gradients --------------------------------------------------------------------------------------------------------


def _path(outputs: Iterable[Tensor], inputs: set[Tensor]) -> list[tuple[Tensor, list[int]]]:
    """Return the nodes between the outputs and the inputs, later ones first, and which arguments lead to an input."""
    floor = min(x.id for x in inputs)  # what is older than every input cannot depend on one
    seen = {y for y in outputs if y.requires_grad}
    stale: dict[Tensor, Tensor] = {}
    stack = list(seen)
    while stack:
        node = stack.pop()
        for x in node.inputs:
            if type(x) is Tensor and x.requires_grad and x not in seen:
                if x.id > node.id:
                    stale[node] = x
                elif x.id >= floor:
                    seen.add(x)
                    stack.append(x)
    on_path: set[Tensor] = set()
    steps = []
    for node in sorted(seen, key=_by_id):
        leading = [i for i, x in enumerate(node.inputs) if type(x) is Tensor and x in on_path]
        if leading:
            steps.append((node, leading))
            on_path.add(node)
        elif node in inputs:
            on_path.add(node)
    if stale:
        _refuse_stale(stale, on_path, inputs)
    steps.reverse()
    return steps


_by_id = operator.attrgetter("id")


def _fit(cotangent: Tensor, x: Tensor) -> Tensor:
    """Undo broadcasting and dtype promotion: the one place where this is done."""
    if cotangent.data.shape != x.data.shape:
        cotangent = cotangent.sum_to(x.data.shape)
    if cotangent.data.dtype != x.data.dtype:
        cotangent = cotangent.astype(x.data.dtype)
    return cotangent


def _refuse_stale(stale: dict[Tensor, Tensor], on_path: set[Tensor], inputs: set[Tensor]) -> None:
    """Raise where a rule would use a value that has changed since, or an input's part in the graph is out of date."""
    for node, x in stale.items():
        if node in on_path or x in inputs:
            raise ValueError(
                f"grad: an argument of {node.op.name}, a Tensor of shape {x.shape}, was changed (by an optimiser) "
                "after the graph was computed: compute the output again"
            )


def _backward(
    outputs: Sequence[Tensor], cotangents: Sequence[Tensor], inputs: Sequence[Tensor], create_graph: bool
) -> list[Tensor | None]:
    """Return Σ cotangent · ∂output/∂input for every input, None where no output depends on it."""
    if not inputs:
        return []
    wanted = set(inputs)
    table: dict[Tensor, Tensor] = {}
    with enable_grad() if create_graph else no_grad():
        for y, g in zip(outputs, cotangents, strict=True):
            table[y] = table[y] + g if y in table else g
        for node, leading in _path(outputs, wanted):
            cotangent = table.get(node) if node in wanted else table.pop(node, None)
            if cotangent is None:
                continue
            op, arguments, settings = node.op, node.inputs, node.settings
            joint = op.joint_rule is not None
            rules = op.joint_rule(cotangent, node, *arguments, **settings) if joint else op.rules
            for i in leading:
                part = rules[i]
                if part is not None and not joint:
                    part = part(cotangent, node, *arguments, **settings)
                if part is not None:
                    x = arguments[i]
                    part = _fit(part, x)
                    table[x] = table[x] + part if x in table else part
    return [table.get(x) for x in inputs]


def grad(output: Tensor, inputs: Any, grad_output: Any = None, *, create_graph: bool = False) -> Any:
    """Return the gradient of ``output`` with respect to ``inputs``, in the structure of ``inputs``.

    ``inputs`` is a Tensor, or lists, tuples and dicts of Tensors. ``grad_output`` is the cotangent, of the shape of
    ``output``; it may be left out where ``output`` has one entry. With ``create_graph`` the gradients can be
    differentiated again.

    ValueError if an input requires no grad or ``output`` does not depend on it; TypeError for things that are not
    Tensors. The arrays returned share no memory with one another, the inputs or ``grad_output``.
    """
    if not isinstance(output, Tensor):
        raise TypeError(f"grad: the output must be a Tensor, not {type(output).__name__}")
    leaves = flatten(inputs)
    for i, x in enumerate(leaves):
        if not isinstance(x, Tensor):
            raise TypeError(f"grad: inputs[{i}] must be a Tensor, not {type(x).__name__}")
        if not x.requires_grad:
            raise ValueError(f"grad: inputs[{i}] of shape {x.shape} does not require grad")
    if not leaves:
        return inputs
    if not output.requires_grad:
        raise ValueError("grad: the output does not depend on anything that requires grad (or was made in no_grad)")
    cotangent = _as_cotangent("grad", output, grad_output)
    results = _backward([output], [cotangent], leaves, create_graph)
    reached = set(leaves) if None not in results else _reached(output, leaves)
    for i, x in enumerate(leaves):
        if results[i] is None and x in reached:  # a path whose derivative is zero everywhere: sign, a step, ...
            results[i] = Tensor(np.zeros_like(x.data))
        elif results[i] is None:
            why = (
                "was changed (by an optimiser) after the output was computed"
                if x.id > output.id
                else "is not on a path"
            )
            raise ValueError(f"grad: inputs[{i}] of shape {x.shape} {why} to the output ({output.op}, {output.shape})")
    return unflatten(inputs, iter(_own(results, [output.data, cotangent.data, *(x.data for x in leaves)])))


def _reached(output: Tensor, inputs: Sequence[Tensor]) -> set[Tensor]:
    """Return the inputs that ``output`` was computed from, whatever the derivative."""
    return {node.inputs[i] for node, leading in _path([output], set(inputs)) for i in leading} | {output}


def _as_cotangent(name: str, output: Tensor, given: Any) -> Tensor:
    if given is None:
        if output.size != 1:
            raise ValueError(f"{name}: an output of shape {output.shape} needs a grad_output of that shape")
        return Tensor(np.ones_like(output.data))
    cotangent = given if isinstance(given, Tensor) else Tensor(np.asarray(given, dtype=output.dtype))
    if cotangent.shape != output.shape:
        raise ValueError(f"{name}: grad_output has shape {cotangent.shape}, the output {output.shape}")
    return cotangent if cotangent.dtype == output.dtype else cotangent.astype(output.dtype)


@primitive
def _copy(x: Any) -> Any:
    return x.copy()


_copy.defvjp(lambda g, y, x: g)


def _own(results: Sequence[Tensor | None], others: list[Any]) -> list[Any]:
    """Give every result an array of its own: rules may return views, or one array for two arguments."""
    taken = {id(array) for array in others}
    owned = []
    for result in results:
        if result is not None:
            if result.data.base is not None or id(result.data) in taken:
                with enable_grad():
                    result = _copy(result)
            taken.add(id(result.data))
        owned.append(result)
    return owned


def flatten(structure: Any) -> list[Any]:
    """Return the leaves of nested lists, tuples and dicts, in order."""
    if isinstance(structure, dict):
        structure = list(structure.values())
    if isinstance(structure, list | tuple):
        return [leaf for part in structure for leaf in flatten(part)]
    return [structure]


def unflatten(structure: Any, leaves: Any) -> Any:
    """Return ``structure`` with its leaves replaced, in order, by those of the iterator ``leaves``."""
    if isinstance(structure, dict):
        return {key: unflatten(part, leaves) for key, part in structure.items()}
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):
        return type(structure)(*(unflatten(part, leaves) for part in structure))
    if isinstance(structure, list | tuple):
        return type(structure)(unflatten(part, leaves) for part in structure)
    return next(leaves)


# --- functions of functions -------------------------------------------------------------------------------------------


def _variables(xs: Sequence[Any]) -> list[Tensor]:
    """Return fresh nodes for xs: distinct even where one Tensor is given twice, connected where a graph exists."""
    fresh = []
    for x in xs:
        x = x if isinstance(x, Tensor) else Tensor(np.asarray(x))
        if x.dtype not in FLOATS:
            raise TypeError(f"only float32 and float64 can be differentiated, not {x.dtype}")
        fresh.append(_copy(x) if x.requires_grad else Tensor(x.data, True))
    return fresh


def vjp(f: Callable[..., Any], *xs: Any) -> tuple[Any, Callable[[Any], tuple[Tensor, ...]]]:
    """Return (f(*xs), pullback): ``pullback(g)`` gives gᵀ·∂f/∂x for every x, zeros where f does not use it.

    ``f`` returns a Tensor or a structure of Tensors, and ``g`` has that structure. The results of the pullback can be
    differentiated further with respect to Tensors among ``xs`` and ``g`` that require grad.
    """
    with enable_grad():
        variables = _variables(xs)
        result = f(*variables)
    outputs = flatten(result)

    def pullback(g: Any) -> tuple[Tensor, ...]:
        cotangents = [_as_cotangent("vjp", y, part) for y, part in zip(outputs, flatten(g), strict=True)]
        again = is_grad_enabled()
        found = _backward(outputs, cotangents, variables, create_graph=again)
        filled = [Tensor(np.zeros_like(x.data)) if r is None else r for x, r in zip(variables, found, strict=True)]
        taken = [x.data for x in variables] + [g.data for g in cotangents] + [y.data for y in outputs]
        return tuple(_own(filled, taken))

    return result, pullback


def value_and_grad(f: Callable[..., Tensor], *xs: Any) -> Any:
    """Return (f(*xs), gradient); without ``xs``, return the function that does so.

    ``f`` returns a Tensor of one entry. The gradient is a Tensor for one argument, a tuple for several.
    """
    if not xs:
        return lambda *arguments: value_and_grad(f, *arguments)
    value, pullback = vjp(f, *xs)
    gradients = pullback(np.ones(value.shape, value.dtype))
    return value, gradients[0] if len(xs) == 1 else gradients


def jvp(f: Callable[..., Any], xs: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """Return (f(*xs), Σ ∂f/∂x · tangent): the derivative of f along ``tangents``, in the structure of f's result.

    The pullback g ↦ gᵀJ is linear in g; its own pullback at the tangents is J·tangent.
    """
    if len(xs) != len(tangents):
        raise ValueError(f"jvp: {len(xs)} inputs but {len(tangents)} tangents")
    with enable_grad():
        variables = _variables(xs)
        result = f(*variables)
        outputs = flatten(result)
        probes = [Tensor(np.zeros_like(y.data), True) for y in outputs]
        pulled = _backward(outputs, probes, variables, create_graph=True)
        pairs = [
            (p, _as_cotangent("jvp", x, t))
            for x, p, t in zip(variables, pulled, tangents, strict=True)
            if p is not None
        ]
    found = _backward([p for p, _ in pairs], [t for _, t in pairs], probes, create_graph=is_grad_enabled())
    filled = [Tensor(np.zeros_like(y.data)) if r is None else r for y, r in zip(outputs, found, strict=True)]
    return result, unflatten(result, iter(_own(filled, [t.data for _, t in pairs])))


def hvp(f: Callable[[Any], Tensor], x: Any, v: Any) -> Any:
    """Return H·v, the Hessian of the one-entry ``f`` at ``x`` times ``v``; x and v may be lists of Tensors."""
    xs, vs = flatten(x), flatten(v)
    if [np.shape(getattr(a, "data", a)) for a in xs] != [np.shape(getattr(a, "data", a)) for a in vs]:
        raise ValueError("hvp: x and v must have the same structure and shapes")

    def gradient(*variables: Tensor) -> tuple[Tensor, ...]:
        value, pullback = vjp(lambda *parts: f(unflatten(x, iter(parts))), *variables)
        return pullback(np.ones(value.shape, value.dtype))

    _, pullback = vjp(gradient, *xs)
    return unflatten(x, iter(pullback(tuple(vs))))


def renew(tensors: Iterable[Tensor]) -> None:
    """Mark leaves as changed in place: graphs that used them before refuse to be differentiated."""
    for x in tensors:
        x.id = next_id()
        x.memo = None
