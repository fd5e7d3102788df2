"""The time of minigan's step, op by op: every primitive's array work and every kernel called by itself."""

import time
from collections import defaultdict

from minigan import kernels
from minigan.engine import primitive


def profile(step, steps):
    """Run ``steps`` steps; return {"total": ms, "rows": [(name, shapes, calls a step, ms a step), …]} by falling time.

    The rest of the total is Python: building and walking graphs, checks, allocation.
    """
    spent, calls, inside = defaultdict(float), defaultdict(int), [False]

    def timed(name, function):
        def wrapper(*args, **settings):
            if inside[0]:  # a kernel inside an op is the op's time
                return function(*args, **settings)
            inside[0] = True
            began = time.perf_counter()
            try:
                return function(*args, **settings)
            finally:
                inside[0] = False
                shapes = " ".join("×".join(map(str, a.shape)) for a in args if hasattr(a, "shape") and a.shape)
                key = name, shapes
                spent[key] += time.perf_counter() - began
                calls[key] += 1

        return wrapper

    ops = {op: op.forward for op in primitive.primitives()}
    # ops with several results compute through an object that is not in the list
    from minigan.ops.norm import batch_norm_grad

    ops[batch_norm_grad] = batch_norm_grad.forward
    known = {k: k.implementations["numba"] for k in kernels.registry().values()}
    try:
        for op, forward in ops.items():
            op.forward = timed(op.name.strip("_"), forward)
        for kernel, function in known.items():
            kernel.implementations["numba"] = timed(kernel.__name__, function)
        began = time.perf_counter()
        for _ in range(steps):
            step()
        total = time.perf_counter() - began
    finally:
        for op, forward in ops.items():
            op.forward = forward
        for kernel, function in known.items():
            kernel.implementations["numba"] = function
    rows = [(name, shapes, calls[name, shapes] / steps, 1e3 * t / steps) for (name, shapes), t in spent.items()]
    return {"total": 1e3 * total / steps, "rows": sorted(rows, key=lambda row: -row[3])}
