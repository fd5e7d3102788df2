"""Kernels: every implementation against float64, on the shapes where loops go wrong, at every thread count."""

from __future__ import annotations

import hashlib
import inspect
import os
import subprocess
import sys

import numpy as np
import pytest

from minigan import kernels
from minigan.kernels.batch_norm import ROWS
from minigan.kernels.cpu.units import CHUNK
from minigan.testing.references import (
    np_batch_norm,
    np_batch_norm_grad,
    np_conv2d,
    np_conv2d_transpose,
    np_conv2d_weight_grad,
)

REGISTRY = kernels.registry()
U32 = 2.0**-24


def gamma(k):
    """γ_K: the relative error bound of a dot product of length K in float32, with nothing to tune."""
    return k * U32 / (1 - k * U32)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_kernel_has_a_numba_version_of_the_same_signature(name):
    kernel = REGISTRY[name]
    assert {"reference", "numba"} <= set(kernel.implementations)
    signatures = {str(inspect.signature(f).replace()) for f in kernel.implementations.values()}
    assert len(signatures) == 1
    assert kernel.__doc__


def test_every_cuda_file_stands_beside_a_python_file():
    folder = os.path.dirname(kernels.__file__)
    files = set(os.listdir(folder))
    assert all(name.removesuffix(".cu") + ".py" in files for name in files if name.endswith(".cu"))


def test_use_selects_and_restores_the_backend():
    with kernels.use("reference"):
        assert kernels.active() == "reference"
        with kernels.use("numba"):
            assert kernels.active() == "numba"
        assert kernels.active() == "reference"
    with pytest.raises(ValueError, match="'fast'"), kernels.use("fast"):
        pass


def test_arrays_of_no_known_device_are_refused_by_name():
    with pytest.raises(TypeError, match="kernel mean_loss: s must be an array, not list"):
        kernels.mean_loss([1.0], loss="linear")


def test_a_kernel_name_is_registered_once():
    def mean_loss():
        pass

    with pytest.raises(ValueError, match="mean_loss"):
        kernels.Kernel(mean_loss)


# --- the conv triad ---------------------------------------------------------------------------------------------------

GEOMETRIES = [  # (N, H, W, Cin, Cout, kernel, stride, padding): sizes that expose index mistakes
    (1, 1, 1, 1, 1, (1, 1), (1, 1), (0, 0)),
    (2, 7, 5, 3, 4, (3, 3), (1, 1), (1, 1)),
    (3, 8, 8, 1, 6, (4, 4), (2, 2), (1, 1)),
    (2, 13, 7, 5, 3, (4, 2), (2, 3), (1, 0)),
    (2, 5, 9, 2, 7, (2, 5), (3, 1), (0, 2)),
    (1, 2, 3, 3, 2, (5, 6), (1, 2), (2, 2)),
    (2, 4, 4, 17, 13, (4, 4), (1, 1), (0, 0)),
    (1, 17, 1, 1, 9, (3, 1), (2, 1), (1, 0)),
    (5, 6, 4, 8, 16, (3, 2), (2, 2), (0, 1)),
]


def triad(geometry, draw, dtype):
    n, h, w, c_in, c_out, kernel, stride, padding = geometry
    out = kernels.conv2d_output_shape((h, w), kernel, stride, padding)
    arrays = [draw(shape).astype(dtype) for shape in ((n, h, w, c_in), (*kernel, c_in, c_out), (n, *out, c_out))]
    extra = tuple((s + 2 * p - k) % t for s, p, k, t in zip((h, w), padding, kernel, stride, strict=True))
    return arrays, {"stride": stride, "padding": padding}, extra, kernel


