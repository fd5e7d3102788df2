// CUDA C++ as this machine's compiler can read it: the language's words, for kernels compiled with g++.
//
// It is included before a .cu file that is not changed in any way but one: `extern __shared__ T name[]` becomes
// EMU_DYNAMIC_SHARED(T, name). What NVRTC lacks (INFINITY, FLT_MAX, int32_t, printf) is kept away here too, so that both
// compilers take the same source.
#pragma once
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include "runtime.hpp"

#define EMU 1
#define EMU_UNWATCHED __attribute__((no_sanitize("thread", "bounds")))

// --- words of the language -------------------------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static __attribute__((section("emu_shared")))
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define EMU_DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(emu_dynamic_shared())

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

#define EMU_VECTORS(T, name)                                                                                \
    struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                                      \
    struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) name##4 { T x, y, z, w; };                      \
    __forceinline__ name##2 make_##name##2(T x, T y) { return {x, y}; }                                     \
    __forceinline__ name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMU_VECTORS(float, float) EMU_VECTORS(double, double) EMU_VECTORS(int, int) EMU_VECTORS(unsigned, uint)

#define threadIdx (emu_thread_index())
#define blockIdx (emu_block_index())
#define blockDim (emu_block_size())
#define gridDim (emu_grid_size())
#define warpSize 32

// --- barriers and warps ----------------------------------------------------------------------------------------------

namespace emu {

// Shared memory is static to the compiler, which would keep it in registers across a call: nobody else has its address.
#define EMU_FENCE asm volatile("" ::: "memory")

inline int barrier(int site, int line, bool said, int question) {
    EMU_FENCE;
    int answer = emu_barrier(site, line, said, question);
    EMU_FENCE;
    return answer;
}

inline unsigned mask_of(unsigned mask = ~0u) { return mask; }
inline int width_of(int width = 32) { return width; }

enum Kind { SYNC, SHUFFLE, UP, DOWN, XOR, BALLOT, ANY, ALL, MMA };

// The lane whose value a shuffle takes; -1 keeps one's own.
inline int from(Kind kind, int argument, int width) {
    int lane = emu_lane(), first = lane & ~(width - 1), last = first + width - 1;
    int source = kind == SHUFFLE ? first | (argument & (width - 1))
                 : kind == UP    ? lane - argument
                 : kind == DOWN  ? lane + argument
                                 : lane ^ argument;
    return kind == SHUFFLE || (source >= first && source <= last) ? source : -1;
}

template <class T>
EMU_UNWATCHED inline T shuffle(Kind kind, unsigned mask, T value, int argument, int width, int line) {
    static_assert(sizeof(T) <= 16, "a shuffle carries at most 16 bytes");
    T result = value;
    EMU_FENCE;
    emu_warp(mask, &value, sizeof(T), &result, from(kind, argument, width), kind, line, 0);
    EMU_FENCE;
    return result;
}

inline unsigned vote(Kind kind, unsigned mask, bool yes, int line) {
    EMU_FENCE;
    unsigned verdict = emu_warp(mask, nullptr, 0, nullptr, -1, kind, line, yes);
    EMU_FENCE;
    return verdict;
}

}  // namespace emu

#define __syncthreads() ((void)emu::barrier(__COUNTER__, __LINE__, false, 0))
#define __syncthreads_count(p) emu::barrier(__COUNTER__, __LINE__, p, 0)
#define __syncthreads_and(p) emu::barrier(__COUNTER__, __LINE__, p, 1)
#define __syncthreads_or(p) emu::barrier(__COUNTER__, __LINE__, p, 2)
#define __syncwarp(...) ((void)emu::vote(emu::SYNC, emu::mask_of(__VA_ARGS__), 0, __LINE__))
#define __shfl_sync(m, v, s, ...) emu::shuffle(emu::SHUFFLE, m, v, s, emu::width_of(__VA_ARGS__), __LINE__)
#define __shfl_up_sync(m, v, s, ...) emu::shuffle(emu::UP, m, v, s, emu::width_of(__VA_ARGS__), __LINE__)
#define __shfl_down_sync(m, v, s, ...) emu::shuffle(emu::DOWN, m, v, s, emu::width_of(__VA_ARGS__), __LINE__)
#define __shfl_xor_sync(m, v, s, ...) emu::shuffle(emu::XOR, m, v, s, emu::width_of(__VA_ARGS__), __LINE__)
#define __ballot_sync(m, p) emu::vote(emu::BALLOT, m, p, __LINE__)
#define __any_sync(m, p) (emu::vote(emu::ANY, m, p, __LINE__) != 0)
#define __all_sync(m, p) (emu::vote(emu::ALL, m, !(p), __LINE__) == 0)
#define __threadfence() ((void)0)
#define __threadfence_block() ((void)0)
#define __trap() emu_fail("__trap()", __LINE__)
#undef assert
#define assert(claim) ((claim) ? (void)0 : emu_fail("assert(" #claim ") failed", __LINE__))

// --- atomics: fibers give way at barriers alone, so that plain code is atomic ----------------------------------------

namespace emu {
template <class T>
struct Same {
    using type = T;
};
}  // namespace emu

