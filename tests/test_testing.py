"""The gradient checker itself: what it accepts, what it must catch, and what it says then."""

from __future__ import annotations

import re
from collections import namedtuple

import numpy as np
import pytest

import minigan as mg
from minigan import nn, ops
from minigan.engine import primitive as primitives_module
from minigan.engine.primitive import primitive
from minigan.ops.elementwise import constant
from minigan.testing.gradcheck import GradientError, KinkError, check_grads

X = np.array([0.3, -1.2, 2.1])


@pytest.fixture
def define():
    """Return a function that makes a primitive; the registry forgets it after the test."""
    count = len(primitives_module._primitives)

    def make(forward, *rules):
        op = primitive(forward)
        op.defvjp(*rules)
        return op

    yield make
    del primitives_module._primitives[count:]


# --- right functions --------------------------------------------------------------------------------------------------

Pair = namedtuple("Pair", "product ratio")


@pytest.mark.parametrize(
    ("f", "args"),
    [
        (ops.tanh, [X]),
        (lambda x, y: x * y / (1.0 + y * y), [X, X[:, None] + 3]),
        (lambda x, y: ops.sum(x) * y, [X, 2.5]),
        (lambda x: ops.exp(x), [0.3]),
        (lambda x: ops.exp(x), [mg.tensor(X, requires_grad=True)]),
        (lambda x: ops.square(x), [X.astype(np.float32)]),
        (lambda x: x * 2.0, [np.empty((0, 3))]),
        (lambda x: mg.tensor(np.ones(3)), [X]),
        (lambda x, y: x * x, [X, X]),
    ],
    ids=["one", "two, broadcast", "a number", "0-d", "a tensor", "float32", "empty", "constant", "unused argument"],
)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_right_gradients_pass(f, args, order):
    check_grads(f, args, order)


def test_arguments_that_are_not_floats_are_passed_on_as_they_are():
    index, flags = np.array([2, 0]), np.array([True, False])

    def f(i, x, b, y, axis):
        assert i is index
        assert b is flags
        assert axis == 0
        return ops.where(b, x[i], y).sum(axis)

    check_grads(f, [index, X, flags, np.array([1.0, 2.0]), 0])


@pytest.mark.parametrize(
    "structure",
    [
        lambda a, b: (a, b),
        lambda a, b: [a, [b]],
        lambda a, b: {"a": a, "b": (b, a)},
        lambda a, b: Pair(a, b),
    ],
    ids=["tuple", "lists", "dict", "namedtuple"],
)
def test_structures_of_outputs(structure):
    check_grads(lambda x, y: structure(x * y, ops.exp(x).sum()), [X, X + 1])


@pytest.mark.parametrize(
    ("f", "structure"),
    [
        (lambda x, p: x @ p[0] + p[1], [np.ones((3, 2)), np.ones(2)]),
        (lambda x, p: x * p[0] + p[1], [X, X + 1]),
        (lambda x, p: x * p[0] + p[1], [mg.tensor(X, requires_grad=True), mg.tensor(X + 1, requires_grad=True)]),
        (lambda x, p: ops.where(p["mask"], x, p["y"][0]), {"y": (X,), "mask": np.array([True, False, True])}),
        (lambda x, p: x * p.product[0] / p.ratio, Pair([2.0, "a name"], X + 3)),
        (lambda x, p: x[p].sum(), [2, 0]),
    ],
    ids=["two shapes", "one shape", "Tensors", "dict", "namedtuple", "an index"],
)
def test_structures_of_arguments(f, structure):
    check_grads(lambda x, p: ops.tanh(f(x, p)), [X, structure])
    kept = nn.Sequential(nn.Dense(3, 3), nn.Sequential(nn.Tanh())).astype("float64")  # no structure of arrays
    check_grads(lambda net, x: net(x), [kept, X[None]])


def test_an_argument_inside_a_structure_is_named(define):
    wrong = define(lambda x: x * x, lambda g, y, x: g * x)
    with pytest.raises(GradientError, match=r"argument 1\['w'\]\[0\], entry \(0,\)"):
        check_grads(lambda x, p: x + wrong(p["w"][0]), [X, {"w": [X]}])
    with pytest.raises(ValueError, match=r"argument 0\[1\] is nan"):
        check_grads(lambda p: p[0] * p[1], [[X, np.nan]])


def test_functions_that_differentiate_can_be_checked():
    w = np.array([0.5, -1.0, 0.2])

    def squared_slope(w):
        x = mg.tensor(X, requires_grad=True)
        return ops.sum(ops.square(mg.grad(ops.tanh(x * w).sum(), x, create_graph=True)))

    check_grads(squared_slope, [w])


