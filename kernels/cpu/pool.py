"""The threads that help: those that are awake share a job, and no thread waits for one that has not come.

The thread that has a job opens it, works on it until nothing is left to take, closes it, and waits only for helpers
that are inside. OpenMP's regions end when every thread of the team has come and gone: where another process or another
virtual machine has one of the cores for a millisecond, each small product would wait for it.

Helpers watch for work for about a millisecond, then look now and then, then sleep until they are called. What threads
share lies in words of memory, each on another line of the cache:

    JOB      odd while a job is open; it counts up, so that no two jobs have one number
    ACTIVE   helpers inside a job
    BUSY     1 while one of the program's threads has the helpers: another one works alone meanwhile
    TASK     the job: the address of a function (share, arguments) and of its arguments
    STOP     1 when the process ends

The thread that changes BUSY from 0 to 1 is the leader until it sets BUSY to 0 again:

            BUSY 0 → 1             JOB + 1               JOB + 1               BUSY ← 0
    free ───────────────▶ taken ──────────────▶ open ───────────────▶ closed ──────────────▶ free
    JOB even              TASK ← the job        JOB odd               JOB even
                                                leader and helpers    the leader waits
                                                do their shares       until ACTIVE is 0

    helper   sees an odd JOB that it has not done, ACTIVE + 1, sees the same JOB, reads TASK, does its share, ACTIVE − 1
                                                               another JOB: ACTIVE − 1, without a look at TASK

    word     who may write it                 when
    BUSY     any thread, 1 by exchange        always; it leads if the old value was 0. The leader, 0, at the end
    TASK     the leader                       taken: no thread reads it then
    JOB      the leader                       taken, open
    ACTIVE   each helper, + 1 and then − 1    always; who has read TASK came in while the job was open
    STOP     the thread that ends the process always
"""

from __future__ import annotations

import atexit
import functools
import os
import threading
from typing import Any

import numpy as np

from minigan.kernels.cpu.jit import NOT_FROM_PYTHON, compile_ahead, compiled, edition, late, load_numba, say
from minigan.kernels.cpu.numba_private import address_of, compiled_just_now, most_threads
from minigan.kernels.cpu.vector import Code, instruction

LINE = 8  # words of a line of the cache
JOB, ACTIVE, BUSY, TASK, STOP = (LINE * i for i in range(5))
MOST_THREADS = 64
WATCH = 20_000  # looks for work one after the other
NAPS = 1000  # looks for work after that, with NAP between
NAP = 50  # µs
PATIENCE = 2000  # looks at helpers that are still inside, before the core is offered to them

SERIAL = os.environ.get("MINIGAN_SERIAL") == "1"  # all on one thread: for tests of what a single loop does


def _a_word(types: Any, *_: Any) -> Any:
    return types.intp


def _place(code: Code, state: Any, at: Any) -> Any:
    return code.at(code.builder.inttoptr(state, code.words.as_pointer()), at)


@late
def swap_word() -> Any:
    """Build ``swap_word(state, at, value)``: write, and return the old value; all threads see one order."""

    @instruction(result=_a_word)
    def swap_word(code, state, at, value):
        return code.builder.atomic_rmw("xchg", _place(code, state, at), value, "seq_cst")

    return swap_word


@late
def add_word() -> Any:
    """Build ``add_word(state, at, value)``: add, and return the old value."""

    @instruction(result=_a_word)
    def add_word(code, state, at, value):
        return code.builder.atomic_rmw("add", _place(code, state, at), value, "seq_cst")

    return add_word


@late
def read_word() -> Any:
    """Build ``read_word(state, at)``."""

    @instruction(result=_a_word)
    def read_word(code, state, at):
        return code.builder.load_atomic(_place(code, state, at), "seq_cst", 8)

    return read_word


@late
def rest() -> Any:
    """Build ``rest()``: tell the core that this is a loop that waits."""
    from llvmlite.binding import get_process_triple

    machine = get_process_triple().split("-")[0]

    @instruction
    def rest(code):
        if machine in ("x86_64", "i686"):
            code.call("llvm.x86.sse2.pause", code.nothing)
        elif machine in ("aarch64", "arm64"):
            code.call("llvm.aarch64.hint", code.nothing, code.small(1))  # yield

    return rest


