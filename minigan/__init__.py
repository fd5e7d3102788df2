"""minigan: generative adversarial networks from first principles.

A small reverse-mode autodiff engine on NumPy arrays, kernels for the CPU in Numba, and the two-player game on top.
"""

try:
    import minigan.kernels  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "minigan.kernels":
        raise
    raise ImportError(
        "minigan runs installed, because its kernels/ folder is installed as minigan.kernels: "
        "run `pip install -e .` in the checkout"
    ) from None

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
