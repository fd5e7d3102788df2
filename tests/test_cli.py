"""The command line, from the outside: what it makes, what it refuses, and in which words."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minigan
from minigan.cli.signals import stopping
from minigan.engine.device import why_not
from minigan.gan import Config, Trainer
from minigan.run import checkpoint

from .command_line import COMPILING, Screen, cli, main, posix

RING = "--data ring --model mlp --width 8 --latent 4 --batch-size 16 --log-every 5 --sample-every 20"
DIGITS = "--width 2 --latent 4 --batch-size 8 --steps 4 --log-every 2 --sample-every 4"


@contextlib.contextmanager
def process(line, folder, encoding="utf-8"):
    """Run a command line in another process, which does not outlive the block."""
    with subprocess.Popen(
        [sys.executable, "-m", "minigan", *shlex.split(line)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding=encoding,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    ) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a folder with two short runs, ``ring`` and ``digits``, and what was printed while they were made."""
    folder = tmp_path_factory.mktemp("trained")
    said = {
        "ring": main(f"train {RING} --steps 40 --checkpoint-every 20 --out", folder / "ring"),
        "digits": main(f"train {DIGITS} --out", folder / "digits"),
    }
    return folder, said


@pytest.fixture
def ring(trained, tmp_path):
    """Return a copy of the ring run as ``./ring``."""
    return Path(shutil.copytree(trained[0] / "ring", tmp_path / "ring")).relative_to(tmp_path)


def files():
    return {str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}


# --- the front door ---------------------------------------------------------------------------------------------------


