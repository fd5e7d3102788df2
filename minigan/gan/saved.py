"""What a saved state must be before a trainer takes it over: of the same game, on the same data, of sound numbers."""

from __future__ import annotations

import reprlib

import numpy as np

from minigan.data import Dataset

DATA = "data"  # the name of the data's hash in a state
MOST = 2**31  # steps and draws of a saved state: the counters of random numbers end at 2**32
MAY_BE_NAN = "movement"  # rows that are not there yet


class OtherData(ValueError):
    """A saved state belongs to other data; ``sha256`` is the hash of those."""

    def __init__(self, data: Dataset, sha256: str) -> None:
        super().__init__(
            f"the state was saved on data with the sha256 {sha256[:12]}, but the data here is {data.name} (sha256 "
            f"{data.fingerprint[:12]}): use the data that it was saved on"
        )
        self.sha256 = sha256


def shown(name: str) -> str:
    """Return the name of a tensor as a message shows it: a file of unknown origin may hold any name."""
    return name if name.isprintable() and len(name) < 80 else reprlib.repr(name)


def hash_of(data: Dataset) -> np.ndarray:
    """Return the hash of a data set as it is in a state: 32 bytes."""
    return np.frombuffer(bytes.fromhex(data.fingerprint), np.uint8)


def require_same_data(state: dict[str, np.ndarray], data: Dataset) -> None:
    """Raise :class:`OtherData` if a state was saved on other data; ValueError if it does not hold their hash."""
    own, given = hash_of(data), state.get(DATA)
    if given is None or (given.shape, given.dtype) != (own.shape, own.dtype):
        raise ValueError("the saved state does not say what data it belongs to: an older version saved it")
    if not np.array_equal(given, own):
        raise OtherData(data, given.tobytes().hex())


def require_same_game(state: dict[str, np.ndarray], own: dict[str, np.ndarray]) -> None:
    """Raise ValueError unless a state has the names, shapes and dtypes of a trainer's own state."""
    wanted = {name: (array.shape, array.dtype) for name, array in own.items()}
    given = {name: (array.shape, array.dtype) for name, array in state.items()}
    if wanted != given:
        odd = sorted(name for name in wanted | given if wanted.get(name) != given.get(name))
        raise ValueError(
            f"the saved state does not fit this configuration (see {', '.join(map(shown, odd[:3]))}): "
            "load it with the settings that it was saved with"
        )


def require_sound(state: dict[str, np.ndarray], most_steps: int) -> None:
    """Raise ValueError if a number of a state is not finite, or if a counter could not have been reached."""
    for name, array in state.items():
        if name != MAY_BE_NAN and not np.isfinite(array).all():
            raise ValueError(f"the saved state cannot be used: {name} is not finite")
        counts = array.dtype.kind == "i" and (name.startswith("noise/") or name.endswith(("steps", "draws")))
        most = min(MOST, most_steps) if name == "steps" else MOST
        if counts and not ((array >= 0) & (array <= most)).all():
            raise ValueError(f"the saved state cannot be used: {name} is {array}, and must be from 0 to {most}")
