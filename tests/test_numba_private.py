"""Numba's private interface is where the kernels look for it, and one file alone looks."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import numba
import numpy as np
import pytest

from minigan.kernels.cpu import numba_private
from minigan.kernels.cpu.jit import late
from minigan.kernels.cpu.units import units
from minigan.kernels.cpu.vector import instruction

ROOT = Path(__file__).parent.parent
PLACES = [(place, name) for place, names in numba_private.NAMES.items() for name in names]


def find(place):
    """Import a module, or a class in one."""
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError:
        module, _, name = place.rpartition(".")
        return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(("place", "name"), PLACES, ids=[f"{place}.{name}" for place, name in PLACES])
def test_a_private_name_is_where_it_was(place, name):
    moved = f"numba {numba.__version__} has no {place}.{name}: kernels/cpu/numba_private.py must look elsewhere for it"
    try:
        found = find(place)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{moved} ({error})")
    declared = getattr(found, "__slots__", ()) if isinstance(found, type) else ()
    assert hasattr(found, name) or name in declared or name in getattr(found, "__annotations__", {}), moved


def test_the_table_holds_all_that_the_file_takes():
    """Every attribute of a private module, of a context or a calling convention stands in NAMES."""
    tree = ast.parse(Path(numba_private.__file__).read_text(encoding="utf-8"))
    known = {name for names in numba_private.NAMES.values() for name in names}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in ("cgutils", "event")
        ):
            assert node.attr in known, node.attr
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "context":
            assert node.attr in known, node.attr


def test_no_other_file_reaches_into_numba():
    private = re.compile(r"numba\.core|cgutils|call_conv|get_call_template|fndesc|\.overloads|\.stats\b|numba\.config")
    for folder in ("minigan", "kernels", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name != "numba_private.py":
                assert not private.search(path.read_text(encoding="utf-8")), f"{path} uses Numba's private interface"


def test_the_pin_covers_the_release_that_is_tested():
    (low, high) = re.search(r"numba>=(\d+\.\d+),<(\d+\.\d+)", (ROOT / "setup.py").read_text(encoding="utf-8")).groups()
    assert tuple(map(int, low.split("."))) <= numba.version_info.short < tuple(map(int, high.split(".")))


@late
def twice_and_one():
    @instruction(result=lambda types, x, *_: x.dtype)
    def twice_and_one(code, x, at):
        return code.fma(
            code.load(code.at(x, at), code.number), code.constant(2.0, code.number), code.constant(1.0, code.number)
        )

    return twice_and_one


@units
def twice_and_one_units(unit, x, y):
    y[unit] = twice_and_one(x, unit)


def test_an_instruction_is_compiled():
    """The whole way once: arguments, an external function, a call by address."""
    x, y = np.arange(5.0), np.empty(5)
    twice_and_one_units(5, x, y, work=0)
    assert y.tolist() == [1, 3, 5, 7, 9]


def test_a_compilation_is_heard_of():
    heard = []
    numba_private.on_compilation(lambda: heard.append(1))
    numba.njit(lambda: 0)()
    assert heard


def test_what_is_not_contiguous_is_refused():
    with pytest.raises((TypeError, numba.TypingError), match="contiguous"):
        twice_and_one_units(2, np.arange(8.0)[::2], np.empty(2), work=0)


def test_code_takes_no_other_types_than_those_it_was_compiled_for():
    """Numbers of another type, arrays of another dtype or number of axes; a read-only array is the same to it."""
    x, y = np.arange(5.0), np.empty(5)
    twice_and_one_units(5, x, y, work=0)
    for wrong in (np.empty(5, np.float32), np.empty((5, 1)), np.empty(5, np.int64), 1.0, 1, None):
        with pytest.raises(TypeError, match=r"twice_and_one_units takes|[Cc]annot determine Numba type"):
            twice_and_one_units(5, x, wrong, work=0)
    x.flags.writeable = False
    for _ in range(2):
        y[:] = 0
        twice_and_one_units(5, x, y, work=0)
        assert y.tolist() == [1, 3, 5, 7, 9]