def test_arguments_come_out_as_they_went_in():
    x, t = X.copy(), mg.tensor(X, requires_grad=True)
    check_grads(lambda a, b: a * ops.tanh(b), [x, t])
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(t.numpy(), X)


def test_linear_functions_are_held_to_the_last_digits(define):
    slightly_off = define(lambda x: 3.0 * x, lambda g, y, x: g * 3.0 * (1 + 1e-10))
    check_grads(slightly_off, [X], order=1)
    check_grads(lambda x: 3.0 * x, [X], linear=True)
    with pytest.raises(GradientError):
        check_grads(slightly_off, [X], order=1, linear=True)


def test_rtol_and_step_can_be_chosen(define):
    off = define(lambda x: x * x, lambda g, y, x: g * (2.0 * x) * 1.001)
    check_grads(off, [X], order=1, rtol=1e-2)
    with pytest.raises(GradientError):
        check_grads(off, [X], order=1, rtol=1e-4)
    check_grads(lambda x: ops.relu(x), [np.array([0.0005])], step=1e-4)
    check_grads(lambda x: ops.relu(x), [np.array([0.0005])], step=0.5)  # other steps follow where they say more


def test_an_rtol_of_zero_is_zero(define):
    slightly_off = define(lambda x: 3.0 * x, lambda g, y, x: g * 3.0 * (1 + 1e-10))
    check_grads(slightly_off, [X], order=1)
    with pytest.raises(GradientError):
        check_grads(slightly_off, [X], order=1, rtol=0)


def test_an_error_for_a_constant_is_not_tried_away():
    """Only a function that differentiates in its constants gets Tensors that require grad for them."""

    def f(x, y):
        if x.requires_grad and not y.requires_grad:
            raise ValueError("y must require grad")
        return x * y

    with pytest.raises(ValueError, match="y must require grad"):
        check_grads(f, [X, X + 1], order=1)


# --- wrong functions --------------------------------------------------------------------------------------------------


def test_a_wrong_gradient_is_named_with_its_entry_both_numbers_and_the_seed(define):
    wrong = define(lambda x, y: x * x * y, lambda g, out, x, y: g * (2.0 * x) * y, lambda g, out, x, y: g * (x + 1.0))
    with pytest.raises(GradientError) as caught:
        check_grads(wrong, [np.array([3.0]), np.array([0.5])], seed=17)
    place = r"order 1, seed 17: argument 1, entry \(0,\), value 0.5, output 0, entry \(0,\)"
    words = place + r": gradient 4.0, finite differences (\S+) ± "
    found = re.match(words, str(caught.value))
    assert float(found[1]) == pytest.approx(9, rel=1e-10)
    assert isinstance(caught.value, AssertionError)
    assert not isinstance(caught.value, KinkError)


def test_the_same_seed_gives_the_same_message_and_another_seed_another(define):
    wrong = define(lambda x: np.tanh(x), lambda g, y, x: g * (1.001 - y * y))
    x = np.linspace(-2, 2, 101)
    messages = []
    for seed in (1, 1, 2):
        with pytest.raises(GradientError) as caught:
            check_grads(wrong, [x], seed=seed)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert messages[0].replace("seed 1", "seed 2") != messages[2]


BATCH = np.random.default_rng(0).standard_normal((6, 2))


def normalised(x):
    return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)


def without_variance(g, y, x):
    """Return the gradient of a batch norm that lost its variance term: exact for a cotangent of ones."""
    r = 1.0 / np.sqrt(x.data.var(0) + 1e-5)
    return (g - ops.mean(g, 0)) * r


WRONG = {  # forward, rule, argument
    "off by .05%": (lambda x: np.exp(x), lambda g, y, x: g * y * 1.0005, X),
    "sign": (lambda x: np.cos(x), lambda g, y, x: g * constant(np.sin, x.data), X),
    "one entry": (lambda x: x * 1.0, lambda g, y, x: g * np.array([1, 1, 1.001]), X),
    "one entry of 10,000": (lambda x: x * 2.0, lambda g, y, x: g * one_wrong(10_000), np.linspace(-1, 1, 10_000)),
    "broadcast axis not reduced": (lambda x: x + np.zeros((2, 3)), lambda g, y, x: g[0], X),
    "shifted": (lambda x: x * 1.0, lambda g, y, x: g[np.array([1, 2, 0])], X),
    "transposed": (lambda x: x.T.copy(), lambda g, y, x: ops.reshape(g, (2, 3)), np.ones((2, 3))),
    "mean over the wrong axis": (lambda x: x.mean(0), lambda g, y, x: ops.broadcast_to(g * 0.5, (6, 2)), BATCH),
    "zero": (lambda x: np.exp(x), lambda g, y, x: g * 0.0, X),
    "none": (lambda x: np.exp(x), None, X),
    "nan": (lambda x: np.exp(x), lambda g, y, x: g * np.nan, X),
    "batch norm without its variance term": (normalised, without_variance, BATCH),
    "absolute value for a square root": (lambda x: np.sqrt(x), lambda g, y, x: g * 0.5 * y, X[[0, 2]]),
}


