// Products of matrices: the kernels of matmul.py.
//
//     product     Y = act(X W + b)          one kernel, or
//     product     parts of Σ_k in a workspace, then add_parts   where Y is small and the sum long
//
// X (M, K) and W (K, N) are given with their strides, so that a transposed view is read where it lies; one stride of each
// is 1. Y (M, N) is in order.

#include "gemm.cuh"

// Launch shape: grid (⌈N/64⌉, ⌈M/64⌉, parts), block GEMM_THREADS. A block reads 64 rows of X, 64 columns of W and writes
// its tile of Y: of part blockIdx.z where parts > 1, each (M, N) and the sum over `depth` of the k, without act and b.
template <class T, bool TF32, bool X_FAST, bool W_FAST>
__global__ void __launch_bounds__(GEMM_THREADS, GEMM_BLOCKS<T>)
product(const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ b, T* __restrict__ y, Size m, Size n,
        Size k, Size x_row, Size x_column, Size w_row, Size w_column, Size depth, bool with_b, int activation, T slope) {
    Matrix<T, X_FAST> left{x, m, x_row, x_column};
    Matrix<T, W_FAST> right{w, n, w_column, w_row};
    Size first = blockIdx.z * depth, last = first + depth < k ? first + depth : k;
    T* part = y + blockIdx.z * m * n;
    gemm<TF32, T>(left, right, blockIdx.y * (Size)TILE, blockIdx.x * (Size)TILE, Extent{m, n, first, last},
                  [&](Size i, Size j, T value) {
                      part[i * n + j] = activate(with_b ? value + b[j] : value, activation, slope);
                  });
}

// out[i] = Σ_parts part[p, i], in order. Launch shape: any grid of one dimension over the n entries of out.
template <class T>
__global__ void add_parts(const T* __restrict__ part, T* __restrict__ out, Size n, Size parts) {
    FOR_EACH(i, n) {
        T total = 0;
        for (Size p = 0; p < parts; p++) total += part[p * n + i];
        out[i] = total;
    }
}
