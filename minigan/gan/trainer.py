"""The loop around the game: data and noise in, a stream of events out, and a state that resumes bitwise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minigan.data import Batch, Dataset, batch_indices
from minigan.engine.device import allow_tf32, sizes_told, to_device, to_numpy
from minigan.engine.gradmode import no_grad
from minigan.engine.tensor import Tensor, wrap
from minigan.gan import saved
from minigan.gan.dynamics import Alternating, Dynamics, Step
from minigan.gan.events import CheckpointDue, Event, Every, Picture, Row, SpectrumDue, Stepped
from minigan.gan.game import Diverged, Game, apply
from minigan.gan.interrupts import Beginning, WholeSteps
from minigan.gan.measures import measures
from minigan.gan.player import MakeOptimizer, Movement, Player, make_players, part
from minigan.gan.replay import CapturedStep, Replayed
from minigan.kernels.memory import require_memory
from minigan.nn import BatchNorm, InstanceNoise, Module
from minigan.random import Generator

STANDING = 1024  # latents that set batch norm's statistics in the generator of the samples


class Trainer:
    """A run in memory: a game, its two players, data, noise, and the number of steps taken.

    ``players`` is a :class:`Dynamics` on this game, or a function from parameters to an optimiser
    (such as ``mg.optim.Adam``): then the players alternate, one step each. G reads ``latent`` numbers of noise, a step
    of D ``batch`` samples of ``data``. ``seed`` sets the noise and the order of the data. ``every`` says how often
    :meth:`events` yields each event. ``fade`` gives the learning rate as a share of the optimisers' initial one, a
    function of the finished share of the ``goal`` (in steps). The run is on the networks' device.
    """

    def __init__(
        self,
        game: Game,
        players: Dynamics | MakeOptimizer,
        data: Dataset,
        *,
        latent: int = 64,
        batch: int = 64,
        seed: int = 0,
        every: Every = Every(),  # noqa: B008  a frozen value
        fade: Callable[[float], float] | None = None,
        goal: int = 0,
        tf32: bool = False,
    ) -> None:
        self.game, self.data, self.every = game, data, every
        self.latent, self.batch, self.seed, self.goal, self.tf32 = latent, batch, seed, goal, tf32
        if not isinstance(players, Dynamics):
            both = make_players(game, players)
            players = Alternating(Replayed(game) if both[0].device == "cpu" else game, *both)
        if getattr(players.game, "game", players.game) is not game:
            raise ValueError("the dynamics play another game than the trainer's")
        self.dynamics = players
        require_memory(8 * batch * players.k, "the order of the data", "choose a smaller batch or fewer steps of D")
        self.device = self.generator.device
        self._near = data.to(self.device)
        if game.conditional and not data.conditions:
            raise ValueError(f"the networks are conditional, but {data.name} has no labels and no attributes")
        streams = ("latent-D", "latent-G", *(("condition",) if game.conditional else ()))
        self.noise = {name: Generator(seed, stream=name, device=self.device) for name in streams}
        if not game.noise_is_given:
            game.noise = Generator(seed, stream="penalty", device=self.device)
        self.noise["penalty"] = game.noise
        self.fade = fade
        self._rates = [player.optimizer.lr for player in self._players().values()]
        self._noisy = [layer for _, layer in game.discriminator.modules() if isinstance(layer, InstanceNoise)]
        self.movement = Movement([self.generator, self.discriminator])
        self._captured = self._capture()
        self.steps = 0
        networks = [self.generator.network, self.discriminator.network]
        self._whole = WholeSteps(Beginning(list(self.noise.values()), networks))

    @property
    def generator(self) -> Player:
        """The player that makes samples."""
        return self.dynamics.generator

    @property
    def discriminator(self) -> Player:
        """The player that judges them."""
        return self.dynamics.discriminator

    def _players(self) -> dict[str, Player]:
        return {"generator": self.generator, "discriminator": self.discriminator}

    # --- training -----------------------------------------------------------------------------------------------------

    def events(self, until: int, every: Every | None = None) -> Iterator[Event]:
        """Train to step ``until``, and yield events on the way; the caller may leave the loop at any event.

        After a step come :class:`Row`, :class:`Picture`, :class:`SpectrumDue` and :class:`CheckpointDue` as often as
        ``every`` (the trainer's unless given) says, and all but the spectrum after the last step too; then always
        :class:`Stepped`. A new run first yields a picture of step 0. Raises :class:`Diverged` as :meth:`step` does.
        """
        every = every or self.every

        def due(interval: int, at_the_end: bool = True) -> bool:
            return interval > 0 and (self.steps % interval == 0 or (at_the_end and self.steps >= until))

        if self.steps == 0:
            if every.picture:
                yield Picture(0, self.sample(self.data.shown))
            yield Stepped(0, None)
        while self.steps < until:
            found = self.step()
            if due(every.row):
                yield Row(self.steps, self.metrics(found))
            if due(every.picture):
                yield Picture(self.steps, self.sample(self.data.shown))
            if due(every.spectrum, at_the_end=False):
                yield SpectrumDue(self.steps)
            if due(every.checkpoint):
                yield CheckpointDue(self.steps)
            yield Stepped(self.steps, found)

    def train(self, until: int) -> None:
        """Train to step ``until`` without metrics, pictures or checkpoints."""
        for _ in self.events(until, Every(0, 0, 0, 0)):
            pass

    @np.errstate(all="ignore")  # the code below finds and names a number that is not finite
    def step(self) -> Step:
        """Train one step; :class:`Diverged` if a number is not finite, before any player moves by it.

        A captured step (on cuda) does not check: :meth:`metrics` raises instead. MemoryError gives the sizes when a
        device's memory is full. Ctrl-C waits for the step's end. A step that fails before any move is as if it had not
        been begun; RuntimeError if the last one was broken off later.
        """
        with self._whole.step(lambda: (self.steps, *(p.optimizer.steps for p in self._players().values()))):
            found = self._step()
            self.steps += 1
        return found

    def _step(self) -> Step:
        self._follow_schedules()
        first, k = self.steps * self.dynamics.k, self.dynamics.k
        rows = np.stack([batch_indices(len(self.data), self.batch, self.seed, first + i) for i in range(k)])
        try:
            with sizes_told(self.device), allow_tf32(self.tf32):
                return self._captured.step(rows) if self._captured else self._run(rows)
        except FloatingPointError as error:
            raise Diverged(f"step {self.steps + 1}: {error}") from None

    def _follow_schedules(self) -> None:
        """Set learning rates and instance noise to their values for the next step."""
        if self.fade is not None:
            if self.goal < 1:
                raise ValueError(
                    f"a fading learning rate needs the goal of the run, a number of steps, not {self.goal}"
                )
            left = self.fade(min(1.0, self.steps / max(1, self.goal)))
            for player, rate in zip(self._players().values(), self._rates, strict=True):
                player.optimizer.lr = rate * left
        for layer in self._noisy:
            layer.sigma.at(self.steps)

    def _run(self, rows: Any) -> Step:
        """Move the players once; ``rows`` (k, batch) of the data are D's minibatches."""
        batches = iter(rows)
        return self.dynamics.step(
            lambda: self._near.batch(next(batches), given=self.game.conditional),
            lambda: self._latent(self.noise["latent-D"]),
            lambda: self._latent(self.noise["latent-G"]),
        )

    def _capture(self) -> CapturedStep | None:
        """Return a new capture of the step on a device; None on the CPU."""
        if self.device == "cpu":
            return None
        return CapturedStep(self._run, list(self._players().values()), self.noise)

    def require_finite(self) -> None:
        """Raise :class:`Diverged` if a parameter, a moment or an average is not finite."""
        for name, array in self.state().items():
            if name != saved.MAY_BE_NAN and not np.isfinite(array).all():
                raise Diverged(f"step {self.steps}: {name} is not finite")

    def _latent(self, generator: Generator) -> Batch:
        """Return noise for a minibatch, under conditions with the frequencies of the data."""
        z = generator.normal((self.batch, self.latent))
        return Batch(z, self._conditions(self.noise["condition"], self.batch) if self.game.conditional else None)

    def _conditions(self, noise: Generator, count: int) -> Tensor | None:
        """Return the conditions (count, K) of samples of the data that ``noise`` picks."""
        where = noise.uniform(count, dtype=np.float64).data * len(self.data)
        near = self._near if noise.device == self.device else self.data.to(noise.device)
        return near.given(where.astype(np.int64))

    @np.errstate(all="ignore")
    def metrics(self, step: Step) -> dict[str, float]:
        """Return one row of numbers about a step, and about the players' movement since the last row.

        They are those of :func:`minigan.gan.measures.measures` and :class:`minigan.gan.player.Movement`.
        """
        found = measures(self.game.objective, self.discriminator, self.generator, step)
        row: dict[str, float] = {"step": self.steps, **found}
        odd = [name for name, value in row.items() if not np.isfinite(value)]
        if self._captured and odd:
            raise Diverged(f"step {self.steps}: {', '.join(odd)} not finite, in this step or in one since the last row")
        row["turn"], row["progress"] = self.movement.look()
        return row

    # --- samples ------------------------------------------------------------------------------------------------------

    @property
    def samples_device(self) -> str:
        """The device that makes samples: the CPU in place of the emulated one, which would take minutes."""
        return "cpu" if self.device == "cuda-emulated" else self.device

    def averaged_generator(self) -> Module:
        """Return the generator on the moving average of its weights (or on the weights), ready for inference.

        Its batch norms take their statistics from a fixed set of latents run through these weights ("standing
        statistics", 1809.11096): the running ones belong to other weights. So a sample depends on its z alone.
        """
        device = self.samples_device
        generator = self.generator.averaged(device)
        norms = [module for _, module in generator.modules() if isinstance(module, BatchNorm)]
        if norms:
            for norm in norms:
                norm.momentum = 1.0
            with no_grad():
                noise = Generator(self.seed, stream="sample", device=device)
                z = noise.normal((STANDING, self.latent))
                apply(generator.train(), z, self._given(STANDING, None))
        return generator.eval()

    def _given(self, count: int, given: np.ndarray | None, seed: int = 0) -> Tensor | None:
        """Return the conditions of samples: ``given``, or drawn from the data; None if G takes none."""
        if not self.game.generator.conditional:
            if given is not None:
                raise ValueError("sample: this generator takes no conditions")
            return None
        if given is not None:
            if np.shape(given) != (count, self.data.conditions):
                wanted = (count, self.data.conditions)
                raise ValueError(f"sample: {count} samples need conditions of shape {wanted}, not {np.shape(given)}")
            return wrap(to_device(np.asarray(given, np.float32), self.samples_device))
        return self._conditions(Generator(seed, stream="condition", step=2**31, device=self.samples_device), count)

    @np.errstate(all="ignore")
    def sample(self, count: int, seed: int | None = None, given: np.ndarray | None = None) -> np.ndarray:
        """Return ``count`` samples (count, ...) of the averaged generator, the same for the same seed and weights.

        A conditional generator takes ``given`` (count, K), or conditions drawn from the data. ValueError if the samples
        do not fit into the memory, :class:`Diverged` if a number of one is not finite.
        """
        seed = self.seed if seed is None else seed
        require_memory(8 * count * math.prod(self.data.shape), f"making {count:,} samples", "make fewer")
        with no_grad(), sizes_told(self.device), allow_tf32(self.tf32):
            generator = self.averaged_generator()
            noise = Generator(seed, stream="sample", step=1, device=self.samples_device)
            conditions, parts = self._given(count, given, seed), []
            for start in range(0, count, 500):
                z = noise.normal((min(500, count - start), self.latent))
                here = None if conditions is None else conditions[start : start + 500]
                parts.append(to_numpy(apply(generator, z, here).data))
        found = np.concatenate(parts) if parts else np.empty((0, *self.data.shape), np.float32)
        if not np.isfinite(found).all():
            raise Diverged(f"step {self.steps}: the samples of G hold numbers that are not finite")
        return found

    # --- state --------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, np.ndarray]:
        """Return the state, by name: players, movement, counters, the data's hash; RuntimeError for half a step."""
        self._whole.require()
        return self._state()

    def _state(self) -> dict[str, np.ndarray]:
        arrays: dict[str, np.ndarray] = {"steps": np.array(self.steps, np.int64), saved.DATA: saved.hash_of(self.data)}
        for name, player in self._players().items():
            arrays |= {f"{name}/{key}": array for key, array in player.state().items()}
        arrays["movement"] = self.movement.state()
        arrays |= {f"noise/{name}": np.array(noise.step, np.int64) for name, noise in self.noise.items()}
        return arrays

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Restore a saved :meth:`state`; ValueError, before anything changes, for one that does not belong here."""
        saved.require_same_data(state, self.data)
        saved.require_same_game(state, self._state())
        saved.require_sound(state, saved.MOST * max(1, len(self.data)) // (self.dynamics.k * self.batch))
        for name, player in self._players().items():
            player.load_state(part(state, name))
            player.optimizer.keep_clock_there(False)
        self.movement.load_state(state["movement"])
        for name, noise in self.noise.items():
            noise.step = int(state[f"noise/{name}"])
            noise.keep_counters_there(False)
        self.steps, self._whole.broken = int(state["steps"]), False
        self._captured = self._capture()
