"""How a run ends, and what is left: signals, errors, other commands in its folder, and machines that lack something."""

import contextlib
import csv
import errno
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import minigan.kernels.memory as memory
from minigan.gan import Diverged, Trainer
from minigan.lab.diagnosis import variety
from minigan.run import checkpoint, lock
from minigan.run import folder as runs
from minigan.run.run import Run

from .command_line import Screen, cli, main, posix
from .quick import RING, draw_nothing, take_few_points

SMALL = replace(RING, steps=4, sample_every=2)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """Work in an empty folder with settings; draw nothing and take few data: nothing here depends on them."""
    monkeypatch.chdir(tmp_path)
    draw_nothing(monkeypatch.setattr)
    take_few_points(monkeypatch.setitem)
    Path("small.toml").write_text(SMALL.to_toml(), encoding="utf-8")


TRAIN = "train --config small.toml --out run"


def contents():
    return {str(path): path.read_bytes() for path in sorted(Path("run").rglob("*")) if path.is_file()}


def once(monkeypatch, owner, name, act):
    """Let ``act`` take the place of the first call of ``owner.name``, and be followed by that call if it returns."""
    right, calls = getattr(owner, name), []

    def first(*args, **kwargs):
        calls.append(1)
        if len(calls) == 1:
            act()
        return right(*args, **kwargs)

    monkeypatch.setattr(owner, name, first)


# --- other commands in the folder -------------------------------------------------------------------------------------


def test_a_refused_run_leaves_the_files_of_the_one_that_was_first(monkeypatch):
    """Both have found no folder; the other one trains while this one is built."""
    once(monkeypatch, runs, "build", lambda: main(TRAIN))
    code, _, err = main(TRAIN)
    assert code == 2
    assert err == ["minigan: run exists already and is left as it is: continue its run with --resume, or choose "
                   "another --out"]  # fmt: skip
    assert Path("run/training.gif").exists()
    assert main("train --resume --out run --steps 6")[0] == 0


def test_a_run_refused_by_a_lock_leaves_the_files_of_its_holder():
    with runs.begun(Path("run"), SMALL) as run:
        assert "is in use" in main(TRAIN)[2][0]
        assert "is in use" in main("train --resume --out run")[2][0]
        run.train()
        before = contents()
    assert set(contents()) == set(before) - {f"run/{lock.NAME}"}
    assert run.trainer.steps == 4


def test_a_folder_that_was_there_stays_when_its_run_does_not(monkeypatch):
    Path("run").mkdir()
    once(monkeypatch, Trainer, "step", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(TRAIN)
    assert list(Path("run").iterdir()) == []


# --- a finished run, and one that was stopped -------------------------------------------------------------------------


def test_pictures_of_an_earlier_step_do_not_count_as_those_of_the_last(monkeypatch):
    assert main(TRAIN)[0] == 0
    with monkeypatch.context() as patch:

        def full():
            raise OSError(errno.ENOSPC, "cannot write run/samples.png: No space left on device")

        once(patch, Run, "finish", full)
        code, _, err = main("train --resume --out run --steps 6")
    assert code == 1
    assert err[0].endswith("the run is saved at step 6. Set this right, and continue with: minigan train --resume "
                           "--out run")  # fmt: skip
    assert not Path("run/training.gif").exists()
    assert main("train --resume --out run")[0] == 0
    assert Path("run/training.gif").exists()
    assert "is at step 6 already" in main("train --resume --out run")[2][0]


def test_a_run_does_not_go_back():
    assert main(TRAIN)[0] == 0
    before = contents()
    code, _, err = main("train --resume --out run --steps 3")
    assert (code, err) == (2, ["minigan: run is at step 4 already: give --steps of at least that"])
    assert contents() == before


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_only_step_of_a_run_does_not_finish_it(monkeypatch, number):
    right = Run._put

    def put(run, event):
        if event.step == 1:
            signal.raise_signal(number)
        right(run, event)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_put", put)
        code, out, _ = main(f"{TRAIN} --steps 1")
    assert code == 128 + number
    assert out[-1].startswith("stopped at step 0; everything is saved. Continue with: ")
    assert main("train --resume --out run")[0] == 0
    assert [step for step, _ in checkpoint.find(Path("run/checkpoints"))] == [0, 1]


@posix
def test_a_signal_during_the_last_pictures_ends_them(monkeypatch):
    with monkeypatch.context() as patch:
        once(patch, Run, "judge", lambda: signal.raise_signal(signal.SIGTERM))
        code, _, err = main(TRAIN)
    assert (code, err) == (143, ["minigan: interrupted"])
    assert [step for step, _ in checkpoint.find(Path("run/checkpoints"))] == [0, 4]


@posix
def test_ctrl_c_in_a_program_waits_for_all_of_its_step(monkeypatch):
    """The table, the pictures and the checkpoints are then those of a run that was not interrupted."""
    for at in (Trainer.step, Trainer.metrics, Trainer.sample):
        run = runs.create(Path("run"), SMALL)

        def press(trainer, *of, at=at):
            if trainer.steps == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return at(trainer, *of)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, at.__name__, press)
            with pytest.raises(KeyboardInterrupt):
                run.train()
        reached = run.trainer.steps
        assert reached in (2, 3)
        assert run.last_saved == reached
        run.train()
        run.finish()
        with open("run/metrics.csv", encoding="utf-8") as table:
            assert [row["step"] for row in csv.DictReader(table)] == ["1", "2", "3", "4"]
        assert sorted(path.name for path in Path("run/samples").iterdir()) == [
            f"step_{step:07d}.png" for step in (0, 2, 4)
        ]
        Path("run").rename(f"after {at.__name__}")
    assert main(TRAIN)[0] == 0
    assert Path("after step/metrics.csv").read_bytes() == Path("run/metrics.csv").read_bytes()