def run_triad(x, w, y, settings, extra, kernel):
    return (
        kernels.conv2d(x, w, **settings),
        kernels.conv2d_transpose(y, w, output_padding=extra, **settings),
        kernels.conv2d_weight_grad(x, y, kernel=kernel, **settings),
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_triad_is_exact_on_small_integers(geometry, dtype, backend):
    rng = np.random.default_rng(0)
    (x, w, y), settings, extra, kernel = triad(geometry, lambda s: rng.integers(-8, 9, s), dtype)
    found = run_triad(x, w, y, settings, extra, kernel)
    wanted = (
        np_conv2d(x, w, **settings),
        np_conv2d_transpose(y, w, output_padding=extra, **settings),
        np_conv2d_weight_grad(x, y, kernel, **settings),
    )
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == dtype
        assert a.flags.c_contiguous
        np.testing.assert_array_equal(a, b, strict=False)
    forms = [float((a * b).sum()) for a, b in zip(found, (y, x, w), strict=True)]
    assert forms[0] == forms[1] == forms[2]  # ⟨conv(x, w), y⟩ = ⟨x, convᵀ(y, w)⟩ = ⟨w, ∇(x, y)⟩, to the last bit


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_triad_in_float32_is_within_the_bound_of_a_dot_product(geometry, backend):
    rng = np.random.default_rng(1)
    (x, w, y), settings, extra, kernel = triad(geometry, lambda s: rng.standard_normal(s), np.float32)
    found = run_triad(x, w, y, settings, extra, kernel)
    wide = [a.astype(np.float64) for a in (x, w, y)]
    exact = run_triad(*wide, settings, extra, kernel)
    size = run_triad(*map(np.abs, wide), settings, extra, kernel)
    taps = kernel[0] * kernel[1]
    lengths = (taps * x.shape[3], taps * y.shape[3], y.size // y.shape[3])
    for a, b, bound, k in zip(found, exact, size, lengths, strict=True):
        assert np.isfinite(a).all()
        assert (np.abs(a - b) <= gamma(k + 1) * bound).all()


BAD_CONVS = [
    (lambda x, w, y: kernels.conv2d(x, w[:, :, :1], stride=(1, 1), padding=(0, 0)), "x has 2 channels but w takes 1"),
    (lambda x, w, y: kernels.conv2d(x, w, stride=(0, 1), padding=(0, 0)), "stride must be >= 1"),
    (lambda x, w, y: kernels.conv2d(x, w, stride=(1, 1), padding=(-1, 0)), "padding must be >= 0"),
    (lambda x, w, y: kernels.conv2d(x[:, :2], w, stride=(1, 1), padding=(0, 0)), "does not fit"),
    (lambda x, w, y: kernels.conv2d_transpose(y, w, stride=(1, 1), padding=(0, 0), output_padding=(1, 0)),
     "smaller than the stride"),
    (lambda x, w, y: kernels.conv2d_transpose(y[..., :2], w, stride=(1, 1), padding=(0, 0), output_padding=(0, 0)),
     "y has 2 channels but w takes 4"),
    (lambda x, w, y: kernels.conv2d_transpose(y[:, :1], w, stride=(1, 1), padding=(2, 2), output_padding=(0, 0)),
     "comes from no input"),
    (lambda x, w, y: kernels.conv2d_weight_grad(x, y[:1], kernel=(3, 3), stride=(1, 1), padding=(0, 0)),
     "conv2d makes"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "words"), BAD_CONVS, ids=[words for _, words in BAD_CONVS])
def test_conv_says_what_does_not_fit(call, words, backend):
    x, w, y = np.ones((2, 5, 5, 2)), np.ones((3, 3, 2, 4)), np.ones((2, 3, 3, 4))
    with pytest.raises(ValueError, match=words):
        call(x, w, y)


# --- products ---------------------------------------------------------------------------------------------------------

SHAPES = [
    (1, 1, 1),
    (3, 5, 7),
    (7, 1, 33),
    (8, 300, 32),
    (9, 257, 65),
    (70, 64, 31),
    (300, 130, 1),
    (5, 600, 3),
    (2, 9, 64),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", ["nn", "nt", "tn", "tt", "strided"])
def test_matmul_is_within_the_bound_of_a_dot_product(shape, order, dtype, backend):
    m, k, n = shape
    rng = np.random.default_rng(7)
    x, w = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    if order == "strided":
        x, w = (np.repeat(np.repeat(a, 2, 0), 3, 1)[::2, ::3] for a in (x, w))
    else:
        x, w = (a.T.copy().T if kind == "t" else a for a, kind in zip((x, w), order, strict=True))
    found = kernels.matmul(x, w)
    wide = x.astype(np.longdouble), w.astype(np.longdouble)
    bound = gamma(k + 1) * (np.abs(wide[0]) @ np.abs(wide[1])) * (1 if dtype == np.float32 else 2.0**-29)
    assert (found.dtype, found.flags.c_contiguous) == (dtype, True)
    assert (np.abs(found - wide[0] @ wide[1]) <= bound).all()
    bias = rng.standard_normal(n).astype(dtype)
    act = kernels.dense(x, w, bias, activation="leaky_relu", slope=0.25)
    v = found + bias
    np.testing.assert_allclose(act, np.where(v > 0, v, 0.25 * v), rtol=8 * bound.max(), atol=8 * bound.max())


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 3), (2, 3, 0)])
def test_matmul_of_nothing(shape, backend):
    m, k, n = shape
    np.testing.assert_array_equal(kernels.matmul(np.ones((m, k)), np.ones((k, n))), np.zeros((m, n)))


