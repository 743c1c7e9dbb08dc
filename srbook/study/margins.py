"""How far the outcomes of the chapters stay from their bounds, over seeds and arithmetics."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import stdev
from typing import Any

from srbook.check import Outcome, outcomes

WANTED = 3.0  # standard deviations between the mean of the values and the nearer bound


@dataclass(frozen=True)
class Margin:
    """One outcome of a chapter over several runs.

    Attributes:
        outcome: the claim and its bounds.
        values: what the runs found.
        spread: standard deviation of the values.
        distance: of the mean from the nearer bound, negative beyond it.
    """

    outcome: Outcome
    values: tuple[float, ...]
    spread: float
    distance: float

    @property
    def deviations(self) -> float:
        """The distance in standard deviations; infinite for a value that never changes."""
        if self.distance < 0 or not all(self.outcome.low <= value <= self.outcome.high for value in self.values):
            return -math.inf
        return self.distance / self.spread if self.spread else math.inf

    def __str__(self) -> str:
        low, high = min(self.values), max(self.values)
        return (
            f"{self.outcome.name}: {low:.4g} to {high:.4g} in {len(self.values)} runs, bounds "
            f"[{self.outcome.low:.4g}, {self.outcome.high:.4g}], margin {self.deviations:.1f} standard deviations"
        )


def margins(runs: Iterable[Mapping[str, Any]], budget: str = "quick") -> list[Margin]:
    """The margin of every outcome that at least two runs of a budget found, in the order of `outcomes`.

    Runs are as `benchmarks.margins` stores them: each with its "budget" and its "values" by outcome.
    """
    found: dict[str, list[float]] = {}
    for run in runs:
        if run["budget"] == budget:
            for name, value in run["values"].items():
                found.setdefault(name, []).append(value)
    return [_margin(outcome, found[name]) for name, outcome in outcomes().items() if len(found.get(name, [])) > 1]


def _margin(outcome: Outcome, values: list[float]) -> Margin:
    mean = math.fsum(values) / len(values)
    spread = 0.0 if len(set(values)) == 1 else stdev(values)
    return Margin(outcome, tuple(values), spread, min(mean - outcome.low, outcome.high - mean))
