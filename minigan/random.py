"""Random numbers as a function of (seed, stream, step): the same bits on every device, thread count and machine.

A :class:`Generator` holds only three integers, so a saved counter is enough to resume a run. Streams separate the uses
of randomness: drawing more noise for one player changes neither the other's noise nor the order of the data.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from minigan import kernels
from minigan.engine.device import module, resolve, to_device
from minigan.engine.recorder import perform
from minigan.engine.tensor import FLOATS, Tensor, wrap
from minigan.kernels.philox import check_counters
from minigan.kernels.settings import whole
from minigan.ops.shape import whole_numbers

_NAMES = (
    "default", "init", "shuffle", "latent-D", "latent-G", "dropout", "penalty", "augmentation", "sample", "data",
    "condition",
)  # fmt: skip
STREAMS = {name: number for number, name in enumerate(_NAMES)}


_shared: list[tuple[Generator, int]] = []
_next_seeds: dict[str, int] = {}
_first_seed = 0


def shared(stream: str, offset: int) -> Generator:
    """Return a generator for what is made one after the other in this process; :func:`manual_seed` resets it.

    Those of one stream differ by their ``offset``.
    """
    generator = Generator(_seed_of(stream, offset), stream=stream)
    _shared.append((generator, offset))
    return generator


def next_seed(use: str) -> int:
    """Return another seed at every call, by how many there were for this use."""
    _next_seeds[use] = _next_seeds.get(use, -1) + 1
    return _seed_of(use, _next_seeds[use])


def _seed_of(use: str, number: int) -> int:
    """Return a seed of 64 bits, mixed from manual_seed's, the use and the number: seeds that are near give far ones.

    After ``manual_seed(0)`` it is the number itself.
    """
    if not _first_seed:
        return number
    digest = hashlib.sha256(f"{_first_seed} {use} {number}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def manual_seed(seed: int) -> None:
    """Start all randomness that is given no seed: the weights of new layers, the seeds of dropout and noise.

    A notebook cell that begins with it makes the same networks each time it runs. Generators, trainers and data take
    their seeds themselves. ``seed`` is an integer from 0 to 2⁶⁴ − 1; a new process behaves as after ``manual_seed(0)``.
    """
    global _first_seed
    _first_seed = Generator(seed).seed  # refuses what is no seed
    for generator, offset in _shared:
        generator.seed, generator.step = _seed_of(generator.stream, offset), 0
    _next_seeds.clear()


class Generator:
    """A counter-based generator (Philox 4x32-10). Every draw uses one ``step`` and advances it by one.

    ``seed`` is an integer from 0 to 2⁶⁴ − 1, ``stream`` one of :data:`STREAMS`, ``step`` the next draw's number.
    """

    def __init__(self, seed: int = 0, *, stream: str = "default", step: int = 0, device: str = "cpu") -> None:
        if stream not in STREAMS:
            raise ValueError(f"unknown stream {stream!r}: choose from {', '.join(STREAMS)}")
        self.device = resolve(device)
        self.seed = whole("a seed", seed)
        self.stream = stream
        self.step = whole("a step", step)
        self.counters: Any = None
        check_counters(**self._counters())

    def _counters(self) -> dict[str, int]:
        return {"seed": self.seed, "stream": STREAMS[self.stream], "step": self.step}

    def at(self, step: int) -> Generator:
        """Return the same generator, positioned at draw number ``step``."""
        return Generator(self.seed, stream=self.stream, step=step, device=self.device)

    def _fill(self, fill: Any, shape: int | tuple[int, ...], dtype: Any) -> Tensor:
        if np.dtype(dtype) not in FLOATS:
            raise TypeError(f"random numbers are float32 or float64, not {np.dtype(dtype)}")
        return wrap(perform(self._draw, fill, whole_numbers("a length", shape), dtype))

    def _draw(self, fill: Any, shape: int | tuple[int, ...], dtype: Any) -> Any:
        out = module(self.device).empty(shape, dtype)
        if self.counters is None:
            fill(out, **self._counters())
        else:
            fill(out, **{**self._counters(), "step": self.counters})
            kernels.count_up(self.counters, 2)
        self.step += 1
        return out

    def keep_counters_there(self, there: bool) -> None:
        """Keep the counters in device memory, or stop: every replay of a captured graph then draws new numbers."""
        numbers = np.array([self.seed, STREAMS[self.stream], self.step], np.uint64)
        self.counters = to_device(numbers, self.device) if there else None

    def go_to(self, step: int) -> None:
        """Make ``step`` the number of the next draw."""
        self.step = step
        if self.counters is not None:
            self.counters[2] = step

    def uniform(self, shape: int | tuple[int, ...] = (), *, dtype: Any = np.float32) -> Tensor:
        """Return numbers in [0, 1): 24 random bits each for float32, 53 for float64."""
        return self._fill(kernels.philox_uniform_, shape, dtype)

    def normal(self, shape: int | tuple[int, ...] = (), *, dtype: Any = np.float32) -> Tensor:
        """Return standard normal numbers (Box–Muller)."""
        return self._fill(kernels.philox_normal_, shape, dtype)

    def permutation(self, n: int) -> np.ndarray:
        """Return 0 … n − 1 in random order: the order of n random 64-bit keys."""
        words = np.empty(2 * whole("permutation: n", n), np.uint32)
        kernels.philox_bits_(words, **self._counters())
        self.step += 1
        return np.argsort(words.view(np.uint64), kind="stable")

    def __repr__(self) -> str:
        return f"Generator(seed={self.seed}, stream={self.stream!r}, step={self.step})"
