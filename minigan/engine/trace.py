"""A function of Tensors written down once as the calls it makes on arrays, and replayed without the engine.

An op on Tensors is a function on arrays plus the bookkeeping of a graph. If a function makes the same calls every
time, the calls alone suffice. A traced function is Python source, one line a call:

    v1 = dense_1(x0, c_2, c_3, activation='relu', slope=0.0)
    v2 = dense_1(v1, c_4, c_5, activation='linear', slope=0.0)

A trace sees only ops and calls of :func:`minigan.engine.recorder.perform`. Anything else that depends on the data or on
parameters (arithmetic on ``.data``, a branch on a value) would keep the value it had during tracing. So a trace is
replayed only after a second call gave the same bits both ways. If an input or a parameter then changes that was the
same in all calls compared so far, the next call is compared again.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from minigan.engine.autodiff import flatten, unflatten
from minigan.engine.recorder import Recorder, record
from minigan.engine.tensor import Tensor, wrap
from minigan.kernels import one_moment

State = list[dict[str, Any]]
MOST = 16  # traces in a row of which none is replayed


class Traced:
    """A function of Tensors (or None) that returns Tensors in lists, tuples and dicts; they come without a graph.

    ``objects`` are all objects that the function reads beside its inputs, such as modules. The function is traced again
    when an attribute of one changes (except its buffers), or when inputs have other shapes.

    If a replay gives another result, or an attribute changes at every call, the function is never replayed again: one
    RuntimeWarning says so.
    """

    def __init__(self, function: Callable[..., Any], objects: Callable[[], Iterable[Any]]) -> None:
        self.function = function
        self.objects = objects
        self._programs: dict[Any, _Program] = {}
        self._in_vain = 0  # traces since the last replay

    @property
    def source(self) -> str:
        """The source of the traces, one function for every set of shapes; empty before the first call."""
        return "\n\n".join(program.source for program in self._programs.values())

    def __call__(self, *inputs: Tensor | None) -> Any:
        """Return the function's result: from its code in the first two calls of a kind, from a replay afterwards."""
        arrays = [None if x is None else x.data for x in inputs]
        if not all(a is None or isinstance(a, np.ndarray) for a in arrays):
            return _constants(self.function(*inputs))  # a GPU captures the whole step: minigan.gan.replay
        kind = tuple(None if a is None else (a.shape, a.dtype) for a in arrays)
        program = self._programs.get(kind)
        if self._in_vain > MOST:
            return _constants(self.function(*inputs))
        changed = None if program is None else program.changed()
        if changed is not None:
            self._count(changed)
        if program is None or changed is not None:
            result, recorder = record(self.function, inputs, arrays)
            result = _constants(result)
            self._programs[kind] = _Program(recorder, result, arrays, self.objects())
            return result
        if program.refused:
            return _constants(self.function(*inputs))
        if program.proven(arrays):
            self._in_vain = 0
            return program.replay(arrays)
        return program.prove(self.function, inputs, arrays)

    def _count(self, changed: str) -> None:
        self._in_vain += 1
        if self._in_vain > MOST:
            warnings.warn(
                f"a traced function is not replayed, because {changed} changes from call to call: keep what changes in "
                "a buffer (buffer_names) that minigan's ops compute, or in no attribute",
                RuntimeWarning,
                stacklevel=4,
            )


