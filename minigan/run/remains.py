"""What a killed run leaves: temporary files, and beginnings without settings, which a new run may replace."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from minigan.run import checkpoint, tables
from minigan.run.files import RunError, is_temporary
from minigan.run.lock import NAME, require_free

SETTINGS = "config.toml"
FILM = "training.gif"  # written last
WRITTEN = ("samples.png", "curves.png", FILM, "samples", *tables.TABLES, "spectrum.png", "checkpoints", SETTINGS)
_FIRST = checkpoint.path_of(Path(), 0).name
_TEMPORARY = {
    "": "|".join([SETTINGS, *tables.TABLES, r"\w+\.png", r"\w+\.gif"]),
    "samples": r"step_\d+\.png",
    "checkpoints": r"step_\d+\.safetensors",
}


def require_startable(folder: Path, *, held: bool = False) -> None:
    """Raise :class:`RunError` unless a folder is not there, or empty, or holds the rest of an unfinished beginning.

    A run writes its settings after its first checkpoint: what has no settings has no step that could be lost. If this
    process has ``held`` the folder's lock, nobody else writes there.
    """
    if not folder.exists():
        return
    if folder.is_dir() and all(_is_of_a_beginning(path) for path in folder.iterdir()):
        return
    if not held:
        require_free(folder)
    if (folder / SETTINGS).exists():
        words = "continue its run with --resume, or choose another --out"
    elif folder.is_dir():  # a hidden file, perhaps
        odd = next(path.name for path in folder.iterdir() if not _is_of_a_beginning(path))
        words = f"it holds no run but {odd}, so choose another --out"
    else:
        words = "it is no folder, so choose another --out"
    raise RunError(f"{folder} exists already and is left as it is: {words}")


def _is_of_a_beginning(path: Path) -> bool:
    if path.is_symlink():
        return False
    if path.name == "checkpoints" and path.is_dir():
        return all(part.name == _FIRST and _is_file(part) or is_temporary(part, _FIRST) for part in path.iterdir())
    return path.name == NAME and _is_file(path) or is_temporary(path, SETTINGS)


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def remove(folder: Path) -> None:
    """Remove what a run has written into a folder that this process has locked."""
    clear(folder)
    for path in (folder / name for name in WRITTEN):
        with contextlib.suppress(OSError):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Remove the temporary files that killed writes have left in a run folder."""
    for path in list(_temporary_files(folder)):
        path.unlink(missing_ok=True)


def _temporary_files(folder: Path) -> Iterator[Path]:
    for part, pattern in _TEMPORARY.items():
        if (folder / part).is_dir():
            yield from (path for path in (folder / part).iterdir() if is_temporary(path, f"(?:{pattern})"))
