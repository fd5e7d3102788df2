"""CUDA C source compiled with g++ and launched as CuPy's RawModule does it, with every argument checked."""

from __future__ import annotations

import ctypes
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from minigan.kernels.gpu.emulator.array import ndarray
from minigan.kernels.gpu.emulator.compiler import HERE, compiled
from minigan.kernels.gpu.emulator.errors import CUDADriverError, EmulationError
from minigan.kernels.gpu.emulator.stream import submit

ORDERS = ("forward", "backward", "shuffled")
FLAGS = ["-std=c++17", "-O1", "-g1", "-fPIC", "-fvisibility=hidden", "-w"]
WATCHED = ["-fsanitize=thread,bounds", "--param=tsan-instrument-func-entry-exit=0"]

_order = ["forward", 1]


@contextmanager
def order(name: str, seed: int = 1) -> Iterator[None]:
    """Run the threads of a block, and the blocks of a grid, in another order: one of ORDERS."""
    if name not in ORDERS:
        raise ValueError(f"unknown order {name!r}: choose from {', '.join(ORDERS)}")
    before = list(_order)
    _order[:] = name, seed
    try:
        yield
    finally:
        _order[:] = before


@functools.cache
def _machine() -> ctypes.CDLL:
    """Load the machine that kernels run on; their libraries find its functions by name."""
    source = "".join(f'#line 1 "{path.name}"\n{path.read_text()}' for path in sorted(HERE.glob("*.cpp")))
    library = compiled(source, ["-std=c++17", "-O2", "-fPIC"])
    return ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


class _Launch(ctypes.Structure):
    """emu_launch of runtime.hpp."""

    _fields_ = [
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_size_t),
        ("order", ctypes.c_int),
        ("seed", ctypes.c_uint),
        ("body", ctypes.c_void_p),
        ("arguments", ctypes.c_void_p),
        ("shared_begin", ctypes.c_void_p),
        ("shared_end", ctypes.c_void_p),
        ("image", ctypes.c_void_p),
        ("image_end", ctypes.c_void_p),
        ("array", ctypes.c_void_p),
        ("arrays", ctypes.c_uint),
    ]


class _Array(ctypes.Structure):
    """emu_array of runtime.hpp."""

    _fields_ = [
        ("begin", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("written", ctypes.c_void_p),
        ("argument", ctypes.c_int),
    ]


_DYNAMIC = re.compile(r"extern\s+__shared__\s+(?:__align__\(\d+\)\s+)?([\w:<> ]+?)\s+(\w+)\s*\[\s*\]")
_KERNEL = re.compile(
    r"(template\s*<[^;{]*?>\s*)?(?:extern\s*\"C\"\s*)?__global__\s+(?:void\s+)?"
    r"(?:__launch_bounds__\s*\([^)]*\)\s*)?(?:void\s+)?(\w+)\s*\(([^)]*)\)"
)


class RawModule:
    """A piece of CUDA C source and the kernels in it; compiled when the first is asked for."""

    def __init__(
        self,
        *,
        code: str,
        options: Sequence[str] = (),
        backend: str = "nvrtc",
        name_expressions: Sequence[str] | None = None,
        **_: Any,
    ) -> None:
        self.code, self.options = code, tuple(options)
        found = [(name, bool(template), parameters) for template, name, parameters in _KERNEL.findall(code)]
        self.parameters = {name: _names(parameters) for name, _, parameters in found}
        plain = [name for name, template, _ in found if not template]
        self.numbers = {name: i for i, name in enumerate([*plain, *(name_expressions or ())])}

    @functools.cached_property
    def path(self) -> Path:
        """The compiled library."""
        source = _DYNAMIC.sub(r"EMU_DYNAMIC_SHARED(\1, \2)", self.code)
        exports = "".join(f"EMU_EXPORT({number}, {name})\n" for name, number in self.numbers.items())
        kept = [o for o in self.options if o.startswith(("-D", "-U"))]
        flags = [*FLAGS, "-march=native", *WATCHED, "-include", "cuda.hpp", *kept]
        return compiled(f'#line 1 "kernel.cu"\n{source}\n{exports}', flags)

    @functools.cached_property
    def binary(self) -> ctypes.CDLL:
        """The compiled code, loaded."""
        _machine()
        return ctypes.CDLL(str(self.path))

    def compile(self, log_stream: Any = None) -> None:
        """Compile now."""
        _ = self.binary

    def get_function(self, name: str) -> RawKernel:
        """Return a kernel by its name, or by the name expression of a template's instance."""
        if name not in self.numbers:
            raise CUDADriverError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name}")
        return RawKernel(self, name)


def _names(parameters: str) -> list[str]:
    return [words[-1] for p in parameters.split(",") if (words := re.findall(r"\w+", p))]


