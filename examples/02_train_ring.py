"""The two-player game from its parts: eight Gaussians on a circle, and a generator that must find them all.

python examples/02_train_ring.py            # 3,000 steps, writes ring.png
python examples/02_train_ring.py --steps 400
"""

import argparse
from pathlib import Path

from minigan import Tensor, data, gan, lab, no_grad, optim
from minigan.gan.penalties import r1
from minigan.random import Generator
from minigan.run import pictures as plot

LATENT, BATCH = 2, 256


def main(steps: int = 3000, out: str = "ring.png") -> lab.metrics.Modes:
    """Train, print the modes found as training goes on, draw the points, and return the last count."""
    ring = data.ring()
    generator, discriminator = gan.mlp(ring.shape, latent=LATENT, width=64, batch_norm=False, depth=3)
    print(generator.summary((LATENT,)), end="\n\n")

    game = gan.Game(generator, discriminator, gan.objectives.NON_SATURATING, penalties=(r1(0.01),))
    players = gan.make_players(game, lambda p: optim.Adam(p, 3e-3, betas=(0.5, 0.99), ema_decay=0.995))
    algorithm1 = gan.Alternating(game, *players, k=1)

    noise_d, noise_g = Generator(0, stream="latent-D"), Generator(0, stream="latent-G")
    averaged = generator.with_parameters(algorithm1.generator.optimizer.average())

    def sample(count: int) -> Tensor:
        with no_grad():
            return averaged(Generator(0, stream="sample").normal((count, LATENT)))

    modes = None
    for step in range(1, steps + 1):
        real = ring.batch(data.batch_indices(len(ring), BATCH, seed=0, number=step))
        found = algorithm1.step(
            lambda real=real: real, lambda: noise_d.normal((BATCH, LATENT)), lambda: noise_g.normal((BATCH, LATENT))
        )
        if step % max(1, steps // 8) == 0 or step == steps:
            modes = lab.metrics.mode_coverage(sample(2500).data, ring.centres, ring.sigma)
            print(
                f"step {step:5d}  L_D {found.discriminator.loss.item():.3f}  L_G {found.generator.loss.item():.3f}  "
                f"modes {modes.found}/8  within 3σ {modes.high_quality:.0%}  reverse KL {modes.reverse_kl:.3f}"
            )
    plot.scatter(sample(2500).data, ring.reference(), f"ring, step {steps}").save(Path(out))
    print(f"wrote {out}")
    return modes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--out", default="ring.png")
    arguments = parser.parse_args()
    main(arguments.steps, arguments.out)
