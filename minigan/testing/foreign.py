"""Gradient checks for functions on arrays of any library: NumPy, CuPy, PyTorch, JAX and what behaves like them.

No library is imported. An array is made by the ``asarray`` of the module that the caller's own arrays come from.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from minigan.engine.autodiff import flatten, unflatten
from minigan.testing.compare import Comparison
from minigan.testing.function import Arrays, Function, Pullback, Settings, named_leaves
from minigan.testing.gradcheck import RTOL, STEP, differentiable
from minigan.testing.promises import check_promises


def check_vjp(
    f: Callable[..., Any],
    vjp: Callable[..., Any],
    args: Sequence[Any],
    *,
    wrap: Callable[[np.ndarray], Any] | None = None,
    unwrap: Callable[[Any], np.ndarray] | None = None,
    rtol: float = RTOL[1],
    step: float = STEP,
    seed: int = 0,
    float32: bool = True,
) -> None:
    """Check that ``vjp(g, *args)`` is gᵀ·∂f/∂x for every float argument x of ``f``, in float64.

    ``f(*args)`` returns an array or a structure of arrays, and ``g`` has that structure (None for integers). ``vjp``
    returns one array for one float argument, a tuple for several. Arguments without floats are passed on as they are.
    Lists, tuples and dicts are structures of arguments.
    ``wrap`` makes an array of f's library from NumPy's, ``unwrap`` the other way; without them the arguments' library
    is used. ``rtol``, ``step`` and ``float32`` are those of :func:`minigan.testing.check_grads`. For a second order,
    check the VJP of your gradient function.

    Raises what ``check_grads`` raises.
    """
    leaves = named_leaves(args)
    wrap = wrap or maker_of(leaves.values())
    unwrap = unwrap or to_numpy
    arrays = {name: unwrap(x) if _is_foreign(x) else x for name, x in leaves.items()}
    varied, given = differentiable("check_vjp", arrays), list(arrays.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = unwrap(wrap(np.ones(1))).dtype
    if made != np.float64:
        raise TypeError(
            f"check_vjp: the arrays made for the function are {made}, and a check needs float64 "
            "(in JAX: jax.config.update('jax_enable_x64', True))"
        )

    def call(objects: Sequence[Any]) -> tuple[list[Any], Any, list[int]]:
        table = dict(zip(varied, objects, strict=True))
        everything = unflatten(list(args), (table.get(i, x) for i, x in enumerate(leaves.values())))
        result = f(*everything)
        floats = [k for k, y in enumerate(flatten(result)) if unwrap(y).dtype.kind == "f"]
        if not floats:
            raise TypeError("check_vjp: the function returns no array of floats, so it has no gradient")
        return everything, result, floats

    def grouped(variables: Arrays, uses: list[int | None]) -> tuple[Arrays, Pullback]:
        owned = [wrap(x) for x in variables]
        objects = [wrap(x) if use is None else owned[use] for x, use in zip(point, uses, strict=True)]
        everything, result, floats = call(objects)
        leaves = flatten(result)

        def pullback(cotangents: Arrays) -> Arrays:
            parts: list[Any] = [None] * len(leaves)
            for k, g in zip(floats, cotangents, strict=True):
                dtype = unwrap(leaves[k]).dtype
                parts[k] = wrap(g if g.dtype == dtype else g.astype(dtype))
            found = flatten(vjp(unflatten(result, iter(parts)), *everything))
            if len(found) != len(varied) or any(g is None for g in found):
                raise TypeError(
                    f"check_vjp: the VJP must return an array for each of the {len(varied)} float arguments, "
                    f"and it returned {['None' if g is None else type(g).__name__ for g in found]}"
                )
            gradients = [np.array(unwrap(g)) for g in found]
            return [sum_of([g for g, use in zip(gradients, uses, strict=True) if use == v]) for v in range(len(owned))]

        return [np.array(unwrap(leaves[k])) for k in floats], pullback

    def linearise(point: Arrays) -> tuple[Arrays, Pullback]:
        return grouped(point, list(range(len(point))))

    def evaluate(point: Arrays) -> Arrays:
        _, result, floats = call([wrap(x) for x in point])
        leaves = flatten(result)
        return [np.array(unwrap(leaves[k])) for k in floats]

    point = [np.array(given[i], dtype=np.float64) for i in varied]
    names = tuple(list(leaves)[i] for i in varied)
    function = Function(evaluate, linearise, names, "output {}".format, len(point), exact=False)
    rng = np.random.default_rng(seed)
    compared = Comparison(function, point, Settings(rtol, step, False, f"check_vjp, seed {seed}"), rng)
    compared.run()
    check_promises(compared, grouped, point, float32, alone=False)


def sum_of(arrays: Arrays) -> np.ndarray:
    """Return the sum of one array or more."""
    return arrays[0] if len(arrays) == 1 else np.sum(arrays, axis=0)


def _is_foreign(x: Any) -> bool:
    return not isinstance(x, np.ndarray | np.generic | float | int | list | tuple | dict) and hasattr(x, "dtype")


def maker_of(args: Iterable[Any]) -> Callable[[np.ndarray], Any]:
    """Return a function from NumPy's arrays to those of the first argument that is another library's array."""
    for x in args:
        if _is_foreign(x):
            module = x.__array_namespace__() if hasattr(x, "__array_namespace__") else _home(type(x).__module__)
            if module is None:
                raise TypeError(f"check_vjp: no asarray for {type(x).__name__} is known: give wrap= and unwrap=")
            where = {"device": x.device} if hasattr(x, "detach") else {}  # a PyTorch tensor
            return lambda array: module.asarray(array, **where)
    return lambda array: array


def _home(name: str) -> Any:
    """Return the nearest module at or above ``name`` with an ``asarray``; the caller's array shows it is imported."""
    while name:
        module = sys.modules.get(name)
        if hasattr(module, "asarray"):
            return module
        name = name.rpartition(".")[0]
    return None


def to_numpy(x: Any) -> np.ndarray:
    """Return an array of any library as NumPy's."""
    if not isinstance(x, np.ndarray):
        for method in ("detach", "cpu", "get"):  # off the graph (PyTorch), off the device (PyTorch; CuPy)
            if hasattr(x, method):
                x = getattr(x, method)()
    return np.asarray(x)
