"""One table of all ops: a call, a plain NumPy reference, a smooth domain and an order of differentiation for each.

`minigan check` and the tests use the same table, and an op without a row fails the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigan import kernels, ops
from minigan.engine.transforms import vjp
from minigan.ops.bias_act import bias_act_grad, bias_act_sums
from minigan.ops.elementwise import raw
from minigan.ops.loss import loss_slope
from minigan.ops.norm import batch_norm_grad, batch_norm_grad_vjp
from minigan.ops.reduce import shares
from minigan.ops.shape import move
from minigan.testing.references import (
    np_act,
    np_act_grad,
    np_batch_norm,
    np_batch_norm_grad,
    np_batch_norm_grad_vjp,
    np_conv2d,
    np_conv2d_act,
    np_conv2d_transpose,
    np_conv2d_transpose_act,
    np_conv2d_weight_grad,
    np_loss,
    np_loss_slope,
    np_scatter,
    np_sigmoid,
)


class Draw:
    """A source of sizes, choices and values. The tests replace :meth:`integer` and :meth:`choice` by Hypothesis."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        """Return an integer from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def choice(self, options: Sequence[Any]) -> Any:
        """Return one of the options."""
        return options[self.integer(0, len(options) - 1)]

    def shape(self, low: int = 0, high: int = 3) -> tuple[int, ...]:
        """Return a shape of low to high axes, of lengths 1 to 4."""
        return tuple(self.integer(1, 4) for _ in range(self.integer(low, high)))

    def real(self, *shape: int) -> np.ndarray:
        """Return numbers of either sign."""
        return np.asarray(1.5 * self.rng.standard_normal(shape))

    def positive(self, *shape: int) -> np.ndarray:
        """Return numbers from 0.5 to 3."""
        return np.asarray(self.rng.uniform(0.5, 3.0, shape))

    def off_zero(self, *shape: int) -> np.ndarray:
        """Return numbers at least 0.2 away from 0, further than any finite difference reaches."""
        return np.asarray(self.rng.uniform(0.2, 3.0, shape) * self.rng.choice([-1.0, 1.0], shape))

    def spaced(self, *shape: int) -> np.ndarray:
        """Return numbers at least 0.25 apart from each other."""
        size = int(np.prod(shape, dtype=int))
        return np.asarray(0.25 * (self.rng.permutation(size) - size / 2 + 0.1)).reshape(shape)

    def broadcasting(self, values: Callable[..., np.ndarray]) -> list[np.ndarray]:
        """Return two arrays whose shapes broadcast against each other."""
        shape = self.shape()
        other = tuple(self.choice([1, n]) for n in shape)[self.integer(0, len(shape)) :]
        pair = [values(*shape), values(*other)]
        return pair[::-1] if self.integer(0, 1) else pair


