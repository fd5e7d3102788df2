// Batch normalisation and its gradients: the kernels of batch_norm.py, which derives the formulas.
//
//     moments, finish_moments     μ, v of every channel;  scale = γ r, shift = β − μ γ r  with r = 1/√(v + ε)
//     normalise                   y = act(scale · x + shift)
//     grad_sums, finish_grad      dβ = Σ g,  dγ = Σ g x̂                                   g times act' first
//     input_grad                  dx = γ r (g − dβ/N − x̂ dγ/N)
//     vjp_sums, finish_vjp, vjp   the cotangents (dg, dx, dγ) of input_grad for a cotangent u of its dx
//
// x, y, g, u are (N, C). Sums are column_sums: bands of rows in one kernel, their sum in the next, so that no atomic
// addition makes the result depend on the order in which blocks happen to run. Sums are taken in double; those of the
// moments about the first row, so that a large mean costs no digits.

#include "common.cuh"

// Launch shape: that of column_sums. Reads a band of x and row 0; partial is (2, bands, C): Σ (x − x₀), Σ (x − x₀)².
template <class T>
__global__ void moments(const T* __restrict__ x, double* __restrict__ partial, Size rows, Size channels, Size band) {
    column_sums<2>(rows, channels, band, partial, [&](Size row, Size c, double* sums) {
        double d = (double)x[row * channels + c] - (double)x[c];
        sums[0] += d;
        sums[1] += d * d;
    });
}

// Launch shape: any grid of one dimension over channels.
template <class T>
__global__ void finish_moments(const double* __restrict__ partial, const T* __restrict__ x, const T* __restrict__ gamma,
                               const T* __restrict__ beta, T* __restrict__ mean, T* __restrict__ var,
                               T* __restrict__ scale, T* __restrict__ shift, Size rows, Size bands, Size channels,
                               double eps) {
    FOR_EACH(c, channels) {
        double first = add_bands(partial, 0, bands, channels, c) / rows;
        double second = add_bands(partial, 1, bands, channels, c) / rows - first * first;
        double mu = (double)x[c] + first, v = second > 0 ? second : (second == second ? 0 : second), r = 1 / sqrt(v + eps);
        mean[c] = T(mu), var[c] = T(v);
        scale[c] = T(gamma[c] * r), shift[c] = T(beta[c] - mu * gamma[c] * r);
    }
}

// Launch shape: any grid of one dimension. Each thread reads x[i], scale and shift of its channel and writes y[i].
template <class T>
__global__ void normalise(const T* __restrict__ x, const T* __restrict__ scale, const T* __restrict__ shift,
                          T* __restrict__ y, Size n, Size channels, int activation, T slope) {
    FOR_EACH(i, n) {
        Size c = i % channels;
        y[i] = activate(x[i] * scale[c] + shift[c], activation, slope);
    }
}

// Launch shape: that of column_sums. Reads bands of g, x, y; partial is (2, bands, C): Σ g, Σ g x̂.
template <class T>
__global__ void grad_sums(const T* __restrict__ g, const T* __restrict__ x, const T* __restrict__ y,
                          const T* __restrict__ mean, const T* __restrict__ r, double* __restrict__ partial, Size rows,
                          Size channels, Size band, int activation, T slope) {
    column_sums<2>(rows, channels, band, partial, [&](Size row, Size c, double* sums) {
        Size i = row * channels + c;
        T value = activate_grad(g[i], y[i], activation, slope);
        sums[0] += value;
        sums[1] += value * ((x[i] - mean[c]) * r[c]);
    });
}

// Launch shape: any grid of one dimension over channels.
template <class T>
__global__ void finish_grad(const double* __restrict__ partial, T* __restrict__ dgamma, T* __restrict__ dbeta,
                            Size bands, Size channels) {
    FOR_EACH(c, channels) {
        dbeta[c] = T(add_bands(partial, 0, bands, channels, c));
        dgamma[c] = T(add_bands(partial, 1, bands, channels, c));
    }
}

