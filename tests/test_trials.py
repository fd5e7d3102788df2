"""The gradient checker on trial: it accuses no right function of the first list and misses no wrong one of the second."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import minigan as mg
from minigan import ops
from minigan.engine import primitive as primitives_module
from minigan.engine.primitive import primitive
from minigan.ops.elementwise import constant
from minigan.testing import GradientError, KinkError, check_grads

X = np.array([0.3, -1.2, 2.1])
P = np.array([0.5, 1.7, 2.9])
RNG = np.random.default_rng(5)
WIDE = RNG.standard_normal(3000)
TABLE = RNG.standard_normal((4, 3))
IMAGE, KERNEL = RNG.standard_normal((2, 5, 4, 2)), RNG.standard_normal((3, 2, 2, 3))


def define(forward, *rules):
    op = primitive(forward)
    op.defvjp(*rules)
    return op


@pytest.fixture(autouse=True)
def _forget_the_primitives():
    count = len(primitives_module._primitives)
    yield
    del primitives_module._primitives[count:]


def sin(x):
    return SIN(x)


COUNT = len(primitives_module._primitives)
SIN = define(lambda x: np.sin(x), lambda g, y, x: g * COS(x))
COS = define(lambda x: np.cos(x), lambda g, y, x: -g * SIN(x))
ERF = define(lambda x: np.arctan(x), lambda g, y, x: g / (1.0 + x * x))
del primitives_module._primitives[COUNT:]


def cubic(x):
    return x * x * x - 2.0 * x * x + 0.5


def layered(x, w, v):
    return ops.sum(ops.tanh(ops.tanh(x @ w) @ v))


def newton(x):
    y = x * 0.5 + 0.5
    for _ in range(6):
        y = 0.5 * (y + x / y)
    return y


def slope_squared(w):
    x = mg.tensor(X, requires_grad=True)
    return ops.sum(ops.square(mg.grad(ops.tanh(x * w).sum(), x, create_graph=True)))


def normalised(x):
    return (x - ops.mean(x, 0)) / ops.sqrt(ops.var(x, 0) + 1e-5)


RIGHT = {  # f, arguments
    "tanh": (ops.tanh, [X]),
    "log at .01": (ops.log, [np.array([0.01, 0.3])]),
    "sqrt at .01": (ops.sqrt, [np.array([0.01, 2.0])]),
    "1/x at .02": (lambda x: 1.0 / x, [np.array([0.02, -0.02, 3.0])]),
    "log at 1e-6": (ops.log, [np.array([1e-6])]),
    "sqrt at 1e-10": (ops.sqrt, [np.array([1e-10])]),
    "1/x at 1e-5": (lambda x: 1.0 / x, [np.array([1e-5])]),
    "log near its border": (lambda x: ops.log(x - 1.0), [np.array([1.0 + 1e-7])]),
    "sqrt near its border": (lambda x: ops.sqrt(2.0 - x), [np.array([2.0 - 1e-6])]),
    "log of 1 - x near 1": (lambda x: ops.log(1.0 - x), [np.array([0.9999])]),
    "x to the 50": (lambda x: x**50, [np.array([0.9, 1.1])]),
    "x to the 50 at 3": (lambda x: x**50, [np.array([3.0])]),
    "x to the -20": (lambda x: x**-20.0, [np.array([0.7, 1.3])]),
    "x to the .1": (lambda x: x**0.1, [np.array([0.003, 2.0])]),
    "exp of exp": (lambda x: ops.exp(ops.exp(x)), [X]),
    "exp at 30": (ops.exp, [np.array([30.0, -30.0])]),
    "sin 50x": (lambda x: sin(50.0 * x), [X]),
    "sin 1000x": (lambda x: sin(1000.0 * x), [X]),
    "sin of 1/x": (lambda x: sin(1.0 / x), [np.array([0.05])]),
    "sin of a large number": (sin, [np.array([1e6])]),
    "a sharp bump": (lambda x: 1.0 / (1.0 + 1e6 * x * x), [np.array([0.002, 0.5])]),
    "a steep sigmoid": (lambda x: ops.sigmoid(1e4 * x), [np.array([1e-4, 0.3])]),
    "softmax with logits 80": (lambda x: ops.softmax(x), [np.array([80.0, 0.0, -80.0])]),
    "softmax with logits 800": (lambda x: ops.softmax(x), [np.array([800.0, 0.0])]),
    "logsumexp with logits 80": (lambda x: ops.logsumexp(x), [np.array([80.0, -3.0, 79.0])]),
    "sigmoid at 40": (ops.sigmoid, [np.array([40.0, -40.0])]),
    "sigmoid at 34": (ops.sigmoid, [np.array([34.0, 20.0])]),
    "tanh at 20": (ops.tanh, [np.array([20.0, -20.0, 5.0])]),
    "softplus at 90": (ops.softplus, [np.array([90.0, -90.0])]),
    "sum of softmax, which is constant": (lambda x: ops.sum(ops.softmax(x)), [X]),
    "sum of a large softmax": (lambda x: ops.sum(ops.softmax(x)), [WIDE]),
    "mean of a normalised column": (lambda x: ops.mean(normalised(x), 0), [TABLE]),
    "sin² + cos² - 1": (lambda x: 1e3 * (sin(x) ** 2 + COS(x) ** 2 - 1.0), [X]),
    "x - x": (lambda x: x - x, [X]),
    "x times 0": (lambda x: x * 0.0, [X]),
    "a constant": (lambda x: mg.tensor(np.ones(3)), [X]),
    "a constant that is 0": (lambda x: mg.tensor(np.zeros(3)), [X]),
    "an argument that is not used": (lambda x, y: x * x, [X, X]),
    "detached on purpose where it does not count": (lambda x: x * 2.0 + (x - x).detach(), [X]),
    "(x + 1e8) - 1e8": (lambda x: (x + 1e8) - 1e8, [X]),
    "(x + 1e4) - 1e4": (lambda x: (x + 1e4) - 1e4, [X]),
    "nearly equal sums": (lambda x, y: ops.sum(x) - ops.sum(y), [X * 1e6, X * 1e6 + 1e-6]),
    "1 - cos near 0": (lambda x: 1.0 - COS(x), [np.array([1e-4])]),
    "variance of a column far from 0": (lambda x: ops.var(x), [1e3 + X]),
    "arguments of 1e-12": (lambda x: ops.tanh(x * 1e12), [np.array([1e-12, -5e-13])]),
    "arguments of 1e12": (lambda x: ops.tanh(x * 1e-12), [np.array([1e12, -5e11])]),
    "exp at 1e-12": (ops.exp, [np.array([1e-12])]),
    "squares of 1e12": (ops.square, [np.array([1e12, 3.0, 1e-12])]),
    "results of 1e-12": (lambda x: 1e-12 * ops.exp(x), [X]),
    "results of 1e12": (lambda x: 1e12 * ops.exp(x), [X]),
    "arguments of mixed scale": (lambda x, y: ops.sum(x * x) * ops.tanh(y), [X * 1e8, X * 1e-8]),
    "a small slope beside a large one": (lambda x, y: ops.sum(1e6 * x * x) + ops.sum(1e-6 * y), [X, X]),
    "results of mixed scale": (lambda x: (1e9 * ops.exp(x), 1e-9 * ops.tanh(x)), [X]),
    "entries of mixed scale": (lambda x: x * np.array([1e10, 1.0, 1e-10]), [X]),
    "entries of mixed scale, logarithm": (ops.log, [np.array([1e-8, 1.0, 1e8])]),
    "relu near its kink": (ops.relu, [np.array([1e-3, -1e-3, 1e-6, -1e-6])]),
    "relu very near its kink": (ops.relu, [np.array([1e-10, -1e-10])]),
    "abs near its kink": (ops.abs, [np.array([1e-5, -1e-5])]),
    "clip near its bounds": (lambda x: ops.clip(x, -1.0, 1.0), [np.array([0.9999, 1.0001, -0.99999])]),
    "hinge near 1": (lambda s: ops.mean_loss(s, "hinge_real"), [np.array([0.999, 1.001, 3.0])]),
    "maximum near a tie": (ops.maximum, [X, X + np.array([1e-4, -1e-4, 1e-6])]),
    "max near a tie": (lambda x: ops.max(x), [np.array([1.0, 1.0001, 0.2])]),
    "relu squared at 0": (lambda x: ops.square(ops.relu(x)), [np.array([1e-2, 1.0])]),
    "where": (lambda x: ops.where(X > 0, x * x, ops.exp(x)), [X]),
    "getitem with repeats": (lambda x: x[np.array([0, 0, 2])] * x, [X]),
    "small integers": (lambda x: x * x + 3.0 * x, [np.array([1.0, 2.0, -3.0])]),
    "an integer argument beside": (lambda x, n: x * n.astype("float64"), [X, np.array([1, 2, 3])]),
    "integer results beside": (lambda x: (x * x, mg.tensor(np.array([1, 2]))), [X]),
    "a Python number": (lambda x: ops.exp(x), [0.3]),
    "0-d": (lambda x, y: x * y, [np.array(0.5), np.array(-2.0)]),
    "0-d beside 2-d": (lambda x, y: x * y, [np.array(0.5), TABLE]),
    "empty": (lambda x: x * 2.0, [np.empty((0, 3))]),
    "empty beside full": (lambda x, y: (x * 2.0, ops.exp(y)), [np.empty((0, 3)), X]),
    "empty sum": (lambda x: ops.sum(x * 2.0), [np.empty((0, 3))]),
    "one entry of 3,000": (lambda x: x[7] * x[7], [WIDE]),
    "3,000 entries": (lambda x: ops.sum(ops.tanh(x)), [WIDE]),
    "3,000 entries to 3,000": (lambda x: sin(x) * x, [WIDE]),
    "3,000 entries with kinks": (lambda x: ops.relu(x), [np.where(np.abs(WIDE) < 1e-3, 0.5, WIDE)]),
    "3,000 entries, logarithm": (lambda x: ops.sum(ops.log(x)), [np.abs(WIDE) + 1e-3]),
    "matmul": (lambda x, w: x @ w, [TABLE, TABLE.T]),
    "matmul of a view": (lambda x, w: x @ w, [TABLE[::2], TABLE.T[:, ::-1]]),
    "convolution": (lambda x, w: ops.conv2d(x, w, stride=(2, 1), padding=(1, 0)), [IMAGE, KERNEL]),
    "layers": (layered, [TABLE, TABLE.T, TABLE]),
    "batch norm": (lambda x, g, b: ops.batch_norm(x, g, b), [TABLE, P, X]),
    "normalised": (normalised, [TABLE]),
    "transposed": (lambda x: ops.transpose(x) * X[:, None], [TABLE]),
    "broadcast": (lambda x, y: x * y, [TABLE, X]),
    "Newton's method": (newton, [P]),
    "a gradient inside": (slope_squared, [X]),
    "a distance": (lambda x, y: ops.sqrt(ops.sum(ops.square(x - y))), [X, P]),
    "a quotient of sums": (lambda x: ops.sum(x * x) / ops.sum(ops.exp(x)), [X]),
    "a dictionary": (lambda x: {"a": x * x, "b": [ops.exp(x), x.sum()]}, [X]),
    "arctan": (ERF, [X * 10]),
    "cubic at its turning point": (cubic, [np.array([0.0, 4 / 3])]),
    "a tail that is rounded in steps": (lambda x: x * (1.0 + ops.tanh(x)), [np.array([-12.0, -3.0])]),
    "cross-entropy that is saturated": (lambda x: ops.softplus(-x), [np.array([40.0, 30.0])]),
    "two maxima far from a third": (lambda x: ops.max(x), [np.array([2.0, 1.0, -5.0])]),
    "exp of -1/x": (lambda x: ops.exp(-1.0 / x), [np.array([0.02, 0.5])]),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_function_passes(name):
    f, args = RIGHT[name]
    check_grads(f, args)


def off(factor):
    """x² with a factor at its gradient."""
    return lambda: define(lambda x: x * x, lambda g, y, x: g * (2.0 * x) * factor)


def with_rule(forward, *rules):
    return lambda: define(forward, *rules)


def scaled(n, where, factor):
    weights = np.ones(n)
    weights[where] = factor
    return weights


def stale():
    """Its rule uses what the last call saw."""
    seen = []

    def forward(x):
        seen[:] = [x.copy()]
        return x * x

    return define(forward, lambda g, y, x: g * (2.0 * seen[0]))


def drifting():
    calls = itertools.count()
    return define(lambda x: x * 2.0, lambda g, y, x: g * (2.0 + 1e-15 * next(calls)))


def random_values():
    rng = np.random.default_rng(0)
    return lambda x: x * 2.0 + 1e-9 * rng.standard_normal(3)


def dropout():
    rng = np.random.default_rng(0)
    return lambda x: x * mg.tensor((rng.random(3) < 0.5) * 2.0)


def spoils(g, factor):
    kept = g * 1.0
    g.data *= 1.5
    return kept * factor


def layout_of(g, right, wrong):
    return g * (right if g.data.flags.c_contiguous else wrong)


def product_but_not_of_one():
    """Wrong for f(x, x) alone: the second argument's part is dropped where both are one array."""

    def second(g, out, x, y):
        return g * x if x is not y else g * 0.0

    return define(lambda x, y: x * y, lambda g, out, x, y: g * y, second)


