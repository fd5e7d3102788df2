"""The engine's contract: gradients, graphs, modes, memory, and what it says when something is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigan as mg
from minigan import nn
from minigan.engine import primitive as primitive_module
from minigan.engine.gradmode import is_grad_enabled
from minigan.engine.primitive import primitive
from minigan.engine.tensor import Tensor

ops = mg.ops


def leaf(*values, dtype=np.float64):
    return Tensor(np.array(values, dtype), True)


# --- grad -------------------------------------------------------------------------------------------------------------


def test_structure_of_inputs_is_the_structure_of_gradients():
    a, b, c = leaf(1.0), leaf(2.0), leaf(3.0)
    found = mg.grad((a * b * c).sum(), {"x": [a, (b,)], "y": c})
    assert [found["x"][0].item(), found["x"][1][0].item(), found["y"].item()] == [6.0, 3.0, 2.0]
    assert isinstance(found["x"][1], tuple)


def test_interior_nodes_are_inputs_too():
    x = leaf(0.5)
    y = ops.exp(x)
    z = y * y
    assert mg.grad(z, y).item() == pytest.approx(2 * np.exp(0.5))
    both = mg.grad(z, [x, y])
    assert both[0].item() == pytest.approx(2 * np.exp(1.0))


def test_an_input_given_twice_and_the_output_itself():
    x = leaf(3.0)
    first, second = mg.grad(x * x, [x, x])
    assert first.item() == second.item() == 6.0
    assert not np.shares_memory(first.data, second.data)
    assert mg.grad(x, x).item() == 1.0


def test_one_input_used_many_times():
    x = leaf(2.0)
    assert mg.grad(x * x + x / x + x - x, x).item() == pytest.approx(4.0)


def test_grad_output_is_the_cotangent():
    x = leaf(1.0, 2.0)
    np.testing.assert_array_equal(mg.grad(x * x, x, [10.0, 100.0]).data, [20.0, 400.0])
    np.testing.assert_array_equal(mg.grad(x * x, x, mg.tensor([1, 0])).data, [2.0, 0.0])


def test_create_graph_gives_every_order():
    x = leaf(2.0)
    y = x**5
    for order in range(1, 6):
        y = mg.grad(y, x, create_graph=True)
        assert y.item() == pytest.approx(np.prod(range(6 - order, 6)) * 2.0 ** (5 - order))


def test_without_create_graph_gradients_are_constants():
    x = leaf(2.0)
    assert not mg.grad(x * x, x).requires_grad
    assert mg.grad(x * x, x, create_graph=True).requires_grad


def test_a_path_of_zero_slope_gives_zeros():
    x = leaf(1.0, -2.0)
    slope = mg.grad(ops.relu(x).sum(), x, create_graph=True)
    np.testing.assert_array_equal(mg.grad(slope.sum(), x).data, [0.0, 0.0])


def test_only_the_path_is_visited():
    """A discriminator step on generated samples with their graph attached never runs a rule of the generator."""
    visited = []

    @primitive
    def spy(x):
        return x.copy()

    try:
        spy.defvjp(lambda g, y, x: visited.append(y) or g)
        g_weight, d_weight = leaf(2.0), leaf(3.0)
        fake = spy(g_weight * 1.5)
        loss = (spy(d_weight * 1.0) * fake).sum()
        assert mg.grad(loss, d_weight).item() == 3.0
        assert len(visited) == 1
        mg.grad(loss, g_weight)
        assert len(visited) == 2
    finally:
        primitive_module._primitives.remove(spy)


def test_gradients_own_writable_memory():
    x, b = leaf(1.0, 2.0, 3.0), leaf(1.0)
    cotangent = np.ones(3)
    gradients = mg.grad(x.reshape(3, 1).T.reshape(3) + b, [x, b], cotangent)
    for g in gradients:
        g.data += 7.0
    assert cotangent.tolist() == [1, 1, 1]
    assert x.data.tolist() == [1, 2, 3]


@given(st.integers(0, 3), st.integers(0, 3))
def test_broadcasting_is_undone(left, right):
    shape = (2, 3, 4)
    a, b = (Tensor(np.ones(shape[3 - n :]), True) for n in (left, right))
    for x, g in zip((a, b), mg.grad((a * b).sum(), [a, b]), strict=True):
        assert g.shape == x.shape
        assert g.data.sum() == (a * b).size


def test_mixed_dtypes_are_cast_back():
    a, b = leaf(1.0, dtype=np.float32), leaf(2.0)
    product = a * b
    assert product.dtype == np.float64
    assert [g.dtype for g in mg.grad(product, [a, b])] == [np.float32, np.float64]


# --- transforms -------------------------------------------------------------------------------------------------------


def test_vjp_jvp_hvp_against_an_explicit_jacobian():
    rng = np.random.default_rng(0)
    w, x, u, v = (rng.standard_normal(s) for s in ((3, 4), 4, 3, 4))

    def f(x):
        return ops.tanh(ops.matmul(w, x))

    jacobian = (1 - np.tanh(w @ x) ** 2)[:, None] * w
    value, pullback = mg.vjp(f, x)
    np.testing.assert_allclose(value.data, np.tanh(w @ x))
    np.testing.assert_allclose(pullback(u)[0].data, u @ jacobian)
    value, tangent = mg.jvp(f, [x], [v])
    np.testing.assert_allclose(value.data, np.tanh(w @ x))
    np.testing.assert_allclose(tangent.data, jacobian @ v)

    def g(x):
        return f(x).sum()

    t = np.tanh(w @ x)
    hessian = np.einsum("i,ij,ik->jk", -2 * t * (1 - t**2), w, w)
    np.testing.assert_allclose(mg.hvp(g, x, v).data, hessian @ v)


def test_transforms_nest():
    def cube(x):
        return (x**3).sum()

    x = leaf(2.0)
    third = mg.grad(mg.hvp(cube, x, np.ones(1)).sum(), x)
    assert third.item() == pytest.approx(6.0)
    assert mg.jvp(lambda x: mg.jvp(lambda y: y**4, [x], [np.ones(1)])[1], [np.array([1.5])], [np.ones(1)])[
        1
    ].item() == pytest.approx(12 * 1.5**2)


def test_transforms_work_inside_no_grad():
    with mg.no_grad():
        assert mg.hvp(lambda x: (x**3).sum(), np.array([2.0]), np.array([1.0])).item() == pytest.approx(12.0)
        assert mg.jvp(lambda x: x * x, [np.array([3.0])], [np.array([1.0])])[1].item() == 6.0


def test_hvp_of_structures():
    x = [np.array([1.0]), np.array([2.0])]
    found = mg.hvp(lambda p: (p[0] * p[0] * p[1]).sum(), x, [np.array([1.0]), np.array([0.0])])
    assert [part.item() for part in found] == [4.0, 2.0]
    with pytest.raises(ValueError, match="same structure"):
        mg.hvp(lambda p: p.sum(), np.ones(2), np.ones(3))


def test_value_and_grad_in_both_spellings():
    value, gradient = mg.value_and_grad(lambda x: (x * x).sum(), np.array([3.0]))
    assert (value.item(), gradient.item()) == (9.0, 6.0)
    value, (da, db) = mg.value_and_grad(lambda a, b: (a * b).sum())(np.array([2.0]), np.array([5.0]))
    assert (value.item(), da.item(), db.item()) == (10.0, 5.0, 2.0)


def test_transforms_make_tensors_by_the_rule_of_tensor():
    def cube(x):
        return (x**3).sum()

    for x0 in (1.5, [1.0, 2.0], np.ones(2), np.ones(2, np.float32), np.float64(1.5)):
        value, pullback = mg.vjp(cube, x0)
        assert value.dtype == pullback(1.0)[0].dtype == mg.tensor(x0).dtype
        assert mg.value_and_grad(cube, x0)[1].dtype == mg.tensor(x0).dtype
        assert mg.jvp(cube, [x0], [np.ones(np.shape(x0))])[1].dtype == mg.tensor(x0).dtype
    assert mg.hvp(cube, 1.5, 1.0).dtype == np.float32
    for wrong in (np.ma.masked_array([1.0, 5.0], [False, True]), np.ones(2, np.complex64), "1", None):
        for call in (lambda x: mg.vjp(cube, x), lambda x: mg.value_and_grad(cube)(x), lambda x: mg.jvp(cube, [x], [x])):
            with pytest.raises(TypeError, match=r"tensor\(data\)"):
                call(wrong)
    with pytest.raises(TypeError, match="only float32 and float64 can be differentiated, not int64"):
        mg.vjp(cube, 1)


def test_unused_inputs_of_vjp_have_zero_gradients():
    _, pullback = mg.vjp(lambda a, b: a * 2.0, np.ones(2), np.ones(3))
    da, db = pullback(np.ones(2))
    assert (da.data.tolist(), db.data.tolist()) == ([2, 2], [0, 0, 0])


# --- modes ------------------------------------------------------------------------------------------------------------


def test_no_grad_records_nothing_and_survives_exceptions():
    x = leaf(1.0)

    def fails():
        with mg.no_grad():
            assert not (x * 2.0).requires_grad
            with mg.enable_grad():
                assert (x * 2.0).requires_grad
            assert not is_grad_enabled()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert (x * 2.0).requires_grad


def test_no_grad_in_a_generator_does_not_reach_its_consumer():
    x = leaf(1.0)

    def samples():
        with mg.no_grad():
            yield (x * 2.0).requires_grad
            yield (x * 2.0).requires_grad
        yield (x * 2.0).requires_grad

    generator = samples()
    assert next(generator) is False
    assert (x * 2.0).requires_grad
    with mg.no_grad():
        assert next(generator) is False
        assert not (x * 2.0).requires_grad
    assert (x * 2.0).requires_grad
    assert next(generator) is True
    abandoned = samples()
    next(abandoned)
    del abandoned
    assert is_grad_enabled()


def test_no_grad_left_out_of_order():
    one, other = mg.no_grad(), mg.enable_grad()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert is_grad_enabled()
    other.__exit__(None, None, None)
    assert is_grad_enabled()


def test_one_no_grad_in_two_threads():
    block, inside, leave = mg.no_grad(), threading.Event(), threading.Event()
    seen = []

    def work():
        with block:
            inside.set()
            leave.wait()
            seen.append(is_grad_enabled())
        seen.append(is_grad_enabled())

    thread = threading.Thread(target=work)
    with block:
        thread.start()
        inside.wait()
    assert is_grad_enabled()
    leave.set()
    thread.join()
    assert seen == [False, True]


def test_a_view_of_a_parameter_without_a_graph_stays_what_it_was():
    p = mg.tensor(np.array([[1.0, 2.0], [3.0, 4.0]]), requires_grad=True)
    optimizer = mg.optim.SGD([p], lr=1.0)
    with mg.no_grad():
        views = [p.reshape(4), p[0], p.T, ops.broadcast_to(p, (1, 2, 2))]
    before = [view.numpy().copy() for view in views]
    optimizer.step([np.ones((2, 2))])
    for view, array in zip(views, before, strict=True):
        np.testing.assert_array_equal(view.numpy(), array)


def test_no_grad_decorates_functions_generators_and_coroutines():
    @mg.no_grad()
    def function():
        return is_grad_enabled()

    @mg.no_grad()
    def generator():
        yield is_grad_enabled()

    @mg.no_grad()
    async def coroutine():
        await asyncio.sleep(0)
        return is_grad_enabled()

    assert not function()
    iterator = generator()
    assert not next(iterator)
    assert is_grad_enabled()
    iterator.close()
    assert not asyncio.run(coroutine())


def test_coroutines_do_not_share_their_mode():
    async def quiet(gate):
        with mg.no_grad():
            await gate.wait()
            return is_grad_enabled()

    async def loud(gate):
        enabled = is_grad_enabled()
        gate.set()
        return enabled

    async def both():
        gate = asyncio.Event()
        return await asyncio.gather(quiet(gate), loud(gate))

    assert asyncio.run(both()) == [False, True]


def test_threads_do_not_share_their_mode():
    seen = []
    with mg.no_grad():
        thread = threading.Thread(target=lambda: seen.append(is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_threads_differentiate_side_by_side():
    results = [None] * 4

    def work(i):
        x = leaf(float(i))
        for _ in range(50):
            results[i] = mg.grad((ops.exp(x) * x).sum(), x).item()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(results, [np.exp(i) * (1 + i) for i in range(4)])


# --- graphs and memory ------------------------------------------------------------------------------------------------


def test_a_chain_of_150_000_ops_is_differentiated_and_freed():
    x = leaf(1.0)
    y = x
    for _ in range(150_000):
        y = y + 1.0
    assert mg.grad(y, x).item() == 1.0
    gone = weakref.ref(y)
    del y
    assert gone() is None


def test_training_leaves_no_tensor_behind_without_the_garbage_collector():
    network = nn.Sequential(nn.Dense(3, 4), nn.BatchNorm(4), nn.LeakyReLU(0.2), nn.Dense(4, 1))
    optimizer = mg.optim.Adam(network.parameters(), 1e-3)

    def step():
        x = Tensor(np.ones((5, 3), np.float32), True)
        y = network(x)
        (slope,) = mg.grad(y.sum(), [x], create_graph=True)
        loss = ops.mean_loss(y, "softplus") + ops.square(slope).sum()
        optimizer.step(mg.grad(loss, network.parameters()))

    def alive():
        return sum(type(thing) is Tensor for thing in gc.get_objects())

    step()
    gc.collect()
    gc.disable()
    try:
        before = alive()
        for _ in range(1000):
            step()
        assert alive() == before
    finally:
        gc.enable()


def test_a_graph_older_than_an_update_is_refused():
    w, x = leaf(2.0), leaf(3.0)
    output = ops.exp(w * x)
    mg.optim.SGD([w], lr=0.1).step([np.ones(1)])
    for inputs in (w, x):
        with pytest.raises(ValueError, match="changed"):
            mg.grad(output, inputs)
    assert mg.grad(ops.exp(w * x), w).item() == pytest.approx(3 * np.exp(1.9 * 3))


def test_an_old_use_of_a_changed_leaf_is_refused_beside_a_new_one():
    w = leaf(2.0)
    old = w * w
    mg.optim.SGD([w], lr=0.1).step([np.ones(1)])
    for output in (old + w * w, w * w + old):
        with pytest.raises(ValueError, match="changed"):
            mg.grad(output, w)


# --- tensors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, np.float32),
        ([1.0, 2.0], np.float32),
        (np.array([1.0]), np.float64),
        (np.float64(2.0), np.float64),
        (np.array([1.0], np.float32), np.float32),
        ([1, 2], np.int64),
        (True, np.bool_),
    ],
)
def test_dtypes_of_leaves(data, dtype):
    assert mg.tensor(data).dtype == dtype
    assert mg.tensor(data, dtype=np.float64).dtype == np.float64


def test_leaves_are_copies():
    data = np.ones(2)
    x = mg.tensor(data)
    data[:] = 5
    assert x.data.tolist() == [1, 1]
    copied = x.numpy()
    copied[:] = 9
    assert x.data.tolist() == [1, 1]


@pytest.mark.parametrize("scalar", [2, 2.0, np.float64(2), np.float32(2), np.int64(2)])
def test_numbers_do_not_raise_the_dtype(scalar):
    x = leaf(1.0, dtype=np.float32)
    for y in (
        x * scalar,
        scalar * x,
        x + scalar,
        scalar - x,
        x / scalar,
        scalar / x,
        x**scalar,
        ops.maximum(x, scalar),
    ):
        assert isinstance(y, Tensor)
        assert y.dtype == np.float32


def test_operators_on_arrays_give_tensors():
    x, a = leaf(1.0, 2.0), np.array([3.0, 4.0])
    for y, wanted in ((a + x, [4, 6]), (a - x, [2, 2]), (a * x, [3, 8]), (a / x, [3, 2]), (a @ x, 11), (x @ a, 11)):
        assert isinstance(y, Tensor)
        np.testing.assert_array_equal(y.data, wanted)
    assert (x > 1.5).data.tolist() == [False, True]
    assert (x <= 1.0).data.tolist() == [True, False]


def test_methods_and_properties():
    x = mg.tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    assert (x.shape, x.ndim, x.size, x.device, len(x)) == ((2, 3), 2, 6, "cpu", 2)
    assert x.T.shape == x.transpose(1, 0).shape == x.transpose((1, 0)).shape == (3, 2)
    assert x.reshape(3, 2).shape == x.reshape((3, 2)).shape == x.reshape(-1, 2).shape == (3, 2)
    assert [row.shape for row in x] == [(3,), (3,)]
    assert x.sum().item() == 15.0
    assert float(x[1, 2]) == 5.0
    assert not x.detach().requires_grad
    assert x.to("cpu") is x
    assert "requires_grad=True" in repr(x)
    assert "op=sum" in repr(x.sum())
    np.testing.assert_array_equal(np.asarray(x.detach()), x.data)


def raises(error, words, call):
    return pytest.param(error, words, call, id=words)


X = Tensor(np.ones((2, 3), np.float32), True)
MISTAKES = [
    raises(ValueError, r"add\(float32 \(2, 3\), float32 \(4,\)\)", lambda: X + np.ones(4, np.float32)),
    raises(
        ValueError, r"matmul\(float32 \(2, 3\), float32 \(2, 3\)\): x has 3 columns but w has 2 rows", lambda: X @ X
    ),
    raises(TypeError, r"matmul.*x is float32 but w is float64", lambda: X @ np.ones((3, 2))),
    raises(ValueError, r"dense.*w \(2, 3\)", lambda: ops.dense(X, X)),
    raises(ValueError, r"dense.*b has shape \(3,\)", lambda: ops.dense(X, np.ones((3, 2), "f"), np.ones(3, "f"))),
    raises(ValueError, r"conv2d\(.*4 axes", lambda: ops.conv2d(X, X)),
    raises(TypeError, "stride must be an int or a pair", lambda: ops.conv2d(X, X, stride=(1, 2, 3))),
    raises(
        ValueError, r"batch_norm\(.*gamma and beta \(3,\)", lambda: ops.batch_norm(X, np.ones(2, "f"), np.ones(2, "f"))
    ),
    raises(ValueError, r"sum\(x \(2, 3\), axis=2\)", lambda: X.sum(axis=2)),
    raises(ValueError, r"mean\(x \(0, 2\)\): nothing to reduce", lambda: ops.mean(np.ones((0, 2)))),
    raises(ValueError, r"reshape\(float32 \(2, 3\), shape=\(4,\)\)", lambda: X.reshape(4)),
    raises(ValueError, r"transpose\(x \(2, 3\), axes=\(0, 0\)\)", lambda: ops.transpose(X, (0, 0))),
    raises(ValueError, "concat: axis 5", lambda: ops.concat([X, X], 5)),
    raises(ValueError, r"concat\(.*\(2, 3\).*\(2, 2\)", lambda: ops.concat([X, np.ones((2, 2), "f")], 0)),
    raises(ValueError, "stack: all shapes must be equal", lambda: ops.stack([X, X[0]])),
    raises(ValueError, "broadcast_to", lambda: ops.broadcast_to(X, (5, 5))),
    raises(TypeError, "the condition must be bool", lambda: ops.where(np.ones(3), X, X)),
    raises(ValueError, "low must not exceed high", lambda: ops.clip(X, 1, 0)),
    raises(ValueError, "pad", lambda: ops.pad(X, [(1, 1)])),
    raises(ValueError, "slope of leaky_relu must be >= 0", lambda: ops.leaky_relu(X, -1.0)),
    raises(ValueError, "unknown loss 'huber'", lambda: ops.mean_loss(X, "huber")),
    raises(TypeError, "exponent must be a number", lambda: X**X),
    raises(TypeError, "unexpected keyword", lambda: ops.conv2d(X, X, pading=1)),
    raises(ValueError, "needs a grad_output", lambda: mg.grad(X * 2.0, X)),
    raises(ValueError, r"grad_output has shape \(4,\), the output \(2, 3\)", lambda: mg.grad(X * 2.0, X, np.ones(4))),
    raises(ValueError, r"inputs\[1\] of shape \(1,\) is not on a path", lambda: mg.grad(X.sum(), [X, leaf(1.0)])),
    raises(ValueError, r"inputs\[0\] of shape \(2, 3\) does not require grad", lambda: mg.grad(X.sum(), X.detach())),
    raises(TypeError, r"inputs\[0\] must be a Tensor, not ndarray", lambda: mg.grad(X.sum(), np.ones(2))),
    raises(TypeError, "the output must be a Tensor", lambda: mg.grad(1.0, X)),
    raises(ValueError, "does not depend on anything", lambda: mg.grad(X.detach().sum(), X)),
    raises(ValueError, "2 inputs but 1 tangents", lambda: mg.jvp(lambda a, b: a, [1.0, 2.0], [1.0])),
    raises(TypeError, "float16 is not supported", lambda: mg.tensor(np.ones(2, np.float16))),
    raises(TypeError, "complex128 is not supported", lambda: mg.tensor([1j])),
    raises(TypeError, "only float32 and float64 can require grad", lambda: mg.tensor([1, 2], requires_grad=True)),
    raises(ValueError, "must be a rectangular array", lambda: mg.tensor([[1.0], [1.0, 2.0]])),
    raises(ValueError, "unknown device 'tpu'", lambda: mg.tensor(1.0, device="tpu")),
    raises(ValueError, r"item\(\) needs a Tensor of one entry", X.item),
    raises(TypeError, "NumPy would lose its graph", lambda: np.asarray(X)),
    raises(TypeError, "has no length", lambda: len(X.sum())),
    raises(TypeError, "can be differentiated, not int64", lambda: mg.vjp(lambda x: x, np.array([1]))),
]


@pytest.mark.parametrize(("error", "words", "call"), MISTAKES)
def test_mistakes_are_named(error, words, call):
    with pytest.raises(error, match=words):
        call()


# --- odd but legal ----------------------------------------------------------------------------------------------------


def test_repeated_indices_in_any_spelling_add_up():
    x = leaf(1.0, 2.0, 3.0)
    for index in ([0, 0], ((0, 0),), np.array([0, 0]), mg.tensor([0, 0])):
        np.testing.assert_array_equal(mg.grad(x[index].sum(), x).data, [2.0, 0.0, 0.0])


def test_comparisons_are_elementwise_and_tensors_hashable():
    x = leaf(1.0, 2.0)
    assert (x == 1.0).data.tolist() == [True, False]
    assert (x != 1.0).data.tolist() == [False, True]
    assert len({x, x, leaf(1.0)}) == 2


def test_integers_carry_no_gradient():
    x = leaf(1.5, 2.5)
    assert not x.astype(np.int64).requires_grad
    with pytest.raises(TypeError, match=r"sigmoid\(int64 \(2,\)\)"):
        ops.sigmoid(mg.tensor([1, 2]))


def test_a_detached_tensor_is_out_of_reach_of_optimisers():
    w, x = leaf(2.0), leaf(3.0)
    output = w.detach() * x
    mg.optim.SGD([w], lr=1.0).step([np.ones(1)])
    assert mg.grad(output, x).item() == 2.0


def test_transforms_of_arrays_give_constants():
    v = np.ones(2)
    value, pullback = mg.vjp(lambda x: x * x, v)
    v[:] = 100.0
    np.testing.assert_array_equal(pullback(np.ones(2))[0].data, [2.0, 2.0])
    assert not mg.hvp(lambda x: (x**3).sum(), np.ones(2), np.ones(2)).requires_grad
    outer = leaf(2.0)
    assert mg.hvp(lambda x: (x**3 * outer).sum(), np.ones(1), np.ones(1)).requires_grad


def test_one_entry_where_one_entry_is_meant():
    for call in (
        lambda: mg.value_and_grad(lambda x: x, np.ones(2)),
        lambda: mg.hvp(lambda x: x, np.ones(2), np.ones(2)),
    ):
        with pytest.raises(ValueError, match=r"must return one entry, not shape \(2,\)"):
            call()


def test_modes_through_contextlib():
    @contextlib.contextmanager
    def frozen():
        with mg.no_grad():
            yield

    with frozen():
        assert not is_grad_enabled()
    assert is_grad_enabled()

    def samples():
        with contextlib.ExitStack() as stack:
            stack.enter_context(mg.no_grad())
            yield is_grad_enabled()

    generator = samples()
    assert next(generator) is False
    assert is_grad_enabled()
    generator.close()

    @mg.no_grad
    def bare():
        return is_grad_enabled()

    @mg.no_grad()
    async def stream():
        yield is_grad_enabled()

    async def first():
        return [enabled async for enabled in stream()]

    assert not bare()
    assert asyncio.run(first()) == [False]


def test_lists_and_numpy_sizes_are_taken():
    x = leaf(1.0, 2.0, 3.0, 4.0)
    assert (x * [1.0, 2.0, 3.0, 4.0]).sum().item() == 30.0
    with pytest.raises(TypeError, match="expected a Tensor or an array here, not a list"):
        x @ [1.0, 2.0, 3.0, 4.0]
    assert x.reshape(np.int64(2), np.int64(2)).shape == (2, 2)
    assert ops.broadcast_to(leaf(1.0), 3).shape == (3,)
    assert ops.clip(leaf(1.0, dtype=np.float32), np.float64(0), np.float64(1)).dtype == np.float32
    with pytest.raises(IndexError, match=r"getitem\(float64 \(4,\), index=10\)"):
        x[10]
    with pytest.raises(ValueError, match="permutation"):
        ops.transpose(x.reshape(2, 2), (2, 1))
