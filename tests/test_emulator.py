"""The emulated device: right programs run as on a GPU, wrong ones are caught, each with its line."""

from __future__ import annotations

import re

import numpy as np
import pytest

from minigan.kernels.gpu import emulator as cp

if cp.missing_compiler():
    pytest.skip(cp.missing_compiler(), allow_module_level=True)

GOOD = """
extern "C" __global__ void axpy(float a, const float* x, float* y, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) y[i] = fmaf(a, x[i], y[i]);
}

template <class T, int TILE>
__global__ void product(const T* a, const T* b, T* c, int m, int n, int k) {
    __shared__ T as[TILE][TILE + 1], bs[TILE][TILE + 1];
    int row = blockIdx.y * TILE + threadIdx.y, column = blockIdx.x * TILE + threadIdx.x;
    T sum = 0;
    for (int k0 = 0; k0 < k; k0 += TILE) {
        as[threadIdx.y][threadIdx.x] = row < m && k0 + threadIdx.x < k ? a[row * k + k0 + threadIdx.x] : T(0);
        bs[threadIdx.y][threadIdx.x] = column < n && k0 + threadIdx.y < k ? b[(k0 + threadIdx.y) * n + column] : T(0);
        __syncthreads();
        for (int i = 0; i < TILE; i++) sum += as[threadIdx.y][i] * bs[i][threadIdx.x];
        __syncthreads();
    }
    if (row < m && column < n) c[row * n + column] = sum;
}

__device__ __forceinline__ float warp_sum(float v) {
    for (int apart = 16; apart; apart /= 2) v += __shfl_down_sync(0xffffffffu, v, apart);
    return v;
}

extern "C" __global__ void total(const float* x, float* out, int n) {
    __shared__ float parts[32];
    float v = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) v += x[i];
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
    __syncthreads();
    if (threadIdx.x < 32) {
        v = warp_sum(threadIdx.x < (blockDim.x + 31) / 32 ? parts[threadIdx.x] : 0.f);
        if (threadIdx.x == 0) atomicAdd(out, v);
    }
}

extern "C" __global__ void reverse_rows(const float* x, float* y, int columns) {
    extern __shared__ float row[];
    const float* from = x + (long long)blockIdx.x * columns;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) row[i] = from[i];
    __syncthreads();
    for (int i = threadIdx.x; i < columns; i += blockDim.x) y[blockIdx.x * columns + i] = row[columns - 1 - i];
}

extern "C" __global__ void lanes(int* out) {
    int l = threadIdx.x, all = 0xffffffff;
    out[l] = __shfl_xor_sync(all, l, 1);
    out[32 + l] = __shfl_up_sync(all, l, 3);
    out[64 + l] = __shfl_sync(all, l, 5, 8);
    out[96 + l] = (int)__ballot_sync(all, l % 3 == 0);
    out[128 + l] = __any_sync(all, l == 7) + 2 * __all_sync(all, l < 32) + 4 * __all_sync(all, l < 31);
    if (l & 1)
        out[160 + l] = __shfl_xor_sync(0xaaaaaaaau, l, 2);
    else
        out[160 + l] = __shfl_xor_sync(0x55555555u, l, 2);
    out[192 + l] = __syncthreads_count(l < 10);
}

__constant__ float weights[3] = {1.f, 2.f, 4.f};
extern "C" __global__ void weighted(float* y) { y[threadIdx.x] = weights[threadIdx.x]; }

extern "C" __global__ void neighbours(const float* x, float* y) {  // ordered by __syncwarp alone
    __shared__ float s[64];
    s[threadIdx.x] = x[threadIdx.x];
    __syncwarp();
    float v = s[threadIdx.x ^ 1];
    __syncwarp();
    s[threadIdx.x] = 2 * v;
    y[threadIdx.x] = s[threadIdx.x];
}
"""
MODULE = cp.RawModule(code=GOOD, name_expressions=("product<float, 16>", "product<double, 8>"))
rng = np.random.default_rng(0)