def test_a_row_of_a_product_does_not_depend_on_the_others():
    rng = np.random.default_rng(8)
    x, w = rng.standard_normal((101, 70)).astype("f"), rng.standard_normal((70, 90)).astype("f")
    whole = kernels.matmul(x, w)
    for rows in (slice(0, 1), slice(3, 12), slice(50, 101)):
        np.testing.assert_array_equal(kernels.matmul(x[rows], w), whole[rows])


# --- the other families -----------------------------------------------------------------------------------------------

LINEAR = {"activation": "linear", "slope": 0.0}
SIZES = (1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 13)


@pytest.mark.parametrize("activation", kernels.ACTIVATIONS)
@pytest.mark.parametrize("shape", [(1, 1), (13, 7), (129, 128), (1025, 17), (3, CHUNK + 1)])
def test_bias_act_matches_float64(shape, activation, backend):
    rng = np.random.default_rng(2)
    x, b, g = (rng.standard_normal(s).astype(np.float32) for s in (shape, shape[-1:], shape))
    settings = {"activation": activation, "slope": 0.2}
    y = kernels.bias_act(x, b, **settings)
    dv = kernels.bias_act_grad(g, y, **settings)
    with kernels.use("reference"):
        wide = kernels.bias_act(x.astype(np.float64), b.astype(np.float64), **settings)
        wide_dv = kernels.bias_act_grad(g.astype(np.float64), y.astype(np.float64), **settings)
    assert y.dtype == dv.dtype == np.float32
    np.testing.assert_allclose(y, wide, rtol=6 * U32, atol=4 * U32 * (np.abs(x) + np.abs(b)).max())
    np.testing.assert_allclose(dv, wide_dv, rtol=6 * U32, atol=4 * U32)


