"""The entry point: finds and runs the command, and reports every error in one sentence, without a traceback."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import minigan
from minigan import kernels
from minigan.cli import streams
from minigan.cli.check import check
from minigan.cli.doctor import doctor
from minigan.cli.explain import explain
from minigan.cli.flags import Refusal, out_of_memory
from minigan.cli.sample import sample
from minigan.cli.signals import Interrupted
from minigan.cli.study import study
from minigan.cli.train import train
from minigan.kernels.cpu.jit import say


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
    """Run the command line and return the exit code: 0 done, 1 failed, 2 refused, 128 + N ended by signal N."""
    streams.prepare()
    if signal.getsignal(signal.SIGINT) is minigan._end:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on an interruption is caught
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
    except SystemExit:  # after --help
        streams.finish(0)
        raise
    return streams.finish(code)


def _run(arguments: Sequence[str]) -> int:
    try:
        if arguments[:1] == ["--version"]:
            print(f"minigan {minigan.__version__}")
            return 0
        if not arguments or arguments[0] in ("-h", "--help", "help"):
            print(usage())
            return 0 if arguments else 2
        kernels.keep_memory()  # the command owns this process
        if arguments[0] not in COMMANDS:
            raise Refusal(f"there is no command {arguments[0]!r}: choose from {', '.join(COMMANDS)}")
        return COMMANDS[arguments[0]].run(arguments[1:])
    except Refusal as refusal:
        say(str(refusal))
        return refusal.code
    except ValueError as error:  # wrong settings, files or folders
        say(str(error))
        return 2
    except BrokenPipeError:  # nobody reads the output any more
        return 128 + streams.SIGPIPE
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        say(f"{where}{error.strerror or error}")
        return 2
    except KeyboardInterrupt as stop:
        say("interrupted")
        return 128 + (stop.number if isinstance(stop, Interrupted) else signal.SIGINT)
    except MemoryError as error:
        say(out_of_memory(error))
        return 1
    except FloatingPointError as error:  # what was computed is not finite
        say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
