// y = act(x + b) in one pass over memory, and its derivative through y: the kernels of bias_act.py.
//
//     bias_act         y[i] = act(x[i] + b[i mod C])
//     bias_act_grad    dv[i] = g[i] · act'(v)[i]
//     bias_act_sums    the same, and Σ_rows dv: in one pass, a partial sum for each band of rows; then add_columns
//
// x, y, g, dv are (rows, C) with n = rows · C entries; b is (C,).

#include "common.cuh"

// Launch shape: any grid of one dimension. Each thread reads x[i], b[i mod C] and writes y[i], for its own i.
template <class T>
__global__ void bias_act(const T* __restrict__ x, const T* __restrict__ b, T* __restrict__ y, Size n, Size channels,
                         bool with_b, int activation, T slope) {
    FOR_EACH(i, n) y[i] = activate(with_b ? x[i] + b[i % channels] : x[i], activation, slope);
}

// Launch shape: any grid of one dimension. Each thread reads g[i], y[i] and writes dv[i], for its own i.
template <class T>
__global__ void bias_act_grad(const T* __restrict__ g, const T* __restrict__ y, T* __restrict__ dv, Size n,
                              int activation, T slope) {
    FOR_EACH(i, n) dv[i] = activate_grad(g[i], y[i], activation, slope);
}

// Launch shape: that of column_sums. A block reads g and y of its band and columns and writes the same places of dv;
// partial is (1, bands, C).
template <class T>
__global__ void bias_act_sums(const T* __restrict__ g, const T* __restrict__ y, T* __restrict__ dv,
                              double* __restrict__ partial, Size rows, Size channels, Size band, int activation, T slope) {
    column_sums<1>(rows, channels, band, partial, [&](Size row, Size c, double* sums) {
        Size i = row * channels + c;
        T value = activate_grad(g[i], y[i], activation, slope);
        dv[i] = value;
        sums[0] += value;
    });
}

// out[c] = Σ_bands partial[0, band, c]. Launch shape: any grid of one dimension over columns.
template <class T>
__global__ void add_columns(const double* __restrict__ partial, T* __restrict__ out, Size bands, Size channels) {
    FOR_EACH(c, channels) out[c] = T(add_bands(partial, 0, bands, channels, c));
}
