"""Chapter outcomes: the numbers that a chapter claims, asserted where it computes them.

The folder `outcomes`, beside this file, lists every outcome with its claim, chapter, and bounds, a file for each topic.
A chapter repeats the bounds in its cell for the reader; the two must agree.
"""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from srbook.arguments import require_instance, shown

OUTCOMES = Path(__file__).with_name("outcomes")


@dataclass(frozen=True)
class Outcome:
    """One entry of a list.

    Attributes:
        name: "topic.finding", unique in the book; in the file of its topic.
        chapter: that checks it: its file's name without number and ending.
        claim: what the bounds say, in words.
        low: smallest value that supports the claim; -inf for none.
        high: largest value that supports it; inf for none.
    """

    name: str
    chapter: str
    claim: str
    low: float
    high: float


def check(name: str, value: float, low: float | None = None, high: float | None = None) -> None:
    """Fail the cell unless `value` supports the claim `name`; otherwise print one line.

    Args:
        name: an outcome's name.
        value: what was computed: a number, or a tensor or array that holds one.
        low, high: smallest and largest value allowed; None for no bound.

    Raises:
        ValueError: the name is not listed, or the bounds differ from the list.
        TypeError: the value or a bound is not a number.
        AssertionError: the value is outside the bounds, or nan.
    """
    require_instance("name", name, str)
    path = OUTCOMES / f"{name.partition('.')[0]}.yml"  # only this one, since a chapter depends on its claims
    outcome = read_outcomes(path).get(name) if path.is_file() else None
    if outcome is None:
        raise ValueError(f"no outcome named {name!r} in outcomes/{path.name}; add it there, with its claim and bounds")
    bounds = (-math.inf if low is None else _number("low", low), math.inf if high is None else _number("high", high))
    if bounds != (outcome.low, outcome.high):
        raise ValueError(
            f"{name}: the cell says {_interval(*bounds)}, outcomes/{path.name} says "
            f"{_interval(outcome.low, outcome.high)}; make them equal"
        )
    number = _number("value", value)
    found = f"{name}: {number:.4g}"
    if not outcome.low <= number <= outcome.high:  # false for nan too
        raise AssertionError(f"{found} is not {_interval(*bounds)}, so this does not hold here: {outcome.claim}")
    print(f"check {found}, {_interval(*bounds)} as claimed: {outcome.claim}")


def _number(name: str, value: Any) -> float:
    """Whatever `float` takes but text, such as a number of SymPy's."""
    try:
        if not isinstance(value, str):
            return float(value)
    except (TypeError, ValueError, RuntimeError):
        pass
    raise TypeError(f"{name} must be a number, got {shown(value)}")


def outcomes() -> dict[str, Outcome]:
    """All outcomes of the book by name; raises as `read_outcomes`."""
    return {name: outcome for path in sorted(OUTCOMES.glob("*.yml")) for name, outcome in read_outcomes(path).items()}


@cache
def read_outcomes(path: Path) -> dict[str, Outcome]:
    """Read a list of outcomes: a YAML mapping from names to `chapter`, `claim`, and `low` or `high` or both.

    Another entry is a ValueError, which says which and how.
    """
    import yaml

    entries = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return {name: _read(name, entry, path.name) for name, entry in entries.items()}


def _read(name: str, entry: object, file: str) -> Outcome:
    where = f"{file}, entry {name!r}"
    if name.partition(".")[0] != Path(file).stem:
        raise ValueError(f"{where}: the file {file} is for names that begin with {Path(file).stem}.")
    allowed = {"chapter", "claim", "low", "high"}
    if not isinstance(entry, dict) or not {"chapter", "claim"} <= set(entry) <= allowed:
        raise ValueError(f"{where}: needs chapter and claim, and low or high or both; got {entry!r}")
    low, high = float(entry.get("low", -math.inf)), float(entry.get("high", math.inf))
    if not low <= high or (low, high) == (-math.inf, math.inf):
        raise ValueError(f"{where}: {_interval(low, high)} excludes nothing or everything")
    if not isinstance(entry["chapter"], str) or not str(entry["claim"]).strip():
        raise ValueError(f"{where}: chapter must be a name and claim a sentence")
    return Outcome(name, entry["chapter"], str(entry["claim"]).strip(), low, high)


def _interval(low: float, high: float) -> str:
    if low == high:
        return f"exactly {low:.6g}"
    if math.isinf(low) and not math.isinf(high):
        return f"at most {high:.6g}"
    if math.isinf(high) and not math.isinf(low):
        return f"at least {low:.6g}"
    return f"from {low:.6g} to {high:.6g}"
