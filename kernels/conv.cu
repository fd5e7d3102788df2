// The convolution triad as products whose matrices are never written down: the kernels of conv.py.
//
//     y[n, p, q, o] = Σ_{i, j, c}  x[n, s·p + i − pad, s'·q + j − pad', c] · w[i, j, c, o]
//
// conv2d               rows (n, p, q)   columns o    sum over (i, j, c)     A = patches of x      B = w
// conv2d_transpose     rows (n, h, v)   columns c    sum over (i, j, o)     A = patches of y      B = w, turned
// conv2d_weight_grad   rows (i, j, c)   columns o    sum over (n, p, q)     A = patches of x      B = y
//
// All images are channels-last, so the innermost index of a patch runs through memory. An entry of a matrix of patches is
// found from what its pixel knows (image, top, left) and what its tap knows (i, j, c); places outside the image are 0.
//
// In the transposed convolution only taps with s·p + i − pad = h meet pixel h: those with i ≡ h + pad (mod s). Pixels are
// sorted into s · s' phases by (h + pad, v + pad') mod (s, s'); within one, p = u − i' for h + pad = s·u + r, i = s·i' + r,
// so that no product is wasted on taps that cannot meet.

#include "gemm.cuh"

// Sizes of a convolution: x (N, H, W, Cin), w (kh, kw, Cin, Cout), y (N, OH, OW, Cout). `sizes` holds them in this order.
struct Geometry {
    int images, height, width, c_in, out_height, out_width, c_out, kh, kw, stride_v, stride_h, pad_v, pad_h;
    __device__ __forceinline__ explicit Geometry(const int* __restrict__ sizes)
        : images(sizes[0]), height(sizes[1]), width(sizes[2]), c_in(sizes[3]), out_height(sizes[4]),
          out_width(sizes[5]), c_out(sizes[6]), kh(sizes[7]), kw(sizes[8]), stride_v(sizes[9]), stride_h(sizes[10]),
          pad_v(sizes[11]), pad_h(sizes[12]) {}
};

struct Pixel {
    Size image;  // position of the image's first entry; −1 for a lane that is not there
    int top, left;
};

struct Tap {
    int i, j, channel;  // channel −1 for a lane that is not there
};

// Patches of an image (N, H, W, C): entry (pixel, tap) is image[pixel.top + i, pixel.left + j, channel].
template <class T>
struct Patches {
    const T* data;
    int height, width, channels;
    __device__ __forceinline__ T at(const Pixel& pixel, const Tap& tap) const {
        int h = pixel.top + tap.i, v = pixel.left + tap.j;
        if (pixel.image < 0 || tap.channel < 0 || h < 0 || h >= height || v < 0 || v >= width) return T(0);
        return data[pixel.image + ((Size)h * width + v) * channels + tap.channel];
    }
};

// The patch of x that output m = (n, p, q) sees, and tap k = (i, j, c).
__device__ __forceinline__ Pixel output_pixel(const Geometry& z, Size m) {
    int q = m % z.out_width, p = m / z.out_width % z.out_height;
    Size image = m / z.out_width / z.out_height * ((Size)z.height * z.width * z.c_in);
    return Pixel{image, p * z.stride_v - z.pad_v, q * z.stride_h - z.pad_h};
}
__device__ __forceinline__ Tap input_tap(const Geometry& z, Size k) {
    return Tap{int(k / z.c_in / z.kw), int(k / z.c_in % z.kw), int(k % z.c_in)};
}

template <class T>
struct OutputsByTaps : Patches<T> {
    enum { K_FAST = true };
    typedef Pixel Lane;
    typedef Tap Term;
    const Geometry& z;
    __device__ OutputsByTaps(const T* x, const Geometry& z) : Patches<T>{x, z.height, z.width, z.c_in}, z(z) {}
    __device__ __forceinline__ Pixel lane(Size m) const {
        return m < (Size)z.images * z.out_height * z.out_width ? output_pixel(z, m) : Pixel{-1, 0, 0};
    }
    __device__ __forceinline__ Tap term(Size k) const { return input_tap(z, k); }
};

