// A product of matrices that need not exist: C = act(A B + b), where A and B say how to read an entry.
//
//     C[m, n] = act(Σ_k A(m, k) · B(k, n) + b[n])
//
// A block of GEMM_THREADS makes a tile of C of 64 × 64 entries. It walks k in steps of DEPTH: all threads together copy
// a 64 × DEPTH piece of A and a DEPTH × 64 piece of B into shared memory, wait for each other, and multiply. While they
// multiply one pair of pieces, the next is on its way into registers, and goes into a second pair of places:
//
//                 B  DEPTH × 64                fetch 0
//                 ┌──────┐                     put 0, wait, fetch 1, multiply 0
//     64 × DEPTH  │      │                     put 1, wait, fetch 2, multiply 1
//     A ┌──┐      ├──────┤                     put 0, wait, fetch 3, multiply 0 …
//       │  │      │      │  C  64 × 64         thread (row, column) of 16 × 16 keeps 4 × 4 neighbouring entries of C in
//       └──┘      └──────┘                     registers: each value it reads from shared memory is used 4 times.
//
// A and B are readers. Row m of A, or column n of B, is a lane; k is a term. What a lane needs and what a term needs are
// found once and kept, `at(lane, term)` puts them together; a lane past the last one says 0. K_FAST says that neighbouring
// terms are neighbours in memory, so that neighbouring threads copy along k.
//
// True float32 (or float64) is the default. With TF32 the same tile is multiplied by tensor cores: each of the 8 warps
// makes 32 × 16 entries of C with mma.cuh's 16 × 8 × 8 products.
#pragma once

#include "common.cuh"
#include "mma.cuh"

enum { TILE = 64, DEPTH = 16, GEMM_THREADS = 256, COPIES = TILE * DEPTH / GEMM_THREADS };

// Blocks that a multiprocessor holds at once: what two leave each thread in registers, 128, is too little for double.
template <class T>
constexpr int GEMM_BLOCKS = sizeof(T) == 4 ? 2 : 1;

// A plain matrix: the entry of a lane and a term is at lane · lane_stride + term · term_stride.
template <class T, bool FAST>
struct Matrix {
    enum { K_FAST = FAST };
    const T* data;
    Size lanes, lane_stride, term_stride;
    typedef Size Lane;
    typedef Size Term;
    __device__ __forceinline__ Lane lane(Size i) const { return i < lanes ? i * lane_stride : -1; }
    __device__ __forceinline__ Term term(Size k) const { return k * term_stride; }
    __device__ __forceinline__ T at(Lane i, Term k) const { return i < 0 ? T(0) : data[i + k]; }
};

// A thread's entries of a tile of C: true products, each a chain of fused multiply-adds in the order of k.
template <bool TF32, class T>
struct Accumulators {
    enum { WIDTH = TILE + 4 };  // of a row in shared memory: the writes along k of a warp meet in a bank twice, not more
    T c[4][4] = {};

    __device__ static __forceinline__ T prepare(T value) { return value; }

    __device__ __forceinline__ void multiply(const T (&a)[DEPTH][WIDTH], const T (&b)[DEPTH][WIDTH]) {
        const int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            T of_a[4], of_b[4];
            for (int i = 0; i < 4; i++) of_a[i] = a[k][row + i];
            for (int j = 0; j < 4; j++) of_b[j] = b[k][column + j];
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++) c[i][j] += of_a[i] * of_b[j];
        }
    }

    template <class Take>
    __device__ __forceinline__ void each(Take take) const {
        const int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++) take(row + i, column + j, c[i][j]);
    }
};

// The same by tensor cores: warp w makes rows 32 · (w / 4) and on, columns 16 · (w % 4) and on, as 2 × 2 products.
template <>
struct Accumulators<true, float> {
    enum { WIDTH = TILE + 8 };  // a warp's reads of 4 rows and 8 columns are in 32 banks
    float c[2][2][4] = {};

    __device__ static __forceinline__ float prepare(float value) { return __uint_as_float(to_tf32(value)); }

