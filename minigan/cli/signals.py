"""Signals that ask a run to stop: Ctrl-C, SIGTERM, and SIGHUP of a terminal that is closed."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class Interrupted(KeyboardInterrupt):
    """A signal ends the command; ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Stop:
    """A request to stop: ``number`` is that of the signal, 0 for none. It ``waits`` for the end of a step, or not."""

    number = 0
    waits = False


def _show_cursor() -> None:
    """Show a terminal's cursor again, which a live bar hides."""
    with contextlib.suppress(OSError):
        if os.isatty(1):
            os.write(1, b"\x1b[?25h\n")


@contextlib.contextmanager
def stopping() -> Iterator[Stop]:
    """Turn the first signal into a request, or into :class:`Interrupted` if it need not wait; a second ends at once."""
    stop, old = Stop(), {}

    def request(number: int, frame: Any) -> None:
        if stop.number:
            _show_cursor()
            os._exit(128 + number)
        stop.number = number
        if not stop.waits:
            raise Interrupted(number)

    for number in (getattr(signal, name) for name in NAMES if hasattr(signal, name)):
        if number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) == signal.SIG_IGN:
            continue  # nohup
        with contextlib.suppress(ValueError):  # handlers can be set in the main thread only
            old[number] = signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
