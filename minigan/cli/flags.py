"""Shared by all commands: parsing flags, and refusing in one sentence."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import tyro

from minigan.kernels.cpu.jit import say


class Refusal(Exception):
    """A request that cannot be met: one sentence for the user, and the exit code."""

    def __init__(self, sentence: str, code: int = 2) -> None:
        super().__init__(sentence)
        self.code = code


def parse(options: Any, arguments: Sequence[str], default: Any = None, name: str = "") -> Any:
    """Parse a command's flags; :class:`Refusal` says in a sentence why they are wrong."""
    name = name or options.__name__.lower()
    said = io.StringIO()
    settings = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(options, args=list(arguments), prog=f"minigan {name}", **settings)
    except SystemExit as leaving:
        if not leaving.code:
            raise
        raise Refusal(f"{_sentence(said.getvalue())}; see minigan {name} --help") from None


def _sentence(box: str) -> str:
    """Return the first part of a framed message as one line, with the nearest flag if the message offers one."""
    parts: list[list[str]] = [[]]
    for line in box.splitlines()[1:]:  # the first line is the frame's title
        words = line.strip("│| \t")
        if words.strip("─-╭╮╰╯+"):
            parts[-1].append(words)
        elif parts[-1]:  # a line across the box
            parts.append([])
    first = " ".join(parts[0]).removeprefix("Error parsing Train: ") or "these options cannot be parsed"
    for part in parts[1:]:
        if part and part[0].startswith("Perhaps you meant"):
            return f"{first}; did you mean {' '.join(part[1:2]).split(' ')[0]}?"
    return first


def report_complaints(complaints: Sequence[str]) -> None:
    """Print the complaints about a run on stderr."""
    for complaint in complaints:
        say(complaint)


def out_of_memory(error: MemoryError) -> str:
    """Return a sentence with the remedy for a full memory."""
    return f"out of memory ({error}): use a smaller --batch-size or --width"
