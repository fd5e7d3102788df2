"""Command lines that nobody meant: one sentence and no trace on the disk, or a run of one step."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import random
import shutil
import signal
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from minigan.cli import main as cli
from minigan.gan import Config
from minigan.gan.config import TABLES
from minigan.run import pictures
from minigan.run.folder import Run

from .quick import take_few_points

SMALL = [
    "train", "--data", "ring", "--steps", "1", "--batch-size", "4", "--width", "2", "--depth", "1", "--pack", "1",
    "--log-every", "1", "--out", "new",
]  # fmt: skip
ODD = {
    "int": (
        "", " ", "x", "-1", "0", "1", "2", "-0", "+1", "1.5", "1e3", "1_000", "0x10", "１", "nan", "inf", "None", "True",
        "999999999999", str(2**63), str(2**64), str(10**30), "9" * 5000, "1,2", "[1]", "½", "--", "-", "=",
    ),
    "float": (
        "", " ", "x", "-1", "0", "-0.0", "1", ".5", "1e-400", "1e400", "nan", "-nan", "inf", "-inf", "1e308", "1,5",
        "None", "0x1p3", "1/2", "１.５", "½", "--", "[1.0]",
    ),
    "str": ("", " ", "x", "RING", "ring ", "none", "None", "../..", "ünïcödé", "日本", "\x00", "\n", "--", "-h", "a" * 5000, "%s", "{}"),
    "bool": ("True", "true", "1", "yes", "", "None", "x"),
}  # fmt: skip
REST = [
    "", "''", "-", "--", "---", "train -", "train ''", "train train", "TRAIN", "tra", "train\\\n", "--versio",
    "--version --help", "--version x", "help train", "-x", "-hx", "--help=", "é", "train --out", "train --out ''",
    "train --out new --out other --steps 0", "train --outt new", "train --ou new", "train --config", "train --config ''",
    "train --config none.toml", "train --config empty.toml --steps 0 --out new", "train --config bom.toml --out new",
    "train --config binary.toml", "train --config nul.toml", "train --config list.toml", "train --config nested.toml",
    "train --config deep.toml", "train --config folder", "train --config run/config.toml --out run",
    "train --config good.toml --config good.toml --out new", "train --config good.toml --resume", "train --resume",
    "train --resume --out folder", "train --resume --out file", "train --resume --out none", "train --resume --out hidden",
    "train --resume --out run --steps 0", "train --resume --out run --steps -1", "train --resume --out run --data grid",
    "train --resume --out run --steps 999999999999999999999999 --seed 4", "train --no-resume --steps 0 --out new",
    "train --resume=1 --out run", "train --resume yes --out run", "train --out folder/../run", "train --out file/x",
    "train --out hidden", "train --out run", "train --out .", "train --out ..", "train --out /", "train --out /dev/null",
    "train --out /dev/full/x", "train --out /proc/none", "train --out \\\x00", "train --out " + "a" * 300,
    "train --out " + "a/" * 2500, "train --out '~'/new --steps 0 --data ring --batch-size 4 --width 2",
    "train --out 'new ' --steps 0 --data ring --width 2", "train --data", "train --data=", "train --data digits --data",
    "train --steps", "train --steps=", "train --steps 1 2", "train --steps=1=2", "train --steps -- 1", "train -s 1",
    "train --step 1", "train --st 1", "train --STEPS 1", "train --steps\\ 1", "train --batch_size 4 --batch-sizes 4",
    "train --batch-norm False --out new --steps 0", "train --no-batch-norm --batch-norm --steps 0 --out new",
    "train --penalty r1+r1 --steps 0 --out new", "train --penalty +", "train --penalty r1+", "train --penalty none+none",
    "train --penalty ''", "train --pack 3 --batch-size 64", "train --pack 0", "train --pack 1000 --batch-size 1000 --steps 0 --data ring --model mlp --out new",
    "train --dynamics optimistic --optimizer rmsprop", "train --dynamics extragradient --d-steps 3",
    "train --label 0.5", "train --label 2", "train --label nan", "train --label 0.9 --objective wasserstein",
    "train --rule unrolled --unroll 100000 --data ring", "train --rule unrolled --unroll 1000000000 --data ring",
    "train --depth 100000 --data ring", "train --depth 1001", "train --discrimination 100000 --data ring --batch-size 4096",
    "train --discrimination 1000000000", "train --batch-size 100000000", "train --batch-size 1000000000000000",
    "train --width 100000", "train --width 1000000000000", "train --latent 1000000000", "train --latent 1000000000000000000",
    "train --d-steps 1000000000000 --data ring", "train --device", "train --device cuda:0", "train --device CPU",
    "train --device gpu", "train --tf32", "train --tf32 --device cpu", "train --model dcgan --data ring",
    "train --seed 18446744073709551616", "train --seed 1e3", "explain", "explain ''", "explain none", "explain folder",
    "explain file", "explain hidden", "explain run run", "explain run --out x", "explain .", "explain /", "explain -",
    "explain --", "explain \\\x00", "explain " + "a" * 300, "explain bare", "explain --help x", "explain run/config.toml",
    "sample", "sample ''", "sample none", "sample folder", "sample file", "sample hidden", "sample bare", "sample run run",
    "sample run --out ''", "sample run --out .npz", "sample run --out .png", "sample run --out a.npz.txt",
    "sample run --out folder", "sample run --out none/", "sample run --out file/x.npz", "sample run --out /dev/full.npz/x",
    "sample run --count", "sample run --count ''", "sample run --count x", "sample run --count 1.5", "sample run --count -1",
    "sample run --count 0", "sample run --count 1000000000000", "sample run --count 99999999999999999999999",
    "sample run --count None --out one.npz", "sample run --count 401 --out a.png", "sample run --seed -1",
    "sample run --seed x", "sample run --seed 18446744073709551616", "sample run --seed 18446744073709551615 --count 2 --out two.npz",
    "sample run --force False", "sample run --no-force", "sample run --out \\\x00.npz", "sample run --out " + "a" * 300 + ".npz",
    "sample run --out 日本.npz --count 1", "sample --count 1 run --out three.npz", "sample -- run --help",
    "study nothing", "study ''", "study dirac --seeds", "study dirac --seeds 0", "study dirac --seeds 17",
    "study dirac --seeds x", "study dirac --seeds 1.5", "study dirac --out file", "study dirac --out file/x",
    "study dirac --out folder", "study dirac dirac", "study --full --seeds -1 dirac", "study --out", "study --seeds nan dirac",
    "study dirac --out \\\x00", "study DIRAC", "study", "check --backend", "check --backend x", "check --backend ''",
    "check --backend NUMBA", "check --seed", "check --seed x", "check --seed -1",
    "check --device", "check --device x", "check --device cuda", "check --device ''", "check x", "check --backend numba extra",
    "doctor x", "doctor --x", "doctor -", "doctor --help x", "doctor ''",
]  # fmt: skip


def flags():
    """Return every flag of ``train`` with every odd value of its type, in both spellings."""
    for field in dataclasses.fields(Config):
        flag, kind = f"--{field.name.replace('_', '-')}", type(field.default).__name__
        for i, value in enumerate(ODD[kind]):
            if field.name in ("steps", "g_steps") and value[:1].isdecimal() and len(value) > 3:
                continue  # a run that nobody waits for
            if kind == "bool":
                yield [*SMALL, flag, value]
            else:
                yield [*SMALL, flag, value] if i % 2 else [*SMALL, f"{flag}={value}"]
        yield [*SMALL, flag]
        yield [*SMALL[:1], flag, *SMALL[1:]]
        for row in TABLES.get(field.name, ()):
            yield [*SMALL, flag, row, flag, row.upper()]
        yield [*SMALL, flag, str(field.default), flag, str(field.default), "extra"]


def split(line):
    import shlex

    return [word for word in shlex.split(line.replace("\\\x00", "\x00").replace("\\\n", "'\n'"))]


LINES = [*map(split, REST), *flags()]
SOME = random.Random(5).sample(LINES, 30)


@pytest.fixture(scope="module", autouse=True)
def _few_points():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)  # nothing here depends on when the disk is written
        take_few_points(patched.setitem)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a run, and with files and folders that are none."""
    place = tmp_path_factory.mktemp("lines")
    with contextlib.chdir(place):
        assert run([*SMALL[:-1], "run"])[0] == 0
        Path("folder").mkdir()
        Path("folder/mine").write_text("precious")
        Path("hidden").mkdir()
        Path("hidden/.mine").write_text("precious")
        Path("bare").mkdir()
        shutil.copy("run/config.toml", "bare")
        Path("file").write_text("precious")
        Path("good.toml").write_text('data = "ring"\nsteps = 0\nwidth = 2\nbatch_size = 4\n')
        Path("empty.toml").touch()
        Path("bom.toml").write_bytes(b"\xef\xbb\xbf" + Path("good.toml").read_bytes())
        Path("binary.toml").write_bytes(bytes(range(128, 256)))
        Path("nul.toml").write_bytes(b"\0" * 64)
        Path("list.toml").write_text("data = ['ring']\n")
        Path("nested.toml").write_text("[run]\nsteps = 1\n")
        Path("deep.toml").write_text("steps = " + "[" * 100_000)
    return place