def test_a_broken_output_after_the_last_step_does_not_ask_to_go_on():
    class Full(Screen):
        def write(self, text):
            if text.startswith("made in"):
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(text)

    err = Screen()
    with contextlib.redirect_stdout(Full()), contextlib.redirect_stderr(err):
        assert cli.main(TRAIN.split()) == 1
    assert "everything is saved at step 4 in run" in err.getvalue()
    assert "Continue with" not in err.getvalue()


# --- numbers and memory -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["finish", "judge"])
def test_samples_that_are_not_finite_at_the_end_are_told(monkeypatch, where):
    def fail():
        raise Diverged("step 4: the samples of G hold numbers that are not finite")

    once(monkeypatch, Run, where, fail)
    code, _, err = main(TRAIN)
    assert code == 1
    assert err[0].startswith("minigan: step 4: the samples of G hold numbers that are not finite; the run is saved")


def test_samples_need_no_memory_for_training(monkeypatch):
    assert main(TRAIN)[0] == 0
    monkeypatch.setattr(memory, "free_memory", lambda: 1e3)
    assert "a training step takes at least" in main("train --resume --out run --steps 5")[2][0]
    assert main("sample run --count 10")[0] == 0


def test_a_memory_that_fills_up_during_a_run_is_told(monkeypatch):
    right = Trainer.sample

    def sample(trainer, *of):
        if trainer.steps == 2:
            raise memory.TooLarge("making 400 samples takes at least 1 GB of memory, and 2 kB are free: make fewer")
        return right(trainer, *of)

    monkeypatch.setattr(Trainer, "sample", sample)
    code, _, err = main(TRAIN)
    assert code == 1
    assert re.fullmatch(r"minigan: making 400 samples .*: make fewer; the last good checkpoint is step 0, .*", err[0])


def test_data_without_distances_have_a_variety():
    same = np.ones((40, 2), np.float32)
    assert variety(same, same, None, None).spread == 1.0
    assert variety(same[:1], same[:1], None, None).spread == 1.0


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_damaged_checkpoints_are_put_aside():
    assert main(TRAIN)[0] == 0
    newest = Path("run/checkpoints/step_0000004.safetensors")
    save_file({"mine": np.ones(3)}, newest)
    mine = newest.read_bytes()
    code, _, err = main("train --resume --out run --steps 5")
    assert code == 0
    assert "is not a minigan checkpoint" in err[0]
    assert newest.with_name(f"{newest.name}.damaged").read_bytes() == mine


def test_a_checkpoint_of_another_version_is_not_passed_over(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", "minigan-checkpoint-2")
        assert main(TRAIN)[0] == 0
    before = contents()
    for line in ("train --resume --out run --steps 5", "sample run"):
        code, _, err = main(line)
        assert code == 2
        assert "step_0000004.safetensors has the format minigan-checkpoint-2, not minigan-checkpoint-1" in err[0]
    assert contents() == before


# --- machines that lack something -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_and_used(monkeypatch, number):
    def no_lock(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock, "_try", no_lock)
    code, _, err = main(TRAIN)
    assert code == 0
    assert set(err) == {"minigan: the file system of run has no locks: let one command at a time write there"}


@posix
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_does_not_flush_is_used(monkeypatch, number):
    def no_flush(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", no_flush)
    assert main(TRAIN)[0] == 0


def test_a_run_of_another_machine_can_be_explained_and_sampled():
    assert main(TRAIN)[0] == 0
    (newest,) = (path for step, path in checkpoint.find(Path("run/checkpoints")) if step == 4)
    saved = checkpoint.read(newest)
    there = replace(SMALL, device="cuda-emulated")
    checkpoint.save(newest.parent, 4, saved.arrays, {**saved.notes, "config": there.to_toml()})
    Path("run/config.toml").write_text(there.to_toml(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minigan.kernels.gpu.launch.reason_against", lambda device: "there is no compiler")
        assert main("explain run")[0] == 0
        code, _, err = main("sample run --count 3")
        assert code == 0
        assert err == ["minigan: the run's device cuda-emulated is not here (there is no compiler): the CPU makes the "
                       "samples"]  # fmt: skip
        code, _, err = main("train --resume --out run --steps 5")
        assert (code, err) == (2, ["minigan: device 'cuda-emulated': there is no compiler"])


def test_a_folder_that_cannot_be_written_to_is_explained_in_words(monkeypatch):
    assert main(TRAIN)[0] == 0

    def read_only(*_, **__):
        raise OSError(errno.EROFS, "cannot write run/explain.png: Read-only file system")

    monkeypatch.setattr("minigan.run.explain.Explanation.draw", read_only)
    code, out, err = main("explain run")
    assert code == 1
    assert len(out) > 3
    assert err == ["minigan: cannot write run/explain.png: Read-only file system; there is no picture"]


def test_a_picture_holds_many_points():
    assert main(TRAIN)[0] == 0
    assert main("sample run --count 500 --out points.png")[0] == 0
