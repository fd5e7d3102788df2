"""minigan: generative adversarial networks from first principles.

A small reverse-mode autodiff engine on NumPy arrays, kernels for the CPU in Numba, and the two-player game on top.
"""

import signal as _signal
import sys as _sys


class _Beside:
    """Finds minigan.kernels beside this folder, where a checkout has it. An installed copy holds it inside."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> object:
        if name != "minigan.kernels":
            return None
        from importlib.util import spec_from_file_location
        from pathlib import Path

        folder = Path(__file__).resolve().parent.parent / "kernels"
        if not (folder / "__init__.py").is_file():
            raise ImportError(f"minigan needs the folder kernels/ of its checkout, and {folder} is not there")
        return spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])


_sys.meta_path.append(_Beside)  # type: ignore[arg-type]  # asked last


def _is_program() -> bool:
    """Return whether this process is the command line, not a program that uses the library."""
    name = (getattr(_sys, "argv", None) or [""])[0].replace("\\", "/").rpartition("/")[2]
    if name == "-m":
        given = _sys.orig_argv
        return "-m" in given and given[given.index("-m") + 1 :][:1] == ["minigan"]
    return name in ("minigan", "minigan.exe")


def _end(number: int, frame: object) -> None:
    import os

    os.write(2, b"minigan: interrupted\n")
    os._exit(128 + number)


if _is_program() and _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _end)  # Ctrl-C while this is imported: nothing is lost, and nothing can catch it

from minigan import data, gan, lab, nn, ops, optim, random, testing
from minigan.engine.autodiff import grad
from minigan.engine.gradmode import enable_grad, is_grad_enabled, no_grad
from minigan.engine.tensor import Tensor, tensor
from minigan.engine.transforms import hvp, jvp, value_and_grad, vjp
from minigan.random import manual_seed

__version__ = "0.1.0"

__all__ = [
    "Tensor",
    "__version__",
    "data",
    "enable_grad",
    "gan",
    "grad",
    "hvp",
    "is_grad_enabled",
    "jvp",
    "manual_seed",
    "lab",
    "nn",
    "no_grad",
    "ops",
    "optim",
    "random",
    "tensor",
    "testing",
    "value_and_grad",
    "vjp",
]
