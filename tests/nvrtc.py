"""NVIDIA's runtime compiler by ctypes: it needs its wheel (pip install nvidia-cuda-nvrtc), no driver and no GPU."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
from pathlib import Path


@functools.cache
def library():
    """Return the compiler, or None where the wheel is not installed."""
    found = importlib.util.find_spec("nvidia")
    folders = [Path(path) for path in found.submodule_search_locations] if found else []
    files = [file for folder in folders for file in sorted(folder.glob("**/libnvrtc.so.*")) if "alt" not in file.name]
    return ctypes.CDLL(str(files[-1])) if files else None


def compile_to_cubin(source: str, name: str, arch: int, instances: list[str]) -> tuple[bytes, str]:
    """Return (machine code, log) of a source for sm_``arch``; AssertionError with the log where it does not compile."""
    nvrtc, program = library(), ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), 0, None, None) == 0
    for instance in instances:
        assert nvrtc.nvrtcAddNameExpression(program, instance.encode()) == 0
    options = [f"-arch=sm_{arch}", "-std=c++17", "--ptxas-options=-v"]
    failed = nvrtc.nvrtcCompileProgram(
        program, len(options), (ctypes.c_char_p * len(options))(*map(str.encode, options))
    )
    log = _text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).decode().rstrip("\0")
    assert not failed, log
    code = _text(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return code, log


def _text(size_of, get, program) -> bytes:
    size = ctypes.c_size_t()
    size_of(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    get(program, text)
    return text.raw


def spills(log: str) -> list[str]:
    """Return the lines of a log that tell of registers spilled to memory."""
    return [line for line in log.splitlines() if any(int(n) for n in re.findall(r"(\d+) bytes spill", line))]


def registers(log: str) -> list[int]:
    """Return the registers that each kernel uses."""
    return [int(n) for n in re.findall(r"Used (\d+) registers", log)]
