"""One rule for what every op takes, arrays that change after an op has used them, and Tensors in other processes."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import pickle

import numpy as np
import pytest

import minigan as mg
from minigan import Tensor, ops
from minigan.engine.primitive import primitives
from minigan.kernels.gpu import emulator
from minigan.testing.optable import ROWS

# --- dtypes -----------------------------------------------------------------------------------------------------------

ONES = np.ones((1, 2, 2, 2), np.float32)
FLOAT_OPS = {
    "dense": lambda x: ops.dense(x[0, 0], x[0, 0]),
    "matmul": lambda x: ops.matmul(x[0, 0], x[0, 0]),
    "conv2d": lambda x: ops.conv2d(x, x),
    "conv2d_transpose": lambda x: ops.conv2d_transpose(x, x),
    "conv2d_weight_grad": lambda x: ops.conv2d_weight_grad(x, x, kernel=1),
    "batch_norm": lambda x: ops.batch_norm(x, x[0, 0, 0], x[0, 0, 0]),
    "bias_act": lambda x: ops.bias_act(x, x[0, 0, 0], activation="relu", slope=0.0),
    "mean_loss": lambda x: ops.mean_loss(x, "softplus"),
    "mean": ops.mean,
    "var": ops.var,
    "div": lambda x: ops.div(x, x),
    "power": lambda x: ops.power(x, 2),
    "exponential": lambda x: ops.power(2, x),
    "clip": lambda x: ops.clip(x, 0, 1),
} | {
    name: getattr(ops, name)
    for name in ("exp", "log", "sqrt", "tanh", "sigmoid", "softplus", "relu", "softmax", "logsumexp")
}
ALL_OPS = FLOAT_OPS | {
    "add": lambda x: ops.add(x, x),
    "sub": lambda x: ops.sub(x, x),
    "mul": lambda x: ops.mul(x, x),
    "neg": ops.neg,
    "abs": ops.abs,
    "square": ops.square,
    "maximum": lambda x: ops.maximum(x, x),
    "minimum": lambda x: ops.minimum(x, x),
    "where": lambda x: ops.where(np.array(True), x, x),
    "sum": ops.sum,
    "max": ops.max,
    "min": ops.min,
    "reshape": lambda x: ops.reshape(x, (8,)),
    "transpose": ops.transpose,
    "getitem": lambda x: ops.getitem(x, 0),
    "scatter_add": lambda x: ops.scatter_add(x, 0, (2, 1, 2, 2, 2)),
    "broadcast_to": lambda x: ops.broadcast_to(x, (3, 2, 2, 2)),
    "concat": lambda x: ops.concat([x, x]),
    "stack": lambda x: ops.stack([x, x]),
    "pad": lambda x: ops.pad(x, [(1, 1)] * 4),
    "astype": lambda x: ops.astype(x, np.float64),
    "sum_to": lambda x: ops.sum_to(x, (1, 1, 1, 2)),
    "flatten_samples": ops.flatten_samples,
}


@pytest.mark.parametrize("name", sorted(FLOAT_OPS))
def test_an_op_on_floats_refuses_integers_by_name(name):
    for dtype in (bool, np.int8, np.int64, np.uint32):
        for wrap in (mg.tensor, lambda a: a):
            with pytest.raises(TypeError, match=r"float32|bring both"):
                FLOAT_OPS[name](wrap(ONES.astype(dtype)))


@pytest.mark.parametrize("name", sorted(ALL_OPS))
def test_every_op_refuses_what_is_neither_float_nor_integer(name):
    for wrong in (np.float16, np.longdouble, np.complex64, "<U1"):
        with pytest.raises(TypeError):
            ALL_OPS[name](ONES.astype(wrong))
    masked = np.ma.masked_array(ONES, ONES > 0)
    for wrong in (masked, object(), 1j, "1", None):
        with pytest.raises((TypeError, AttributeError)):
            ALL_OPS[name](wrong)


@pytest.mark.parametrize("name", sorted(ALL_OPS))
def test_the_floats_stay_what_they_are(name, backend):
    for dtype in (np.float32, np.float64, ">f4", ">f8"):
        y = ALL_OPS[name](ONES.astype(dtype))
        assert isinstance(y, Tensor)
        assert name == "astype" or y.dtype == np.dtype(dtype).newbyteorder("=")


def test_every_public_op_is_in_these_tables():
    helpers = {"leaky_relu", "to"}
    assert set(ops.__all__) - set(ALL_OPS) == helpers
    assert {p.name for p in primitives()} >= {"exp", "exponential"}
    assert any(row.name.startswith("exponential") or "exponential" in row.name for row in ROWS)


EXTREMES = [(np.uint8, [0, 5, 9]), (np.int8, [-128, 5, 127]), (np.int64, [-(2**63), 1, 7]), (bool, [False, True])]


@pytest.mark.parametrize(("dtype", "values"), [*EXTREMES, (np.uint64, [0, 1, 2**64 - 1]), (np.float32, [-1.5, 2.0])])
def test_the_least_and_the_largest_of_any_numbers(dtype, values):
    x = mg.tensor(np.array(values, dtype))
    for kind in (ops.min, np.min, np.amin, lambda x: x.min()):
        assert (kind(x).dtype, kind(x).item()) == (dtype, values[0])
    for kind in (ops.max, np.max, np.amax, lambda x: x.max()):
        assert (kind(x).dtype, kind(x).item()) == (dtype, values[-1])
    turned = x.numpy()[::-1]
    assert ops.minimum(x, turned).data.tolist() == np.minimum(x.numpy(), turned).tolist()
    assert ops.maximum(x, turned).data.tolist() == np.maximum(x.numpy(), turned).tolist()


def test_integers_do_not_mix_with_floats_and_masks_do():
    x, n, mask = mg.tensor([1.5, 2.0]), mg.tensor([1, 2]), mg.tensor([True, False])
    for mixed in (lambda: x * n, lambda: n * 0.5, lambda: n + x, lambda: ops.maximum(n, 0.5), lambda: mask * 0.5):
        with pytest.raises(TypeError, match="integers do not mix with floats"):
            mixed()
    assert (x * mask).dtype == np.float32
    assert (x * mask).data.tolist() == [1.5, 0.0]
    assert (n * 2).data.tolist() == [2, 4]
    assert (n * n - n).dtype == np.int64
    assert mask.sum().item() == 1


NUMBERS_ALONE = [
    (lambda: ops.add(1.0, 2.0), np.float32, 3.0),
    (lambda: ops.add(1, 2), np.int64, 3),
    (lambda: ops.sub(1, 0.5), np.float32, 0.5),
    (lambda: ops.mul(True, 2.0), np.float32, 2.0),
    (lambda: ops.maximum(True, False), np.bool_, True),
    (lambda: ops.power(2.0, 3.0), np.float32, 8.0),
    (lambda: ops.exp(0.0), np.float32, 1.0),
    (lambda: ops.exp(np.float64(0)), np.float32, 1.0),
    (lambda: ops.relu(-1.0), np.float32, 0.0),
    (lambda: ops.mean_loss(1.0, "square"), np.float32, 0.5),
    (lambda: ops.where(True, 1, 0.5), np.float32, 1.0),
    (lambda: ops.where(np.array([True, False]), 1.0, 0.0), np.float32, [1.0, 0.0]),
    (lambda: ops.reshape(2.0, (1,)), np.float32, [2.0]),
    (lambda: ops.stack([1.0, 2.0]), np.float32, [1.0, 2.0]),
    (lambda: ops.transpose(2), np.int64, 2),
    (lambda: ops.to(2.0, "cpu"), np.float32, 2.0),
]


@pytest.mark.parametrize(("call", "dtype", "value"), NUMBERS_ALONE)
def test_numbers_alone_become_arrays_by_the_rule_of_tensor(call, dtype, value):
    y = call()
    assert type(y.data) is np.ndarray
    assert (y.dtype, y.data.tolist()) == (dtype, value)
    assert repr(y).startswith("tensor(")


def test_numbers_alone_are_refused_as_arrays_of_them_are():
    for call in (lambda: ops.exp(1), lambda: ops.div(1, 2), lambda: ops.power(2, 3)):
        with pytest.raises(TypeError, match="must be float32 or float64"):
            call()
    with pytest.raises(ValueError, match="not a single number"):
        ops.flatten_samples(2.0)


W44 = np.ones((1, 1, 1, 1), np.float32)
WRONG = [
    (ValueError, r"dense\(x \(\)\)", lambda x: ops.dense(x[0, 0], np.ones((1, 2), "f"))),
    (ValueError, "use \\* for a single number", lambda x: x @ 3),
    (ValueError, "use \\* for a single number", lambda x: ops.matmul(3.0, x)),
    (TypeError, "must be an integer", lambda x: x.reshape(2.5, 2)),
    (TypeError, "must be an integer", lambda x: x.reshape(True, 4)),
    (TypeError, "must be an integer", lambda x: ops.pad(x, [(0.5, 1.9), (0, 0)])),
    (ValueError, "one pair", lambda x: ops.pad(x, [(1, 1, 1), (0, 0)])),
    (ValueError, "does not broadcast", lambda x: ops.sum_to(x, (3,))),
    (ValueError, "does not broadcast", lambda x: ops.sum_to(x, (2, 2, 2))),
    (TypeError, "must be an integer", lambda x: ops.broadcast_to(x, (1.0, 2, 2))),
    (TypeError, "must be an integer", lambda x: ops.transpose(x, (0.0, 1.0))),
    (TypeError, "must be an integer", lambda x: x.sum(axis=0.0)),
    (TypeError, "must be an integer", lambda x: x.sum(axis=True)),
    (TypeError, "must be an integer", lambda x: x.sum(axis=mg.tensor(0))),
    (TypeError, "must be an integer", lambda x: x.transpose(True, 0)),
    (TypeError, "axis must be an integer, not 0.0", lambda x: ops.concat([x, x], axis=0.0)),
    (TypeError, "axis must be an integer, not True", lambda x: ops.concat([x, x], axis=True)),
    (TypeError, "axis must be an integer, not None", lambda x: ops.stack([x, x], axis=None)),
    (TypeError, "axis must be an integer, not True", lambda x: ops.stack([x, x], axis=True)),
    (TypeError, "must be an integer, not 2.5", lambda x: ops.scatter_add(x, slice(2), (2.5, 2))),
    (TypeError, "must be an integer, not True", lambda x: ops.scatter_add(x[0, 0], 0, (True,))),
    (TypeError, "must be an integer", lambda x: ops.sum_to(x, (1.0, 2))),
    (TypeError, "must be an integer", lambda x: mg.nn.Reshape(2.5, 2)),
    (TypeError, "stride must be an int or a pair", lambda x: ops.conv2d(x[None, ..., None], W44, stride=True)),
    (TypeError, "padding must be an int or a pair", lambda x: ops.conv2d(x[None, ..., None], W44, padding=(0, False))),
    (TypeError, "kernel must be an int or a pair", lambda x: mg.nn.Conv2d(1, 1, True)),
    (ValueError, "n_in must be a positive integer, not True", lambda x: mg.nn.Dense(True, 1)),
    (TypeError, "exponent must be a number, not True", lambda x: x**True),
    (TypeError, "must be a number, not True", lambda x: True**x),
    (TypeError, "high must be a number, not True", lambda x: ops.clip(x, 0, True)),
    (TypeError, "astype: the dtype must be", lambda x: x.astype(np.complex64)),
    (TypeError, "astype: the dtype must be", lambda x: x.astype(np.float16)),
    (TypeError, "must be a number", lambda x: ops.clip(x, "0", 1)),
    (ValueError, "must be > 0", lambda x: (-2) ** x),
    (TypeError, "slope must be a number", lambda x: ops.leaky_relu(x, None)),
    (TypeError, "eps must be a number", lambda x: ops.batch_norm(x, np.ones(2, "f"), np.ones(2, "f"), eps="1")),
]


@pytest.mark.parametrize(("error", "words", "call"), WRONG)
def test_what_an_op_cannot_mean_is_refused(error, words, call):
    with pytest.raises(error, match=words):
        call(mg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True))


def test_integers_of_any_kind_are_integers():
    x = mg.tensor(np.ones((1, 4, 4, 1), np.float32))
    for one, two in ((1, 2), (np.int8(1), np.uint64(2)), (np.array(1), np.array(2))):
        assert ops.concat([x, x], axis=one).shape == (1, 8, 4, 1)
        assert ops.stack([x, x], axis=one).shape == (1, 2, 4, 4, 1)
        assert ops.conv2d(x, W44, stride=two).shape == ops.conv2d(x, W44, stride=(two, two)).shape == (1, 2, 2, 1)
        assert ops.scatter_add(1.0, 0, two).shape == ops.broadcast_to(1.0, two).shape == (2,)
        assert ops.sum(x, (one, two)).shape == (1, 1)
        assert ops.reshape(x, two, -1).shape == (2, 8)
    assert ops.conv2d(x, W44, stride=np.array([1, 2])).shape == (1, 4, 2, 1)


# --- arrays that change afterwards ------------------------------------------------------------------------------------

W = np.random.default_rng(0).standard_normal((2, 2))


def of_array(function, made_of):
    """Return (the gradient of function(W, array), the same after the array has changed between op and gradient)."""
    found = []
    for change in (False, True):
        array, w = made_of(W), mg.tensor(W, requires_grad=True)
        y = function(w, array)
        if change:
            array[...] = ~array if array.dtype == bool else -7
        first = mg.grad(ops.sum(y), w, create_graph=True)
        second = mg.grad(ops.sum(first * first), w, materialize_grads=True)
        found.append((first.numpy(), second.numpy()))
    return found


USES = {  # a function of a Tensor and an array, which a change of the array would reach
    "matmul": lambda w, a: a @ w,
    "mul": lambda w, a: w * w * a,
    "div": lambda w, a: w * w / a,
    "Tensor": lambda w, a: ops.exp(w) * Tensor(a),
    "tensor": lambda w, a: w**3 * mg.tensor(a),
    "reshape": lambda w, a: w**3 * ops.reshape(a, (2, 2)),
    "transpose": lambda w, a: w**3 * ops.transpose(a),
    "getitem": lambda w, a: w**3 * ops.getitem(a, slice(None)),
    "broadcast_to": lambda w, a: w**3 * ops.broadcast_to(a, (2, 2)),
    "astype": lambda w, a: w**3 * ops.astype(a, np.float64),
    "maximum": lambda w, a: ops.maximum(w * w, a),
    "where": lambda w, a: ops.where(w * w > 0.001, w**3 * a, w),
    "dense": lambda w, a: ops.dense(w * w, a, a[0]),
    "concat": lambda w, a: ops.square(ops.concat([w**3, a])) * ops.concat([a, w]),
    "vjp": lambda w, a: mg.vjp(lambda x: x**3, w)[1](a)[0],
    "jvp": lambda w, a: mg.jvp(lambda x: x**3, [w], [a])[1],
    "a view": lambda w, a: w**3 * a[::-1].view(np.ndarray),
}
MASKED = {
    "where": lambda w, m: ops.where(m, w**3, w),
    "getitem": lambda w, m: ops.getitem(w**3, m),
    "mul": lambda w, m: w**3 * m,
}


@pytest.mark.parametrize("name", USES)
def test_a_gradient_uses_what_the_op_used(name):
    before, after = of_array(USES[name], lambda w: w.copy() + 3)
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])


@pytest.mark.parametrize("name", MASKED)
def test_a_gradient_uses_the_mask_that_the_op_used(name):
    before, after = of_array(MASKED[name], lambda w: w > 0)
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])


@pytest.mark.parametrize("op", [lambda a: ops.reshape(a, (4,)), ops.transpose, lambda a: ops.getitem(a, 0)])
def test_a_tensor_of_a_view_on_a_device_keeps_its_numbers(op):
    if emulator.missing_compiler():
        pytest.skip(emulator.missing_compiler())
    array = emulator.asarray(W)
    y = op(array)
    before = y.numpy().copy()
    array[...] = 7
    np.testing.assert_array_equal(y.numpy(), before)


def test_a_cotangent_that_changes_afterwards():
    x, g = mg.tensor([2.0, 3.0], requires_grad=True), np.ones(2, np.float32)
    first = mg.grad(x**3, x, g, create_graph=True)
    g[:] = 100
    assert mg.grad(first.sum(), x).data.tolist() == [12.0, 18.0]


def test_a_mask_that_changes_afterwards():
    x, mask = mg.tensor([2.0, 3.0], requires_grad=True), np.array([True, False])
    y = ops.where(mask, x, 0.0).sum()
    mask[:] = [False, True]
    assert mg.grad(y, x).data.tolist() == [1.0, 0.0]


def test_memory_maps_and_subclasses_are_arrays(tmp_path):
    kept = np.memmap(tmp_path / "kept", np.float32, "w+", shape=(2, 2))
    kept[...] = 3
    x = mg.tensor(np.ones((2, 2), "f"), requires_grad=True)
    for y in (x * kept, kept * x, x @ kept, kept @ x, ops.maximum(x, kept), ops.concat([x, kept])):
        assert type(y.data) is np.ndarray
        mg.grad(y.sum(), x)
    assert type(mg.tensor(kept).data) is np.ndarray
    unaligned = np.frombuffer(b"\0" + kept.tobytes(), np.float32, offset=1).reshape(2, 2)
    assert (x @ unaligned).data.tolist() == (x @ kept).data.tolist()
    assert mg.tensor(kept.astype(">f4")).dtype == np.float32


# --- copies and other processes ---------------------------------------------------------------------------------------


def gradient(network, x):
    """Return the gradient of a network's sum over x for its first parameter, computed where this runs."""
    leaf = mg.tensor(x, requires_grad=True)
    return mg.grad((network(leaf) ** 2).sum(), [leaf, *network.parameters()])[1].numpy()


