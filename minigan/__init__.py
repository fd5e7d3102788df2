"""minigan: generative adversarial networks from first principles.

A small reverse-mode autodiff engine on NumPy arrays, kernels for the CPU in Numba, and the two-player game on top.
"""

from sys import meta_path as _finders


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


_finders.append(_Beside)  # type: ignore[arg-type]  # asked last

from minigan import data, gan, lab, nn, ops, optim, random, testing
from minigan.engine.autodiff import grad
from minigan.engine.gradmode import enable_grad, is_grad_enabled, no_grad
from minigan.engine.tensor import Tensor, tensor
from minigan.engine.transforms import hvp, jvp, value_and_grad, vjp

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
