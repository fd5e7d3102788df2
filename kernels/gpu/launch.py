"""The one place that knows CuPy: finding it or its stand-in, compiling the .cu files, and launching their kernels.

A kernel's parameters are read from its own source, so that arguments become what the kernel expects: a C-contiguous
array of the right dtype for every pointer, a number of the right size for everything else. CuPy would check none of it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).parent  # of the headers
KERNELS = HERE.parent  # of the .cu files
THREADS = 256  # of a block of a grid-stride kernel
MOST_BLOCKS = 4096  # of a grid-stride kernel: enough to fill any device many times over
COLUMN_THREADS = 256  # of a block that sums columns, as in common.cuh
MOST_BANDS = 256  # of rows that are summed apart
TYPES = {
    "T": None,  # the dtype of the instance
    "float": np.float32,
    "double": np.float64,
    "int": np.int32,
    "unsigned": np.uint32,
    "Size": np.int64,
    "Word": np.uint64,
    "bool": np.bool_,
}


def device_of(array: Any) -> str | None:
    """Return "cuda" for an array of CuPy, "cuda-emulated" for one of its stand-in, None for anything else."""
    kind = type(array)
    if kind.__name__ != "ndarray":
        return None
    if kind.__module__.startswith("minigan.kernels.gpu.emulator"):
        return "cuda-emulated"
    return "cuda" if kind.__module__.partition(".")[0] == "cupy" else None


def module_of(array: Any) -> ModuleType:
    """Return the module that ``array`` belongs to: CuPy or its stand-in; TypeError for anything else."""
    device = device_of(array)
    if device is None:
        raise TypeError(f"a device array is wanted here, not {type(array).__name__}")
    return load(device)


@functools.cache
def load(device: str) -> ModuleType:
    """Import CuPy for "cuda", its stand-in for "cuda-emulated"."""
    return importlib.import_module("cupy" if device == "cuda" else "minigan.kernels.gpu.emulator")


@functools.cache
def reason_against(device: str) -> str | None:
    """Return a sentence on why the device cannot be used and what to do; None if it can."""
    if device == "cuda-emulated":
        return load(device).missing_compiler()
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed: pip install 'cupy-cuda13x[ctk]' (or 'cupy-cuda12x[ctk]' for an older driver)"
    try:
        cupy = load(device)
    except ImportError as error:
        return f"CuPy is installed but does not import: {error}"
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        return _reason_of(cupy, error)
    if not count:
        return f"CuPy {cupy.__version__} finds no GPU: see CUDA_VISIBLE_DEVICES and nvidia-smi"
    try:
        probe = cupy.ones(1, cupy.float32)
        cupy.RawModule(code='extern "C" __global__ void probe(float* x) { x[0] += 1.f; }').get_function("probe")(
            (1,), (1,), (probe,)
        )
        works = float(probe[0]) == 2.0
    except Exception as error:  # whatever a broken installation raises is the reason
        return f"CuPy {cupy.__version__} finds {count} GPU(s) but cannot run a kernel: {type(error).__name__}: {error}"
    return None if works else f"CuPy {cupy.__version__}: a kernel gave a wrong result on this GPU"


def _reason_of(cupy: ModuleType, error: Any) -> str:
    driver, built = (f"{v // 1000}.{v % 1000 // 10}" for v in _versions(cupy))
    if driver == "0.0":
        return f"CuPy {cupy.__version__} is installed, but there is no NVIDIA driver on this machine"
    if error.status == 35:
        older = f"cupy-cuda{driver.partition('.')[0]}x"
        return f"CuPy is built for CUDA {built} but the driver knows CUDA {driver}: update it, or install {older}"
    if error.status == 100:
        return f"there is an NVIDIA driver (CUDA {driver}) but no GPU that can be seen: look at CUDA_VISIBLE_DEVICES"
    return f"CuPy {cupy.__version__}: {error}"


def _versions(cupy: ModuleType) -> tuple[int, int]:
    runtime = cupy.cuda.runtime
    return runtime.driverGetVersion(), runtime.runtimeGetVersion()


def describe(device: str) -> str:
    """Return the device's name and capability, for one that can be used."""
    module = load(device)
    if device == "cuda-emulated":
        return "CUDA on this CPU"
    properties = module.cuda.runtime.getDeviceProperties(0)
    name = f"{properties['name'].decode()} (sm_{properties['major']}{properties['minor']})"
    return f"{name}, CuPy {module.__version__}"