def send_back(queue, back):
    network, x = queue.get()
    back.put(gradient(network, x.data))
    back.put((mg.grad((x * x).sum(), x), network))


def test_a_network_is_alive_after_every_kind_of_copy(tmp_path):
    network = mg.nn.Sequential(mg.nn.Dense(2, 3), mg.nn.ReLU(), mg.nn.Dense(3, 1))
    x = np.array([[1.0, 2.0]], np.float32)
    right = gradient(network, x)
    (tmp_path / "file").write_bytes(pickle.dumps(network))
    for twin in (copy.deepcopy(network), pickle.loads((tmp_path / "file").read_bytes()), copy.copy(network)):
        np.testing.assert_array_equal(gradient(twin, x), right)
    leaf = mg.tensor([2.0], requires_grad=True)
    for twin in (copy.copy(leaf), copy.deepcopy(leaf), pickle.loads(pickle.dumps(leaf))):
        assert twin is not leaf
        assert mg.grad((twin * twin * leaf).sum(), [twin, leaf])[0].data.tolist() == [8.0]
        assert not np.shares_memory(twin.data, leaf.data)
    with pytest.raises(TypeError, match="its graph would be lost"):
        pickle.dumps(leaf * 2.0)


def test_a_network_is_alive_in_another_process():
    context = multiprocessing.get_context("spawn")
    queue, back = context.Queue(), context.Queue()
    network, x = mg.nn.Dense(2, 3), mg.tensor([[1.0, 2.0]], requires_grad=True)
    worker = context.Process(target=send_back, args=(queue, back))
    worker.start()
    queue.put((network, x))
    np.testing.assert_array_equal(back.get(timeout=120), gradient(network, x.data))
    slope, twin = back.get(timeout=60)
    worker.join()
    assert slope.data.tolist() == [[2.0, 4.0]]
    np.testing.assert_array_equal(gradient(twin, x.data), gradient(network, x.data))


