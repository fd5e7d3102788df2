"""Standard output that may fail: a full disk under a log, or a reader that is gone, must not cost a run."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any


class GuardedOutput:
    """A stream of text that drops everything after its first failure, which it keeps as ``failure``."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write text; return its length."""
        if self.failure is None:
            try:
                self._stream.write(text)
            except OSError as error:
                self.failure = error
        return len(text)

    def flush(self) -> None:
        """Hand the text to the system."""
        if self.failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self.failure = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def guarded_output() -> Iterator[GuardedOutput]:
    """Guard standard output, and flush it at the end.

    After a failure the guard stays: the stream would try again to write what it holds when the process ends.
    """
    stream = sys.stdout
    guard = GuardedOutput(stream)
    sys.stdout = guard
    try:
        yield guard
    finally:
        guard.flush()
        if guard.failure is None:
            sys.stdout = stream
