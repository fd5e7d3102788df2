"""Numba, loaded and compiled on the first call of a loop nest, cached on disk, and said so when it takes time.

Decisions that hold for every kernel (measured, or found as wrong results elsewhere):

* one thread pool: Numba's, on its ``omp`` layer, and no BLAS beside it. Two pools fight for the cores; with one, idle
  threads may watch for work for a while (``GOMP_SPINCOUNT``) before they sleep, and a parallel region costs 3 µs.
  Asleep they take 15 to 60 µs to come (on a virtual machine of two cores): as long as a small product;
* no ``fastmath``: with ``contract`` and ``reassoc`` a batch-norm gradient came out with other bits when its machine
  code was loaded from the cache than when it was compiled in the process. Strict arithmetic is defined by the source
  alone, ``isnan`` tells the truth, and loops over channels vectorise all the same;
* no reduction across units of work: work is cut in units of a constant size, each writes its own slot, the slots are
  combined in order. So results do not depend on the number of threads.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import importlib
import os
import subprocess
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
LINE = 8  # words of a line of the cache
MOST_SHARES = 64
SERIAL = os.environ.get("MINIGAN_SERIAL") == "1"  # with NUMBA_BOUNDSCHECK=1, which parallel regions ignore

prange = range  # stands for numba.prange, which is put in its place when a loop nest is compiled

# what only compiled code calls needs none of the code that unpacks Python's objects
NOT_FROM_PYTHON = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

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


@functools.cache
def _keep_memory() -> None:
    """Let the C library keep freed arrays for the next step, which asks for the same sizes again.

    It would hand large ones back to the system, and a page that comes anew costs a fault: a tenth of a training step.
    Where the user has set the allocator (MALLOC_…) or it is not glibc's, it stays as it is.
    """
    choose = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if choose and not any(name.startswith("MALLOC_") for name in os.environ):
        trim_threshold, mmap_threshold = -1, -3  # the numbers of the options
        choose(mmap_threshold, 1 << 25)  # the most that glibc takes
        choose(trim_threshold, (1 << 31) - 1)


def _compile_ahead() -> None:
    """Start a process that compiles, last things first, what a training step will ask for, into the cache on disk.

    Compilation keeps one core busy; this takes the other. The process ends with this one.
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


def _load_numba() -> Any:
    import numba

    _keep_memory()
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
        numba = _load_numba()
        compiled = numba.njit(error_model="numpy", nogil=True, **NOT_FROM_PYTHON)(_bound(self.function, {}))
        # Numba would compile it anew for every constant among the arguments
        general, unliteral = compiled.get_call_template, numba.types.unliteral
        compiled.get_call_template = lambda args, named: general(tuple(map(unliteral, args)), named)
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


def _bound(function: Callable[..., Any], names: dict[str, Any]) -> Any:
    """Return the function with its late values in place, and ``names`` over its other globals."""
    made = {name: value.make() for name, value in _named(function).items()}
    return types.FunctionType(function.__code__, {**function.__globals__, **made, **names}, function.__name__)


@functools.cache
def _edition() -> str:
    """Return a name for all that machine code depends on beside a function's own file, which Numba's cache knows."""
    text = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256(text + str(vector_bytes()).encode()).hexdigest()[:8]


@late
def call_body() -> Any:
    """Build ``call_body(body, share, arguments)``: call the function at the address ``body``."""
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    @intrinsic
    def call_body(typing: Any, body: Any, share: Any, arguments: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            pointer = ir.IntType(8).as_pointer()
            kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64), pointer])
            function = builder.inttoptr(values[0], kind.as_pointer())
            builder.call(function, [values[1], builder.inttoptr(values[2], pointer)])
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, types.intp), generate

    return call_body


def _run_parallel(shares, body, arguments):
    for share in prange(shares):
        call_body(body, share, arguments)