def run(arguments):
    """Run a command line in this process; return its exit code, and the text of stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main(arguments)
        except SystemExit as leaving:  # after --help
            code = leaving.code or 0
    return code, out.getvalue(), err.getvalue()


def snapshot():
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None
        for path in Path().rglob("*")
    }


@contextlib.contextmanager
def limit(seconds):
    """Fail in place of hanging, where the system has alarms."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(*_):
        raise AssertionError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def judge(arguments):
    """Return what is wrong with the answer to a command line, None if nothing is."""
    before = snapshot()
    try:
        with limit(120):
            code, out, err = run(arguments)
    except BaseException as error:  # a traceback for the user
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"{type(error).__name__}: {str(error)[:200]}"
    said = [line for line in err.splitlines() if not line.startswith("minigan: compiling")]
    after = snapshot()
    for name in set(after) - set(before):
        path = Path(name)
        if path.exists():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if code == 0:
        return None if out else "nothing said"
    if code not in (1, 2):
        return f"exit code {code!r}"
    if before != after and not (code == 1 and "the files so far are kept in new" in err):  # it diverged
        return f"refused, but changed {sorted(set(after) ^ set(before)) or 'files'}"
    usage = not arguments and out.startswith("usage: minigan")
    if not usage and (len(said) != 1 or not said[0].startswith("minigan: ") or len(said[0]) < 15):
        return f"said {err[-300:]!r}"
    return None


