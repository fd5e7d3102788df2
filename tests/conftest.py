"""What all tests share: deterministic Hypothesis profiles, the backends, and fixtures that catch leaked state."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, settings

from minigan import kernels
from minigan.engine.gradmode import is_grad_enabled
from minigan.kernels.gpu import emulator
from tests.slow import SLOW

for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGTERM, signal.SIG_DFL),
    (getattr(signal, "SIGHUP", signal.SIGTERM), signal.SIG_DFL),
):  # what starts the tests may ignore signals (nohup, a shell's background), and their processes would too
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)

IN_CI = os.environ.get("CI") == "true"

settings.register_profile(
    "minigan",
    deadline=None,
    derandomize=IN_CI,
    max_examples=10 if IN_CI else 4,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("minigan")

MOST_WORKERS = 4


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Share the whole suite among processes; a file or a test that is named runs in this one."""
    whole = config.args_source is not pytest.Config.ArgsSource.ARGS and "PYTEST_XDIST_WORKER" not in os.environ
    if whole and getattr(config.option, "numprocesses", 0) is None and not config.option.usepdb:
        config.option.numprocesses = min(MOST_WORKERS, os.cpu_count() or 1)
        if config.option.dist == "no":
            config.option.dist = "worksteal"  # neighbours, which share fixtures, go to one process
        if not config.option.collectonly:
            compile_once()


def compile_once():
    """Compile what most tests call, each dtype in a process: those that share the suite would all compile it."""
    programs = [
        f"from minigan.kernels import warm; warm.compile_kernels({dtype!r})" for dtype in ("float64", "float32")
    ]
    alone = {**os.environ, "MINIGAN_COMPILING": "1"}
    for process in [subprocess.Popen([sys.executable, "-c", program], env=alone) for program in programs]:
        process.wait()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark the tests of :mod:`slow`; a name there that no test has any more is an error."""
    known = set()
    for item in items:
        name = f"{item.path.stem}::{item.originalname}"
        if name in SLOW:
            known.add(name)
            if not any(part in item.name for part in SLOW[name]):
                item.add_marker("slow")
    files = {item.path.stem for item in items}
    gone = sorted(name for name in SLOW if name.split("::")[0] in files and name not in known)
    if gone and not any(item.config.option.keyword or "::" in arg for item in items[:1] for arg in item.config.args):
        raise pytest.UsageError(f"tests/slow.py names tests that are not there: {', '.join(gone)}")


CPU_BACKENDS = ("reference", "numba")
EMULATED = tuple(f"cuda-emulated, {order}" for order in emulator.ORDERS)


@contextmanager
def running_on(backend):
    """Run a with block on a backend; yield the device that its arrays belong on."""
    device, _, order = backend.partition(", ")
    if device == "cuda":
        yield device
        return
    if device in CPU_BACKENDS:
        with kernels.use(device):
            yield "cpu"
        return
    if emulator.missing_compiler():
        pytest.skip(emulator.missing_compiler())
    with emulator.order(order, seed=11):
        yield device


@pytest.fixture(autouse=True)
def _no_leaked_state():
    yield
    assert is_grad_enabled(), "a test left gradient recording off"
    assert kernels.active() == "numba", "a test left another kernel backend in use"
    assert gc.isenabled(), "a test left the garbage collector off"


@pytest.fixture(params=CPU_BACKENDS)
def backend(request):
    """Run the test on every CPU backend."""
    with kernels.use(request.param):
        yield request.param
