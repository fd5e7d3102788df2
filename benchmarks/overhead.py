"""The cost of a node of the graph beyond its array work, forward and backward together.

    python -m benchmarks.overhead

A chain of multiplications of one-entry arrays is differentiated, and the same NumPy multiplications (one forward, one
backward) are timed in turns with it. Both are the minimum of many rounds: other load only adds time.
"""

import time

import numpy as np

import minigan as mg

LENGTH, ROUNDS = 1000, 200


def best_of_turns(*functions):
    """Return the least time of each function, called in turns."""
    least = [float("inf")] * len(functions)
    for _ in range(ROUNDS):
        for i, function in enumerate(functions):
            began = time.perf_counter()
            function()
            least[i] = min(least[i], time.perf_counter() - began)
    return least


def main():
    x = mg.tensor([1.0], requires_grad=True)

    def forward():
        y = x
        for _ in range(LENGTH):
            y = y * 1.001
        return y

    def both():
        mg.grad(forward(), x)

    def arrays():
        y, g = x.data, np.ones(1, np.float32)
        for _ in range(LENGTH):
            y = y * 1.001
        for _ in range(LENGTH):
            g = g * 1.001

    total, only_forward, work = (1e6 * t / LENGTH for t in best_of_turns(both, forward, arrays))
    print(f"forward and backward {total:.2f} µs a node (forward alone {only_forward:.2f}), NumPy's own work {work:.2f}")
    print(f"overhead {total - work:.2f} µs a node, {(total - work) / (work / 2):.1f} times one NumPy multiplication")


if __name__ == "__main__":
    main()
