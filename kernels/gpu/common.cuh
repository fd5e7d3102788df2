// What all kernels share: positions, the grid-stride loop, and sums that come out the same every time.
//
// A grid is as large as the device likes; each thread takes every (number of threads)-th entry:
//
//     thread 0   thread 1   thread 2   thread 0   thread 1   ...
//     entry  0   entry  1   entry  2   entry  3   entry  4   ...
//
// so neighbours in a warp touch neighbours in memory, and a kernel is right for every size of grid.
#pragma once

typedef long long Size;  // positions have 64 bits: two billion entries are not many

#define FOR_EACH(i, n) \
    for (Size i = blockIdx.x * (Size)blockDim.x + threadIdx.x; i < (n); i += (Size)gridDim.x * blockDim.x)

// Sum a value over the threads of a block with the same threadIdx.x. All of them call this, and get the sum where
// threadIdx.y is 0. `space` holds one double for every thread. Halves are added pairwise, always in the same order.
__device__ __forceinline__ double sum_over_y(double value, double* space) {
    int here = threadIdx.y * blockDim.x + threadIdx.x;
    space[here] = value;
    __syncthreads();
    for (int half = blockDim.y / 2; half; half /= 2) {
        if (threadIdx.y < half) space[here] += space[here + half * blockDim.x];
        __syncthreads();
    }
    value = space[here];
    __syncthreads();  // before somebody uses the space again
    return value;
}

// Sum K quantities of each column over a band of rows of a (rows, columns) matrix.
//
// Launch shape: block (bx, by), bx · by = COLUMN_THREADS and by a power of two; grid (⌈columns / bx⌉, bands). Thread
// (x, y) takes rows y, y + by, … of its band in its column; `add(row, column, sums)` adds one entry's part. The sums of
// band b go to partial[k, b, column], (K, bands, columns), for add_bands.
#define COLUMN_THREADS 256

template <int K, class Add>
__device__ __forceinline__ void column_sums(Size rows, Size columns, Size band, double* __restrict__ partial, Add add) {
    __shared__ double space[COLUMN_THREADS];
    Size column = blockIdx.x * (Size)blockDim.x + threadIdx.x;
    Size first = blockIdx.y * band, last = first + band < rows ? first + band : rows;
    double sums[K] = {};
    if (column < columns)
        for (Size row = first + threadIdx.y; row < last; row += blockDim.y) add(row, column, sums);
    for (int k = 0; k < K; k++) {
        double total = sum_over_y(sums[k], space);
        if (threadIdx.y == 0 && column < columns) partial[(k * (Size)gridDim.y + blockIdx.y) * columns + column] = total;
    }
}

// Σ over bands of partial[k, band, column], in order.
__device__ __forceinline__ double add_bands(const double* __restrict__ partial, int k, Size bands, Size columns, Size column) {
    double total = 0;
    for (Size band = 0; band < bands; band++) total += partial[(k * bands + band) * columns + column];
    return total;
}

// y = act(v); the numbers are positions in ACTIVATIONS of bias_act.py.
enum { LINEAR, RELU, LEAKY_RELU, TANH, SIGMOID };

template <class T>
__device__ __forceinline__ T activate(T v, int activation, T slope) {
    if (activation == TANH) return tanh(v);
    if (activation == SIGMOID) {
        T e = exp(v < 0 ? v : -v);
        return (v < 0 ? e : T(1)) / (1 + e);
    }
    if (activation == LINEAR || v > 0) return v;
    if (activation == RELU || slope == 0) return v <= 0 ? T(0) : v;  // a NaN stays one, −∞ gives 0
    return slope * v;
}

// g · dy/dv through y = act(v) alone.
template <class T>
__device__ __forceinline__ T activate_grad(T g, T y, int activation, T slope) {
    if (activation == LINEAR) return g;
    if (activation == TANH) return g * (1 - y * y);
    if (activation == SIGMOID) return g * (y * (1 - y));
    if (activation == RELU || slope == 0) return y <= 0 ? T(0) : g;  // at NaN g passes
    return y > 0 ? g : slope * g;
}
