"""A step of training is whole or not begun, whatever interrupts it: Ctrl-C waits, and a broken step is known as one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from minigan.nn import Module
from minigan.random import Generator


class Press:
    """Whether Ctrl-C was pressed while :func:`noted` was held."""

    pressed = False


@contextmanager
def noted(press: Press) -> Iterator[None]:
    """Note a first Ctrl-C during the ``with`` block in ``press``; a second one raises KeyboardInterrupt at once.

    It does so where Python's own handler would raise in the middle of the block: in the main thread, if the program has
    not set a handler.
    """
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def note(number: int, frame: object) -> None:
        if press.pressed:
            raise KeyboardInterrupt
        press.pressed = True

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def held_back() -> Iterator[None]:
    """Hold a first Ctrl-C back until the ``with`` block ends, then raise KeyboardInterrupt; a second one raises now."""
    press = Press()
    with noted(press):
        yield
    if press.pressed:
        raise KeyboardInterrupt


class Beginning:
    """What a step changes before its first move: the counters of noise, and the buffers of networks."""

    def __init__(self, noise: Sequence[Generator], networks: Sequence[Module]) -> None:
        self._noise = noise
        modules = [module for network in networks for _, module in network.modules()]
        self._buffers = [(module, name) for module in modules for name in module.buffer_names]

    def look(self) -> Callable[[], None]:
        """Return a function that puts back what is there now; buffers are replaced, never written into."""
        steps, buffers = [noise.step for noise in self._noise], [getattr(*place) for place in self._buffers]

        def back() -> None:
            for noise, step in zip(self._noise, steps, strict=True):
                noise.go_to(step)
            for (module, name), buffer in zip(self._buffers, buffers, strict=True):
                setattr(module, name, buffer)

        return back


class WholeSteps:
    """Steps that are whole or not begun.

    A step that fails before its first move is undone with the help of ``beginning``; one that fails later is broken.
    """

    def __init__(self, beginning: Beginning) -> None:
        self.beginning = beginning
        self.broken = False

    @contextmanager
    def step(self, moves: Callable[[], tuple[int, ...]]) -> Iterator[None]:
        """Hold Ctrl-C back during a step; undo a step that an error ends before any move, or note that it is broken.

        ``moves()`` counts the steps done, then the moves that make one.
        """
        self.require()
        before, back = moves(), self.beginning.look()
        try:
            with held_back():
                yield
        finally:
            now = moves()
            self.broken = now != before and now[0] == before[0]
            if now == before:
                back()

    def require(self) -> None:
        """Raise RuntimeError if the last step was broken off."""
        if self.broken:
            raise RuntimeError("the last step was broken off after some of its moves: load_state a saved state first")
