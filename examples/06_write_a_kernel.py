"""Write a CUDA kernel, break it five times, and read the reports of the emulated device: no GPU needed, only g++.

python examples/06_write_a_kernel.py
"""

import numpy as np

from minigan.kernels.gpu import emulator as cupy  # on a machine with a GPU: import cupy

# The softmax of every row of x (rows, n): one block a row, one thread a column, n a power of two up to 1,024.
# Threads of a block share memory, and wait for one another at __syncthreads(). Halves are added pairwise:
#
#     8 sums   a b c d e f g h        threads 0 to 3 add what lies 4 to the right, then 0 and 1 what lies 2 to the
#     4 sums   a+e b+f c+g d+h        right, then 0 alone: log₂ n rounds, with a barrier after each.
SOFTMAX = """extern "C" __global__ void softmax(const float* x, float* y, int n) {
    __shared__ float sums[1024];
    int column = threadIdx.x;
    float e = expf(x[blockIdx.x * n + column]);
    sums[column] = e;
    __syncthreads();
    for (int half = n / 2; half; half /= 2) {
        if (column < half) sums[column] += sums[column + half];
        __syncthreads();
    }
    y[blockIdx.x * n + column] = e / sums[0];
}
"""

BREAKS = {
    "the barrier inside the loop is left out": ("        __syncthreads();\n    }", "    }"),
    "only the threads that add wait": (
        "if (column < half) sums[column] += sums[column + half];\n        __syncthreads();",
        "if (column < half) { sums[column] += sums[column + half]; __syncthreads(); }",
    ),
    "every thread adds, not the first half": ("if (column < half) ", ""),
    "rows start one entry late": (
        "float e = expf(x[blockIdx.x * n + column]);",
        "float e = expf(x[blockIdx.x * n + column + 1]);",
    ),
    "one block's rows land on another's": ("y[blockIdx.x * n + column]", "y[column]"),
}


def run(source: str, x: np.ndarray, order: str = "forward") -> np.ndarray:
    """Compile the source, launch it on the rows of x and return what it wrote."""
    rows, n = x.shape
    kernel = cupy.RawModule(code=source).get_function("softmax")
    y = cupy.empty((rows, n), np.float32)  # on the device, and full of NaN until the kernel writes
    with cupy.order(order):
        kernel((rows,), (n,), (cupy.asarray(x), y, np.int32(n)))
    return y.get()


def main() -> dict[str, str]:
    """Print the results and the reports; return the reports by kind of break."""
    reason = cupy.missing_compiler()
    if reason:
        print(reason)
        return {}
    for number, line in enumerate(SOFTMAX.splitlines(), 1):
        print(f"{number:3}  {line}")
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    exact = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    for order in cupy.ORDERS:
        print(f"threads {order}: off by at most {np.abs(run(SOFTMAX, x, order) - exact).max():.1e}")
    reports = {}
    for what, (old, new) in BREAKS.items():
        broken = SOFTMAX.replace(old, new)
        assert broken != SOFTMAX
        try:
            run(broken, x)
            reports[what] = "nothing was noticed"
        except cupy.EmulationError as error:
            reports[what] = str(error)
        print(f"\nbroken: {what}\n  {reports[what]}")
    try:
        kernel = cupy.RawModule(code=SOFTMAX).get_function("softmax")
        kernel((3,), (64,), (cupy.asarray(x), cupy.empty((3, 64), np.float32), 64))
    except cupy.EmulationError as error:
        reports["a Python int for an int"] = str(error)
        print(f"\nbroken: a Python int for an int\n  {error}")
    return reports


if __name__ == "__main__":
    main()
