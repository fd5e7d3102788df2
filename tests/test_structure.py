"""The project's shape: layers import only downwards, the package holds its files, and importing it is light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import minigan

ROOT = Path(__file__).parent.parent

# every module of a layer may import its own layer and those above it in this list: ten folders, and three files beside
LAYERS = [
    ["minigan.kernels"],
    ["minigan.engine"],
    ["minigan.ops"],
    ["minigan.random", "minigan.optim"],
    ["minigan.testing"],
    ["minigan.nn"],
    ["minigan.data"],
    ["minigan.gan"],
    ["minigan.lab"],
    ["minigan.run"],
    ["minigan.studies"],
    ["minigan.cli"],
    ["minigan.__main__"],
]


def sources():
    for folder, package in ((ROOT / "minigan", "minigan"), (ROOT / "kernels", "minigan.kernels")):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join([package, *(part for part in parts if part != "__init__")]), path


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(name):
    for number, names in enumerate(LAYERS):
        if any(name == known or name.startswith(known + ".") for known in names):
            return number
    return None


MODULES = dict(sources())


@pytest.mark.parametrize("module", [name for name in MODULES if name != "minigan"])
def test_imports_point_down(module):
    own = layer(module)
    assert own is not None, f"{module} belongs to no layer"
    for name in imports(MODULES[module]):
        if name.startswith("minigan.") and layer(name) is not None:
            assert layer(name) <= own, f"{module} imports {name}, which is above it"


def test_no_circles():
    graph = {}
    for module, path in MODULES.items():
        found = {name if name in MODULES else name.rpartition(".")[0] for name in imports(path)}
        graph[module] = {name for name in found if name in MODULES} - {module, "minigan"}
    finished = set()
    while graph:
        free = {module for module, needs in graph.items() if needs <= finished}
        assert free, f"these modules import one another in a circle: {sorted(graph)}"
        finished |= free
        graph = {module: needs for module, needs in graph.items() if module not in free}


def test_kernels_know_nothing_of_minigan_above_them():
    for module, path in MODULES.items():
        if module.startswith("minigan.kernels"):
            assert all(n.startswith("minigan.kernels") for n in imports(path) if n.startswith("minigan")), module


def test_cupy_is_imported_in_the_kernels_alone():
    for module, path in MODULES.items():
        if not module.startswith("minigan.kernels"):
            assert not any(name.split(".")[0] == "cupy" for name in imports(path)), module


def test_importing_minigan_loads_neither_compiler_nor_pictures():
    heavy = "numba, matplotlib, PIL, tyro, rich, safetensors, cupy"
    program = f"import sys, minigan; print(sorted(set(sys.modules) & set('{heavy}'.split(', '))))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_kernels_under_another_name_are_refused():
    done = subprocess.run(
        [sys.executable, "-c", "import kernels"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "import the kernels as minigan.kernels" in done.stderr


def test_wheel_and_sdist_hold_the_package(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    (sdist,) = tmp_path.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        metadata = archive.read(next(name for name in inside if name.endswith("METADATA"))).decode()
        entry_points = archive.read(next(name for name in inside if name.endswith("entry_points.txt"))).decode()
    for module, path in MODULES.items():
        package = module.startswith("minigan.kernels")
        relative = path.relative_to(ROOT / ("kernels" if package else "minigan"))
        assert f"minigan/{'kernels/' if package else ''}{relative}" in inside
    for path in (ROOT / "kernels").rglob("*"):
        if path.suffix in (".cu", ".cuh", ".cpp", ".hpp"):
            assert f"minigan/kernels/{path.relative_to(ROOT / 'kernels')}" in inside
    assert {"minigan/data/digits.npz", "minigan/data/digits.LICENSE.txt", "minigan/py.typed"} <= inside
    assert not any(name.split("/")[0] in ("kernels", "tests", "benchmarks", "examples") for name in inside)
    assert f"Version: {minigan.__version__}" in metadata
    assert "minigan = minigan.cli.main:main" in entry_points
    base = [line for line in re.findall(r"Requires-Dist: (.*)", metadata) if "extra ==" not in line]
    assert {re.split(r"[<>=]", line)[0] for line in base} == {
        "numpy", "numba", "matplotlib", "pillow", "safetensors", "tyro", "rich"
    }  # fmt: skip
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE", "kernels/conv.py", "minigan/cli/main.py"} <= names


def test_files_are_short_enough_to_read():
    """A table is exempt: minigan/testing/optable.py holds one row for every op."""
    sources = [path for folder in ("minigan", "kernels") for path in (ROOT / folder).rglob("*.*")]
    for path in sources:
        if path.suffix in (".py", ".cu", ".cuh", ".cpp", ".hpp"):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            assert lines <= (520 if path.name == "optable.py" else 300), f"{path.name} has {lines} lines"


def test_the_folders_show_the_layers():
    def inside(folder, *hidden):
        found = {path.name for path in (ROOT / folder).iterdir() if path.name not in ("__pycache__", *hidden)}
        return {name for name in found if "." not in name}, {name for name in found if "." in name}

    folders, files = inside("minigan")
    assert folders == {"engine", "ops", "testing", "nn", "data", "gan", "lab", "run", "studies", "cli"}
    assert files == {"__init__.py", "__main__.py", "random.py", "optim.py", "py.typed"}
    folders, files = inside("kernels")
    assert folders == {"cpu", "gpu"}
    operations = {"bias_act", "conv", "losses", "matmul", "optimisers", "philox", "batch_norm"}
    assert {f"{name}.{end}" for name in operations for end in ("py", "cu")} <= files
    assert files - {f"{name}.{end}" for name in operations for end in ("py", "cu")} == {
        "__init__.py", "batch_norm_vjp.py", "conv_shapes.py", "dispatch.py", "memory.py", "settings.py", "sums.py",
        "warm.py",
    }  # fmt: skip


def test_only_build_reads_a_config():
    for module, path in MODULES.items():
        if module.startswith(("minigan.gan", "minigan.lab", "minigan.data")) and module != "minigan.gan.config":
            text = path.read_text(encoding="utf-8")
            assert module == "minigan.gan.build" or "config." not in text.replace("gan.config", ""), module


def test_there_is_one_loop():
    """Who trains consumes Trainer.events: nobody else steps a trainer in a loop."""
    for folder in ("minigan", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name != "trainer.py":
                assert "trainer.step()" not in path.read_text(encoding="utf-8"), path
