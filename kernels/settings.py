"""What a setting may be: the one rule for numbers, integers, pairs, strings and truth values.

Each function returns the value as Python's own, or raises TypeError with the name of the setting. A bool is no number.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np


def number(name: str, value: Any) -> float:
    """Return a real number, also one of NumPy's."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} must be a number, not {value!r}")
    return float(value)


def whole(name: str, value: Any) -> int:
    """Return an integer, also one of NumPy's; 2.0 is none."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None


def wholes(name: str, values: Any) -> tuple[int, ...]:
    """Return a sequence of integers as a tuple."""
    try:
        return tuple(whole(name, value) for value in values)
    except TypeError:
        raise TypeError(f"{name} must be a tuple of integers, not {values!r}") from None


def pair(name: str, values: Any) -> tuple[int, int]:
    """Return a sequence of two integers as a tuple."""
    if type(values) is tuple and len(values) == 2 and type(values[0]) is int and type(values[1]) is int:
        return values
    try:
        first, second = values
        return whole(name, first), whole(name, second)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a pair of integers, not {values!r}") from None


def string(name: str, value: Any) -> str:
    """Return a string."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {value!r}")
    return str(value)


def truth(name: str, value: Any) -> bool:
    """Return True or False, also NumPy's."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return bool(value)


KINDS: dict[Any, Any] = {
    float: number,
    int: whole,
    str: string,
    bool: truth,
    tuple[int, int]: pair,
    tuple[int, ...]: wholes,
}
