"""Diagnosis of a run in words: rules with thresholds, each of which reports the numbers behind its finding.

A rule reads the last WINDOW rows of metrics, or the variety of the last pictures. Thresholds are judgement, not theory,
so the sentence always gives the evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from minigan.data import Dataset
from minigan.gan.events import Event, Picture, Row
from minigan.gan.game import Game
from minigan.gan.objectives import Objective
from minigan.gan.player import WINDOW
from minigan.lab.metrics import nearest_neighbour_labels
from minigan.random import Generator

Columns = dict[str, np.ndarray]


# --- variety of samples -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variety:
    """The variety of samples: see :func:`variety`."""

    spread: float
    entropy: float


def variety(samples: np.ndarray, data: np.ndarray, labels: np.ndarray | None, centres: np.ndarray | None) -> Variety:
    """Return how far apart samples (M, ...) are, and how evenly they lie over the classes or modes of data (N, ...).

    ``spread`` is their mean pairwise distance over that of as many data; ``entropy`` that of the shares of classes (by
    the 3-nearest-neighbour judge) or of nearest centres, over its largest value. Each is 1 for data that have no
    distances, or fewer than two classes or modes.
    """
    count = min(200, len(samples), len(data))
    order = Generator(0, stream="shuffle").permutation(len(data))[:count]
    apart = _mean_distance(data[order])
    spread = _mean_distance(samples[:count]) / apart if apart > 0 else 1.0
    if labels is not None:
        judged, kinds = nearest_neighbour_labels(samples[:count], data, labels), int(labels.max()) + 1
    elif centres is not None:
        judged = np.linalg.norm(samples[:, None] - centres[None], axis=2).argmin(1)
        kinds = len(centres)
    else:
        return Variety(spread, 1.0)
    if kinds == 1:
        return Variety(spread, 1.0)  # one class cannot be uneven
    shares = np.bincount(judged, minlength=kinds) / len(judged)
    shares = shares[shares > 0]
    return Variety(spread, max(0.0, float(-(shares * np.log(shares)).sum() / np.log(kinds))))


def _mean_distance(points: np.ndarray) -> float:
    flat = points.reshape(len(points), -1).astype(np.float64)
    squares = (flat**2).sum(1)
    distance = np.sqrt((squares[:, None] + squares[None] - 2 * flat @ flat.T).clip(0))
    return float(distance.sum() / max(1, len(flat) * (len(flat) - 1)))


@dataclass(frozen=True)
class Varied(Event):
    """The variety of a picture's samples."""

    variety: Variety


# --- rules ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding(Event):
    """A rule's finding at a step."""

    kind: str
    sentence: str


STRONG = 0.95  # accuracy of D on both kinds
DEAD = 0.5  # share of generated samples in the dead zone
STEADY, RETURNS = 0.5, 0.25  # cosine of successive moves, and distance over path length
JUMP, FADED = 100.0, 1e-3  # a gradient's norm over its median, and the norm
COLLAPSED, UNEVEN = 0.35, 0.6  # spread, and entropy
REFERENCE = 10_000  # samples of the data that variety is judged by
EARLY = 100  # steps before which variety is not judged


def _too_strong(rows: Columns) -> str | None:
    both = np.minimum(rows["accuracy_real"], rows["accuracy_fake"])
    if both.mean() < STRONG:
        return None
    return (
        f"D is right on {both.mean():.0%} of both kinds, with a mean |dL_G/ds| of {rows['slope_g'].mean():.2g} left "
        "for G: give D fewer steps, a smaller learning rate, a penalty (r1) or instance noise"
    )


def _saturated(rows: Columns) -> str | None:
    share = rows["dead_g"].mean()
    if share < DEAD:
        return None
    return (
        f"{share:.0%} of the generated samples pass less than a hundredth of a unit of gradient to G, whose loss is "
        "flat there: the saturating one if D is sure of them, the non-saturating or relativistic one if D is fooled"
    )


def _cycling(rows: Columns) -> str | None:
    if len(rows["turn"]) < WINDOW or rows["turn"].mean() < STEADY or rows["progress"][-1] > RETURNS:
        return None
    return (
        f"the players turn: each move continues the last one (cosine {rows['turn'].mean():.2f}), yet over "
        f"{WINDOW} rows the distance is {rows['progress'][-1]:.0%} of the path; use a penalty (r1), consensus or "
        "extragradient against a rotation"
    )


def _exploding(rows: Columns) -> str | None:
    for player in "dg":
        norms = rows[f"grad_norm_{player}"]
        usual = float(np.median(norms[:-1])) if len(norms) > 4 else 0.0
        if usual > 0 and norms[-1] > JUMP * usual:
            return (
                f"the gradient of {player.upper()} is {norms[-1]:.3g}, {norms[-1] / usual:.0f} times its usual "
                f"{usual:.2g}: lower its learning rate, or penalise the gradient"
            )
    return None


def _vanishing(rows: Columns) -> str | None:
    norm = rows["grad_norm_g"]
    if len(norm) < WINDOW or float(np.median(norm)) >= FADED:
        return None
    return (
        f"G's gradient has a norm of {np.median(norm):.2g}, and G no longer moves: D separates real from generated "
        "without a slope between them, or G has nothing left to learn"
    )