class RawKernel:
    """A kernel: call it with a grid, a block and the arguments."""

    def __init__(self, module: RawModule, name: str) -> None:
        self.module, self.name = module, name
        self.max_dynamic_shared_size_bytes = 48 * 1024
        self._names = module.parameters[re.split(r"[<(]", name)[0].strip()]

    @functools.cached_property
    def _function(self) -> Any:
        return getattr(self.module.binary, f"emu_launch_{self.module.numbers[self.name]}")

    @functools.cached_property
    def _types(self) -> list[str]:
        text = ctypes.create_string_buffer(1024)
        getattr(self.module.binary, f"emu_signature_{self.module.numbers[self.name]}")(text)
        return text.value.decode().split(",")[:-1]

    def __call__(
        self, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], *, shared_mem: int = 0, stream: Any = None
    ) -> None:
        """Launch; raise :class:`EmulationError` with the mistake and its place."""
        if len(args) != len(self._types):
            raise EmulationError(f"{self.name} takes {len(self._types)} arguments, not {len(args)}")
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise EmulationError(
                f"{self.name}: {shared_mem} bytes of dynamic shared memory are more than the "
                f"{self.max_dynamic_shared_size_bytes} that max_dynamic_shared_size_bytes allows"
            )
        values = [self._value(i, kind, value) for i, (kind, value) in enumerate(zip(self._types, args, strict=True))]
        arrays = [(i, value) for i, value in enumerate(args) if isinstance(value, ndarray)]
        dims = [(*map(int, dim), 1, 1)[:3] for dim in (grid, block)]
        submit(lambda: self._launch(dims, shared_mem, values, arrays))

    def _launch(self, dims: list[Any], shared_mem: int, values: list[Any], arrays: list[tuple[int, ndarray]]) -> None:
        table = (_Array * max(1, len(arrays)))()
        for entry, (i, array) in zip(table, arrays, strict=False):
            start = array._host.ctypes.data
            written = array._memory.written[start - array._memory.address :]
            entry.begin, entry.size, entry.argument = start, array.nbytes, i
            entry.written = written.ctypes.data
        pointers = (ctypes.c_void_p * max(1, len(values)))(*(ctypes.addressof(value) for value in values))
        launch = _Launch(
            grid=(ctypes.c_uint * 3)(*dims[0]),
            block=(ctypes.c_uint * 3)(*dims[1]),
            shared=shared_mem,
            order=ORDERS.index(_order[0]),
            seed=_order[1],
            array=ctypes.addressof(table),
            arrays=len(arrays),
        )
        message, place = ctypes.create_string_buffer(1024), ctypes.c_size_t()
        length = ctypes.c_size_t(len(message))
        if self._function(ctypes.byref(launch), pointers, message, length, ctypes.byref(place)):
            where = self._line(place.value) if place.value else ""
            raise EmulationError(f"{self.name}{where}: {self._in_words(message.value.decode(), dict(arrays))}")

    def _value(self, i: int, kind: str, value: Any) -> Any:
        """Return an argument as the C value that a device would get; EmulationError where the types differ."""
        where = f"{self.name}: argument {i} ({self._names[i]})"
        if kind[0] == "p":
            if not isinstance(value, ndarray):
                raise EmulationError(f"{where} is a pointer, and wants a device array, not {type(value).__name__}")
            if _kind(value.dtype) != kind[1:]:
                raise EmulationError(f"{where} points to {_in_numpy(kind[1:])}, not {value.dtype}")
            if not value.flags.c_contiguous:
                raise EmulationError(f"{where} is not contiguous: a kernel does not see strides")
            return ctypes.c_void_p(value._host.ctypes.data)
        if isinstance(value, np.generic):
            given, hint = value.dtype, ""
        elif isinstance(value, bool | int | float):  # what CuPy passes
            given = np.dtype({bool: np.bool_, int: np.int64, float: np.float64}[type(value)])
            hint = f" (a Python {type(value).__name__} is passed as {given}: wrap it)"
        else:
            raise EmulationError(f"{where} is {_in_numpy(kind)}, not {type(value).__name__}")
        if _kind(given) != kind:
            raise EmulationError(f"{where} is {_in_numpy(kind)}, not {given}{hint}")
        return ctypes.create_string_buffer(np.asarray(value, given).tobytes(), given.itemsize)

    def _line(self, place: int) -> str:
        """Return the line of the source that the code at this place in the library comes from."""
        tool = shutil.which("addr2line")
        if not tool:
            return ""
        command = [tool, "-e", str(self.module.path), hex(place - 1)]
        found = subprocess.run(command, text=True, capture_output=True).stdout.strip()
        name, _, line = found.split(" ")[0].rpartition(":")
        return f", {os.path.basename(name)} line {line}" if line.isdigit() else ""

    def _in_words(self, message: str, arrays: dict[int, ndarray]) -> str:
        """Put names and entries in the place of numbers and bytes."""

        def entry(found: re.Match[str]) -> str:
            byte, i = int(found[1]), int(found[2])
            return f"entry {byte // arrays[i].itemsize} of argument {i}"

        def name(found: re.Match[str]) -> str:
            i = int(found[1])
            return f"{self._names[i]} ({arrays[i].dtype}, {arrays[i].size} entries)"

        message = re.sub(r"at byte (-?\d+) of argument (\d+), which has \d+", lambda m: "at " + entry(m), message)
        message = re.sub(r"byte (\d+) of argument (\d+)", entry, message)
        return re.sub(r"argument (\d+)", name, message)


def _kind(dtype: Any) -> str:
    return f"{dtype.kind}{dtype.itemsize}"


def _in_numpy(kind: str) -> str:
    return {"b1": "bool", "V": "a struct"}.get(kind) or str(np.dtype(kind)) if kind[0] != "p" else "a pointer"
