"""Gradient checks for minigan's ops, for yours and for functions on any arrays; and the table of all ops.

``minigan.testing.strategies`` draws shapes, layouts and values for Hypothesis. A check goes from left to right:

    gradcheck (Tensors)           compare      jacobian, slopes    what the pullback claims, and where it is wrong
    foreign (arrays of others)  → one order →  differences         slopes of curves, with their error
                                               verdict             right, wrong, or why neither can be said
                                               noise               what rounding may do
                                  promises     layouts             other ways to call the function

``optable`` and ``references`` list all ops of minigan for :func:`check_row`.
"""

from minigan.testing.foreign import check_vjp
from minigan.testing.gradcheck import GradientError, KinkError, NoiseError, check_grads, check_row

__all__ = ["GradientError", "KinkError", "NoiseError", "check_grads", "check_row", "check_vjp"]
