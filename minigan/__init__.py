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

from minigan import ops
from minigan.autodiff import enable_grad, grad, hvp, is_grad_enabled, jvp, no_grad, value_and_grad, vjp
from minigan.tensor import Tensor, tensor

__version__ = "0.1.0"

__all__ = [
    "Tensor",
    "__version__",
    "enable_grad",
    "grad",
    "hvp",
    "is_grad_enabled",
    "jvp",
    "no_grad",
    "ops",
    "tensor",
    "value_and_grad",
    "vjp",
]
