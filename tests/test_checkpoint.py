"""Checkpoints are whole or not there: round trips, damage, failed writes, and kills at the worst moment."""

import errno
import os
import signal
import stat
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigan.run import checkpoint
from minigan.run.checkpoint import CheckpointError

posix = pytest.mark.skipif(os.name != "posix", reason="signals, limits and permission bits are POSIX")

RANDOM = np.random.default_rng(0)
BASE = RANDOM.normal(size=(6, 4)).astype(np.float32)
ARRAYS = {
    "plain": BASE,
    "transposed": BASE.T,
    "strided": BASE[::2],
    "reversed": BASE[::-1, ::-1],
    "fortran": np.asfortranarray(BASE),
    "permuted": RANDOM.normal(size=(2, 3, 4)).transpose(2, 0, 1),
    "broadcast": np.broadcast_to(np.float32(3), (2, 3)),
    "0-d": np.array(7, np.int64),
    "0-d float": np.array(-0.0, np.float32),
    "empty": np.empty(0, np.float32),
    "empty table": np.empty((3, 0, 2), np.float64),
    "not finite": np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324]),
    "half": np.array([1, 2], np.float16),
    "words": np.array([0, 2**32 - 1], np.uint32),
    "flags": np.array([True, False]),
    "a/b.c é": np.arange(3, dtype=np.uint8),
}
ABOUT = {"version": "1.2.3", "config": 'data = "ring"\nsteps = 40\n'}


def save(folder, step=1, arrays=ARRAYS):
    return checkpoint.save(folder, step, arrays, ABOUT)


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].shape == array.shape, name
        assert found[name].dtype == array.dtype, name
        assert found[name].tobytes() == array.tobytes(), name


# --- round trips ------------------------------------------------------------------------------------------------------


def test_arrays_come_back_bitwise(tmp_path):
    kept = {name: array.copy() for name, array in ARRAYS.items()}
    path = save(tmp_path / "new" / "folder", 12)
    assert path == tmp_path / "new" / "folder" / "step_0000012.safetensors"
    assert_same(checkpoint.read(path).arrays, kept)
    assert_same(ARRAYS, kept)


def test_arrays_of_the_other_byte_order_come_back_by_value(tmp_path):
    path = save(tmp_path, arrays={"x": np.arange(3, dtype=">f4"), "y": np.arange(3, dtype="<f4")})
    found = checkpoint.read(path).arrays
    assert found["x"].tolist() == found["y"].tolist() == [0, 1, 2]


def test_no_arrays_come_back_as_none(tmp_path):
    assert checkpoint.read(save(tmp_path, arrays={})).arrays == {}


