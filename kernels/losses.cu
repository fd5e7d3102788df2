// The mean of a pointwise loss over logits and its slope: the kernels of losses.py, which has the table of formulas.
//
//     mean_loss    value = (1/n) Σ φ(s_i),  slope_i = φ'(s_i)/n
//
// Logits are few, one a sample. One block does all: each thread adds up every (number of threads)-th φ(s_i) in double,
// and the block's sums are added pairwise, so that the order is always the same.

#include "common.cuh"

enum { SOFTPLUS, SOFTPLUS_NEG, SQUARE, SQUARE_TO_ONE, HINGE_FAKE, HINGE_REAL, LINEAR_LOSS };

// φ(t), and φ'(t) in `slope`. σ is never formed and then logged: log1p(e^−|v|) has no overflow and loses no digits.
__device__ __forceinline__ double pointwise(int loss, double t, double& slope) {
    if (loss <= SOFTPLUS_NEG) {
        double v = loss == SOFTPLUS ? t : -t, e = exp(v < 0 ? v : -v), p = (v < 0 ? e : 1.0) / (1 + e);
        slope = loss == SOFTPLUS ? p : -p;
        return v == v ? (v > 0 ? v : 0.0) + log1p(e) : v;
    }
    if (loss <= SQUARE_TO_ONE) {
        slope = loss == SQUARE ? t : t - 1;
        return 0.5 * slope * slope;
    }
    if (loss <= HINGE_REAL) {
        double sign = loss == HINGE_FAKE ? 1 : -1, margin = 1 + sign * t;
        slope = margin <= 0 ? 0 : sign;
        return margin <= 0 ? 0.0 : margin;
    }
    slope = 1;
    return t;
}

// Launch shape: one block (1, COLUMN_THREADS). Reads s (n,), writes slope (n,) and value (1,).
template <class T>
__global__ void mean_loss(const T* __restrict__ s, T* __restrict__ value, T* __restrict__ slope, Size n, int loss) {
    __shared__ double space[COLUMN_THREADS];
    double total = 0;
    for (Size i = threadIdx.y; i < n; i += blockDim.y) {
        double d;
        total += pointwise(loss, s[i], d);
        slope[i] = T(d / n);
    }
    total = sum_over_y(total, space);
    if (threadIdx.y == 0) value[0] = T(total / n);
}
