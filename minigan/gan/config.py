"""All settings of a run in one frozen dataclass: the flags, their help, the defaults and the run's TOML."""

from __future__ import annotations

import json
import reprlib
import tomllib
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Self

from minigan.data import DATASETS, files
from minigan.engine.device import require_known
from minigan.gan import penalties
from minigan.gan.dynamics import DYNAMICS
from minigan.gan.models import ACTIVATIONS, MODELS
from minigan.gan.objectives import OBJECTIVES, smoothed
from minigan.gan.variants import VARIANTS
from minigan.nn import FADES, INITIALISERS
from minigan.optim import OPTIMISERS

MOST = 1 << 20  # bytes of a file of settings
# settings whose value names a row in a table
TABLES: dict[str, Collection[str]] = {
    "data": DATASETS, "model": MODELS, "objective": OBJECTIVES, "dynamics": DYNAMICS, "rule": VARIANTS,
    "activation": ACTIVATIONS, "init": INITIALISERS, "optimizer": OPTIMISERS, "lr_schedule": FADES,
}  # fmt: skip
AT_LEAST_ONE = (
    "d_steps", "g_steps", "unroll", "pack", "batch_size", "latent", "width", "depth",
    "log_every", "sample_every", "checkpoint_every",
)  # fmt: skip
NOT_NEGATIVE = (
    "lr_d", "lr_g", "gamma", "steps", "rule_weight", "instance_noise", "clip", "discrimination", "spectrum_every",
)  # fmt: skip
MOST_LAYERS = 1000  # deeper plain networks do not train