def test_version_help_and_no_arguments():
    assert main("--version") == (0, [f"minigan {minigan.__version__}"], [])
    code, out, err = main("")
    assert (code, err) == (2, [])
    assert out[0] == "usage: minigan COMMAND [options]"
    for flag in ("-h", "--help", "help"):
        assert main(flag) == (0, out, [])
    assert [name for name in cli.COMMANDS if not any(line.startswith(f"  {name} ") for line in out)] == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", ["--batch-size", "--resume"]),
        ("explain", ["RUN"]),
        ("sample", ["--force"]),
        ("check", ["--backend"]),
        ("doctor", []),
    ],
)
def test_every_command_has_help(command, words, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code in (0, None)
    said = capsys.readouterr().out
    assert all(word in said for word in (f"minigan {command}", *words))


def test_help_tells_every_setting(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    said = capsys.readouterr().out
    assert [name for name in Config.__dataclass_fields__ if f"--{name.replace('_', '-')}" not in said] == []


def test_doctor_finds_this_machine_fit():
    code, out, err = main("doctor")
    assert (code, err) == (0, [])
    assert any(line.startswith("ok  kernels") for line in out)
    assert any(line[4:].startswith("gpu") for line in out)


@posix
def test_doctor_in_a_folder_that_is_gone(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, out, err = main("doctor")
    monkeypatch.chdir(tmp_path)
    assert (code, err) == (1, [])
    assert any(line.startswith("--  run folder") and "this folder is gone" in line for line in out)


def test_python_m_minigan_is_the_command_line(tmp_path):
    with process("sample nowhere", tmp_path) as refused, process("--version", tmp_path) as version:
        out, err = refused.communicate()
        assert (refused.returncode, out) == (2, "")
        assert err == "minigan: nowhere holds no run: it has no config.toml\n"
        assert version.communicate() == (f"minigan {minigan.__version__}\n", "")
        assert version.returncode == 0


# --- train ------------------------------------------------------------------------------------------------------------


def test_training_says_what_it_does_and_what_comes_next(trained):
    code, out, err = trained[1]["ring"]
    assert (code, err) == (0, [])
    assert out[0].startswith("mlp on ring: 10,000 points of 2 numbers, G ")
    assert out[1].startswith("from step 0 to 40 on cpu, into ")
    assert [line.split()[1] for line in out if line.startswith("step ")] == [f"{n}/40" for n in range(5, 41, 5)]
    assert "of 8 modes found" in out[-4]
    assert out[-2] == f"next: minigan explain {trained[0] / 'ring'}, or"
    assert out[-1] == f"      minigan sample {trained[0] / 'ring'} --count 2000 --out samples.npz"
    code, out, err = trained[1]["digits"]
    assert (code, err) == (0, [])
    assert out[0].startswith("dcgan on digits: 1,797 images of 8x8x1, G ")
    assert out[-5].startswith("Fréchet distance")


def test_training_writes_what_it_says(trained):
    for name in ("ring", "digits"):
        listed = trained[1][name][1][-3].split(": ")[1].split(", ")
        assert sorted(listed) == sorted(p.name + "/" * p.is_dir() for p in (trained[0] / name).iterdir())


def test_a_terminal_gets_a_live_bar(monkeypatch):
    class Terminal(Screen):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with contextlib.redirect_stdout(screen):
        assert cli.main(shlex.split(f"train {RING} --steps 10 --out live")) == 0
    assert "10/10" in screen.getvalue()
    assert "L_D" in screen.getvalue()


def test_the_folder_is_named_after_the_data():
    assert main(f"train {RING} --steps 1")[0] == 0
    assert (Path("runs") / "ring" / "config.toml").exists()
    code, out, _ = main(f"train {RING} --steps 2 --resume")
    assert (code, out[2]) == (0, "its schedules end at step 2 now: a run to there in one go would differ")


def test_a_config_file_sets_and_flags_override():
    Path("my.toml").write_text('data = "ring"\nmodel = "mlp"\nsteps = 7\nwidth = 3\nlr_d = 0.5\nbatch_norm = false\n')
    code, _, err = main("train --config my.toml --steps 2 --out mine")
    assert (code, err) == (0, [])
    wanted = replace(Config.preset("ring"), steps=2, width=3, lr_d=0.5)
    assert Config.from_toml("mine/config.toml") == wanted
    assert main("train --config mine/config.toml --steps 0 --out again")[0] == 0
    assert Config.from_toml("again/config.toml") == replace(wanted, steps=0)


def test_resuming_to_a_new_goal(ring):
    code, out, err = main(f"train --resume --steps 45 --out {ring}")
    assert (code, err) == (0, [])
    assert out[1] == "from step 40 to 45 on cpu, into ring/"
    assert Config.from_toml(ring / "config.toml").steps == 45
    assert main(f"train {RING} --steps 50 --resume --out {ring}")[0] == 0  # settings of the run may be repeated
    assert [step for step, _ in checkpoint.find(ring / "checkpoints")] == [45, 50]


def test_resuming_tells_of_a_damaged_checkpoint(ring):
    newest = ring / "checkpoints" / "step_0000040.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    code, out, err = main(f"train --resume --out {ring}")
    assert code == 0
    assert out[1] == "from step 20 to 40 on cpu, into ring/"
    assert len(err) == 1
    assert err[0].startswith(f"minigan: {newest} is not a whole checkpoint")
    assert main(f"sample {ring}")[2] == []


def test_a_console_without_our_letters_is_no_reason_to_fail(tmp_path):
    with (
        process(f"train {RING} --steps 5 --out plain", tmp_path, "cp1252") as child,
        process("train --bach-size 3", tmp_path, "ascii") as refused,
    ):
        out, err = child.communicate()
        assert (child.returncode, "Traceback" in err) == (0, False), err
        assert "step      5/5" in out
        _, err = refused.communicate()
    assert err.startswith("minigan: Unrecognized options: --bach-size, 3; did you mean --batch-size?")


# --- sample -----------------------------------------------------------------------------------------------------------


def test_samples_of_images(trained):
    code, out, err = main("sample --count 1234 --out some/new/images.npz", trained[0] / "digits")
    assert (code, err) == (0, [])
    assert out == ["1,234 samples of step 4 are in some/new/images.npz"]
    with np.load("some/new/images.npz") as archive:
        assert list(archive) == ["images"]
        images = archive["images"]
    assert images.shape == (1234, 8, 8, 1)
    assert images.dtype == np.float32
    assert -1 <= images.min() < images.max() <= 1


def test_samples_of_points(trained):
    assert main("sample", trained[0] / "ring")[0] == 0
    with np.load("samples.npz") as archive:
        assert list(archive) == ["points"]
        assert archive["points"].shape == (2000, 2)
        assert archive["points"].dtype == np.float32


def test_samples_are_a_function_of_their_seed(trained):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        assert main(f"sample --count 9 --seed {seed} --out {name}.npz", trained[0] / "digits")[0] == 0
    same, again, other = (Path(f"{name}.npz").read_bytes() for name in "abc")
    assert same == again != other


@pytest.mark.parametrize(
    ("count", "side"), [("", 8), ("--count 9", 3), ("--count=9", 3), ("--count 100", 10), ("--count=100", 10)]
)
def test_a_picture_of_images(trained, count, side):
    assert main(f"sample {count} --out grid.PNG", trained[0] / "digits")[0] == 0
    with Image.open("grid.PNG") as picture:
        assert picture.format == "PNG"
        assert picture.size == (4 + side * 52,) * 2


def test_a_picture_of_points(trained):
    assert main("sample --out cloud.png", trained[0] / "ring")[0] == 0
    with Image.open("cloud.png") as picture:
        assert picture.size == (460, 460)


def test_samples_never_overwrite_unless_told(trained):
    Path("mine.npz").write_bytes(b"precious")
    code, out, err = main("sample --out mine.npz", trained[0] / "ring")
    assert (code, out) == (2, [])
    assert err == ["minigan: mine.npz exists already: choose another --out, or add --force"]
    assert Path("mine.npz").read_bytes() == b"precious"
    assert main("sample --out mine.npz --count 3 --force", trained[0] / "ring")[0] == 0
    with np.load("mine.npz") as archive:
        assert archive["points"].shape == (3, 2)


def test_sampling_leaves_the_run_as_it_is(ring):
    before = files()
    assert main(f"sample {ring}")[0] == 0
    after = files()
    del after["samples.npz"]
    assert after == before


# --- refusals ---------------------------------------------------------------------------------------------------------

REFUSED = {
    "trian": "there is no command 'trian': choose from train, explain, study, sample, check, doctor",
    "--frobnicate": "there is no command '--frobnicate'",
    "train --bach-size 3": "Unrecognized options: --bach-size, 3; did you mean --batch-size?",
    "sample ring --cuont 3": "did you mean --count?",
    "train stray": "Unrecognized options: stray",
    "train --steps x": "Error parsing --steps: invalid literal for int() with base 10: 'x'",
    "train --steps": "Missing value for argument '--steps'",
    "train --steps -1": "steps must be a number >= 0, not -1",
    "train --lr-d nan": "lr_d must be a number >= 0, not nan",
    "train --ema 1": "ema must be in [0, 1), not 1.0",
    "train --batch-size 0": "batch_size must be at least 1, not 0",
    "train --seed -5": "seed must be from 0 to 2**64 - 1, not -5",
    "train --data mnist": "unknown data 'mnist': choose from digits, ring, grid",
    "train --model vae": "unknown model 'vae': choose from dcgan, mlp",
    "train --objective zz": "unknown objective 'zz': choose from minimax, non-saturating",
    "train --penalty l2": "unknown penalty 'l2': choose from r1, r2, wgan-gp, lp, dragan, weight-decay, none",
    "train --init odd": "unknown init 'odd': choose from",
    "train --data ring --model dcgan": "model 'dcgan' makes images",
    "train --device tpu": "unknown device 'tpu': choose from auto, cpu, cuda, cuda-emulated",
    "train --out ring": "ring exists already and is left as it is: continue its run with --resume",
    "train --out file": "file exists already and is left as it is: it is no folder, so choose another --out",
    "train --out hidden": "hidden exists already and is left as it is: it holds no run but .DS_Store",
    "train --config deep.toml": "deep.toml is not a TOML file",
    "train --out file/under": "file/under: Not a directory",
    "train --config missing.toml": "missing.toml: No such file or directory",
    "train --config broken.toml": "broken.toml is not a TOML file: ",
    "train --config other.toml": "other.toml: unknown setting 'stpes'",
    "train --config .": ".: Is a directory",
    "train --resume --out missing": "missing holds no run: it has no config.toml",
    "train --resume --out ring": "ring is at step 40 already: give a larger --steps to continue",
    "train --resume --out ring --steps 50 --width 9": "only --steps may change: remove --width",
    "train --resume --out ring --steps 50 --lr-d 1 --seed 3": "remove --lr-d, --seed",
    "train --resume --out ring --steps 50 --config good.toml": "remove --config",
    "train --resume --out damaged --steps 50": "is not a whole checkpoint",
    "sample": "Missing from minigan sample: RUN",
    "sample missing": "missing holds no run: it has no config.toml",
    "sample damaged": "is not a whole checkpoint",
    "sample ring --out samples.jpg": "--out must end in .npz or .png, not 'samples.jpg'",
    "sample ring --out samples": "--out must end in .npz or .png, not 'samples'",
    "sample ring --count 0": "--count must be at least 1, not 0",
    "sample digits --count 401 --out many.png": "at most 400 for a .png of images, not 401",
    "sample digits --count=401 --out many.png": "at most 400 for a .png of images, not 401",
    "sample ring --seed -1": "seed",
    "sample ring --out file/samples.npz": "file",
    "sample ring --out folder.npz --force": "Is a directory",
    "check --backend odd": "odd",
    "doctor --now": "Unrecognized options: --now",
}


@pytest.mark.parametrize("line", REFUSED)
def test_a_refusal_is_one_sentence_and_changes_nothing(line, trained):
    for name, run in {"ring": "ring", "damaged": "ring", "digits": "digits"}.items():
        shutil.copytree(trained[0] / run, name)
    for path in Path("damaged/checkpoints").iterdir():
        path.write_bytes(b"")
    Path("file").touch()
    Path("folder.npz").mkdir()
    Path("hidden").mkdir()
    Path("hidden/.DS_Store").touch()
    Path("deep.toml").write_text("steps = " + "[" * 100_000)
    Path("broken.toml").write_text("steps = = 3\n")
    Path("other.toml").write_text("stpes = 3\n")
    Path("good.toml").write_text("width = 9\n")
    before = files()
    code, out, err = main(line)
    assert (code, out, len(err)) == (2, [], 1), (out, err)
    assert err[0].startswith("minigan: ")
    assert REFUSED[line] in err[0]
    assert "Traceback" not in err[0]
    assert files() == before


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to():
    Path("locked").mkdir(mode=0o500)
    code, _, err = main(f"train {RING} --out locked/run")
    assert (code, err) == (2, ["minigan: locked/run: Permission denied"])


def test_divergence_is_told_without_a_traceback(tmp_path):
    with process(f"train {RING} --lr-d 1e30 --steps 40 --out wild", tmp_path) as child:
        _, err = child.communicate()
    err = [line for line in err.splitlines() if not line.startswith(COMPILING)]
    assert child.returncode == 1
    assert "step 1: the loss of G is not finite: dense made it first" in err[-1]
    assert err[-1].endswith("the last good checkpoint is step 0, and the files so far are kept in wild")
    assert len(err) == 1, err


def test_check_passes_and_fails_by_its_rows(monkeypatch):
    from minigan.testing import gradcheck as testing
    from minigan.testing import optable

    monkeypatch.setattr(optable, "ROWS", optable.ROWS[:2])
    code, out, err = main("check")
    assert (code, out[-1], err) == (0, "2 of 2 ops have the right gradients", [])
    bad = optable.ROWS[1].name

    def wrong(row, seed, device):
        assert row.name != bad, "the gradient is off"

    monkeypatch.setattr(testing, "check_row", wrong)
    code, out, err = main("check --backend reference")
    assert (code, out[-1]) == (1, "1 of 2 ops have the right gradients")
    assert any(line.startswith(f"{bad}: the gradient is off") for line in out)


# --- signals ----------------------------------------------------------------------------------------------------------


def wait_for(path, child):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline, f"{path} was not made"
        time.sleep(0.02)


@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_saves_and_tells_how_to_go_on(tmp_path, number, code):
    with process(f"train {RING} --steps 1000000 --out 'my run'", tmp_path) as child:
        wait_for(tmp_path / "my run" / "samples" / "step_0000000.png", child)
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
    assert child.returncode == code, err
    assert not [line for line in err.splitlines() if not line.startswith(COMPILING)]
    stopped, command = out.splitlines()[-1].split("; everything is saved. Continue with: ")
    assert command == "minigan train --resume --out 'my run'"
    step = int(stopped.removeprefix("stopped at step "))
    found = checkpoint.latest(Path("my run/checkpoints"))
    assert (found.saved.arrays["steps"], found.skipped) == (step, {})
    assert Path("my run/samples.png").exists() == (step > 0)
    assert Path("my run/curves.png").exists() == (step >= 5)  # from the first row of metrics on
    code, out, err = main(f"{command.removeprefix('minigan ')} --steps {step + 3}")
    assert (code, err) == (0, [])
    assert out[1] == f"from step {step} to {step + 3} on cpu, into my run/"
    assert Path("my run/training.gif").exists()


@posix
def test_a_second_signal_ends_at_once(monkeypatch):
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in handled]
    with stopping() as stop:
        stop.waits = True
        assert stop.number == 0
        signal.raise_signal(signal.SIGTERM)
        assert (stop.number, left) == (signal.SIGTERM, [])
        signal.raise_signal(signal.SIGINT)
        assert left == [130]
    assert [signal.getsignal(number) for number in handled] == before


@posix
def test_a_signal_that_need_not_wait_ends_the_preparation(monkeypatch):
    def prepare(*_):
        Path("run/config.toml").touch()
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("minigan.run.run.Run.save", prepare)
    assert main("train --out run") == (143, [], ["minigan: interrupted"])
    assert not files()
    assert not Path("run").exists()


def _breaking(monkeypatch, last, act):
    """Let ``act`` be called in the step after step ``last``."""
    whole = Trainer.step

    def step(trainer):
        if trainer.steps == last:
            act()
        return whole(trainer)

    monkeypatch.setattr(Trainer, "step", step)


def test_a_run_that_fails_in_its_first_step_leaves_nothing(monkeypatch):
    def fail():
        raise OSError("there is no compiler")

    _breaking(monkeypatch, 0, fail)
    assert main(f"train {RING} --out a/b")[::2] == (2, ["minigan: there is no compiler"])
    assert not Path("a").exists()
    Path("mine").mkdir()
    assert main(f"train {RING} --out mine")[0] == 2
    assert Path("mine").is_dir()
    assert not files()


def test_a_run_that_fails_later_can_be_resumed(monkeypatch):
    def fail():
        raise MemoryError("Unable to allocate 1 TiB")

    with monkeypatch.context() as patch:
        _breaking(patch, 3, fail)
        code, _, err = main(f"train {RING} --steps 5 --out run")
        assert code == 1
        assert err[0].endswith("the last good checkpoint is step 0, and the files so far are kept in run")
    code, out, err = main("train --resume --out run")
    assert (code, err, out[1]) == (0, [], "from step 0 to 5 on cpu, into run/")


@posix
def test_a_signal_in_the_first_step_does_not_wait_for_it(monkeypatch):
    with monkeypatch.context() as patch:
        _breaking(patch, 0, lambda: signal.raise_signal(signal.SIGTERM))
        code, out, err = main(f"train {RING} --steps 5 --out run")
        assert (code, err) == (143, [])
        assert out[-1].startswith("stopped at step 0; everything is saved. Continue with: ")
        assert not Path("run/samples.png").exists()
    code, out, err = main("train --resume --out run")
    assert (code, err, out[1]) == (0, [], "from step 0 to 5 on cpu, into run/")
    assert main(f"train {RING} --steps 5 --out whole")[0] == 0
    for name in ("metrics.csv", "variety.csv", "samples.png", "training.gif"):
        assert Path("run", name).read_bytes() == Path("whole", name).read_bytes(), name


@posix
def test_a_signal_later_waits_for_its_step_and_draws_pictures(monkeypatch):
    _breaking(monkeypatch, 6, lambda: signal.raise_signal(signal.SIGHUP))
    code, out, _ = main(f"train {RING} --steps 9 --out run")
    assert (code, out[-1].partition(";")[0]) == (129, "stopped at step 7")
    made = {path.name for path in Path("run").iterdir()}
    assert {"samples.png", "curves.png"} <= made
    assert "training.gif" not in made


def test_a_reader_that_leaves_stops_the_run(monkeypatch):
    class Pipe(Screen):
        def write(self, text):
            if "step      5" in text:
                raise BrokenPipeError
            return super().write(text)

    screen = Pipe()
    with contextlib.redirect_stdout(screen):
        assert cli.main(shlex.split(f"train {RING} --steps 20 --log-every 1 --out run")) == 141
    assert "step      4" in screen.getvalue()
    (found,) = (step for step, _ in checkpoint.find(Path("run/checkpoints")) if step)
    assert 5 <= found < 20


@posix
def test_a_closed_terminal_is_ignored_under_nohup(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert stop.number == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@posix
def test_ctrl_c_during_imports_leaves_no_traceback(tmp_path):
    """The import of the package is interrupted from inside: NumPy is the first thing that it imports."""
    (tmp_path / "numpy.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run(
        [sys.executable, "-m", "minigan", "--version"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "minigan: interrupted\n")
    done = subprocess.run(
        [sys.executable, "-c", "import minigan"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stderr.endswith("KeyboardInterrupt\n")


def test_ctrl_c_outside_training_leaves_no_traceback(monkeypatch):
    def stop(arguments):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "doctor", cli.Command("", stop))
    assert main("doctor") == (130, [], ["minigan: interrupted"])


def test_running_out_of_memory_is_told(monkeypatch):
    def grow(arguments):
        raise MemoryError("Unable to allocate 1 TiB")

    monkeypatch.setitem(cli.COMMANDS, "train", cli.Command("", grow))
    code, _, err = main("train")
    assert code == 1
    assert err == ["minigan: out of memory (Unable to allocate 1 TiB): use a smaller --batch-size or --width"]


def test_a_full_disk_is_told(monkeypatch):
    import errno

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = main(f"train {RING} --steps 5 --out full")
    assert code != 0
    assert err == ["minigan: cannot write full/checkpoints/step_0000000.safetensors: No space left on device"]


# --- devices ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(why_not("cuda") is None, reason="this machine has a GPU")
@pytest.mark.parametrize("line", ["train --device cuda", "check --device cuda"])
def test_a_gpu_that_is_not_there_is_one_sentence(line):
    code, out, err = main(line)
    assert (code, len(err)) == (2, 1)
    assert f"device 'cuda': {why_not('cuda')}" in err[0]
    assert not files()


@pytest.mark.skipif(why_not("cuda") is None, reason="this machine has a GPU")
def test_auto_says_once_that_it_takes_the_cpu():
    code, out, _ = main("train --data ring --steps 1 --batch-size 4 --width 4")
    assert code == 0
    assert sum(line.startswith("device auto is the CPU here: ") for line in out) == 1
    assert sum("on cpu, into" in line for line in out) == 1