@pytest.mark.parametrize(
    "shape", [(2, 1), (7, 5), (ROWS - 1, 3), (ROWS, 3), (ROWS + 1, 3), (5, 9, 13, 4), (3 * ROWS, 64)]
)
def test_batch_norm_matches_float64(shape, backend):
    rng = np.random.default_rng(3)
    x, g = (rng.standard_normal(shape) + 3 for _ in range(2))
    scale, shift = rng.uniform(0.5, 2, shape[-1]), rng.standard_normal(shape[-1])
    y, mean, var = kernels.batch_norm(*(a.astype(np.float32) for a in (x, scale, shift)), eps=1e-5)
    narrow = [a.astype(np.float32) for a in (g, x, scale)]
    moments = {"mean": mean, "var": var, "eps": 1e-5, **LINEAR}
    found = kernels.batch_norm_grad(narrow[0], narrow[1], y, narrow[2], **moments)
    exact = np_batch_norm_grad(*(a.astype(np.float64) for a in narrow), 1e-5)
    r = 1 / np.sqrt(x.var(tuple(range(x.ndim - 1))) + 1e-5)
    atol = 40 * U32 * (1 + np.abs(x).max() * r.max())
    np.testing.assert_allclose(y, np_batch_norm(x, scale, shift, 1e-5), atol=atol * scale.max(), rtol=1e-5)
    for a, b in zip(found, exact, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, atol=atol * max(1, r.max() * scale.max()) * max(1, np.abs(b).max()))


NIST = [  # certified by NIST's Statistical Reference Datasets: numbers whose squares cancel
    (np.array([10000001, 10000003, 10000002]), 10000002, 1.0),  # NumAcc1
    (np.array([1.2] + [1.1, 1.3] * 500), 1.2, 0.1),  # NumAcc2
    (np.array([1000000.2] + [1000000.1, 1000000.3] * 500), 1000000.2, 0.1),  # NumAcc3
    (np.array([10000000.2] + [10000000.1, 10000000.3] * 500), 10000000.2, 0.1),  # NumAcc4
]


@pytest.mark.parametrize(("data", "mean", "deviation"), NIST, ids=["NumAcc1", "NumAcc2", "NumAcc3", "NumAcc4"])
def test_batch_statistics_keep_their_digits(data, mean, deviation, backend):
    _, found, var = kernels.batch_norm(data.astype(float)[:, None], np.ones(1), np.zeros(1), eps=0.0)
    np.testing.assert_allclose(found, mean, rtol=1e-14)
    np.testing.assert_allclose(np.sqrt(var * len(data) / (len(data) - 1)), deviation, rtol=1e-8)


def test_batch_norm_gradient_is_orthogonal_to_one_and_to_xhat(backend):
    rng = np.random.default_rng(4)
    x, g, ones = rng.standard_normal((50, 3)), rng.standard_normal((50, 3)), np.ones(3)
    xhat, mean, var = kernels.batch_norm(x, ones, 0 * ones, eps=0.0)
    dx, _, _ = kernels.batch_norm_grad(g, x, xhat, ones, mean=mean, var=var, eps=0.0, **LINEAR)
    np.testing.assert_allclose(dx.sum(0), 0, atol=1e-13)
    np.testing.assert_allclose((dx * xhat).sum(0), 0, atol=1e-13)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("name", ["sgd_", "rmsprop_", "adam_"])
def test_optimiser_kernels_agree_with_their_reference(name, averaged, size):
    rng = np.random.default_rng(5)
    slots = {"sgd_": 1, "rmsprop_": 1, "adam_": 2}[name]
    settings = {
        "sgd_": {"momentum": 0.9, "weight_decay": 0.01},
        "rmsprop_": {"alpha": 0.9, "eps": 1e-8},
        "adam_": {"beta1": 0.5, "beta2": 0.99, "eps": 1e-8, "step": 3},
    }[name]
    start = [rng.standard_normal(size) for _ in range(2)] + [rng.uniform(0.1, 1, size) for _ in range(slots)]
    results = {}
    for implementation in ("reference", "numba"):
        arrays = [a.copy() for a in start] + [start[0].copy() if averaged else np.empty(0)]
        with kernels.use(implementation):
            REGISTRY[name](*arrays, lr=0.01, decay=0.99, **settings)
        np.testing.assert_array_equal(arrays[1], start[1])  # the gradient is only read
        results[implementation] = arrays
    for a, b in zip(results["reference"], results["numba"], strict=True):
        np.testing.assert_array_equal(b, a)  # strict arithmetic in one order: the same bits


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fill", ["philox_bits_", "philox_uniform_", "philox_normal_"])
def test_random_bits_are_the_same_on_every_backend(fill, size):
    made = []
    for implementation in ("reference", "numba"):
        out = np.zeros(size, np.uint32 if fill == "philox_bits_" else np.float32)
        with kernels.use(implementation):
            REGISTRY[fill](out, seed=2**40 + 7, stream=3, step=5)
        made.append(out.tobytes())
    assert made[0] == made[1]