def wrong_value_for_one():
    return lambda x, y: x * y if x is not y else x * y * 1.01


def wrong_alone():
    """Its joint rule is right if both arguments are differentiated, wrong if one is a constant."""
    op = define(lambda x, y: x * y)

    def joint(g, out, x, y):
        both = all(isinstance(t, mg.Tensor) and t.requires_grad for t in (x, y))
        return (g * y * (1.0 if both else 1.001), g * x)

    op.defvjp_joint(joint)
    return op


def in_float32(factor):
    return define(lambda x: x * x, lambda g, y, x: g * (2.0 * x) * (factor if x.dtype == np.float32 else 1.0))


def value_in_float32():
    return define(lambda x: x * (1.001 if x.dtype == np.float32 else 1.0), lambda g, y, x: g)


def frozen_slope():
    return define(lambda x: x * x * x, lambda g, y, x: g * mg.Tensor(3.0 * x.data**2))


def slope_off():
    slope = define(lambda x: 3.0 * x * x, lambda g, y, x: g * (6.0 * x) * 1.0005)
    return define(lambda x: x * x * x, lambda g, y, x: g * slope(x))


def batch_norm_without_variance():
    def forward(x):
        return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)

    def rule(g, y, x):
        return (g - ops.mean(g, 0)) * (1.0 / np.sqrt(x.data.var(0) + 1e-5))

    return define(forward, rule)