@pytest.mark.parametrize("kind", [mg.optim.SGD, mg.optim.RMSProp, mg.optim.Adam, mg.optim.OptimisticAdam])
def test_a_copied_optimiser_moves_the_copied_network(kind):
    network = mg.nn.Dense(2, 1)
    optimizer = kind(network.parameters(), ema_decay=0.5)
    gradients = [np.ones(p.shape, np.float32) for p in network.parameters()]
    optimizer.step(gradients)
    for move in (copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))):
        twin, its = move((network, optimizer))
        apart = [p.numpy() for p in network.parameters()]
        its.step(gradients)
        assert [p.numpy().tolist() for p in network.parameters()] == [p.tolist() for p in apart]
        again = pickle.loads(pickle.dumps((network, optimizer)))
        again[1].step(gradients)
        for p, q in zip(twin.parameters(), again[0].parameters(), strict=True):
            np.testing.assert_array_equal(p.data, q.data)
        assert not np.array_equal(twin.w.data, network.w.data)
        np.testing.assert_array_equal(its.average()[0].data, again[1].average()[0].data)


# --- habits -----------------------------------------------------------------------------------------------------------


def test_habits_that_work():
    x = mg.tensor([[1.0, -2.0]], requires_grad=True)
    assert abs(x).data.tolist() == [[1.0, 2.0]]
    assert (2**x).data.tolist() == [[2.0, 0.25]]
    assert (+x) is x
    assert ops.clip(x, low=0.0).data.tolist() == ops.clip(x, 0.0).data.tolist() == [[1.0, 0.0]]
    assert ops.clip(x, high=0.0).data.tolist() == [[0.0, -2.0]]
    assert ops.clip(x).data.tolist() == x.data.tolist()
    assert f"{x.sum():.3f}" == "-1.000"
    assert f"{x}" == str(x)
    for function in (np.mean, np.sum, np.max, np.amax, np.min, np.amin, np.var):
        y = function(x)
        assert isinstance(y, Tensor)
        mg.grad(y, x)
    assert np.sum(x, axis=1, keepdims=True).shape == (1, 1)
    for function in (np.exp, np.tanh, np.abs, np.negative, np.square):
        np.testing.assert_array_equal(function(x).data, function(x.data))
        mg.grad(function(x).sum(), x)
    for function in (np.add, np.multiply, np.maximum, np.subtract, np.divide):
        np.testing.assert_array_equal(function(x.data, x).data, function(x.data, x.data))
    assert np.concatenate([x, x]).shape == np.concatenate([x.data, x]).shape == (2, 2)
    assert np.stack([x, x]).shape == (2, 1, 2)
    assert np.reshape(x, (2,)).shape == (2,)
    assert np.transpose(x).shape == (2, 1)
    assert np.where(x.data > 0, x, 0.0).data.tolist() == [[1.0, 0.0]]
    assert np.clip(x, 0.0, 1.0).data.tolist() == [[1.0, 0.0]]
    assert np.matmul(x, x.T).shape == (1, 1)
    assert np.isfinite(x.detach()).all()
    assert np.allclose(x.detach(), x.detach().numpy())
    assert (np.shape(x), np.ndim(x), np.size(x), np.size(x, 0), np.size(x, axis=-1)) == ((1, 2), 2, 2, 1, 2)


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (AttributeError, "use mg.grad", lambda x: x.backward()),
        (AttributeError, "no gradient is stored", lambda x: x.grad),
        (AttributeError, "no gradient is stored", lambda x: x.zero_grad()),
        (AttributeError, "use t.reshape", lambda x: x.view(2)),
        (AttributeError, "has no attribute 'nonsense'", lambda x: x.nonsense),
        (AttributeError, "no gradient is stored", lambda x: mg.nn.Dense(1, 1).zero_grad()),
        (AttributeError, "no gradient is stored", lambda x: mg.optim.SGD([mg.nn.Dense(1, 1).w]).zero_grad()),
        (TypeError, "never written into", lambda x: x.__setitem__(0, 1.0)),
        (TypeError, "of one entry", lambda x: f"{x:.3f}"),
        (TypeError, "does not take Tensors", lambda x: np.sin(x)),
        (TypeError, "does not take Tensors", lambda x: np.add(x, x, out=np.ones(2))),
        (TypeError, "lose its graph", lambda x: np.sort(x)),
        (ValueError, "channels-last", lambda x: ops.conv2d(np.ones((1, 3, 8, 8), "f"), np.ones((3, 3, 3, 4), "f"))),
    ],
)
def test_habits_that_get_the_sentence_that_helps(error, words, call):
    with pytest.raises(error, match=words):
        call(mg.tensor([1.0, 2.0], requires_grad=True))


