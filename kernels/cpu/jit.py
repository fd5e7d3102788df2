"""Numba: loaded on the first call of a loop nest, which it compiles and caches on disk; a message says so.

Decisions that hold for every kernel (measured, or found as wrong results elsewhere):

* one pool of threads (minigan.kernels.cpu.pool), and no BLAS or OpenMP beside it: two pools fight for the cores;
* no ``fastmath``: with ``contract`` and ``reassoc`` a batch-norm gradient came out with other bits when its machine
  code was loaded from the cache than when it was compiled in the process. Strict arithmetic is defined by the source
  alone, ``isnan`` tells the truth, and loops over channels vectorise all the same;
* no reduction across units of work: work is cut in units of a constant size, each writes its own slot, the slots are
  combined in order. So results do not depend on the number of threads.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import os
import subprocess
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minigan.kernels.cpu import numba_private

# functions that only compiled code calls need no code that unpacks Python's objects
NOT_FROM_PYTHON = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

_listener: Any = None


def _announce_compilation() -> None:
    """Say once, when the first real compilation (not a cache load) begins, why the first call is slow."""
    global _listener
    if _listener is not None:
        return
    _listener = numba_private.on_compilation(_say_once)


@functools.cache
def _say_once() -> None:
    say("compiling the CPU kernels (once; they are cached on disk)")


def say(sentence: str) -> None:
    """Print a line for the user on stderr, if there is one."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads it, or it was closed
            print(f"minigan: {sentence}", file=sys.stderr, flush=True)


def compile_ahead() -> None:
    """Start a process that compiles the kernels of a training step into the cache on disk, in reverse order.

    This process compiles on one core, that one on another. It ends with this one.
    """
    if os.environ.get("MINIGAN_COMPILING") or not _is_python() or (os.cpu_count() or 1) < 2:
        return
    quiet: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    program = "from minigan.kernels.warm import compile_kernels; compile_kernels()"
    ahead = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "MINIGAN_COMPILING": "1"}, **quiet)
    atexit.register(_end, ahead)


def _is_python() -> bool:
    return bool(sys.executable) and not getattr(sys, "frozen", False)  # frozen: the executable is the user's program


def _end(process: Any) -> None:
    if process.poll() is None:
        process.terminate()
        process.wait()


@functools.cache
def why_no_compiler() -> str | None:
    """Return a sentence if the user has switched Numba's compiler off, else None; does not load Numba."""
    with contextlib.suppress(ValueError):  # Numba ignores what is no number
        if int(os.environ.get("NUMBA_DISABLE_JIT", "0")):
            return "NUMBA_DISABLE_JIT is set, so Numba compiles nothing"
    return None


@functools.cache
def load_numba() -> Any:
    """Import Numba, ready to say when it compiles; OSError if a setting in the surroundings forbids it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            import numba
        except ValueError as error:
            raise OSError(f"Numba refuses a variable NUMBA_* of the environment: {error}") from error
    for warning in caught:  # those of a variable that is no number hold a traceback
        say(str(warning.message).splitlines()[0])
    if numba_private.is_disabled():
        raise OSError("Numba's compiler is switched off: use the kernels in NumPy (minigan.kernels.use('reference'))")
    _announce_compilation()
    return numba


def cache_folder() -> str | None:
    """Return the folder that compiled kernels are kept in; None if none can be written to."""
    dispatcher = load_numba().njit(types.FunctionType(_end.__code__, {}))
    with contextlib.suppress(RuntimeError):
        numba_private.keep_on_disk(dispatcher)
    return numba_private.cache_path(dispatcher)


@functools.cache
def vector_bytes() -> int:
    """Return the width of this machine's vectors in bytes (MINIGAN_VECTOR_BYTES: of narrower ones, for tests)."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    widest = 64 if features.get("avx512f") else 32 if features.get("avx") and features.get("fma") else 16
    return int(os.environ.get("MINIGAN_VECTOR_BYTES", widest))


class Late:
    """A value that loop nests name, made when the first of them is compiled: importing kernels must not load Numba."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = functools.cache(make)
        self.__doc__ = make.__doc__


class Helper(Late):
    """A function in the Numba subset of Python that loop nests call, of this or another file."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(self._compile)
        self.function = function
        self.__doc__ = function.__doc__

    def _compile(self) -> Any:
        numba = load_numba()
        compiled = numba.njit(error_model="numpy", nogil=True, **NOT_FROM_PYTHON)(_bound(self.function))
        numba_private.ignore_constants(compiled)
        return compiled


def late(make: Callable[[], Any]) -> Any:
    """Make a value when a loop nest that names it is compiled."""
    return Late(make)


def helper(function: Callable[..., Any]) -> Any:
    """Let loop nests call the function."""
    return Helper(function)


def _named(function: Callable[..., Any]) -> dict[str, Late]:
    names: Any = function.__globals__
    return {name: names[name] for name in function.__code__.co_names if isinstance(names.get(name), Late)}


def _bound(function: Callable[..., Any]) -> Any:
    """Return the function with its late values in place."""
    made = {name: value.make() for name, value in _named(function).items()}
    return types.FunctionType(function.__code__, {**function.__globals__, **made}, function.__name__)


@functools.cache
def edition() -> str:
    """Return a name for all that machine code depends on beside a function's own file, which Numba's cache knows."""
    text = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.parent.rglob("*.py")))
    return hashlib.sha256(text + str(vector_bytes()).encode()).hexdigest()[:8]


def compiled(function: Callable[..., Any], name: str, **options: Any) -> Any:
    """Compile with Numba; cache on disk under the name, if a folder can be written to."""
    numba = load_numba()
    function = _bound(function)
    function.__qualname__ = name
    dispatcher = numba.njit(error_model="numpy", nogil=True, **options)(function)
    with contextlib.suppress(RuntimeError):  # no folder: compile in every process
        numba_private.keep_on_disk(dispatcher)
    return dispatcher
