"""A GPU for machines without one: CUDA C runs on the CPU, unchanged, behind the names that CuPy has.

    from minigan.kernels.gpu import emulator as cupy

Slow and strict. Every thread is a fiber, and every access to memory is checked. Reading unwritten memory, accesses
outside of arrays, races, barriers that not all threads reach, arguments of the wrong type and host arrays among device
arrays end in an :class:`EmulationError` that names the thread and the line. g++ compiles kernels on their first call.

| file | what |
|---|---|
| `array.py` | device memory: arrays that know which bytes were written |
| `creation.py` | making arrays, copying them to the device and back |
| `pool.py` | how much device memory there is |
| `compiler.py` | g++, and what is kept of its work |
| `module.py` | launching |
| `stream.py` | streams, events, and graphs that are recorded and replayed |
| `machine.hpp` | the machine: its state and the rules of memory |
| `fibers.cpp`, `meetings.cpp` | its threads; barriers and warps, where they wait for one another |
| `access.cpp`, `launch.cpp` | the check of every access; the blocks of a grid |
| `runtime.hpp` | what a compiled kernel and the machine say to each other |
| `cuda.hpp` | the words of CUDA C for g++ |
"""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as _np

from minigan.kernels.gpu.emulator import pool as _pool
from minigan.kernels.gpu.emulator import stream as _stream
from minigan.kernels.gpu.emulator.array import lift, ndarray
from minigan.kernels.gpu.emulator.compiler import missing_compiler
from minigan.kernels.gpu.emulator.creation import (
    array,
    asarray,
    ascontiguousarray,
    asnumpy,
    empty,
    empty_like,
    full,
    full_like,
    ones,
    ones_like,
    zeros,
    zeros_like,
)
from minigan.kernels.gpu.emulator.errors import (
    CompileException,
    CUDADriverError,
    CUDARuntimeError,
    EmulationError,
    OutOfMemoryError,
)
from minigan.kernels.gpu.emulator.module import ORDERS, RawKernel, RawModule, order
from minigan.kernels.gpu.emulator.pool import get_default_memory_pool

__version__ = "emulated"


cuda = SimpleNamespace(
    MemoryPool=_pool.MemoryPool,
    using_allocator=lambda allocator: nullcontext(),
    Stream=_stream.Stream,
    Event=_stream.Event,
    Graph=_stream.Graph,
    get_current_stream=_stream.get_current_stream,
    get_elapsed_time=_stream.get_elapsed_time,
    compiler=SimpleNamespace(CompileException=CompileException),
    runtime=SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        getDeviceCount=lambda: 1,
        deviceSynchronize=_stream.synchronize_device,
        memGetInfo=_pool.free_and_total,
    ),
    memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    driver=SimpleNamespace(CUDADriverError=CUDADriverError),
)

__all__ = [
    "ORDERS",
    "CUDADriverError",
    "CUDARuntimeError",
    "CompileException",
    "EmulationError",
    "RawKernel",
    "RawModule",
    "array",
    "asarray",
    "ascontiguousarray",
    "asnumpy",
    "cuda",
    "empty",
    "empty_like",
    "full",
    "full_like",
    "get_default_memory_pool",
    "missing_compiler",
    "ndarray",
    "ones",
    "ones_like",
    "order",
    "zeros",
    "zeros_like",
]


def __getattr__(name: str) -> Any:
    """Return what NumPy has under this name, for device arrays."""
    value = getattr(_np, name)
    return lift(value) if callable(value) and not isinstance(value, type) else value
