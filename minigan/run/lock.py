"""One writer for a run folder: a lock that the system takes back when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from minigan.kernels.cpu.jit import say
from minigan.run.files import UNSUPPORTED, RunError, cannot_write

NAME = ".minigan.lock"  # holds the number of the process
_FAR = 1 << 30  # Windows locks bytes, and the first ones must stay readable

if sys.platform == "win32":
    import msvcrt

    def _try(handle: int) -> None:
        os.lseek(handle, _FAR, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)
else:
    import fcntl

    def _try(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


_TAKEN = (BlockingIOError, PermissionError)  # as POSIX and Windows say that another process has the lock


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        raise cannot_write(path, error) from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise RunError(f"{path} is not a file: remove it")
    return handle


def _is_still(handle: int, path: Path) -> bool:
    """Return whether the opened file has its name still: its last holder may have removed it."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _in_use(folder: Path, handle: int) -> RunError:
    said = os.read(handle, 20).decode(errors="replace").strip()
    who = f"process {said}" if said.isascii() and said.isdigit() else "another process"
    return RunError(f"{folder} is in use: {who} is writing a run there; wait for its end, or choose another folder")


def _lock(handle: int, path: Path) -> None:
    """Lock an opened file; where the file system has no locks, say so and go on."""
    try:
        _try(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        say(f"the file system of {path.parent} has no locks: let one command at a time write there")


def _take(folder: Path) -> int:
    """Return the handle of the locked file; :class:`RunError` names the process that holds it."""
    path = folder / NAME
    while True:
        handle = _open(path)
        try:
            _lock(handle, path)
            if _is_still(handle, path):
                os.ftruncate(handle, 0)
                os.write(handle, f"{os.getpid()}\n".encode())
                return handle
        except _TAKEN:
            taken = _in_use(folder, handle)
            os.close(handle)
            raise taken from None
        except OSError as error:
            os.close(handle)
            raise OSError(error.errno, f"cannot lock {path}: {error.strerror}") from None
        os.close(handle)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; :class:`RunError` if a process holds it, also if it is this one."""
    handle = _take(folder)
    path = folder / NAME
    try:
        yield
    finally:
        if os.name == "posix":  # another process may open the file before its name is gone: see _is_still
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(handle)
        else:  # an open file cannot be removed
            os.close(handle)
            with contextlib.suppress(OSError):
                path.unlink()


def require_free(folder: Path) -> None:
    """Raise :class:`RunError` if a process holds the folder's lock; nothing is written."""
    try:
        handle = os.open(folder / NAME, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:  # there is no lock, or none that this process could take
        return
    try:
        _try(handle)
    except _TAKEN:
        raise _in_use(folder, handle) from None
    except OSError:
        return
    finally:
        os.close(handle)
