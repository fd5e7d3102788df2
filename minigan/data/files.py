"""Reading files that anybody may have written: regular, of a bounded size, and with errors that name the path."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def require_regular(path: Path) -> int:
    """Return the size of a file in bytes; OSError, which names the path, if it is not there or not a regular file."""
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise OSError(errno.EINVAL, f"is {kind}, not a file", str(path))
    return found.st_size


def read(path: str | Path, most: int, first: int | None = None) -> bytes:
    """Return the content of a regular file of at most ``most`` bytes, or its ``first`` ones; OSError names the path.

    A pipe in the place of a file would wait for ever, and a sparse file would fill the memory: both are refused.
    """
    path = Path(path)
    size = require_regular(path)
    if size > most:
        raise OSError(errno.EFBIG, f"has {size:,} bytes, and at most {most:,} are read", str(path))
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        try:
            return file.read(size if first is None else first)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