class _Program:
    """One trace: its source, the function compiled from it, and the objects it was made for."""

    def __init__(self, recorder: Recorder, result: Any, arrays: list[Any], objects: Iterable[Any]) -> None:
        self.result = unflatten(result, iter([None] * len(flatten(result))))
        self.source, names = _write(recorder, [_array(x) for x in flatten(result)], len(arrays))
        exec(compile(self.source, "<traced>", "exec"), names)
        self.run = names["replay"]
        changed = {id(c.changes): c.changes for c in recorder.calls if c.changes is not None}
        declared = {address: holder for address, holder in changed.items() if address not in recorder.passing}
        self.trusted = self.refused = False
        objects = list(objects)
        self.holders = [*declared.values(), *(o for o in objects if id(o) not in declared)]
        read = [(vars(o), _attributes(o) if id(o) in declared else dict(vars(o))) for o in objects]
        self._counts = [(attributes, len(attributes)) for attributes, _ in read]
        self._names = {id(vars(o)): type(o).__name__ for o in objects}
        self._seen = [(attributes, *item) for attributes, known in read for item in known.items()]
        self._containers = [(v, _parts(v)) for _, _, v in self._seen if isinstance(v, list | dict)]
        self._constant_inputs = {i: _digest(a) for i, a in enumerate(arrays) if a is not None}
        self._tensors = [(value, value.data) for _, _, value in self._seen if isinstance(value, Tensor)]
        self._constant = [(value, value.id) for value, _ in self._tensors]  # parameters equal in all comparisons

    def changed(self) -> str | None:
        """Return which attribute of those that were read has changed, None if all are as they were."""
        for attributes, count in self._counts:
            if len(attributes) != count:
                return f"an attribute of {self._names[id(attributes)]}"
        for attributes, name, value in self._seen:
            if attributes.get(name) is not value:
                return f"attribute {name} of {self._names[id(attributes)]}"
        for container, parts in self._containers:
            now = _parts(container)
            if len(now) != len(parts) or any(a is not b for a, b in zip(now, parts, strict=True)):
                return "a list or dict in an attribute"
        return None if all(tensor.data is array for tensor, array in self._tensors) else "the array of a Tensor"

    def proven(self, arrays: list[Any]) -> bool:
        """Return whether a replay was compared, and all that was constant by then still is: parameters and inputs."""
        if not self.trusted or (self._constant and any(tensor.id != known for tensor, known in self._constant)):
            return False
        return all(_digest(arrays[i]) == known for i, known in self._constant_inputs.items())

    def replay(self, arrays: list[Any]) -> Any:
        """Return the result for other inputs of the same kind."""
        with one_moment():
            results = self.run(*arrays)
        return unflatten(self.result, iter([None if a is None else wrap(a) for a in results]))

    def prove(self, function: Callable[..., Any], inputs: Any, arrays: list[Any]) -> Any:
        """Return function(*inputs), and compare a replay with it: its result and its changes to objects."""
        before = self._state()
        try:
            replayed = _digest([*flatten(self.replay(arrays)), *self._state()])  # not kept: they take memory
        except Exception:
            replayed = None
        self._set_state(before)
        result = _constants(function(*inputs))
        self.trusted = _are_equal(replayed, _digest([*flatten(result), *self._state()]))
        self._constant = [(tensor, known) for tensor, known in self._constant if tensor.id == known]
        now = {i: _digest(arrays[i]) for i in self._constant_inputs}
        self._constant_inputs = {i: known for i, known in self._constant_inputs.items() if now[i] == known}
        self.refused = not self.trusted
        if self.refused:
            warnings.warn(
                "a traced function is not replayed, because a replay gave another result: a trace does not see "
                "computation outside minigan's ops (on .data, or a branch on a value), so write it with ops",
                RuntimeWarning,
                stacklevel=3,
            )
        return result

    def _state(self) -> State:
        return [dict(vars(holder)) for holder in self.holders]

    def _set_state(self, state: State) -> None:
        for holder, attributes in zip(self.holders, state, strict=True):
            vars(holder).clear()
            vars(holder).update(attributes)


def _parts(container: list[Any] | dict[Any, Any]) -> list[Any]:
    return list(container.values() if isinstance(container, dict) else container)


def _attributes(holder: Any) -> dict[str, Any]:
    buffers = getattr(holder, "buffer_names", ())
    return {name: value for name, value in vars(holder).items() if name not in buffers}


def _constants(result: Any) -> Any:
    return unflatten(result, iter([x if x is None else wrap(x.data) for x in flatten(result)]))


def _array(x: Tensor | None) -> Any:
    return None if x is None else x.data


def _digest(value: Any) -> Any:
    """Return what is equal for equal bits of Tensors, arrays, numbers, and lists and dicts of them."""
    if isinstance(value, Tensor):
        value = value.data
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype, hashlib.sha256(value.tobytes()).digest()
    if isinstance(value, dict):
        return [(key, _digest(part)) for key, part in value.items()]
    if isinstance(value, list | tuple):
        return [_digest(part) for part in value]
    return value


def _are_equal(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except Exception:  # of an object that does not compare
        return False


def _write(recorder: Recorder, results: list[Any], inputs: int) -> tuple[str, dict[str, Any]]:
    """Return the source of ``replay(x0, x1, ...)`` and the constants it names.

    Unused calls are left out, and every array is deleted after its last use, as in a run with the engine.
    """
    live: set[str] = set()
    names = []
    for array in results:
        uses: set[str] = set()
        source = recorder.source(array, uses)
        live |= uses
        names.append(source if uses or array is None else f"{source}.copy()")
    lines = [f"    return ({''.join(f'{name}, ' for name in names)})"]
    for result, call, uses, changes in reversed(recorder.calls):
        made = set(result.replace("(", " ").replace(")", " ").replace(",", " ").split())
        if changes is None and not made & live:
            continue
        last = sorted(name for name in (uses | made) - live if name != "_")
        if last:
            lines.append(f"    del {', '.join(last)}")
        lines.append(f"    {result} = {call}")
        live -= made
        live |= uses
    given = ", ".join(f"x{i}" for i in range(inputs))
    return "\n".join([f"def replay({given}):", *reversed(lines), ""]), dict(recorder.constants)