# --- the loops themselves ---------------------------------------------------------------------------------------------


PROGRAM = """
import hashlib, sys
import numpy as np
from minigan import kernels
rng = np.random.default_rng(0)
made = []
x = rng.standard_normal((40, 33, 31, 16)).astype(np.float32)  # beyond PARALLEL_WORK, so that threads share the loops
w = rng.standard_normal((4, 4, 16, 8)).astype(np.float32)
y = kernels.conv2d(x, w, stride=(2, 2), padding=(1, 1))
made += [y, kernels.conv2d_transpose(y, w, stride=(2, 2), padding=(1, 1), output_padding=(1, 1))]
made += [kernels.conv2d_weight_grad(x, y, kernel=(4, 4), stride=(2, 2), padding=(1, 1))]
z, mean, var = kernels.batch_norm(x, np.ones(16, np.float32), np.zeros(16, np.float32), eps=1e-5)
relu = {"activation": "relu", "slope": 0.0}
found = {"mean": mean, "var": var, "eps": 1e-5, **relu}
made += [z, mean, var, *kernels.batch_norm_grad(z, x, z, np.ones(16, np.float32), **found)]
made += [*kernels.batch_norm_grad_vjp(x, z, x, z, np.ones(16, np.float32), **found)]
made += [*kernels.bias_act_sums(x, z, **relu), kernels.matmul(x.reshape(-1, 33), x.reshape(33, -1)[:, :77])]
made += [kernels.bias_act(x, mean, activation="leaky_relu", slope=0.2)]
p, g, m, v, e = (np.abs(rng.standard_normal(700_001)).astype(np.float32) for _ in range(5))
kernels.adam_(p, g, m, v, e, lr=0.1, beta1=0.5, beta2=0.9, eps=1e-8, step=2, decay=0.9)
made += [p, m, v, e]
x, w = rng.standard_normal((40, 14, 14, 32)).astype(np.float32), rng.standard_normal((4, 4, 32, 48)).astype(np.float32)
y = kernels.conv2d(x, w, stride=(2, 2), padding=(1, 1))  # by Winograd's forms
made += [y, kernels.conv2d_transpose(y, w, stride=(2, 2), padding=(1, 1), output_padding=(0, 0))]
made += [kernels.conv2d_weight_grad(x, y, kernel=(4, 4), stride=(2, 2), padding=(1, 1))]
odd = rng.standard_normal((333, 33)).astype(np.float32)
made += [kernels.matmul(odd, odd.T), kernels.matmul(odd.T, odd), kernels.matmul(odd, odd[0, :, None])]
made += [np.float64(kernels.squared_norm(p))]
bits = np.empty(100_003, np.uint32)
kernels.philox_bits_(bits, seed=1, stream=2, step=3)
print(hashlib.sha256(b"".join(a.tobytes() for a in [*made, bits])).hexdigest())
"""


