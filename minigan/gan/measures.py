"""The numbers of one step: what a row of metrics says about both players."""

from __future__ import annotations

from minigan.gan.dynamics import Step
from minigan.gan.objectives import DEAD, Objective, slopes
from minigan.gan.player import Player


def measures(objective: Objective, discriminator: Player, generator: Player, step: Step) -> dict[str, float]:
    """Return both losses, the penalty, D's accuracy, both gradients' norms, and what reaches G of D's slope.

    ``slope_g`` is the mean |dL_G/ds| of G's samples, ``dead_g`` the share of them in the dead zone.
    """
    d, g = step.discriminator, step.generator
    assert d.real_logits is not None
    penalty = d.penalty.item() if d.penalty is not None else 0.0
    accuracy = objective.accuracy(d.real_logits.data, d.fake_logits.data)
    passed = slopes(objective, g.fake_logits, g.real_logits)
    return {
        "loss_d": d.loss.item() - penalty,
        "loss_g": g.loss.item(),
        "penalty": penalty,
        "accuracy_real": accuracy[0],
        "accuracy_fake": accuracy[1],
        "grad_norm_d": discriminator.optimizer.gradient_norm(),
        "grad_norm_g": generator.optimizer.gradient_norm(),
        "slope_g": float(passed.mean()),
        "dead_g": float((passed < DEAD).mean()),
    }
