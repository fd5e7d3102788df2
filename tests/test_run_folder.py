"""What a run folder withstands: kills at every call, two writers at once, full disks, and data that is not here."""

import contextlib
import errno
import itertools
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from minigan.data import Dataset
from minigan.gan import Diverged, build
from minigan.run import checkpoint, lock, tables
from minigan.run import folder as runs
from minigan.run.explain import explain

from .command_line import Screen, cli, posix
from .quick import RING, draw_nothing, take_few_points


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Draw nothing and take few data: nothing here depends on them."""
    draw_nothing(monkeypatch.setattr)
    take_few_points(monkeypatch.setitem)


def main(line, out=None):
    out, err = out or Screen(), Screen()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(shlex.split(str(line)))
    return code, [said for said in err.getvalue().splitlines() if "compiling the CPU kernels" not in said]


@pytest.fixture
def fresh(tmp_path):
    """Return the command line of a new run, without its folder, and the folder."""
    (tmp_path / "ring.toml").write_text(RING.to_toml(), encoding="utf-8")
    return f"train --config {tmp_path / 'ring.toml'} --out {tmp_path / 'run'}", tmp_path / "run"


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_the_columns_of_metrics_are_those_of_a_trainer():
    trainer = build(RING)
    assert list(trainer.metrics(trainer.step())) == ["step", *tables.TABLES["metrics.csv"]]


# --- beginnings -------------------------------------------------------------------------------------------------------

KILLS = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from PIL import Image
from minigan import kernels
from minigan.data import DATASETS, ring
from minigan.gan import Config
from minigan.run import folder as runs
from minigan.run import pictures

pictures.scatter = lambda points, real, title: Image.new("RGB", (4, 4))
DATASETS["ring"] = replace(DATASETS["ring"], load=lambda: ring(100))
CALLS = ("mkdir", "open", "write", "fsync", "chmod", "replace", "unlink", "ftruncate")

def die_at(number):
    left = [number]
    def counted(call):
        def wrapped(*args, **more):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **more)
        return wrapped
    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))

def begin(folder, config):
    runs.create(folder, config).train()

home, config = Path(sys.argv[1]), Config.from_toml(sys.argv[2])
with kernels.use("reference"):  # without threads, which a fork loses
    for number in range(0, 1000, int(sys.argv[3])):
        folder = home / str(number)
        child = os.fork()
        if not child:
            die_at(number)
            begin(folder, config)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            break
        if (folder / "config.toml").exists():
            runs.reopen(folder).train()
            print("resumed")
        else:
            begin(folder, config)
            print("begun again")
"""


@posix
@pytest.mark.parametrize("stride", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_any_call_leaves_a_folder_that_train_or_resume_takes(tmp_path, stride):
    config = replace(RING, steps=2, sample_every=50, checkpoint_every=50)
    (tmp_path / "ring.toml").write_text(config.to_toml(), encoding="utf-8")
    (tmp_path / "runs").mkdir()
    command = [sys.executable, "-W", "ignore", "-c", KILLS, str(tmp_path / "runs"), str(tmp_path / "ring.toml"),
               str(stride)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.split("\n")[:-1]
    assert len(said) > 30 / stride
    assert said.index("resumed") > 10 / stride, "the settings come last"
    whole = tmp_path / "runs" / str(stride * len(said))  # the one that was not killed
    for number in range(0, stride * len(said), stride):
        folder = tmp_path / "runs" / str(number)
        for name in ("config.toml", "metrics.csv", "variety.csv", "checkpoints/step_0000002.safetensors"):
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), (number, name)
        assert names(folder) == names(whole), number


def test_what_is_no_beginning_is_left_alone(fresh):
    line, folder = fresh
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "step_0000000.safetensors").write_bytes(b"torn")
    (folder / ".config.toml.abcd1234").write_bytes(b"torn")
    for mine in ("mine.txt", "checkpoints/step_0000004.safetensors", ".config.toml.mine", "samples"):
        (folder / mine).write_bytes(b"mine")
        before = names(folder)
        code, err = main(line)
        assert code == 2
        odd = mine.split("/")[0]
        assert err == [
            f"minigan: {folder} exists already and is left as it is: it holds no run but {odd}, so choose another --out"
        ]
        assert names(folder) == before
        assert (folder / mine).read_bytes() == b"mine"
        (folder / mine).unlink()
    assert main(line) == (0, [])
    assert not [name for name in names(folder) if name.startswith(".")]