def run_program(program, **environment):
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_bits_do_not_depend_on_the_number_of_threads():
    hashes = {run_program(PROGRAM, NUMBA_NUM_THREADS=n) for n in ("1", "2", "5")}
    assert len(hashes) == 1
    assert all(len(h) == hashlib.sha256().digest_size * 2 for h in hashes)


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is glibc's")
def test_the_allocator_is_changed_by_the_command_line_alone():
    program = """
import ctypes, os
for name in [name for name in os.environ if name.startswith("MALLOC_")]:
    del os.environ[name]
changes = []
class Library:
    def __init__(self, real):
        self.real = real
    def __getattr__(self, name):
        return (lambda *numbers: changes.append(numbers)) if name == "mallopt" else getattr(self.real, name)
load = ctypes.CDLL
ctypes.CDLL = lambda name, *args, **kwargs: Library(load(name)) if name is None else load(name, *args, **kwargs)
import numpy as np
from minigan import kernels
kernels.matmul(np.ones((9, 9)), np.ones((9, 9)))
print(len(changes))
from minigan.cli.main import main
main(["no such command"])
print(len(changes))
kernels.keep_memory()
print(len(changes))
"""
    assert run_program(program).split() == ["0", "2", "2"]


def run_tests_again(names, files, cache, **environment):
    """Run the tests chosen by ``names`` in a process with other settings of the compiler."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", names, *files],
        env={**os.environ, **environment, "MINIGAN_SERIAL": "1", "NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


def test_loops_stay_inside_their_arrays(tmp_path):
    """The kernel tests again, compiled with bounds checks, for vectors of 32 bytes."""
    names = ("small_integers", "bias_act_matches", "batch_norm_matches", "optimiser_kernels", "random_bits", "matmul")
    bounds = {"NUMBA_BOUNDSCHECK": "1", "MINIGAN_VECTOR_BYTES": "32"}
    run_tests_again(f"({' or '.join(names)}) and not reference", [__file__], tmp_path, **bounds)


def test_kernels_are_right_with_narrower_vectors(tmp_path):
    """Machines without AVX-512 have other tiles: the tests of the products once more, compiled for theirs."""
    files = [__file__, os.path.join(os.path.dirname(__file__), "test_winograd.py")]
    names = "(small_integers or matmul) and not reference and not float64"
    run_tests_again(names, files, tmp_path, MINIGAN_VECTOR_BYTES="16")


def test_all_that_training_calls_is_compiled_ahead(tmp_path):
    """The process that compiles beside the first one leaves nothing out: a training run after it compiles nothing."""
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "MINIGAN_COMPILING": "1"}
    run_program("from minigan.kernels.warm import compile_kernels; compile_kernels()", **cache)
    done = subprocess.run(
        [sys.executable, "-m", "minigan", "train", "--steps", "1", "--out", str(tmp_path / "run")],
        env={**os.environ, **cache},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "compiling" not in done.stderr


def test_a_cold_start_compiles_in_two_processes_and_leaves_none_behind(tmp_path):
    program = """
from minigan.kernels.cpu import jit
started = []
class Process(jit.subprocess.Popen):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        started.append(self)
jit.subprocess.Popen = Process
import atexit
atexit.register(lambda: print(len(started), [p.poll() is None for p in started]))
from minigan.kernels.cpu.pool import leader; leader()
"""
    cache = {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert run_program(program, **cache) == "1 [False]"  # ended with its parent
    assert run_program(program, **cache) == "0 []"  # the cache is there


def test_kernels_run_where_nothing_can_be_cached(tmp_path):
    """Numba finds no folder to write to: kernels compile in the process instead of failing."""
    program = """
import numpy as np
import numba.core.caching as caching
caching.FunctionCache._impl_class._locator_classes = []
from minigan import kernels
x = np.float32([[-1, 2]])
print(kernels.bias_act(x, x[0], activation="relu", slope=0.0).tolist())
"""
    assert run_program(program) == "[[0.0, 4.0]]"


def test_the_first_compilation_is_announced_once(tmp_path):
    program = "import numpy as np; from minigan import kernels; x = np.ones((2, 2)); "
    program += "kernels.bias_act(x, x[0], activation='relu', slope=0.0); kernels.mean_loss(x, loss='linear')"
    for expected in (1, 0):  # the second process finds the cache of the first
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr.count("compiling the CPU kernels") == expected
        assert done.stdout == ""
