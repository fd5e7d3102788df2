"""What a run's rules say: each speaks where it should, keeps quiet otherwise, and is read back from a folder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import minigan as mg
from minigan import optim
from minigan.cli import main as cli
from minigan.data import load
from minigan.gan import Config, Game, Player, Simultaneous, build, make_players
from minigan.gan.objectives import HINGE, WASSERSTEIN
from minigan.gan.player import Movement
from minigan.gan.variants import FeatureMatching
from minigan.lab import small_games
from minigan.lab import small_games as games
from minigan.lab.diagnosis import WINDOW, Finding, Variety, look_at, look_at_variety, silent, spells, variety
from minigan.run.explain import explain
from minigan.run.folder import RunError, create

CALM = {
    "accuracy_real": 0.7, "accuracy_fake": 0.65, "slope_g": 0.5, "dead_g": 0.0, "turn": 0.1, "progress": 0.4,
    "grad_norm_d": 1.0, "grad_norm_g": 0.5,
}  # fmt: skip


def rows(count=WINDOW, **changes):
    """Rows of metrics of a calm run, with some columns changed: a number, or one a row."""
    return [
        {"step": 10 * (i + 1), **CALM, **{k: v if np.isscalar(v) else v[i] for k, v in changes.items()}}
        for i in range(count)
    ]


def said(found):
    return {finding.kind: finding.sentence for finding in found}


TROUBLE = {
    "D too strong": ({"accuracy_real": 0.99, "accuracy_fake": 1.0, "slope_g": 0.02}, "right on 99% of both kinds"),
    "G saturated": ({"dead_g": 0.8}, "80% of the generated samples pass less than a hundredth"),
    "cycling": ({"turn": 0.9, "progress": 0.1}, "(cosine 0.90), yet over 20 rows the distance is 10% of the path"),
    "exploding gradient": ({"grad_norm_d": [1.0] * 19 + [250.0]}, "the gradient of D is 250, 250 times its usual 1"),
    "vanishing gradient": ({"grad_norm_g": 1e-5}, "G's gradient has a norm of 1e-05"),
}


def test_a_calm_run_is_left_alone():
    assert not list(look_at(rows()))
    assert not list(look_at([]))
    assert not list(look_at(rows(2, accuracy_real=1.0, accuracy_fake=1.0)))  # too few to say
    assert look_at_variety(Variety(0.9, 0.9), 500, 1000) is None


@pytest.mark.parametrize("kind", TROUBLE)
def test_trouble_is_named_with_its_evidence(kind):
    changes, words = TROUBLE[kind]
    found = said(look_at(rows(**changes)))
    assert list(found) == [kind]
    assert words in found[kind]
    assert "\n" not in found[kind]


@pytest.mark.parametrize(
    "changes",
    [
        {"accuracy_real": 0.99, "accuracy_fake": 0.5},
        {"turn": 0.9, "progress": 0.9},  # on and on
        {"turn": 0.0, "progress": 0.1},  # to and fro
        {"grad_norm_d": [1.0] * 19 + [20.0]},
        {"grad_norm_g": [1e-5] * 5 + [0.5] * 15},
        {"dead_g": 0.3},
    ],
)
def test_half_of_a_sign_is_none(changes):
    assert not list(look_at(rows(**changes)))


def test_collapse_is_judged_from_a_fifth_of_the_run_on():
    poor = Variety(0.1, 0.2)
    assert look_at_variety(poor, 190, 1000) is None
    assert look_at_variety(poor, 90, 100) is None
    found = look_at_variety(poor, 300, 1000)
    assert (found.kind, found.step) == ("mode collapse", 300)
    assert "10% as far apart as the data" in found.sentence
    assert "leaves some of them out" in look_at_variety(Variety(0.9, 0.2), 300, 1000).sentence
    assert look_at_variety(Variety(0.2, 0.9), 300, 1000) is not None


def test_rules_that_say_nothing_of_a_game_are_silent():
    trouble = rows(accuracy_real=1.0, accuracy_fake=1.0, dead_g=0.9)
    assert set(said(look_at(trouble))) == {"D too strong", "G saturated"}
    assert set(said(look_at(trouble, silent(WASSERSTEIN, Game)))) == {"G saturated"}
    assert set(said(look_at(trouble, silent(HINGE, FeatureMatching)))) == {"D too strong"}


def test_spells_begin_and_end():
    columns = rows(60, accuracy_real=[0.7] * 20 + [1.0] * 25 + [0.5] * 15, accuracy_fake=1.0)
    metrics = {name: np.array([row[name] for row in columns]) for name in columns[0]}
    varieties = [(100, Variety(0.1, 0.1)), (300, Variety(0.2, 0.9)), (400, Variety(0.3, 0.9)), (600, Variety(1, 1))]
    found = {spell.kind: spell for spell in spells(metrics, varieties, 600)}
    assert sorted(found) == ["D too strong", "mode collapse"]
    strong, collapse = found["D too strong"], found["mode collapse"]
    assert 200 < strong.first <= 390
    assert 400 <= strong.last <= 480
    assert (collapse.first, collapse.last) == (300, 400)
    assert spells({}) == []


# --- movement ---------------------------------------------------------------------------------------------------------


def test_a_rotation_is_seen_in_its_moves():
    small = games.bilinear(np.ones(40), np.zeros(40))
    game = Game(small.generator, small.discriminator, WASSERSTEIN)
    players = make_players(game, lambda p: optim.SGD(p, 0.02))
    dynamics, movement, zero = Simultaneous(game, *players), Movement(players), mg.tensor(small.real)
    columns = []
    for _ in range(32):
        for _ in range(15):  # .3 of a radian a row: a full turn in 21 rows
            dynamics.step(lambda: zero, lambda: zero, lambda: zero)
        columns.append({**rows(1)[0], **dict(zip(("turn", "progress"), movement.look(), strict=True))})
    turn, progress = columns[-1]["turn"], columns[-1]["progress"]
    assert turn == pytest.approx(np.cos(0.3), abs=0.05)
    assert progress < 0.25
    assert "cycling" in said(look_at(columns))


def test_moves_that_go_on_get_somewhere():
    line = small_games.Shift(np.zeros(1000))
    player = Player(line, optim.SGD(line.parameters(), 0.1))
    movement, rng = Movement([player]), np.random.default_rng(0)
    assert movement.look() == (1.0, 1.0)
    direction = rng.standard_normal(1000)
    for _ in range(30):
        player.move([direction])
        turn, progress = movement.look()
    assert (turn, progress) == pytest.approx((1, 1), abs=1e-9)
    kept = movement.state()
    assert kept.shape == (WINDOW + 1, 64)
    again = Movement([player])
    again.load_state(kept)
    for _ in range(30):
        player.move([rng.standard_normal(1000)])
        turn, progress = movement.look()
        assert again.look() == (turn, progress)
    assert abs(turn) < 0.5  # a walk at random
    assert progress == pytest.approx(WINDOW**-0.5, abs=0.15)


# --- variety ----------------------------------------------------------------------------------------------------------


def test_data_is_as_varied_as_itself_and_one_image_is_not():
    digits = load("digits")
    order = np.random.default_rng(0).permutation(len(digits.reference()))[:200]
    whole = variety(digits.reference()[order], digits.reference(), digits.labels, None)
    assert whole.spread == pytest.approx(1, abs=0.05)
    assert whole.entropy == pytest.approx(1, abs=0.03)
    one = variety(np.repeat(digits.reference()[:1], 64, axis=0), digits.reference(), digits.labels, None)
    assert (one.spread, one.entropy) == pytest.approx((0, 0), abs=1e-6)
    ring = load("ring")
    two = ring.reference()[np.linalg.norm(ring.reference()[:, None] - ring.centres, axis=2).argmin(1) < 2]
    found = variety(two, ring.reference(), None, ring.centres)
    assert found.entropy == pytest.approx(np.log(2) / np.log(8), abs=0.02)
    assert variety(two, ring.reference(), None, None).entropy == 1.0


# --- in a run ---------------------------------------------------------------------------------------------------------

RING = replace(Config.preset("ring"), device="cpu", width=8, batch_size=32, log_every=2, sample_every=20)


def test_a_run_tells_each_kind_of_trouble_once(tmp_path):
    still = Config(
        model="mlp",
        width=16,
        batch_size=32,
        steps=100,
        log_every=2,
        sample_every=25,
        lr_g=0.0,
        penalty="none",
        device="cpu",
    )
    run = create(tmp_path / "run", still)
    told = [event for event in run.events() if isinstance(event, Finding)]
    kinds = [finding.kind for finding in told]
    assert "D too strong" in kinds
    assert told[0].step < 100
    assert len(set(kinds)) == len(kinds)


def test_a_run_is_explained(tmp_path, capsys):
    folder = tmp_path / "run"
    arguments = "train --model mlp --width 16 --batch-size 32 --steps 100 --log-every 2 --sample-every 25 --lr-g 0"
    assert cli.main([*arguments.split(), "--penalty", "none", "--device", "cpu", "--out", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert cli.main(["explain", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "The run got to step 100 of 100." in " ".join(text.split())
    assert "D too strong: D is right on" in " ".join(text.split())
    assert "D too strong" in printed
    with Image.open(folder / "explain.png") as picture:
        assert picture.size == (850, 850)
    assert max(map(len, explain(folder).text(70).splitlines())) <= 70
    calm = tmp_path / "calm"
    run = create(calm, replace(RING, steps=20))
    run.train()
    assert "No rule for trouble found any." in " ".join(explain(calm).text().split())
    explain(calm).draw(calm / "explain.png")


def test_what_cannot_be_explained(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        explain(tmp_path)
    create(tmp_path / "run", RING)
    with pytest.raises(RunError, match="has no metrics yet"):
        explain(tmp_path / "run")
    for nothing in ("", "step,loss_d\n", "step,loss_d\n1"):
        (tmp_path / "run" / "metrics.csv").write_text(nothing, encoding="utf-8")
        with pytest.raises(RunError, match="has no metrics yet"):
            explain(tmp_path / "run")
    (tmp_path / "run" / "metrics.csv").write_text("step,loss_d\n1,2\n", encoding="utf-8")
    with pytest.raises(RunError, match="metrics.csv lacks the columns loss_g, .*: another version wrote it"):
        explain(tmp_path / "run")


def test_a_row_cut_short_is_left_out(tmp_path):
    run = create(tmp_path / "run", replace(RING, steps=20))
    run.train()
    whole, path = explain(tmp_path / "run").metrics, tmp_path / "run" / "metrics.csv"
    with path.open("a", encoding="utf-8") as file:
        file.write("22,0.1,0.2")
    cut = explain(tmp_path / "run").metrics
    assert {name: list(column) for name, column in cut.items()} == {n: list(c) for n, c in whole.items()}


def logged(**columns):
    """Rows of metrics of a run in which nothing happens, but for some columns."""
    calm = {
        "loss_d": 1.386, "loss_g": 0.693, "penalty": 0.0, "accuracy_real": 0.5, "accuracy_fake": 0.5,
        "grad_norm_d": 1.0, "grad_norm_g": 1.0, "slope_g": 0.5, "dead_g": 0.0, "turn": 0.0, "progress": 0.5,
    }  # fmt: skip
    count = len(next(iter(columns.values())))
    return {"step": np.arange(1.0, count + 1), **{name: np.full(count, v) for name, v in calm.items()}} | {
        name: np.asarray(values, float) for name, values in columns.items()
    }


def told(folder, config, **columns):
    """What is explained of a run with such metrics."""
    folder.mkdir()
    (folder / "config.toml").write_text(config.to_toml(), encoding="utf-8")
    metrics = logged(**columns)
    lines = [",".join(metrics), *(",".join(map(str, row)) for row in zip(*metrics.values(), strict=True))]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return " ".join(explain(folder).text().split())


def test_a_spell_is_told_that_lasted_or_holds_at_the_end(tmp_path):
    config = replace(RING, log_every=1, steps=400)
    ahead = [0.5] * 100 + [1.0] * 60 + [0.0] * 100
    said = told(tmp_path / "past", config, accuracy_real=ahead, accuracy_fake=ahead)
    assert "D too strong: D is right on" in said
    late = np.array([0.5] * 100 + [1.0] * 60)
    first = next(  # the row at which the rule begins to speak
        end for end in range(101, 161) if any(f.kind == "D too strong" for f in look_at(
            {name: column[:end] for name, column in logged(accuracy_real=late, accuracy_fake=late).items()}))
    )  # fmt: skip
    said = told(tmp_path / "end", config, accuracy_real=late[:first], accuracy_fake=late[:first])
    assert f"- steps {first} to {first}, D too strong" in said
    brief = np.concatenate([late[:first], np.zeros(100)])
    said = told(tmp_path / "brief", config, accuracy_real=brief, accuracy_fake=brief)
    assert "- steps" not in said
    assert "Left out: spells of trouble that were over within 3 rows of metrics (1)." in said


@pytest.mark.parametrize(
    ("real", "fake", "words"),
    [
        (0.99, 0.95, "it tells nearly all of them apart"),
        (1.0, 0.0, "it takes nearly everything for real"),
        (0.0, 1.0, "it takes nearly everything for generated"),
        (0.5, 0.55, "it can hardly tell them apart"),
        (0.8, 0.7, "neither player is far ahead"),
    ],
)
def test_what_accuracy_says(tmp_path, real, fake, words):
    columns = {"accuracy_real": [real] * 8, "accuracy_fake": [fake] * 8}
    said = told(tmp_path / "run", RING, **columns)
    assert f"D is right on {real:.0%} of real and {fake:.0%} of generated samples: {words}" in said
    assert "The mean |dL_G/ds| of generated samples is 0.5." in said
    pairs = told(tmp_path / "pairs", replace(RING, objective="relativistic"), **columns)
    assert f"D finds the real one of {real:.0%} of pairs." in pairs
    assert "D's accuracy says nothing" in told(tmp_path / "w", replace(RING, objective="wasserstein"), **columns)
    assert "The mean |dL_G/ds|" not in told(tmp_path / "f", replace(RING, rule="feature-matching"), **columns)


def test_metrics_hold_the_strength_of_the_gradient():
    trainer = build(replace(RING, objective="relativistic"))
    step = trainer.step()
    row, found = trainer.metrics(step), step.generator
    passed = 1 / (1 + np.exp(found.fake_logits.numpy() - found.real_logits.numpy()))  # of sp(s(x) − s(y))
    assert row["slope_g"] == pytest.approx(passed.mean(), rel=1e-5)
    assert row["dead_g"] == (passed < 0.01).mean()
