"""Checkpoints that are either whole or not there: safetensors with a SHA-256 for every tensor, written atomically.

A checkpoint is written to a temporary file in the same folder, flushed to the disk and renamed, and the folder is
flushed: a crash at any moment leaves the previous checkpoints unchanged. The last two are kept. One state gives the
same bytes every time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minigan.data import files
from minigan.gan.saved import shown
from minigan.run.files import RunError, is_temporary, write_atomically

KEEP = 2
FORMAT = "minigan-checkpoint-1"
METADATA = "__metadata__"  # the notes' name in the header
NOTES = "(notes)"  # stands for the notes in the list of checksums
MOST, MOST_HEADER = 1 << 40, 100_000_000  # bytes; safetensors has the second limit too
_NAME = re.compile(r"step_([0-9]{7,})\.safetensors")
_LENGTH = 8  # bytes that hold the header's length


class CheckpointError(RunError):
    """A checkpoint cannot be read; the message names the file, and the damaged tensor if there is one."""


class Damaged(CheckpointError):
    """A checkpoint's content is not what was written."""


class Saved(NamedTuple):
    """The content of a checkpoint."""

    arrays: dict[str, np.ndarray]
    notes: dict[str, str]


class Found(NamedTuple):
    """The newest whole checkpoint of a folder, and why newer ones were skipped."""

    saved: Saved
    step: int
    path: Path
    skipped: dict[Path, str]


def _bytes_of(array: np.ndarray) -> memoryview:
    """Return the bytes of an array in C order, without a copy."""
    return array.reshape(-1).view(np.uint8).data


def _digest(array: np.ndarray) -> str:
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(_bytes_of(array))
    return digest.hexdigest()


def _plain(array: np.ndarray) -> np.ndarray:
    """Return the array in C order and the machine's byte order: safetensors silently corrupts other orders."""
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")).reshape(array.shape)


def _digest_notes(said: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def path_of(folder: Path, step: int) -> Path:
    """Return the path of a step's checkpoint."""
    return folder / f"step_{step:07d}.safetensors"


def save(folder: Path, step: int, arrays: dict[str, np.ndarray], about: dict[str, str]) -> Path:
    """Write ``arrays`` as folder/step_N.safetensors, with ``about`` as notes, and remove all but the last two.

    OSError names the path that could not be written; no temporary file is left behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if is_temporary(path, _NAME.pattern):  # of a save that was killed
            path.unlink(missing_ok=True)
    target = path_of(folder, step)
    write_atomically(target, *_parts(arrays, about))
    for _, old in find(folder)[:-KEEP]:
        if old != target:
            old.unlink(missing_ok=True)
    return target


def _parts(arrays: dict[str, np.ndarray], about: dict[str, str]) -> list[Any]:
    """Return the parts of a safetensors file, in one order: its library writes notes in another one every time."""
    whole = {name: _plain(array) for name, array in arrays.items()}
    names = sorted(whole, key=lambda name: (-whole[name].itemsize, name))  # so that all are aligned
    digests = {name: _digest(whole[name]) for name in names}
    said = {**about, "format": FORMAT}
    said["sha256"] = json.dumps({**digests, NOTES: _digest_notes(said)})
    header: dict[str, Any] = {METADATA: dict(sorted(said.items()))}
    end = 0
    for name in names:
        array, start = whole[name], end
        end += array.nbytes
        kind = "BOOL" if array.dtype == bool else f"{array.dtype.kind.upper()}{8 * array.itemsize}"
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": (start, end)}
    words = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    words += b" " * (-len(words) % _LENGTH)
    return [struct.pack("<Q", len(words)), words, *(_bytes_of(whole[name]) for name in names)]


def _header(content: bytes) -> tuple[dict[str, Any], int]:
    """Return the header of a safetensors file, and where its data starts; ValueError if there is none."""
    end = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    if len(content) < end:
        raise ValueError("its header is cut short")
    try:
        header = json.loads(content[_LENGTH:end])
    except RecursionError:
        raise ValueError("its header is nested too deep") from None
    if not isinstance(header, dict):
        raise ValueError("its header is not a table")
    return header, end


def find(folder: Path) -> list[tuple[int, Path]]:
    """Return (step, path) of every file in ``folder`` that has the name of a checkpoint, oldest first."""
    return [(step, path) for step, path in _named(folder) if path.is_file()]


def _named(folder: Path) -> list[tuple[int, Path]]:
    """Return (step, path) of all that has the name of a checkpoint, also of what is no file."""
    if not os.path.lexists(folder):
        return []
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    named = ((int(match[1]), path) for match, path in matches if match)
    return sorted((step, path) for step, path in named if path == path_of(folder, step))


def read(path: Path) -> Saved:
    """Return the content of one checkpoint; :class:`CheckpointError` if a single bit is wrong."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    header = _read_header(path)
    notes, digests = _notes(path, header)
    try:
        arrays = load(_read(path))
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{path} is not a whole checkpoint: {error}") from None
    if set(digests) != set(arrays):
        raise Damaged(f"{path}: its tensors do not match its list of checksums")
    for name, array in arrays.items():
        if digests[name] != _digest(array):
            raise Damaged(f"{path}: tensor {shown(name)} is damaged (its checksum does not match)")
    return Saved(arrays, notes)


def _read_header(path: Path) -> dict[str, Any]:
    """Return the header of a file that has as many bytes as it says; :class:`Damaged` if it has not."""
    length = int.from_bytes(_read(path, _LENGTH), "little")
    try:
        if length > MOST_HEADER:
            raise ValueError("its header is too long")
        header, end = _header(_read(path, _LENGTH + length))
        size = end + max((entry["data_offsets"][1] for name, entry in header.items() if name != METADATA), default=0)
        with _reading(path):
            there = files.require_regular(path)
        if size != there:
            raise ValueError(f"it has {there:,} bytes, not {size:,}")
    except CheckpointError:
        raise
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise Damaged(f"{path} is not a whole checkpoint: {error}") from None
    return header


def _read(path: Path, first: int | None = None) -> bytes:
    with _reading(path):
        return files.read(path, MOST, first)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): make it readable") from error


