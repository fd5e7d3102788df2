"""minigan is found from every folder, the parent of its checkout too, and its kernels have one name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = ("minigan", "kernels", "setup.py", "pyproject.toml", "README.md", "LICENSE")

USE = """
import sys
import minigan as mg
import minigan.kernels.cpu.jit
x = mg.tensor([3.0], requires_grad=True)
assert mg.grad((x * x).sum(), x).numpy() == 6.0
files = [module.__file__ for name, module in sys.modules.items() if name.startswith(("minigan", "kernels"))]
assert len(files) == len(set(files)), "a file was imported under two names"
print(mg.__file__)
"""


def run(arguments, cwd, **environment):
    """Run a program; return what it printed."""
    environment = {**os.environ, **environment}
    done = subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """Return a copy of the checkout, in a folder with the name that ``git clone`` gives it."""
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / "minigan" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tmp_path / "minigan" / name)
    return tmp_path / "minigan"


def test_a_script_beside_an_editable_checkout(checkout, tmp_path):
    """Python looks into the script's folder first, and takes a folder minigan/ there for a package without files."""
    build = "from setuptools.build_meta import build_editable; build_editable('..')"
    run([sys.executable, "-c", build], checkout)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    as_installed = f"""
import site, sys
sys.meta_path = [finder for finder in sys.meta_path if "Editable" not in str(finder)]
sys.path = [entry for entry in sys.path if entry != {str(ROOT)!r}]
site.addsitedir({str(tmp_path / "site")!r})
"""
    (tmp_path / "mine.py").write_text(as_installed + USE)
    assert run([sys.executable, "mine.py"], tmp_path) == str(checkout / "minigan" / "__init__.py")


def test_a_checkout_needs_no_installation(checkout, tmp_path):
    found = str(checkout / "minigan" / "__init__.py")
    assert run([sys.executable, "-c", USE], checkout) == found
    assert run([sys.executable, "-c", USE], tmp_path, PYTHONPATH=str(checkout)) == found
    shutil.rmtree(checkout / "kernels")
    done = subprocess.run(
        [sys.executable, "-c", "import sys; import minigan"], cwd=checkout,
        env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: minigan needs the folder kernels/ of its checkout, and {checkout / 'kernels'} is not there"
    )


@pytest.mark.slow
@pytest.mark.parametrize("editable", [True, False], ids=["editable", "copied"])
def test_pip_installs_it_for_every_folder(checkout, tmp_path, editable):
    run([sys.executable, "-m", "venv", "--without-pip", "venv"], tmp_path)
    scripts = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python = str(scripts / "python")
    site = run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], tmp_path)
    # the packages that this Python has, without their .pth files: minigan's is among these
    (Path(site) / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [python, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    run([*pip, *(["--editable"] if editable else []), "./minigan"], tmp_path)
    copy, own = str(Path(site) / "minigan" / "__init__.py"), str(checkout / "minigan" / "__init__.py")
    (tmp_path / "mine.py").write_text(USE)
    (tmp_path / "elsewhere").mkdir()
    for folder in (tmp_path, tmp_path / "elsewhere", checkout):
        installed = own if editable else copy
        assert run([python, str(tmp_path / "mine.py")], folder) == installed
        assert run([python, "-I", "-c", USE], folder) == installed
        assert run([python, "-c", USE], folder) == (own if folder == checkout else installed)
        assert run([python, "-m", "minigan", "--version"], folder).startswith("minigan ")
        assert run([str(scripts / "minigan"), "--version"], folder).startswith("minigan ")
