"""Reverse-mode differentiation: gradients of any order.

There is no ``.grad`` slot: cotangents live in a dict during one call, and only nodes on a path from the output to the
inputs are visited. Rules are ops on Tensors (:mod:`minigan.engine.primitive`), so with ``create_graph`` a gradient has
a graph that can be differentiated again.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from minigan.engine.device import as_array
from minigan.engine.gradmode import enable_grad, no_grad
from minigan.engine.primitive import primitive_of_numbers
from minigan.engine.tensor import Tensor, next_id, tensor, wrap
from minigan.kernels import one_moment


class WrongShape(ValueError):
    """A rule gave a cotangent that does not fit its argument."""


class NoPath(ValueError):
    """A gradient was asked for that no path leads to."""


def _path(outputs: Iterable[Tensor], inputs: set[Tensor]) -> list[tuple[Tensor, list[int]]]:
    """Return the nodes between the outputs and the inputs, later ones first, and which arguments lead to an input."""
    floor = min(x.born for x in inputs)  # a node older than every input cannot depend on one
    seen = {y for y in outputs if y.requires_grad}
    stale: dict[Tensor, Tensor] = {}
    stack = list(seen)
    while stack:
        node = stack.pop()
        for x in node.inputs:
            if type(x) is Tensor and x.requires_grad:
                if x.id > node.id:
                    stale[node] = x
                elif x.id >= floor and x not in seen:
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
    """Undo broadcasting and dtype promotion, here and nowhere else."""
    if not _spreads(x.data.shape, cotangent.data.shape):
        raise WrongShape(f"grad: a rule gave a cotangent of shape {cotangent.shape} for an argument of shape {x.shape}")
    if cotangent.data.shape != x.data.shape:
        cotangent = cotangent.sum_to(x.data.shape)
    if cotangent.data.dtype != x.data.dtype:
        cotangent = cotangent.astype(x.data.dtype)
    return cotangent


def _spreads(shape: tuple[int, ...], wide: tuple[int, ...]) -> bool:
    """Return whether an array of ``shape`` broadcasts to ``wide``."""
    lead = len(wide) - len(shape)
    return lead >= 0 and all(n in (1, m) for n, m in zip(shape, wide[lead:], strict=True))


def _refuse_stale(stale: dict[Tensor, Tensor], on_path: set[Tensor], inputs: set[Tensor]) -> None:
    """Raise if a rule would use a value that has changed since, or if the graph used an older value of an input."""
    for node, x in stale.items():
        if node in on_path or x in inputs:
            raise ValueError(
                f"grad: an argument of {node.op.name}, a Tensor of shape {x.shape}, was changed (by an optimiser) "
                "after the graph was computed: compute the output again"
            )


def backward(
    outputs: Sequence[Tensor], cotangents: Sequence[Tensor], inputs: Sequence[Tensor], create_graph: bool
) -> list[Tensor | None]:
    """Return Σ cotangent · ∂output/∂input for every input, None where no output depends on it."""
    if not inputs:
        return []
    wanted = set(inputs)
    table: dict[Tensor, Tensor] = {}
    with enable_grad() if create_graph else no_grad(), one_moment():
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
                if callable(part):
                    part = part() if joint else part(cotangent, node, *arguments, **settings)
                if part is not None:
                    x = arguments[i]
                    if part.data.shape != x.data.shape or part.data.dtype is not x.data.dtype:
                        part = _fit(part, x)
                    table[x] = table[x] + part if x in table else part
    return [table.get(x) for x in inputs]


def grad(
    output: Tensor,
    inputs: Any,
    grad_output: Any = None,
    *,
    create_graph: bool = False,
    materialize_grads: bool = False,
) -> Any:
    """Return the gradient of ``output`` with respect to ``inputs``, in the structure of ``inputs``.

    ``inputs`` is a Tensor, or lists, tuples and dicts of Tensors. ``grad_output`` is the cotangent, of the shape of
    ``output``; it may be left out if ``output`` has one entry. With ``create_graph`` the gradients can be
    differentiated again. With ``materialize_grads`` an input that ``output`` does not depend on gets zeros.

    ValueError if an input does not require grad or, without ``materialize_grads``, if ``output`` does not depend on
    it; TypeError for things that are not Tensors. The arrays returned share no memory with one another, the inputs or
    ``grad_output``.
    """
    if not isinstance(output, Tensor):
        raise TypeError(f"grad: the output must be a Tensor, not {type(output).__name__}")
    leaves = flatten(inputs)
    for i, x in enumerate(leaves):
        if not isinstance(x, Tensor):
            raise TypeError(f"grad: inputs[{i}] must be a Tensor, not {type(x).__name__}")
        if not x.requires_grad:
            raise NoPath(f"grad: inputs[{i}] of shape {x.shape} does not require grad")
    if not leaves:
        return inputs
    if not output.requires_grad and not materialize_grads:
        raise NoPath("grad: the output does not depend on anything that requires grad (or was made in no_grad)")
    cotangent = as_cotangent("grad", output, grad_output)
    results = backward([output], [cotangent], leaves, create_graph)
    reached = _reached(output, leaves) if not materialize_grads and any(r is None for r in results) else set()
    for i, x in enumerate(leaves):
        if results[i] is not None:
            continue
        if x in reached or (materialize_grads and x.id <= output.id):
            # no path, or one whose derivative is zero everywhere (sign, a step)
            results[i] = wrap(np.zeros_like(x.data))
        else:
            newer = ", or was changed (by an optimiser) after it was computed" if x.id > output.id else ""
            what = f"the output ({output.op.name if output.op else 'a leaf'}, {output.shape})"
            raise NoPath(f"grad: inputs[{i}] of shape {x.shape} is not on a path to {what}{newer}")
    return unflatten(inputs, iter(own(results, [output.data, cotangent.data, *(x.data for x in leaves)])))


def _reached(output: Tensor, inputs: Sequence[Tensor]) -> set[Tensor]:
    """Return the inputs that ``output`` was computed from, even if the derivative is zero."""
    return {node.inputs[i] for node, leading in _path([output], set(inputs)) for i in leading} | {output}


def as_cotangent(name: str, output: Tensor, given: Any) -> Tensor:
    """Return ``given`` as a cotangent of ``output``; None means 1, for an output of one entry."""
    if given is None:
        if output.size != 1:
            raise ValueError(f"{name}: an output of shape {output.shape} needs a grad_output of that shape")
        return wrap(np.ones_like(output.data))
    cotangent = given if isinstance(given, Tensor) else tensor(as_array(given), device=output.device)
    if cotangent.shape != output.shape:
        raise ValueError(f"{name}: grad_output has shape {cotangent.shape}, the output {output.shape}")
    return cotangent if cotangent.dtype == output.dtype else cotangent.astype(output.dtype)


@primitive_of_numbers
def copy(x: Any) -> Any:
    """A copy of the array."""
    return x.copy()


copy.defvjp(lambda g, y, x: g)


def own(results: Sequence[Tensor | None], others: list[Any]) -> list[Any]:
    """Copy results that share memory: rules may return views, or one array for two arguments."""
    taken = {id(array) for array in others}
    owned = []
    for result in results:
        if result is not None:
            if result.data.base is not None or id(result.data) in taken:
                with enable_grad():
                    result = copy(result)
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


def renew(tensors: Iterable[Tensor]) -> None:
    """Mark leaves as changed in place: graphs that used them before refuse to be differentiated."""
    for x in tensors:
        x.id = next_id()
        x.memo = None
