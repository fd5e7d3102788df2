// Philox 4x32-10 (Salmon et al., SC 2011): the kernels of philox.py, which gives the round.
//
// Block `index` of a draw is a function of (index, stream, step) and the seed alone, so threads share nothing, and the
// bits are those of the CPU. The counters {seed, stream, step} are read from device memory.

#include "common.cuh"

typedef unsigned long long Word;

__device__ __forceinline__ uint4 philox(Word index, const Word* __restrict__ counters) {
    uint4 c = make_uint4((unsigned)index, (unsigned)(index >> 32), (unsigned)counters[1], (unsigned)counters[2]);
    unsigned k0 = (unsigned)counters[0], k1 = (unsigned)(counters[0] >> 32);
    for (int round = 0; round < 10; round++) {
        unsigned high0 = __umulhi(0xD2511F53u, c.x), low0 = 0xD2511F53u * c.x;
        unsigned high1 = __umulhi(0xCD9E8D57u, c.z), low1 = 0xCD9E8D57u * c.z;
        c = make_uint4(high1 ^ c.y ^ k0, low1, high0 ^ c.w ^ k1, low0);
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return c;
}

// Numbers in [0, 1) from the words of a block: four of 24 bits for float, two of 53 for double.
template <class T>
struct Fractions;
template <>
struct Fractions<float> {
    enum { COUNT = 4 };
    double at[4];
    __device__ explicit Fractions(uint4 w) : at{unit(w.x), unit(w.y), unit(w.z), unit(w.w)} {}
    __device__ static double unit(unsigned word) { return (word >> 8) * smallest(); }
    __device__ static double smallest() { return 1.0 / 16777216; }
};
template <>
struct Fractions<double> {
    enum { COUNT = 2 };
    double at[2];
    __device__ explicit Fractions(uint4 w) : at{unit(w.x, w.y), unit(w.z, w.w)} {}
    __device__ static double unit(unsigned low, unsigned high) { return (((Word)high << 32 | low) >> 11) * smallest(); }
    __device__ static double smallest() { return 1.0 / 9007199254740992; }
};

// Launch shape: any grid of one dimension over blocks of four words. Writes words 4·index to 4·index + 3 of out (n,).
__global__ void philox_bits(unsigned* __restrict__ out, const Word* __restrict__ counters, Size n) {
    FOR_EACH(index, (n + 3) / 4) {
        uint4 c = philox(index, counters);
        unsigned words[4] = {c.x, c.y, c.z, c.w};
        for (int k = 0; k < 4 && 4 * index + k < n; k++) out[4 * index + k] = words[k];
    }
}

// Launch shape: any grid of one dimension over blocks of words. Writes the COUNT entries of out that a block gives.
template <class T>
__global__ void philox_uniform(T* __restrict__ out, const Word* __restrict__ counters, Size n) {
    const int count = Fractions<T>::COUNT;
    FOR_EACH(index, (n + count - 1) / count) {
        Fractions<T> u(philox(index, counters));
        for (int k = 0; k < count && count * index + k < n; k++) out[count * index + k] = T(u.at[k]);
    }
}

// √(−2 ln u) · (cos 2πv, sin 2πv) with u in (0, 1]. Launch shape and memory: those of philox_uniform.
template <class T>
__global__ void philox_normal(T* __restrict__ out, const Word* __restrict__ counters, Size n) {
    const int count = Fractions<T>::COUNT;
    FOR_EACH(index, (n + count - 1) / count) {
        Fractions<T> u(philox(index, counters));
        for (int k = 0; k < count; k += 2) {
            double radius = sqrt(-2 * log(u.at[k] + Fractions<T>::smallest())), s, c;
            sincospi(2 * u.at[k + 1], &s, &c);
            Size i = count * index + k;
            if (i < n) out[i] = T(radius * c);
            if (i + 1 < n) out[i + 1] = T(radius * s);
        }
    }
}

// Count a draw, or a step: counter[at] += 1. Launch shape: one thread. A captured training step goes on by it, where the
// host would have counted.
__global__ void count_up(Word* counter, Size at) { counter[at]++; }
