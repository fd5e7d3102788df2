"""The CUDA kernels, on the emulated device in three orders of threads, against the reference and its error bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minigan import kernels
from minigan.kernels.gpu import emulator
from minigan.kernels.gpu import launch as cuda

from .conftest import EMULATED, running_on
from .test_kernels import GEOMETRIES, gamma, run_triad, triad

REGISTRY = kernels.registry()
FOLDER = Path(kernels.__file__).parent


@pytest.fixture(params=EMULATED)
def device(request):
    """Run the test on the emulated device, in each order of threads."""
    with running_on(request.param) as name:
        yield name


def call(kernel, *args, **settings):
    """Run a kernel on the emulated device on host arrays; return its results there, and write back what it changed."""
    move = {id(a): emulator.asarray(a) for a in (*args, *settings.values()) if isinstance(a, np.ndarray)}
    result = kernel(*(move.get(id(a), a) for a in args), **{k: move.get(id(v), v) for k, v in settings.items()})
    for a in args:
        if isinstance(a, np.ndarray):
            a[...] = move[id(a)].get()
    if isinstance(result, tuple):
        return tuple(part.get() for part in result)
    return result.get() if isinstance(result, emulator.ndarray) else result


def normal(seed, *shape, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def integers(seed, *shape, dtype=np.float32):
    return np.random.default_rng(seed).integers(-8, 9, shape).astype(dtype)


# --- declarations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_kernel_has_a_cuda_version(name):
    assert "cuda" in REGISTRY[name].implementations


def test_every_kernel_of_a_source_is_launched_and_every_launch_has_one():
    for path in sorted(FOLDER.glob("*.cu")):
        launches = "\n".join(p.read_text(encoding="utf-8") for p in FOLDER.glob("*.py"))
        for name in cuda.parse(cuda.expand(path.name, set())):
            assert f'"{name}"' in launches, f"{name} of {path.name} is never launched"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (lambda x: (x, x.get(), x, 4, 2, True, 0, 0.0), "b must be on the device"),
        (lambda x: (x, x.astype(np.float64), x, 4, 2, True, 0, 0.0), "b is float64 where float32 is wanted"),
        (lambda x: (x, emulator.ones(8, np.float32)[::2], x, 4, 2, True, 0, 0.0), "b must be contiguous"),
    ],
)
def test_the_launcher_refuses_what_a_kernel_would_misread(arguments, words):
    with pytest.raises((TypeError, ValueError), match=words):
        cuda.Source("bias_act.cu").launch("bias_act", *arguments(emulator.ones(4, np.float32)), work=4)


def test_a_parameter_that_no_launch_could_fill_is_refused():
    with pytest.raises(ValueError, match="a parameter is one of"):
        cuda.parse("__global__ void f(const short* x) {}")


# --- products ---------------------------------------------------------------------------------------------------------

SHAPES = [(1, 1, 1), (13, 7, 17), (63, 64, 65), (64, 16, 64), (65, 17, 1), (3, 4000, 5), (1, 0, 3)]


def in_order(x, order):
    return np.asfortranarray(x) if order == "t" else x


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["nn", "nt", "tn"])
@pytest.mark.parametrize("shape", SHAPES)
def test_products_are_exact_on_small_integers(device, shape, order, dtype):
    m, k, n = shape
    x, w, b = integers(0, m, k, dtype=dtype), integers(1, k, n, dtype=dtype), integers(2, n, dtype=dtype)
    on_x, on_w = (
        emulator.asarray(np.ascontiguousarray(a.T)).T if o == "t" else emulator.asarray(a)
        for a, o in zip((x, w), order, strict=True)
    )
    np.testing.assert_array_equal(kernels.matmul(on_x, on_w).get(), x @ w)
    y = kernels.dense(on_x, on_w, emulator.asarray(b), activation="relu", slope=0.0).get()
    np.testing.assert_array_equal(y, np.maximum(x @ w + b, 0))


@pytest.mark.parametrize("shape", [(13, 7, 17), (65, 300, 33), (5, 4000, 3)])
def test_products_are_within_the_bound_of_a_dot_product(device, shape):
    m, k, n = shape
    x, w = normal(0, m, k), normal(1, k, n)
    wide = x.astype(np.float64), w.astype(np.float64)
    bound = np.abs(wide[0]) @ np.abs(wide[1])
    assert (np.abs(call(kernels.matmul, x, w) - wide[0] @ wide[1]) <= gamma(k) * bound).all()


def to_tf32(x):
    bits = x.view(np.uint32)
    return ((bits + 0x1000) & 0xFFFFE000).view(np.float32)


@pytest.mark.parametrize("shape", [(16, 8, 8), (65, 20, 33)])
def test_tensor_cores_multiply_what_tf32_keeps(device, shape):
    m, k, n = shape
    x, w = normal(0, m, k), normal(1, k, n)
    with cuda.allow_tf32():
        y = call(kernels.matmul, x, w)
        np.testing.assert_array_equal(
            call(kernels.matmul, integers(0, m, k), integers(1, k, n)), integers(0, m, k) @ integers(1, k, n)
        )
    kept = to_tf32(x).astype(np.float64), to_tf32(w).astype(np.float64)
    assert (np.abs(y - kept[0] @ kept[1]) <= gamma(k) * (np.abs(kept[0]) @ np.abs(kept[1]))).all()
    assert np.abs(y - x.astype(np.float64) @ w).max() > 1e-5  # it did round


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_triad_is_exact_on_small_integers(device, geometry, tf32):
    rng = np.random.default_rng(0)
    (x, w, y), settings, extra, kernel = triad(geometry, lambda s: rng.integers(-8, 9, s), np.float32)
    with kernels.use("reference"):
        wanted = run_triad(x, w, y, settings, extra, kernel)
    with cuda.allow_tf32(tf32):
        found = [a.get() for a in run_triad(*map(emulator.asarray, (x, w, y)), settings, extra, kernel)]
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("geometry", GEOMETRIES[1::2])
def test_the_triad_is_within_the_bound_of_a_dot_product(device, geometry):
    rng = np.random.default_rng(1)
    (x, w, y), settings, extra, kernel = triad(geometry, rng.standard_normal, np.float32)
    found = [a.get() for a in run_triad(*map(emulator.asarray, (x, w, y)), settings, extra, kernel)]
    wide = [a.astype(np.float64) for a in (x, w, y)]
    exact, size = run_triad(*wide, settings, extra, kernel), run_triad(*map(np.abs, wide), settings, extra, kernel)
    taps = kernel[0] * kernel[1]
    for a, b, bound, k in zip(
        found, exact, size, (taps * x.shape[3], taps * y.shape[3], y.size // y.shape[3]), strict=True
    ):
        assert (np.abs(a - b) <= gamma(k + 1) * bound).all()


def test_bias_and_activation_on_the_way_out(device):
    rng = np.random.default_rng(3)
    (x, w, y), settings, extra, _ = triad(GEOMETRIES[1], rng.standard_normal, np.float64)
    b, c = rng.standard_normal(w.shape[3]), rng.standard_normal(w.shape[2])
    for activation in kernels.ACTIVATIONS:
        act = {"activation": activation, "slope": 0.2}
        np.testing.assert_allclose(
            call(kernels.conv2d, x, w, b, **settings, **act),
            kernels.conv2d(x, w, b, **settings, **act),
            rtol=1e-12,
            atol=1e-12,
        )
        full = {"output_padding": extra, **settings, **act}
        np.testing.assert_allclose(
            call(kernels.conv2d_transpose, y, w, c, **full),
            kernels.conv2d_transpose(y, w, c, **full),
            rtol=1e-12,
            atol=1e-12,
        )


# --- passes over memory -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", kernels.ACTIVATIONS)
@pytest.mark.parametrize("shape", [(1, 1), (13, 7), (129, 33), (300, 1), (2, 3, 5, 4)])
def test_bias_act_and_its_gradients(device, shape, activation):
    x, b, g = (
        normal(0, *shape, dtype=np.float64),
        normal(1, shape[-1], dtype=np.float64),
        normal(2, *shape, dtype=np.float64),
    )
    act = {"activation": activation, "slope": 0.2}
    y = call(kernels.bias_act, x, b, **act)
    with kernels.use("reference"):
        np.testing.assert_allclose(y, kernels.bias_act(x, b, **act), rtol=1e-14)
        np.testing.assert_allclose(call(kernels.bias_act, x, None, **act), kernels.bias_act(x, None, **act), rtol=1e-14)
        wanted = kernels.bias_act_sums(g, y, **act)
    np.testing.assert_allclose(call(kernels.bias_act_grad, g, y, **act), wanted[0], rtol=1e-14)
    for a, w in zip(call(kernels.bias_act_sums, g, y, **act), wanted, strict=True):
        np.testing.assert_allclose(a, w, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("shape", [(2, 1), (13, 7), (129, 33), (3, 5, 4, 2)])
def test_batch_norm_and_its_gradients(device, shape):
    x, g, u = (normal(i, *shape, dtype=np.float64) + i for i in range(3))
    gamma_, beta = normal(4, shape[-1], dtype=np.float64), normal(5, shape[-1], dtype=np.float64)
    act = {"eps": 1e-5, "activation": "leaky_relu", "slope": 0.2}
    found = call(kernels.batch_norm, x, gamma_, beta, **act)
    with kernels.use("reference"):
        wanted = kernels.batch_norm(x, gamma_, beta, **act)
        y, mean, var = wanted
        wanted += kernels.batch_norm_grad(g, x, y, gamma_, mean=mean, var=var, **act)
        wanted += kernels.batch_norm_grad_vjp(u, g, x, y, gamma_, mean=mean, var=var, **act)
    found += call(kernels.batch_norm_grad, g, x, y, gamma_, mean=mean, var=var, **act)
    found += call(kernels.batch_norm_grad_vjp, u, g, x, y, gamma_, mean=mean, var=var, **act)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("loss", kernels.LOSSES)
def test_losses(device, loss):
    s = np.concatenate([normal(0, 600, dtype=np.float64), [0.0, 1.0, -1.0, 90.0, -90.0, 1e4, -1e4]])
    with kernels.use("reference"):
        wanted = kernels.mean_loss(s, loss=loss)
    for a, b in zip(call(kernels.mean_loss, s, loss=loss), wanted, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-12)


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize(("name", "slots"), [("sgd_", 1), ("sgd_", 0), ("rmsprop_", 1), ("adam_", 2)])
def test_optimisers(device, name, slots, averaged):
    settings = {
        "sgd_": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
        "rmsprop_": {"lr": 0.1, "alpha": 0.9, "eps": 1e-8},
        "adam_": {"lr": 0.1, "beta1": 0.5, "beta2": 0.9, "eps": 1e-8, "step": 3},
    }[name] | {"decay": 0.7}
    n, kernel = 700, REGISTRY[name]
    p, g, first, second = (np.abs(normal(i, n, dtype=np.float64)) for i in range(4))
    empty = np.empty(0)
    states = [first, second][:slots] if slots or name != "sgd_" else [empty]
    arrays = [p, g, *states, p * 2 if averaged else empty]
    with kernels.use("reference"):
        kernel(*(wanted := [a.copy() for a in arrays]), **settings)
    call(kernel, *(found := [a.copy() for a in arrays]), **settings)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)


@pytest.mark.parametrize("n", [1, 255, 256, 70_000])
def test_squared_norm(device, n):
    g = normal(0, n)
    assert call(kernels.squared_norm, g) == pytest.approx(float(np.square(g, dtype=np.float64).sum()), rel=1e-14)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 1027])
@pytest.mark.parametrize("seed", [0, 2**63 + 12345])
def test_random_bits_are_those_of_the_cpu(device, seed, n):
    counters = {"seed": seed, "stream": 3, "step": 2**31 + 5}
    bits, wanted = np.empty(n, np.uint32), np.empty(n, np.uint32)
    call(kernels.philox_bits_, bits, **counters)
    kernels.philox_bits_(wanted, **counters)
    np.testing.assert_array_equal(bits, wanted)
    for dtype in (np.float32, np.float64):
        for fill, ulps in ((kernels.philox_uniform_, 0), (kernels.philox_normal_, 4)):
            found, expected = np.empty(n, dtype), np.empty(n, dtype)
            call(fill, found, **counters)
            fill(expected, **counters)
            np.testing.assert_array_max_ulp(found, expected, ulps) if ulps else np.testing.assert_array_equal(
                found, expected
            )
