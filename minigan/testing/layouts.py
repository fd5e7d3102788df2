"""Other layouts in memory for the same values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def laid_out(
    x: np.ndarray, order: Sequence[int] | None = None, gap: int = 2, backwards: Sequence[int] = ()
) -> np.ndarray:
    """Return a writable view with the values of ``x``: axes in memory in ``order``, entries ``gap`` apart.

    ``order`` reverses the axes unless given; ``backwards`` names axes with negative strides.
    """
    axes = tuple(range(x.ndim))[::-1] if order is None else tuple(order)
    wide = np.zeros((*(x.shape[a] for a in axes), gap), x.dtype)
    view = wide[..., -1:].transpose(*np.argsort(axes), x.ndim)[..., 0] if x.ndim else wide[-1:].reshape(())
    if backwards:
        view = view[tuple(slice(None, None, -1 if a in backwards else 1) for a in range(x.ndim))]
    view[...] = x
    return view
