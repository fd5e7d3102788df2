"""Gradient checks for minigan's ops, for yours and for functions on any arrays; and the table of all ops.

``minigan.testing.strategies`` draws shapes, layouts and values for Hypothesis.
"""

from minigan.testing.foreign import check_vjp
from minigan.testing.gradcheck import GradientError, KinkError, NoiseError, check_grads, check_row

__all__ = ["GradientError", "KinkError", "NoiseError", "check_grads", "check_row", "check_vjp"]
