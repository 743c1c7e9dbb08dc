import math

import pytest
import torch

import srbook.check as module
from srbook.check import check, outcomes, read_outcomes

FILES = {
    "mean": """
mean.gain:
  chapter: predicting-the-mean
  claim: the network is better than bicubic by at least 0.2 dB
  low: 0.2
mean.between:
  chapter: predicting-the-mean
  claim: the ratio is near one
  low: 0.9
  high: 1.1
""",
    "problem": """
problem.error:
  chapter: the-problem
  claim: both images degrade to the same input
  high: 1.0e-3
""",
}


@pytest.fixture(autouse=True)
def listed(tmp_path, monkeypatch):
    for topic, entries in FILES.items():
        (tmp_path / f"{topic}.yml").write_text(entries)
    monkeypatch.setattr(module, "OUTCOMES", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "value", "low", "high"),
    [
        ("mean.gain", 0.2, 0.2, None),
        ("mean.gain", torch.tensor(0.43), 0.2, None),
        ("mean.gain", math.inf, 0.2, None),
        ("problem.error", -5, None, 1e-3),
        ("mean.between", 1.1, 0.9, 1.1),
    ],
)
def test_passes_and_prints_one_line(capsys, name, value, low, high):
    check(name, value, low, high)
    printed = capsys.readouterr().out
    assert printed.startswith(f"check {name}: ") and printed.count("\n") == 1
    assert outcomes()[name].claim in printed


def test_the_line(capsys):
    check("mean.gain", 0.4321, 0.2)
    claim = "the network is better than bicubic by at least 0.2 dB"
    expected = f"check mean.gain: 0.4321, at least 0.2 as claimed: {claim}\n"
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize("value", [0.1999, -1.0, math.nan, torch.tensor(float("nan"))])
def test_fails_outside_and_for_nan(value):
    with pytest.raises(AssertionError, match=r"mean.gain: .* is not at least 0.2.*better than bicubic"):
        check("mean.gain", value, 0.2)


def test_refuses_unlisted_names_and_other_bounds():
    with pytest.raises(ValueError, match=r"no outcome named 'mean.typo' in outcomes/mean.yml"):
        check("mean.typo", 1.0, 0.2)
    with pytest.raises(ValueError, match=r"no outcome named 'typo.gain' in outcomes/typo.yml"):
        check("typo.gain", 1.0, 0.2)
    with pytest.raises(ValueError, match=r"cell says at least 0\.1, outcomes/mean\.yml says at least 0\.2"):
        check("mean.gain", 1.0, 0.1)
    with pytest.raises(ValueError, match="cell says from -inf to inf"):
        check("mean.gain", 1.0)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("a.b: 3", "needs chapter and claim"),
        ("a.b: {chapter: one, low: 0}", "needs chapter and claim"),
        ("a.b: {chapter: one, claim: x, low: 0, hihg: 1}", "needs chapter and claim"),
        ("a.b: {chapter: one, claim: x}", "excludes nothing"),
        ("a.b: {chapter: one, claim: x, low: 2, high: 1}", "excludes nothing or everything"),
        ("a.b: {chapter: 7, claim: x, low: 2}", "chapter must be a name"),
        ("a.b: {chapter: one, claim: ' ', low: 2}", "claim a sentence"),
    ],
)
def test_bad_lists_name_the_entry(tmp_path, entry, message):
    path = tmp_path / "a.yml"
    path.write_text(entry)
    with pytest.raises(ValueError, match=rf"a.yml, entry 'a.b'.*{message}"):
        read_outcomes(path)


def test_a_claim_depends_on_its_own_file(listed, capsys):
    (listed / "problem.yml").write_text("not: a list")
    check("mean.gain", 1.0, 0.2)
    with pytest.raises(ValueError, match=r"entry 'not'.*is for names that begin with problem\."):
        outcomes()
