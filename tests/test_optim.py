"""Optimisers: closed forms, minima, moving average, both backends, state, refusals."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

import minigan as mg
from minigan import kernels, nn, optim
from minigan.engine.flat import buffer_of
from minigan.gan import objectives

MAKERS = {
    "sgd": lambda p, lr=0.1, **more: optim.SGD(p, lr, **more),
    "momentum": lambda p, lr=0.05, **more: optim.SGD(p, lr, momentum=0.9, weight_decay=1e-3, **more),
    "rmsprop": lambda p, lr=0.01, **more: optim.RMSProp(p, lr, **more),
    "adam": lambda p, lr=0.02, **more: optim.Adam(p, lr, **more),
}
SHAPES = ((3, 4), (), (5,), (2, 1, 2, 2))


def leaves(*shapes, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [mg.tensor(rng.standard_normal(shape), dtype=dtype, requires_grad=True) for shape in shapes]


def gradients(step, dtype=np.float64):
    rng = np.random.default_rng(1000 + step)
    return [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]


def copy(arrays):
    return {name: np.array(array) for name, array in arrays.items()}


# --- what a step does -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_first_adam_step(backend, dtype):
    g = np.array([3.0, -0.2, 1e-3, 1e-8, 0.0], dtype)
    p = mg.tensor(np.zeros(5, dtype), requires_grad=True)
    optim.Adam([p], lr=0.01, eps=1e-6).step([g])
    g = g.astype(np.float64)
    np.testing.assert_allclose(p.numpy(), -0.01 * g / (np.abs(g) + 1e-6), rtol=2e-5 if dtype == np.float32 else 1e-12)


def test_sgd_formula(backend):
    (p,) = leaves((4,))
    start, u = p.numpy(), np.zeros(4)
    optimiser = optim.SGD([p], 0.1, momentum=0.9, weight_decay=0.5)
    expected = start
    for g in np.random.default_rng(1).standard_normal((3, 4)):
        optimiser.step([g])
        u = 0.9 * u + (g + 0.5 * expected)
        expected = expected - 0.1 * u
    np.testing.assert_allclose(p.numpy(), expected, rtol=1e-13)


@pytest.mark.parametrize("name", MAKERS)
def test_a_zero_gradient_without_history_moves_nothing(backend, name):
    parameters = leaves(*SHAPES)
    before = [p.numpy() for p in parameters]
    optimiser = optim.SGD(parameters, 0.1, 0.9) if name == "momentum" else MAKERS[name](parameters)
    optimiser.step([np.zeros(shape) for shape in SHAPES])
    for p, old in zip(parameters, before, strict=True):
        np.testing.assert_array_equal(p.numpy(), old)


@pytest.mark.parametrize("name", MAKERS)
def test_steps_take_tensors_or_arrays_and_leave_them_as_they_are(name):
    results = []
    for wrap in (lambda g: g, mg.tensor, lambda g: g.tolist(), lambda g: np.stack([g, g], axis=-1)[..., 0]):
        parameters = leaves(*SHAPES)
        given = [wrap(g) for g in gradients(0)]
        kept = [np.array(g) for g in gradients(0)]
        optimiser = MAKERS[name](parameters)
        optimiser.step(given)
        optimiser.step(given)
        for g, old in zip(given, kept, strict=True):
            np.testing.assert_array_equal(np.asarray(g), old)
        norm = math.sqrt(sum((g**2).sum() for g in kept))
        assert optimiser.gradient_norm() == pytest.approx(norm, rel=1e-12)
        assert optimiser.steps == 2
        results.append(optimiser.buffer.tobytes())
    assert len(set(results)) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", MAKERS)
def test_backends_agree(name, dtype):
    found = {}
    for backend in ("reference", "numba"):
        with kernels.use(backend):
            optimiser = MAKERS[name](leaves(*SHAPES, dtype=dtype), ema_decay=0.9)
            for step in range(10):
                optimiser.step(gradients(step, dtype))
        found[backend] = {"parameters": optimiser.buffer, **optimiser.state()}
    unit = np.finfo(dtype).eps
    for key, a in found["reference"].items():
        b = found["numba"][key]
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=20 * unit, atol=20 * unit)


@pytest.mark.parametrize("size", [1, 7, 16383, 16385, 600_000])
@pytest.mark.parametrize("name", MAKERS)
def test_backends_agree_at_every_size(name, size):
    rng = np.random.default_rng(size)
    start, g = rng.standard_normal((2, size)).astype(np.float32)
    found = []
    for backend in ("reference", "numba"):
        with kernels.use(backend):
            optimiser = MAKERS[name]([mg.tensor(start, requires_grad=True)], ema_decay=0.5)
            optimiser.step([g])
        found.append((optimiser.buffer, optimiser.ema))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6)


# --- minima -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_the_minimum_of_a_quadratic(backend, name):
    centre, scale = np.array([1.0, -2.0, 0.5]), np.array([1.0, 3.0, 0.3])
    (p,) = leaves((3,))
    decay = {"weight_decay": 0} if name == "momentum" else {}
    optimiser = optim.SGD([p], 0.05, 0.9, **decay) if decay else MAKERS[name]([p])
    for _ in range(800):
        optimiser.step([mg.grad((scale * (p - centre) ** 2).sum() * 0.5, p)])
    np.testing.assert_allclose(p.numpy(), centre, atol=0.02 if name == "rmsprop" else 1e-3)


# Two points, p = (3/4, 1/4), q = (1/4, 3/4), a logit for each: where D's loss is least (plus |s|²/2 where it has no
# minimum of its own). Log-likelihood: s = log p/q; least squares: p/(p + q); relativistic: d = σ(−d), s = ±d/2.
REAL, FAKE = np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1])
MINIMA = {
    "minimax": (0, [math.log(3), -math.log(3)]),
    "non-saturating": (0, [math.log(3), -math.log(3)]),
    "least-squares": (0, [0.75, 0.25]),
    "hinge": (0, [1.0, -1.0]),
    "wasserstein": (1, [0.5, -0.5]),
    "relativistic": (1, [0.2005290686, -0.2005290686]),
}


@pytest.mark.parametrize("objective", MINIMA)
@pytest.mark.parametrize("name", ["sgd", "momentum", "rmsprop", "adam"])
def test_the_best_discriminator_of_two_points(name, objective):
    held, expected = MINIMA[objective]
    s = mg.tensor(np.array([0.3, 0.1]), requires_grad=True)
    optimiser = optim.SGD([s], 0.02, momentum=0.9) if name == "momentum" else MAKERS[name]([s])
    for _ in range(600):
        loss = objectives.OBJECTIVES[objective].discriminator(s[REAL], s[FAKE])
        optimiser.step([mg.grad(loss + (0.5 * held) * (s * s).sum(), s)])
    np.testing.assert_allclose(s.numpy(), expected, atol=0.06 if objective == "hinge" else 0.02)


# --- moving average ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_ema_is_its_recursion(backend, name):
    parameters = leaves(*SHAPES)
    expected = [p.numpy() for p in parameters]
    optimiser = MAKERS[name](parameters, ema_decay=0.8)
    average = optimiser.average()
    for step in range(5):
        optimiser.step(gradients(step))
        expected = [e + (1 - 0.8) * (p.numpy() - e) for e, p in zip(expected, parameters, strict=True)]
    for e, a in zip(expected, average, strict=True):
        assert a.shape == e.shape
        assert not a.requires_grad
        np.testing.assert_allclose(a.numpy(), e, rtol=1e-12, atol=1e-14)
    assert not any(np.shares_memory(a.data, p.data) for a, p in zip(average, parameters, strict=True))


@pytest.mark.parametrize("name", MAKERS)
def test_the_average_does_not_touch_the_parameters(backend, name):
    found = []
    for decay in (0.0, 0.9):
        optimiser = MAKERS[name](leaves(*SHAPES), ema_decay=decay)
        for step in range(3):
            optimiser.step(gradients(step))
        found.append(optimiser.buffer.tobytes())
    assert found[0] == found[1]


# --- state ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_a_resumed_optimiser_goes_on_bitwise(backend, name):
    first = MAKERS[name](leaves(*SHAPES), ema_decay=0.9)
    for step in range(3):
        first.step(gradients(step))
    second = MAKERS[name](leaves(*SHAPES, seed=5), ema_decay=0.9)
    second.buffer[...] = first.buffer
    second.load_state(copy(first.state()))
    for optimiser in (first, second):
        for step in range(3, 6):
            optimiser.step(gradients(step))
    assert first.buffer.tobytes() == second.buffer.tobytes()
    assert first.state().keys() == second.state().keys()
    for key, value in first.state().items():
        assert value.tobytes() == second.state()[key].tobytes()
    assert second.steps == 6


def test_state_of_another_optimiser_or_network_is_refused():
    adam = optim.Adam(leaves((3,)), 0.1)
    averaged = optim.Adam(leaves((3,)), 0.1, ema_decay=0.5)
    for other in (optim.SGD(leaves((3,)), 0.1), optim.Adam(leaves((4,)), 0.1), averaged):
        with pytest.raises(ValueError, match="does not fit this Adam"):
            adam.load_state(other.state())
    assert adam.steps == 0


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_a_graph_from_before_a_step_is_refused(name):
    x, p, q = leaves((3,), (3,), (3,))
    optimiser = MAKERS[name]([p])
    loss, other = (x * p).sum(), (x * q).sum()
    optimiser.step([np.ones(3)])
    for wanted in (p, x, [x, p]):
        with pytest.raises(ValueError, match=r"shape \(3,\).*was changed"):
            mg.grad(loss, wanted)
    np.testing.assert_array_equal(mg.grad(other, q).numpy(), x.numpy())
    np.testing.assert_array_equal(mg.grad((x * p).sum(), x).numpy(), p.numpy())


def test_parameters_moved_to_another_buffer_are_refused():
    net = nn.Sequential(nn.Dense(2, 3), nn.Tanh(), nn.Dense(3, 1))
    optimiser = optim.SGD(net[0].parameters(), 0.1)
    net.parameters()
    with pytest.raises(ValueError, match="moved to another buffer"):
        optimiser.step([np.ones((2, 3)), np.ones(3)])


def test_an_optimiser_works_on_the_buffer_of_the_network():
    net = nn.Sequential(nn.Dense(2, 3), nn.Tanh(), nn.Dense(3, 1))
    optimiser = optim.SGD(net.parameters(), 0.1)
    assert np.shares_memory(optimiser.buffer, buffer_of(net.parameters()))
    part = optim.SGD(net[2].parameters(), 0.1)
    before = [p.numpy() for p in net.parameters()]
    part.step([np.ones((3, 1)), np.ones(1)])
    optimiser.step([np.zeros(p.shape) for p in net.parameters()])
    changed = [bool((p.numpy() != old).any()) for p, old in zip(net.parameters(), before, strict=True)]
    assert changed == [False, False, True, True]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([np.ones((2, 3))], "1 gradients for 2 parameters"),
        ([np.ones((2, 3)), np.ones(3), np.ones(3)], "3 gradients for 2 parameters"),
        ([np.ones((2, 3)), np.ones(4)], r"gradient 1 has shape \(4,\), its parameter \(3,\)"),
        ([np.ones((3, 2)), np.ones(3)], r"gradient 0 has shape \(3, 2\), its parameter \(2, 3\)"),
        ([np.ones((2, 3)), np.ones(1)], r"gradient 1 has shape \(1,\)"),
    ],
)
def test_wrong_gradients_are_refused_and_nothing_changes(given, message):
    optimiser = optim.Adam(leaves((2, 3), (3,)), 0.1)
    before = optimiser.buffer.copy(), copy(optimiser.state())
    with pytest.raises(ValueError, match=message):
        optimiser.step(given)
    np.testing.assert_array_equal(optimiser.buffer, before[0])
    for key, value in optimiser.state().items():
        np.testing.assert_array_equal(value, before[1][key])


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (np.ma.masked_array([1.0, 5.0], [False, True]), TypeError, "step: gradient 1: .* a masked array"),
        (np.array([1.0, 2.0 + 1j]), TypeError, "step: gradient 1: .* complex128 is not supported"),
        (np.array(["1", "2"]), TypeError, "step: gradient 1: .* <U1 is not supported"),
        (np.array([1.0, 2.0], np.float16), TypeError, "step: gradient 1: .* float16 is not supported"),
        ([None, 1.0], TypeError, "step: gradient 1: .* object is not supported"),
        ([[1.0], 2.0], ValueError, "step: gradient 1: .* a rectangular array of numbers"),
    ],
    ids=["masked", "complex", "strings", "half precision", "None", "ragged"],
)
def test_what_tensor_refuses_is_no_gradient(given, error, message):
    optimiser = optim.SGD(leaves((3,), (2,)), 0.1)
    before = optimiser.buffer.copy()
    with pytest.raises(error, match=message):
        optimiser.step([np.ones(3), given])
    np.testing.assert_array_equal(optimiser.buffer, before)


@pytest.mark.parametrize(
    "given",
    [[0.1, 2.0], (0.1, 2.0), np.array([0.1, 2.0], ">f8"), np.array([0.1, 2.0]).view(np.recarray)],
    ids=["list", "tuple", "bytes swapped", "subclass"],
)
def test_what_tensor_takes_is_a_gradient(given):
    p = mg.tensor(np.zeros(2), requires_grad=True)
    optim.SGD([p], 1.0).step([given])
    assert p.data.tolist() == [-0.1, -2.0]
    optim.SGD([p], 1.0).step([np.array([1, 2])])
    assert p.data.tolist() == [-1.1, -4.0]


def constant():
    return [mg.tensor(np.ones(3))]


def mixed():
    return [mg.tensor(np.ones(3, dtype), requires_grad=True) for dtype in (np.float32, np.float64)]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: optim.SGD([], 0.1), ValueError, "SGD: there are no parameters"),
        (lambda: optim.SGD(leaves((3,)), -0.1), ValueError, r"lr must be in \[0, inf\), not -0.1"),
        (lambda: optim.Adam(leaves((3,)), math.nan), ValueError, r"lr must be in \[0, inf\), not nan"),
        (lambda: optim.Adam(leaves((3,)), 0.1, (0.9, 1.0)), ValueError, r"beta2 must be in \[0, 1\)"),
        (lambda: optim.Adam(leaves((3,)), 0.1, (-0.1, 0.9)), ValueError, r"beta1 must be in \[0, 1\)"),
        (lambda: optim.RMSProp(leaves((3,)), 0.1, ema_decay=1.0), ValueError, r"ema_decay must be in \[0, 1\)"),
        (lambda: optim.SGD(mixed(), 0.1), ValueError, "one dtype, not float32, float64"),
        (lambda: optim.SGD(leaves((3,)) * 2, 0.1), ValueError, "listed twice"),
        (lambda: optim.SGD(constant(), 0.1), ValueError, "require grad"),
        (lambda: optim.SGD([leaves((3,))[0] * 2.0], 0.1), ValueError, "not results of ops"),
        (lambda: optim.SGD([np.ones(3)], 0.1), TypeError, "Tensor.*ndarray"),
        (lambda: optim.SGD(leaves((3,)), None), ValueError, "SGD: lr must be in .*, not None"),
        (lambda: optim.SGD(leaves((3,)), "x"), ValueError, "SGD: lr must be in .*, not 'x'"),
        (lambda: optim.SGD(leaves((3,)), True), ValueError, "SGD: lr must be in .*, not True"),
        (lambda: optim.SGD(leaves((3,)), momentum="x"), ValueError, "SGD: momentum must be in .*, not 'x'"),
        (lambda: optim.RMSProp(leaves((3,)), alpha=None), ValueError, "RMSProp: alpha must be in .*, not None"),
        (lambda: optim.Adam(leaves((3,)), betas=0.9), ValueError, "Adam: betas must be a pair of numbers, not 0.9"),
        (lambda: optim.Adam(leaves((3,)), betas=(0.9,)), ValueError, "Adam: betas must be a pair of numbers"),
        (lambda: optim.Adam(leaves((3,)), betas=(0.9, "x")), ValueError, "Adam: beta2 must be in .*, not 'x'"),
        (lambda: optim.Adam(leaves((3,)), ema_decay=[0.9]), ValueError, r"Adam: ema_decay must be in .*, not \[0.9\]"),
        (lambda: optim.SGD(leaves((3,)), 0.1).average(), ValueError, "ema_decay > 0"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("kind", "name", "value", "message"),
    [
        (optim.SGD, "lr", math.nan, r"SGD: lr must be in \[0, inf\), not nan"),
        (optim.Adam, "lr", "x", "Adam: lr must be in .*, not 'x'"),
        (optim.OptimisticSGD, "lr", -1.0, "OptimisticSGD: lr must be in .*, not -1.0"),
        (optim.SGD, "momentum", math.nan, "SGD: momentum must be in .*, not nan"),
        (optim.SGD, "weight_decay", math.inf, "SGD: weight_decay must be in .*, not inf"),
        (optim.RMSProp, "alpha", 1.0, "RMSProp: alpha must be in .*, not 1.0"),
        (optim.RMSProp, "eps", None, "RMSProp: eps must be in .*, not None"),
        (optim.Adam, "betas", (0.9, math.nan), "Adam: beta2 must be in .*, not nan"),
        (optim.OptimisticAdam, "betas", 0.9, "OptimisticAdam: betas must be a pair of numbers, not 0.9"),
        (optim.Adam, "ema_decay", 1.0, "Adam: ema_decay must be in .*, not 1.0"),
        (optim.SGD, "limit", math.nan, "SGD: limit must be in .*, not nan"),
    ],
)
def test_a_setting_keeps_to_its_range_whenever_it_is_set(kind, name, value, message):
    optimiser = kind(leaves((3,)))
    before = getattr(optimiser, name)
    with pytest.raises(ValueError, match=message):
        setattr(optimiser, name, value)
    assert getattr(optimiser, name) == before
    setattr(optimiser, name, before)


def test_a_new_learning_rate_holds_from_the_next_step_on():
    p = mg.tensor(np.zeros(1), requires_grad=True)
    optimiser = optim.SGD([p], 1.0)
    optimiser.step([np.ones(1)])
    optimiser.lr = 0.5
    optimiser.step([np.ones(1)])
    assert p.data.tolist() == [-1.5]


# --- between the gradient and the step --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [optim.SGD, optim.RMSProp, optim.Adam, optim.OptimisticAdam, optim.OptimisticSGD])
def test_between_sees_the_whole_gradient_once_a_step_and_changes_it(kind):
    first, other = (mg.tensor(np.arange(n, dtype=np.float64), requires_grad=True) for n in (2, 3))
    twins = [mg.tensor(p.numpy(), requires_grad=True) for p in (first, other)]
    seen = []

    def halve(buffer):
        seen.append(buffer.copy())
        buffer *= 0.5

    hooked, plain = kind([first, other], 0.1), kind(twins, 0.1)
    hooked.between = halve
    for step in range(3):
        gradients = [np.full(n, 4.0 + step) for n in (2, 3)]
        hooked.step(gradients)
        plain.step([g / 2 for g in gradients])
    assert [list(s) for s in seen] == [[4.0 + step] * 5 for step in range(3)]
    assert hooked.gradient_norm() == plain.gradient_norm()
    for a, b in zip((first, other), twins, strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()


def test_gradients_are_clipped_to_a_norm():
    p = mg.tensor(np.zeros(2), requires_grad=True)
    optimiser = optim.SGD([p], 1.0)
    optimiser.between = optim.clip_norm(1.0)
    optimiser.step([np.array([3.0, 4.0])])
    np.testing.assert_allclose(p.numpy(), [-0.6, -0.8], rtol=1e-15)
    optimiser.step([np.array([0.3, 0.4])])
    np.testing.assert_allclose(p.numpy(), [-0.9, -1.2], rtol=1e-15)
    for bad in (np.nan, np.inf):
        with pytest.raises(FloatingPointError, match="the gradient is not finite"):
            optimiser.step([np.array([bad, 1.0])])
    with pytest.raises(ValueError, match="the norm must be a number > 0, not 0"):
        optim.clip_norm(0)
    with pytest.raises(TypeError, match="the norm must be a number, not '1'"):
        optim.clip_norm("1")
    p, twin = pickle.loads(pickle.dumps((p, optimiser)))
    twin.step([np.array([0.0, 7.0])])
    np.testing.assert_allclose(p.numpy(), [-0.9, -2.2], rtol=1e-15)


def test_learning_rates_have_the_usual_defaults():
    made = {
        kind: kind([mg.tensor(np.zeros(2), requires_grad=True)]).lr for kind in (optim.SGD, optim.RMSProp, optim.Adam)
    }
    assert made == {optim.SGD: 1e-3, optim.RMSProp: 1e-2, optim.Adam: 1e-3}
