"""The same step without the engine: recorded once, then replayed, as a program on the CPU and as a graph on a GPU.

On the CPU each gradient of a game becomes Python source, one line a call on arrays (:mod:`minigan.engine.trace`): the
same bits without the bookkeeping of a graph.

A GPU waits for the host: each of some hundred calls a step costs the host 10 to 20 µs, on any GPU. A captured graph
records those calls once, noise and optimisers included. It reads the values that change from step to step from device
memory: the counters of the noise, the number of the step, the learning rates, and the rows of the data in the batch.
The host reads no values during a step, so a number that is not finite is found when metrics are next read.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from minigan.data import Batch, as_batch
from minigan.engine import device
from minigan.engine.device import as_array
from minigan.engine.tensor import Tensor, wrap
from minigan.engine.trace import Traced
from minigan.gan.dynamics import Step
from minigan.gan.game import Game, Gradient
from minigan.gan.player import Player
from minigan.nn import Module
from minigan.ops.elementwise import raw
from minigan.random import Generator


class Replayed:
    """A game with the same gradients, bit by bit, replayed from the third call on; dynamics take it as a game.

    It works for every variant of a game, and for networks, penalties and objectives that compute with ops and make the
    same calls for all data. A replay is used only after a comparison with other data and other parameters. If the game
    computes something that a trace does not see (arithmetic on ``.data``, a branch on a value), the comparison fails, a
    RuntimeWarning says so, and the game itself is played. Changes to a network's layers and settings between turns lead
    to a new trace.

    ``traces`` holds the trace of each gradient by name ("discriminator", "generator", "both"):
    ``print(replayed.traces["generator"].source)`` shows it.
    """

    def __init__(self, game: Game) -> None:
        self.game = game
        turns: dict[str, Callable[..., Any]] = {
            "discriminator": game.discriminator_gradient,
            "generator": game.generator_gradient,
            "both": game.gradients,
        }
        self.traces = {name: Traced(_of_tensors(turn), self._read) for name, turn in turns.items()}
        self._turns = turns

    @property
    def generator(self) -> Module:
        """The game's generator."""
        return self.game.generator

    @property
    def discriminator(self) -> Module:
        """The game's discriminator."""
        return self.game.discriminator

    def _read(self) -> Iterator[Any]:
        """Yield all objects that a turn reads: the game, and every module of both networks."""
        yield self.game
        for network in (self.generator, self.discriminator):
            yield from (module for _, module in network.modules())

    def _replay(self, name: str, real: Any, z: Any) -> Any:
        found = self.traces[name](*_tensors(real), *_tensors(z))
        losses = [one.losses.loss.data for one in ([found] if isinstance(found, Gradient) else found)]
        # a replay has no graph to name the op that made a number not finite: the game computes again and names it
        return found if all(np.isfinite(loss) for loss in losses) else self._turns[name](real, z)

    def discriminator_gradient(self, real: Any, z: Any) -> Gradient:
        """Return ∇_{θ_D} L_D and the losses."""
        return self._replay("discriminator", real, z)

    def generator_gradient(self, real: Any, z: Any) -> Gradient:
        """Return ∇_{θ_G} L_G and the losses."""
        return self._replay("generator", real, z)

    def gradients(self, real: Any, z: Any) -> tuple[Gradient, Gradient]:
        """Return (D's, G's) gradient at one point on one minibatch."""
        return self._replay("both", real, z)


def _tensors(x: Any) -> tuple[Tensor | None, Tensor | None]:
    """Return samples and conditions as constants; (None, None) for no batch."""
    if x is None:
        return None, None
    return tuple(part if part is None or _is_constant(part) else wrap(as_array(raw(part))) for part in as_batch(x))  # type: ignore[return-value]


def _is_constant(x: Any) -> bool:
    return type(x) is Tensor and x.op is None


def _of_tensors(turn: Callable[..., Any]) -> Callable[..., Any]:
    """Return a turn as a function of Tensors: samples and their conditions, noise and its conditions."""

    def of_tensors(x: Tensor | None, given: Tensor | None, z: Tensor, z_given: Tensor | None) -> Any:
        return turn(None if x is None else Batch(x, given), Batch(z, z_given))

    return of_tensors


WARM_UP = 2  # steps before the capture, which compile kernels and allocate memory


class CapturedStep:
    """``step(rows)`` trains as ``run(rows)`` does, from the third step on in one launch.

    ``run`` takes the rows (k, batch) of D's minibatches, in device memory, moves all ``players`` once and draws from
    ``noise`` alone. ``reason`` says why the step cannot be captured; None if it can.
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
            self._graph.launch()  # on the current stream: after the copy of the rows, before any read of the results
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
        """Record a step without running it, and keep the host's counts; on failure set ``reason``."""
        cuda = self._module.cuda
        networks = [player.network for player in self.players]
        buffers = [network.named_buffers() for network in networks]
        counts = {name: generator.step for name, generator in self.noise.items()}
        steps = [player.optimizer.steps for player in self.players]
        self._keep_there(True)
        self._rows = self._module.asarray(rows)
        self._pool = cuda.MemoryPool()  # of the graph, as long as it lives
        stream = cuda.Stream(non_blocking=True)
        graph = None
        try:
            with cuda.using_allocator(self._pool.malloc), stream:
                stream.begin_capture()
                try:
                    self._found = self.run(self._rows)
                    for network, before in zip(networks, buffers, strict=True):  # the graph writes into the old buffers
                        for name, after in network.named_buffers().items():
                            if after is not before[name]:
                                before[name][...] = after
                finally:
                    graph = stream.end_capture()
            self._graph = graph
        except Exception as error:  # a step that cannot be captured runs without capture
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