@late
def launch() -> Any:
    """Build ``launch(count, shares, runner, function, arguments)``: function(unit, *arguments) for every unit of work.

    ``function`` is the address of compiled code and ``runner`` that of :func:`_run_parallel`, or 0 for one thread. Code
    that is called by its address is optimised once, not again in everything that calls it.

    Each thread has a share of the units, the same ones in every call of this size, so that what it reads is in its own
    cache; when it has done them it takes what is left of the others', who may have come late or run slower.
    """
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.core.errors import TypingError
    from numba.extending import intrinsic

    word, pointer = ir.IntType(64), ir.IntType(8).as_pointer()

    def write_body(context: Any, module: Any, kinds: list[Any], shared: Any) -> Any:
        """Write the function (share, what all threads share) that does a share of the units, then what others left."""
        body = ir.Function(
            module, ir.FunctionType(ir.VoidType(), [word, pointer]), context.mangler("share_of_units", kinds)
        )
        body.linkage = "internal"
        builder = ir.IRBuilder(body.append_basic_block())
        held = builder.bitcast(body.args[1], shared)
        count, shares, taken, function, packed = (
            builder.load(cgutils.gep_inbounds(builder, held, 0, i)) for i in range(5)
        )
        convention, types_of = context.call_conv, [types.intp, *kinds]
        function = builder.inttoptr(function, convention.get_function_type(types.void, types_of).as_pointer())
        given = cgutils.unpack_tuple(builder, packed)
        with cgutils.for_range(builder, shares) as loop:
            share = builder.urem(builder.add(body.args[0], loop.index), shares)
            counter = builder.gep(taken, [builder.mul(share, word(LINE))])
            end = builder.udiv(builder.mul(builder.add(share, word(1)), count), shares)
            take, work, done = (builder.append_basic_block(name) for name in ("take", "work", "done"))
            builder.branch(take)
            builder.position_at_end(take)
            unit = builder.atomic_rmw("add", counter, word(1), "monotonic")
            builder.cbranch(builder.icmp_signed("<", unit, end), work, done)
            builder.position_at_end(work)
            convention.call_function(builder, function, types.void, types_of, [unit, *given])
            builder.branch(take)
            builder.position_at_end(done)
        builder.ret_void()
        return body

    @intrinsic
    def launch(typing: Any, count: Any, shares: Any, runner: Any, function: Any, arguments: Any) -> Any:
        for kind in arguments:
            if isinstance(kind, types.Array) and kind.layout != "C":
                raise TypingError("loop nests take contiguous arrays")

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            count, shares, runner, function, packed = values
            taken = builder.alloca(word, word(LINE * MOST_SHARES))
            with cgutils.for_range(builder, shares) as loop:
                first = builder.udiv(builder.mul(loop.index, count), shares)
                builder.store(first, builder.gep(taken, [builder.mul(loop.index, word(LINE))]))
            numbers = [count, shares, taken, function, packed]
            shared = cgutils.alloca_once_value(builder, cgutils.pack_struct(builder, numbers))
            body = write_body(context, builder.module, list(signature.args[4]), shared.type)
            address = builder.bitcast(shared, pointer)
            alone = builder.icmp_unsigned("==", runner, word(0))
            with builder.if_else(alone) as (one, many):
                with one:
                    builder.call(body, [word(0), address])
                with many:
                    convention, words = context.call_conv, [types.intp] * 3
                    run = builder.inttoptr(runner, convention.get_function_type(types.void, words).as_pointer())
                    given = [shares, builder.ptrtoint(body, word), builder.ptrtoint(address, word)]
                    convention.call_function(builder, run, types.void, words, given)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, types.intp, types.intp, arguments), generate

    return launch


def _launch_units(count, shares, runner, function, *arguments):  # noqa: ANN002
    launch(count, shares, runner, function, arguments)


def _cached(numba: Any, function: Callable[..., Any], name: str, **options: Any) -> Any:
    """Compile with Numba, cached on disk under the name where there is a folder to write to."""
    function.__qualname__ = name
    options |= {"error_model": "numpy", "nogil": True}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # compile in every process
        return numba.njit(**options)(function)


def _address(dispatcher: Any, kinds: tuple[Any, ...]) -> int:
    """Return where the machine code for arguments of these types lies."""
    dispatcher.compile(kinds)
    compiled = dispatcher.overloads[kinds]
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


@functools.cache
def _runner() -> int:
    """Return the address of the parallel loop over units, 0 where all runs on one thread."""
    if SERIAL:
        return 0
    numba = _load_numba()
    name = f"_run_parallel.{_edition()}"
    run = _cached(numba, _bound(_run_parallel, {"prange": numba.prange}), name, parallel=True)
    address = _address(run, (numba.intp,) * 3)
    if run.stats.cache_path and not run.stats.cache_hits:
        _compile_ahead()
    return address


def _threads() -> int:
    """Return how many threads work: what numba.set_num_threads says."""
    return min(MOST_SHARES, sys.modules["numba"].get_num_threads())


class Units:
    """A function of a unit of work and arguments, in the Numba subset of Python; its units run in any order.

    A call runs ``count`` units, on several threads when there is enough ``work`` to repay waking them. The choice
    depends on the size alone, never on the number of threads. Arrays are contiguous and share the dtype of the first.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__doc__ = function.__doc__
        self._compiled: dict[Any, tuple[Any, int, int]] = {}
        self._kept: list[Any] = []

    def __call__(self, count: int, *args: Any, work: int) -> None:
        """Run the units 0 to count − 1; ``work`` is about the number of elements they touch."""
        start, address, parallel = self._compiled.get(args[0].dtype) or self._compile(args)
        if not parallel or work < PARALLEL_WORK or count < 2:
            start(count, 1, 0, address, *args)
        elif _workqueue:
            with _lock:
                start(count, _threads(), parallel, address, *args)
        else:
            start(count, _threads(), parallel, address, *args)

    def _compile(self, args: tuple[Any, ...]) -> tuple[Any, int, int]:
        global _workqueue
        with _lock:
            numba = _load_numba()
            _workqueue = not has_openmp()
            parallel = _runner()
            kinds = [numba.typeof(a) for a in args]
            kinds = [k.copy(readonly=False) if isinstance(k, numba.types.Array) else k for k in kinds]
            name = f"{self.function.__module__}.{self.function.__qualname__}.{_edition()}"
            dispatcher = _cached(numba, _bound(self.function, {}), name, **NOT_FROM_PYTHON)
            self._kept.append(dispatcher)  # its code must live as long as its address
            start = _cached(numba, _bound(_launch_units, {}), f"{name}.launch", no_cfunc_wrapper=True)
            self._compiled[args[0].dtype] = start, _address(dispatcher, (numba.intp, *kinds)), parallel
            return self._compiled[args[0].dtype]


def units(function: Callable[..., Any]) -> Units:
    """Compile a function of a unit of work with Numba when it is first called."""
    return Units(function)


def has_openmp() -> bool:
    """Return whether Numba's OpenMP layer loads on this machine."""
    try:
        importlib.import_module("numba.np.ufunc.omppool")
    except ImportError:
        return False
    return True
