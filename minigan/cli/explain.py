"""``minigan explain``: describe a run in words and in a picture."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from minigan.cli.flags import Refusal, parse


@dataclass(frozen=True)
class Explain:
    """Describe a run in a paragraph and in a picture (RUN/explain.png)."""

    run: Annotated[Path, tyro.conf.arg(metavar="RUN"), tyro.conf.Positional]
    """Folder of a run."""


def explain(arguments: Sequence[str]) -> int:
    """Run ``minigan explain``."""
    from minigan.run.explain import explain as read

    options: Explain = parse(Explain, arguments)
    found = read(options.run)
    picture, words = options.run / "explain.png", found.text(min(100, shutil.get_terminal_size().columns))
    try:
        found.draw(picture)  # before a reader who has seen enough leaves
    except OSError as error:  # the words need no writing
        print(words)
        raise Refusal(f"{error.strerror or error}; there is no picture", 1) from None
    print(words)
    print(f"the picture is {picture}")
    return 0