@contextmanager
def sizes_told(device: str) -> Iterator[None]:
    """Turn a device's refusal of more memory into a MemoryError that says how much was wanted, held and free."""
    if device == "cpu":
        yield
        return
    module = load(device)
    try:
        yield
    except module.cuda.memory.OutOfMemoryError as error:
        wanted = re.search(r"allocating ([\d,]+) bytes", str(error))
        more = f"{int(wanted[1].replace(',', '')) / 2**20:,.1f} MiB more are wanted; " if wanted else ""
        free, total = (size / 2**20 for size in module.cuda.runtime.memGetInfo())
        used = module.get_default_memory_pool().used_bytes() / 2**20
        raise MemoryError(
            f"on {describe(device)} {more}arrays hold {used:,.1f} MiB, and {free:,.1f} of {total:,.1f} MiB are free"
        ) from error


# --- kernels ----------------------------------------------------------------------------------------------------------


class Parameter(NamedTuple):
    """A parameter of a kernel: its type in C, whether it is a pointer, its name."""

    kind: str
    pointer: bool
    name: str


_KERNEL = re.compile(
    r"(?:template\s*<([^>]*)>\s*)?__global__\s+void\s*(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)"
)


def parse(source: str) -> dict[str, list[Parameter]]:
    """Return the parameters of a source's kernels by name; ValueError for one that no launch could fill."""
    found: dict[str, list[Parameter]] = {}
    for _, name, text in _KERNEL.findall(source):
        found[name] = []
        for part in text.split(","):
            words = re.findall(r"\w+", part.replace("const", "").replace("__restrict__", ""))
            if len(words) != 2 or words[0] not in TYPES:
                raise ValueError(f"{name}: a parameter is one of {', '.join(TYPES)}, not {part.strip()!r}")
            found[name].append(Parameter(words[0], "*" in part, words[1]))
    return found


def templates(source: str) -> dict[str, list[str]]:
    """Return the template parameters of a source's kernels by name, [] for a kernel that is no template."""
    return {name: re.findall(r"(\w+)\s*(?:,|$)", template) for template, name, _ in _KERNEL.findall(source)}


def expand(file: str, seen: set[str]) -> str:
    """Return a file's text with each of our headers in the place of its first #include; lines keep their numbers."""
    seen.add(file)
    where = HERE if file.endswith(".cuh") else KERNELS
    lines = [f'#line 1 "{file}"']
    for number, line in enumerate((where / file).read_text(encoding="utf-8").splitlines(), 1):
        header = re.match(r'#include "(\w+\.cuh)"', line)
        if line == "#pragma once" or (header and header[1] in seen):
            lines.append("")
        elif header:
            lines += [expand(header[1], seen), f'#line {number + 1} "{file}"']
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


