"""Philox 4x32-10 (Salmon et al., SC 2011): random bits as a function of a counter, so there is no state to carry.

    counter (c0, c1, c2, c3), key (k0, k1); ten times:
        c ← (hi(B·c2) ⊕ c1 ⊕ k0,  lo(B·c2),  hi(A·c0) ⊕ c3 ⊕ k1,  lo(A·c0));   k ← k + (W0, W1)

Block ``index`` of a draw has the counter (index low, index high, stream, step) and the key (seed low, seed high) and
gives four 32-bit words. A float32 in [0, 1) is (word >> 8)·2⁻²⁴, a float64 takes two words and 53 bits. Normals are
Box–Muller pairs √(−2 ln u)·(cos 2πv, sin 2πv) with u in (0, 1], worked out in float64 for both dtypes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan.kernels.cpu.jit import helper
from minigan.kernels.cpu.units import CHUNK, units
from minigan.kernels.dispatch import kernel, kernel_of_words, writable
from minigan.kernels.gpu import launch as cuda

A, B = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85
MASK = 0xFFFFFFFF
NORMALS = 256  # in one chunk: each takes as long as dozens of other entries


@kernel_of_words
def philox_bits_(out: Any, *, seed: int, stream: int, step: int) -> None:
    """Fill the 1-D uint32 array with random words; seed below 2⁶⁴, stream and step below 2³²."""
    blocks = np.arange((out.size + 3) // 4, dtype=np.uint64)
    c0: Any = blocks & MASK
    c1: Any = blocks >> np.uint64(32)
    c2, c3 = np.full_like(blocks, stream), np.full_like(blocks, step)
    k0, k1 = seed & MASK, seed >> 32
    for _ in range(10):
        high, low = np.uint64(A) * c0, np.uint64(B) * c2
        c0, c1, c2, c3 = (low >> 32) ^ c1 ^ k0, low & MASK, (high >> 32) ^ c3 ^ k1, high & MASK
        k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
    out[...] = np.stack([c0, c1, c2, c3], axis=1).reshape(-1)[: out.size]


@kernel
def philox_uniform_(out: Any, *, seed: int, stream: int, step: int) -> None:
    """Fill the float array with numbers in [0, 1)."""
    bits_ = philox_bits_.implementations["reference"]
    out[...] = _fractions(bits_, out.size, out.dtype, seed, stream, step).reshape(out.shape)


@kernel
def philox_normal_(out: Any, *, seed: int, stream: int, step: int) -> None:
    """Fill the float array with standard normal numbers."""
    out[...] = _normals(philox_bits_.implementations["reference"], out, seed, stream, step)


def check_counters(seed: int, stream: int, step: Any) -> None:
    """Raise ValueError unless the counters fit the words that carry them; those in device memory are not looked at."""
    if not isinstance(step, int):
        return
    if not 0 <= seed < 2**64:
        raise ValueError(f"a seed is an integer from 0 to 2**64 - 1, not {seed}")
    if not (0 <= stream < 2**32 and 0 <= step < 2**32):
        raise ValueError(f"stream and step are integers from 0 to 2**32 - 1, not {stream} and {step}")


@philox_bits_.check
def _check_bits(out: Any, *, seed: int, stream: int, step: int) -> None:
    check_counters(seed, stream, step)
    writable(out=out)
    if out.ndim != 1 or not out.flags.c_contiguous:
        raise ValueError(f"out must be 1-D and contiguous, not {out.shape}")


@philox_uniform_.check
@philox_normal_.check
def _check_floats(out: Any, *, seed: int, stream: int, step: int) -> None:
    check_counters(seed, stream, step)
    writable(out=out)


def _fractions(bits_: Any, size: int, dtype: Any, seed: int, stream: int, step: int) -> Any:
    """Return ``size`` numbers in [0, 1) as float64, with 24 bits for float32 and 53 for float64."""
    words = np.empty(size if dtype == np.float32 else 2 * size, np.uint32)
    bits_(words, seed=seed, stream=stream, step=step)
    if dtype == np.float32:
        return (words >> 8) * 2.0**-24
    low, high = words[0::2].astype(np.uint64), words[1::2].astype(np.uint64)
    return ((high << np.uint64(32) | low) >> np.uint64(11)) * 2.0**-53


def _normals(bits_: Any, out: Any, seed: int, stream: int, step: int) -> Any:
    pairs = _fractions(bits_, out.size + out.size % 2, out.dtype, seed, stream, step).reshape(-1, 2)
    unit = 2.0**-24 if out.dtype == np.float32 else 2.0**-53
    radius = np.sqrt(-2.0 * np.log(pairs[:, 0] + unit))
    angle = 2.0 * np.pi * pairs[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)[: out.size].reshape(out.shape)


@philox_bits_.numba
def _philox_bits_(out: Any, *, seed: int, stream: int, step: int) -> None:
    _bits_units(-(-out.size // CHUNK), out, *_counters(seed, stream, step), work=8 * out.size)


@philox_uniform_.numba
def _philox_uniform_(out: Any, *, seed: int, stream: int, step: int) -> None:
    _fill(out, False, seed, stream, step)


@philox_normal_.numba
def _philox_normal_(out: Any, *, seed: int, stream: int, step: int) -> None:
    _fill(out, True, seed, stream, step)


def _counters(seed: int, stream: int, step: int) -> Any:
    return np.array([seed & MASK, seed >> 32, stream, step], np.uint64)


def _fill(out: Any, normal: bool, seed: int, stream: int, step: int) -> None:
    numbers = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
    chunks = -(-out.size // NORMALS)
    _floats_units(chunks, numbers.reshape(-1), normal, *_counters(seed, stream, step), work=64 * out.size)
    if numbers is not out:
        out[...] = numbers


@helper
def block_words(block, key0, key1, stream, step):
    """Return the four words of one block."""
    mask, shift = np.uint64(MASK), np.uint64(32)
    c0, c1 = np.uint64(block) & mask, np.uint64(block) >> shift
    c2, c3 = stream, step
    k0, k1 = key0, key1
    for _ in range(10):
        high, low = np.uint64(A) * c0, np.uint64(B) * c2
        c0, c1, c2, c3 = (low >> shift) ^ c1 ^ k0, low & mask, (high >> shift) ^ c3 ^ k1, high & mask
        k0, k1 = (k0 + np.uint64(W0)) & mask, (k1 + np.uint64(W1)) & mask
    return c0, c1, c2, c3


@units
def _bits_units(chunk, out, key0, key1, stream, step):
    blocks = CHUNK // 4
    for block in range(chunk * blocks, min((out.size + 3) // 4, (chunk + 1) * blocks)):
        words = block_words(block, key0, key1, stream, step)
        for word in range(4):
            at = 4 * block + word
            if at < out.size:
                out[at] = words[word]


@units
def _floats_units(chunk, out, normal, key0, key1, stream, step):
    single = out.itemsize == 4
    numbers = 4 if single else 2  # of one block
    blocks, last = NORMALS // numbers, (out.size + numbers - 1) // numbers
    unit = 2.0**-24 if single else 2.0**-53
    for block in range(chunk * blocks, min(last, (chunk + 1) * blocks)):
        words = block_words(block, key0, key1, stream, step)
        for first in range(0, numbers, 2):
            if single:
                u, v = (words[first] >> np.uint64(8)) * unit, (words[first + 1] >> np.uint64(8)) * unit
            else:
                u = ((words[1] << np.uint64(32) | words[0]) >> np.uint64(11)) * unit
                v = ((words[3] << np.uint64(32) | words[2]) >> np.uint64(11)) * unit
            if normal:
                radius, angle = np.sqrt(-2.0 * np.log(u + unit)), 2.0 * np.pi * v
                u, v = radius * np.cos(angle), radius * np.sin(angle)
            at = block * numbers + first
            if at < out.size:
                out[at] = u
            if at + 1 < out.size:
                out[at + 1] = v


# --- CUDA -------------------------------------------------------------------------------------------------------------

_cu = cuda.Source("philox.cu")


def _draw(kernel_name: str, out: Any, numbers: int, seed: int, stream: int, step: Any) -> None:
    """Fill out with the numbers of its words' blocks; ``step`` may be the counters themselves, in device memory."""
    xp = cuda.module_of(out)
    counters = step
    if not isinstance(step, xp.ndarray):
        counters = xp.asarray(np.array([seed, stream, step], np.uint64))
    target = out if out.flags.c_contiguous else xp.empty(out.shape, out.dtype)
    _cu.launch(kernel_name, target, counters, out.size, work=-(-out.size // numbers))
    if target is not out:
        out[...] = target


@philox_bits_.cuda
def _philox_bits_cuda(out: Any, *, seed: int, stream: int, step: int) -> None:
    _draw("philox_bits", out, 4, seed, stream, step)


@philox_uniform_.cuda
def _philox_uniform_cuda(out: Any, *, seed: int, stream: int, step: int) -> None:
    _draw("philox_uniform", out, 16 // out.itemsize, seed, stream, step)


@philox_normal_.cuda
def _philox_normal_cuda(out: Any, *, seed: int, stream: int, step: int) -> None:
    _draw("philox_normal", out, 16 // out.itemsize, seed, stream, step)


def count_up(counters: Any, at: int) -> None:
    """Add 1 to an entry of uint64 counters in device memory, when the stream gets there."""
    _cu.launch("count_up", counters, at, grid=(1,), block=(1,))
