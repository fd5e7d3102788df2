"""Writing the files of a run: whole or not at all, with errors that name the path."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from minigan.data.files import require_regular

# what file systems answer that lack an operation: some of a network, or of a cloud
UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


class RunError(ValueError):
    """A run folder cannot be used; the message says what to do."""


def cannot_write(path: Path, error: OSError) -> OSError:
    """Return ``error`` with a sentence that names the path."""
    return OSError(error.errno, f"cannot write {path}: {error.strerror or error}")


def write_atomically(target: Path, *content: Any) -> None:
    """Replace ``target`` by parts of bytes such that a crash leaves the old file or the new one, never a piece."""
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "wb") as file:
            for part in content:
                file.write(part)
            file.flush()
            _flush(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, target)
        temporary = None
        _flush_folder(target.parent)
    except OSError as error:
        raise cannot_write(target, error) from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _flush(handle: int) -> None:
    """Have the system write a file or a folder to the disk, where its file system can."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def _flush_folder(folder: Path) -> None:
    if os.name == "posix":
        try:
            handle = os.open(folder, os.O_RDONLY)
        except PermissionError:  # a folder that may be written but not read
            return
        try:
            _flush(handle)
        finally:
            os.close(handle)


def is_temporary(path: Path, name: str) -> bool:
    """Return whether ``path`` is what a killed :func:`write_atomically` of a file leaves; ``name`` is a pattern."""
    return (
        re.fullmatch(rf"\.{name}\.[a-z0-9_]{{8}}", path.name) is not None and not path.is_symlink() and path.is_file()
    )


def append_whole(path: Path, content: bytes, heading: bytes = b"") -> None:
    """Add ``content`` to a file, after ``heading`` in a new one; a failed write leaves the file as it was.

    OSError names the path.
    """
    try:
        start = require_regular(path) if os.path.lexists(path) else 0
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
        handle = os.open(path, flags, 0o666)
        try:
            with memoryview(content if start else heading + content) as left:
                done = 0
                while done < len(left):
                    done += os.write(handle, left[done:])
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, start)
            raise
        finally:
            os.close(handle)
    except OSError as error:
        raise cannot_write(path, error) from None
