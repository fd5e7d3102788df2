"""Optimisers over one flat buffer: gather the gradients, then one pass over parameters, moments and their average."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from minigan import kernels
from minigan.engine.autodiff import renew
from minigan.engine.device import device_of, may_look, to_device, to_numpy, xp
from minigan.engine.flat import clip_norm as clip_norm
from minigan.engine.flat import flatten_, gather_, views
from minigan.engine.habits import missing
from minigan.engine.tensor import Tensor, wrap

Leaves = Sequence[Tensor]


class Optimizer:
    """The base of all optimisers: the parameters' buffer, the gradients' buffer, and the moving average (EMA).

    The parameters (leaves that require grad, one dtype) become views of one buffer and are changed in place. With
    ``ema_decay`` in (0, 1) the average e ← e + (1 − decay)(p − e) is kept too: see :meth:`average`. A
    ``limit`` holds every parameter in [−limit, limit] after every step (weight clipping, 1701.07875).

    A setting that has a range in ``ranges`` keeps to it whenever it is set; a new ``lr`` holds from the next step on.

    If ``between`` is set, ``between(buffer)`` gets the whole gradient, flat, before every step and changes it in place
    (:func:`clip_norm`, or a sum over processes).
    """

    slots: tuple[str, ...] = ()
    ranges: dict[str, tuple[float, float]] = {"lr": (0, math.inf), "ema_decay": (0, 1), "limit": (0, math.inf)}
    rate: Any = None
    limit: float | None = None
    between: Callable[[Any], None] | None = None

    def __init__(self, parameters: Leaves, lr: float = 1e-3, ema_decay: float = 0.0) -> None:
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError(f"{type(self).__name__}: there are no parameters to optimise")
        self.clock: Any = None
        self.lr = lr
        self.ema_decay = ema_decay
        self.steps = 0
        self._take_hold()
        self.ema = self.buffer.copy() if ema_decay else self.buffer[:0].copy()
        for slot in self.slots:
            setattr(self, slot, np.zeros_like(self.buffer))

    def _take_hold(self) -> None:
        """Bring the parameters into one buffer, and make one for their gradients."""
        self.buffer = flatten_(self.parameters)
        self._views = [p.data for p in self.parameters]
        self.gradient = np.zeros_like(self.buffer)
        self._gradients = views(self.gradient, [p.shape for p in self.parameters])

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or another process needs: its parameters get another buffer there."""
        lost = ("buffer", "_views", "gradient", "_gradients")
        return {name: value for name, value in vars(self).items() if name not in lost}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._take_hold()

    def __getattr__(self, name: str) -> Any:
        return missing("Optimizer", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.ranges and not (name == "limit" and value is None):
            self._require(name, value)
        super().__setattr__(name, value)
        if name == "lr" and self.rate is not None:
            self.rate.fill(value)  # a captured graph reads it there

    def _require(self, name: str, value: float) -> None:
        """Raise ValueError unless the value has its range: low <= value < high."""
        low, high = self.ranges[name]
        if not isinstance(value, Real) or isinstance(value, bool) or not low <= value < high:
            raise ValueError(f"{type(self).__name__}: {name} must be in [{low:g}, {high:g}), not {value!r}")

    def step(self, gradients: Sequence[Any]) -> None:
        """Move the parameters against ``gradients``: a Tensor or array for each parameter, of its shape.

        FloatingPointError, before anything moves, if the gradient's norm is not finite.
        """
        if any(p.data is not view for p, view in zip(self.parameters, self._views, strict=True)):
            raise ValueError(
                "step: the parameters were moved to another buffer after this optimiser was made: make it afterwards"
            )
        gather_(self._gradients, gradients)
        if self.between is not None:
            self.between(self.gradient)
        if may_look(self.gradient) and not math.isfinite(self.gradient_norm()):
            raise FloatingPointError("the gradient is not finite")
        self.steps += 1
        if self.clock is not None:
            kernels.count_up(self.clock, 0)
        self._step_()
        if self.limit is not None:
            xp(self.buffer).clip(self.buffer, -self.limit, self.limit, out=self.buffer)
        renew(self.parameters)

    def _step_(self) -> None:
        raise NotImplementedError

    def rates(self) -> Any:
        """Return how far one unit of gradient moves a parameter now, without momentum: lr over the running scale."""
        return self.lr

    def keep_clock_there(self, there: bool) -> None:
        """Keep the step number and the learning rate in device memory for a captured graph, or stop."""
        self.clock = to_device(np.array([self.steps], np.uint64), device_of(self.buffer)) if there else None
        self.rate = to_device(np.array([self.lr], np.float64), device_of(self.buffer)) if there else None

    def _pace(self) -> dict[str, Any]:
        """Return what all kernels take: the decay of the average, and lr, which a captured graph has in its memory."""
        return {"lr": self.lr if self.rate is None else self.rate, "decay": self.ema_decay}

    def gradient_norm(self) -> float:
        """Return the Euclidean norm of the whole gradient of the last step."""
        return math.sqrt(kernels.squared_norm(self.gradient))

    def average(self) -> list[Tensor]:
        """Return the moving average of the parameters, as constants that later steps keep changing."""
        if not self.ema.size:
            raise ValueError("this optimiser keeps no average: make it with ema_decay > 0")
        return [wrap(view) for view in views(self.ema, [p.shape for p in self.parameters])]

    def state(self) -> dict[str, np.ndarray]:
        """Return the state that a bitwise resume needs: the moments, the average and the number of steps."""
        kept = [slot for slot in (*self.slots, "ema") if getattr(self, slot).size]
        arrays = {slot: np.array(to_numpy(getattr(self, slot))) for slot in kept}
        return {**arrays, "steps": np.array(self.steps, np.int64)}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take over a saved :meth:`state`; ValueError if it belongs to another optimiser or network."""
        own = {name: (value.shape, value.dtype) for name, value in self.state().items()}
        if own != {name: (value.shape, value.dtype) for name, value in state.items()}:
            raise ValueError(f"the saved state does not fit this {type(self).__name__}: it has {sorted(state)}")
        for name in own.keys() - {"steps"}:
            getattr(self, name)[...] = to_device(state[name], device_of(self.buffer))
        self.steps = int(state["steps"])


class SGD(Optimizer):
    """Gradient descent with momentum u ← momentum·u + (g + weight_decay·p), p ← p − lr·u."""

    ranges = {**Optimizer.ranges, "momentum": (0, 1), "weight_decay": (0, math.inf)}

    def __init__(
        self,
        parameters: Leaves,
        lr: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        *,
        ema_decay: float = 0.0,
    ) -> None:
        self.slots = ("velocity",) if momentum else ()
        super().__init__(parameters, lr, ema_decay)
        self.momentum, self.weight_decay = momentum, weight_decay
        if not momentum:
            self.velocity = self.buffer[:0].copy()

    def _step_(self) -> None:
        arrays = self.buffer, self.gradient, self.velocity, self.ema
        kernels.sgd_(*arrays, momentum=self.momentum, weight_decay=self.weight_decay, **self._pace())


class RMSProp(Optimizer):
    """Gradient descent scaled by a running root mean square: v ← αv + (1 − α)g², p ← p − lr·g/(√v + ε)."""

    slots = ("square",)
    ranges = {**Optimizer.ranges, "alpha": (0, 1), "eps": (0, math.inf)}
    square: Any

    def __init__(
        self, parameters: Leaves, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8, *, ema_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, lr, ema_decay)
        self.alpha, self.eps = alpha, eps

    def _step_(self) -> None:
        arrays = self.buffer, self.gradient, self.square, self.ema
        kernels.rmsprop_(*arrays, alpha=self.alpha, eps=self.eps, **self._pace())

    def rates(self) -> Any:
        """Return lr/(√v + ε)."""
        return self.lr / (np.sqrt(to_numpy(self.square).astype(np.float64)) + self.eps)


class Adam(Optimizer):
    """Adam with bias-corrected moments (1412.6980); its first step is −lr·g/(|g| + ε)."""

    slots: tuple[str, ...] = ("first", "second")
    ranges = {**Optimizer.ranges, "beta1": (0, 1), "beta2": (0, 1), "eps": (0, math.inf)}
    first: Any
    second: Any

    def __init__(
        self,
        parameters: Leaves,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        ema_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr, ema_decay)
        self.betas, self.eps = betas, eps

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "betas":
            if not isinstance(value, Sequence) or len(value) != 2:
                raise ValueError(f"{type(self).__name__}: betas must be a pair of numbers, not {value!r}")
            self._require("beta1", value[0])
            self._require("beta2", value[1])
        super().__setattr__(name, value)

    def _step_(self) -> None:
        arrays, (beta1, beta2) = (self.buffer, self.gradient, self.first, self.second, self.ema), self.betas
        step = self.steps if self.clock is None else self.clock
        kernels.adam_(*arrays, beta1=beta1, beta2=beta2, eps=self.eps, step=step, **self._pace())

    def rates(self) -> Any:
        """Return lr/(√v̂ + ε), v̂ the second moment without its bias."""
        correction = 1 - self.betas[1] ** max(1, self.steps)
        return self.lr / (np.sqrt(to_numpy(self.second).astype(np.float64) / correction) + self.eps)


class _Optimistic(Optimizer):
    """An optimiser that takes its move twice and subtracts the last one: p ← p + 2Δ_t − Δ_{t−1}, Δ_{−1} = 0.

    A mixin before the optimiser that makes the moves Δ (1711.00141). ``past`` holds Δ_{t−1}.
    """

    past: Any

    def _step_(self) -> None:
        before, decay = self.buffer.copy(), self.ema_decay
        self.ema_decay = 0.0  # the average follows the final parameters
        empty, self.ema = self.ema, self.buffer[:0].copy()
        try:
            super()._step_()
        finally:
            self.ema_decay, self.ema = decay, empty
        move = self.buffer - before
        self.buffer += move
        self.buffer -= self.past
        self.past[...] = move
        if decay:
            self.ema += (1 - decay) * (self.buffer - self.ema)


class OptimisticSGD(_Optimistic, SGD):
    """Optimistic mirror descent: p ← p − 2·lr·g_t + lr·g_{t−1}, g_{−1} = 0 (1711.00141, section 3)."""

    def __init__(
        self, parameters: Leaves, lr: float = 1e-3, weight_decay: float = 0.0, *, ema_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, lr, 0.0, weight_decay, ema_decay=ema_decay)
        self.slots = ("past",)
        self.past = np.zeros_like(self.buffer)


class OptimisticAdam(_Optimistic, Adam):
    """Adam's move with bias-corrected moments, taken twice, less the one before (1711.00141, algorithm 1)."""

    slots = ("first", "second", "past")


@dataclass(frozen=True)
class Kind:
    """An optimiser, its optimistic form (or None), and the settings that both take."""

    plain: Callable[..., Optimizer]
    optimistic: Callable[..., Optimizer] | None = None
    takes: tuple[str, ...] = ()

    def make(self, parameters: Leaves, lr: float, ema_decay: float, *, optimistic: bool, **settings: Any) -> Optimizer:
        """Return the optimiser; settings that it does not take are left out."""
        kind: Any = self.optimistic if optimistic else self.plain
        return kind(parameters, lr, ema_decay=ema_decay, **{name: settings[name] for name in self.takes})


OPTIMISERS = {
    "adam": Kind(Adam, OptimisticAdam, ("betas",)),
    "rmsprop": Kind(RMSProp),
    "sgd": Kind(SGD, OptimisticSGD),
}
