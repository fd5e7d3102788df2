"""Every example runs, on a small setting, and comes out as it says."""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path

import pytest
from PIL import Image

from minigan.kernels.gpu import emulator

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_01_gradients(capsys):
    found = load("01_gradients").main()
    assert found["first"] == pytest.approx(12 - math.exp(-2), rel=1e-6)
    assert found["second"] == pytest.approx(12 + math.exp(-2), rel=1e-6)
    assert found["third"] == pytest.approx(6 - math.exp(-2), rel=1e-6)
    assert found["curvature"] == pytest.approx(0, abs=1e-12)  # softmax shares always add up to 1
    assert len(capsys.readouterr().out.splitlines()) == 20


def test_02_train_ring(tmp_path, capsys):
    modes = load("02_train_ring").main(steps=1500, out=str(tmp_path / "ring.png"))
    assert modes.found >= 6
    assert modes.high_quality > 0.2
    with Image.open(tmp_path / "ring.png") as picture:
        assert picture.size == (460, 460)
    assert "modes" in capsys.readouterr().out


def test_03_train_digits(tmp_path, capsys):
    distance = load("03_train_digits").main(steps=250, out=str(tmp_path / "digits.png"), width=16)
    assert distance < 20  # near 40 for images of noise
    with Image.open(tmp_path / "digits.png") as picture:
        assert picture.size == (420, 420)
    assert "share of each digit" in capsys.readouterr().out


def test_04_see_the_game(capsys):
    ends = load("04_see_the_game").main()
    assert list(ends.values()) == [
        pytest.approx(2.64, abs=0.01),
        pytest.approx(2.03e-8, rel=0.01),
        pytest.approx(0.0218, rel=0.01),
    ]
    said = capsys.readouterr().out
    assert said.count("circling") == 1
    assert said.count("stable: the slowest") == 2


@pytest.mark.skipif(emulator.missing_compiler() is not None, reason=str(emulator.missing_compiler()))
def test_06_write_a_kernel(capsys):
    reports = load("06_write_a_kernel").main()
    words = (
        "race in shared memory",
        "race in shared memory",
        "no thread has written",
        "entry 192 of x",
        "race between blocks",
    )
    for report, expected in zip(reports.values(), (*words, "wrap it"), strict=True):
        assert expected in report
    printed = capsys.readouterr().out
    assert printed.count("off by at most") == 3
    assert all(float(number) < 1e-6 for number in re.findall(r"at most (\S+)", printed))


def test_07_check_gradients(capsys, monkeypatch):
    example = load("07_check_gradients")
    verdicts = example.main()
    assert verdicts["log σ by hand"] == "right"
    assert "argument 1 has shape (4,) where the argument has ()" in verdicts["a sum forgotten"]
    assert "argument 0 is nan at entry (3,), value -750.0" in verdicts["an overflow"]
    assert "its slope is -1 on the left and 1 on the right" in verdicts["|x| at 0"]
    for library in ("torch", "jax"):
        assert verdicts[library] in ("right", f"left out: {library} is not installed")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert example.main()["jax"] == "left out: jax is not installed"
    assert len(capsys.readouterr().out.splitlines()) == 12


def test_without_a_compiler_06_says_so_in_a_line(capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert load("06_write_a_kernel").main() == {}
    assert capsys.readouterr().out.splitlines() == [emulator.missing_compiler()]
    assert "apt install g++" in emulator.missing_compiler()


def test_the_readme_runs(capsys):
    text = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    names = {}
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(code, names)
    printed = [line.split() for line in capsys.readouterr().out.splitlines() if "at equilibrium 1.386" in line]
    assert [int(words[0]) for words in printed] == list(range(10, 101, 10))
    losses = [float(words[1]) for words in printed]
    assert min(losses) < 2 * math.log(2) - 0.005, "D learns to tell points on a ring from those of G"
    assert max(losses) < 1.6


def test_the_readme_names_files_that_exist():
    text = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    for path in re.findall(r"\]\(([\w/.]+)\)", text):
        assert (EXAMPLES.parent / path).is_file(), path


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("[0-9]*.py")} == {
        name.removeprefix("test_") for name in globals() if name[5:6].isdigit()
    }
