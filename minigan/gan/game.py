"""The game: two networks, an objective and penalties make two losses, each descended by one player."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np

from minigan.data import Batch, as_batch
from minigan.engine.autodiff import copy, grad
from minigan.engine.device import as_array, may_look
from minigan.engine.gradmode import no_grad
from minigan.engine.tensor import Tensor, wrap
from minigan.gan.objectives import NON_SATURATING, Objective
from minigan.gan.penalties import Look, Penalty, Seen
from minigan.nn import Module
from minigan.ops.elementwise import raw
from minigan.random import Generator


class Diverged(FloatingPointError):
    """Training met a number that is not finite; the message names the first op that made it."""


class Losses(NamedTuple):
    """The values of one evaluation of a player's loss; every entry is a Tensor."""

    loss: Tensor
    real_logits: Tensor | None
    fake_logits: Tensor
    penalty: Tensor | None = None

    def detach(self) -> Losses:
        """Return the same values without their graph, so that its memory can be freed."""
        with no_grad():
            return self._replace(**{name: copy(x) for name, x in self._asdict().items() if x is not None})


class Gradient(NamedTuple):
    """One player's gradient, a Tensor for each of its parameters, and the losses of the same evaluation."""

    parts: list[Tensor]
    losses: Losses


def apply(network: Module, x: Tensor, given: Tensor | None) -> Tensor:
    """Return the output of a network for samples or noise, under their conditions if the network is conditional.

    ValueError for a conditional network without conditions.
    """
    if not network.conditional:
        return network(x)
    if given is None:
        raise ValueError(
            f"{type(network).__name__} is conditional, and these samples have no conditions: pass a Batch with them"
        )
    return network(x, given)


