"""Budgets of live cells, and stored results."""

import pytest

from srbook.budget import current_budget, pick
from srbook.results import stored_result, stored_results


@pytest.mark.parametrize(("word", "expected"), [(None, 1), ("", 1), ("quick", 1), ("full", 2), ("gpu", 3)])
def test_pick_follows_the_variable(monkeypatch, word, expected):
    monkeypatch.delenv("SRBOOK_BUDGET", raising=False)
    if word is not None:
        monkeypatch.setenv("SRBOOK_BUDGET", word)
    assert pick(quick=1, full=2, gpu=3) == expected


def test_other_words_are_refused(monkeypatch):
    monkeypatch.setenv("SRBOOK_BUDGET", "fast")
    with pytest.raises(ValueError, match="'fast' is not known; use one of quick, full, gpu"):
        current_budget()


def test_stored_results_are_found_by_name():
    assert "protocols" in stored_results()
    assert stored_result("protocols")
    with pytest.raises(ValueError, match=r"no stored result 'x'; there are .*protocols"):
        stored_result("x")
