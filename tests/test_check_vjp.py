"""check_vjp and the strategies: gradients of functions on the arrays of NumPy, a device, PyTorch and JAX."""

from __future__ import annotations

import builtins
import importlib
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigan import ops
from minigan.kernels.gpu import emulator
from minigan.testing import GradientError, KinkError, NoiseError, check_grads, check_vjp, strategies

X, W = np.array([[0.3, -1.2, 2.1], [0.7, 0.1, -0.4]]), np.array([[1.0, 0.2], [-0.5, 0.8], [0.3, -1.5]])


def dense(x, w):
    return np.tanh(x @ w), x.sum()


def dense_vjp(g, x, w):
    y = np.tanh(x @ w)
    d = g[0] * (1 - y * y)
    return d @ w.T + g[1], x.T @ d


def loss(logits, targets):
    """Cross-entropy from logits: stable for any of them."""
    return np.mean(np.logaddexp(0, logits) - targets * logits)


def loss_vjp(g, logits, targets):
    with np.errstate(over="ignore"):
        return g * (1 / (1 + np.exp(-logits)) - targets) / logits.size


RIGHT = {
    "two arguments, two results": (dense, dense_vjp, [X, W]),
    "views": (dense, dense_vjp, [X[::-1, ::-1], W.T.copy().T]),
    "float32 arguments": (dense, dense_vjp, [X.astype(np.float32), W.astype(np.float32)]),
    "a dictionary": (lambda x: {"a": x * x, "b": [x.sum()]}, lambda g, x: 2 * x * g["a"] + g["b"][0], [X]),
    "numbers": (lambda x, y: x * y, lambda g, x, y: (g * y, g * x), [2.0, np.float64(3.0)]),
    "an axis": (lambda x, axis: x.sum(axis), lambda g, x, axis: np.broadcast_to(np.expand_dims(g, axis), x.shape), [X, 1]),
    "an index beside": (lambda x, i: x[i], lambda g, x, i: scatter(g, x, i), [X, np.array([1, 1, 0])]),
    "integer results beside": (lambda x: (x * x, x.argmax(1)), lambda g, x: 2 * x * g[0], [X]),
    "a list of gradients": (np.multiply, lambda g, x, y: [g * y, g * x], [X, X + 1]),
    "cross-entropy": (loss, lambda g, s, t: loss_vjp(g, s, t), [np.array([3.0, -40.0, 40.0, 800.0]), np.array([1, 0, 1, 1])]),
    "cross-entropy that is saturated": (loss, lambda g, s, t: loss_vjp(g, s, t), [np.array([40.0]), np.array([1])]),
    "one-sided domain": (lambda x: np.log(x) + np.sqrt(x), lambda g, x: g * (1 / x + 0.5 / np.sqrt(x)), [np.array([1e-4, 2.0])]),
    "a domain guarded by an error": (lambda x: guarded(x), lambda g, x: g * 0.5 / np.sqrt(x), [np.array([1e-3])]),
    "large": (lambda x: np.sin(x) * x, lambda g, x: g * (np.cos(x) * x + np.sin(x)), [np.linspace(-3, 3, 4001)]),
    "a structure": (lambda x, p: x @ p["w"] + p["b"][0], lambda g, x, p: (g @ p["w"].T, [x.T @ g, g.sum(0)]), [X, {"w": W, "b": (W[0],)}]),
    "empty": (lambda x: x * 2, lambda g, x: g * 2, [np.empty((0, 2))]),
}  # fmt: skip


def scatter(g, x, i):
    found = np.zeros_like(x)
    np.add.at(found, i, g)
    return found


def guarded(x):
    if (x <= 0).any():
        raise ValueError("a square root of a negative number")
    return np.sqrt(x)


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_vjp_passes(name):
    check_vjp(*RIGHT[name])


def remembers():
    seen = {}

    def f(x):
        seen["x"] = x.copy()
        return x * x

    return f, lambda g, x: 2 * g * seen["x"]


def spoil(array, right):
    array *= 2
    return right


def encoding(x, octaves=10):
    """The positional encoding of arXiv:2003.08934: x, and sines of 2ᵏπx."""
    return np.concatenate([x, *(np.sin(2.0**k * np.pi * x) for k in range(octaves))])


def encoding_vjp(g, x, octaves=10):
    parts = np.split(g, 11)
    return parts[0] + sum(parts[k + 1] * 2.0**k * np.pi * np.cos(2.0**k * np.pi * x) for k in range(octaves))


def sinc_vjp(g, x):
    u = x + x.dtype.type(1e-60)
    return g * (np.cos(u) * u - np.sin(u)) / (u * u)


def refuses_float32(g, x):
    if x.dtype != np.float64:
        raise TypeError("float64 only")
    return g * np.exp(x)