class Source:
    """The kernels of one .cu file, compiled for a device and a dtype when first launched."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._functions: dict[Any, Any] = {}

    @functools.cached_property
    def text(self) -> str:
        """The source, with what it includes in its place (a compiler's cache sees changes in all of it)."""
        return expand(self.file, set())

    @functools.cached_property
    def kernels(self) -> dict[str, list[Parameter]]:
        """The parameters of the kernels by name."""
        return parse(self.text)

    def launch(
        self,
        name: str,
        *arguments: Any,
        work: int | None = None,
        grid: Sequence[int] = (),
        block: Sequence[int] = (THREADS,),
        variant: Sequence[bool] = (),
    ) -> None:
        """Run a kernel: over ``work`` entries in a grid-stride loop, or on the given ``grid``.

        The instance of a template is that of the first array's dtype, and of ``variant``.
        """
        module = module_of(arguments[0])
        parameters = self.kernels[name]
        pairs = zip(arguments, parameters, strict=True)
        dtype = next((a.dtype for a, p in pairs if p.pointer and p.kind == "T"), None)
        values = [_value(name, p, a, dtype, module) for p, a in zip(parameters, arguments, strict=True)]
        if work is not None:
            if work == 0:
                return
            grid = (min(MOST_BLOCKS, -(-work // block[0])),)
        self._function(module, name, dtype, tuple(variant))(tuple(grid), tuple(block), values)

    def sum_columns(
        self, name: str, sums: int, rows: int, width: int, *arrays: Any, settings: Sequence[Any] = ()
    ) -> Any:
        """Run a kernel made of column_sums (common.cuh) on (rows, width) matrices.

        Returns its partial sums (sums, bands, width) in float64, one for each band of rows.
        """
        across = min(32, 1 << max(0, width - 1).bit_length())
        down = COLUMN_THREADS // across
        band = down * max(4, -(-rows // (down * MOST_BANDS)))
        bands = max(1, -(-rows // band))
        partial = module_of(arrays[0]).empty((sums, bands, width), np.float64)
        grid, block = (-(-width // across), bands), (across, down)
        self.launch(name, *arrays, partial, rows, width, band, *settings, grid=grid, block=block)
        return partial

    def _function(self, module: ModuleType, name: str, dtype: Any, variant: tuple[bool, ...]) -> Any:
        key = module, name, dtype, variant
        if key not in self._functions:
            instance = instance_of(name, dtype, variant)
            compiled = module.RawModule(code=self.text, options=("-std=c++17",), name_expressions=(instance,))
            self._functions[key] = compiled.get_function(instance)
        return self._functions[key]


def instance_of(name: str, dtype: Any, variant: Sequence[bool]) -> str:
    """Return the C name of a template's instance."""
    if dtype is None:
        return name
    kind = {"float32": "float", "float64": "double"}[np.dtype(dtype).name]
    return f"{name}<{', '.join([kind, *('true' if choice else 'false' for choice in variant)])}>"


def _value(kernel: str, parameter: Parameter, argument: Any, dtype: Any, module: ModuleType) -> Any:
    """Return an argument as the kernel takes it; TypeError or ValueError where it cannot be that."""
    wanted = np.dtype(dtype if parameter.kind == "T" else TYPES[parameter.kind])
    if not parameter.pointer:
        return wanted.type(argument)
    if not isinstance(argument, module.ndarray):
        raise TypeError(f"{kernel}: {parameter.name} must be on the device, not a {type(argument).__name__}")
    if argument.dtype != wanted:
        raise TypeError(f"{kernel}: {parameter.name} is {argument.dtype} where {wanted} is wanted")
    if not argument.flags.c_contiguous:
        raise ValueError(f"{kernel}: {parameter.name} must be contiguous")
    return argument


_tf32: ContextVar[bool] = ContextVar("minigan_tf32", default=False)


@contextmanager
def allow_tf32(allowed: bool = True) -> Iterator[None]:
    """Let float32 products run on tensor cores, rounded to TF32 (10 bits of mantissa), inside the ``with`` block."""
    token = _tf32.set(allowed)
    try:
        yield
    finally:
        _tf32.reset(token)


def tf32(array: Any) -> bool:
    """Return whether products of this array are to be made on tensor cores."""
    return _tf32.get() and array.dtype == np.float32 and has_tf32(str(device_of(array)))


@functools.cache
def has_tf32(device: str) -> bool:
    """Return whether a usable device has tensor cores for TF32: GPUs from sm_80 on have, and the emulated one."""
    return device == "cuda-emulated" or load(device).cuda.runtime.getDeviceProperties(0)["major"] >= 8
