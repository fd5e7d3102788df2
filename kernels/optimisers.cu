// One step of an optimiser and of the moving average of what it optimises: the kernels of optimisers.py, with its formulas.
//
// All arrays are flat, of n entries; each thread reads and writes its own i of all of them. The learning rate and the
// number of the step are read from device memory, so that a captured training step sees what they are by then. An array
// that is not used is passed with its flag false, and not touched.

#include "common.cuh"

typedef unsigned long long Word;

template <class T>
__device__ __forceinline__ void average(T* ema, Size i, T p, bool with_ema, double decay) {
    if (with_ema) ema[i] += T(1 - decay) * (p - ema[i]);
}

// Launch shape: any grid of one dimension.
template <class T>
__global__ void sgd(T* __restrict__ p, const T* __restrict__ g, T* __restrict__ u, T* __restrict__ ema, Size n,
                    const double* __restrict__ lr, double momentum, double weight_decay, double decay, bool with_u,
                    bool with_ema) {
    T rate = T(lr[0]);
    FOR_EACH(i, n) {
        T d = g[i] + T(weight_decay) * p[i];
        if (with_u) u[i] = d = T(momentum) * u[i] + d;
        p[i] -= rate * d;
        average(ema, i, p[i], with_ema, decay);
    }
}

// Launch shape: any grid of one dimension.
template <class T>
__global__ void rmsprop(T* __restrict__ p, const T* __restrict__ g, T* __restrict__ v, T* __restrict__ ema, Size n,
                        const double* __restrict__ lr, double alpha, double eps, double decay, bool with_ema) {
    T rate = T(lr[0]);
    FOR_EACH(i, n) {
        v[i] = T(alpha) * v[i] + T(1 - alpha) * g[i] * g[i];
        p[i] -= rate * g[i] / (sqrt(v[i]) + T(eps));
        average(ema, i, p[i], with_ema, decay);
    }
}

// Launch shape: any grid of one dimension.
template <class T>
__global__ void adam(T* __restrict__ p, const T* __restrict__ g, T* __restrict__ m, T* __restrict__ v,
                     T* __restrict__ ema, Size n, const double* __restrict__ lr, const Word* __restrict__ step,
                     double beta1, double beta2, double eps, double decay, bool with_ema) {
    T rate = T(lr[0] / (1 - pow(beta1, (double)step[0]))), root = T(sqrt(1 - pow(beta2, (double)step[0])));
    FOR_EACH(i, n) {
        m[i] = T(beta1) * m[i] + T(1 - beta1) * g[i];
        v[i] = T(beta2) * v[i] + T(1 - beta2) * g[i] * g[i];
        p[i] -= rate * m[i] / (sqrt(v[i]) / root + T(eps));
        average(ema, i, p[i], with_ema, decay);
    }
}

// Σ g² in bands of a (n, 1) matrix: launch shape and partial (1, bands, 1) are those of column_sums.
template <class T>
__global__ void squares(const T* __restrict__ g, double* __restrict__ partial, Size rows, Size columns, Size band) {
    column_sums<1>(rows, columns, band, partial,
                   [&](Size row, Size, double* sums) { sums[0] += (double)g[row] * (double)g[row]; });
}

// out[0] = Σ_bands partial. Launch shape: one thread.
__global__ void add_squares(const double* __restrict__ partial, double* __restrict__ out, Size bands) {
    out[0] = add_bands(partial, 0, bands, 1, 0);
}