@pytest.fixture(params=cp.ORDERS)
def order(request):
    with cp.order(request.param, seed=7):
        yield request.param


def normal(*shape, dtype=np.float32):
    return rng.standard_normal(shape).astype(dtype)


# --- right programs ---------------------------------------------------------------------------------------------------


def test_a_grid_stride_loop(order):
    x, y = normal(1007), normal(1007)
    on_x, on_y = cp.asarray(x), cp.asarray(y)
    MODULE.get_function("axpy")((3,), (64,), (np.float32(2), on_x, on_y, np.int32(1007)))
    np.testing.assert_allclose(on_y.get(), 2 * x + y, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "tile", "dtype"), [("float, 16", 16, np.float32), ("double, 8", 8, np.float64)])
@pytest.mark.parametrize(("m", "n", "k"), [(32, 32, 32), (33, 20, 19)])
def test_a_tiled_product(order, name, tile, dtype, m, n, k):
    a, b, c = normal(m, k, dtype=dtype), normal(k, n, dtype=dtype), cp.empty((m, n), dtype)
    sizes = tuple(map(np.int32, (m, n, k)))
    grid = -(-n // tile), -(-m // tile)
    MODULE.get_function(f"product<{name}>")(grid, (tile, tile), (cp.asarray(a), cp.asarray(b), c, *sizes))
    np.testing.assert_allclose(c.get(), a @ b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("threads", [32, 96, 1024])
def test_a_sum_by_shuffles(order, threads):
    x, out = normal(5001), cp.zeros(1, np.float32)
    MODULE.get_function("total")((1,), (threads,), (cp.asarray(x), out, np.int32(5001)))
    assert float(out[0]) == pytest.approx(x.sum(dtype=np.float64), abs=1e-3)


def test_dynamic_shared_memory(order):
    x, y = normal(3, 77), cp.empty((3, 77), np.float32)
    MODULE.get_function("reverse_rows")((3,), (32,), (cp.asarray(x), y, np.int32(77)), shared_mem=77 * 4)
    np.testing.assert_array_equal(y.get(), x[:, ::-1])


def test_votes_and_shuffles(order):
    out = cp.empty(224, np.int32)
    MODULE.get_function("lanes")((1,), (32,), (out,))
    found, lane = out.get().reshape(7, 32), np.arange(32)
    np.testing.assert_array_equal(found[0], lane ^ 1)
    np.testing.assert_array_equal(found[1], np.where(lane < 3, lane, lane - 3))
    np.testing.assert_array_equal(found[2], lane // 8 * 8 + 5)
    np.testing.assert_array_equal(found[3].view(np.uint32), sum(1 << i for i in range(0, 32, 3)))
    np.testing.assert_array_equal(found[4], 3)
    np.testing.assert_array_equal(found[5], lane ^ 2)
    np.testing.assert_array_equal(found[6], 10)


def test_constants_and_order_within_a_warp(order):
    y = cp.empty(3, np.float32)
    MODULE.get_function("weighted")((1,), (3,), (y,))
    np.testing.assert_array_equal(y.get(), [1, 2, 4])
    x, z = normal(64), cp.empty(64, np.float32)
    MODULE.get_function("neighbours")((1,), (64,), (cp.asarray(x), z))
    np.testing.assert_array_equal(z.get(), 2 * x.reshape(-1, 2)[:, ::-1].reshape(-1))


# --- planted bugs: (what must be said, kernel source, grid, block, arguments) -----------------------------------------


def floats(n):
    return cp.asarray(np.arange(n, dtype=np.float32))


BUGS = {
    "missing barrier": (
        "race in shared memory: reads what|reads shared memory that no thread has written",
        "__shared__ float s[64]; s[threadIdx.x] = x[threadIdx.x]; y[threadIdx.x] = s[63 - threadIdx.x];",
    ),
    "missing barrier before the next round": (
        "race in shared memory: (reads|overwrites) what thread",
        "__shared__ float s[64]; for (int r = 0; r < 2; r++) { s[threadIdx.x] = x[threadIdx.x] + r; __syncthreads();"
        " y[threadIdx.x] = s[63 - threadIdx.x]; }",
    ),
    "two writers of one shared word": (
        "race in shared memory: overwrites what thread",
        "__shared__ float s[1]; s[0] = x[threadIdx.x]; __syncthreads(); y[threadIdx.x] = s[0];",
    ),
    "divergent barriers": (
        "divergent barrier: line",
        "if (threadIdx.x < 32) {\n__syncthreads();\n y[threadIdx.x] = 1; }"
        " else {\n__syncthreads();\n y[threadIdx.x] = 2; }",
    ),
    "a barrier that some never reach": (
        "deadlock: .*waits in line",
        "if (threadIdx.x < 16) y[threadIdx.x] = __shfl_down_sync(0xffffffffu, x[0], 1); else __syncthreads();",
    ),
    "lanes that disagree about the mask": (
        "divergent warp collective",
        "y[threadIdx.x] = threadIdx.x % 2 ? __shfl_sync(0xffffffffu, x[0], 0) : __shfl_sync(0x55555555u, x[0], 0);",
    ),
    "a lane outside of its own mask": (
        "not in its own mask",
        "y[threadIdx.x] = __shfl_sync(2u, x[threadIdx.x], 1);",
    ),
    "reading past the end": (
        r"reads 4 bytes at entry 64 of x \(float32, 64 entries\)",
        "y[threadIdx.x] = x[threadIdx.x + 1];",
    ),
    "reading before the start": ("reads 4 bytes at entry -1 of x", "y[threadIdx.x] = x[(int)threadIdx.x - 1];"),
    "writing past the end": (
        r"writes 4 bytes at entry 64 of y \(float32, 64 entries\)",
        "y[threadIdx.x + 1] = x[threadIdx.x];",
    ),
    "a vector past the end": (
        r"reads \d+ bytes at entry \d+ of x \(float32, 64 entries\)",
        "float4 v = ((const float4*)x)[threadIdx.x]; y[threadIdx.x] = v.x + v.y + v.z + v.w;",
    ),
    "an address from nowhere": ("belongs to no argument", "y[threadIdx.x] = *(const float*)(16 + 4 * threadIdx.x);"),
    "past a shared array": (
        "index 64 is outside of the array",
        "__shared__ float s[64], t[64]; t[threadIdx.x] = 0; s[threadIdx.x + 1] = x[threadIdx.x]; __syncthreads();"
        " y[threadIdx.x] = s[threadIdx.x] + t[threadIdx.x];",
    ),
    "past dynamic shared memory": (
        "writes 4 bytes beyond the 0 of dynamic shared memory",
        "extern __shared__ float s[]; s[threadIdx.x] = x[threadIdx.x]; __syncthreads();"
        " y[threadIdx.x] = s[threadIdx.x];",
    ),
    "shared memory that nobody wrote": (
        "reads shared memory that no thread has written",
        "__shared__ float s[64]; if (threadIdx.x) s[threadIdx.x] = 1; __syncthreads();"
        " y[threadIdx.x] = s[threadIdx.x];",
    ),
    "an output read before it is written": (
        r"reads entry \d+ of y .*, which nothing has written",
        "y[threadIdx.x] += x[threadIdx.x];",
    ),
    "two blocks write one entry": (
        "race between blocks: writes entry 0 of y",
        "if (threadIdx.x == 0) y[0] = x[blockIdx.x];",
    ),
    "a block reads what another wrote": (
        "race between blocks|reads entry 0 of y .*, which nothing has written",
        "y[blockIdx.x * 32 + threadIdx.x % 32] = 1; if (blockIdx.x) y[32 + threadIdx.x % 32] = y[0];",
    ),
    "a failed assertion": (r"assert\(threadIdx.x < 3\) failed in line", "assert(threadIdx.x < 3); y[threadIdx.x] = 0;"),
    "a trap": (r"__trap\(\) in line", "if (x[0] == 0) __trap(); y[threadIdx.x] = 0;"),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_caught(bug, order):
    words, body = BUGS[bug]
    code = f'extern "C" __global__ void planted(const float* x, float* y) {{\n{body}\n}}'
    kernel = cp.RawModule(code=code).get_function("planted")
    with pytest.raises(cp.EmulationError, match=words) as caught:
        kernel((2 if "block" in bug else 1,), (64,), (floats(64), cp.empty(64, np.float32)))
    assert re.search(r"^planted", str(caught.value))
    assert re.search(r"block \(\d+, 0, 0\)", str(caught.value))


def test_a_report_names_the_line():
    code = (
        'extern "C" __global__ void planted(const float* x, float* y) {\n  int i = threadIdx.x;\n  y[i] = x[i + 1];\n}'
    )
    with pytest.raises(cp.EmulationError, match=r"planted, kernel.cu line 3: thread \(3, 0, 0\) of block \(0, 0, 0\)"):
        cp.RawModule(code=code).get_function("planted")((1,), (4,), (floats(4), cp.empty(4, np.float32)))


WRONG = {
    "a Python float": ("argument 0 .a. is float32, not float64 .a Python float", lambda x: (2.0, x, x, np.int32(4))),
    "a Python int": ("argument 3 .n. is int32, not int64", lambda x: (np.float32(2), x, x, 4)),
    "another dtype": (
        "argument 1 .x. points to float32, not float64",
        lambda x: (np.float32(2), cp.zeros(4), x, np.int32(4)),
    ),
    "too few": ("takes 4 arguments, not 3", lambda x: (np.float32(2), x, x)),
    "a host array": ("wants a device array, not ndarray", lambda x: (np.float32(2), np.zeros(4, "f"), x, np.int32(4))),
    "strides": ("argument 1 .x. is not contiguous", lambda x: (np.float32(2), floats(8)[::2], x, np.int32(4))),
    "an array for a number": ("argument 0 .a. is float32, not ndarray", lambda x: (x, x, x, np.int32(4))),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_arguments_are_refused(wrong):
    words, arguments = WRONG[wrong]
    with pytest.raises(cp.EmulationError, match=words):
        MODULE.get_function("axpy")((1,), (4,), arguments(floats(4)))


@pytest.mark.parametrize(
    ("grid", "block", "shared", "words"),
    [
        ((1,), (1025,), 0, "1 to 1,024 threads"),
        ((0,), (32,), 0, "at least 1"),
        ((1, 70000), (32,), 0, "65,535"),
        ((1,), (32,), 50_000, "max_dynamic_shared_size_bytes"),
    ],
)
def test_wrong_launches_are_refused(grid, block, shared, words):
    x = floats(4)
    with pytest.raises(cp.EmulationError, match=words):
        MODULE.get_function("axpy")(grid, block, (np.float32(2), x, x, np.int32(4)), shared_mem=shared)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("x[0] = undefined(1.f);", "undefined"),
        ("x[0] = INFINITY;", "INFINITY"),
        ("int32_t i = 0; x[i] = 1;", "int32_t"),
    ],
)
def test_source_that_nvrtc_refuses_is_refused(code, words):
    with pytest.raises(cp.CompileException, match=words):
        cp.RawModule(code=f'extern "C" __global__ void k(float* x) {{ {code} }}').get_function("k")(
            (1,), (1,), (floats(1),)
        )


def test_an_unknown_kernel_is_refused():
    with pytest.raises(cp.CUDADriverError, match="axpby"):
        MODULE.get_function("axpby")


# --- arrays -----------------------------------------------------------------------------------------------------------


def test_host_and_device_do_not_mix():
    d, h = cp.ones((2, 2), np.float32), np.ones((2, 2), np.float32)
    for mix in (
        lambda: np.asarray(d),
        lambda: d + h,
        lambda: h + d,
        lambda: cp.exp(h),
        lambda: cp.concatenate([d, h]),
        lambda: d.__setitem__(0, h[0]),
    ):
        with pytest.raises(TypeError):
            mix()


def test_arithmetic_stays_on_the_device():
    d = cp.asarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    for x in (d + 1, 1 - d, d @ d.T, np.exp(d), cp.exp(d), d.sum(0), d[0], d[d > 2], d.reshape(3, 2), np.zeros_like(d)):
        assert isinstance(x, cp.ndarray)
    d += d
    d[0, 1] = 7
    np.testing.assert_array_equal(d.get(), [[0, 7, 4], [6, 8, 10]])
    view = d.reshape(-1)
    view[0] = 9
    assert float(d[0, 0]) == 9


def test_new_memory_is_poison_and_results_are_not():
    assert np.isnan(cp.empty(3, np.float32).get()).all()
    x = cp.empty(4, np.float32)
    x[1:3] = 1
    assert x.written().tolist() == [[0] * 4, [1] * 4, [1] * 4, [0] * 4]
    assert (x[1:3] * 2).written().all()


# --- graphs -----------------------------------------------------------------------------------------------------------


def test_a_captured_graph_does_nothing_until_it_is_launched():
    x, y = cp.asarray(normal(8)), cp.zeros(8, np.float32)
    kernel = MODULE.get_function("axpy")
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        kernel((1,), (8,), (np.float32(3), x, y, np.int32(8)))
        doubled = y * 2
        y += 1
        graph = stream.end_capture()
    np.testing.assert_array_equal(y.get(), 0)
    assert np.isnan(doubled.get()).all()
    first = x.get()
    graph.launch(stream)
    stream.synchronize()
    np.testing.assert_allclose(doubled.get(), 6 * first, rtol=1e-6)
    x[...] = 1.0
    y[...] = 0.0
    graph.launch()
    np.testing.assert_array_equal(doubled.get(), 6)
    np.testing.assert_array_equal(y.get(), 4)


@pytest.mark.parametrize("wait", ["synchronize", "event", "device", "on the stream itself"])
def test_what_a_stream_apart_makes_is_there_for_those_who_wait(wait):
    x = cp.zeros(4)
    stream, host = cp.cuda.Stream(non_blocking=True), np.ones(4)
    with stream:
        y = x + 1
        x += 5
        x.set(host)
        y *= 2
        z = cp.stack([x, y])
    host[:] = 7
    np.testing.assert_array_equal(x.get(), 0)
    assert np.isnan(y.get()).all()
    assert np.isnan(z.get()).all()
    if wait == "synchronize":
        stream.synchronize()
    elif wait == "event":
        cp.cuda.Stream.null.wait_event(stream.record())
    elif wait == "device":
        cp.cuda.runtime.deviceSynchronize()
    else:
        with stream:
            z.get()
    np.testing.assert_array_equal(z.get(), [[1] * 4, [2] * 4])


def test_the_host_may_not_look_while_a_stream_captures():
    x = cp.ones(3)
    stream = cp.cuda.Stream()
    with stream:
        stream.begin_capture()
        for look in (
            lambda: float(x.sum()),
            lambda: x.get(),
            lambda: bool((x > 0).all()),
            lambda: cp.asarray(np.ones(3)),
            stream.synchronize,
        ):
            with pytest.raises(cp.CUDARuntimeError, match="captures"):
                look()
        stream.end_capture()
    with pytest.raises(cp.CUDARuntimeError, match="null stream"):
        cp.cuda.Stream.null.begin_capture()
    with pytest.raises(cp.CUDARuntimeError, match="does not capture"):
        stream.end_capture()
