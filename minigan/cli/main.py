"""The entry point: finds and runs the command, and reports every error in one sentence, without a traceback."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import minigan
from minigan import kernels
from minigan.cli.check import check
from minigan.cli.doctor import doctor
from minigan.cli.explain import explain
from minigan.cli.flags import Refusal, out_of_memory
from minigan.cli.sample import sample
from minigan.cli.study import study
from minigan.cli.train import train


class Command(NamedTuple):
    """A command's help in one line, and the function that runs it and returns the exit code."""

    about: str
    run: Callable[[Sequence[str]], int]


COMMANDS = {
    "train": Command("train a GAN and write a run folder: pictures, curves, checkpoints", train),
    "explain": Command("describe a run in words and in a picture", explain),
    "study": Command("run a small experiment: a table, a figure, its protocol", study),
    "sample": Command("make samples from a run", sample),
    "check": Command("check the gradient of every op on this machine", check),
    "doctor": Command("check this machine, and print remedies", doctor),
}


def usage() -> str:
    """Return the list of commands."""
    lines = [f"  {name:8} {command.about}" for name, command in COMMANDS.items()]
    return "\n".join(
        ["usage: minigan COMMAND [options]", "", *lines, ""]
        + ["`minigan COMMAND --help` lists the options; `minigan train` alone trains on handwritten digits."]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0 done, 1 failed, 2 refused, 130 and 143 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console may lack some of our letters
    if arguments[:1] == ["--version"]:
        print(f"minigan {minigan.__version__}")
        return 0
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    kernels.keep_memory()  # the command owns this process
    try:
        if arguments[0] not in COMMANDS:
            raise Refusal(f"there is no command {arguments[0]!r}: choose from {', '.join(COMMANDS)}")
        return COMMANDS[arguments[0]].run(arguments[1:])
    except Refusal as refusal:
        print(f"minigan: {refusal}", file=sys.stderr)
        return refusal.code
    except ValueError as error:  # wrong settings, files or folders
        print(f"minigan: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"minigan: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("minigan: interrupted", file=sys.stderr)
        return 130
    except MemoryError as error:
        print(f"minigan: {out_of_memory(error)}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