    __device__ __forceinline__ void multiply(const float (&a)[DEPTH][WIDTH], const float (&b)[DEPTH][WIDTH]) {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        const int top = warp / 4 * 32, left = warp % 4 * 16;
#pragma unroll
        for (int k = 0; k < DEPTH; k += 8) {
            unsigned of_a[2][4], of_b[2][2];
            for (int i = 0; i < 2; i++)
                for (int piece = 0; piece < 4; piece++)
                    of_a[i][piece] = __float_as_uint(a[k + t + piece / 2 * 4][top + 16 * i + g + piece % 2 * 8]);
            for (int j = 0; j < 2; j++)
                for (int piece = 0; piece < 2; piece++)
                    of_b[j][piece] = __float_as_uint(b[k + t + piece * 4][left + 8 * j + g]);
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

// What a thread copies of the 64 × DEPTH piece of a reader: COPIES lanes of one term where neighbouring terms are
// neighbours in memory, COPIES terms of one lane where neighbouring lanes are.
template <class T, class Reader>
struct Piece {
    enum { LANES = Reader::K_FAST ? COPIES : 1, TERMS = Reader::K_FAST ? 1 : COPIES };
    const Reader& reader;
    const int lane, term;  // the first one of this thread
    typename Reader::Lane lanes[LANES];
    T values[COPIES];

    __device__ __forceinline__ Piece(const Reader& reader, Size first)
        : reader(reader), lane(Reader::K_FAST ? threadIdx.x / DEPTH : threadIdx.x % TILE),
          term(Reader::K_FAST ? threadIdx.x % DEPTH : threadIdx.x / TILE) {
        for (int c = 0; c < LANES; c++) lanes[c] = reader.lane(first + lane_of(c));
    }
    __device__ __forceinline__ int lane_of(int copy) const {
        return Reader::K_FAST ? lane + GEMM_THREADS / DEPTH * copy : lane;
    }
    __device__ __forceinline__ int term_of(int copy) const {
        return Reader::K_FAST ? term : term + GEMM_THREADS / TILE * copy;
    }

    // Read the piece of the terms from k0 on; those from `last` on are 0.
    __device__ __forceinline__ void fetch(Size k0, Size last) {
        for (int t = 0; t < TERMS; t++) {
            Size k = k0 + term_of(t);
            if (k < last) {
                typename Reader::Term found = reader.term(k);
                for (int l = 0; l < LANES; l++) values[t + l] = reader.at(lanes[l], found);
            } else {
                for (int l = 0; l < LANES; l++) values[t + l] = T(0);
            }
        }
    }

    // Write it to shared memory as the accumulators want it.
    template <class Sums, int WIDTH>
    __device__ __forceinline__ void put(T (&to)[DEPTH][WIDTH]) const {
        for (int c = 0; c < COPIES; c++) to[term_of(c)][lane_of(c)] = Sums::prepare(values[c]);
    }
};

// The tile of C that a block makes, and the k it sums over: from `first` up to `last`.
struct Extent {
    Size m, n, first, last;
};

// Multiply one 64 × 64 tile; `store(m, n, value)` takes each entry that lies inside, neighbouring threads neighbouring n.
template <bool TF32, class T, class Left, class Right, class Store>
__device__ __forceinline__ void gemm(const Left& left, const Right& right, Size m0, Size n0, Extent extent, Store store) {
    typedef Accumulators<TF32, T> Sums;
    alignas(16) __shared__ T space[2][2][DEPTH][Sums::WIDTH];
    Piece<T, Left> of_a(left, m0);
    Piece<T, Right> of_b(right, n0);
    Sums sums;
    of_a.fetch(extent.first, extent.last);
    of_b.fetch(extent.first, extent.last);
    for (Size k0 = extent.first, stage = 0; k0 < extent.last; k0 += DEPTH, stage = 1 - stage) {
        auto& pieces = space[stage];
        of_a.template put<Sums>(pieces[0]);
        of_b.template put<Sums>(pieces[1]);
        __syncthreads();
        of_a.fetch(k0 + DEPTH, extent.last);
        of_b.fetch(k0 + DEPTH, extent.last);
        sums.multiply(pieces[0], pieces[1]);
    }
    // The tile goes through the same space, so that it is written in rows.
    T* tile = space[0][0][0];
    static_assert(TILE * Sums::WIDTH <= 4 * DEPTH * Sums::WIDTH, "a tile of C fits where the pieces were");
    __syncthreads();
    sums.each([&](int i, int j, T value) { tile[i * Sums::WIDTH + j] = value; });
    __syncthreads();
    for (int entry = threadIdx.x; entry < TILE * TILE; entry += GEMM_THREADS) {
        int i = entry / TILE, j = entry % TILE;
        if (m0 + i < extent.m && n0 + j < extent.n) store(m0 + i, n0 + j, tile[i * Sums::WIDTH + j]);
    }
}