@late
def nap() -> Any:
    """Build ``nap(µs)``: sleep; nap(0) offers the core to others."""

    @instruction
    def nap(code, microseconds):
        if os.name == "posix":
            code.call("usleep", code.small, code.builder.trunc(microseconds, code.small))

    return nap


@late
def call_task() -> Any:
    """Build ``call_task(function, share, arguments)``: call the function at this address."""

    @instruction
    def call_task(code, function, share, arguments):
        kind = code.ir.FunctionType(code.nothing, [code.words, code.words])
        code.builder.call(code.builder.inttoptr(function, kind.as_pointer()), [share, arguments])

    return call_task


def _lead(state, function, arguments):
    """Run a task together with the helpers that are awake; return when all of it is done."""
    if swap_word(state, BUSY, 1) == 1:
        call_task(function, 0, arguments)
        return
    swap_word(state, TASK, function)
    swap_word(state, TASK + 1, arguments)
    add_word(state, JOB, 1)
    call_task(function, 0, arguments)
    add_word(state, JOB, 1)
    looks = 0
    while read_word(state, ACTIVE) > 0:
        looks += 1
        if looks % PATIENCE == 0:
            nap(0)
        rest()
    swap_word(state, BUSY, 0)


def _help(state, share):
    """Do this share of every job; return after a while without one."""
    done, looks = 0, 0
    while looks < WATCH + NAPS and read_word(state, STOP) == 0:
        job = read_word(state, JOB)
        if job % 2 == 1 and job != done:
            add_word(state, ACTIVE, 1)
            if read_word(state, JOB) == job:  # still open: now it cannot be left before this helper leaves
                call_task(read_word(state, TASK), share, read_word(state, TASK + 1))
            add_word(state, ACTIVE, -1)
            done, looks = job, 0
        else:
            looks += 1
            if looks < WATCH:
                rest()
            else:
                nap(NAP)


@functools.cache
def leader() -> int:
    """Return the address of the compiled :func:`_lead`; in a cold cache, have the rest compiled ahead."""
    lead = compiled(_lead, f"_lead.{edition()}", **NOT_FROM_PYTHON)
    address = address_of(lead, (load_numba().intp,) * 3)
    if compiled_just_now(lead):
        compile_ahead()
    return address


class Pool:
    """As many threads as Numba is set to use, this one included."""

    def __init__(self) -> None:
        numba = load_numba()
        self.threads = 1 if SERIAL else min(MOST_THREADS, most_threads())
        self.asleep = False
        if self.threads == 1:
            return
        self.lead = leader()
        self._called = threading.Event()
        block = np.zeros(6 * LINE, np.int64)
        self._words = block[-block.ctypes.data // 8 % LINE :]  # from the start of a line of the cache
        self.state = self._words.ctypes.data
        self._help = compiled(_help, f"_help.{edition()}", no_cfunc_wrapper=True)
        self._help.compile((numba.intp, numba.intp))
        self._helpers: list[threading.Thread] = []
        for share in range(1, self.threads):
            thread = threading.Thread(target=self._run, args=(share,), daemon=True)
            try:
                thread.start()
            except RuntimeError:  # of a limit on memory or on processes
                say(f"the system lets no more threads start: {share} of {self.threads} are used")
                self.threads = share
                break
            self._helpers.append(thread)
        atexit.register(self._end)

    def _run(self, share: int) -> None:
        while not self._words[STOP]:
            self._help(self.state, share)
            self._called.clear()
            self.asleep = True
            if not self._words[STOP]:
                self._called.wait()

    def wake(self) -> None:
        """Call the helpers that sleep."""
        self.asleep = False
        self._called.set()

    def _end(self) -> None:
        """Let the helpers leave compiled code before the interpreter takes it away."""
        self._words[STOP] = 1
        self.wake()
        for thread in self._helpers:
            thread.join(1.0)


_pool: Pool | None = None
_making = threading.Lock()


def pool() -> Pool:
    """Return this process's pool, made when it is first asked for."""
    global _pool
    if _pool is None:
        with _making:
            if _pool is None:
                _pool = Pool()
    return _pool


def _forget() -> None:
    """Forget threads that a forked process did not inherit."""
    global _pool, _making
    if _pool is not None:
        atexit.unregister(_pool._end)
    _pool, _making = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
