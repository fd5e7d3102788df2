"""``python tests/quick.py [drawn] ARGUMENTS`` is ``python -m minigan ARGUMENTS`` with few data, and empty pictures."""

import sys
from dataclasses import replace

from PIL import Image

from minigan.cli.main import main
from minigan.data import DATASETS, ring
from minigan.gan import Config
from minigan.run import pictures

RING = Config(
    data="ring", model="mlp", width=2, latent=2, batch_size=8, steps=8, log_every=1, sample_every=4,
    checkpoint_every=4, batch_norm=False, device="cpu",
)  # fmt: skip


def blank(*of):
    """What takes the place of a picture: drawing one takes long."""
    return Image.new("RGB", (4, 4))


def take_few_points(set_item=dict.__setitem__):
    set_item(DATASETS, "ring", replace(DATASETS["ring"], load=lambda: ring(200)))


def draw_nothing(set_attribute=setattr):
    set_attribute(pictures, "scatter", blank)
    set_attribute(pictures, "curves", lambda *of: pictures.save(blank(), of[-1]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["drawn"]:
        del sys.argv[1]
    else:
        draw_nothing()
    take_few_points()
    sys.exit(main())
