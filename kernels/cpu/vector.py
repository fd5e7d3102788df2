"""The words in which builders write LLVM code, for what Numba has no words of: vectors, tiles, shared memory.

A builder is a function ``write(code, *arguments)``. It gets LLVM values: an array is the pointer to its first entry,
and a view (a NamedTuple) is itself, with such values as fields. :func:`instruction` makes of it what loop nests call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from minigan.kernels.cpu import numba_private
from minigan.kernels.cpu.jit import vector_bytes


class Code:
    """The code of one call. Offsets count entries; vectors need the alignment of one entry only.

    ``number`` is the type of one entry of the call's arrays and ``size`` its bytes, ``vector`` the type of ``lanes``
    entries side by side.
    """

    def __init__(self, context: Any, builder: Any, dtype: Any = None) -> None:
        from llvmlite import ir

        self.ir, self.context, self.builder = ir, context, builder
        self.words, self.small, self.bytes = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()
        self.nothing = ir.VoidType()
        if dtype is not None:
            self.number, self.size = numba_private.number_type(context, dtype)
            self.lanes = vector_bytes() // self.size
            self.vector = self.vector_of(self.lanes)

    def argument(self, kind: Any, value: Any) -> Any:
        """Return what a builder gets for an argument of this Numba type."""
        from numba import types

        if isinstance(kind, types.Array):
            return numba_private.first_entry(self.context, self.builder, kind, value)
        if isinstance(kind, types.NamedTuple):
            return kind.instance_class(*map(self.argument, kind.types, numba_private.fields(self.builder, value)))
        return value

    # --- values -------------------------------------------------------------------------------------------------------

    def word(self, number: int) -> Any:
        """Return a constant of 64 bits."""
        return self.words(number)

    def vector_of(self, lanes: int) -> Any:
        """Return the type of so many entries side by side."""
        return self.ir.VectorType(self.number, lanes)

    def constant(self, value: float, kind: Any = None) -> Any:
        """Return a vector, or a value of another kind, whose entries are all this number."""
        kind = kind or self.vector
        return self.ir.Constant(kind, [value] * kind.count if hasattr(kind, "count") else value)

    def spread(self, value: Any, kind: Any = None) -> Any:
        """Return a vector, or a value of another kind, whose entries are all this value."""
        kind = kind or self.vector
        if kind == value.type:
            return value
        one = self.builder.insert_element(self.ir.Constant(kind, self.ir.Undefined), value, self.small(0))
        return self.shuffle(one, self.ir.Constant(kind, self.ir.Undefined), [0] * kind.count)

    def shuffle(self, x: Any, y: Any, places: Sequence[int]) -> Any:
        """Return the vector of these entries of x and y, which are counted as one vector."""
        order = self.ir.Constant(self.ir.VectorType(self.small, len(places)), places)
        return self.builder.shuffle_vector(x, y, order)

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        """Return x·y + z, rounded once."""
        lanes = f"v{x.type.count}" if hasattr(x.type, "count") else ""
        return self.call(f"llvm.fma.{lanes}f{8 * self.size}", x.type, x, y, z)

    def hidden(self, value: Any) -> Any:
        """Return a word whose value the compiler cannot follow: empty assembly stands between."""
        hide = self.ir.InlineAsm(self.ir.FunctionType(self.words, [self.words]), "", "=r,0")
        return self.builder.call(hide, [value])

    # --- memory -------------------------------------------------------------------------------------------------------

    def at(self, pointer: Any, offset: Any) -> Any:
        """Return the pointer to the entry ``offset`` entries further on."""
        return self.builder.gep(pointer, [offset])

    def to(self, kind: Any, pointer: Any) -> Any:
        """Return the pointer as one to values of a kind."""
        return self.builder.bitcast(pointer, kind.as_pointer())

    def load(self, pointer: Any, kind: Any = None) -> Any:
        """Read a vector, or a value of another kind."""
        value = self.builder.load(self.to(kind or self.vector, pointer))
        value.align = self.size
        return value

    def store(self, value: Any, pointer: Any) -> None:
        """Write a vector, or a value of another kind."""
        self.builder.store(value, self.to(value.type, pointer)).align = self.size

    def prefetch(self, pointer: Any) -> None:
        """Ask for what will be read, in the second-level cache."""
        read, level, data = self.small(0), self.small(2), self.small(1)
        self.call("llvm.prefetch.p0", self.nothing, self.builder.bitcast(pointer, self.bytes), read, level, data)

    def variable(self, value: Any) -> Any:
        """Return the pointer to a variable of the call, which starts from the value."""
        return numba_private.variable(self.builder, value)

    # --- control ------------------------------------------------------------------------------------------------------

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        """Call a function of LLVM or of the C library."""
        kind = self.ir.FunctionType(result, [a.type for a in arguments])
        return self.builder.call(numba_private.external(self.builder, kind, name), arguments)

    def span(self, begin: Any, end: Any, step: Any) -> Any:
        """Write a loop: ``with code.span(begin, end, step) as (at, _)``."""
        return numba_private.span(self.builder, begin, end, step)

    def either(self, condition: Any, yes: Callable[[], list[Any]], no: Callable[[], list[Any]]) -> list[Any]:
        """Return the values that one of two pieces of code makes."""
        ways = [self.builder.append_basic_block(name) for name in ("yes", "no")]
        after = self.builder.append_basic_block("after")
        self.builder.cbranch(condition, *ways)
        ends, made = [], []
        for way, write in zip(ways, (yes, no), strict=True):
            self.builder.position_at_end(way)
            made.append(write())
            ends.append(self.builder.block)
            self.builder.branch(after)
        self.builder.position_at_end(after)
        return [self._phi(dict(zip(ends, values, strict=True))) for values in zip(*made, strict=True)]

    def choose(self, which: Any, ways: Sequence[Callable[[], None]]) -> None:
        """Run the piece of code of this number."""
        after = self.builder.append_basic_block("after")
        choice = self.builder.switch(which, after)
        for number, write in enumerate(ways):
            block = self.builder.append_basic_block(f"way{number}")
            choice.add_case(self.word(number), block)
            self.builder.position_at_end(block)
            write()
            self.builder.branch(after)
        self.builder.position_at_end(after)

    def repeat(self, rounds: Any, values: list[Any], write: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
        """Return the values after so many rounds, at least one: ``write(round, values)`` makes those of the next."""
        before, loop, after = self.builder.block, *(self.builder.append_basic_block(name) for name in ("loop", "after"))
        self.builder.branch(loop)
        self.builder.position_at_end(loop)
        number, *held = (self._phi({before: value}) for value in [self.word(0), *values])
        made = write(number, held)
        following = self.builder.add(number, self.word(1))
        for phi, value in zip([number, *held], [following, *made], strict=True):
            phi.add_incoming(value, self.builder.block)
        self.builder.cbranch(self.builder.icmp_signed("<", following, rounds), loop, after)
        self.builder.position_at_end(after)
        return made

    def _phi(self, ways: dict[Any, Any]) -> Any:
        """Return the value that comes with the block that control comes from."""
        phi = self.builder.phi(next(iter(ways.values())).type)
        for block, value in ways.items():
            phi.add_incoming(value, block)
        return phi


def instruction(write: Callable[..., Any] | None = None, *, result: Callable[..., Any] | None = None) -> Any:
    """Return what loop nests call, of the builder ``write(code, *arguments)``.

    ``result(types, *kinds)`` is the Numba type of what it returns for arguments of these types, if it returns anything.
    """
    if write is None:
        return lambda write: instruction(write, result=result)
    from numba import types
    from numba.extending import intrinsic

    def typed(typing: Any, *kinds: Any) -> Any:
        kinds = tuple(types.intp if isinstance(kind, types.Integer) else types.unliteral(kind) for kind in kinds)

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            code = Code(context, builder, _dtype(signature.args))
            made = write(code, *map(code.argument, signature.args, values))
            return numba_private.nothing(context) if result is None else made

        return (result(types, *kinds) if result else types.void)(*kinds), generate

    typed.__name__, typed.__signature__ = write.__name__, inspect.signature(write)  # type: ignore[attr-defined]
    return intrinsic(typed)


def _dtype(kinds: Sequence[Any]) -> Any:
    """Return the dtype of the first array among the arguments, those in views included."""
    from numba import types

    for kind in kinds:
        if isinstance(kind, types.Array):
            return kind.dtype
        if isinstance(kind, types.NamedTuple):
            return _dtype(kind.types)
    return None