def _notes(path: Path, header: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the notes in a header, and the checksums of the tensors; :class:`Damaged` if the notes are."""
    notes = header.get(METADATA)
    if not isinstance(notes, dict) or "format" not in notes:
        raise Damaged(f"{path} is not a minigan checkpoint")
    try:
        digests = json.loads(notes.pop("sha256"))
    except (KeyError, ValueError, RecursionError):
        raise Damaged(f"{path}: its list of checksums is damaged") from None
    if not isinstance(digests, dict) or digests.pop(NOTES, None) != _digest_notes(notes):
        raise Damaged(f"{path}: its notes are damaged (their checksum does not match)")
    if notes["format"] != FORMAT:
        raise CheckpointError(f"{path} has the format {shown(notes['format'])}, not {FORMAT}: another version wrote it")
    return notes, digests


def newest_notes(folder: Path) -> dict[str, str]:
    """Return the notes of the newest checkpoint whose notes can be read; none if there is no such checkpoint.

    The tensors are not checked.
    """
    for _, path in reversed(find(folder)):
        with contextlib.suppress(CheckpointError):
            return _notes(path, _read_header(path))[0]
    return {}


def latest(folder: Path) -> Found:
    """Return the newest whole checkpoint, and why newer ones were skipped: they are damaged.

    :class:`CheckpointError` if there is no whole one, or if a newer one cannot be read and so may be whole.
    """
    skipped: dict[Path, str] = {}
    named = _named(folder)
    for number, (step, path) in reversed(list(enumerate(named))):
        try:
            return Found(read(path), step, path, skipped)
        except Damaged as error:
            skipped[path] = str(error)
        except CheckpointError as error:
            if isinstance(error.__cause__, FileNotFoundError) and not os.path.lexists(path):
                return latest(folder)  # a run that goes on has removed it, and has newer ones
            older = f"; remove it to go back to {named[number - 1][1].name}" if number else ""
            raise CheckpointError(f"{error}{older}") from None
    raise CheckpointError("; ".join(skipped.values()) or f"there is no checkpoint in {folder}")
