"""Numba, loaded and compiled on the first call of a loop nest, cached on disk, and said so when it takes time.

Decisions that hold for every kernel (measured, or found as wrong results elsewhere):

* one thread pool: Numba's, on its ``omp`` layer, and no BLAS beside it. Two pools fight for the cores; with one, idle
  threads may watch for work for a while (``GOMP_SPINCOUNT``) before they sleep, and a parallel region costs 3 µs.
  Asleep they take 15 to 60 µs to come (on a virtual machine of two cores): as long as a small product;
* no ``fastmath``: with ``contract`` and ``reassoc`` a batch-norm gradient came out with other bits when its machine
  code was loaded from the cache than when it was compiled in the process. Strict arithmetic is defined by the source
  alone, ``isnan`` tells the truth, and loops over channels vectorise all the same;
* no reduction across ``prange`` iterations: work is cut in chunks of a constant size, each writes its own slot, the
  slots are combined in order. So results do not depend on the number of threads.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

if "OMP_WAIT_POLICY" not in os.environ:  # read by libgomp when it loads: watch for work for about half a millisecond
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")

CHUNK = 1 << 13  # elements of one chunk of a flat loop
PARALLEL_WORK = 1 << 15  # elements from which two threads beat one
SERIAL = os.environ.get("MINIGAN_SERIAL") == "1"  # with NUMBA_BOUNDSCHECK=1, which parallel regions ignore

prange = range  # stands for numba.prange, which is put in its place when a loop nest is compiled

_lock = threading.RLock()
_workqueue = False  # numba's workqueue layer dies when two Python threads enter it
_listener: Any = None


def _announce_compilation(numba: Any) -> None:
    """Say once, when the first real compilation (not a cache load) begins, why the first call is slow."""
    global _listener
    if _listener is not None:
        return
    from numba.core import event

    class FirstCompilation(event.Listener):
        announced = False

        def on_start(self, event: Any) -> None:
            if not self.announced:
                self.announced = True
                print("minigan: compiling the CPU kernels (once; they are cached on disk)", file=sys.stderr, flush=True)

        def on_end(self, event: Any) -> None:
            pass

    _listener = FirstCompilation()
    event.register("numba:compile", _listener)


def _load_numba() -> Any:
    import numba

    numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]
    _announce_compilation(numba)
    return numba


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
        return _load_numba().njit(error_model="numpy", nogil=True)(_bound(self.function, {}))


def late(make: Callable[[], Any]) -> Any:
    """Make a value when a loop nest that names it is compiled."""
    return Late(make)


def helper(function: Callable[..., Any]) -> Any:
    """Let loop nests call the function."""
    return Helper(function)


def _named(function: Callable[..., Any]) -> dict[str, Late]:
    names: Any = function.__globals__
    return {name: names[name] for name in function.__code__.co_names if isinstance(names.get(name), Late)}


def _bound(function: Callable[..., Any], names: dict[str, Any]) -> Any:
    """Return the function with its late values in place, and ``names`` over its other globals."""
    made = {name: value.make() for name, value in _named(function).items()}
    return types.FunctionType(function.__code__, {**function.__globals__, **made, **names}, function.__name__)


def _sources(function: Callable[..., Any]) -> set[str]:
    """Return the files that the function's code comes from, other than its own."""
    files = set()
    for value in _named(function).values():
        source = value.function if isinstance(value, Helper) else value.make.__wrapped__
        files |= {source.__code__.co_filename} | _sources(source)
    return files - {function.__code__.co_filename}


def _edition(function: Callable[..., Any]) -> str:
    """Return a name for what machine code depends on beside the function's own file, which Numba's cache knows."""
    text = b"".join(Path(file).read_bytes() for file in sorted(_sources(function)))
    return hashlib.sha256(text + str(vector_bytes()).encode()).hexdigest()[:8] if text else ""


class Loops:
    """A loop nest in the Numba subset of Python, compiled when first called.

    It is compiled for one thread, and with its ``prange`` loops shared among the threads when a call first has enough
    ``work`` to repay opening a parallel region. The choice depends on the size alone, never on the number of threads.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__doc__ = function.__doc__
        self._serial: Any = None
        self._parallel: Any = None

    def __call__(self, *args: Any, work: int) -> None:
        """Run the loops; ``work`` is about the number of elements they touch."""
        if work < PARALLEL_WORK:
            (self._serial or self.compile(parallel=False))(*args)
        elif _workqueue:
            with _lock:
                (self._parallel or self.compile(parallel=True))(*args)
        else:
            (self._parallel or self.compile(parallel=True))(*args)

    def compile(self, *, parallel: bool) -> Any:
        """Return the Numba dispatcher, making it on the first call."""
        with _lock:
            if parallel:
                self._parallel = self._parallel or self._jit(_load_numba(), not SERIAL)
                return self._parallel
            self._serial = self._serial or self._jit(_load_numba(), False)
            return self._serial

    def _jit(self, numba: Any, parallel: bool) -> Any:
        global _workqueue
        if parallel:
            _workqueue = not has_openmp()
        function = _bound(self.function, {"prange": numba.prange} if parallel else {})
        # the cache file is named after the qualified name: one for each version, and for each edition of its helpers
        kind = [".parallel"] * parallel + [_edition(self.function)]
        function.__qualname__ = self.function.__qualname__ + "".join(kind)
        function.__module__ = self.function.__module__
        options = {"parallel": parallel, "error_model": "numpy", "nogil": True}
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no folder to write the cache to: compile in every process
            return numba.njit(**options)(function)


def has_openmp() -> bool:
    """Return whether Numba's OpenMP layer loads on this machine."""
    try:
        importlib.import_module("numba.np.ufunc.omppool")
    except ImportError:
        return False
    return True


def loops(function: Callable[..., Any]) -> Loops:
    """Compile a loop nest with Numba when it is first called."""
    return Loops(function)
