"""The pool of threads: every unit runs once, whoever comes, goes, forks or competes for the helpers."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np
import pytest

from minigan.kernels.cpu import pool as pools
from minigan.kernels.cpu.units import PARALLEL_WORK, units

from .test_kernels import run_program

EVERYONE = PARALLEL_WORK  # enough work to call the helpers


@units
def count_units(unit, counts):
    counts[unit] += 1


class Line(NamedTuple):
    slope: Any
    start: int
    on: bool


@units
def line_units(unit, y, line):
    y[unit] = line.slope[0] * unit + line.start if line.on else 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_view_reaches_the_units_with_its_names(dtype):
    y, slope = np.empty(7, dtype), np.full(2, 3, dtype)
    slope.flags.writeable = False
    for work in (0, EVERYONE):
        line_units(7, y, view=Line(slope, 2, True), work=work)
        assert y.tolist() == [2, 5, 8, 11, 14, 17, 20]
    line_units(7, y, view=Line(slope, 2, False), work=0)
    assert y.tolist() == [0] * 7
    with pytest.raises(TypeError, match="contiguous"):
        line_units(7, y, view=Line(np.full(4, 3, dtype)[::2], 2, True), work=0)


@pytest.mark.parametrize("threads", ["1", "2", "7"])
def test_every_unit_runs_once(threads):
    program = """
import numpy as np
from minigan.kernels.cpu.units import PARALLEL_WORK
from tests.test_pool import count_units
for job in range(3000):
    counts = np.zeros(2 + job * 37 % 301)
    count_units(counts.size, counts, work=PARALLEL_WORK)
    assert (counts == 1).all(), (job, counts)
print("once each")
"""
    assert run_program(program, NUMBA_NUM_THREADS=threads) == "once each"


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_unit_that_fails_is_heard_of(threads, tmp_path):
    """So that the tests with bounds checks can fail, and memory that runs out is not a wrong result."""
    program = """
import numpy as np
from minigan.kernels.cpu.units import PARALLEL_WORK
from tests.test_pool import count_units
for work in (0, PARALLEL_WORK):
    try:
        count_units(9, np.zeros(5), work=work)
    except RuntimeError as error:
        print("index was out of bounds" in str(error))
"""
    environment = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_NUM_THREADS": threads}
    assert run_program(program, **environment).split() == ["True", "True"]


def test_threads_of_the_program_do_not_disturb_one_another():
    wrong = []

    def work(seed):
        for job in range(400):
            counts = np.zeros(2 + (seed + job) * 31 % 97)
            count_units(counts.size, counts, work=EVERYONE)
            if not (counts == 1).all():
                wrong.append((seed, job))

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


def test_helpers_that_sleep_are_called_again(monkeypatch):
    program = """
import time
import numpy as np
from minigan.kernels.cpu.pool import pool
from minigan.kernels.cpu.units import PARALLEL_WORK
from tests.test_pool import count_units
for _ in range(3):
    counts = np.zeros(50)
    count_units(50, counts, work=PARALLEL_WORK)
    assert (counts == 1).all()
    began = time.monotonic()
    while not pool().asleep:
        assert time.monotonic() - began < 30
        time.sleep(0.01)
    assert sum(t.is_alive() for t in pool()._helpers) == 1
print("slept and woke")
"""
    assert run_program(program, NUMBA_NUM_THREADS="2") == "slept and woke"


@pytest.mark.skipif(not hasattr(pools.os, "fork"), reason="this system has no fork")
def test_a_forked_process_has_helpers_of_its_own():
    program = """
import os
import numpy as np
from minigan.kernels.cpu.pool import pool
from minigan.kernels.cpu.units import PARALLEL_WORK
from tests.test_pool import count_units
def run():
    for _ in range(200):
        counts = np.zeros(50)
        count_units(50, counts, work=PARALLEL_WORK)
        assert (counts == 1).all()
run()
child = os.fork()
run()
if child == 0:
    os._exit(7 if all(t.is_alive() for t in pool()._helpers) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_program(program, NUMBA_NUM_THREADS="2") == "7"


def test_a_limit_on_threads_leaves_fewer_helpers(monkeypatch, capsys):
    """A process that may start no thread works alone, and says so once."""

    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(pools, "most_threads", lambda: 3)
    alone = pools.Pool()
    assert alone.threads == 1
    assert capsys.readouterr().err == "minigan: the system lets no more threads start: 1 of 3 are used\n"
