"""Functions of functions: vector-Jacobian, Jacobian-vector and Hessian-vector products, values with gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigan.engine.autodiff import as_cotangent, backward, copy, flatten, own, unflatten
from minigan.engine.device import device_of
from minigan.engine.gradmode import enable_grad, is_grad_enabled
from minigan.engine.tensor import FLOATS, Tensor, tensor, wrap


def _variables(xs: Sequence[Any]) -> list[Tensor]:
    """Return fresh nodes for xs: distinct even if one Tensor is given twice, connected to x if x has a graph.

    What is no Tensor becomes one by the rule of :func:`tensor`.
    """
    fresh = []
    for x in xs:
        x = x if isinstance(x, Tensor) else tensor(x, device=device_of(x))
        if x.dtype not in FLOATS:
            raise TypeError(f"only float32 and float64 can be differentiated, not {x.dtype}")
        fresh.append(copy(x) if x.requires_grad else wrap(x.data, True))
    return fresh


def _outputs(name: str, result: Any) -> list[Tensor]:
    outputs = flatten(result)
    for y in outputs:
        if not isinstance(y, Tensor):
            raise TypeError(f"{name}: the function must return Tensors, not {type(y).__name__}")
    return outputs


def _is_open(outputs: Sequence[Tensor], own_leaves: Sequence[Tensor]) -> bool:
    """Return whether the outputs depend on a leaf of the caller's: then derivatives need a graph."""
    if not is_grad_enabled():
        return False
    seen, own = set(outputs), set(own_leaves)
    stack = [y for y in outputs if y.requires_grad]
    while stack:
        node = stack.pop()
        if node.op is None and node not in own:
            return True
        for x in node.inputs:
            if isinstance(x, Tensor) and x.requires_grad and x not in seen:
                seen.add(x)
                stack.append(x)
    return False


def vjp(f: Callable[..., Any], *xs: Any) -> tuple[Any, Callable[[Any], tuple[Tensor, ...]]]:
    """Return (f(*xs), pullback): ``pullback(g)`` gives gᵀ·∂f/∂x for every x, zeros if f does not use x.

    ``f`` returns a Tensor or a structure of Tensors, and ``g`` has that structure. The results of the pullback can be
    differentiated further if Tensors in ``xs`` or ``g``, or others that f uses, require grad.
    """
    with enable_grad():
        variables = _variables(xs)
        result = f(*variables)
    outputs = _outputs("vjp", result)

    def pullback(g: Any) -> tuple[Tensor, ...]:
        parts = flatten(g)
        if len(parts) != len(outputs):
            raise ValueError(f"vjp: the function has {len(outputs)} results but the pullback got {len(parts)}")
        cotangents = [as_cotangent("vjp", y, part) for y, part in zip(outputs, parts, strict=True)]
        again = _is_open([*outputs, *cotangents], variables)
        found = backward(outputs, cotangents, variables, create_graph=again)
        filled = [wrap(np.zeros_like(x.data)) if r is None else r for x, r in zip(variables, found, strict=True)]
        taken = [x.data for x in variables] + [g.data for g in cotangents] + [y.data for y in outputs]
        return tuple(own(filled, taken))

    return result, pullback


def _one_entry(name: str, value: Tensor) -> Tensor:
    if value.size != 1:
        raise ValueError(f"{name}: the function must return one entry, not shape {value.shape}")
    return wrap(np.ones_like(value.data))


def value_and_grad(f: Callable[..., Tensor], *xs: Any) -> Any:
    """Return (f(*xs), gradient); without ``xs``, return the function that does so.

    ``f`` returns a Tensor of one entry. The gradient is a Tensor for one argument, a tuple for several.
    """
    if not xs:
        return lambda *arguments: value_and_grad(f, *arguments)
    value, pullback = vjp(f, *xs)
    gradients = pullback(_one_entry("value_and_grad", value))
    return value, gradients[0] if len(xs) == 1 else gradients


def jvp(f: Callable[..., Any], xs: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """Return (f(*xs), Σ ∂f/∂x · tangent): the derivative of f along ``tangents``, in the structure of f's result.

    The pullback g ↦ gᵀJ is linear in g; the pullback of that map, at the tangents, is J·tangent.
    """
    if len(xs) != len(tangents):
        raise ValueError(f"jvp: {len(xs)} inputs but {len(tangents)} tangents")
    with enable_grad():
        variables = _variables(xs)
        result = f(*variables)
        outputs = _outputs("jvp", result)
        probes = [wrap(np.zeros_like(y.data), True) for y in outputs]
        pulled = backward(outputs, probes, variables, create_graph=True)
        pairs = [
            (p, as_cotangent("jvp", x, t)) for x, p, t in zip(variables, pulled, tangents, strict=True) if p is not None
        ]
    again = _is_open([*outputs, *(t for _, t in pairs)], variables)
    found = backward([p for p, _ in pairs], [t for _, t in pairs], probes, create_graph=again)
    filled = [wrap(np.zeros_like(y.data)) if r is None else r for y, r in zip(outputs, found, strict=True)]
    return result, unflatten(result, iter(own(filled, [t.data for _, t in pairs])))


def _shape(x: Any) -> tuple[int, ...]:
    return x.shape if isinstance(x, Tensor) else np.shape(x)


def hvp(f: Callable[[Any], Tensor], x: Any, v: Any) -> Any:
    """Return H·v, the Hessian of the one-entry ``f`` at ``x`` times ``v``; x and v may be lists of Tensors."""
    xs, vs = flatten(x), flatten(v)
    if [_shape(a) for a in xs] != [_shape(a) for a in vs]:
        raise ValueError("hvp: x and v must have the same structure and shapes")

    def gradient(*variables: Tensor) -> tuple[Tensor, ...]:
        value, pullback = vjp(lambda *parts: f(unflatten(x, iter(parts))), *variables)
        return pullback(_one_entry("hvp", value))

    _, pullback = vjp(gradient, *xs)
    return unflatten(x, iter(pullback(tuple(vs))))