@dataclass(frozen=True)
class Symptom:
    """A kind of trouble: its rule on rows of metrics, and how a report shows it.

    ``rule`` is None for a symptom of samples, not of rows. ``panel`` names the curve that it is drawn on. ``always``:
    it is reported even if it was short. ``means`` returns whether the rule is meaningful in a game.
    """

    rule: Callable[[Columns], str | None] | None
    panel: str
    always: bool = False
    means: Callable[[Objective, type[Game]], bool] = lambda objective, game: True


SYMPTOMS = {
    # without an absolute zero of the logits, D's accuracy is meaningless
    "D too strong": Symptom(_too_strong, "accuracy", means=lambda objective, game: objective.absolute),
    # if G descends another loss, the slope of the objective's loss is meaningless
    "G saturated": Symptom(_saturated, "gradient", means=lambda objective, game: game.by_objective),
    "cycling": Symptom(_cycling, "movement"),
    "exploding gradient": Symptom(_exploding, "movement", always=True),
    "vanishing gradient": Symptom(_vanishing, "gradient"),
    "mode collapse": Symptom(None, "variety", always=True),
}
COLUMNS = ("accuracy_real", "accuracy_fake", "slope_g", "dead_g", "turn", "progress", "grad_norm_d", "grad_norm_g")


def silent(objective: Objective, game: type[Game]) -> set[str]:
    """Return the symptoms that are meaningless in a game."""
    return {name for name, symptom in SYMPTOMS.items() if not symptom.means(objective, game)}


def look_at(rows: Sequence[dict[str, float]] | Columns, but: Collection[str] = ()) -> Iterator[Finding]:
    """Yield findings of the rules, ``but`` some, in the last WINDOW rows of metrics: dicts, or arrays by column."""
    if not isinstance(rows, dict):
        rows = {name: np.array([row[name] for row in rows]) for name in ("step", *COLUMNS)} if rows else {}
    last = {name: column[-WINDOW:] for name, column in rows.items()}
    if not last or len(last["step"]) < WINDOW // 4:
        return
    for kind, symptom in SYMPTOMS.items():
        if symptom.rule is not None and kind not in but and (sentence := symptom.rule(last)):
            yield Finding(int(last["step"][-1]), kind, sentence)


def look_at_variety(found: Variety, step: int, steps: int) -> Finding | None:
    """Return the finding in the variety of a step's samples, if any; none before EARLY steps and a fifth of the run."""
    if step < max(EARLY, steps / 5) or (found.spread >= COLLAPSED and found.entropy >= UNEVEN):
        return None
    what = "makes few things" if found.spread < COLLAPSED else "leaves some of them out"
    return Finding(
        step,
        "mode collapse",
        f"the samples are {found.spread:.0%} as far apart as the data, and their classes or modes have "
        f"{found.entropy:.0%} of the entropy of even ones: G {what}; try packs (--pack 2), a penalty, or a smaller "
        "learning rate of G",
    )


def watched(events: Iterable[Event], data: Dataset, until: int, but: Collection[str] = ()) -> Iterator[Event]:
    """Pass a run's events on, with :class:`Varied` after every picture, and a :class:`Finding` after its evidence.

    Each kind of finding comes once. ``until`` is the last step of the run; ``but`` are rules that are not applied.
    """
    part = data.part(REFERENCE)
    reference = part.reference()
    rows: list[dict[str, float]] = []
    reported: set[str] = set()
    for event in events:
        yield event
        found: list[Finding] = []
        if isinstance(event, Row):
            rows = [*rows[1 - WINDOW :], event.values]
            found = list(look_at(rows, but))
        elif isinstance(event, Picture):
            seen = variety(event.samples, reference, part.labels, data.centres)
            yield Varied(event.step, seen)
            collapse = look_at_variety(seen, event.step, until)
            found = [collapse] if collapse else []
        for finding in found:
            if finding.kind not in reported:
                reported.add(finding.kind)
                yield finding


@dataclass(frozen=True)
class Spell:
    """A finding that held from one step to another."""

    kind: str
    first: int
    last: int
    sentence: str


def spells(
    metrics: Columns,
    varieties: Sequence[tuple[int, Variety]] = (),
    steps: int = 0,
    but: Collection[str] = (),
) -> list[Spell]:
    """Return the spells that the rules, ``but`` some, find in a whole run, by their first step."""
    open_spells: dict[str, Spell] = {}
    done: list[Spell] = []

    def note(findings: dict[str, Finding], step: int, kinds: Sequence[str]) -> None:
        for kind in kinds:
            before, finding = open_spells.get(kind), findings.get(kind)
            if finding:
                open_spells[kind] = Spell(kind, before.first if before else step, step, finding.sentence)
            elif before:
                done.append(open_spells.pop(kind))

    in_rows = [kind for kind, symptom in SYMPTOMS.items() if symptom.rule]
    for end in range(1, len(metrics.get("step", ())) + 1):
        part = {name: column[max(0, end - WINDOW) : end] for name, column in metrics.items()}
        note(
            {finding.kind: finding for finding in look_at(part, but)},
            int(part["step"][-1]),
            in_rows,
        )
    for step, found in varieties:
        finding = look_at_variety(found, step, steps)
        note({finding.kind: finding} if finding else {}, step, ["mode collapse"])
    return sorted([*done, *open_spells.values()], key=lambda spell: spell.first)