def test_a_run_that_is_left_at_step_0_again_and_again_writes_it_once(tmp_path):
    whole = runs.create(tmp_path / "whole", RING)
    whole.train()
    run = runs.create(tmp_path / "run", RING)
    for kind in ("Picture", "Varied", "Stepped", "Stepped"):
        for event in run.events():
            if type(event).__name__ == kind:
                break
        assert len(tables.read(run.folder / "variety.csv")["step"]) == 1
        run = runs.reopen(run.folder)
    run.train()
    for name in ("variety.csv", "metrics.csv"):
        assert (run.folder / name).read_bytes() == (whole.folder / name).read_bytes()


# --- two writers ------------------------------------------------------------------------------------------------------


def test_a_second_training_in_a_folder_is_refused_with_the_process(fresh):
    line, folder = fresh
    run = runs.create(folder, RING)
    events = run.events()
    assert next(events).step == 0
    before = names(folder)
    words = f"{folder} is in use: process {os.getpid()} is writing a run there"
    for again in (line, f"train --resume --steps 20 --out {folder}"):
        code, err = main(again)
        assert (code, len(err)) == (2, 1)
        assert words in err[0]
    with pytest.raises(runs.RunError, match="is in use"):
        next(runs.reopen(folder).events())
    assert main(f"sample {folder} --count 3 --out {folder.parent / 'x.npz'}") == (0, []), "readers need no lock"
    assert names(folder) == before
    events.close()
    assert lock.NAME not in names(folder)
    assert main(f"train --resume --out {folder}") == (0, [])


def test_a_run_that_another_has_continued_is_opened_again(fresh):
    folder = fresh[1]
    first = runs.create(folder, RING)
    second = runs.reopen(folder)
    second.train()
    with pytest.raises(runs.RunError, match="went on to step 4 since this run was opened: open it again"):
        first.train()
    assert [step for step, _ in checkpoint.find(folder / "checkpoints")] == [4, 8]
    assert list(tables.read(folder / "metrics.csv")["step"]) == list(range(1, 9))


