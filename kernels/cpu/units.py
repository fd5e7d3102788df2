"""Loop nests: functions of one unit of work, whose units run in any order and on any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from minigan.kernels.cpu import numba_private
from minigan.kernels.cpu.jit import NOT_FROM_PYTHON, compiled, edition, late, load_numba
from minigan.kernels.cpu.pool import LINE, MOST_THREADS, leader, pool
from minigan.kernels.cpu.vector import Code

CHUNK = 1 << 13  # elements of one chunk of a flat loop
PARALLEL_WORK = 1 << 13  # elements from which two threads beat one: a few microseconds of work

FAILED = LINE * MOST_THREADS  # the word after those of the threads: 1 when a unit raised an exception
FAILURE = "a loop nest stopped: there was no memory for it, or (under NUMBA_BOUNDSCHECK) an index was out of bounds"

_lock = threading.RLock()


@late
def launch() -> Any:
    """Build ``launch(count, shares, lead, state, function, arguments)``: function(unit, *arguments) for every unit.

    ``function`` is the address of compiled code; code that is called by its address is optimised once, not again in
    everything that calls it. ``lead`` is that of the pool's, with its state, or 0 for one thread.

    Each thread has a share of the units, the same ones in every call of this size: its cache may still hold their
    arrays. When a thread has done its share, it takes units from threads that came late or run slower.
    """
    from numba import types
    from numba.extending import intrinsic

    @intrinsic
    def launch(typing: Any, count: Any, shares: Any, lead: Any, state: Any, function: Any, arguments: Any) -> Any:
        if any(isinstance(kind, types.Array) and kind.layout != "C" for kind in arguments):
            raise numba_private.refusal("loop nests take contiguous arrays")

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            count, shares, lead, state, function, packed = values
            code = Code(context, builder)
            taken = builder.alloca(code.words, code.word(LINE * (MOST_THREADS + 1)))
            failed = code.at(taken, code.word(FAILED))
            builder.store(code.word(0), failed)
            with code.span(code.word(0), shares, code.word(1)) as (share, _):
                first = builder.udiv(builder.mul(share, count), shares)
                builder.store(first, code.at(taken, builder.mul(share, code.word(LINE))))
            shared = code.variable(numba_private.struct(builder, [count, shares, taken, function, packed]))
            body = _write_body(code, [types.intp, *signature.args[5]], shared.type)
            address = builder.ptrtoint(shared, code.words)
            with builder.if_else(builder.icmp_unsigned("==", lead, code.word(0))) as (one, many):
                with one:
                    builder.call(body, [code.word(0), address])
                with many:
                    given = [state, builder.ptrtoint(body, code.words), address]
                    numba_private.call_address(context, builder, lead, [types.intp] * 3, given)
            with builder.if_then(builder.icmp_unsigned("!=", builder.load(failed), code.word(0)), likely=False):
                numba_private.fail(context, builder, RuntimeError, FAILURE)
            return numba_private.nothing(context)

        return types.void(*[types.intp] * 5, arguments), generate

    return launch


def _write_body(code: Code, kinds: list[Any], shared: Any) -> Any:
    """Write the function (share, shared struct) that does a share of the units, then units that others left."""
    name = numba_private.own_name(code.context, "share_of_units", kinds[1:])
    kind = code.ir.FunctionType(code.nothing, [code.words, code.words])
    body = code.ir.Function(code.builder.module, kind, name)
    body.linkage = "internal"
    code = Code(code.context, code.ir.IRBuilder(body.append_basic_block()))
    build, held = code.builder, code.builder.inttoptr(body.args[1], shared)
    count, shares, taken, function, packed = (
        build.load(build.gep(held, [code.small(0), code.small(i)], inbounds=True)) for i in range(5)
    )
    given = numba_private.fields(build, packed)
    with code.span(code.word(0), shares, code.word(1)) as (turn, _):
        share = build.urem(build.add(body.args[0], turn), shares)
        counter = code.at(taken, build.mul(share, code.word(LINE)))
        end = build.udiv(build.mul(build.add(share, code.word(1)), count), shares)
        take, work, done = (build.append_basic_block(name) for name in ("take", "work", "done"))
        build.branch(take)
        build.position_at_end(take)
        unit = build.atomic_rmw("add", counter, code.word(1), "monotonic")
        build.cbranch(build.icmp_signed("<", unit, end), work, done)
        build.position_at_end(work)
        raised = numba_private.call_address(code.context, build, function, kinds, [unit, *given])
        with build.if_then(raised, likely=False):
            build.store(code.word(1), code.at(taken, code.word(FAILED)))
        build.branch(take)
        build.position_at_end(done)
    build.ret_void()
    return body


def _launch_units(count, shares, lead, state, function, *arguments):  # noqa: ANN002
    launch(count, shares, lead, state, function, arguments)


class Units:
    """A function of a unit of work and arguments, in the Numba subset of Python; its units run in any order.

    A call runs ``count`` units, on several threads when there is enough ``work`` to repay waking them. The choice
    depends on the size alone, never on the number of threads. Arrays are contiguous. The code is compiled once for a
    dtype of the first array; later arguments must be of the same types, and TypeError says so where they are not.
    The function's last argument can be a ``view``, a NamedTuple that names its numbers and arrays. Numba unpacks single
    fields three times as fast as a NamedTuple, so the fields are passed; compiled code takes both in the same way.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__doc__ = function.__doc__
        self._compiled: dict[Any, tuple[Any, int]] = {}
        self._kinds: dict[Any, tuple[Any, ...]] = {}
        self._kept: list[Any] = []

    def __call__(self, count: int, *args: Any, view: tuple[Any, ...] = (), work: int) -> None:
        """Run the units 0 to count − 1; ``work`` is about the number of elements they touch."""
        start, address = self._compiled.get(args[0].dtype) or self._compile(args, view)
        try:
            self._start(start, address, count, args, view, work)
        except TypeError:  # no code for these types, such as a read-only array
            self._admit(start, args, view)
            self._start(start, address, count, args, view, work)

    def _start(self, start: Any, address: int, count: int, args: tuple[Any, ...], view: Any, work: int) -> None:
        if work < PARALLEL_WORK or count < 2 or (threads := pool()).threads == 1:
            start(count, 1, 0, 0, address, *args, *view)
        else:
            if threads.asleep:
                threads.wake()
            start(count, threads.threads, threads.lead, threads.state, address, *args, *view)

    def _compile(self, args: tuple[Any, ...], view: tuple[Any, ...]) -> tuple[Any, int]:
        with _lock:
            leader()
            kinds = self._kinds[args[0].dtype] = self._types(args, view)
            name = f"{self.function.__module__}.{self.function.__qualname__}.{edition()}"
            dispatcher = compiled(self.function, name, **NOT_FROM_PYTHON)
            self._kept.append(dispatcher)  # its code must live as long as its address
            start = compiled(_launch_units, f"{name}.launch", no_cfunc_wrapper=True)
            address = numba_private.address_of(dispatcher, kinds)
            numba_private.admit(start, (0, 1, 0, 0, address, *args, *view))
            self._compiled[args[0].dtype] = start, address
            return start, address

    @staticmethod
    def _types(args: tuple[Any, ...], view: tuple[Any, ...]) -> tuple[Any, ...]:
        kinds = [load_numba().intp, *map(numba_private.writable_type, args)]
        return tuple([*kinds, numba_private.view_type(view)] if view else kinds)

    def _admit(self, start: Any, args: tuple[Any, ...], view: tuple[Any, ...]) -> None:
        """Let a read-only array stand for one that could be written to; TypeError for any other type."""
        found, wanted = self._types(args, view), self._kinds[args[0].dtype]
        if found != wanted:
            name = self.function.__qualname__
            raise TypeError(f"loop nest {name} takes contiguous arrays and numbers {wanted[1:]}, not {found[1:]}")
        with _lock:
            numba_private.admit(start, (0, 1, 0, 0, 0, *args, *view))


def units(function: Callable[..., Any]) -> Units:
    """Compile a function of a unit of work with Numba when it is first called."""
    return Units(function)
