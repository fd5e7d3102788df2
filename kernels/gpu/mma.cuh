// Tensor cores: D += A B for A (16, 8), B (8, 8), D (16, 8), by the 32 threads of a warp together.
//
// float32 numbers are rounded to TF32 (10 bits of mantissa) on the way in; products are summed in float32. Every thread
// holds a piece of each matrix, with g = lane / 4 and t = lane % 4:
//
//     a[0] = A[g, t]   a[1] = A[g + 8, t]   a[2] = A[g, t + 4]   a[3] = A[g + 8, t + 4]
//     b[0] = B[t, g]   b[1] = B[t + 4, g]
//     d[0] = D[g, 2t]  d[1] = D[g, 2t + 1]  d[2] = D[g + 8, 2t]  d[3] = D[g + 8, 2t + 1]
//
// This is the one place with inline PTX (ISA 7.0, m16n8k8 .tf32, from sm_80 on), and its twin for the emulator.
#pragma once

__device__ __forceinline__ unsigned to_tf32(float x) {
#ifdef EMU
    unsigned bits = __float_as_uint(x);
    return x == x ? (bits + 0x1000u) & 0xFFFFE000u : bits;
#elif __CUDA_ARCH__ >= 800
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
#else
    return __float_as_uint(x);
#endif
}

__device__ __forceinline__ void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef EMU
    uint4 mine_a = make_uint4(a[0], a[1], a[2], a[3]);
    uint2 mine_b = make_uint2(b[0], b[1]);
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    for (int k = 0; k < 8; k++) {
        uint4 of_a = __shfl_sync(~0u, mine_a, g * 4 + k % 4);
        float upper = __uint_as_float(k < 4 ? of_a.x : of_a.z), lower = __uint_as_float(k < 4 ? of_a.y : of_a.w);
        for (int j = 0; j < 2; j++) {
            uint2 of_b = __shfl_sync(~0u, mine_b, (2 * t + j) * 4 + k % 4);
            float value = __uint_as_float(k < 4 ? of_b.x : of_b.y);
            d[j] += upper * value;
            d[2 + j] += lower * value;
        }
    }
#elif __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    d[0] = d[1] = d[2] = d[3] = __int_as_float(0x7fffffff);  // the launcher asks for TF32 from sm_80 on alone
#endif
}
