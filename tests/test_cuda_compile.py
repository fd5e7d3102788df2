"""Every kernel compiles for every GPU that is supported, with no register spilled: checked without one."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from minigan import kernels
from minigan.kernels.gpu import launch as cuda

from . import nvrtc

FOLDER = Path(kernels.__file__).parent
FILES = sorted(path.name for path in FOLDER.glob("*.cu"))
ARCHS = (75, 80, 86, 89, 90, 100, 120)


def instances(file):
    """Every instance of every kernel in a file that a launch can ask for, and how many kernels there are."""
    found = []
    for name, template in cuda.templates(cuda.expand(file, set())).items():
        if not template:
            found.append(name)
            continue
        for dtype, *choices in itertools.product(("float32", "float64"), *[(False, True)] * (len(template) - 1)):
            if "TF32" in template and dtype == "float64" and choices[template.index("TF32") - 1]:
                continue  # tensor cores multiply float32 alone
            found.append(cuda.instance_of(name, dtype, choices))
    return found


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("arch", ARCHS)
def test_every_kernel_compiles_without_spills(file, arch):
    if nvrtc.library() is None:
        pytest.skip("nvidia-cuda-nvrtc is not installed")
    code, log = nvrtc.compile_to_cubin(cuda.expand(file, set()), file, arch, instances(file))
    assert code[:4] == b"\x7fELF"
    assert nvrtc.spills(log) == []
    assert "warning" not in log
    found = nvrtc.registers(log)
    assert len(found) == len(instances(file))
    assert max(found) <= 255


def test_every_kernel_is_launched_with_parameters_that_can_be_read():
    names = {name: file for file in FILES for name in cuda.parse(cuda.expand(file, set()))}
    assert len(names) >= 20
