"""Checkpoints that are either whole or not there: safetensors with a SHA-256 for every tensor, written atomically.

A checkpoint is written to a temporary file in the same folder, flushed to the disk and renamed, and the folder is
flushed: a crash at any moment leaves the previous checkpoints unchanged. The last two are kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from pathlib import Path

import numpy as np

KEEP = 2
FORMAT = "minigan-checkpoint-1"
NOTES = "(notes)"  # stands for the notes in the list of checksums
_NAME = re.compile(r"step_(\d+)\.safetensors")


class CheckpointError(ValueError):
    """A checkpoint cannot be read; the message names the file, and the damaged tensor if there is one."""


def _digest(array: np.ndarray) -> str:
    header = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(header + array.tobytes()).hexdigest()


def _plain(array: np.ndarray) -> np.ndarray:
    """Return the array in C order and the machine's byte order: safetensors silently corrupts other orders."""
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")).reshape(array.shape)


def _digest_notes(said: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def save(folder: Path, step: int, arrays: dict[str, np.ndarray], about: dict[str, str]) -> Path:
    """Write ``arrays`` as folder/step_N.safetensors, with ``about`` as notes, and remove all but the last two.

    OSError names the path that could not be written; no temporary file is left behind.
    """
    from safetensors.numpy import save as to_bytes

    whole = {name: _plain(array) for name, array in arrays.items()}
    digests = {name: _digest(array) for name, array in whole.items()}
    said = {**about, "format": FORMAT}
    content = to_bytes(whole, metadata={**said, "sha256": json.dumps({**digests, NOTES: _digest_notes(said)})})
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob(".step_*.safetensors.*"):  # of a save that was killed
        left_over.unlink(missing_ok=True)
    target = folder / f"step_{step:07d}.safetensors"
    write_atomically(target, content)
    for _, old in find(folder)[:-KEEP]:
        old.unlink(missing_ok=True)
    return target


def write_atomically(target: Path, content: bytes) -> None:
    """Replace ``target`` by ``content`` such that a crash leaves the old file or the new one, never a part."""
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, target)
        temporary = None
        _flush_folder(target.parent)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {target}: {error.strerror}") from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _flush_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def find(folder: Path) -> list[tuple[int, Path]]:
    """Return (step, path) of every checkpoint in ``folder``, oldest first."""
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.glob("step_*.safetensors"))
    return sorted((int(match[1]), path) for match, path in matches if match)


def read(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of one checkpoint; :class:`CheckpointError` if a single bit is wrong."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a whole checkpoint: {error}") from None
    if about.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a minigan checkpoint")
    try:
        digests = json.loads(about["sha256"])
    except (KeyError, ValueError):
        raise CheckpointError(f"{path}: its list of checksums is damaged") from None
    said = {name: note for name, note in about.items() if name != "sha256"}
    if not isinstance(digests, dict) or digests.pop(NOTES, None) != _digest_notes(said):
        raise CheckpointError(f"{path}: its notes are damaged (their checksum does not match)")
    if set(digests) != set(arrays):
        raise CheckpointError(f"{path}: its tensors do not match its list of checksums")
    for name, array in arrays.items():
        if digests[name] != _digest(array):
            raise CheckpointError(f"{path}: tensor {name} is damaged (its checksum does not match)")
    return arrays


def notes(path: Path) -> dict[str, str]:
    """Return the notes of a checkpoint that :func:`read` accepts."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return file.metadata() or {}


def latest(folder: Path) -> tuple[dict[str, np.ndarray], Path, list[str]]:
    """Return (arrays, path, complaints): the newest whole checkpoint, and why newer ones were skipped.

    :class:`CheckpointError` if there is no whole one.
    """
    complaints: list[str] = []
    for _, path in reversed(find(folder)):
        try:
            return read(path), path, complaints
        except CheckpointError as error:
            complaints.append(str(error))
    raise CheckpointError("; ".join(complaints) or f"there is no checkpoint in {folder}")