@dataclass
class Game:
    """A generator G: z (N, latent) → samples, a discriminator D: samples → logits, and their losses.

    ``penalties``, such as ``r1(1.0)``, are added to D's loss; ``noise`` makes the random numbers of penalties: without
    one they start from seed 0 on D's device, and a trainer starts them from its own seed. A
    minibatch is a :class:`minigan.data.Batch` with conditions, or a Tensor or an array without. TypeError for an
    objective or a penalty of another type.
    """

    by_objective: ClassVar[bool] = True  # G descends the objective's own loss, plus terms

    generator: Module
    discriminator: Module
    objective: Objective = NON_SATURATING
    penalties: Sequence[Penalty] = ()
    noise: Generator = None  # type: ignore[assignment]  # set below

    def __post_init__(self) -> None:
        self.noise_is_given = self.noise is not None
        if not self.noise_is_given:
            parameters = self.discriminator.named_parameters().values()
            self.noise = Generator(0, stream="penalty", device=next((p.device for p in parameters), "cpu"))
        self.penalties = tuple(self.penalties)
        if not isinstance(self.objective, Objective):
            raise TypeError(f"Game: the objective must be one of minigan.gan.objectives, not {self.objective!r}")
        for penalty in self.penalties:
            if not isinstance(penalty, Penalty):
                raise TypeError(
                    f"Game: a penalty must be one of minigan.gan.penalties, such as r1(1.0), not {penalty!r}"
                )

    # --- the networks -------------------------------------------------------------------------------------------------

    def make(self, z: Tensor, given: Tensor | None = None) -> Tensor:
        """Return G(z), or G(z | given)."""
        return apply(self.generator, z, given)

    def judge(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        """Return D's logits of samples, or of samples under conditions."""
        return apply(self.discriminator, x, given)

    @property
    def conditional(self) -> bool:
        """Whether a network of the game takes conditions."""
        return self.generator.conditional or self.discriminator.conditional

    def generate(self, z: Any) -> Batch:
        """Return G(z) as constants, with the conditions of z: D's generated samples in its turn."""
        z = as_batch(z)
        with no_grad():
            return Batch(self.make(*z), z.given)

    # --- losses -------------------------------------------------------------------------------------------------------

    def discriminator_loss(self, real: Any, fake: Any) -> Losses:
        """Return L_D with its penalties on real (N, ...) and generated samples.

        If ``fake`` has a graph, the loss is a function of G's parameters too, and has derivatives in both players'.
        """
        real, fake = as_batch(real), as_batch(fake)
        x = wrap(as_array(raw(real.x)), requires_grad=any(penalty.at_real for penalty in self.penalties))
        real_logits, fake_logits = self.judge(x, real.given), self.judge(*fake)
        loss = self.objective.discriminator(real_logits, fake_logits)
        if not self.penalties:
            return Losses(loss, real_logits, fake_logits)
        look = Look(
            Seen(x, real_logits, partial(self.judge, given=real.given)),
            Seen(fake.x, fake_logits, partial(self.judge, given=fake.given)),
            self.discriminator.parameters(),
            self.noise,
        )
        first, *others = (penalty.term(look) for penalty in self.penalties)
        total = first
        for term in others:
            total = total + term
        return Losses(loss + total, real_logits, fake_logits, total)

    def generator_loss(self, real: Any, z: Any) -> Losses:
        """Return L_G on noise z (N, latent); paired objectives compare with ``real`` samples, others take None."""
        z = as_batch(z)
        fake_logits = self.judge(self.make(*z), z.given)
        real_logits = self.judge(*as_batch(real)) if self.objective.paired else None
        return Losses(self.objective.generator(real_logits, fake_logits), real_logits, fake_logits)

    def losses(self, real: Any, z: Any) -> tuple[Losses, Losses]:
        """Return (D's, G's) losses on one minibatch, both as functions of both players' parameters."""
        z = as_batch(z)
        d = self.discriminator_loss(real, Batch(self.make(*z), z.given))
        return d, Losses(self.objective.generator(d.real_logits, d.fake_logits), d.real_logits, d.fake_logits)

    # --- gradients: what each player descends -------------------------------------------------------------------------

    def discriminator_gradient(self, real: Any, z: Any) -> Gradient:
        """Return ∇_{θ_D} L_D, one Tensor a parameter, and the losses without their graph."""
        fake = self.generate(z)
        found = self.discriminator_loss(real, fake)
        require_finite("D", found, fake.x)
        return Gradient(grad(found.loss, self.discriminator.parameters()), found.detach())

    def generator_gradient(self, real: Any, z: Any) -> Gradient:
        """Return ∇_{θ_G} L_G, one Tensor a parameter, and the losses without their graph."""
        found = self.generator_loss(real, z)
        require_finite("G", found)
        return Gradient(grad(found.loss, self.generator.parameters()), found.detach())

    def gradients(self, real: Any, z: Any, *, create_graph: bool = False) -> tuple[Gradient, Gradient]:
        """Return (D's, G's) gradient at one point on one minibatch: minus the game's gradient field v.

        With ``create_graph`` both are functions of both players' parameters that can be differentiated further.
        """
        d, g = self.losses(real, z)
        require_finite("D", d)
        require_finite("G", g)
        return (
            descent(d, self.discriminator, create_graph=create_graph),
            descent(g, self.generator, create_graph=create_graph),
        )


def require_finite(player: str, found: Losses, fake: Tensor | None = None) -> None:
    """Raise :class:`Diverged`, which names the first op to blame, if a loss is not finite; ``fake`` is D's input."""
    if may_look(found.loss.data) and not np.isfinite(found.loss.data):
        made = "" if fake is None or np.isfinite(fake.data).all() else "G made samples that are not finite; "
        raise Diverged(f"the loss of {player} is not finite: {made}{first_bad(found.loss)}")


def descent(found: Losses, player: Module, *, create_graph: bool = False) -> Gradient:
    """Return the gradient of a loss in a player's parameters, zeros where it does not depend on them."""
    parts = grad(found.loss, player.parameters(), create_graph=create_graph, materialize_grads=True)
    return Gradient(parts, found.detach())


def first_bad(output: Tensor) -> str:
    """Return in words which op of a graph first made a number that is not finite."""
    seen, stack = {output}, [output]
    while stack:
        for x in stack.pop().inputs:
            if isinstance(x, Tensor) and x not in seen:
                seen.add(x)
                stack.append(x)
    for node in sorted(seen, key=lambda t: t.id):
        if np.isfinite(node.data).all():
            continue
        if node.op is None:
            return f"an input or parameter of shape {node.shape} was not finite already"
        ranges = [
            f"{x.shape} from {x.data.min():.4g} to {x.data.max():.4g}" for x in node.inputs if isinstance(x, Tensor)
        ]
        return f"{node.op.name} made it first, from inputs {'; '.join(ranges)}"
    return "every value in its graph is finite"
