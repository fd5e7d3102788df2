"""Studies: each runs on a sliver of its budget and leaves its files; what they compute is held to what is known."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
from PIL import Image

from minigan.cli import main as cli
from minigan.lab.stability import Spectrum
from minigan.studies import STUDIES, Budget, cell, dirac, helvetica, stability, write
from minigan.studies.report import Interval, Table, interval
from minigan.studies.sweeps import SWEEPS, Outcome, best, figures_of, how_right, in_what_time

NAMES = {
    "gradient-strength", "dirac", "helvetica", "stability", "rivals", "learning-rate", "batch-size", "depth",
    "activation", "discriminator-accuracy", "objectives",
}  # fmt: skip


def test_all_studies_are_there():
    assert set(STUDIES) == NAMES
    assert all(study.question.endswith("?") for study in STUDIES.values())


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_study_leaves_its_files(name, tmp_path, monkeypatch):
    monkeypatch.setattr(stability, "MARKS", (100,))  # one spectrum a penalty
    monkeypatch.setattr(stability, "PRODUCTS", 12)
    monkeypatch.setattr(stability, "STEPS", 10)
    monkeypatch.setattr(dirac, "STEPS", 10)
    study, told = STUDIES[name], []
    budget = Budget(2 if study.seeds > 1 else 1, 0.01, told.append)
    result = study.run(budget)
    made = write(study, result, tmp_path / "out", 1.0, budget)
    assert {path.name for path in made} >= {"table.csv", "figure.png", "protocol.md"}
    assert all(path.stat().st_size > 100 for path in made)
    with Image.open(tmp_path / "out" / "figure.png") as picture:
        assert min(picture.size) > 300
    for number, table in enumerate(result.tables, 1):
        path = tmp_path / "out" / ("table.csv" if number == 1 else f"table_{number}.csv")
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        assert rows[0] == list(table.headings)
        assert len(rows) == 1 + len(table.rows) > 1
    text = (tmp_path / "out" / "protocol.md").read_text(encoding="utf-8")
    assert all(f"## {part}" in text for part in ("Protocol", "Reading", "What this does not show"))
    assert told


def test_the_dirac_table_is_that_of_its_closed_forms():
    (table,) = STUDIES["dirac"].run(Budget(1)).tables
    rows = {row[0]: row[1:] for row in table.rows}
    eigenvalue, step, radius, _, far, near = rows["minimax"]
    assert (abs(eigenvalue.imag), step) == pytest.approx((0.5, 0.0))
    assert (radius, far, near) == pytest.approx((1.005, 3.097, 1.413), abs=1e-3)
    assert rows["minimax + R1 γ=1"][0].real == pytest.approx(-0.5, abs=1e-7)
    assert rows["consensus γ=1"][0] == pytest.approx(-0.25 + 0.5j, abs=1e-9)


def test_the_strength_table_is_that_of_its_closed_forms():
    formula = STUDIES["gradient-strength"].run(Budget(1, 0.01)).tables[0]
    for s, d, saturating, other, ratio in formula.rows:
        sigma = 1 / (1 + math.exp(-s))
        assert (d, saturating, other) == pytest.approx((sigma, sigma, 1 - sigma), rel=1e-9)
        assert ratio == pytest.approx((1 - sigma) / sigma, rel=1e-9)


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_intervals_are_students():
    found = interval([1.0, 2.0, 3.0])
    assert (found.mean, found.half) == pytest.approx((2, 4.303 / math.sqrt(3)))
    assert str(found) == "2 ± 2.5"
    assert str(interval([0.5])) == "0.5"
    assert str(interval([])) == "none"
    assert [str(Interval(*pair)) for pair in ((297.4, 131.0), (1e-7, 2e-8), (3441.0, math.nan))] == [
        "297 ± 130", "1e-07 ± 2e-08", "3440",
    ]  # fmt: skip
    assert math.isinf(interval([1.0, math.inf]).mean)
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        sample = interval(list(rng.standard_normal(4)))
        covered += abs(sample.mean) <= sample.half
    assert covered / 2000 == pytest.approx(0.95, abs=0.02)


def test_a_table_takes_rows_of_its_width():
    table = Table("t", ["a", "b"])
    table.add(1, 2.0)
    with pytest.raises(ValueError, match="1 cells for 2 headings"):
        table.add(1)
    assert [cell(x) for x in (1, 0.123456, -0.5 + 0.25j, -2 + 0j, Interval(1.0, 0.1), "x")] == [
        "1", "0.1235", "-0.5 ± 0.25i", "-2", "1 ± 0.1", "x",
    ]  # fmt: skip


def test_the_best_setting_is_named_with_those_that_cannot_be_told_from_it():
    def runs(*values):
        return [Outcome({"Fréchet distance": v}) for v in values]

    outcomes = {"a": runs(1.0, 1.1, 0.9), "b": runs(1.05, 1.2, 1.0), "c": runs(9.0, 9.1, 8.9)}
    assert figures_of(outcomes)["Fréchet distance"]["a"].mean == pytest.approx(1)
    assert best("Fréchet distance")(outcomes).startswith("Best by Fréchet distance: a (1 ± 0.25); b cannot be dist")
    outcomes["d"] = runs(5.0, math.inf, math.inf)
    assert best("Fréchet distance")(outcomes).startswith("d had no finite Fréchet distance in some run. Best")
    assert "d cannot" not in best("Fréchet distance")(outcomes)
    del outcomes["b"], outcomes["d"]
    assert "apart from all others" in best("Fréchet distance")(outcomes)
    assert len({sweep.name for sweep in SWEEPS}) == 6


# --- what is said of the numbers --------------------------------------------------------------------------------------


def test_the_best_of_few_that_can_be_judged():
    def runs(*values):
        return [Outcome({"Fréchet distance": v}) for v in values]

    lost, one, alone = runs(math.inf, 1.0), runs(1.0, 1.1), runs(1.0)
    read = best("Fréchet distance")
    assert read({"a": lost, "b": lost}) == "a and b had no finite Fréchet distance in some run."
    assert read({"a": lost, "b": one}).endswith(
        "Best by Fréchet distance: b (1.05 ± 0.64), the only one that can be judged."
    )
    assert read({"a": alone, "b": runs(5.0)}).endswith("a (1); b cannot be distinguished from it with these seeds.")
    assert best("Fréchet distance", least=False)({"a": one, "b": runs(9.0, 9.1)}).startswith(
        "Best by Fréchet distance: b"
    )


def outcome(accuracy, seconds, distance=1.0):
    rows = [{"step": i, "accuracy_real": a, "accuracy_fake": a} for i, a in enumerate(accuracy)]
    return Outcome({"Fréchet distance": distance}, rows, seconds, len(rows))


def test_accuracy_and_time_are_read_from_the_runs():
    fast, slow = outcome([1.0] * 6 + [0.5] * 2, 1.0), outcome([0.0] * 6 + [0.9] * 2, 3.0)
    said = how_right({"1": [fast, fast], "5": [slow, slow]})
    assert "right on a share of 0.667 ± 0 with k = 1 and 0.6 ± 0 with k = 5." in said
    assert "took from 1 ± 0 s (1) to 3 ± 0 s (5)." in in_what_time({"1": [fast, fast], "5": [slow, slow]})


def test_collapse_is_told_from_poverty():
    def runs(modes, quality):
        return [Outcome({"modes": modes, "high quality": quality, "reverse KL": 0.0})] * 2

    said = helvetica.collapsed({"ring": {"plain": runs(8.0, 0.9), "k = 5": runs(3.0, 0.8), "R1": runs(2.0, 0.01)}})
    assert "is the collapse: k = 5 on the ring (80%, 3 of 8 modes)." in said
    assert "Below 10% of high quality, too poor to judge a collapse: R1 on the ring." in said
    assert helvetica.collapsed({"grid": {"plain": runs(25.0, 0.9)}}).endswith("which is the collapse: none.")


def test_a_spectrum_is_read_as_it_is():
    head = "game", "objective", "term", "λ", "settles", "step", "optimiser", "radius", "after / before"
    rows = [["Dirac", "minimax", "no term", 0.5j, "circling", 0.0, "SGD .1", 1.1, 2.0],
            ["Dirac", "minimax", "R1 γ=1", -0.5, "stable", 4.0, "SGD .1", 0.9, 0.1],
            ["Dirac", "hinge", "R1 γ=1", -0.5, "stable", 4.0, "SGD .1", 0.9, 1.5],
            ["Dirac", "minimax", "R1 γ=1", -0.5, "stable", 4.0, "Adam .01", 6.0, 0.001]]  # fmt: skip
    away = Spectrum(np.array([2.0 + 0j, -1.0]), np.zeros(2), 2, True)
    unsure = Spectrum(np.array([2.0 + 0j, -1.0]), np.array([1.5, 0.0]), 5000, False)
    home = Spectrum(np.array([-0.5 + 0j, -1.0]), np.zeros(2), 2, True)
    looks = {
        ("r1", 50): [stability.Look(home, 0.1), stability.Look(unsure, 0.2)],
        ("none", 50): [stability.Look(away, 9)],
    }
    said = stability.reading(Table("small", head, rows), looks)
    assert "SGD .1 ended nearer than it began if the radius at rest is below 1" in said
    assert "in 2 of 3 settings" in said
    assert "Adam .01 ended at no case of its first distance with a radius below 1, at 0.001 to 0.001 above." in said
    assert "The flow of Dirac settles with no term for none; with R1 γ=1 for minimax and hinge; with NK" in said
    assert "with penalty r1: ‖v‖ from 0.1 to 0.2" in said
    assert "diverge, in 0 of 2 spectra. The digits GAN with penalty none" in said
    assert said.endswith("in 1 of 1 spectra.")
    assert [row[-1] for row in stability.digits_table(looks).rows] == ["0 of 2", "1 of 1"]


def test_the_dirac_rules_are_read_from_their_rows():
    head = "rule", "λ", "step", "simultaneous", "alternating", "distance, simultaneous", "distance, alternating"
    rows = [["turns", 0.5j, 0, 1, 1, 9.0, 1.4], ["settles", -0.5 + 0j, 4, 0.9, 0.9, 1e-9, 1e-12]]
    said = dirac.reading(Table("t", head, rows))
    assert "nothing damps the flow near rest, under turns." in said
    assert "After simultaneous steps turns had gone outwards, and no rule had kept" in said
    assert "After alternating steps no rule had gone outwards, and turns had kept" in said
    assert said.endswith("is settles, at 1e-12.")


# --- the command ------------------------------------------------------------------------------------------------------


def test_studies_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["study"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in NAMES)
    assert cli.main(["study", "nothing"]) == 2
    assert "there is no study 'nothing': choose from gradient-strength" in capsys.readouterr().err
    assert cli.main(["study", "dirac", "--seeds", "0"]) == 2
    assert "--seeds must be from 1 to 16" in capsys.readouterr().err
    assert cli.main(["study", "gradient-strength", "--seeds", "1", "--out", "d"]) == 0
    said = capsys.readouterr().out
    assert "seed 1 of 1, step 150 of 150" in said
    assert "made in d/ in" in said
    assert cli.main(["study", "dirac", "--out", "d"]) == 2
    assert "d exists already and is left as it is" in capsys.readouterr().err
    (tmp_path / "file").write_text("kept", encoding="utf-8")
    for where in ("file", "file/x"):
        assert cli.main(["study", "dirac", "--out", where]) == 2
        told = capsys.readouterr()
        assert "minimax (1 of 9)" not in told.out  # nothing was computed
        assert "file" in told.err
