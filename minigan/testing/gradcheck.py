"""Reliable gradient checks, for minigan's ops and for yours.

Beyond the usual check: the cotangent is always random (with all-ones, a batch norm that lost a term looks exact); a
function of many entries is checked along several directions without small components (one direction hides one wrong
entry); the second order checks the VJP itself as a function of the point and the cotangent; finite differences come
with an error estimate, so that steps suit the function; a kink is reported as a kink, not as a wrong gradient; and
other ways to call the function must give the same (:mod:`minigan.testing.promises`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigan.engine.autodiff import NoPath, flatten, unflatten
from minigan.engine.device import to_device, to_numpy
from minigan.engine.gradmode import enable_grad, no_grad
from minigan.engine.tensor import FLOATS, Tensor, wrap
from minigan.engine.transforms import vjp
from minigan.testing.compare import Comparison
from minigan.testing.differences import EPS
from minigan.testing.function import Arrays, Function, Pullback, Settings, named_leaves
from minigan.testing.noise import largest
from minigan.testing.promises import check_promises
from minigan.testing.verdict import GradientError, KinkError, NoiseError

__all__ = ["GradientError", "KinkError", "NoiseError", "check_grads", "check_row"]

RTOL = {1: 1e-8, 2: 1e-7, 3: 1e-6}
STEP = 2.0**-5

OfTensors = Callable[..., tuple[Tensor, ...]]


def check_grads(
    f: Callable[..., Any],
    args: Sequence[Any],
    order: int = 2,
    *,
    rtol: float | None = None,
    step: float = STEP,
    linear: bool = False,
    seed: int = 0,
    device: str = "cpu",
    float32: bool = True,
) -> None:
    """Check the derivatives of ``f`` at ``args`` up to ``order`` against finite differences, in float64.

    ``f`` takes Tensors and returns a Tensor or a structure of Tensors. Float arguments (arrays, numbers or Tensors) are
    differentiated, others passed on as they are; lists, tuples and dicts are structures of arguments. ``step`` is the
    first step tried, relative to max(1, |x|); others follow where they say more. ``linear`` takes one step of 1 with
    rtol 1e-12 for the first order. ``rtol`` defaults to 1e-8, 1e-7 and 1e-6 for orders 1, 2 and 3, beside the error of
    the differences. ``f`` is given its arrays on ``device``. With ``float32`` its result in float32 must agree as far
    as float32 goes, if it takes float32.

    Raises :class:`GradientError` (an AssertionError); :class:`KinkError` if the function has no derivative there;
    :class:`NoiseError` if its values are too noisy to tell; ValueError for arguments with NaN or infinity; TypeError if
    nothing can be differentiated.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"check_grads: order must be 1, 2 or 3, not {order}")
    leaves = {k: to_numpy(x.data) if isinstance(x, Tensor) else x for k, x in named_leaves(args).items()}
    varied, given = differentiable("check_grads", leaves), list(leaves.values())
    rng = np.random.default_rng(seed)

    def of_varied(*xs: Tensor) -> tuple[Tensor, ...]:
        table = {i: x.to(device) for i, x in zip(varied, xs, strict=True)}
        objects = (table.get(i, moved(x, device)) for i, x in enumerate(given))
        results = flatten(f(*unflatten(list(args), objects)))
        return tuple(y.to("cpu") for y in _floats(results))

    function = of_varied
    point = [np.array(given[i], dtype=np.float64) for i in varied]
    names, count = tuple(list(leaves)[i] for i in varied), len(varied)
    what: str = "output {}"
    sizes: tuple[float, ...] = ()
    for level in range(1, order + 1):
        settings = Settings(
            RTOL[level] if rtol is None else rtol, step, linear and level == 1, f"order {level}, seed {seed}"
        )
        if settings.linear:
            settings = Settings(min(settings.rtol, 1e-12), step, True, settings.where)
        compared = Comparison(_arrays_of(function, names, what, level, count, sizes), point, settings, rng)
        if level == 1:
            _refuse_float32(of_varied, point, settings.where)
        compared.run()
        if level == 1:
            layouts = [np.asarray(given[i]).astype(np.float64, copy=False) for i in varied]
            check_promises(compared, _grouped(of_varied, point), layouts, float32)
        if level == 2:
            _check_symmetry(of_varied, point[:count], compared, rng, settings.where)
        sizes = compared.sizes
        function, point = _pullback_of(function, len(point)), point + compared.cotangents
        names = (*names, *(f"the cotangent of {what.format(k)}" for k in range(len(compared.cotangents))))
        what = "the gradient of argument {}" if level == 1 else "gradient {} of the gradients"


def differentiable(name: str, leaves: dict[str, Any]) -> list[int]:
    """Return the positions of float arguments; TypeError if there are none, ValueError for NaN and infinity."""
    varied = []
    for i, (argument, leaf) in enumerate(leaves.items()):
        if not isinstance(leaf, int | float | complex) and not hasattr(leaf, "__array__"):
            continue
        x = np.asarray(leaf)
        if x.dtype in FLOATS:
            varied.append(i)
            if not np.isfinite(x).all():
                entry = tuple(map(int, np.argwhere(~np.isfinite(x))[0]))
                raise ValueError(
                    f"{name}: {argument} is {x[entry]} at entry {entry}: a gradient is checked at finite points"
                )
        elif x.dtype.kind in "fc":
            raise TypeError(f"{name}: {argument} is {x.dtype}: a gradient is checked for float32 and float64")
    if not varied:
        raise TypeError(f"{name}: no argument is of a float dtype: at least one must be")
    return varied