@dataclass
class Case:
    """Arguments (arrays) and settings of one call."""

    args: list[Any]
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One op: ``op`` on Tensors and ``reference`` on float64 arrays take the case that ``make`` draws.

    ``covers`` names the primitives that a call records; ``linear`` ops are checked with one exact step.
    """

    name: str
    op: Callable[..., Any]
    reference: Callable[..., Any]
    make: Callable[[Draw], Case]
    covers: tuple[str, ...]
    order: int = 2
    linear: bool = False


def _unary(name: str, op: Any, reference: Any, values: str, order: int = 3, covers: str = "") -> Row:
    return Row(name, op, reference, lambda d: Case([getattr(d, values)(*d.shape())]), (covers or name,), order)


def _binary(name: str, op: Any, reference: Any, values: str = "real") -> Row:
    return Row(name, op, reference, lambda d: Case(d.broadcasting(getattr(d, values))), (name,))


def _spaced_pair(d: Draw) -> Case:
    shape = d.shape()
    both = d.spaced(2, *shape)
    return Case([np.asarray(both[0]), np.asarray(both[1])])


def _reduction(
    name: str, op: Any, reference: Any, values: str = "real", covers: tuple[str, ...] = (), linear: bool = False
) -> Row:
    def make(d: Draw) -> Case:
        x = getattr(d, values)(*d.shape(1))
        axes = [None, *range(-x.ndim, x.ndim), tuple(range(x.ndim))]
        return Case([x], {"axis": d.choice(axes), "keepdims": d.choice([False, True])})

    return Row(name, op, reference, make, covers or (name,), linear=linear)


# --- cases ------------------------------------------------------------------------------------------------------------


def _softmax(x: Any, axis: int) -> Any:
    return np.exp(x) / np.exp(x).sum(axis, keepdims=True)


def _one_axis(d: Draw) -> Case:
    return Case([d.real(*d.shape(1))], {"axis": d.choice([-1, 0])})


def _activation(d: Draw) -> dict[str, Any]:
    return {"activation": d.choice(kernels.ACTIVATIONS), "slope": d.choice([0.0, 0.2, 1.0])}


def _bias_act_case(d: Draw) -> Case:
    x = d.off_zero(*d.shape(1))
    b = d.choice([None, np.zeros(x.shape[-1]), 0.05 * np.sign(x.reshape(-1, x.shape[-1])[0])])
    return Case([x, b], _activation(d))


def _dense_case(d: Draw) -> Case:
    """Draw inputs; an activation with a kink gets a bias that keeps every sum clear of it."""
    n, k, m = d.integer(1, 4), d.integer(1, 4), d.integer(1, 3)
    x, w, settings = d.real(n, k), d.real(k, m), _activation(d)
    b = d.choice([None, d.real(m)])
    if settings["activation"] in ("relu", "leaky_relu"):
        x, w = 0.4 * x.clip(-1, 1), 0.4 * w.clip(-1, 1)
        b = np.where(np.arange(m) % 2, 2.0, -2.0)
    return Case([x, w, b], settings)


def _matmul_case(d: Draw) -> Case:
    n, k, m = d.integer(1, 4), d.integer(1, 4), d.integer(1, 4)
    shapes = [
        ((n, k), (k, m)),
        ((k,), (k, m)),
        ((n, k), (k,)),
        ((k,), (k,)),
        ((2, n, k), (2, k, m)),
        ((2, n, k), (k, m)),
    ]
    a, b = d.choice([*shapes, ((3, 1, n, k), (2, k, m))])
    return Case([d.real(*a), d.real(*b)])


def conv_geometry(d: Draw) -> dict[str, Any]:
    """Draw sizes for the conv triad: strides and paddings unequal, kernels larger than the image, outputs of 1×1."""
    size, kernel, stride, padding = [], [], [], []
    for _ in range(2):
        k, s, p = d.integer(1, 4), d.integer(1, 3), d.integer(0, 2)
        size.append(d.integer(max(1, k - 2 * p), max(1, k - 2 * p) + 4))
        kernel.append(k)
        stride.append(s)
        padding.append(p)
    return {
        "n": d.integer(1, 2),
        "size": tuple(size),
        "kernel": tuple(kernel),
        "stride": tuple(stride),
        "padding": tuple(padding),
        "channels": (d.integer(1, 3), d.integer(1, 3)),
    }


def _conv_arrays(d: Draw) -> tuple[Any, Any, Any, dict[str, Any]]:
    geometry = conv_geometry(d)
    c_in, c_out = geometry["channels"]
    settings = {"stride": geometry["stride"], "padding": geometry["padding"]}
    out = kernels.conv2d_output_shape(geometry["size"], geometry["kernel"], *settings.values())
    x = d.real(geometry["n"], *geometry["size"], c_in)
    w = d.real(*geometry["kernel"], c_in, c_out)
    y = d.real(geometry["n"], *out, c_out)
    return x, w, y, settings


def _conv_case(d: Draw) -> Case:
    x, w, _, settings = _conv_arrays(d)
    return Case([x, w], settings)


def _conv_transpose_case(d: Draw) -> Case:
    x, w, y, settings = _conv_arrays(d)
    sizes = zip(x.shape[1:3], settings["padding"], w.shape[:2], settings["stride"], strict=True)
    extra = tuple((n + 2 * p - k) % s for n, p, k, s in sizes)
    return Case([y, w], {**settings, "output_padding": extra})


def _with_act(d: Draw, case: Case, channels: int) -> Case:
    """Give a convolution a bias and an activation; one with a kink gets a bias that keeps every sum clear of it."""
    settings = _activation(d)
    (x, w), b = case.args, d.choice([None, d.real(channels)])
    if settings["activation"] in ("relu", "leaky_relu"):
        x, w = x.clip(-1, 1) / x[0].size, w.clip(-1, 1)
        b = np.where(np.arange(channels) % 2, 2.0, -2.0)
    return Case([x, w, b], {**case.settings, **settings})


def _conv_act_case(d: Draw) -> Case:
    case = _conv_case(d)
    return _with_act(d, case, case.args[1].shape[3])


def _conv_transpose_act_case(d: Draw) -> Case:
    case = _conv_transpose_case(d)
    return _with_act(d, case, case.args[1].shape[2])


def _conv_weight_case(d: Draw) -> Case:
    x, w, y, settings = _conv_arrays(d)
    return Case([x, y], {"kernel": w.shape[:2], **settings})


def _batch_norm_case(d: Draw) -> Case:
    shape = d.choice([(d.integer(3, 6),), (d.integer(1, 3), 2, 2)])
    channels = d.integer(1, 3)
    x = np.stack([d.spaced(*shape) + d.real() for _ in range(channels)], axis=-1)  # never nearly constant
    return Case([x, d.positive(channels), d.real(channels)], {"eps": d.choice([1e-5, 0.1])})


def _batch_norm_grad_case(d: Draw) -> Case:
    case = _batch_norm_case(d)
    return Case([d.real(*case.args[0].shape), *case.args[:2]], case.settings)


def _forward_of(x: Any, eps: float) -> dict[str, Any]:
    """Return the values of a batch norm's forward pass that its gradients need."""
    array = getattr(x, "data", x)
    axes = tuple(range(array.ndim - 1))
    moments = array.mean(axes), array.var(axes)
    return {"moments": moments, "y": array, "eps": eps, "activation": "linear", "slope": 0.0}


