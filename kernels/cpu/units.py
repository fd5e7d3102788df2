"""Loop nests: functions of one unit of work, whose units run in any order and on any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from minigan.kernels.cpu.jit import NOT_FROM_PYTHON, address_of, compiled, edition, late, load_numba
from minigan.kernels.cpu.pool import LINE, MOST_THREADS, leader, pool

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

    Each thread has a share of the units, the same ones in every call of this size, so that what it reads is in its own
    cache; when it has done them it takes what is left of the others', who may have come late or run slower.
    """
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.core.errors import TypingError
    from numba.extending import intrinsic

    word = ir.IntType(64)

    def write_body(context: Any, module: Any, kinds: list[Any], shared: Any) -> Any:
        """Write the function (share, what all threads share) that does a share of the units, then what others left."""
        body = ir.Function(
            module, ir.FunctionType(ir.VoidType(), [word, word]), context.mangler("share_of_units", kinds)
        )
        body.linkage = "internal"
        builder = ir.IRBuilder(body.append_basic_block())
        held = builder.inttoptr(body.args[1], shared)
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
            status, _ = convention.call_function(builder, function, types.void, types_of, [unit, *given])
            with builder.if_then(status.is_error, likely=False):
                builder.store(word(1), builder.gep(taken, [word(FAILED)]))
            builder.branch(take)
            builder.position_at_end(done)
        builder.ret_void()
        return body

    @intrinsic
    def launch(typing: Any, count: Any, shares: Any, lead: Any, state: Any, function: Any, arguments: Any) -> Any:
        for kind in arguments:
            if isinstance(kind, types.Array) and kind.layout != "C":
                raise TypingError("loop nests take contiguous arrays")

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            count, shares, lead, state, function, packed = values
            taken = builder.alloca(word, word(LINE * (MOST_THREADS + 1)))
            failed = builder.gep(taken, [word(FAILED)])
            builder.store(word(0), failed)
            with cgutils.for_range(builder, shares) as loop:
                first = builder.udiv(builder.mul(loop.index, count), shares)
                builder.store(first, builder.gep(taken, [builder.mul(loop.index, word(LINE))]))
            numbers = [count, shares, taken, function, packed]
            shared = cgutils.alloca_once_value(builder, cgutils.pack_struct(builder, numbers))
            body = write_body(context, builder.module, list(signature.args[5]), shared.type)
            address = builder.ptrtoint(shared, word)
            alone = builder.icmp_unsigned("==", lead, word(0))
            with builder.if_else(alone) as (one, many):
                with one:
                    builder.call(body, [word(0), address])
                with many:
                    convention, words = context.call_conv, [types.intp] * 3
                    run = builder.inttoptr(lead, convention.get_function_type(types.void, words).as_pointer())
                    given = [state, builder.ptrtoint(body, word), address]
                    convention.call_function(builder, run, types.void, words, given)
            with builder.if_then(builder.icmp_unsigned("!=", builder.load(failed), word(0)), likely=False):
                context.call_conv.return_user_exc(builder, RuntimeError, (FAILURE,))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 5, arguments), generate

    return launch


def _launch_units(count, shares, lead, state, function, *arguments):  # noqa: ANN002
    launch(count, shares, lead, state, function, arguments)


class Units:
    """A function of a unit of work and arguments, in the Numba subset of Python; its units run in any order.

    A call runs ``count`` units, on several threads when there is enough ``work`` to repay waking them. The choice
    depends on the size alone, never on the number of threads. Arrays are contiguous and share the dtype of the first.
    The function's last argument can be a ``view``, a NamedTuple that names its numbers and arrays. Numba takes three
    times as long to unpack one as to unpack its fields: the fields are passed, and compiled code has the same calling
    convention for both.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__doc__ = function.__doc__
        self._compiled: dict[Any, tuple[Any, int]] = {}
        self._kept: list[Any] = []

    def __call__(self, count: int, *args: Any, view: tuple[Any, ...] = (), work: int) -> None:
        """Run the units 0 to count − 1; ``work`` is about the number of elements they touch."""
        start, address = self._compiled.get(args[0].dtype) or self._compile(args, view)
        if work < PARALLEL_WORK or count < 2 or (threads := pool()).threads == 1:
            start(count, 1, 0, 0, address, *args, *view)
        else:
            if threads.asleep:
                threads.wake()
            start(count, threads.threads, threads.lead, threads.state, address, *args, *view)

    def _compile(self, args: tuple[Any, ...], view: tuple[Any, ...]) -> tuple[Any, int]:
        with _lock:
            numba = load_numba()
            leader()
            kinds = [_kind(numba, a) for a in args]
            if view:
                kinds.append(numba.types.NamedTuple([_kind(numba, a) for a in view], type(view)))
            name = f"{self.function.__module__}.{self.function.__qualname__}.{edition()}"
            dispatcher = compiled(self.function, name, **NOT_FROM_PYTHON)
            self._kept.append(dispatcher)  # its code must live as long as its address
            start = compiled(_launch_units, f"{name}.launch", no_cfunc_wrapper=True)
            self._compiled[args[0].dtype] = start, address_of(dispatcher, (numba.intp, *kinds))
            return self._compiled[args[0].dtype]


def _kind(numba: Any, value: Any) -> Any:
    """Return Numba's type of an argument; of an array, the type that may be written to."""
    kind = numba.typeof(value)
    return kind.copy(readonly=False) if isinstance(kind, numba.types.Array) else kind


def units(function: Callable[..., Any]) -> Units:
    """Compile a function of a unit of work with Numba when it is first called."""
    return Units(function)