def one_wrong(n):
    factor = np.full(n, 2.0)
    factor[n // 3] = 2.001
    return factor


@pytest.mark.parametrize("name", WRONG)
def test_wrong_gradients_are_caught(define, name):
    forward, rule, x = WRONG[name]
    with pytest.raises(GradientError, match="order 1"):
        check_grads(define(forward, rule), [x])


@pytest.mark.parametrize("size", [3, 3000])
def test_a_wrong_second_derivative_is_caught_at_order_2_only(define, size):
    x = np.linspace(0.5, 2, size)
    frozen = define(lambda x: x * x * x, lambda g, y, x: g * mg.Tensor(3.0 * x.data**2))
    check_grads(frozen, [x], order=1)
    with pytest.raises(GradientError, match="order 2"):
        check_grads(frozen, [x])
    slope = define(lambda x: 3.0 * x * x, lambda g, y, x: g * (6.0 * x) * 1.001)
    cubed = define(lambda x: x * x * x, lambda g, y, x: g * slope(x))
    check_grads(cubed, [x], order=1)
    with pytest.raises(GradientError, match="order 2"):
        check_grads(cubed, [x])


def test_a_wrong_third_derivative_is_caught_at_order_3_only(define):
    curvature = define(lambda x: 6.0 * x, lambda g, y, x: g * 6.01)
    slope = define(lambda x: 3.0 * x * x, lambda g, y, x: g * curvature(x))
    cubed = define(lambda x: x * x * x, lambda g, y, x: g * slope(x))
    check_grads(cubed, [X])
    with pytest.raises(GradientError, match="order 3"):
        check_grads(cubed, [X], order=3)


@pytest.mark.parametrize("f", [ops.abs, ops.relu, lambda x: ops.maximum(x, -x)], ids=["abs", "relu", "maximum"])
def test_a_kink_is_reported_with_both_slopes_and_one_nearby_is_no_fault(f):
    words = r"argument 0, entry \(1,\), value 0.0, output 0, entry \(1,\): the function has a kink: its slope is"
    with pytest.raises(KinkError, match=words) as caught:
        check_grads(f, [np.array([2.0, 0.0])])
    assert "and 1 on the right" in str(caught.value)
    for near in (1e-3, 1e-9, -1e-9):
        check_grads(f, [np.array([2.0, near])])


# --- misbehaving functions --------------------------------------------------------------------------------------------


def test_an_input_changed_in_place_is_caught(define):
    def forward(x):
        x += 0.001
        return x * 2.0

    with pytest.raises(GradientError, match="an argument was changed in place"):
        check_grads(define(forward, lambda g, y, x: g * 2.0), [X])


def test_an_input_changed_in_place_by_a_rule_is_caught(define):
    def rule(g, y, x):
        x.data[0] += 1e-9
        return g * 2.0

    with pytest.raises(GradientError, match="an argument was changed in place"):
        check_grads(define(lambda x: x * 2.0, rule), [X])


def test_a_cotangent_changed_in_place_is_caught(define):
    def rule(g, y, x):
        g.data *= 2.0
        return g

    with pytest.raises(GradientError, match="a cotangent was changed in place"):
        check_grads(define(lambda x: x * 2.0, rule), [X])


def test_a_rule_that_changes_its_mind_is_caught(define):
    calls = iter(range(1000))
    with pytest.raises(GradientError, match="called twice gave different bits"):
        check_grads(define(lambda x: x * 2.0, lambda g, y, x: g * (2.0 + 1e-15 * next(calls))), [X])


def test_a_rule_that_is_not_linear_in_the_cotangent_is_caught(define):
    square = define(lambda x: 1.0 * x, lambda g, y, x: g * g)  # right for cotangents of 0 and 1
    with pytest.raises(GradientError, match="the VJP is not linear in them"):
        check_grads(square, [X])


# --- bad arguments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [0, 4, -1])
def test_orders_that_do_not_exist_are_refused(order):
    with pytest.raises(ValueError, match=f"order must be 1, 2 or 3, not {order}"):
        check_grads(ops.tanh, [X], order)


@pytest.mark.parametrize("args", [[], [np.array([1, 2])], [3, True]])
def test_there_must_be_something_to_differentiate(args):
    with pytest.raises(TypeError, match="no argument is of a float dtype"):
        check_grads(lambda *xs: xs[0], args)
