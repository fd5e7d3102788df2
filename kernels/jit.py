"""Numba, loaded and compiled on the first call of a loop nest, cached on disk, and said so when it takes time.

Decisions that hold for every kernel (measured, or found as wrong results elsewhere):

* the ``omp`` thread layer: it opens a parallel region many times faster than ``workqueue``; its threads must sleep
  when idle (``OMP_WAIT_POLICY=passive``), or they fight the BLAS for the cores;
* no ``fastmath``: with ``contract`` and ``reassoc`` a batch-norm gradient came out with other bits when its machine
  code was loaded from the cache than when it was compiled in the process. Strict arithmetic is defined by the source
  alone, ``isnan`` tells the truth, and loops over channels vectorise all the same;
* no reduction across ``prange`` iterations: work is cut in chunks of a constant size, each writes its own slot, the
  slots are combined in order. So results do not depend on the number of threads.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read by libgomp when it loads

CHUNK = 1 << 14  # elements of one chunk of a flat loop
PARALLEL_WORK = 1 << 19  # elements from which two threads beat one: a region costs 12-20 µs (in a virtual machine)
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


class Loops:
    """A loop nest in the Numba subset of Python, compiled when first called.

    It is compiled for one thread, and with its ``prange`` loops shared among the threads when a call first has enough
    ``work`` to repay opening a parallel region. The choice depends on the size alone, never on the number of threads.
    Numba's cache follows the defining file only, so a loop nest calls no helper of another file.
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
        names = dict(self.function.__globals__)
        if parallel:
            names["prange"] = numba.prange
            _workqueue = not has_openmp()
        function = types.FunctionType(self.function.__code__, names, self.function.__name__)
        # the cache file is named after the qualified name: one for each of the two versions
        function.__qualname__ = self.function.__qualname__ + (".parallel" if parallel else "")
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