def moved(structure: Any, device: str) -> Any:
    """Return nested tuples, lists and dicts with their arrays on ``device``."""
    if isinstance(structure, np.ndarray):
        return to_device(structure, device)
    if isinstance(structure, dict):
        return {key: moved(part, device) for key, part in structure.items()}
    if isinstance(structure, tuple | list):
        return type(structure)(moved(part, device) for part in structure)
    return structure


def _floats(results: list[Any]) -> list[Tensor]:
    """Return the results that have gradients; TypeError for anything but Tensors, or if none has one."""
    for y in results:
        if not isinstance(y, Tensor):
            raise TypeError(
                f"check_grads: the function must return Tensors, not {type(y).__name__}: compute with minigan.ops, "
                "or use check_vjp for a function of arrays"
            )
    found = [y for y in results if y.dtype in FLOATS]
    if results and not found:
        raise TypeError(f"check_grads: the function returns {results[0].dtype}, which has no gradient")
    return found


def _arrays_of(
    function: OfTensors, names: tuple[str, ...], what: str, level: int, affine: int, sizes: tuple[float, ...]
) -> Function:
    """Return a function of Tensors as one of arrays."""

    def evaluate(point: Arrays) -> Arrays:
        # the function may differentiate with respect to its arguments; pullbacks make new variables
        with enable_grad():
            return [y.data for y in function(*(wrap(x, level == 1) for x in point))]

    return Function(evaluate, lambda point: _linearise(function, point), names, what.format, affine, True, sizes)


def _linearise(function: OfTensors, point: Arrays) -> tuple[Arrays, Pullback]:
    outputs, pullback = vjp(function, *map(wrap, point))

    def pull(cotangents: Arrays) -> Arrays:
        with no_grad():
            return [g.data for g in pullback(tuple(map(wrap, cotangents)))]

    return [y.data for y in outputs], pull


def _grouped(function: OfTensors, point: Arrays) -> Any:
    def linearise(variables: Arrays, uses: list[int | None]) -> tuple[Arrays, Pullback]:
        def of_variables(*xs: Tensor, constant: bool = True) -> tuple[Tensor, ...]:
            return function(
                *(wrap(x, not constant) if use is None else xs[use] for x, use in zip(point, uses, strict=True))
            )

        try:
            return _linearise(of_variables, variables)
        except NoPath:  # the function differentiates with respect to its other arguments itself
            return _linearise(functools.partial(of_variables, constant=False), variables)

    return linearise


def _pullback_of(function: OfTensors, count: int) -> OfTensors:
    """Return (x, g) ↦ gᵀ ∂f/∂x, itself differentiable: the next order's function."""

    def pulled(*parts: Tensor) -> tuple[Tensor, ...]:
        return vjp(function, *parts[:count])[1](parts[count:])

    return pulled


def _refuse_float32(function: OfTensors, point: Arrays, where: str) -> None:
    """Raise if a node between the arguments and the results is float32, although the arguments are float64."""
    outputs, _ = vjp(function, *point)
    seen, stack = set(outputs), [y for y in outputs if y.requires_grad]
    while stack:
        node = stack.pop()
        if node.dtype == np.float32:
            made = f"the op {node.op.name}" if node.op else "a leaf"
            raise GradientError(f"{where}: {made} inside is float32 although the arguments are float64")
        for x in node.inputs:
            if isinstance(x, Tensor) and x.requires_grad and x not in seen:
                seen.add(x)
                stack.append(x)


def _check_symmetry(f: OfTensors, point: Arrays, compared: Comparison, rng: np.random.Generator, where: str) -> None:
    """Check uᵀHv = vᵀHu for the Hessian H of a random combination of outputs, as far as rounding lets it be."""
    outputs, _ = vjp(f, *point)
    if not sum(x.size for x in point) or not sum(y.size for y in outputs):
        return
    weights = [Tensor(rng.standard_normal(y.shape)) for y in outputs]

    def gradient(*xs: Tensor) -> tuple[Tensor, ...]:
        return vjp(f, *xs)[1](tuple(weights))

    _, pullback = vjp(gradient, *point)
    u, v = ([largest(x) * rng.standard_normal(x.shape) for x in point] for _ in range(2))
    hu, hv = ([part.data for part in pullback(tuple(Tensor(a) for a in w))] for w in (u, v))

    def product(a: Arrays, b: Arrays, size: Callable[[Any], Any] = np.asarray) -> float:
        return sum(float(size(x * y).sum()) for x, y in zip(a, b, strict=True))

    one, other = product(u, hv), product(v, hu)
    allowed = 1e-10 * (product(u, hv, np.abs) + product(v, hu, np.abs))
    if not abs(one - other) <= allowed:
        longest = max(largest(x) for x in point)
        noise = [
            1e3 * EPS * a + 64 * b.max(initial=0.0)
            for a, b in zip(compared.sizes, compared.noise.wide()[1], strict=True)
        ]
        allowed += sum(float(np.abs(a).sum()) * longest * n for w in (u, v) for a, n in zip(w, noise, strict=False))
    if not abs(one - other) <= allowed:
        raise GradientError(f"{where}: the Hessian is not symmetric: uᵀHv = {one!r}, vᵀHu = {other!r}")


def check_row(row: Any, seed: int = 0, draw: Any = None, device: str = "cpu") -> None:
    """Check one row of :data:`minigan.testing.optable.ROWS` at arguments drawn from ``seed`` (or by ``draw``)."""
    from minigan.testing.optable import Draw

    case = row.make(draw or Draw(seed))
    settings = moved(case.settings, device)
    # float32 is the business of the tests of kernels, which know its bounds
    check_grads(
        lambda *xs: row.op(*xs, **settings),
        case.args,
        row.order,
        linear=row.linear,
        seed=seed,
        device=device,
        float32=False,
    )