def small_beside_huge(error):
    """Σ 1e6·x and 1e-9·y in one tuple of results."""
    small = define(lambda y: 1e-9 * y, lambda g, out, y: g * (1e-9 + error))
    return lambda x, y: (ops.sum(1e6 * x), small(y))


def small_slope_in_a_sum():
    small = define(lambda y: 1e-3 * y, lambda g, out, y: g * 1.001e-3)
    return lambda x, y: ops.sum(1e6 * x) + ops.sum(small(y))


def asymmetric():
    """A gradient field that is right at order 1 as a function, with a rule that is not that of a gradient."""
    field = define(lambda x: x[::-1].copy(), lambda g, y, x: g)
    return define(lambda x: np.array(0.5 * (x * x[::-1]).sum()), lambda g, y, x: g * field(x))


WRONG = {  # a function that makes the function, arguments, words of the message
    "off by .05%": (off(1.0005), [X], ""),
    "off by 1e-7": (off(1 + 1e-7), [X], ""),
    "sign": (off(-1.0), [X], ""),
    "factor 2": (off(0.5), [X], ""),
    "zero": (off(0.0), [X], ""),
    "nan": (off(np.nan), [X], "the gradient of argument 0 is nan"),
    "infinite": (off(np.inf), [X], "the gradient of argument 0 is"),
    "none": (with_rule(lambda x: x * x, None), [X], ""),
    "one entry of three": (with_rule(lambda x: x * 1.0, lambda g, y, x: g * scaled(3, 2, 1.0005)), [X], r"entry \(2,\)"),
    "one entry of 3,000": (with_rule(lambda x: x * 1.0, lambda g, y, x: g * scaled(3000, 1234, 1.0005)), [WIDE], r"entry \(1234,\)"),
    "one entry of 3,000 in a sum": (lambda: lambda x: ops.sum(define(lambda x: x * x, lambda g, y, x: g * (2.0 * x) * scaled(3000, 77, 1.01))(x)), [WIDE], r"entry \(77,\)"),
    "two entries swapped": (with_rule(lambda x: x * P, lambda g, y, x: g * P[[1, 0, 2]]), [X], ""),
    "shifted": (with_rule(lambda x: x * 1.0, lambda g, y, x: g[np.array([1, 2, 0])]), [X], ""),
    "transposed": (with_rule(lambda x: x.T.copy(), lambda g, y, x: ops.reshape(g, (4, 3))), [TABLE], ""),
    "a matrix not transposed": (with_rule(lambda x, w: x @ w, lambda g, y, x, w: g @ w, lambda g, y, x, w: ops.transpose(x) @ g), [TABLE[:3], TABLE[1:]], ""),
    "missing factor": (with_rule(lambda x: np.exp(2 * x), lambda g, y, x: g * y), [X], ""),
    "missing term": (with_rule(lambda x: x * np.exp(x), lambda g, y, x: g * ops.exp(x)), [X], ""),
    "missing power": (with_rule(lambda x: x**3, lambda g, y, x: g * (3.0 * x)), [X], ""),
    "constant added": (with_rule(lambda x: x * x, lambda g, y, x: g * (2.0 * x) + 1e-3), [X], ""),
    "dropped broadcast": (with_rule(lambda x: x + np.zeros((2, 3)), lambda g, y, x: g[0]), [X], ""),
    "broadcast averaged": (with_rule(lambda x: x + np.zeros((2, 3)), lambda g, y, x: ops.mean(g, 0)), [X], ""),
    "wrong axis": (with_rule(lambda x: x.sum(1), lambda g, y, x: ops.broadcast_to(g, (3, 3))), [TABLE[:3]], ""),
    "mean over the wrong axis": (with_rule(lambda x: x.mean(0), lambda g, y, x: ops.broadcast_to(g / 3.0, (4, 3))), [TABLE], ""),
    "wrong shape": (with_rule(lambda x: x * 1.0, lambda g, y, x: ops.concat([g, g], 0)), [X], ""),
    "batch norm without its variance term": (batch_norm_without_variance, [TABLE], ""),
    "softmax without its normaliser": (with_rule(lambda x: np.exp(x) / np.exp(x).sum(), lambda g, y, x: g * y), [X], ""),
    "detached part": (lambda: lambda x: x * x.detach(), [X], ""),
    "detached by .data": (lambda: lambda x: x * mg.Tensor(ops.exp(x).data), [X], ""),
    "detached where it nearly cancels": (lambda: lambda x: (x.detach() + 1e8) - 1e8, [X], ""),
    "detached and small beside the rest": (lambda: lambda x: x + 1e-6 * ops.square(x.detach()), [X], ""),
    "a small argument's 1e-10 beside a huge one": (lambda: small_beside_huge(1e-10), [X * 1e6, X * 1e-3], ""),
    "a small argument's 1e-13 beside a huge one": (lambda: small_beside_huge(1e-13), [X * 1e6, X * 1e-3], ""),
    "a small slope inside a huge sum": (small_slope_in_a_sum, [X, X], "argument 1"),
    "a small result's gradient lost": (lambda: lambda x: (1e9 * ops.exp(x), 1e-9 * ops.exp(x.detach())), [X], "output 1"),
    "a small entry of a huge one": (with_rule(lambda x: x * np.array([1e10, 1.0, 1e-10]), lambda g, y, x: g * np.array([1e10, 1.0, 1.01e-10])), [X], r"entry \(2,\)"),
    "saturated: a tail that is 0": (with_rule(lambda x: 1 / (1 + np.exp(-x)), lambda g, y, x: g * 0.0), [np.array([-30.0])], ""),
    "steep: off by .1%": (with_rule(lambda x: x**50, lambda g, y, x: g * (50.05 * x**49)), [np.array([1.1])], ""),
    "log at .01, off by .1%": (with_rule(lambda x: np.log(x), lambda g, y, x: g * 1.001 / x), [np.array([0.01])], ""),
    "sqrt at .01 without its half": (with_rule(lambda x: np.sqrt(x), lambda g, y, x: g / y), [np.array([0.01])], ""),
    "1/x at .02 with x for x²": (with_rule(lambda x: 1 / x, lambda g, y, x: -g / x), [np.array([0.02])], ""),
    "sin 50x without its 50": (with_rule(lambda x: np.sin(50 * x), lambda g, y, x: g * constant(np.cos, 50 * x.data)), [X], ""),
    "sin 50x, off by .05%": (with_rule(lambda x: np.sin(50 * x), lambda g, y, x: g * (50.025 * np.cos(50 * x.data))), [X], ""),
    "relu's slope on the wrong side": (with_rule(lambda x: np.maximum(x, 0), lambda g, y, x: g * (x.data < 0).astype(float)), [X], ""),
    "relu's slope, off near its kink": (with_rule(lambda x: np.maximum(x, 0), lambda g, y, x: g * (x.data > 0.01).astype(float)), [np.array([0.001, 2.0])], ""),
    "clip that lets all pass": (with_rule(lambda x: np.clip(x, -1, 1), lambda g, y, x: g), [X], ""),
    "straight through a rounding": (with_rule(lambda x: np.round(x), lambda g, y, x: g), [X], ""),
    "straight through fine steps": (with_rule(lambda x: np.round(x * 8) / 8, lambda g, y, x: g), [X], ""),
    "one of two outputs": (lambda: lambda x: (x * x, off(1.01)()(x)), [X], "output 1"),
    "one of two arguments": (with_rule(lambda x, y: x * x * y, lambda g, o, x, y: g * (2.0 * x) * y, lambda g, o, x, y: g * x), [P, X], "argument 1"),
    "gradients of two arguments swapped": (with_rule(lambda x, y: x * y, lambda g, o, x, y: g * x, lambda g, o, x, y: g * y), [X, P], ""),
    "stale saved array": (stale, [X], ""),
    "cotangent changed": (with_rule(lambda x: x * 2.0, lambda g, y, x: spoils(g, 2.0)), [X], "a cotangent was changed in place"),
    "argument changed": (with_rule(lambda x: np.multiply(x, 1.001, out=x), lambda g, y, x: g * 1.001), [X], "argument was changed in place"),
    "cotangents that are not contiguous": (with_rule(lambda x: x * 2.0, lambda g, y, x: layout_of(g, 2.0, 2.001)), [TABLE], "not contiguous"),
    "arguments that are not contiguous": (with_rule(lambda x: x * 2.0 if x.flags.c_contiguous else x * 2.1, lambda g, y, x: g * 2.0), [TABLE], "not contiguous"),
    "memory order taken for axis order": (with_rule(lambda x: x.ravel(order="K") * 1.0, lambda g, y, x: ops.reshape(g, x.shape)), [TABLE], ""),
    "f(x, x)": (product_but_not_of_one, [X, P], "one array given as argument 0 and argument 1"),
    "the value of f(x, x)": (wrong_value_for_one, [X, P], "one array given as argument 0 and argument 1"),
    "one argument alone": (wrong_alone, [X, P], "alone"),
    "float32 only": (lambda: in_float32(1.001), [X], "in float32"),
    "float32 only, slightly": (lambda: in_float32(1.0001), [X], "in float32"),
    "the value in float32 only": (value_in_float32, [X], "in float32"),
    "float32 inside": (lambda: lambda x: ops.tanh(x.astype(np.float32)).astype(np.float64), [X], "float32"),
    "float32 in one branch": (lambda: lambda x: x * x + ops.exp(x.astype(np.float32)), [X], "float32"),
    "float32 inside an op": (with_rule(lambda x: np.tanh(x.astype("f")).astype("d"), lambda g, y, x: g * (1.0 - y * y)), [X], "float32"),
    "float32 result": (lambda: lambda x: (x * x).astype(np.float32), [X], "float32"),
    "float32 in the rule": (with_rule(lambda x: np.log(x), lambda g, y, x: (g / x).astype(np.float32)), [P], ""),
    "random values": (random_values, [X], "two calls"),
    "dropout": (dropout, [X], "two calls"),
    "random gradient": (drifting, [X], "called twice gave different bits"),
    "not linear in the cotangent": (with_rule(lambda x: 1.0 * x, lambda g, y, x: g * g), [X], "not linear"),
    "the absolute value of the cotangent": (with_rule(lambda x: 1.0 * x, lambda g, y, x: ops.abs(g)), [X], "not linear"),
    "second derivative frozen": (frozen_slope, [X], "order 2"),
    "second derivative off by .05%": (slope_off, [X], "order 2"),
    "second derivative of a product frozen": (lambda: define(lambda x, y: x * y, lambda g, o, x, y: g * mg.Tensor(y.data), lambda g, o, x, y: g * x), [X, P], "order 2"),
    "second derivative frozen in 3,000 entries": (frozen_slope, [WIDE], "order 2"),
    "Hessian not symmetric": (asymmetric, [X], "order 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_function_is_refused(name):
    make, args, words = WRONG[name]
    with np.errstate(all="ignore"), pytest.raises(GradientError, match=words or "order 1") as caught:
        check_grads(make(), [np.array(x) for x in args])
    assert not isinstance(caught.value, KinkError) or "steps" in name or "rounding" in name


KINKED = {  # f, argument, the entry at the kink and its value
    "relu at 0": (ops.relu, [0.5, 0.0], (1,), "0.0"),
    "abs at 0": (ops.abs, [0.0, 1.0], (0,), "0.0"),
    "clip at its bound": (lambda x: ops.clip(x, -1.0, 0.3), [0.3, 0.2], (0,), "0.3"),
    "hinge at 1": (lambda s: ops.mean_loss(s, "hinge_real"), [2.0, 1.0], (1,), "1.0"),
    "maximum at a tie": (lambda x: ops.maximum(x, np.array([1.0, 5.0])), [1.0, 2.0], (0,), "1.0"),
    "leaky relu at 0": (lambda x: ops.leaky_relu(x, 0.2), [0.5, 0.0], (1,), "0.0"),
    "a kink in a curve": (lambda x: ops.exp(x) + ops.abs(x - 0.7), [0.7, 2.0], (0,), "0.7"),
    "x to the 1.5 at its border": (lambda x: x**1.5, [1.0, 0.0], (1,), "0.0"),
    "relu of one entry of 3,000": (ops.relu, np.where(np.arange(3000) == 2345, 0.0, np.abs(WIDE) + 0.1), (2345,), "0.0"),
}  # fmt: skip


@pytest.mark.parametrize("name", KINKED)
def test_a_kink_is_reported_with_its_argument_entry_and_value(name):
    f, x, entry, value = KINKED[name]
    with pytest.raises(KinkError) as caught:
        check_grads(f, [np.array(x)])
    assert f"argument 0, entry {entry}, value {value}," in str(caught.value)


def test_the_trials_are_many():
    assert len(RIGHT) >= 60
    assert len(WRONG) >= 50