def test_a_seed_makes_a_cell_repeatable():
    def cell():
        mg.manual_seed(3)
        network = mg.nn.Sequential(
            mg.nn.Dense(2, 3), mg.nn.Dropout(0.5), mg.nn.InstanceNoise(0.1), mg.nn.MinibatchDiscrimination(3)
        )
        return network(mg.tensor(np.ones((4, 2), "f"))).numpy()

    first = cell()
    np.testing.assert_array_equal(cell(), first)
    mg.manual_seed(4)
    assert not np.array_equal(mg.nn.Dense(2, 3).w.data, (mg.manual_seed(3), mg.nn.Dense(2, 3))[1].w.data)
    for wrong in (-1, 2**64, 1.5, "1", None, True):
        with pytest.raises((TypeError, ValueError), match="seed"):
            mg.manual_seed(wrong)


def test_a_missing_attribute_is_missing():
    """What asks whether an attribute is there gets an answer: copies, pickles and notebooks do."""
    x = mg.tensor([1.0])
    assert not hasattr(x, "backward")
    assert not hasattr(x, "_repr_html_")
    assert not hasattr(mg.nn.Dense(1, 1), "zero_grad")
    assert inspect.isclass(Tensor)


class WithProperties(mg.nn.Dense):
    @property
    def width(self):
        return self.n_out

    @property
    def gradient(self):
        return self.w.grad


def test_an_error_inside_a_property_is_told_as_it_is():
    network = WithProperties(2, 3)
    with pytest.raises(AttributeError, match="^WithProperties has no attribute 'n_out'$"):
        network.width
    with pytest.raises(AttributeError, match="^Tensor has no attribute 'grad': no gradient is stored here"):
        network.gradient

    class Halving(mg.optim.SGD):
        half = property(lambda self: self.rte / 2)

    with pytest.raises(AttributeError, match="^Halving has no attribute 'rte'$"):
        Halving(network.parameters()).half
    network.n_out = 3
    assert network.width == 3
