"""A record of a computation, call by call, made while it runs: the input of :mod:`minigan.engine.trace`."""

from __future__ import annotations

import keyword
import math
import re
import weakref
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

DEEPEST = 20  # tuples in tuples


class Call(NamedTuple):
    """``result = call`` as Python source, the names of arrays that it uses, and the object that it changes, if any."""

    result: str
    call: str
    uses: frozenset[str]
    changes: Any


class Recorder:
    """The calls made so far, with a name for every array that is an input or the result of a call."""

    def __init__(self, inputs: Sequence[Any]) -> None:
        self.calls: list[Call] = []
        self.constants: dict[str, Any] = {"asarray": np.asarray}
        self._constant_names: dict[int, str] = {}  # by address: the constants live as long as the recorder
        self.passing: dict[int, Any] = {}  # temporary objects made during the recording, by address
        self._names: dict[int, tuple[Any, str]] = {}
        self._named = 0
        for i, array in enumerate(inputs):
            if array is not None:
                self._names[id(array)] = weakref.ref(array), f"x{i}"

    def add(
        self,
        function: Callable[..., Any],
        arrays: Sequence[Any],
        settings: dict[str, Any],
        result: Any,
        changes: Any = None,
    ) -> Any:
        """Note a call and return its result, named, with NumPy's scalars made arrays."""
        uses: set[str] = set()
        given = [self.source(value, uses) for value in arrays]
        for key, value in settings.items():
            plain = key.isidentifier() and key.isascii() and not keyword.iskeyword(key)
            given.append((f"{key}=%s" if plain else f"**{{{ascii(key)}: %s}}") % self.source(value, uses))
        call = f"{self._constant(function, getattr(function, '__name__', 'f'))}({', '.join(given)})"
        if isinstance(result, np.generic):
            result, call = np.asarray(result), f"asarray({call})"
        self.calls.append(Call(self._bind(result), call, frozenset(uses), changes))
        return result

    def source(self, value: Any, uses: set[str], depth: int = 0) -> str:
        """Return source for a value: the name of an array (added to ``uses``), or a constant with the present value.

        Tuples are written out to a depth that Python's parser takes. An array deeper inside would be a constant: the
        proof of a replay finds it if it changes.
        """
        if isinstance(value, np.ndarray):
            known = self._names.get(id(value))  # a new array may have the address of one that is gone
            if known is not None and known[0]() is value:
                uses.add(known[1])
                return known[1]
        elif value is None or type(value) in (bool, str) or (type(value) is float and math.isfinite(value)):
            return ascii(value)
        elif type(value) is int and value.bit_length() <= 64:  # Python writes no integer of thousands of digits
            return repr(value)
        elif type(value) is tuple and depth < DEEPEST:
            return "(" + "".join(f"{self.source(part, uses, depth + 1)}, " for part in value) + ")"
        return self._constant(value, "c")

    def _constant(self, value: Any, prefix: str) -> str:
        name = self._constant_names.get(id(value))
        if name is None:
            letters = re.sub(r"\W", "", prefix, flags=re.ASCII).strip("_")  # a lambda is called <lambda>
            name = f"{letters or 'f'}_{len(self.constants)}"
            name = name if name[0].isalpha() else f"f{name}"
            self._constant_names[id(value)] = name
            self.constants[name] = value
        return name

    def _bind(self, result: Any, depth: int = 0) -> str:
        if isinstance(result, np.ndarray):
            self._named += 1
            self._names[id(result)] = weakref.ref(result), f"v{self._named}"
            return f"v{self._named}"
        if type(result) is tuple and result and depth < DEEPEST:
            return "(" + "".join(f"{self._bind(part, depth + 1)}, " for part in result) + ")"
        return "_"


_recorder: ContextVar[Recorder | None] = ContextVar("minigan_recorder", default=None)
recording = _recorder.get


def record(function: Callable[..., Any], inputs: Sequence[Any], arrays: Sequence[Any]) -> tuple[Any, Recorder]:
    """Return function(*inputs) and the calls that it made; ``arrays`` are the inputs' arrays (None for no array)."""
    recorder = Recorder(arrays)
    token = _recorder.set(recorder)
    try:
        return function(*inputs), recorder
    finally:
        _recorder.reset(token)


def perform_on_a_passing(holder: Any, method: Callable[..., Any], *arguments: Any) -> Any:
    """:func:`perform` for a method of an object that the recorded function makes, such as a twin of a module.

    A replay uses the object that was made during the recording, so ``method`` must set all its mutable state.
    """
    recorder = recording()
    if recorder is not None:
        recorder.passing[id(holder)] = holder
    return perform(method, *arguments)


def perform(method: Callable[..., Any], *arguments: Any) -> Any:
    """Call a method that changes its object, or draws at random; a replay calls it again.

    The object's state is its attributes, which are replaced and never written into. ``arguments`` and the result are
    arrays, numbers, None, or tuples of them.
    """
    recorder = recording()
    if recorder is None:
        return method(*arguments)
    token = _recorder.set(None)  # calls inside the method are not recorded: a replay calls the method
    try:
        result = method(*arguments)
    finally:
        _recorder.reset(token)
    return recorder.add(method, arguments, {}, result, changes=method.__self__)  # type: ignore[attr-defined]