WRONG = {  # f, vjp, arguments, kind of error, words
    "off by .05%": (np.exp, lambda g, x: g * np.exp(x) * 1.0005, [X], GradientError, r"argument 0, entry \(0, 0\), value 0.3"),
    "one of two": (dense, lambda g, x, w: (dense_vjp(g, x, w)[0], -dense_vjp(g, x, w)[1]), [X, W], GradientError, "argument 1"),
    "order of arguments": (np.multiply, lambda g, x, y: (g * x, g * y), [X, X + 1], GradientError, "argument 0"),
    "the position of an argument": (lambda n, x: x**n, lambda g, n, x: g * x, [3, X], GradientError, "argument 1"),
    "a shape": (np.sum, lambda g, x: g, [X], GradientError, r"has shape \(\) where the argument has \(2, 3\)"),
    "None": (np.exp, lambda g, x: None, [X], TypeError, "must return an array for each of the 1 float arguments"),
    "one too many": (np.exp, lambda g, x: (g, g), [X], TypeError, "must return an array for each of the 1 float"),
    "float32 gradient": (np.exp, lambda g, x: (g * np.exp(x)).astype("f"), [X], GradientError, "is float32"),
    "float32 inside": (lambda x: np.exp(x.astype("f")).astype("d"), lambda g, x: g * np.exp(x), [X], GradientError, "float32"),
    "float32 result": (lambda x: x.astype("f"), lambda g, x: g.astype("d"), [X], GradientError, "is float32"),
    "random": (lambda x: x + np.random.default_rng().random(), lambda g, x: g, [X], GradientError, "two calls"),
    "a stale array": (*remembers(), [X], GradientError, "after others"),
    "an argument changed": (lambda x: spoil(x, 1.0 * x), lambda g, x: g, [X], GradientError, "an argument was changed"),
    "a cotangent changed": (lambda x: 1.0 * x, lambda g, x: spoil(g, 1.0 * g), [X], GradientError, "a cotangent was changed"),
    "a layout": (lambda x: 2 * x, lambda g, x: 2 * g.ravel("K").reshape(g.shape), [X], GradientError, "not contiguous"),
    "f(x, x)": (lambda x, y: x * y * (1 + (x is y)), lambda g, x, y: (g * y, g * x), [X, X + 1], GradientError, "one array"),
    "float32 only": (np.exp, lambda g, x: g * np.exp(x) * (1.001 if x.dtype == "f" else 1), [X], GradientError, "in float32"),
    "an octave missing": (encoding, lambda g, x: encoding_vjp(g, x, octaves=9), [X], GradientError, "gradient"),
    "an error in float32 only": (np.exp, refuses_float32, [X], TypeError, "float64 only"),
    "nan in float32 only": (np.exp, lambda g, x: g * np.exp(x) * (np.nan if x.dtype == "f" else 1), [X], GradientError, "in float32.*nan"),
    "0/0 in float32 only": (lambda x: np.sin(x + x.dtype.type(1e-60)) / (x + x.dtype.type(1e-60)), sinc_vjp, [np.array([0.0, 0.7])], GradientError, "in float32.*nan"),
    "two equal maxima": (lambda x: np.max(x), lambda g, x: g * (np.arange(3) == 1), [np.array([1.0, 2.0, 2.0])], KinkError, "kink"),
    "wrong near a kink": (lambda x: np.maximum(x, 0), lambda g, x: g * (x < 0), [np.array([-1e-9, 1e-9])], GradientError, r"gradient 1.0, finite differences 0.0"),
    "a kink": (np.abs, lambda g, x: g * np.sign(x), [np.array([1.0, 0.0])], KinkError, r"entry \(1,\), value 0.0"),
    "a jump": (np.floor, lambda g, x: g * 0, [np.array([2.0])], NoiseError, "noise"),
    "a border": (lambda x: x**1.5, lambda g, x: g * 1.5 * np.sqrt(x), [np.array([0.0])], KinkError, "not finite on both sides"),
    "nan": (np.exp, lambda g, x: g, [np.array([1.0, np.nan])], ValueError, r"argument 0 is nan at entry \(1,\)"),
    "infinity": (np.exp, lambda g, x: g, [np.inf], ValueError, "argument 0 is inf"),
    "a value of nan": (lambda x: np.where(x > 1, np.nan, x), lambda g, x: g, [X], GradientError, r"output 0 is nan at entry \(0, 2\)"),
    "half precision": (np.exp, lambda g, x: g, [X.astype(np.float16)], TypeError, "argument 0 is float16"),
    "complex numbers": (np.exp, lambda g, x: g, [X + 1j], TypeError, "argument 0 is complex128"),
    "nothing to differentiate": (np.exp, lambda g, x: g, [np.array([1, 2])], TypeError, "no argument is of a float dtype"),
    "no result to differentiate": (np.argmax, lambda g, x: g, [X], TypeError, "no array of floats"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_vjp_is_refused_in_words(name):
    f, vjp, args, kind, words = WRONG[name]
    with pytest.raises(kind, match=words):
        check_vjp(f, vjp, args)


def test_the_second_order_is_a_check_of_the_gradient_function():
    def slope(g, x):
        return g * 3 * x * x

    check_vjp(lambda x: x**3, slope, [X])
    check_vjp(slope, lambda u, g, x: (u * 3 * x * x, u * g * 6 * x), [X + 1, X])
    with pytest.raises(GradientError, match="argument 1"):
        check_vjp(slope, lambda u, g, x: (u * 3 * x * x, u * g * 3 * x), [X + 1, X])


@pytest.mark.skipif(emulator.missing_compiler() is not None, reason=str(emulator.missing_compiler()))
def test_arrays_of_a_device():
    def f(x, w):
        return emulator.tanh(x) @ w

    def vjp(g, x, w):
        y = emulator.tanh(x)
        return (1 - y * y) * (g @ w.T), y.T @ g

    args = [emulator.asarray(X), emulator.asarray(W)]
    check_vjp(f, vjp, args)
    with pytest.raises(GradientError, match="argument 1"):
        check_vjp(f, lambda g, x, w: (vjp(g, x, w)[0], emulator.tanh(x).T @ g * 1.001), args)


@pytest.mark.oracle
def test_tensors_of_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    def gradient(f):
        def vjp(g, *xs):
            xs = [x.detach().requires_grad_(True) for x in xs]
            return torch.autograd.grad(f(*xs), xs, g)

        return vjp

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return torch.where(x > 0, x, 0.1 * x)

        @staticmethod
        def backward(ctx, g):
            return torch.where(ctx.saved_tensors[0] > 0, g, 0.2 * g)

    x, w = torch.tensor(X), torch.tensor(W, requires_grad=True)
    for f, args in {
        lambda x, w: torch.softmax(x @ w, 1): [x, w],
        torch.nn.functional.gelu: [x.float()[0]],
        lambda x: torch.nn.functional.binary_cross_entropy_with_logits(x * 30, torch.ones_like(x)): [x[0]],
    }.items():
        check_vjp(f, gradient(f), args)
    with pytest.raises(GradientError, match=r"argument 0, entry \(0, 1\), value -1.2"):
        check_vjp(Wrong.apply, gradient(Wrong.apply), [x])
    check_vjp(torch.tanh, gradient(torch.tanh), [X], wrap=torch.tensor, unwrap=lambda t: t.detach().numpy())


@pytest.mark.oracle
def test_arrays_of_jax():
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    jnp = jax.numpy

    def gradient(f):
        return lambda g, *xs: jax.vjp(f, *xs)[1](g)

    narrow = [jnp.asarray(X.astype(np.float32))]
    with pytest.raises(TypeError, match="the arrays made for the function are float32"):
        check_vjp(jnp.tanh, gradient(jnp.tanh), narrow)
    with jax.enable_x64(True):
        softmax = jax.jit(lambda x: jax.nn.softmax(x * 30))
        check_vjp(softmax, jax.jit(gradient(softmax)), narrow)
        with pytest.raises(GradientError, match="argument 0"):
            check_vjp(jnp.tanh, gradient(jnp.sin), [jnp.asarray(X[0])])


def test_the_checks_import_no_other_library():
    program = "import sys, minigan.testing; print(sorted({'torch', 'jax', 'hypothesis', 'cupy'} & set(sys.modules)))"
    import subprocess

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- strategies -------------------------------------------------------------------------------------------------------


@given(strategies.arrays(away_from=(0.0, 1.0), distance=0.1))
def test_values_keep_away_from_kinks_in_any_layout(x):
    assert x.ndim <= 3
    assert (np.abs(x) <= 3).all()
    assert (np.abs(x) >= 0.1).all()
    assert (np.abs(x - 1) >= 0.1 - 1e-15).all()
    check_grads(lambda t: ops.relu(t) + ops.clip(t, -9.0, 1.0), [x], order=1)


@given(st.data())
def test_layouts_hold_the_same_values(data):
    x = data.draw(strategies.arrays((2, 3, 2), contiguous=True))
    assert x.flags.c_contiguous
    np.testing.assert_array_equal(data.draw(strategies.layouts(x)), x)


def test_layouts_of_every_kind_are_drawn():
    from hypothesis import find, settings

    quick = settings(database=None, derandomize=True, max_examples=500)
    arrays = strategies.arrays((2, 3))
    assert min(find(arrays, lambda x: min(x.strides) < 0, settings=quick).strides) < 0
    assert find(arrays, lambda x: x.strides[0] < x.strides[1] and x.strides[0] > 0, settings=quick).shape == (2, 3)
    assert not find(arrays, lambda x: not x.flags.forc, settings=quick).flags.c_contiguous


@given(strategies.broadcasting(3, low=0.5))
def test_shapes_that_broadcast(arrays):
    assert all((x >= 0.5).all() for x in arrays)
    np.broadcast_shapes(*(x.shape for x in arrays))


@given(strategies.shapes(1, 2, 0, 2))
def test_shapes_stay_in_their_bounds(shape):
    assert 1 <= len(shape) <= 2
    assert all(0 <= n <= 2 for n in shape)


def test_no_value_left_is_refused():
    with pytest.raises(ValueError, match="no number from -0.01 to 0.01 is 0.05 away from"):
        strategies.values(-0.01, 0.01, away_from=[0.0])


def test_strategies_without_hypothesis_say_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("hypothesis"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "minigan.testing.strategies")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="needs Hypothesis: pip install hypothesis"):
        importlib.import_module("minigan.testing.strategies")