def wrong(lines, folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    for name in ("finish", "judge"):  # pictures have their tests, and would take most of the time
        monkeypatch.setattr(Run, name, Mock(return_value=[]))
    monkeypatch.setattr(Run, "draw", Mock())
    found = {" ".join(line)[:150]: judge(line) for line in lines}
    return {line: problem for line, problem in found.items() if problem}


def test_odd_command_lines(folder, monkeypatch):
    assert wrong(SOME, folder, monkeypatch) == {}


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_all_odd_command_lines(part, folder, monkeypatch):
    assert len(LINES) >= 500
    assert wrong(LINES[part::4], folder, monkeypatch) == {}


@pytest.mark.slow
def test_every_flag_takes_its_default(folder, monkeypatch):
    """So what the lines above are refused for is not that they are lines."""
    monkeypatch.chdir(folder)
    for name in ("finish", "judge"):
        monkeypatch.setattr(Run, name, Mock(return_value=[]))
    monkeypatch.setattr(Run, "draw", Mock())
    monkeypatch.setattr(pictures, "save", Mock())
    for field in dataclasses.fields(Config):
        flag, value = f"--{field.name.replace('_', '-')}", str(field.default)
        said = [flag] if value == "True" else [f"--no-{flag[2:]}"] if value == "False" else [flag, value]
        own = {"steps": ["--steps", "1"], "model": ["--data", "digits"]}.get(field.name, [])
        code, _, err = run([*SMALL, "--model", "mlp", *said, *own])
        assert code == 0, (said, err)
        shutil.rmtree("new")
