"""Whether ops record a graph here: a property of the code that runs, safe across exceptions, generators and threads."""

from __future__ import annotations

import contextlib
import functools
import inspect
import signal
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any


class _Mode:
    """One entered ``with`` block. Blocks form a chain from inner to outer, held by a context variable.

    A generator that yields inside a block must not switch recording off for its consumer: a block entered by a
    generator counts only while that generator's frame is on the stack, and blocks may be left in any order. Nor does a
    block count for a signal handler that interrupts it: what the handler computes is not the code in the block. It is
    one of the handlers that were set when the block was entered.
    """

    __slots__ = ("active", "enabled", "frame", "handlers", "maker", "outer", "suspendable")

    def __init__(self, maker: _GradMode, outer: _Mode | None, frame: int, suspendable: bool) -> None:
        self.maker = maker
        self.enabled = maker.enabled
        self.outer = outer
        self.frame = frame
        self.suspendable = suspendable
        self.handlers = _signal_handlers()
        self.active = True

    def counts(self) -> bool:
        """Return whether the block holds for the code that runs now."""
        if not self.active:
            return False
        if not (self.suspendable or self.handlers):
            return True
        frame: Any = sys._getframe(1)
        while frame is not None and id(frame) != self.frame:
            if frame.f_code in self.handlers and _interrupts(frame):
                return False
            frame = frame.f_back
        return frame is not None or not self.suspendable


def _interrupts(frame: Any) -> bool:
    """Return whether a handler was called by a signal, which gives it the frame that it interrupts as its argument."""
    given = inspect.getargvalues(frame)
    values = [given.locals.get(name) for name in given.args]
    values += given.locals.get(given.varargs, ()) if given.varargs else ()
    return any(value is frame.f_back for value in values)


_SIGNALS = range(1, min(32, signal.NSIG))


def _signal_handlers() -> frozenset[Any]:
    """Return the code of Python's functions that a signal calls now; none outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return frozenset()
    handlers = [signal.getsignal(number) for number in _SIGNALS]
    codes = [getattr(handler, "__code__", None) for handler in handlers]  # functions and methods have one
    return frozenset(code for code in codes if code is not None)


_mode: ContextVar[_Mode | None] = ContextVar("minigan_grad_mode", default=None)
current_mode = _mode.get


def is_grad_enabled() -> bool:
    """Return whether ops on Tensors that require grad record a graph here."""
    mode = current_mode()
    while mode is not None:
        if mode.counts():
            return mode.enabled
        mode = mode.outer
    return True


_SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def _owner(frame: Any) -> Any:
    """Return the frame that entered this block: not contextlib's, nor that of a generator that contextlib drives."""
    while frame.f_code.co_filename == contextlib.__file__ or (
        frame.f_code.co_flags & _SUSPENDABLE
        and frame.f_back is not None
        and frame.f_back.f_code.co_filename == contextlib.__file__
    ):
        frame = frame.f_back
    return frame


class _GradMode:
    enabled: bool

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        """Make a mode; ``@no_grad`` without parentheses decorates too."""
        return super().__new__(cls) if function is None else cls()(function)

    def __init__(self) -> None:
        self._entered: list[_Mode] = []  # by all threads and generators

    def __enter__(self) -> None:
        frame = _owner(sys._getframe(1))
        suspendable = frame.f_code.co_flags & _SUSPENDABLE
        mode = _Mode(self, _mode.get(), id(frame), bool(suspendable))
        self._entered.append(mode)
        _mode.set(mode)

    def __exit__(self, *error: object) -> None:
        alone = len(self._entered) == 1
        left = self._entered[0] if alone else self._left(id(_owner(sys._getframe(1))))
        left.active = False
        self._entered.remove(left)
        mode = _mode.get()
        while mode is not None and not mode.active:
            mode = mode.outer
        _mode.set(mode)

    def _left(self, frame: int) -> _Mode:
        """Return the block of this object that ends: the newest one of the frame, or of this thread, or of any."""
        mine, mode = [], _mode.get()
        while mode is not None:
            if mode.active and mode.maker is self:
                mine.append(mode)
            mode = mode.outer
        of_frame = [mode for mode in mine if mode.frame == frame]
        return (of_frame or mine or self._entered[::-1])[0]

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate a function or a generator function: its body runs in this mode."""
        make = type(self)
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generator(*args: Any, **kwargs: Any) -> Any:
                with make():
                    return (yield from function(*args, **kwargs))

            return generator

        if inspect.isasyncgenfunction(function):

            @functools.wraps(function)
            async def async_generator(*args: Any, **kwargs: Any) -> Any:
                with make():
                    async for item in function(*args, **kwargs):
                        yield item

            return async_generator

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                with make():
                    return await function(*args, **kwargs)

            return coroutine

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with make():
                return function(*args, **kwargs)

        return wrapper


class no_grad(_GradMode):  # noqa: N801
    """Record no graph inside the ``with`` block, or inside the function it decorates.

    The mode belongs to the code in the block: a generator suspended there leaves its consumer's mode alone. It is not
    carried to other threads, so a suspended generator should be resumed by the thread that started it.
    """

    enabled = False


class enable_grad(_GradMode):  # noqa: N801
    """Record a graph inside the ``with`` block even where an outer block switched recording off."""

    enabled = True