#define EMU_ATOMIC(name, expression)                                                                        \
    template <class T>                                                                                      \
    EMU_UNWATCHED inline T name(T* place, typename emu::Same<T>::type value) {                              \
        emu_atomic(place, sizeof(T));                                                                       \
        T old = *place;                                                                                     \
        *place = expression;                                                                                \
        return old;                                                                                         \
    }
EMU_ATOMIC(atomicAdd, old + value)
EMU_ATOMIC(atomicSub, old - value)
EMU_ATOMIC(atomicExch, value)
EMU_ATOMIC(atomicMax, value > old ? value : old)
EMU_ATOMIC(atomicMin, value < old ? value : old)
EMU_ATOMIC(atomicAnd, old & value)
EMU_ATOMIC(atomicOr, old | value)
EMU_ATOMIC(atomicXor, old ^ value)
EMU_ATOMIC(atomicInc, old >= value ? 0 : old + 1)

template <class T>
EMU_UNWATCHED inline T atomicCAS(T* place, typename emu::Same<T>::type expected, typename emu::Same<T>::type value) {
    emu_atomic(place, sizeof(T));
    T old = *place;
    if (old == expected) *place = value;
    return old;
}

// --- arithmetic ------------------------------------------------------------------------------------------------------

template <class A, class B>
__forceinline__ std::common_type_t<A, B> max(A a, B b) {
    std::common_type_t<A, B> x = a, y = b;
    return x > y ? x : y;
}
template <class A, class B>
__forceinline__ std::common_type_t<A, B> min(A a, B b) {
    std::common_type_t<A, B> x = a, y = b;
    return x < y ? x : y;
}
using std::isfinite;
using std::isinf;
using std::isnan;

template <class T>
__forceinline__ T __ldg(const T* p) { return *p; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline void sincospi(double x, double* s, double* c) { *s = sin(x * 3.141592653589793), *c = cos(x * 3.141592653589793); }
template <class To, class From>
inline To emu_bits(From x) {
    static_assert(sizeof(To) == sizeof(From));
    To y;
    memcpy(&y, &x, sizeof y);
    return y;
}
inline int __float_as_int(float x) { return emu_bits<int>(x); }
inline float __int_as_float(int x) { return emu_bits<float>(x); }
inline unsigned __float_as_uint(float x) { return emu_bits<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return emu_bits<float>(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }

#undef INFINITY
#undef NAN
#undef M_PI

// --- launching -------------------------------------------------------------------------------------------------------

extern "C" {
extern char __start_emu_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_emu_shared[] __attribute__((weak, visibility("hidden")));
extern char __ehdr_start[] __attribute__((visibility("hidden")));
extern char _end[] __attribute__((visibility("hidden")));
}

namespace emu {

// A parameter's type in a few characters: p before a pointer's, then f, i, u, b or V with its bytes.
template <class T>
inline char* describe(char* out) {
    using U = std::remove_cv_t<T>;
    if constexpr (std::is_pointer_v<U>) {
        *out++ = 'p';
        return describe<std::remove_pointer_t<U>>(out);
    } else {
        *out++ = std::is_same_v<U, bool>       ? 'b'
                 : std::is_floating_point_v<U> ? 'f'
                 : !std::is_integral_v<U>      ? 'V'
                 : std::is_signed_v<U>         ? 'i'
                                               : 'u';
        if (sizeof(U) > 9) *out++ = '0' + sizeof(U) / 10;
        *out++ = '0' + sizeof(U) % 10;
        *out++ = ',';
        return out;
    }
}

template <class F>
struct Kernel;

template <class... P>
struct Kernel<void (*)(P...)> {
    struct Bound {
        void (*function)(P...);
        void** arguments;
    };
    template <size_t... I>
    EMU_UNWATCHED static void call(const Bound* bound, std::index_sequence<I...>) {
        bound->function(*static_cast<std::remove_reference_t<P>*>(bound->arguments[I])...);
    }
    EMU_UNWATCHED static void body(void* bound) { call(static_cast<const Bound*>(bound), std::index_sequence_for<P...>{}); }
    EMU_UNWATCHED static int run(void (*function)(P...), emu_launch* launch, void** arguments, char* message, size_t length,
                                 size_t* place) {
        Bound bound{function, arguments};
        launch->body = body, launch->arguments = &bound;
        launch->shared_begin = __start_emu_shared, launch->shared_end = __stop_emu_shared;
        launch->image = __ehdr_start, launch->image_end = _end;
        return emu_run(launch, message, length, place);
    }
    EMU_UNWATCHED static void signature(char* out) {
        ((out = describe<P>(out)), ...);
        *out = 0;
    }
};

}  // namespace emu

#define EMU_EXPORT(number, ...)                                                                             \
    extern "C" __attribute__((visibility("default"))) EMU_UNWATCHED int emu_launch_##number(                \
        emu_launch* launch, void** arguments, char* message, size_t length, size_t* place) {                \
        return emu::Kernel<decltype(&__VA_ARGS__)>::run(&__VA_ARGS__, launch, arguments, message, length, place); \
    }                                                                                                       \
    extern "C" __attribute__((visibility("default"))) EMU_UNWATCHED void emu_signature_##number(char* out) { \
        emu::Kernel<decltype(&__VA_ARGS__)>::signature(out);                                                \
    }

#pragma GCC poison int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t FLT_MAX DBL_MAX INT_MAX printf
