"""How much memory a training step takes at least: settings that cannot fit are refused before anything is written."""

from __future__ import annotations

import numpy as np

from minigan.engine.tensor import Tensor
from minigan.kernels.memory import require_memory
from minigan.nn import Module

COPIES = 4  # of the parameters: themselves, their gradients, and two moments or moving averages
BACKWARD = 1.5  # the backward pass holds gradients beside the graph: measured steps took 1.8 to 4.7 times the graph


def require_room(
    generator: Module, discriminator: Module, shape: tuple[int, ...], *, latent: int, batch: int, pack: int, turns: int
) -> None:
    """Raise ValueError if a step on ``batch`` samples of ``shape`` surely does not fit into the free memory.

    ``turns`` counts the graphs of D's loss that one loss of G goes through. Counted are the graphs of D on real and on
    generated samples and that of G, and nothing inside kernels: a step that is not refused may still be too large.
    """
    parameters = sum(p.data.nbytes for network in (generator, discriminator) for p in network.parameters())
    judging = _held(discriminator, (pack, *shape), batch / pack)
    making = _held(generator, (1, latent), batch)
    require_memory(
        COPIES * parameters + BACKWARD * (2 * turns * judging + making),
        "a training step",
        "choose a smaller batch_size, width or depth" + (", or fewer steps of unroll" if turns > 1 else ""),
    )


def _held(network: Module, shape: tuple[int, ...], times: float) -> float:
    """Return the bytes that a network's graph holds for an input (times·N, ...), ``shape`` is (N, ...).

    It is measured for 1, 2 and 3 times N and continued by a parabola: a layer that compares the samples of its batch
    with each other holds something for each pair.
    """
    if network.conditional:
        return 0.0
    network.eval()  # leaves running statistics and random counters alone
    one, two, three = (_graph(network(Tensor(np.zeros((n * shape[0], *shape[1:]), np.float32)))) for n in (1, 2, 3))
    network.train()
    return one + (times - 1) * (two - one) + (times - 1) * (times - 2) / 2 * (three - 2 * two + one)


def _graph(output: Tensor) -> float:
    """Return the bytes of the arrays that ops made on the way to a Tensor; views count once."""
    found: dict[int, int] = {}
    seen, waiting = set(), [output]
    while waiting:
        node = waiting.pop()
        if node.op is None or node in seen:
            continue
        seen.add(node)
        array = node.data if node.data.base is None else node.data.base
        found[id(array)] = array.nbytes
        waiting += [x for x in node.inputs if isinstance(x, Tensor)]
    return float(sum(found.values()))
