"""Command lines that tests run in their own process."""

import contextlib
import io
import os
import shlex

import pytest

from minigan.cli import main as cli

posix = pytest.mark.skipif(os.name != "posix", reason="signals and devices as POSIX has them")
COMPILING = "minigan: compiling the CPU kernels"  # said once, on a machine that has not run minigan before


class Screen(io.StringIO):
    """What takes the place of stdout and stderr, in the encoding that a terminal has today."""

    encoding = "utf-8"


def main(line, *more):
    """Run a command line in this process; return its exit code, and the lines of stdout and stderr."""
    out, err = Screen(), Screen()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([*shlex.split(line), *map(str, more)])
    return code, out.getvalue().splitlines(), [x for x in err.getvalue().splitlines() if not x.startswith(COMPILING)]
