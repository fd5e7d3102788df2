"""Streams, events and graphs as CuPy has them: work is done at once, noted by a stream that captures, or done later.

A stream that is non-blocking promises nothing to the others, and here keeps none of it: its work waits until somebody
waits for it. A stream that reads the results of another without waiting sees the old values.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Self

from minigan.kernels.gpu.emulator.errors import CUDARuntimeError

_here = threading.local()
_streams: weakref.WeakSet[Stream] = weakref.WeakSet()


class Graph:
    """The operations of a captured stream, in order; ``launch`` does them again on the same memory."""

    def __init__(self, operations: list[Callable[[], None]]) -> None:
        self._operations = operations

    def launch(self, stream: Stream | None = None) -> None:
        """Give all operations to the stream, the current one unless named."""
        for operation in self._operations:
            submit(operation, stream)

    def upload(self, stream: Stream | None = None) -> None:
        """Nothing is sent ahead here."""


class Stream:
    """A queue of operations. One may capture; the null stream may not, as on a device."""

    null: Stream

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self._is_null = null
        self._outer: list[Stream] = []
        self._noted: list[Callable[[], None]] | None = None
        self._apart = non_blocking
        self._pending: list[Callable[[], None]] = []
        self.ptr = 0 if null else id(self)
        _streams.add(self)

    def __enter__(self) -> Self:
        self._outer.append(get_current_stream())
        _here.stream = self
        return self

    def __exit__(self, *error: object) -> None:
        _here.stream = self._outer.pop()

    def use(self) -> Self:
        """Make this the current stream of the thread."""
        _here.stream = self
        return self

    def begin_capture(self, mode: Any = None) -> None:
        """Note operations from now on instead of doing them."""
        if self._is_null:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: the null stream cannot capture")
        if self._noted is not None:
            raise CUDARuntimeError("cudaErrorIllegalState: the stream captures already")
        self._noted = []

    def end_capture(self) -> Graph:
        """Return the recorded calls."""
        if self._noted is None:
            raise CUDARuntimeError("cudaErrorIllegalState: the stream does not capture")
        noted, self._noted = self._noted, None
        return Graph(noted)

    def is_capturing(self) -> bool:
        """Return whether operations are noted."""
        return self._noted is not None

    def synchronize(self) -> None:
        """Wait for all operations."""
        forbid_in_capture("synchronize")
        self._finish()

    def _finish(self) -> None:
        pending, self._pending = self._pending, []
        for operation in pending:
            operation()

    def defers(self) -> bool:
        """Return whether operations are done later: noted, or pending."""
        return self._apart or self.is_capturing()

    def record(self, event: Event | None = None) -> Event:
        """Mark this moment by an event."""
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Let later operations wait for an event."""
        submit(event.wait, self)


Stream.null = Stream(null=True)


class Event:
    """A moment in a stream."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._time: float | None = None
        self._stream: Stream | None = None

    def record(self, stream: Stream | None = None) -> None:
        """Take the time when the stream gets here."""

        def note() -> None:
            self._time = time.perf_counter()

        self._stream = stream or get_current_stream()
        submit(note, self._stream)

    def synchronize(self) -> None:
        """Wait for the event."""
        forbid_in_capture("synchronize")
        self.wait()

    def wait(self) -> None:
        """Let its stream get here (and as far as it can)."""
        if self._stream is not None and not self._stream.is_capturing():
            self._stream._finish()


def get_elapsed_time(begin: Event, end: Event) -> float:
    """Return the milliseconds between two events."""
    if begin._time is None or end._time is None:
        raise CUDARuntimeError("cudaErrorInvalidResourceHandle: an event was not recorded")
    return 1e3 * (end._time - begin._time)


def get_current_stream(device_id: int | None = None) -> Stream:
    """Return the stream that operations of this thread go to."""
    return getattr(_here, "stream", Stream.null)


def submit(operation: Callable[[], None], stream: Stream | None = None) -> None:
    """Give an operation on device memory to a stream, the current one unless named."""
    stream = stream or get_current_stream()
    if stream._noted is not None:
        stream._noted.append(operation)
    elif stream._apart:
        stream._pending.append(operation)
    else:
        operation()


def synchronize_device() -> None:
    """Wait for all streams."""
    for stream in list(_streams):
        stream.synchronize()


def wait_to_read(what: str) -> None:
    """Let the current stream finish, so that the host can read what it made; raise where it captures."""
    forbid_in_capture(what)
    get_current_stream()._finish()


def forbid_in_capture(what: str) -> None:
    """Raise where the stream captures: the host cannot read or wait there."""
    if get_current_stream().is_capturing():
        raise CUDARuntimeError(f"cudaErrorStreamCaptureUnsupported: {what} is not permitted when the stream captures")
