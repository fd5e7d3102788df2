"""Gradient checks for minigan's ops and yours, and the table of all ops."""

from minigan.testing.gradcheck import GradientError, KinkError, check_grads, check_row

__all__ = ["GradientError", "KinkError", "check_grads", "check_row"]
