"""Every op, on every backend: values against NumPy, gradients against finite differences, and what ops promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigan as mg
from minigan import kernels
from minigan.engine.autodiff import flatten
from minigan.engine.device import device_of, is_array, to_numpy
from minigan.engine.primitive import primitives
from minigan.engine.tensor import Tensor
from minigan.engine.transforms import vjp
from minigan.testing.gradcheck import check_row, moved
from minigan.testing.optable import ROWS, Draw

from .conftest import CPU_BACKENDS, EMULATED, running_on

ON_CPU = [pytest.param(row, backend, id=f"{row.name}-{backend}") for row in ROWS for backend in CPU_BACKENDS]


class HypothesisDraw(Draw):
    """Sizes and choices come from Hypothesis, which shrinks them; values from a seed that it draws."""

    def __init__(self, data):
        super().__init__(data.draw(st.integers(0, 2**32 - 1), label="seed of the values"))
        self.data = data

    def integer(self, low, high):
        return self.data.draw(st.integers(low, high))


def tensors(args, **keywords):
    return [Tensor(x, **keywords) if is_array(x) and x.dtype.kind == "f" else x for x in args]


def results(row, args, settings):
    return [y.data for y in flatten(row.op(*args, **settings))]


def float_arrays(args):
    return [x for x in args if isinstance(x, np.ndarray) and x.dtype.kind == "f"]


@pytest.mark.parametrize(("row", "backend"), ON_CPU)
@given(data=st.data())
def test_gradients(row, backend, data):
    check_gradients(row, backend, data)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("backend", EMULATED)
@settings(max_examples=1)
@given(data=st.data())
def test_gradients_on_the_emulated_device(row, backend, data):
    check_gradients(row, backend, data)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("backend", EMULATED)
@settings(max_examples=4)
@given(data=st.data())
def test_values_on_the_emulated_device(row, backend, data):
    check_values(row, backend, data)


@pytest.mark.parametrize(("row", "backend"), ON_CPU)
@given(data=st.data())
def test_values(row, backend, data):
    check_values(row, backend, data)


def check_gradients(row, backend, data):
    with running_on(backend) as device:
        seed = data.draw(st.integers(0, 2**31), label="seed of the check")
        check_row(row, seed, HypothesisDraw(data), device)


def check_values(row, backend, data):
    case = row.make(HypothesisDraw(data))
    expected = row.reference(*case.args, **case.settings)
    with running_on(backend) as device:
        found = results(row, tensors(moved(case.args, device)), moved(case.settings, device))
    assert all(device_of(y) == device for y in found)
    for y, wanted in zip(map(to_numpy, found), expected if isinstance(expected, tuple) else (expected,), strict=True):
        wanted = np.asarray(wanted)
        assert type(y) is np.ndarray
        assert (y.shape, y.dtype) == (wanted.shape, np.float64)
        assert np.isfinite(y).all()
        np.testing.assert_allclose(y, wanted, rtol=1e-11, atol=1e-12)


def permuted(x):
    """The same values in another memory layout: axes reversed in memory, every second element skipped, read-only."""
    if x.ndim == 0:
        return x
    wide = np.zeros((*x.shape[::-1], 2), x.dtype)
    wide[..., 0] = x.T
    view = wide[..., 0].T
    view.flags.writeable = False
    return view


@pytest.mark.parametrize(("row", "backend"), ON_CPU)
@settings(max_examples=4)
@given(data=st.data())
def test_promises(row, backend, data):
    """Strides do not matter; inputs and cotangents are not changed; gradients own their memory; zero gives zero."""
    case = row.make(HypothesisDraw(data))
    with kernels.use(backend):
        plain = results(row, tensors(case.args), case.settings)
        odd = [permuted(x) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x for x in case.args]
        for a, b in zip(plain, results(row, tensors(odd), case.settings), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)

        kept = [x.copy() for x in float_arrays(case.args)]
        # vjp makes its own leaves of arrays, so that no argument is required to require grad
        varied = [i for i, x in enumerate(case.args) if isinstance(x, np.ndarray) and x.dtype.kind == "f"]

        def op(*xs):
            table = dict(zip(varied, xs, strict=True))
            return tuple(flatten(row.op(*(table.get(i, x) for i, x in enumerate(case.args)), **case.settings)))

        outputs, pullback = vjp(op, *float_arrays(case.args))
        cotangents = [np.random.default_rng(0).standard_normal(y.shape) for y in outputs]
        given_cotangents = [g.copy() for g in cotangents]
        gradients = [g.data for g in pullback(tuple(map(Tensor, cotangents)))]
        assert all(map(np.array_equal, kept, float_arrays(case.args)))
        assert all(map(np.array_equal, given_cotangents, cotangents))
        everything = [*gradients, *cotangents, *float_arrays(case.args)]
        for i, g in enumerate(gradients):
            assert not any(np.shares_memory(g, other) for j, other in enumerate(everything) if j != i)
            assert g.flags.writeable
        zeros = pullback(tuple(Tensor(np.zeros_like(g)) for g in cotangents))
        assert all((g.data == 0).all() for g in zeros)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row_records_what_it_covers(row):
    recorded = set()
    for seed in range(8):
        case = row.make(Draw(seed))
        stack = flatten(row.op(*tensors(case.args, requires_grad=True), **case.settings))
        while stack:
            node = stack.pop()
            recorded |= {node.op.name} if node.op else set()
            stack += [x for x in node.inputs if isinstance(x, Tensor)]
    assert set(row.covers) <= recorded


def test_every_primitive_has_a_row():
    covered = {name for row in ROWS for name in row.covers}
    assert {p.name for p in primitives()} == covered


def test_every_public_op_has_a_row():
    made_of_others = {"bias_act", "flatten_samples", "sum_to"}
    assert set(mg.ops.__all__) - {row.name for row in ROWS} <= made_of_others


def test_rows_are_named_once():
    assert len({row.name for row in ROWS}) == len(ROWS)


EXTREMES = np.array([-1e4, -750.0, -90.0, -20.0, -1e-8, -0.0, 0.0, 1e-8, 20.0, 90.0, 750.0, 1e4])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus", "relu", "abs", "square"])
def test_finite_at_extremes_to_second_order(name, dtype, backend):
    x = Tensor(EXTREMES.astype(dtype), True)
    first = mg.grad(getattr(mg.ops, name)(x).sum(), x, create_graph=True)
    assert np.isfinite(first.data).all()
    if first.requires_grad:
        assert np.isfinite(mg.grad(first.sum(), x).data).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", kernels.LOSSES)
def test_losses_finite_at_extremes_to_second_order(loss, dtype, backend):
    s = Tensor(EXTREMES.astype(dtype), True)
    value = mg.ops.mean_loss(s, loss)
    first = mg.grad(value, s, create_graph=True)
    assert np.isfinite(value.data)
    assert np.isfinite(first.data).all()
    second = mg.hvp(lambda s: mg.ops.mean_loss(s, loss), s, np.ones_like(s.data))
    assert np.isfinite(second.data).all()


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_softmax_and_logsumexp_at_extremes(axis):
    x = mg.tensor([[1e4, -1e4, 0.0], [90.0, 1e4, 1e4]], requires_grad=True)
    for op in (mg.ops.logsumexp, lambda x, axis: mg.ops.square(mg.ops.softmax(x, axis))):
        first = mg.grad(op(x, axis=axis).sum(), x, create_graph=True)
        assert np.isfinite(first.data).all()
        assert np.isfinite(mg.grad(first.sum(), x).data).all()


EMPTY = [
    (lambda x: mg.ops.exp(x), (0,)),
    (lambda x: mg.ops.relu(x), (2, 0, 3)),
    (lambda x: x + 1.0, (0, 2)),
    (lambda x: x.sum(axis=0), (0, 3)),
    (lambda x: mg.ops.dense(x, np.ones((3, 2), np.float32), np.ones(2, np.float32)), (0, 3)),
    (lambda x: mg.ops.conv2d(x, np.ones((2, 2, 3, 1), np.float32)), (0, 4, 5, 3)),
    (lambda x: mg.ops.conv2d_transpose(x, np.ones((2, 2, 1, 3), np.float32)), (0, 4, 5, 3)),
    (lambda x: mg.ops.concat([x, x], 0), (0, 2)),
    (lambda x: x[:0], (3, 2)),
    (lambda x: mg.ops.pad(x, [(1, 0), (0, 0)]), (0, 2)),
]


@pytest.mark.parametrize(("op", "shape"), EMPTY)
def test_empty_arrays(op, shape, backend):
    x = Tensor(np.zeros(shape, np.float32), True)
    gradient = mg.grad(op(x).sum(), x)
    assert gradient.shape == shape


# --- at the kinks -----------------------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")
KINKS = [
    ("relu", lambda x: mg.ops.relu(x), [0.0, -0.0, INF, -INF, NAN], [0, 0, INF, 0, NAN], [0, 0, 1, 0, None]),
    ("leaky_relu", lambda x: mg.ops.leaky_relu(x, 0.25), [0.0, -0.0, INF, -INF, NAN], [0, 0, INF, -INF, NAN],
     [0.25, 0.25, 1, 0.25, None]),
    ("abs", mg.ops.abs, [0.0, -0.0, INF, -INF, NAN], [0, 0, INF, INF, NAN], [0, 0, 1, -1, 0]),
    ("sqrt", mg.ops.sqrt, [0.0, INF, NAN], [0, INF, NAN], [INF, 0, NAN]),
    ("clip", lambda x: mg.ops.clip(x, -1, 1), [-1.0, 1.0, 1.5, INF, -INF], [-1, 1, 1, 1, -1], [1, 1, 0, 0, 0]),
    ("maximum", lambda x: mg.ops.maximum(x, np.zeros(4)), [0.0, -0.0, 1.0, NAN], [0, 0, 1, NAN], [0.5, 0.5, 1, None]),
    ("minimum", lambda x: mg.ops.minimum(x, np.zeros(4)), [0.0, -0.0, 1.0, NAN], [0, 0, 0, NAN], [0.5, 0.5, 0, None]),
    ("tanh", mg.ops.tanh, [INF, -INF, NAN], [1, -1, NAN], [0, 0, NAN]),
    ("sigmoid", mg.ops.sigmoid, [INF, -INF, NAN], [1, 0, NAN], [0, 0, NAN]),
    ("softplus", mg.ops.softplus, [INF, -INF, NAN], [INF, 0, NAN], [1, 0, NAN]),
    ("max", lambda x: mg.ops.max(x), [2.0, 2.0, 1.0, 2.0], 2, [1 / 3, 1 / 3, 0, 1 / 3]),
    ("min", lambda x: mg.ops.min(x), [2.0, 1.0, 1.0, 2.0], 1, [0, 0.5, 0.5, 0]),
    ("hinge_real", lambda s: mg.ops.mean_loss(s, "hinge_real"), [1.0], 0, [0]),
    ("hinge_fake", lambda s: mg.ops.mean_loss(s, "hinge_fake"), [-1.0], 0, [0]),
    ("power 2 at 0", lambda x: x**2, [0.0, -0.0], [0, 0], [0, 0]),
    ("power 0 at 0", lambda x: x**0, [0.0, 2.0], [1, 1], [0, 0]),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize(("name", "op", "x", "y", "slope"), KINKS, ids=[row[0] for row in KINKS])
def test_conventions_at_kinks(name, op, x, y, slope, backend):
    """None: nothing is promised. Gradients at NaN may be NaN or not, as long as the value says NaN."""
    point = Tensor(np.array(x), True)
    value = op(point)
    np.testing.assert_array_equal(value.data, y)
    gradient = mg.grad(value.sum(), point).data
    promised = [i for i, wanted in enumerate(slope) if wanted is not None]
    np.testing.assert_array_equal(gradient[promised], [slope[i] for i in promised])