// Launch shape: any grid of one dimension. Each thread reads g[i], x[i], y[i] and writes dx[i].
template <class T>
__global__ void input_grad(const T* __restrict__ g, const T* __restrict__ x, const T* __restrict__ y,
                           const T* __restrict__ mean, const T* __restrict__ r, const T* __restrict__ gamma,
                           const T* __restrict__ dgamma, const T* __restrict__ dbeta, T* __restrict__ dx, Size rows,
                           Size channels, int activation, T slope) {
    FOR_EACH(i, rows * channels) {
        Size c = i % channels;
        T value = activate_grad(g[i], y[i], activation, slope), xhat = (x[i] - mean[c]) * r[c];
        dx[i] = gamma[c] * r[c] * (value - dbeta[c] / rows - xhat * (dgamma[c] / rows));
    }
}

// Launch shape: that of column_sums. partial is (5, bands, C): Σ u, Σ u x̂, Σ g, Σ g x̂, Σ u g.
template <class T>
__global__ void vjp_sums(const T* __restrict__ u, const T* __restrict__ g, const T* __restrict__ x,
                         const T* __restrict__ y, const T* __restrict__ mean, const T* __restrict__ r,
                         double* __restrict__ partial, Size rows, Size channels, Size band, int activation, T slope) {
    column_sums<5>(rows, channels, band, partial, [&](Size row, Size c, double* sums) {
        Size i = row * channels + c;
        double value = activate_grad(g[i], y[i], activation, slope), other = u[i];
        double xhat = ((double)x[i] - mean[c]) * r[c];
        sums[0] += other;
        sums[1] += other * xhat;
        sums[2] += value;
        sums[3] += value * xhat;
        sums[4] += other * value;
    });
}

// means (5, C): mean u, mean u x̂, mean g, mean g x̂, mean u·Pg.  Launch shape: any grid of one dimension over channels.
template <class T>
__global__ void finish_vjp(const double* __restrict__ partial, const T* __restrict__ r, T* __restrict__ means,
                           T* __restrict__ dgamma, Size rows, Size bands, Size channels) {
    FOR_EACH(c, channels) {
        double found[5];
        for (int k = 0; k < 5; k++) found[k] = add_bands(partial, k, bands, channels, c) / rows;
        found[4] -= found[0] * found[2] + found[1] * found[3];
        for (int k = 0; k < 5; k++) means[k * channels + c] = T(found[k]);
        dgamma[c] = T(found[4] * rows * r[c]);
    }
}

// dg = γ r P u · act',  dx = −γ r² (mean(g x̂) P u + mean(u x̂) P g + x̂ mean(u P g)).
// Launch shape: any grid of one dimension. Each thread reads entry i of u, g, x, y and writes dg[i], dx[i].
template <class T>
__global__ void vjp(const T* __restrict__ u, const T* __restrict__ g, const T* __restrict__ x, const T* __restrict__ y,
                    const T* __restrict__ mean, const T* __restrict__ r, const T* __restrict__ gamma,
                    const T* __restrict__ means, T* __restrict__ dg, T* __restrict__ dx, Size n, Size channels,
                    int activation, T slope) {
    FOR_EACH(i, n) {
        Size c = i % channels;
        T of_u = means[c], of_ux = means[channels + c], of_g = means[2 * channels + c];
        T of_gx = means[3 * channels + c], of_upg = means[4 * channels + c];
        T xhat = (x[i] - mean[c]) * r[c], factor = gamma[c] * r[c];
        T pu = u[i] - of_u - xhat * of_ux;
        T pg = activate_grad(g[i], y[i], activation, slope) - of_g - xhat * of_gx;
        dg[i] = activate_grad(factor * pu, y[i], activation, slope);
        dx[i] = -factor * r[c] * (of_gx * pu + of_ux * pg + xhat * of_upg);
    }
}
