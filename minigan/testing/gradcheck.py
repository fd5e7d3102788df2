"""Reliable gradient checks, for minigan's ops and for yours.

Beyond the usual check: the cotangent is always random (with all-ones, a batch norm that lost a term looks exact); a
function of many entries is checked along several directions without small components (one direction hides one wrong
entry); the second order checks the VJP itself as a function of the point and the cotangent; a point next to a kink is
reported as a kink, not as a wrong gradient; and inputs must stay unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigan.engine.autodiff import flatten
from minigan.engine.device import to_device, to_numpy
from minigan.engine.gradmode import enable_grad, no_grad
from minigan.engine.tensor import FLOATS, Tensor
from minigan.engine.transforms import vjp

__all__ = ["GradientError", "KinkError", "check_grads", "check_row"]

FULL = 2000  # the most entries of a Jacobian that is compared whole
DIRECTIONS = 4
SIX_POINT = ((1, 3 / 4), (2, -3 / 20), (3, 1 / 60))  # f'(x) ≈ Σ c·(f(x + kh) − f(x − kh))/h, error O(h⁶)
ONE_STEP = ((1, 1 / 2),)  # exact for linear functions
HALVINGS = 5  # how often h is halved before a disagreement counts
RTOL = {1: 1e-8, 2: 1e-7, 3: 1e-6}

Arrays = list[np.ndarray]


class GradientError(AssertionError):
    """A gradient disagrees with finite differences; the message names the entry, both numbers and the seed."""


class KinkError(GradientError):
    """The function is not smooth within three steps of the point, so finite differences are meaningless there."""


def check_grads(
    f: Callable[..., Any],
    args: Sequence[Any],
    order: int = 2,
    *,
    rtol: float | None = None,
    step: float = 1e-2,
    linear: bool = False,
    seed: int = 0,
    device: str = "cpu",
) -> None:
    """Check the derivatives of ``f`` at ``args`` up to ``order`` against finite differences, in float64.

    ``f`` takes Tensors and returns a Tensor or a structure of Tensors. Float arguments (arrays, numbers or Tensors) are
    differentiated, others passed on as they are. ``step`` is h relative to max(1, |x|); ``linear`` takes one step of
    h = 1 with rtol 1e-12 for the first order. ``rtol`` defaults to 1e-8, 1e-7 and 1e-6 for orders 1, 2 and 3. ``f`` is
    given its arrays on ``device``.

    Raises :class:`GradientError` (an AssertionError), or :class:`KinkError` if a kink is too near.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"check_grads: order must be 1, 2 or 3, not {order}")
    given = [to_numpy(x.data) if isinstance(x, Tensor) else x for x in args]
    varied = [i for i, x in enumerate(given) if np.asarray(x).dtype in FLOATS]
    if not varied:
        raise TypeError("check_grads: no argument is of a float dtype: at least one must be")

    def of_varied(*xs: Tensor) -> tuple[Tensor, ...]:
        table = {i: x.to(device) for i, x in zip(varied, xs, strict=True)}
        results = flatten(f(*(table.get(i, moved(x, device)) for i, x in enumerate(given))))
        return tuple(y.to("cpu") for y in results)

    point = [np.array(given[i], dtype=np.float64) for i in varied]
    rng = np.random.default_rng(seed)
    function: Callable[..., tuple[Tensor, ...]] = of_varied
    for level in range(1, order + 1):
        checker = _Checker(function, point, level, rtol or RTOL[level], step, linear and level == 1, seed, rng)
        checker.run()
        function, point = _pullback_of(function, len(point)), point + checker.cotangents
    if order > 1:
        _check_symmetry(of_varied, point[: len(varied)], rng, seed)


def moved(structure: Any, device: str) -> Any:
    """Return nested tuples, lists and dicts with their arrays on ``device``."""
    if isinstance(structure, np.ndarray):
        return to_device(structure, device)
    if isinstance(structure, dict):
        return {key: moved(part, device) for key, part in structure.items()}
    if isinstance(structure, tuple | list):
        return type(structure)(moved(part, device) for part in structure)
    return structure


