"""Array-level kernels, one family a file: the plain NumPy reference, then the fast version of the same function.

Importing this package imports neither Numba nor CuPy: both are loaded when a kernel first needs them.
"""

if __name__ != "minigan.kernels":  # two module objects of one file would mean two registries
    raise ImportError("import the kernels as minigan.kernels")

from minigan.kernels.batch_norm import batch_norm, batch_norm_grad
from minigan.kernels.batch_norm_vjp import batch_norm_grad_vjp
from minigan.kernels.bias_act import ACTIVATIONS, bias_act, bias_act_grad, bias_act_sums
from minigan.kernels.conv import conv2d, conv2d_transpose, conv2d_weight_grad
from minigan.kernels.conv_shapes import conv2d_output_shape
from minigan.kernels.cpu.kept import in_one_moment, one_moment
from minigan.kernels.dispatch import Kernel, active, registry, use
from minigan.kernels.losses import LOSSES, mean_loss
from minigan.kernels.matmul import dense, matmul
from minigan.kernels.memory import keep_memory
from minigan.kernels.optimisers import adam_, rmsprop_, sgd_, squared_norm
from minigan.kernels.philox import count_up, philox_bits_, philox_normal_, philox_uniform_
from minigan.kernels.sums import sum_axes

__all__ = [
    "ACTIVATIONS",
    "LOSSES",
    "Kernel",
    "active",
    "adam_",
    "batch_norm",
    "batch_norm_grad",
    "batch_norm_grad_vjp",
    "bias_act",
    "bias_act_grad",
    "bias_act_sums",
    "conv2d",
    "conv2d_output_shape",
    "conv2d_transpose",
    "conv2d_weight_grad",
    "count_up",
    "dense",
    "in_one_moment",
    "keep_memory",
    "matmul",
    "mean_loss",
    "one_moment",
    "philox_bits_",
    "philox_normal_",
    "philox_uniform_",
    "registry",
    "rmsprop_",
    "sgd_",
    "squared_norm",
    "sum_axes",
    "use",
]
