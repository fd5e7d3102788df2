// A product of matrices that need not exist: C = act(A B + b), where A and B say how to read an entry.
//
//     C[m, n] = act(Σ_k A(m, k) · B(k, n) + b[n])
//
// A block of TILE × TILE threads' work makes a tile of C of 64 × 64 entries. It walks k in steps of DEPTH: all threads
// together copy a 64 × DEPTH piece of A and a DEPTH × 64 piece of B into shared memory, wait, multiply, wait.
//
//                 B  DEPTH × 64                thread (row, column) of 16 × 16 keeps 4 × 4 entries of C,
//                 ┌──────┐                     4 rows apart by 16 and 4 columns apart by 16, in registers:
//     64 × DEPTH  │      │                     each value it reads from shared memory is used 4 times.
//     A ┌──┐      ├──────┤
//       │  │      │      │  C  64 × 64
//       └──┘      └──────┘
//
// A reader (Left, Right) splits the work of finding an entry in two: what the row needs and what the column needs are
// found once and kept, `at(row, column)` puts them together. K_FAST says that neighbours in k are neighbours in memory,
// so that neighbouring threads copy along k.
//
// True float32 (or float64) is the default. With TF32 the same tile is multiplied by tensor cores: each of the 8 warps
// makes 32 × 16 entries of C with mma.cuh's 16 × 8 × 8 products.
#pragma once

#include "common.cuh"
#include "mma.cuh"

enum { TILE = 64, DEPTH = 16, GEMM_THREADS = 256, PAD = 4 };

// A plain matrix: entry (row, column) at row · row_stride + column · column_stride.
template <class T, bool FAST>
struct Matrix {
    enum { K_FAST = FAST };
    const T* data;
    Size rows, columns, row_stride, column_stride;
    typedef Size Row;
    typedef Size Column;
    __device__ __forceinline__ Row row(Size i) const { return i >= 0 && i < rows ? i * row_stride : -1; }
    __device__ __forceinline__ Column column(Size j) const { return j >= 0 && j < columns ? j * column_stride : -1; }
    __device__ __forceinline__ T at(Row i, Column j) const { return i < 0 || j < 0 ? T(0) : data[i + j]; }
};

// A thread's entries of a tile of C: true products, each a chain of fused multiply-adds in the order of k.
template <bool TF32, class T>
struct Accumulators {
    T c[4][4] = {};

    __device__ __forceinline__ void multiply(const T (&a)[DEPTH][TILE + PAD], const T (&b)[DEPTH][TILE + PAD]) {
        const int row = threadIdx.x / 16, column = threadIdx.x % 16;
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            T of_a[4], of_b[4];
            for (int i = 0; i < 4; i++) of_a[i] = a[k][row + 16 * i];
            for (int j = 0; j < 4; j++) of_b[j] = b[k][column + 16 * j];
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++) c[i][j] += of_a[i] * of_b[j];
        }
    }

    template <class Take>
    __device__ __forceinline__ void each(Take take) const {
        const int row = threadIdx.x / 16, column = threadIdx.x % 16;
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++) take(row + 16 * i, column + 16 * j, c[i][j]);
    }
};

// The same by tensor cores: warp w makes rows 32 · (w / 4) and on, columns 16 · (w % 4) and on, as 2 × 2 products.
template <>
struct Accumulators<true, float> {
    float c[2][2][4] = {};

    __device__ __forceinline__ void multiply(const float (&a)[DEPTH][TILE + PAD], const float (&b)[DEPTH][TILE + PAD]) {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        const int top = warp / 4 * 32, left = warp % 4 * 16;
#pragma unroll
        for (int k = 0; k < DEPTH; k += 8) {
            unsigned of_a[2][4], of_b[2][2];
            for (int i = 0; i < 2; i++)
                for (int piece = 0; piece < 4; piece++)
                    of_a[i][piece] = to_tf32(a[k + t + piece / 2 * 4][top + 16 * i + g + piece % 2 * 8]);
            for (int j = 0; j < 2; j++)
                for (int piece = 0; piece < 2; piece++) of_b[j][piece] = to_tf32(b[k + t + piece * 4][left + 8 * j + g]);
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < 2; j++) mma_tf32(c[i][j], of_a[i], of_b[j]);
        }
    }

    template <class Take>
    __device__ __forceinline__ void each(Take take) const {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        const int top = warp / 4 * 32, left = warp % 4 * 16;
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < 2; j++)
                for (int piece = 0; piece < 4; piece++)
                    take(top + 16 * i + g + piece / 2 * 8, left + 8 * j + 2 * t + piece % 2, c[i][j][piece]);
    }
};

// The tile of C that a block makes, and the k it sums over: from `first` up to `last`.
struct Extent {
    Size m, n, first, last;
};

// Multiply one 64 × 64 tile; `store(m, n, value)` takes each entry that lies inside.
template <bool TF32, class T, class Left, class Right, class Store>
__device__ __forceinline__ void gemm(const Left& left, const Right& right, Size m0, Size n0, Extent extent, Store store) {
    __shared__ T a[DEPTH][TILE + PAD], b[DEPTH][TILE + PAD];
    const int thread = threadIdx.x, copies = TILE * DEPTH / GEMM_THREADS;
    // thread's own entries of the pieces that it copies: (i, k) = (mine + spread · c, depth) or the other way round
    const int fast = thread % DEPTH, slow = thread / DEPTH, spread = GEMM_THREADS / DEPTH;
    const int wide = thread % TILE, deep = thread / TILE, sink = GEMM_THREADS / TILE;

    typename Left::Row rows[Left::K_FAST ? copies : 1];
    for (int c = 0; c < (Left::K_FAST ? copies : 1); c++) rows[c] = left.row(m0 + (Left::K_FAST ? slow + spread * c : wide));
    typename Right::Column columns[Right::K_FAST ? copies : 1];
    for (int c = 0; c < (Right::K_FAST ? copies : 1); c++)
        columns[c] = right.column(n0 + (Right::K_FAST ? slow + spread * c : wide));

    Accumulators<TF32, T> sums;
    for (Size k0 = extent.first; k0 < extent.last; k0 += DEPTH) {
        if (Left::K_FAST) {
            typename Left::Column column = left.column(k0 + fast < extent.last ? k0 + fast : -1);
            for (int c = 0; c < copies; c++) a[fast][slow + spread * c] = left.at(rows[c], column);
        } else {
            for (int c = 0; c < copies; c++) {
                Size k = k0 + deep + sink * c;
                a[deep + sink * c][wide] = left.at(rows[0], left.column(k < extent.last ? k : -1));
            }
        }
        if (Right::K_FAST) {
            typename Right::Row row = right.row(k0 + fast < extent.last ? k0 + fast : -1);
            for (int c = 0; c < copies; c++) b[fast][slow + spread * c] = right.at(row, columns[c]);
        } else {
            for (int c = 0; c < copies; c++) {
                Size k = k0 + deep + sink * c;
                b[deep + sink * c][wide] = right.at(right.row(k < extent.last ? k : -1), columns[0]);
            }
        }
        __syncthreads();
        sums.multiply(a, b);
        __syncthreads();
    }
    sums.each([&](int i, int j, T value) {
        if (m0 + i < extent.m && n0 + j < extent.n) store(m0 + i, n0 + j, value);
    });
}