template <class T>
struct TapsByOutputs : Patches<T> {
    enum { K_FAST = false };
    typedef Tap Lane;
    typedef Pixel Term;
    const Geometry& z;
    __device__ TapsByOutputs(const T* x, const Geometry& z) : Patches<T>{x, z.height, z.width, z.c_in}, z(z) {}
    __device__ __forceinline__ Tap lane(Size m) const {
        return m < (Size)z.kh * z.kw * z.c_in ? input_tap(z, m) : Tap{0, 0, -1};
    }
    __device__ __forceinline__ Pixel term(Size k) const { return output_pixel(z, k); }
    __device__ __forceinline__ T at(const Tap& tap, const Pixel& pixel) const { return Patches<T>::at(pixel, tap); }
};

// One phase of the transposed convolution: pixels h = s·u + r − pad for `rows` values of u from `first_u` on, likewise
// across; taps i = s·i' + r for i' < taps_v.
struct Phase {
    int r_v, r_h, first_u, first_v, rows, columns, taps_v, taps_h;
    __device__ Phase(const Geometry& z, int number) {
        r_v = number / z.stride_h, r_h = number % z.stride_h;
        first_u = (z.pad_v - r_v + z.stride_v - 1) / z.stride_v, first_v = (z.pad_h - r_h + z.stride_h - 1) / z.stride_h;
        if (z.pad_v < r_v) first_u = 0;
        if (z.pad_h < r_h) first_v = 0;
        rows = count(z.height + z.pad_v - r_v, z.stride_v) - first_u;
        columns = count(z.width + z.pad_h - r_h, z.stride_h) - first_v;
        taps_v = count(z.kh - r_v, z.stride_v), taps_h = count(z.kw - r_h, z.stride_h);
    }
    // How many of 0, s, 2s, … are below `end`.
    __device__ static int count(int end, int s) { return end > 0 ? (end + s - 1) / s : 0; }
};

// Row m of a phase is pixel (n, u, v); its taps k = (i', j', o) see y[n, u − i', v − j', o].
template <class T>
struct PixelsByTaps : Patches<T> {
    enum { K_FAST = true };
    typedef Pixel Lane;
    typedef Tap Term;
    const Geometry& z;
    const Phase& phase;
    __device__ PixelsByTaps(const T* y, const Geometry& z, const Phase& phase)
        : Patches<T>{y, z.out_height, z.out_width, z.c_out}, z(z), phase(phase) {}
    __device__ __forceinline__ Pixel lane(Size m) const {
        if (m >= (Size)z.images * phase.rows * phase.columns) return Pixel{-1, 0, 0};
        int v = m % phase.columns, u = m / phase.columns % phase.rows;
        Size image = m / phase.columns / phase.rows * ((Size)z.out_height * z.out_width * z.c_out);
        return Pixel{image, phase.first_u + u, phase.first_v + v};
    }
    __device__ __forceinline__ Tap term(Size k) const {
        return Tap{-int(k / z.c_out / phase.taps_h), -int(k / z.c_out % phase.taps_h), int(k % z.c_out)};
    }
};

// w turned: lane c, term k = (i', j', o).
template <class T>
struct TurnedWeights {
    enum { K_FAST = true };
    typedef Size Lane;
    typedef Size Term;
    const T* w;
    const Geometry& z;
    const Phase& phase;
    __device__ __forceinline__ Size lane(Size c) const { return c < z.c_in ? c * z.c_out : -1; }
    __device__ __forceinline__ Size term(Size k) const {
        int o = k % z.c_out, j = k / z.c_out % phase.taps_h, i = k / z.c_out / phase.taps_h;
        return ((Size)(i * z.stride_v + phase.r_v) * z.kw + j * z.stride_h + phase.r_h) * z.c_in * z.c_out + o;
    }
    __device__ __forceinline__ T at(Size lane, Size term) const { return lane < 0 ? T(0) : w[lane + term]; }
};