def test_other_tools_can_read_a_checkpoint(tmp_path):
    from safetensors.numpy import load_file

    assert_same(load_file(save(tmp_path)), ARRAYS)


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the bytes of a checkpoint, the place where its data starts, and a folder to damage it in."""
    folder = tmp_path_factory.mktemp("damage")
    content = save(folder, arrays={"first": BASE, "second": BASE.T}).read_bytes()
    return content, 8 + struct.unpack("<Q", content[:8])[0], folder


def refusal(folder, content):
    path = folder / "step_0000002.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_every_truncation_is_detected(whole):
    content, start, folder = whole
    edges = {0, 1, 7, 8, 9, start - 1, start, start + 1, len(content) - 1}
    for length in sorted(edges | set(range(0, len(content), 37))):
        refusal(folder, content[:length])


def test_what_follows_the_end_is_detected(whole):
    content, _, folder = whole
    refusal(folder, content + b"\0")
    refusal(folder, content + content)


def flipped(content, bit):
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def test_every_flip_in_the_length_is_detected(whole):
    content, _, folder = whole
    for bit in range(64):
        refusal(folder, flipped(content, bit))


@given(st.data())
def test_a_flip_in_the_data_names_the_tensor(whole, data):
    content, start, folder = whole
    for tensor, (low, high) in {"first": (0, 96), "second": (96, 192)}.items():
        bit = data.draw(st.integers(8 * (start + low), 8 * (start + high) - 1))
        assert f"tensor {tensor} is damaged" in refusal(folder, flipped(content, bit))


def test_every_flip_in_the_header_is_detected(whole):
    content, start, folder = whole
    missed = []
    for bit in range(64, 8 * start, 3):  # 3 and 8 have no common divisor: every bit of a byte has its turn
        try:
            refusal(folder, flipped(content, bit))
        except pytest.fail.Exception:
            missed.append(bit // 8)
    assert not missed, f"not noticed: {[content[max(0, at - 20) : at + 9] for at in missed[:3]]}"


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\xff" * 64, b"PK\x03\x04" * 9, b"\2\0\0\0\0\0\0\0{}"])
def test_other_files_are_refused(tmp_path, content):
    refusal(tmp_path, content)


def test_foreign_safetensors_are_refused(tmp_path):
    from safetensors.numpy import save as to_bytes

    assert "not a minigan checkpoint" in refusal(tmp_path, to_bytes({"x": BASE}))
    for digests in ("", "[]", "{}", '{"y": ""}', '{"x": ""}', "null"):
        refusal(tmp_path, to_bytes({"x": BASE}, {"format": checkpoint.FORMAT, "sha256": digests}))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "step_0000001.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match=str(path)):
            checkpoint.read(path)


# --- the newest whole one ---------------------------------------------------------------------------------------------


def test_only_the_last_two_are_kept(tmp_path):
    bystanders = [tmp_path / name for name in ("step_x.safetensors", "notes.txt", "step_0000001.safetensors.bak")]
    for bystander in bystanders:
        bystander.touch()
    for step in (5, 40, 9_999_999, 10_000_000):
        save(tmp_path, step)
        assert (step, tmp_path / f"step_{step:07d}.safetensors") in checkpoint.find(tmp_path)
    assert [step for step, _ in checkpoint.find(tmp_path)] == [9_999_999, 10_000_000]
    assert all(bystander.exists() for bystander in bystanders)


def test_latest_is_the_newest_whole_one(tmp_path):
    old, new = save(tmp_path, 20, {"x": np.array(20)}), save(tmp_path, 40, {"x": np.array(40)})
    saved, step, path, skipped = checkpoint.latest(tmp_path)
    assert (saved.arrays["x"], step, path, skipped) == (40, 40, new, {})
    new.write_bytes(new.read_bytes()[:-1])
    saved, step, path, skipped = checkpoint.latest(tmp_path)
    assert (saved.arrays["x"], step, path) == (20, 20, old)
    assert list(skipped) == [new]
    assert str(new) in skipped[new]
    old.write_bytes(b"")
    with pytest.raises(CheckpointError) as caught:
        checkpoint.latest(tmp_path)
    assert all(str(path) in str(caught.value) for path in (old, new))


def test_latest_of_nothing(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(CheckpointError, match="there is no checkpoint in"):
            checkpoint.latest(folder)


# --- writing ----------------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        path = save(tmp_path)
        assert os.umask(mask) == mask, "the umask was changed"
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch, call):
    old = save(tmp_path, 1, {"x": np.array(1)})
    with monkeypatch.context() as patched:
        patched.setattr(os, call, no_space)
        for step in (1, 2):
            with pytest.raises(OSError, match=f"step_000000{step}.safetensors: No space left") as caught:
                save(tmp_path, step, {"x": np.array(2)})
            assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == [old]
    assert checkpoint.read(old).arrays["x"] == 1


def test_whatever_stops_a_write_leaves_no_temporary_file(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args))[1])
    save(tmp_path)
    assert calls == ["fsync", "replace", *(["fsync"] if os.name == "posix" else [])]


def test_a_path_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=str(tmp_path / "file")):
        save(tmp_path / "file")


# --- limits and kills, in processes of their own ----------------------------------------------------------------------

PRELUDE = """
import os, pathlib, signal, sys
import numpy as np
from minigan.run import checkpoint
folder = pathlib.Path(sys.argv[1])
def save(step):
    checkpoint.save(folder, step, {"x": np.full(100_000, step, np.float32), "steps": np.array(step)}, {})
"""


def child(script, folder):
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@posix
def test_a_file_size_limit_is_reported_and_leaves_nothing(tmp_path):
    script = """
import resource
save(1)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    save(2)
except OSError as error:
    print(error.errno, error)
"""
    out, err = child(script, tmp_path).communicate()
    assert out.startswith(f"{errno.EFBIG} "), err
    assert str(tmp_path / "step_0000002.safetensors") in out
    assert [path.name for path in tmp_path.iterdir()] == ["step_0000001.safetensors"]
    assert checkpoint.latest(tmp_path).saved.arrays["steps"] == 1


@posix
def test_a_kill_in_a_save_loop_leaves_whole_checkpoints(tmp_path):
    with child("for step in range(1, 10**9): save(step), print(step, flush=True)", tmp_path) as process:
        try:
            saved = next(int(line) for line in process.stdout if int(line) >= 5)
        finally:
            process.kill()
        saved = max([saved, *map(int, process.stdout.read().split())])
    assert process.returncode == -signal.SIGKILL
    (arrays, _), _, _, skipped = checkpoint.latest(tmp_path)
    assert not skipped
    assert arrays["steps"] in (saved, saved + 1)
    assert (arrays["x"] == arrays["steps"]).all()


@posix
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_kill_within_a_save_loses_that_save_alone(tmp_path, call):
    process = child(f"save(1); os.{call} = lambda *_: os.kill(os.getpid(), signal.SIGKILL); save(2)", tmp_path)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    found = checkpoint.latest(tmp_path)
    assert (found.saved.arrays["steps"], found.skipped) == (1, {})
    save(tmp_path, 2)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["step_0000001.safetensors", "step_0000002.safetensors"], "the next save clears what a kill left"