def _pullback_of(function: Callable[..., tuple[Tensor, ...]], count: int) -> Callable[..., tuple[Tensor, ...]]:
    """Return (x, g) ↦ gᵀ ∂f/∂x, itself differentiable: the next order's function."""

    def pulled(*parts: Tensor) -> tuple[Tensor, ...]:
        return vjp(function, *parts[:count])[1](parts[count:])

    return pulled


class _Checker:
    """One order of one check."""

    def __init__(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        point: Arrays,
        order: int,
        rtol: float,
        step: float,
        linear: bool,
        seed: int,
        rng: np.random.Generator,
    ) -> None:
        self.function, self.point, self.order, self.seed, self.rng = function, point, order, seed, rng
        self.rtol = min(rtol, 1e-12) if linear else rtol
        self.step = 1.0 if linear else step
        self.stencil: tuple[tuple[int, float], ...] = ONE_STEP if linear else SIX_POINT
        self.linear = linear
        before = [x.copy() for x in point]
        outputs, self.pullback = vjp(function, *map(Tensor, point))
        self.values = [y.data for y in outputs]
        self.cotangents = [self._draw(y.shape) for y in self.values]
        kept = [g.copy() for g in self.cotangents]
        self.gradient = self._pull(self.cotangents)
        again = self._pull(self.cotangents)
        for what, a, b in (("an input", before, point), ("a cotangent", kept, self.cotangents)):
            if not all(map(np.array_equal, a, b)):
                raise GradientError(f"{self._where()}: {what} was changed in place")
        if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(self.gradient, again, strict=True)):
            raise GradientError(f"{self._where()}: the same VJP called twice gave different bits")
        for i, (x, g) in enumerate(zip(point, self.gradient, strict=True)):
            if x.shape != g.shape or g.dtype != np.float64:
                raise GradientError(
                    f"{self._where()}: argument {i} is float64 {x.shape}, its gradient {g.dtype} {g.shape}"
                )

    def _draw(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return random numbers of either sign, none of them small."""
        return np.asarray(self.rng.uniform(0.5, 1.5, shape) * self.rng.choice([-1.0, 1.0], shape))

    def _pull(self, cotangents: Arrays) -> Arrays:
        with no_grad():
            return [g.data for g in self.pullback(tuple(Tensor(g) for g in cotangents))]

    def _where(self) -> str:
        return f"order {self.order}, seed {self.seed}"

    def run(self) -> None:
        n_in, n_out = sum(x.size for x in self.point), sum(y.size for y in self.values)
        if n_in == 0 or n_out == 0:
            return
        if n_in * n_out <= FULL:
            self._compare_jacobian()
        else:
            self._compare_directions()

    def _compare_jacobian(self) -> None:
        rows = []  # one VJP for every output entry
        for i, y in enumerate(self.values):
            for entry in np.ndindex(y.shape):
                unit = [np.zeros_like(v) for v in self.values]
                unit[i][entry] = 1.0
                rows.append(np.concatenate([g.reshape(-1) for g in self._pull(unit)]))
        jacobian = np.array(rows)
        scale = np.abs(jacobian).max()
        names = [(i, entry) for i, x in enumerate(self.point) for entry in np.ndindex(x.shape)]
        for column, (i, entry) in enumerate(names):
            direction = [np.zeros_like(x) for x in self.point]
            direction[i][entry] = 1.0
            h = self.step * (1.0 if self.linear else max(1.0, abs(float(self.point[i][entry]))))
            self._compare(direction, h, jacobian[:, column], scale, f"argument {i}, entry {entry}")
        total = np.concatenate([g.reshape(-1) for g in self.gradient])
        flat = np.concatenate([g.reshape(-1) for g in self.cotangents])
        if np.abs(flat @ jacobian - total).max() > 1e-10 * max(scale, 1e-300) * len(flat):
            raise GradientError(f"{self._where()}: the VJP is not linear in its cotangent")

    def _compare_directions(self) -> None:
        for number in range(DIRECTIONS):
            direction = [self._draw(x.shape) * (1.0 if self.linear else np.maximum(1, np.abs(x))) for x in self.point]
            products = [g * d for g, d in zip(self.gradient, direction, strict=True)]
            analytic = np.array([sum(p.sum() for p in products)])
            scale = sum(np.abs(p).sum() for p in products)
            self._compare(direction, self.step, analytic, scale, f"random direction {number}", project=True)

    def _compare(
        self, direction: Arrays, h: float, analytic: np.ndarray, scale: float, name: str, project: bool = False
    ) -> None:
        """Compare a derivative along ``direction``; if it differs, find out whether the function is smooth there."""

        size = max(float(np.abs(y).max()) if y.size else 0.0 for y in self.values)
        count = sum(y.size for y in self.values) if project else 1

        def allowed(h: float) -> float:
            rounding = 30 * np.finfo(np.float64).eps * size * count / h
            return self.rtol * max(scale, float(np.abs(analytic).max())) + rounding

        found = []
        for halvings in range(1 if self.linear else HALVINGS):
            found.append(self._difference(direction, h / 2**halvings, project))
            gap = np.abs(found[-1] - analytic)
            if np.all(gap <= allowed(h / 2**halvings)):  # False for NaN too
                return
        if len(found) > 1:
            moved = np.abs(found[-1] - found[-2])
            if not np.all(moved <= 1e-5 * (scale + np.abs(found[-1]).max()) + 4 * allowed(h / 2**HALVINGS)):
                raise KinkError(f"{self._where()}, {name}: not smooth within {3 * h:.3g} of the point: move it away")
        worst = int(np.nanargmax(gap)) if np.isfinite(gap).any() else 0
        raise GradientError(
            f"{self._where()}, {name}, output entry {worst}: gradient {float(analytic[worst])!r}, "
            f"finite differences {float(found[-1][worst])!r} (allowed {allowed(h):.1e})"
        )

    def _difference(self, direction: Arrays, h: float, project: bool) -> np.ndarray:
        total: Any = 0.0
        for k, c in self.stencil:
            ahead, behind = self._values(direction, k * h), self._values(direction, -k * h)
            total = total + (c / h) * (ahead - behind)
        if project:
            flat = np.concatenate([g.reshape(-1) for g in self.cotangents])
            total = np.array([flat @ total])
        return total

    def _values(self, direction: Arrays, distance: float) -> np.ndarray:
        # the function may differentiate with respect to its arguments; pullbacks make new variables
        points = [Tensor(x + distance * d, self.order == 1) for x, d in zip(self.point, direction, strict=True)]
        with enable_grad():  # pullbacks and gradient penalties differentiate inside
            return np.concatenate([y.data.reshape(-1) for y in self.function(*points)])


def _check_symmetry(f: Callable[..., tuple[Tensor, ...]], point: Arrays, rng: np.random.Generator, seed: int) -> None:
    """Check uᵀHv = vᵀHu for the Hessian H of a random combination of outputs."""
    outputs, _ = vjp(f, *point)
    if not sum(x.size for x in point) or not sum(y.size for y in outputs):
        return
    weights = [Tensor(rng.standard_normal(y.shape)) for y in outputs]

    def gradient(*xs: Tensor) -> tuple[Tensor, ...]:
        return vjp(f, *xs)[1](tuple(weights))

    _, pullback = vjp(gradient, *point)
    u, v = ([rng.standard_normal(x.shape) for x in point] for _ in range(2))
    hu, hv = ([part.data for part in pullback(tuple(Tensor(a) for a in w))] for w in (u, v))
    one, other = (sum(float((a * b).sum()) for a, b in zip(w, h, strict=True)) for w, h in ((u, hv), (v, hu)))
    scale = sum(float(np.abs(a * b).sum()) for a, b in zip(u, hv, strict=True))
    if not abs(one - other) <= 1e-10 * max(scale, 1e-3):
        raise GradientError(f"order 2, seed {seed}: the Hessian is not symmetric: uᵀHv = {one!r}, vᵀHu = {other!r}")


def check_row(row: Any, seed: int = 0, draw: Any = None, device: str = "cpu") -> None:
    """Check one row of :data:`minigan.testing.optable.ROWS` at arguments drawn from ``seed`` (or by ``draw``)."""
    from minigan.testing.optable import Draw

    case = row.make(draw or Draw(seed))
    settings = moved(case.settings, device)
    check_grads(lambda *xs: row.op(*xs, **settings), case.args, row.order, linear=row.linear, seed=seed, device=device)
