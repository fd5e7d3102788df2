"""The loop around the game: data and noise in, metrics and samples out, and a state that resumes bitwise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigan.data import Dataset, batch_indices, load
from minigan.engine.autodiff import renew
from minigan.engine.device import allow_tf32, device_of, resolve, sizes_told, to_device, to_numpy
from minigan.engine.gradmode import no_grad
from minigan.engine.tensor import Tensor
from minigan.gan.build import make_dynamics, make_game, make_networks, make_optimizer
from minigan.gan.captured import CapturedStep
from minigan.gan.config import Config
from minigan.gan.dynamics import Step
from minigan.gan.game import Diverged
from minigan.gan.objectives import DEAD, slopes
from minigan.gan.player import Movement
from minigan.nn import BatchNorm, InstanceNoise, Module, initialise
from minigan.optim import Optimizer
from minigan.random import Generator

STANDING = 1024  # latents that set the statistics of batch norm in the generator that samples come from


class Trainer:
    """A run in memory: networks, optimisers, random streams and the step count of a :class:`Config`.

    ValueError where the settings do not fit the data.
    """

    def __init__(self, config: Config, dataset: Dataset | None = None) -> None:
        self.config = config
        self.dataset = dataset or load(config.data)
        pair = make_networks(config, self.dataset.shape)
        start = Generator(config.seed, stream="init")
        self.device = resolve(config.device)
        self.generator, self.discriminator = (
            initialise(network, config.init, start).to(self.device) for network in pair
        )
        self.samples = to_device(self.dataset.samples, self.device)
        self.generator_optimizer = make_optimizer(config, self.generator, config.lr_g, config.ema)
        self.discriminator_optimizer = make_optimizer(config, self.discriminator, config.lr_d)
        self.discriminator_optimizer.limit = config.clip or None
        streams = "latent-D", "latent-G", "penalty"
        self.noise = {name: Generator(config.seed, stream=name, device=self.device) for name in streams}
        self.game = make_game(config, self.generator, self.discriminator, self.noise["penalty"])
        self.dynamics = make_dynamics(config, self.game, self.discriminator_optimizer, self.generator_optimizer)
        self._noisy = [layer for _, layer in self.discriminator.modules() if isinstance(layer, InstanceNoise)]
        self.movement = Movement([self.generator_optimizer, self.discriminator_optimizer])
        self._captured = self._capture()
        self.steps = 0

    # --- training -----------------------------------------------------------------------------------------------------

    def step(self) -> Step:
        """Train one step; :class:`Diverged` where a number is not finite, before any player moves by it.

        A captured step (on cuda) does not stop to look: there :meth:`metrics` finds out. MemoryError says in sizes that
        a device's memory is full.
        """
        self._follow_schedules()
        first = self.steps * self.config.d_steps
        numbers = range(first, first + self.config.d_steps)
        size, seed = self.config.batch_size, self.config.seed
        rows = np.stack([batch_indices(len(self.samples), size, seed, number) for number in numbers])
        try:
            with sizes_told(self.device), allow_tf32(self.config.tf32):
                found = self._captured.step(rows) if self._captured else self._run(rows)
        except FloatingPointError as error:
            raise Diverged(f"step {self.steps + 1}: {error}") from None
        self.steps += 1
        return found

    def _follow_schedules(self) -> None:
        """Set what changes over the run to where it is before the next step."""
        config = self.config
        if config.lr_schedule != "constant":
            done = min(1.0, self.steps / max(1, config.steps))
            left = 1 - done if config.lr_schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
            self.discriminator_optimizer.set_rate(config.lr_d * left)
            self.generator_optimizer.set_rate(config.lr_g * left)
        for layer in self._noisy:
            layer.sigma.at(self.steps)

    def _run(self, rows: Any) -> Step:
        """Move the players once; ``rows`` (k, batch) of the data are D's minibatches."""
        batches = iter(rows)
        return self.dynamics.step(
            lambda: Tensor(self.samples[next(batches)]),
            lambda: self._latent(self.noise["latent-D"]),
            lambda: self._latent(self.noise["latent-G"]),
        )

    def _capture(self) -> CapturedStep | None:
        """Return what captures the step on a device, which begins anew."""
        if self.device == "cpu":
            return None
        return CapturedStep(self._run, self.dynamics, self.noise)

    def require_finite(self) -> None:
        """Raise :class:`Diverged` if a parameter, a moment or an average is not finite: nothing to keep."""
        for name, array in self.state().items():
            if name != "movement" and not np.isfinite(array).all():
                raise Diverged(f"step {self.steps}: {name} is not finite")

    def _latent(self, generator: Generator) -> Tensor:
        return generator.normal((self.config.batch_size, self.config.latent))

    def metrics(self, step: Step) -> dict[str, float]:
        """Return one row of numbers about a step, and where the players stand since the last row.

        Losses, penalty, D's accuracy, both gradients' norms, the mean |dL_G/ds| of G's samples and the share of them in
        the dead zone, and how the players' point moves (:class:`minigan.lab.diagnosis.Movement`).
        """
        d, g = step.discriminator, step.generator
        assert d.real_logits is not None
        accuracy = self.game.objective.accuracy(d.real_logits.data, d.fake_logits.data)
        passed = slopes(self.game.objective, g.fake_logits, g.real_logits)
        row = {
            "step": self.steps,
            "loss_d": d.loss.item() - (d.penalty.item() if d.penalty is not None else 0.0),
            "loss_g": g.loss.item(),
            "penalty": d.penalty.item() if d.penalty is not None else 0.0,
            "accuracy_real": accuracy[0],
            "accuracy_fake": accuracy[1],
            "grad_norm_d": self.discriminator_optimizer.gradient_norm(),
            "grad_norm_g": self.generator_optimizer.gradient_norm(),
            "slope_g": float(passed.mean()),
            "dead_g": float((passed < DEAD).mean()),
        }
        odd = [name for name, value in row.items() if not np.isfinite(value)]
        if self._captured and odd:
            raise Diverged(
                f"step {self.steps}: {', '.join(odd)} not finite, in this step or in one since the last look"
            )
        row["turn"], row["progress"] = self.movement.look()
        return row

    # --- samples ------------------------------------------------------------------------------------------------------

    @property
    def samples_device(self) -> str:
        """The device that samples are made on: the CPU for the emulated one, a moment there instead of minutes."""
        return "cpu" if self.device == "cuda-emulated" else self.device

    def averaged_generator(self) -> Module:
        """Return the generator on the moving average of its weights (or its own), ready for inference.

        Its batch norms take their statistics from a fixed set of latents run through these very weights ("standing
        statistics", 1809.11096): the running ones belong to other weights. So a sample depends on its own z alone.
        """
        device = self.samples_device
        weights = self.generator_optimizer.average() if self.config.ema else self.generator_optimizer.parameters
        generator = self.generator.with_parameters([weight.detach().to(device) for weight in weights]).to(device)
        norms = [module for _, module in generator.modules() if isinstance(module, BatchNorm)]
        if norms:
            for norm in norms:
                norm.momentum = 1.0
            with no_grad():
                noise = Generator(self.config.seed, stream="sample", device=device)
                generator.train()(noise.normal((STANDING, self.config.latent)))
        return generator.eval()

    def sample(self, count: int, seed: int | None = None) -> np.ndarray:
        """Return ``count`` samples (count, ...) of the averaged generator, the same for the same seed and weights."""
        seed = self.config.seed if seed is None else seed
        with no_grad(), sizes_told(self.device), allow_tf32(self.config.tf32):
            generator = self.averaged_generator()
            noise = Generator(seed, stream="sample", step=1, device=self.samples_device)
            parts = [
                to_numpy(generator(noise.normal((min(500, count - start), self.config.latent))).data)
                for start in range(0, count, 500)
            ]
        return np.concatenate(parts) if parts else np.empty((0, *self.dataset.shape), np.float32)

    # --- state --------------------------------------------------------------------------------------------------------

    def _parts(self) -> dict[str, Any]:
        return {"generator": self.generator, "discriminator": self.discriminator}

    def _optimizers(self) -> dict[str, Optimizer]:
        return {"generator": self.generator_optimizer, "discriminator": self.discriminator_optimizer}

    def state(self) -> dict[str, np.ndarray]:
        """Return all that a run is at this step, by name: parameters, buffers, moments, averages, counters."""
        arrays: dict[str, np.ndarray] = {"steps": np.array(self.steps, np.int64)}
        for player, network in self._parts().items():
            arrays |= {f"{player}/parameters/{name}": p.numpy() for name, p in network.named_parameters().items()}
            arrays |= {f"{player}/buffers/{name}": to_numpy(b) for name, b in network.named_buffers().items()}
        for player, optimizer in self._optimizers().items():
            arrays |= {f"{player}/optimizer/{name}": array for name, array in optimizer.state().items()}
        arrays["movement"] = self.movement.state()
        arrays |= {f"noise/{name}": np.array(noise.step, np.int64) for name, noise in self.noise.items()}
        return arrays

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Go back to a saved :meth:`state`; ValueError if it belongs to another configuration (nothing is changed)."""
        wanted = {name: (array.shape, array.dtype) for name, array in self.state().items()}
        given = {name: (array.shape, array.dtype) for name, array in state.items()}
        if wanted != given:
            odd = sorted(name for name in wanted | given if wanted.get(name) != given.get(name))
            raise ValueError(f"the saved state does not fit this configuration: see {', '.join(odd[:3])}")
        for player, network in self._parts().items():
            for name, p in network.named_parameters().items():
                p.data[...] = to_device(state[f"{player}/parameters/{name}"], self.device)
            renew(network.parameters())
            buffers = network.named_buffers().items()
            saved = {name: state[f"{player}/buffers/{name}"].copy() for name, _ in buffers}
            network.load_buffers({name: to_device(saved[name], device_of(now)) for name, now in buffers})
        for player, optimizer in self._optimizers().items():
            prefix = f"{player}/optimizer/"
            optimizer.load_state({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        self.movement.load_state(state["movement"])
        for name, noise in self.noise.items():
            noise.step = int(state[f"noise/{name}"])
        self.steps = int(state["steps"])
        for optimizer in self._optimizers().values():
            optimizer.keep_clock_there(False)
        for noise in self.noise.values():
            noise.keep_counters_there(False)
        self._captured = self._capture()
