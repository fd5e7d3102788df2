"""Compiled code on disk: what is damaged is compiled again, and it may be missing."""

import ctypes
import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numba
import pytest

from minigan.cli import doctor
from minigan.kernels.cpu.jit import cache_folder, compiled
from minigan.kernels.gpu.emulator import compiler


def _twice(x):
    return x + x


def make():
    """Compile a function, or load it; return it with the number of its loads."""
    twice = compiled(_twice, "_twice")
    assert twice(21) == 42
    return twice, sum(twice.stats.cache_hits.values())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


DAMAGE = {
    "empty": lambda content: b"",
    "cut in the checksum": lambda content: content[:20],
    "cut": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "garbage": lambda content: bytes(range(256)) * 9,
    "zeros at the end": lambda content: content[:2000] + bytes(len(content) - 2000),
    "a bit": lambda content: content[:-500] + bytes([content[-500] ^ 1]) + content[-499:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_code_is_compiled_again(folder, damage):
    assert make()[1] == 0
    assert make()[1] == 1
    (file,) = (path for path in folder.rglob("*") if path.is_file())
    whole = file.read_bytes()
    file.write_bytes(DAMAGE[damage](whole))
    assert make()[1] == 0
    assert make()[1] == 1
    assert [path for path in folder.rglob("*") if path.is_file()] == [file]


def test_a_full_disk_costs_the_cache_alone(folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert make()[1] == 0
        assert not [path for path in folder.rglob("*") if path.is_file()]
    assert make()[1] == 0


def test_without_a_folder_everything_works(monkeypatch, folder, capsys):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    assert str(folder) in cache_folder()
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    twice, loads = make()
    assert (loads, twice.stats.cache_path, cache_folder()) == (0, None, None)
    (finding,) = doctor._cache()
    assert not finding.works
    assert "NUMBA_CACHE_DIR" in finding.remedy


def test_code_for_other_settings_is_not_taken(folder, monkeypatch):
    make()
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", 1)
    assert make()[1] == 0
    assert make()[1] == 1


# --- the compiler that is switched off --------------------------------------------------------------------------------

SWITCHED_OFF = """
import numpy as np
from minigan import kernels
from minigan.cli import doctor
print(kernels.active(), kernels.matmul(np.eye(3), np.eye(3)).sum())
try:
    with kernels.use("numba"):
        pass
except ValueError as error:
    print(error)
print([finding.detail for finding in doctor.examine() if finding.what == "kernels"][0])
"""


def test_without_a_compiler_the_kernels_are_numpys():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SWITCHED_OFF], env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    off = "NUMBA_DISABLE_JIT is set, so Numba compiles nothing"
    assert done.stderr == f"minigan: {off}: the kernels run in plain NumPy, which is slow\n"
    assert done.stdout.splitlines() == ["reference 3.0", f"use('numba'): {off}", off]


# --- the emulator's cache ---------------------------------------------------------------------------------------------

SOURCE = 'extern "C" int answer() { return 42; }'
needs_compiler = pytest.mark.skipif(bool(compiler.missing_compiler()), reason=str(compiler.missing_compiler()))


@needs_compiler
def test_a_damaged_library_is_compiled_again(tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "_folder", lambda: tmp_path)
    library = compiler.compiled(SOURCE, ["-O0", "-fPIC"])
    whole = library.read_bytes()
    for damage in DAMAGE.values():
        library.write_bytes(damage(whole))
        assert compiler.compiled(SOURCE, ["-O0", "-fPIC"]) == library
        assert compiler._is_whole(library)
    assert ctypes.CDLL(str(library)).answer() == 42
    before = library.stat().st_mtime_ns
    assert compiler.compiled(SOURCE, ["-O0", "-fPIC"]).stat().st_mtime_ns == before
    assert list(tmp_path.iterdir()) == [library]


def test_libraries_need_no_folder_of_the_users(tmp_path, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    (tmp_path / "file").touch()
    find = compiler._folder.__wrapped__
    monkeypatch.setenv("MINIGAN_EMULATOR_CACHE", str(tmp_path / "file"))
    assert find().is_dir()
    monkeypatch.delenv("MINIGAN_EMULATOR_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert find().is_dir()
    monkeypatch.setenv("MINIGAN_EMULATOR_CACHE", str(tmp_path / "mine"))
    assert find() == tmp_path / "mine"