def batch_norm_grad_op(g: Any, x: Any, gamma: Any, *, eps: float) -> Any:
    """batch_norm_grad with the moments of its forward pass."""
    return batch_norm_grad(g, x, gamma, **_forward_of(x, eps))


def batch_norm_grad_vjp_op(u: Any, g: Any, x: Any, gamma: Any, *, eps: float) -> Any:
    """batch_norm_grad_vjp with the moments of its forward pass."""
    return batch_norm_grad_vjp(u, g, x, gamma, **_forward_of(x, eps))


def _batch_norm_grad_vjp_case(d: Draw) -> Case:
    case = _batch_norm_grad_case(d)
    return Case([d.real(*case.args[0].shape), *case.args], case.settings)


def _loss_case(d: Draw) -> Case:
    s = d.off_zero(*d.shape(1))
    return Case([s + np.sign(s)], {"loss": d.choice(kernels.LOSSES)})  # clear of the hinges' kinks at ±1


def loss_slope_op(s: Any, *, loss: str) -> Any:
    """The slope of mean_loss, with the value of its forward pass."""
    return loss_slope(s, loss=loss, slope=kernels.mean_loss(raw(s), loss=loss)[1])


def _index_case(d: Draw) -> Case:
    x = d.real(d.integer(2, 4), d.integer(2, 4))
    indices = [
        1,
        -1,
        (slice(None), 0),
        (slice(None, None, -1),),
        (Ellipsis, None, slice(0, 2)),
        np.array([0, 1, 1, 0]),
        (np.array([0, 1, 1]), np.array([1, 0, 0])),
        x > 0,
        slice(0, 0),
    ]
    return Case([x], {"index": indices[d.integer(0, len(indices) - 1)]})


def _scatter_case(d: Draw) -> Case:
    case = _index_case(d)
    x, index = case.args[0], case.settings["index"]
    return Case([d.real(*x[index].shape)], {"index": index, "shape": x.shape})


def _several(d: Draw) -> Case:
    shape = d.shape(1)
    axis = d.integer(0, len(shape) - 1)
    lengths = [d.integer(1, 3) for _ in range(d.integer(1, 3))]
    return Case([d.real(*shape[:axis], n, *shape[axis + 1 :]) for n in lengths], {"axis": axis})


def _stacked(d: Draw) -> Case:
    shape = d.shape()
    return Case([d.real(*shape) for _ in range(d.integer(1, 3))], {"axis": d.integer(-len(shape) - 1, len(shape))})


def _transpose_case(d: Draw) -> Case:
    x = d.real(*d.shape())
    return Case([x], {"axes": d.choice([None, tuple(int(i) for i in d.rng.permutation(x.ndim))])})


