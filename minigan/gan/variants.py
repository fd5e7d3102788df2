"""Games with terms beside the players' losses: terms made of the other's gradient, differentiated again.

Write v = (−∇_G L_G, −∇_D L_D) for the gradient field. Every rule is a :class:`Game`, so any dynamics can play it, and
the engine computes all second derivatives. A rule overrides :meth:`Game.gradients`, and the gradient of a single
player's turn follows from it. A rule that changes only G's loss is a subclass of :class:`ForGenerator`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

from minigan.data import Batch, as_batch
from minigan.engine.autodiff import grad
from minigan.engine.gradmode import no_grad
from minigan.gan.game import Game, Gradient, Losses
from minigan.gan.penalties import nagarajan_kolter, squared_norm
from minigan.nn import Sequential
from minigan.ops import flatten_samples, mean, square, sum


@dataclass
class Consensus(Game):
    """Both players also descend (γ/2)‖v‖²: w = v − γ∇(½‖v‖²) (1705.10461). ``strength`` is γ."""

    strength: float = 1.0

    def gradients(self, real: Any, z: Any, *, create_graph: bool = False) -> tuple[Gradient, Gradient]:
        """Return (D's, G's) gradient plus γ∇(½‖v‖²)."""
        found = super().gradients(real, z, create_graph=True)
        energy = 0.5 * squared_norm([part for gradient in found for part in gradient.parts])
        players = [self.discriminator.parameters(), self.generator.parameters()]
        more = grad(energy, players, create_graph=create_graph, materialize_grads=True)
        with nullcontext() if create_graph else no_grad():
            d, g = (
                Gradient([a + self.strength * b for a, b in zip(own.parts, terms, strict=True)], own.losses)
                for own, terms in zip(found, more, strict=True)
            )
        return d, g

    def discriminator_gradient(self, real: Any, z: Any) -> Gradient:
        """Return D's gradient with its term."""
        return self.gradients(real, z)[0]

    def generator_gradient(self, real: Any, z: Any) -> Gradient:
        """Return G's gradient with its term."""
        return self.gradients(real, z)[1]


@dataclass
class ForGenerator(Game):
    """A game in which G descends another loss, a function of both players' parameters; D's loss is unchanged."""

    def loss_of_generator(self, real: Batch, fake: Batch) -> Losses:
        """Return G's loss on real and generated samples, which have their graph."""
        raise NotImplementedError

    def generator_loss(self, real: Any, z: Any) -> Losses:
        """Return G's loss on noise z (N, latent)."""
        z = as_batch(z)
        return self.loss_of_generator(as_batch(real), Batch(self.make(*z), z.given))

    def losses(self, real: Any, z: Any) -> tuple[Losses, Losses]:
        """Return (D's unchanged, G's changed) losses on one minibatch."""
        real, z = as_batch(real), as_batch(z)
        fake = Batch(self.make(*z), z.given)
        return self.discriminator_loss(real, fake), self.loss_of_generator(real, fake)


@dataclass
class NagarajanKolter(ForGenerator):
    """G minimises L_G + η‖∇_{θ_D} V‖², with V = −L_D before penalties; D's loss is unchanged (1706.04156)."""

    eta: float = 0.5

    def loss_of_generator(self, real: Batch, fake: Batch) -> Losses:
        """Return L_G + η‖∇_{θ_D} V‖²."""
        logits = self.judge(*real), self.judge(*fake)
        value = self.objective.discriminator(*logits)
        term = nagarajan_kolter(value, self.discriminator.parameters(), eta=self.eta)
        return Losses(self.objective.generator(*logits) + term, *logits)


@dataclass
class Unrolled(ForGenerator):
    """G descends L_G(θ_G, θ_D after K gradient steps of size ``rate``), through all of them (1611.02163).

    All K steps use the same minibatch and plain gradient descent, whatever D's optimiser is.
    """

    unroll: int = 5
    rate: float = 1e-2

    def loss_of_generator(self, real: Batch, fake: Batch) -> Losses:
        """Return L_G against D after K steps, with the logits of the present D."""
        now = found = self.discriminator_loss(real, fake)
        ahead, parameters = self.discriminator, self.discriminator.parameters()
        for _ in range(self.unroll):
            slopes = grad(found.loss, parameters, create_graph=True, materialize_grads=True)
            parameters = [p - self.rate * slope for p, slope in zip(parameters, slopes, strict=True)]
            ahead = ahead.with_parameters(parameters)
            game = Game(self.generator, ahead, self.objective, self.penalties, self.noise)
            found = game.discriminator_loss(real, fake)
        loss = self.objective.generator(found.real_logits, found.fake_logits)
        return Losses(loss, now.real_logits, now.fake_logits)


@dataclass
class FeatureMatching(ForGenerator):
    """G descends ‖E_p f(x) − E_q f(G(z))‖², f the features that D's last layer reads (1606.03498, section 3.1).

    D is a Sequential; f is its layers before ``layer``, which counts from the end.
    """

    by_objective: ClassVar[bool] = False

    layer: int = -1

    def loss_of_generator(self, real: Batch, fake: Batch) -> Losses:
        """Return the squared distance of the mean features."""
        if not isinstance(self.discriminator, Sequential):
            raise TypeError(f"FeatureMatching: D must be Sequential, not {type(self.discriminator).__name__}")
        if self.discriminator.conditional:
            raise TypeError("FeatureMatching: D must judge without conditions, and this one is conditional")
        features = Sequential(*self.discriminator.layers[: self.layer])
        if not features.named_parameters():
            raise ValueError(
                "FeatureMatching: the layers before D's last one have no weights, so there are no features"
            )
        rest = Sequential(*self.discriminator.layers[self.layer :])
        on_real, on_fake = features(real.x), features(fake.x)
        gap = mean(flatten_samples(on_real), axis=0) - mean(flatten_samples(on_fake), axis=0)
        return Losses(sum(square(gap)), rest(on_real), rest(on_fake))


@dataclass(frozen=True)
class Variant:
    """A kind of game, and the settings of a run that its fields take, {field: setting}.

    ``twice``: whether it differentiates D's gradient again, which needs second derivatives of all layers of D.
    """

    kind: type[Game]
    takes: Mapping[str, str] = field(default_factory=dict)
    twice: bool = False


VARIANTS = {
    "consensus": Variant(Consensus, {"strength": "rule_weight"}, twice=True),
    "nagarajan-kolter": Variant(NagarajanKolter, {"eta": "rule_weight"}, twice=True),
    "unrolled": Variant(Unrolled, {"unroll": "unroll", "rate": "lr_d"}, twice=True),
    "feature-matching": Variant(FeatureMatching),
    "none": Variant(Game),
}
