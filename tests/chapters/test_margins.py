"""The study of margins: seeds move, checks become records, and what is stored supports every claim of the book."""

import math
import re
from pathlib import Path

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from benchmarks import margins as study
from srbook.check import Outcome, outcomes
from srbook.results import stored_result
from srbook.study.margins import WANTED, Margin, margins


def results(source: str, seed: int) -> dict[str, object]:
    """Run a cell, reseeded."""
    space: dict[str, object] = {"torch": torch, "_record": lambda name, value: space.setdefault(name, value)}
    space["TrainingConfig"] = space["PairedPatches"] = lambda **named: named
    exec(study.reseeded(source, seed), space)
    return space


def test_every_seed_moves_but_a_fixed_one() -> None:
    source = """
def seed(number):
    return torch.Generator().manual_seed(number)
a = [seed(k).initial_seed() for k in range(2)]
b = torch.Generator().manual_seed(7).initial_seed()  # a fixed seed: the picture of the text
c, d = TrainingConfig(steps=5), PairedPatches(seed=2)
"""
    moved = results(source, 3)
    assert moved["a"] == [3000, 3001] and moved["b"] == 7
    assert moved["c"] == {"steps": 5, "seed": 3000} and moved["d"] == {"seed": 3002}
    assert results(source, 0)["a"] == [0, 1] and results(source, 0)["c"] == {"steps": 5}


def test_checks_record_what_they_would_refuse() -> None:
    assert results('check("a.b", 2 + 3, low=9.0)', 1)["a.b"] == 5


def test_a_run_is_known_by_its_code_and_not_by_its_bounds(tmp_path: Path) -> None:
    def key(*cells: str) -> str:
        path = tmp_path / "chapter.ipynb"
        nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells]), path)
        return study.key(path)

    assert key("x = 1", 'check("a.b", x, low=0.5)') == key("x = 1  # one", 'check("a.b", x, low=0.2)')
    assert key("x = 1", 'check("a.b", x, low=0.5)') != key("x = 2", 'check("a.b", x, low=0.5)')


def test_arithmetics_are_those_of_make() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    named = dict(re.findall(r"^ARITHMETIC_(\w+) := (.+)$", makefile, re.MULTILINE))
    settings = {name: dict(pair.split("=") for pair in pairs.split()) for name, pairs in named.items()}
    assert {"own": {}, **settings} == study.ARITHMETICS


def test_a_chapter_runs_to_its_first_error(tmp_path: Path) -> None:
    path = tmp_path / "small.ipynb"
    cells = [
        'from srbook import check\ncheck("a.b", 3, high=1)',
        "import os\ncheck('c.d', int(os.environ['MKL_CBWR'] != ''))",
    ]
    cells += ["torch.manual_seed(1)\ncheck('e.f', torch.initial_seed())", "raise KeyError('gone')", "check('g.h', 1)"]
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells]), path)
    run = study.execute(study.Job(path, seed=2, arithmetic="avx2", budget="quick"))
    assert run["values"] == {"a.b": 3.0, "c.d": 1.0, "e.f": 2001.0}
    assert run["error"] == "KeyError: 'gone'" and run["training"] == "float32"


def test_a_margin_counts_deviations_from_the_nearer_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {"a.b": Outcome("a.b", "one", "", 0.0, 10.0), "c.d": Outcome("c.d", "one", "", -math.inf, 1.0)}
    monkeypatch.setattr("srbook.study.margins.outcomes", lambda: listed)
    runs = [{"budget": "quick", "values": {"a.b": value, "c.d": 1.0}} for value in (2.0, 3.0, 4.0)]
    first, second = margins([*runs, {"budget": "full", "values": {"a.b": 99.0}}])
    assert (first.spread, first.distance, first.deviations) == (1.0, 3.0, 3.0)
    assert second.deviations == math.inf  # always the same, and allowed
    assert Margin(listed["c.d"], (0.9, 1.1), 0.1, 0.0).deviations == -math.inf


def test_runs_are_kept_when_rewritten_code_gives_their_values() -> None:
    def run(seed: int, key: str, value: float) -> dict:
        where = {"chapter": "c", "budget": "quick", "processor": "p", "arithmetic": "own", "seed": seed}
        return {**where, "key": key, "commit": "abc", "values": {"a.b": value, "c.d": 1.0}}

    runs = [run(0, "old", 1.0), run(1, "old", 2.0), run(2, "old", 3.0)]  # a deviation of 1
    assert study.keep(runs, run(0, "new", 3.5)) == "a.b moved by 2.50 deviations"
    assert {each["key"] for each in runs} == {"old"}
    assert "no stored run" in study.keep(runs, run(5, "new", 1.0))
    assert study.keep(runs, {**run(0, "new", 1.0), "error": "KeyError: 'x'"}) == "KeyError: 'x'"
    assert study.keep(runs, {**run(0, "new", 1.0), "values": {"a.b": 1.0}}) == "other outcomes: c.d"
    fresh = run(0, "new", 1.5)
    assert study.keep(runs, fresh) == ""
    assert runs[0] is fresh and {each["key"] for each in runs} == {"new"}
    assert runs[1]["rewritten"] == {"commit": "abc", "moved": 0.5} and "rewritten" not in fresh


STORED = stored_result("margins")["runs"]


def test_every_outcome_keeps_its_margin_in_the_stored_runs() -> None:
    """After a change of a chapter: python -m benchmarks.margins CHAPTER."""
    found = {margin.outcome.name: margin for margin in margins(STORED)}
    assert found.keys() == outcomes().keys()
    assert [str(margin) for margin in found.values() if margin.deviations < WANTED] == []


def test_the_stored_runs_cover_seeds_arithmetics_and_the_full_budget() -> None:
    for chapter in {run["chapter"] for run in STORED}:
        quick = [run for run in STORED if run["chapter"] == chapter and run["budget"] == "quick"]
        assert len({run["seed"] for run in quick}) >= 3 and len({run["arithmetic"] for run in quick}) >= 2, chapter
        assert any(run["budget"] == "full" for run in STORED if run["chapter"] == chapter), chapter
    assert not any("error" in run for run in STORED)
    for run in STORED:
        assert all(outcomes()[name].low <= value <= outcomes()[name].high for name, value in run["values"].items()), run
