"""``minigan sample``: make samples from a run."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from minigan.cli.flags import Refusal, parse, report_complaints

MOST = 400  # images in a picture


@dataclass(frozen=True)
class Sample:
    """Make samples from the averaged generator of a run: an .npz of arrays, or a .png picture."""

    run: Annotated[Path, tyro.conf.arg(metavar="RUN"), tyro.conf.Positional]
    """Folder of a run."""
    count: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Number of samples; 2000 unless given, 64 for a .png of images, which holds up to 400."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("samples.npz")
    """samples.npz with the array "images" (N, H, W, C) float32 in [-1, 1] ("points" for points), or a .png."""
    seed: int = 1
    """Seed of the noise."""
    force: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Overwrite the file if it exists."""


def sample(arguments: Sequence[str]) -> int:
    """Run ``minigan sample``."""
    from minigan.gan import Diverged
    from minigan.run import folder as runs
    from minigan.run.files import write_atomically

    options = parse(Sample, arguments)
    suffix = options.out.suffix.lower()
    if suffix not in (".npz", ".png"):
        raise Refusal(f"--out must end in .npz or .png, not {options.out.name!r}")
    if options.count is not None and not 1 <= options.count <= sys.maxsize:
        raise Refusal(f"--count must be at least 1, not {options.count}")
    if options.out.exists() and not options.force:
        raise Refusal(f"{options.out} exists already: choose another --out, or add --force")
    run = runs.reopen_for_samples(options.run)
    report_complaints(run.complaints)
    images = run.trainer.data.is_images
    if suffix == ".png" and images and (options.count or 1) > MOST:
        raise Refusal(f"--count must be at most {MOST} for a .png of images, not {options.count}")
    count = options.count or (64 if suffix == ".png" and images else 2000)
    try:
        samples = run.trainer.sample(count, options.seed)
    except Diverged as error:
        raise Refusal(f"{options.run}: {error}; nothing was written: sample an earlier run", 1) from None
    content = io.BytesIO()
    if suffix == ".npz":
        arrays: dict[str, Any] = {"images" if images else "points": samples}
        np.savez_compressed(content, **arrays)
    else:
        run.draw(samples).save(content, format="PNG")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out, content.getvalue())
    print(f"{count:,} samples of step {run.trainer.steps} are in {options.out}")
    return 0
