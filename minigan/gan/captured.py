"""The whole training step as one graph on the device: noise, both players' turns and optimisers, launched at once.

A GPU waits for the host: each of some hundred calls a step costs it 10 to 20 µs, whatever the GPU. A captured graph is
those calls noted once. What changes from step to step is read from device memory: the counters of the noise, the number
of the step, the learning rates, and the rows of the data that make the batch. The host looks at nothing meanwhile, so a
number that is not finite is found when metrics are next read.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigan.engine import device
from minigan.gan.dynamics import Step
from minigan.gan.player import Player
from minigan.random import Generator

WARM_UP = 2  # steps before the capture: kernels are compiled, and memory is found


class CapturedStep:
    """``step(rows)`` trains as ``run(rows)`` does, from the third step on at once.

    ``run`` takes the rows (k, batch) of D's minibatches, in device memory, moves all ``players`` once and draws from
    ``noise`` alone. ``reason`` says why nothing is captured, None where it is.
    """

    def __init__(self, run: Callable[[Any], Step], players: Sequence[Player], noise: dict[str, Generator]) -> None:
        self.run, self.players, self.noise = run, players, noise
        self.reason = self._reason()
        self._module = device.xp(players[0].optimizer.buffer)
        self._eager_steps = 0
        self._graph: Any = None
        self._found: Step | None = None
        self._rows: Any = None
        self._draws: dict[str, int] = {}
        self._moves: list[int] = []

    def _reason(self) -> str | None:
        layers = [module for player in self.players for _, module in player.network.modules()]
        drawing = next((layer for layer in layers if "draws" in layer.buffer_names), None)
        return f"the counters of {type(drawing).__name__} are on the host" if drawing else None

    def step(self, rows: np.ndarray) -> Step:
        """Train one step on these rows (k, batch)."""
        if self._graph is not None:
            self._rows.set(rows)
            self._graph.launch()  # on the current stream, so after the rows and before whoever reads what comes of it
            for player, count in zip(self.players, self._moves, strict=True):
                player.optimizer.steps += count
            for name, count in self._draws.items():
                self.noise[name].step += count
            assert self._found is not None
            return self._found
        if self.reason is not None or self._eager_steps < WARM_UP:
            self._eager_steps += 1
            return self.run(self._module.asarray(rows))
        self._capture(rows)
        if self.reason is not None:
            warnings.warn(f"the training step is not captured: {self.reason}", RuntimeWarning, stacklevel=2)
        return self.step(rows)

    def _capture(self, rows: np.ndarray) -> None:
        """Note a step without doing it; what the host counts stays where it is. On failure there is a reason."""
        cuda = self._module.cuda
        networks = [player.network for player in self.players]
        buffers = [network.named_buffers() for network in networks]
        counts = {name: generator.step for name, generator in self.noise.items()}
        steps = [player.optimizer.steps for player in self.players]
        self._keep_there(True)
        self._rows = self._module.asarray(rows)
        self._pool = cuda.MemoryPool()  # the graph's own, while it lives
        stream = cuda.Stream(non_blocking=True)
        graph = None
        try:
            with cuda.using_allocator(self._pool.malloc), stream:
                stream.begin_capture()
                try:
                    self._found = self.run(self._rows)
                    for network, before in zip(networks, buffers, strict=True):  # replaced ones are written back
                        for name, after in network.named_buffers().items():
                            if after is not before[name]:
                                before[name][...] = after
                finally:
                    graph = stream.end_capture()
            self._graph = graph
        except Exception as error:  # whatever cannot be captured can be done without
            self.reason = f"{type(error).__name__}: {error}"
            self._keep_there(False)
        for network, before in zip(networks, buffers, strict=True):
            network.load_buffers(before)
        self._draws = {name: generator.step - counts[name] for name, generator in self.noise.items()}
        for name, generator in self.noise.items():
            generator.step = counts[name]
        self._moves = [player.optimizer.steps - count for player, count in zip(self.players, steps, strict=True)]
        for player, count in zip(self.players, steps, strict=True):
            player.optimizer.steps = count

    def _keep_there(self, there: bool) -> None:
        for generator in self.noise.values():
            generator.keep_counters_there(there)
        for player in self.players:
            player.optimizer.keep_clock_there(there)
