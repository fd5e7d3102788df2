"""``minigan doctor``: check this machine: one finding a line, with the remedy for each failure."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

import minigan
from minigan import kernels
from minigan.cli.flags import parse
from minigan.engine import device
from minigan.kernels.cpu.jit import cache_folder, why_no_compiler
from minigan.kernels.gpu import launch as cuda


@dataclass(frozen=True)
class Finding:
    """The result of one check; minigan cannot run unless the ``needed`` ones work."""

    what: str
    works: bool
    detail: str
    remedy: str = ""
    needed: bool = True


def examine() -> list[Finding]:
    """Check versions, kernels, threads, caches and the GPU."""
    return [_python(), *_packages(), _kernels(), _threads(), *_cache(), _folder(), _gpu(), _emulator()]


def _python() -> Finding:
    version = platform.python_version_tuple()
    works = (int(version[0]), int(version[1])) >= (3, 11)
    remedy = "" if works else "install Python 3.11 or newer"
    return Finding("python", works, f"{platform.python_version()}, minigan {minigan.__version__}", remedy)


def _packages() -> list[Finding]:
    found = []
    for name in ("numpy", "numba", "matplotlib", "pillow", "safetensors", "tyro", "rich"):
        try:
            found.append(Finding(name, True, metadata.version(name)))
        except metadata.PackageNotFoundError:
            found.append(Finding(name, False, "is missing", f"pip install {name}"))
    return found


def _kernels() -> Finding:
    if reason := why_no_compiler():
        return Finding("kernels", False, reason, "unset it: the kernels run in plain NumPy, slowly", needed=False)
    began = time.perf_counter()
    x = np.linspace(-3, 3, 60, dtype=np.float32).reshape(20, 3)
    try:
        fast = kernels.bias_act(x, x[0], activation="leaky_relu", slope=0.2)
        with kernels.use("reference"):
            plain = kernels.bias_act(x, x[0], activation="leaky_relu", slope=0.2)
    except OSError as error:  # of the surroundings
        return Finding("kernels", False, str(error), "look at the variables: env | grep NUMBA")
    except Exception as error:  # any error of Numba or its compiler is the finding
        return Finding(
            "kernels", False, f"{type(error).__name__}: {error}", "pip install --force-reinstall numba llvmlite"
        )
    works = bool(np.allclose(fast, plain))
    return Finding("kernels", works, f"compiled or loaded and run in {time.perf_counter() - began:.1f} s")


def _threads() -> Finding:
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    return Finding("threads", True, f"{cores} cores")


def _cache() -> list[Finding]:
    try:
        where = cache_folder()
    except OSError:
        return []  # the finding about the kernels says why
    if where:
        return [Finding("cache", True, f"compiled kernels are kept in {where}", needed=False)]
    remedy = "NUMBA_CACHE_DIR names a folder that can be written to"
    return [Finding("cache", False, "compiled kernels cannot be kept: every run compiles them", remedy, needed=False)]


def _folder() -> Finding:
    try:
        here = Path.cwd()
    except OSError:
        return Finding("run folder", False, "this folder is gone", "change to one that exists")
    works = _writable(here)
    remedy = "" if works else "change to a folder that you can write to, or give train such an --out"
    return Finding("run folder", works, f"{here} {'can' if works else 'cannot'} be written to", remedy)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _gpu() -> Finding:
    reason = device.why_not("cuda")
    if reason:
        what, _, remedy = reason.partition(": ")
        return Finding("gpu", False, what, remedy, needed=False)
    return Finding("gpu", True, cuda.describe("cuda"), needed=False)


def _emulator() -> Finding:
    reason = device.why_not("cuda-emulated")
    if reason:
        return Finding("emulator", False, reason, "apt install g++", needed=False)
    return Finding("emulator", True, "g++ can compile the CUDA kernels for this CPU", needed=False)


@dataclass(frozen=True)
class Doctor:
    """Check this machine, and print the remedy for each failure."""


def doctor(arguments: Sequence[str]) -> int:
    """Run ``minigan doctor``."""
    parse(Doctor, arguments)
    findings = examine()
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        print(f"{'ok' if finding.works else '--'}  {finding.what:<{width}}  {finding.detail}")
        if finding.remedy:
            print(f"    {'':<{width}}  {finding.remedy}")
    return 0 if all(finding.works for finding in findings if finding.needed) else 1