@dataclass(frozen=True)
class Config:
    """The settings of a training run; ValueError for values that do not make a run."""

    data: str = "digits"
    """Data set; its preset sets the defaults of the other settings."""
    model: str = "dcgan"
    """Networks: dcgan for images, mlp for anything."""
    objective: str = "non-saturating"
    """Losses of both players."""
    penalty: str = "r1"
    """Penalty on D, or several joined by +."""
    gamma: float = 1.0
    """Weight of each penalty: (gamma/2)E|grad|^2 for r1 and r2, gamma*E(|grad|-1)^2 for wgan-gp."""
    dynamics: str = "alternating"
    """How the players move."""
    rule: str = "none"
    """Term that the players descend beside their losses, or loss of G in place of the objective's."""
    rule_weight: float = 1.0
    """Weight of consensus and nagarajan-kolter."""
    unroll: int = 5
    """Steps of plain gradient descent, of size lr_d throughout, that an unrolled G looks D ahead."""
    steps: int = 3000
    """Training steps: one update of G each."""
    d_steps: int = 1
    """Updates of D before each update of G (k of Algorithm 1)."""
    g_steps: int = 1
    """Updates of G in a step (alternating alone)."""
    batch_size: int = 64
    """Samples in a minibatch."""
    latent: int = 64
    """Dimensions of the noise z."""
    width: int = 64
    """Channels of the first convolution (dcgan), half the hidden units (mlp)."""
    depth: int = 2
    """Hidden layers of both players (mlp; dcgan goes by the size of the images)."""
    activation: str = "relu"
    """G's activation."""
    batch_norm: bool = True
    """Batch normalisation in G."""
    init: str = "he"
    """Initialiser of the weights."""
    pack: int = 1
    """Samples that D judges together (PacGAN)."""
    instance_noise: float = 0.0
    """Initial deviation of the noise on all inputs of D; it falls to 0 over the run."""
    spectral_norm: bool = False
    """Divide the weight of every dense layer and convolution of D by its largest singular value."""
    stddev: bool = False
    """Feed the standard deviation of the minibatch to D's last layer."""
    discrimination: int = 0
    """Kernels of minibatch discrimination before D's last layer; 0 for none."""
    dropout: float = 0.0
    """Share of D's activations that are dropped."""
    clip: float = 0.0
    """Hold D's weights in [-clip, clip] (WGAN: 0.01); 0 leaves them free."""
    label: float = 1.0
    """How far a real sample counts as real in D's loss (one-sided label smoothing: 0.9)."""
    optimizer: str = "adam"
    """Optimiser of both players."""
    lr_d: float = 1e-3
    """Learning rate of D."""
    lr_g: float = 1e-3
    """Learning rate of G."""
    lr_schedule: str = "constant"
    """Learning rates over the run: constant, or falling to 0 at the last step."""
    beta1: float = 0.5
    """Adam's decay of the first moment."""
    beta2: float = 0.99
    """Adam's decay of the second moment."""
    ema: float = 0.995
    """Decay of the moving average of G's weights, which makes the samples; 0 uses G itself."""
    seed: int = 0
    """Seed of all random numbers."""
    device: str = "auto"
    """auto, cpu, cuda or cuda-emulated (the CUDA kernels on this CPU: slow, and checked)."""
    tf32: bool = False
    """On a GPU, products of float32 in TF32 (10 bits of mantissa) on tensor cores: faster, less exact."""
    log_every: int = 10
    """Steps between rows of metrics.csv."""
    sample_every: int = 150
    """Steps between sample grids (the frames of training.gif)."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    spectrum_every: int = 0
    """Steps between spectra of the game, each of which costs about 250 steps; 0 for none."""

    def __post_init__(self) -> None:
        for field in fields(Config):
            object.__setattr__(self, field.name, _typed(field.name, getattr(self, field.name), type(field.default)))
        for name, table in TABLES.items():
            if getattr(self, name) not in table:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}: choose from {', '.join(table)}")
        penalties.parse(self.penalty, 0.0)
        self._require_a_match()
        require_known(self.device)
        for name in AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("beta1", "beta2", "ema", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        for name in NOT_NEGATIVE:
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a number >= 0, not {getattr(self, name)}")
        if self.depth > MOST_LAYERS:
            raise ValueError(f"depth must be at most {MOST_LAYERS:,}, not {self.depth}")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must be from 0 to 2**64 - 1, not {self.seed}")

    def _require_a_match(self) -> None:
        """Raise ValueError for settings that exclude each other."""
        if self.pack > 0 and self.batch_size % self.pack:
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of pack {self.pack}")
        scheme = DYNAMICS[self.dynamics]
        if scheme.optimistic and OPTIMISERS[self.optimizer].optimistic is None:
            able = " or ".join(name for name, kind in OPTIMISERS.items() if kind.optimistic)
            raise ValueError(f"{self.dynamics} dynamics need optimizer {able}, not {self.optimizer}")
        if not scheme.turns and (self.d_steps, self.g_steps) != (1, 1):
            raise ValueError(f"{self.dynamics} dynamics move both players once: d_steps and g_steps must be 1")
        if self.label != 1:
            try:
                smoothed(OBJECTIVES[self.objective], self.label)
            except ValueError as error:
                raise ValueError(f"label: {error}") from None

    @classmethod
    def preset(cls, data: str) -> Self:
        """Return settings that work on a data set: the starting point that flags and files change."""
        return cls(data=data, **(DATASETS[data].preset if data in DATASETS else {}))

    def to_toml(self) -> str:
        """Return the settings as TOML (all are strings, numbers or booleans, which JSON writes the same way)."""
        return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in asdict(self).items())

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read settings from a TOML file; settings that it does not mention keep the default for its data.

        ValueError names the file and a setting that is unknown or of the wrong type; OSError if it cannot be read.
        """
        try:
            given = tomllib.loads(files.read(path, MOST).decode("utf-8-sig"))  # some editors begin with a BOM
        except RecursionError:
            raise ValueError(f"{path} is not a TOML file of settings: it is nested too deep") from None
        except ValueError as error:  # of TOML, of UTF-8, or of a number with thousands of digits
            raise ValueError(f"{path} is not a TOML file: {error}") from None
        known = [field.name for field in fields(cls)]
        odd = [name for name in given if name not in known]
        if odd:
            raise ValueError(f"{path}: unknown setting {reprlib.repr(odd[0])}; the settings are {', '.join(known)}")
        try:
            return replace(cls.preset(_typed("data", given.get("data", cls.data), str)), **given)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _typed(name: str, value: Any, kind: type) -> Any:
    """Return a setting's value as its type: whole numbers count as floats, and NumPy's as Python's."""
    if isinstance(value, Integral) and not -(2**63) <= int(value) < 2**64:
        raise ValueError(f"{name} must be a number of at most 64 bits, not one of {int(value).bit_length()}")
    number = {float: Real, int: Integral}.get(kind, kind)
    if not isinstance(value, number) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name} must be of type {kind.__name__}, not {reprlib.repr(value)}")
    return kind(value)
