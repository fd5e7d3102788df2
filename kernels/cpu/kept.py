"""Results of an array that are kept while the array holds the same numbers."""

from __future__ import annotations

import contextlib
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

MOST = 64  # results that are kept at a time: those of the arrays that were used last

_moment: ContextVar[object | None] = ContextVar("minigan_moment", default=None)


@contextmanager
def one_moment() -> Iterator[None]:
    """Compare each array at most once inside the ``with`` block: for code in which nobody writes into arrays it reads.

    The engine's backward pass and its replays are such code. A block inside another belongs to it.
    """
    if _moment.get() is not None:
        yield
        return
    token = _moment.set(object())
    try:
        yield
    finally:
        _moment.reset(token)


def in_one_moment() -> bool:
    """Return whether nobody writes into arrays now: :func:`one_moment` holds."""
    return _moment.get() is not None


def _bits(array: np.ndarray) -> np.ndarray:
    return array.view(f"i{array.itemsize}")


class Kept:
    """``kept(array, key, make)`` is ``make()``, or its result for this array and key if the array is what it was then.

    Beside a result lies a copy of the array, and each use compares the two bit by bit, but for uses in
    :func:`one_moment`: a write into the array is never missed, by an optimiser or by hand. Nothing is kept of an array
    that is gone. Results are read-only by contract.
    """

    def __init__(self) -> None:
        self._results: OrderedDict[Any, list[Any]] = OrderedDict()

    def __call__(self, array: np.ndarray, key: Any, make: Callable[[], Any]) -> Any:
        """Return the result of ``make``, which depends on the array and the key alone."""
        place, now = (id(array), key), _moment.get()
        known = self._results.get(place)
        if known is not None and known[0]() is array:
            _, copy, made, compared = known
            if (now is not None and compared is now) or np.array_equal(_bits(copy), _bits(array)):
                known[3] = now
                with contextlib.suppress(KeyError):  # another thread may have dropped it
                    self._results.move_to_end(place)
                return made
        made = make()
        forget = weakref.ref(array, lambda _: self._results.pop(place, None))
        self._results[place] = [forget, array.copy(), made, now]
        with contextlib.suppress(KeyError):
            self._results.move_to_end(place)
            while len(self._results) > MOST:
                self._results.popitem(last=False)
        return made

    def __len__(self) -> int:
        return len(self._results)
