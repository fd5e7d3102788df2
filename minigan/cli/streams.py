"""Stdout and stderr that are closed, full, or read by nobody: no reason for a traceback."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any

from minigan.kernels.cpu.jit import say

SIGPIPE = 13


def prepare() -> None:
    """Put something in the place of streams that the shell has closed, and of letters that they lack."""
    with contextlib.suppress(OSError):
        while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:  # or the next file would get the number of stderr
            pass
        os.close(handle)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console may lack some of our letters


def finish(code: int) -> int:
    """Flush both streams, and return the exit code of a command that ended with ``code``."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            code = code or 128 + SIGPIPE
            _drop(stream)
        except OSError as error:
            code = code or 1
            _drop(stream)
            say(f"the output cannot be written: {error.strerror}")
        except ValueError:  # somebody closed it
            pass
    return code


def _drop(stream: Any) -> None:
    """Let what is left in a stream's buffer go nowhere: Python flushes it again at the end."""
    with contextlib.suppress(OSError, ValueError):
        handle = os.open(os.devnull, os.O_WRONLY)
        os.dup2(handle, stream.fileno())
        os.close(handle)


class Patient:
    """Stdout for a long run: when it cannot be written any more, ``failed`` is its OSError and the rest is dropped."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.failed: OSError | None = None

    def write(self, text: str) -> int:
        """Write text."""
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._try(self.stream.flush)

    def _try(self, method: Any, *arguments: Any) -> None:
        if self.failed is None:
            try:
                method(*arguments)
            except OSError as error:
                self.failed = error
                _drop(self.stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
