"""``python tests/quick.py [drawn] ARGUMENTS`` is ``python -m minigan ARGUMENTS`` with few data, and empty pictures."""

import sys
from dataclasses import replace

from PIL import Image

from minigan.cli.main import main
from minigan.data import DATASETS, ring
from minigan.run import pictures


def blank(*of):
    return Image.new("RGB", (4, 4))


if __name__ == "__main__":
    if sys.argv[1:2] == ["drawn"]:
        del sys.argv[1]
    else:
        pictures.scatter = blank
        pictures.curves = lambda *of: pictures.save(blank(), of[-1])
    DATASETS["ring"] = replace(DATASETS["ring"], load=lambda: ring(200))
    sys.exit(main())