def _pad_case(d: Draw) -> Case:
    x = d.real(*d.shape())
    return Case([x], {"widths": [(d.integer(0, 2), d.integer(0, 2)) for _ in x.shape]})


def _reshape_case(d: Draw) -> Case:
    x = d.real(*d.shape())
    return Case([x], {"shape": d.choice([(-1,), (1, x.size), x.shape[::-1], (x.size, 1, 1)])})


def _broadcast_case(d: Draw) -> Case:
    shape = d.shape()
    small = tuple(d.choice([1, n]) for n in shape)[d.integer(0, len(shape)) :]
    return Case([d.real(*small)], {"shape": shape})


def _where_case(d: Draw) -> Case:
    x, y = d.broadcasting(d.real)
    shape = np.broadcast_shapes(x.shape, y.shape)
    return Case([x, y], {"condition": d.rng.random(shape) < 0.5})


def _clip_case(d: Draw) -> Case:
    return Case([d.off_zero(*d.shape())], {"low": d.choice([-9.0, -0.05]), "high": d.choice([0.05, 9.0])})


# --- the table --------------------------------------------------------------------------------------------------------

ROWS: tuple[Row, ...] = (
    _binary("add", ops.add, np.add),
    _binary("sub", ops.sub, np.subtract),
    _binary("mul", ops.mul, np.multiply),
    _binary("div", ops.div, np.divide, "off_zero"),
    Row("neg", ops.neg, np.negative, lambda d: Case([d.real(*d.shape())]), ("neg",), linear=True),
    Row(
        "power",
        ops.power,
        lambda x, exponent: x**exponent,
        lambda d: Case([d.positive(*d.shape())], {"exponent": d.choice([2, 3.0, -1.0, 0.5, 0, 1])}),
        ("power",),
        3,
    ),
    Row(
        "exponential",
        lambda x, base: ops.power(base, x),
        lambda x, base: np.exp(x * np.log(base)),
        lambda d: Case([d.real(*d.shape())], {"base": d.choice([2, 0.5, 1.0, 10.0])}),
        ("exponential",),
        3,
    ),
    Row(
        "astype",
        ops.astype,
        lambda x, dtype: x,
        lambda d: Case([d.real(*d.shape())], {"dtype": np.float64}),
        ("astype",),
        linear=True,
    ),
    _unary("exp", ops.exp, np.exp, "real"),
    _unary("log", ops.log, np.log, "positive"),
    _unary("sqrt", ops.sqrt, np.sqrt, "positive"),
    _unary("square", ops.square, np.square, "real"),
    _unary("abs", ops.abs, np.abs, "off_zero"),
    _unary("tanh", ops.tanh, np.tanh, "real"),
    _unary("sigmoid", ops.sigmoid, np_sigmoid, "real"),
    _unary("softplus", ops.softplus, lambda x: np.logaddexp(0, x), "real"),
    _unary("relu", ops.relu, lambda x: np.maximum(x, 0), "off_zero", covers="bias_act"),
    Row(
        "leaky_relu",
        ops.leaky_relu,
        lambda x, slope: np.where(x > 0, x, slope * x),
        lambda d: Case([d.off_zero(*d.shape())], {"slope": d.choice([0.0, 0.2, 1.5])}),
        ("bias_act",),
        3,
    ),
    Row("maximum", ops.maximum, np.maximum, _spaced_pair, ("maximum",)),
    Row("minimum", ops.minimum, np.minimum, _spaced_pair, ("minimum",)),
    Row("clip", ops.clip, lambda x, low, high: np.clip(x, low, high), _clip_case, ("clip",)),
    Row("where", lambda x, y, condition: ops.where(condition, x, y), lambda x, y, condition: np.where(condition, x, y),
        _where_case, ("where",), linear=True),
    Row("bias_act", ops.bias_act, lambda x, b, activation, slope: np_act(x if b is None else x + b, activation, slope),
        _bias_act_case, ("bias_act",), 3),
    Row("bias_act_grad", bias_act_grad, np_act_grad,
        lambda d: Case([d.real(3, 2), 0.3 * d.off_zero(3, 2)], _activation(d)), ("bias_act_grad",)),
    Row("bias_act_sums", bias_act_sums,
        lambda g, y, **kind: (np_act_grad(g, y, **kind), np_act_grad(g, y, **kind).sum(0)),
        lambda d: Case([d.real(3, 2), 0.3 * d.off_zero(3, 2)], _activation(d)),
        ("bias_act_sums[0]", "bias_act_sums[1]")),
    _reduction("sum", ops.sum, np.sum, linear=True),
    _reduction("mean", ops.mean, np.mean, covers=("sum",), linear=True),
    _reduction("var", ops.var, np.var, covers=("sum",)),
    _reduction("max", ops.max, np.max, "spaced", ("amax",)),
    _reduction("min", ops.min, np.min, "spaced", ("amin",)),
    _reduction("logsumexp", ops.logsumexp, lambda x, axis, keepdims: np.log(np.exp(x).sum(axis, keepdims=keepdims)),
               covers=("logsumexp",)),
    Row("softmax", ops.softmax, _softmax, _one_axis, ("softmax",)),
    Row("shares", lambda x, axis: shares(x, axes=(axis % x.ndim,)), _softmax, _one_axis, ("shares",)),
    Row("broadcast_to", ops.broadcast_to, np.broadcast_to, _broadcast_case, ("broadcast_to",), linear=True),
    Row("reshape", lambda x, shape: ops.reshape(x, shape), lambda x, shape: x.reshape(shape), _reshape_case,
        ("reshape",), linear=True),
    Row("transpose", ops.transpose, np.transpose, _transpose_case, ("transpose",), linear=True),
    Row("to", lambda x: move(x, device=x.device), lambda x: x, lambda d: Case([d.real(*d.shape())]), ("move",),
        linear=True),
    Row("getitem", ops.getitem, lambda x, index: x[index], _index_case, ("getitem",), linear=True),
    Row("scatter_add", ops.scatter_add, np_scatter, _scatter_case, ("scatter_add",), linear=True),
    Row("concat", lambda *xs, axis: ops.concat(xs, axis), lambda *xs, axis: np.concatenate(xs, axis), _several,
        ("concat",), linear=True),
    Row("stack", lambda *xs, axis: ops.stack(xs, axis), lambda *xs, axis: np.stack(xs, axis), _stacked, ("concat",),
        linear=True),
    Row("pad", ops.pad, lambda x, widths: np.pad(x, widths) if widths else x, _pad_case, ("pad",), linear=True),
    Row("matmul", ops.matmul, np.matmul, _matmul_case, ("matmul",)),
    Row("dense", ops.dense,
        lambda x, w, b, activation, slope: np_act(x @ w + (0 if b is None else b), activation, slope), _dense_case,
        ("dense",)),
    Row("conv2d", ops.conv2d, np_conv2d, _conv_case, ("conv2d",)),
    Row("conv2d_transpose", ops.conv2d_transpose, np_conv2d_transpose, _conv_transpose_case, ("conv2d_transpose",)),
    Row("conv2d with bias and activation", ops.conv2d, np_conv2d_act, _conv_act_case, ("conv2d",)),
    Row("conv2d_transpose with bias and activation", ops.conv2d_transpose, np_conv2d_transpose_act,
        _conv_transpose_act_case, ("conv2d_transpose",)),
    Row("conv2d_weight_grad", ops.conv2d_weight_grad, np_conv2d_weight_grad, _conv_weight_case,
        ("conv2d_weight_grad",)),
    Row("batch_norm", ops.batch_norm, np_batch_norm, _batch_norm_case, ("batch_norm",)),
    Row("batch_norm_grad", batch_norm_grad_op, np_batch_norm_grad, _batch_norm_grad_case,
        ("batch_norm_grad[0]", "batch_norm_grad[1]", "batch_norm_grad[2]")),
    Row("batch_norm_grad_vjp", batch_norm_grad_vjp_op, np_batch_norm_grad_vjp, _batch_norm_grad_vjp_case,
        ("batch_norm_grad_vjp[0]", "batch_norm_grad_vjp[1]", "batch_norm_grad_vjp[2]")),
    Row("mean_loss", ops.mean_loss, np_loss, _loss_case, ("mean_loss",), 3),
    Row("loss_slope", loss_slope_op, np_loss_slope, _loss_case, ("loss_slope",)),
    Row("copy", lambda x: vjp(lambda t: t, x)[0], lambda x: x, lambda d: Case([d.real(2, 3)]), ("copy",), linear=True),
)  # fmt: skip
