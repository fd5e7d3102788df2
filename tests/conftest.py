"""What all tests share: deterministic Hypothesis profiles, the backends, and fixtures that catch leaked state."""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import HealthCheck, settings

from minigan import kernels
from minigan.gradmode import is_grad_enabled

settings.register_profile(
    "minigan",
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    max_examples=15,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("minigan")

BACKENDS = ("reference", "numba")


@pytest.fixture(autouse=True)
def _no_leaked_state():
    yield
    assert is_grad_enabled(), "a test left gradient recording off"
    assert kernels.active() == "numba", "a test left another kernel backend in use"
    assert gc.isenabled(), "a test left the garbage collector off"


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Run the test on every CPU backend."""
    with kernels.use(request.param):
        yield request.param
