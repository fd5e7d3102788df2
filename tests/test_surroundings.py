"""A run in surroundings that nobody chose: no traceback, no hang, and no folder that blocks the next run."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="shells and limits as Linux has them")

QUICK = shlex.quote(str(Path(__file__).with_name("quick.py")))
TRAIN = "train --data ring --steps 2 --batch-size 4 --width 2 --depth 1 --log-every 1 --sample-every 2 --out new"

# what stands around the command, {}
SHELLS = {
    "no stdout": "{} >&-",
    "no stderr": "{} 2>&-",
    "neither": "{} >&- 2>&-",
    "no stream": "{} <&- >&- 2>&-",
    "full stdout": "{} >/dev/full",
    "full stderr": "{} 2>/dev/full",
    "both full": "{} >/dev/full 2>&1",
    "a reader of one line": "{} | head -1",
    "a reader of both that is gone": "{} 2>&1 | true",
    "small stack": "ulimit -s 256; {}",
    "sixteen files": "ulimit -n 16; {}",
    "files without content": "ulimit -f 0; {}",
    "files of 4 kB": "ulimit -f 8; {}",
    "memory of 200 MB": "ulimit -v 200000; {}",
    "memory of 700 MB": "ulimit -v 700000; {}",
    "memory of 900 MB": "ulimit -v 900000; {}",
    "umask 777": "umask 777; {}",
    "no signal of a broken pipe": "trap '' PIPE; {} | head -1",
    "nohup": "nohup {}",
    "a session without terminal": "setsid -w {}",
    "a terminal": "script -qefc {} /dev/null",
    "a terminal of one column": "COLUMNS=1 script -qefc {} /dev/null",
    "an unknown terminal": "TERM=odd script -qefc {} /dev/null",
    "a terminal that knows ASCII": "LC_ALL=C PYTHONUTF8=0 script -qefc {} /dev/null",
    "a folder that is gone": "mkdir gone; cd gone; rmdir ../gone; {}",
    "a folder with spaces": "mkdir -p 'a b/ c'; cd 'a b/ c'; {}",
    "a folder with a new line": "mkdir -p $'a\\nb'; cd $'a\\nb'; {}",
    "a folder with bytes": "mkdir -p $'\\xff\\xfe'; cd $'\\xff\\xfe'; {}",
    "a folder called minigan": "mkdir minigan; touch minigan/mine; {}",
    "a file in place of the runs": "touch new; {}",
    "a link to nowhere": "ln -s nowhere new; {}",
    "a broken matplotlibrc": "printf '\\xff\\xfe: odd' > matplotlibrc; {}",
    "a matplotlibrc with TeX": "printf 'text.usetex: True\\nbackend: TkAgg\\nfont.family: odd\\n' > matplotlibrc; {}",
    "bytes among the variables": "export ODD=$'\\xff' HOME=$'/tmp/\\xff'; {}",
    "no variables": "env -i {}",
}

VARIABLES = [  # None removes the variable
    *({"LC_ALL": name, "LANG": name} for name in ("C", "tr_TR.UTF-8", "odd")),
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    *({"PYTHONIOENCODING": name} for name in ("ascii:strict", "utf-16")),
    {"PYTHONWARNINGS": "error"}, {"PYTHONWARNINGS": "odd", "PYTHONOPTIMIZE": "2", "PYTHONMALLOC": "malloc"},
    {**dict.fromkeys(("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONNOUSERSITE", "PYTHONSAFEPATH"), "1"), "PYTHONPATH": "/nowhere:::"},
    {"PYTHONDEVMODE": "1", "PYTHONFAULTHANDLER": "1"}, {"HOME": None}, {"HOME": "odd", "TMPDIR": "/nowhere/x", "TZ": "odd"},
    {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null", "XDG_CONFIG_HOME": "/dev/null", "NUMBA_CACHE_DIR": "/dev/null/x"},
    {"NUMBA_CACHE_DIR": "/nowhere/x"}, {"MPLCONFIGDIR": "/proc/x", "TMPDIR": "/proc/x", "XDG_CONFIG_HOME": "/proc/none"},
    {"TERM": None, "COLUMNS": "-5"}, {"TERM": "odd", "COLUMNS": "99999999999"},
    dict.fromkeys(("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE"), "1"), {"NO_COLOR": "1", "CI": "1", "COLUMNS": "odd"},
    {"OMP_NUM_THREADS": "odd", "OPENBLAS_NUM_THREADS": "0"}, *({"NUMBA_NUM_THREADS": value} for value in ("", "0", "-1", "1000", "odd")),
    *({"NUMBA_DISABLE_JIT": value} for value in ("1", "odd")), {"NUMBA_NUM_THREADS": "odd", "PYTHONWARNINGS": "error"},
    {"NUMBA_DEVELOPER_MODE": "1", "NUMBA_THREADING_LAYER": "odd"}, {"NUMBA_CACHE_LOCATOR_CLASSES": "odd"},
    *({"MPLBACKEND": value} for value in ("odd", "", "module://matplotlib_inline.backend_inline")), {"MATPLOTLIBRC": "/nowhere"},
    {"MALLOC_ARENA_MAX": "1", "MALLOC_PERTURB_": "165"}, {"PATH": "", "MINIGAN_EMULATOR_CACHE": "/dev/null"},
    {"CUDA_VISIBLE_DEVICES": "odd", "SHELL": "/bin/false", "LD_PRELOAD": "", "EDITOR": "odd", "SOURCE_DATE_EPOCH": "odd"},
]  # fmt: skip
OPTIONS = ("-I", "-E -s -B -O", "-bb", "-X utf8=0", "-W error", "-v -q")

# parts of the names of those in which pictures are drawn, or kernels are compiled; in the others they would change nothing
DRAWN = (
    "MPL",
    "MATPLOTLIB",
    "matplotlibrc",
    "PYTHONWARNINGS",
    "-W",
    "-OO",
    "HOME",
    "no variables",
    "that is gone",
    "-I",
)
COMPILED = ("NUMBA", "OMP", "MALLOC", "memory", "stack", "files", "TMPDIR", "threads", "NPY", "XDG", "-X dev", "folder")

SURROUNDINGS = {
    **{name: (shell, {}, "") for name, shell in SHELLS.items()},
    **{" ".join(f"{k}={v}" for k, v in variables.items()): ("{}", variables, "") for variables in VARIABLES},
    **{f"python {option}": ("{}", {}, option) for option in OPTIONS},
}
FEW = ("no stream", "NUMBA_NUM_THREADS=0")
REFUSED = {  # those in which nothing can be trained, or nobody reads what is said
    "full stdout", "both full", "a reader of one line", "a reader of both that is gone",
    "no signal of a broken pipe", "files without content", "files of 4 kB", "memory of 200 MB", "a folder that is gone",
    "a file in place of the runs", "a link to nowhere", "a broken matplotlibrc", "NUMBA_NUM_THREADS=0",
    "NUMBA_NUM_THREADS=-1",
}  # fmt: skip


def attempt(name, place, arguments=TRAIN):
    """Run the command in surroundings; return its exit code and what it said, one after the other."""
    shell, variables, options = SURROUNDINGS[name]
    drawn = any(part in name for part in DRAWN)
    if not drawn and not any(part in name for part in COMPILED):
        variables = {"NUMBA_DISABLE_JIT": "1", **variables}
    if name != "NUMBA_CACHE_DIR=/nowhere/x":  # one process that compiles beside a run is enough
        variables = {"MINIGAN_COMPILING": "1", **variables}
    environment = {k: v for k, v in {**os.environ, **variables}.items() if v is not None}
    command = f"{shlex.quote(sys.executable)} {options} {QUICK}{' drawn' * drawn} {arguments}"
    if "script " in shell:
        command = shlex.quote(command)
    done = subprocess.run(
        [shutil.which("bash"), "-c", f"set -o pipefail; {shell.replace('{}', command)}"], cwd=place, env=environment, timeout=300,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout.decode(errors="replace")


BAD = ("Traceback", "Exception ignored", "Fatal Python error", "core dumped", "please report", "Segmentation")


def problem(name, folder):
    """Return what is wrong with a run in surroundings, None if nothing is."""
    place = folder / str(abs(hash(name)))
    place.mkdir()
    try:
        code, said = attempt(name, place)
        if any(bad in said for bad in BAD) and "-v -q" not in name:
            return f"exit code {code}: …{said[-700:]}"
        if (code != 0) != (name in REFUSED) or code not in (0, 1, 2, 128 + 13):
            return f"exit code {code}: {said[-300:]}"
        if code in (1, 2) and not said and "2>" not in SURROUNDINGS[name][0]:
            return f"exit code {code} without a word"
        for left in place.rglob("new") if code else ():
            if not any(left.iterdir() if left.is_dir() else ()):
                continue
            again, answer = attempt(
                "LC_ALL=C LANG=C", left.parent, f"{TRAIN} --resume" if (left / "config.toml").exists() else TRAIN
            )
            if again and "already" not in answer:
                return f"exit code {code}, and the folder blocks the next run: {answer[-300:]}"
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return None


def problems(names, folder):
    return {name: words for name in names if (words := problem(name, folder))}


def test_some_surroundings(tmp_path):
    assert problems(FEW, tmp_path) == {}


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_all_surroundings(part, tmp_path):
    assert len(SURROUNDINGS) >= 50
    assert problems([*SURROUNDINGS][part::8], tmp_path) == {}