// Launch shape: grid (⌈Cout/64⌉, ⌈N·OH·OW/64⌉), block GEMM_THREADS. A block reads the patches of 64 outputs and 64
// channels of w, and writes 64 × 64 entries of y.
template <class T, bool TF32>
__global__ void __launch_bounds__(GEMM_THREADS, GEMM_BLOCKS<T>)
conv2d(const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ b, T* __restrict__ y,
       const int* __restrict__ sizes, bool with_b, int activation, T slope) {
    const Geometry z(sizes);
    Size outputs = (Size)z.images * z.out_height * z.out_width, taps = (Size)z.kh * z.kw * z.c_in;
    OutputsByTaps<T> left(x, z);
    Matrix<T, false> right{w, z.c_out, 1, z.c_out};
    gemm<TF32, T>(left, right, blockIdx.y * (Size)TILE, blockIdx.x * (Size)TILE, Extent{outputs, z.c_out, 0, taps},
                  [&](Size m, Size o, T value) {
                      y[m * z.c_out + o] = activate(with_b ? value + b[o] : value, activation, slope);
                  });
}

// Launch shape: grid (⌈Cin/64⌉, ⌈rows of the largest phase/64⌉, s · s'), block GEMM_THREADS. A block reads patches of y
// and the taps of its phase, and writes 64 pixels × 64 channels of x. Every pixel is in one phase: all of x is written.
template <class T, bool TF32>
__global__ void __launch_bounds__(GEMM_THREADS, GEMM_BLOCKS<T>)
conv2d_transpose(const T* __restrict__ y, const T* __restrict__ w, const T* __restrict__ b, T* __restrict__ x,
                 const int* __restrict__ sizes, bool with_b, int activation, T slope) {
    const Geometry z(sizes);
    const Phase phase(z, blockIdx.z);
    Size pixels = (Size)z.images * phase.rows * phase.columns, taps = (Size)phase.taps_v * phase.taps_h * z.c_out;
    if (blockIdx.y * (Size)TILE >= pixels) return;
    PixelsByTaps<T> left(y, z, phase);
    TurnedWeights<T> right{w, z, phase};
    gemm<TF32, T>(left, right, blockIdx.y * (Size)TILE, blockIdx.x * (Size)TILE, Extent{pixels, z.c_in, 0, taps},
                  [&](Size m, Size c, T value) {
                      Size n = m / phase.columns / phase.rows;
                      int h = (phase.first_u + int(m / phase.columns % phase.rows)) * z.stride_v + phase.r_v - z.pad_v;
                      int v = (phase.first_v + int(m % phase.columns)) * z.stride_h + phase.r_h - z.pad_h;
                      value = activate(with_b ? value + b[c] : value, activation, slope);
                      x[((n * z.height + h) * z.width + v) * z.c_in + c] = value;
                  });
}

// Launch shape: grid (⌈Cout/64⌉, ⌈kh·kw·Cin/64⌉, parts), block GEMM_THREADS. Part blockIdx.z sums over `depth` outputs
// into sums (parts, kh·kw·Cin, Cout); add_parts of matmul.cu adds the parts in order.
template <class T, bool TF32>
__global__ void __launch_bounds__(GEMM_THREADS, GEMM_BLOCKS<T>)
conv2d_weight_grad(const T* __restrict__ x, const T* __restrict__ y, T* __restrict__ sums,
                   const int* __restrict__ sizes, Size depth) {
    const Geometry z(sizes);
    Size outputs = (Size)z.images * z.out_height * z.out_width, taps = (Size)z.kh * z.kw * z.c_in;
    TapsByOutputs<T> left(x, z);
    Matrix<T, false> right{y, z.c_out, 1, z.c_out};
    Size first = blockIdx.z * depth, last = first + depth < outputs ? first + depth : outputs;
    T* part = sums + blockIdx.z * taps * z.c_out;
    gemm<TF32, T>(left, right, blockIdx.y * (Size)TILE, blockIdx.x * (Size)TILE, Extent{taps, z.c_out, first, last},
                  [&](Size m, Size o, T value) { part[m * z.c_out + o] = value; });
}
