"""y = act(x w + b): a matrix product with its bias and activation applied while y is still in the cache.

x (N, Cin), w (Cin, Cout), b (Cout,) or None, y (N, Cout).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan.kernels.bias_act import bias_act, bias_act_into, check_activation
from minigan.kernels.dispatch import kernel


@kernel
def dense(x: Any, w: Any, b: Any, *, activation: str, slope: float) -> Any:
    """Return act(x w + b) with the activations of bias_act."""
    return bias_act.implementations["reference"](x @ w, b, activation=activation, slope=slope)


@dense.numba
def _dense(x: Any, w: Any, b: Any, *, activation: str, slope: float) -> Any:
    check_activation(activation, slope)
    y = np.matmul(x, w)  # the BLAS behind NumPy runs at the machine's peak: nothing to gain here
    if b is not None or activation != "linear":
        bias_act_into(y, b, y, activation, slope)
    return y
