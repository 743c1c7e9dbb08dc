"""No malformed call passes in silence, and all but a few are refused by an error that says what is wrong."""

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.attack import calls


@pytest.mark.parametrize("part", calls.PARTS, ids=lambda part: part.__name__.removeprefix("of_"))
def test_malformed_calls_are_refused_clearly(part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SRBOOK_STATIC", "1")
    verdicts = {attempt.name: attempt.run(tmp_path) for case in part() for attempt in case.attempts()}
    counts = Counter(verdicts.values())
    assert [name for name, verdict in verdicts.items() if verdict not in ("clear", "survived", "unclear")] == []
    unclear = [name for name, verdict in verdicts.items() if verdict == "unclear"]
    assert len(unclear) <= 0.05 * (counts["clear"] + counts["unclear"]), unclear


def test_there_are_many_and_no_two_alike():
    names = [attempt.name for attempt in calls.attempts()]
    assert len(names) > 2500
    assert len(set(names)) == len(names)
