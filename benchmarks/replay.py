"""A training step of every kind of game, played by the engine and replayed, in turns: python -m benchmarks.replay

The ring's multilayer perceptrons (3 hidden layers) at the size of the studies, at another and at that of their preset,
and the digits' DCGAN. Prints milliseconds a step and their ratio, the median of rounds. The smaller the arrays, the
larger the share of the engine's bookkeeping, which a replay leaves out.
"""

import argparse
import time
from dataclasses import replace

import numpy as np

from minigan.gan import Config, build
from minigan.gan.variants import VARIANTS

CASES = {  # the data, the changes of its preset, and the steps of a round
    "ring, 64 units, batch 128": ("ring", {"width": 32, "batch_size": 128}, 20),
    "ring, 128 units, batch 64": ("ring", {"batch_size": 64}, 20),
    "ring, 128 units, batch 256": ("ring", {}, 20),
    "digits, 64 channels, batch 64": ("digits", {}, 4),
}


def step_time(trainer, steps):
    """Return the milliseconds that a step takes, the mean over some."""
    began = time.perf_counter()
    for _ in range(steps):
        trainer.step()
    return (time.perf_counter() - began) / steps * 1e3


def compare(case, rule, rounds):
    """Return the medians (played, replayed) and the median of their ratios, over rounds in turns."""
    data, changes, steps = CASES[case]
    config = replace(Config.preset(data), rule=rule, device="cpu", **changes)
    played, replayed = build(config), build(config)
    played.dynamics.game = played.game
    for trainer in (played, replayed):
        step_time(trainer, 4)
    for name, array in played.state().items():
        assert name == "movement" or np.array_equal(array, replayed.state()[name]), f"{case}, {rule}: {name} differs"
    times = np.array([[step_time(trainer, steps) for trainer in (played, replayed)] for _ in range(rounds)])
    return *np.median(times, axis=0), np.median(times[:, 0] / times[:, 1])


def main():
    """Print a row for every data set and kind of game."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    print(f"{'case':30} {'game':18} {'played, ms':>11} {'replayed, ms':>13} {'ratio':>6}")
    for case in CASES:
        for rule in VARIANTS:
            played, replayed, ratio = compare(case, rule, rounds)
            print(f"{case:30} {rule:18} {played:11.2f} {replayed:13.2f} {ratio:6.2f}", flush=True)


if __name__ == "__main__":
    main()
