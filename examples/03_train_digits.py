"""A DCGAN on real handwritten digits: the main job of the command line, in the library's own words.

python examples/03_train_digits.py            # 3,000 steps, writes digits.png
python examples/03_train_digits.py --steps 300
"""

import argparse
from pathlib import Path

from minigan import gan
from minigan.lab.metrics import class_shares, frechet_distance, half_against_half
from minigan.run import pictures as plot


def main(steps: int = 3000, out: str = "digits.png", width: int = 64) -> float:
    """Train, print the Fréchet distance as training goes on, draw 64 samples, and return the last distance."""
    trainer = gan.build(gan.Config(steps=steps, width=width))
    game, digits = trainer.game, trainer.data
    print(game.generator.summary((trainer.latent,)), game.discriminator.summary(digits.shape), sep="\n\n")
    print(f"\none real half against the other: {half_against_half(digits.reference()):.3f}")

    distance = float("inf")
    for event in trainer.events(steps, gan.Every(row=max(1, steps // 6), picture=0, checkpoint=0)):
        if isinstance(event, gan.Row):
            distance, row = frechet_distance(trainer.sample(2000), digits.reference()), event.values
            print(
                f"step {event.step:5d}  L_D {row['loss_d']:.3f}  L_G {row['loss_g']:.3f}  "
                f"Fréchet distance {distance:.3f}"
            )
    shares = class_shares(trainer.sample(2000), digits.reference(), digits.labels)
    print("share of each digit 0 to 9:", " ".join(f"{share:.0%}" for share in shares))
    plot.image_grid(trainer.sample(64)).save(Path(out))
    print(f"wrote {out}")
    return distance


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--out", default="digits.png")
    arguments = parser.parse_args()
    main(arguments.steps, arguments.out)
