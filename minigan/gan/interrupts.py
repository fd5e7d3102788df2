"""A step of training is whole or not begun, whatever interrupts it: Ctrl-C waits, and a broken step is known as one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def held_back() -> Iterator[None]:
    """Hold a first Ctrl-C back until the ``with`` block ends, then raise KeyboardInterrupt; a second one raises now.

    It does so where Python's own handler would raise in the middle of the block: in the main thread, if the program has
    not set a handler.
    """
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    pressed = False

    def note(number: int, frame: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed:
        raise KeyboardInterrupt


class WholeSteps:
    """What was moved when a step ended early; ``moves()`` counts the steps done, then the moves that make one."""

    def __init__(self, moves: Callable[[], tuple[int, ...]]) -> None:
        self.moves = moves
        self.broken = False

    @contextmanager
    def step(self) -> Iterator[None]:
        """Hold Ctrl-C back during a step, and note whether an error left it after some of its moves."""
        self.require()
        before = self.moves()
        try:
            with held_back():
                yield
        finally:
            now = self.moves()
            self.broken = now != before and now[0] == before[0]

    def require(self) -> None:
        """Raise RuntimeError if the last step was broken off after some of its moves."""
        if self.broken:
            raise RuntimeError("the last step was broken off after some of its moves: load_state a saved state first")
