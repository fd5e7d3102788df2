"""Studies: each runs on a sliver of its budget and leaves its files; what they compute is held to what is known."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
from PIL import Image

from minigan import cli
from minigan.studies import STUDIES, Budget, cell, dirac, stability, write
from minigan.studies.report import Interval, Table, interval
from minigan.studies.sweeps import SWEEPS, Outcome, best, figures_of

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
    assert best("Fréchet distance")(outcomes).startswith("Best by Fréchet distance: a (1 ± 0.25); b cannot be told")
    outcomes["d"] = runs(5.0, math.inf, math.inf)
    assert best("Fréchet distance")(outcomes).startswith("d had no finite Fréchet distance in some run. Best")
    assert "d cannot" not in best("Fréchet distance")(outcomes)
    del outcomes["b"], outcomes["d"]
    assert "apart from all others" in best("Fréchet distance")(outcomes)
    assert len({sweep.name for sweep in SWEEPS}) == 6


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