HOLD = """
import pathlib, sys, time
from minigan.run.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@posix
def test_a_killed_process_leaves_no_lock(fresh):
    line, folder = fresh
    folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline() == "held\n"
            code, err = main(line)
            assert code == 2
            assert f"is in use: process {child.pid} is" in err[0]
        finally:
            child.kill()
    assert (folder / lock.NAME).exists()
    assert main(line) == (0, [])
    assert not (folder / lock.NAME).exists()


def test_one_of_many_threads_has_the_lock(tmp_path):
    inside, most, refused = [0], [0], [0]

    def work():
        for _ in range(60):
            try:
                with lock.locked(tmp_path):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    time.sleep(0.002)
                    inside[0] -= 1
            except runs.RunError:
                refused[0] += 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1
    assert refused[0] > 0
    assert not list(tmp_path.iterdir())


@posix
def test_a_lock_file_of_somebody_else_is_not_written_to(tmp_path):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    (tmp_path / lock.NAME).symlink_to(tmp_path / "mine.txt")
    with pytest.raises(OSError, match=lock.NAME), lock.locked(tmp_path):
        pass
    assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == "mine"


# --- full disks -------------------------------------------------------------------------------------------------------


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Log(Screen):
    """A log whose disk is full after some writes."""

    def __init__(self, room):
        super().__init__()
        self.room = room

    def write(self, text):
        self.room -= 1
        return full() if self.room < 0 else super().write(text)


@pytest.mark.parametrize("room", [0, 8])
def test_a_log_on_a_full_disk_costs_no_step(fresh, room):
    line, folder = fresh
    code, err = main(f"{line} --steps 400 --checkpoint-every 1000", Log(room))
    (step, _), *_ = reversed(checkpoint.find(folder / "checkpoints"))
    assert code == 1
    assert err == [
        "minigan: the output cannot be written: No space left on device; everything is saved at step "
        f"{step} in {folder}. Continue with: minigan train --resume --out {folder}"
    ]
    assert (step > 0) == (room > 0)
    assert len(tables.read(folder / "metrics.csv").get("step", ())) == step, "no step since the checkpoint is lost"
    assert main(f"train --resume --steps {step + 2} --out {folder}") == (0, [])


@posix
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the device is Linux's")
def test_a_full_device_as_standard_output_ends_in_one_sentence(fresh):
    with open("/dev/full", "w", encoding="utf-8") as device:
        command = [sys.executable, "-m", "minigan", *shlex.split(fresh[0])]
        done = subprocess.run(command, stdout=device, stderr=subprocess.PIPE, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "compiling the CPU kernels" not in line]
    assert (done.returncode, len(said)) == (1, 1), said
    assert said[0].startswith("minigan: the output cannot be written: No space left on device; everything is")


@pytest.mark.parametrize("name", ["metrics.csv", "variety.csv", "samples/step_0000004.png", "samples.png", "curves.png",
                                  "training.gif"])  # fmt: skip
def test_a_disk_that_is_full_for_one_file_costs_no_step(fresh, name, monkeypatch):
    line, folder = fresh
    write, replace_ = os.write, os.replace

    def writes(handle, content):
        said = bytes(content)
        if (name, said[:2], said.count(b",")) in (("metrics.csv", b"5,", 11), ("variety.csv", b"4,", 2)):
            write(handle, said[:5])
            full()
        return write(handle, content)

    def replaces(source, target):
        return full() if str(target).endswith(name) else replace_(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", writes)
        patched.setattr(os, "replace", replaces)
        code, err = main(f"{line} --checkpoint-every 1000")
    assert (code, len(err)) == (1, 1), err
    assert f"cannot write {folder / name}: No space left on device; " in err[0]
    step = 8 if "step" not in name and "csv" not in name else int(name == "metrics.csv") + 4
    assert f"saved at step {step}" in err[0] or f"the state of step {step} is saved" in err[0]
    assert err[0].endswith(f"continue with: minigan train --resume --out {folder}")
    assert checkpoint.latest(folder / "checkpoints").step == step
    assert not [name for name in names(folder) if "/." in f"/{name}"], "nothing half written is left"
    assert main(f"train --resume --out {folder}") == (0, [])
    steps = list(tables.read(folder / "metrics.csv")["step"])
    assert steps == [n for n in range(1, 9) if (n, name) != (5, "metrics.csv")]


@posix
def test_a_disk_that_is_full_for_every_file_names_the_last_saved_step(fresh):
    import resource

    line, folder = fresh
    size = checkpoint.save(fresh[1].parent / "size", 0, build(RING).state(), {}).stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def shrink(now):
        if now:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size // 40, limits[1]))
        return True

    try:
        run = runs.create(folder, RING)
        with pytest.raises(
            OSError, match="cannot write .*the state of step .* could not be saved either, and the last"
        ):
            for _ in itertools.takewhile(lambda event: shrink(event.step == 2), run.events()):
                pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert main(f"train --resume --out {folder}") == (0, [])


# --- the same bytes ---------------------------------------------------------------------------------------------------


def test_one_state_gives_the_same_bytes_every_time(tmp_path):
    trainer = build(RING)
    trainer.step()
    about = {f"note {number}": "x" for number in range(12)}
    contents = set()
    for number in range(6):
        state = trainer.state()
        folder = tmp_path / str(number)
        turned = dict(reversed(state.items())) if number % 2 else state
        path = checkpoint.save(folder, 1, turned, dict(reversed(about.items())) if number % 3 else about)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_one_command_gives_the_same_files_every_time(fresh):
    line, folder = fresh
    found = []
    for _ in range(2):
        assert main(line) == (0, [])
        found.append({name: (folder / name).read_bytes() for name in names(folder)})
        shutil.rmtree(folder)
    assert found[0].keys() == found[1].keys()
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []


# --- data that is not here --------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    """Return a finished run on points of our own."""
    points = np.random.default_rng(0).normal(size=(48, 2)).astype(np.float32)
    run = runs.create(tmp_path / "own", RING, Dataset("mine", points))
    run.train()
    run.finish()
    return run


def test_a_run_on_own_data_is_read_without_them(own, tmp_path):
    assert explain(own.folder).text().startswith("mlp on mine, ")
    for suffix in ("npz", "png"):
        assert main(f"sample {own.folder} --count 5 --out {tmp_path / 'out'}.{suffix}") == (0, [])
    with np.load(tmp_path / "out.npz") as archive:
        assert np.array_equal(archive["points"], own.trainer.sample(5, seed=1))
    code, err = main(f"train --resume --steps 20 --out {own.folder}")
    assert code == 2
    assert "was trained on mine (sha256 " in err[0]
    assert f"minigan.run.folder.reopen(pathlib.Path({str(own.folder)!r}), data=...) takes in Python" in err[0]
    again = runs.reopen(own.folder, 9, own.trainer.data)
    again.train()
    assert again.trainer.steps == 9


def test_a_run_without_its_data_does_not_go_on(own):
    run = runs.reopen_for_samples(own.folder)
    with pytest.raises(runs.RunError, match="was opened for samples, without its data mine"):
        run.train()


def test_a_checkpoint_of_before_data_were_hashed_says_so(tmp_path):
    run = runs.create(tmp_path / "run", RING)
    run.train()
    for _, path in checkpoint.find(run.folder / "checkpoints"):
        arrays, notes = checkpoint.read(path)
        arrays.pop("data")
        notes.pop("format")
        path.write_bytes(b"".join(checkpoint._parts(arrays, notes)))
    for action in (runs.reopen, runs.reopen_for_samples):
        with pytest.raises(runs.RunError, match=r"was written by an older minigan \(version .*: train again, or use"):
            action(run.folder)


# --- numbers that are not finite --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    "name", ["generator/parameters/layers.0.w", "generator/optimizer/ema", "generator/optimizer/second"]
)
def test_a_state_that_is_not_finite_is_refused_before_anything_changes(tmp_path, name, value):
    run = runs.create(tmp_path / "run", RING)
    run.train()
    state = {key: array.copy() for key, array in run.trainer.state().items()}
    before = {key: array.copy() for key, array in state.items()}
    state[name].reshape(-1)[3] = value
    with pytest.raises(ValueError, match=f"{name} is not finite"):
        run.trainer.load_state(state)
    assert all(array.tobytes() == before[key].tobytes() for key, array in run.trainer.state().items())
    checkpoint.save(
        run.folder / "checkpoints", 8, state, checkpoint.read(run.folder / "checkpoints/step_0000008.safetensors").notes
    )
    for line in (f"sample {run.folder} --out {tmp_path / 'x.npz'}", f"train --resume --steps 9 --out {run.folder}"):
        code, err = main(line)
        assert (code, len(err)) == (2, 1)
        assert f"step_0000008.safetensors: the saved state cannot be used: {name} is not finite" in err[0]
        assert err[0].endswith("remove this file to go back to step_0000004.safetensors")
    assert not (tmp_path / "x.npz").exists()


def test_samples_that_are_not_finite_are_refused(tmp_path):
    run = runs.create(tmp_path / "run", replace(RING, ema=0.0))
    run.trainer.generator.optimizer.buffer[...] = np.finfo(np.float32).max
    with pytest.raises(Diverged, match="step 0: the samples of G hold numbers that are not finite"):
        run.trainer.sample(5)
    run.trainer.steps = 4
    run.save()
    code, err = main(f"sample {run.folder} --out {tmp_path / 'x.npz'}")
    assert (code, len(err)) == (1, 1)
    assert "the samples of G hold numbers that are not finite" in err[0]
    assert not (tmp_path / "x.npz").exists()
