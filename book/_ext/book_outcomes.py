"""The directive `outcomes`: every claim of the chapters beside what the study of margins found."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jupytext
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from srbook.check import OUTCOMES, Outcome
from srbook.results import stored_result
from srbook.study.margins import Margin, margins


def tables(runs: Sequence[dict[str, Any]], titles: Mapping[str, str]) -> list[str]:
    """Lines of MyST: a heading and a table for each chapter that has runs; `titles` by the chapters' file names."""
    lines: list[str] = []
    for chapter in sorted({run["chapter"] for run in runs}):
        own = [run for run in runs if run["chapter"] == chapter]
        full = {name: value for run in own if run["budget"] == "full" for name, value in run["values"].items()}
        lines += [f"## {titles[chapter]}", "", f"{{doc}}`/notebooks/{chapter}`. {_made(own)}", ""]
        lines += ["| claim | allowed | found at `quick` | spread | margin | at `full` |", "|---|---|---|---|---|---|"]
        lines += [_row(margin, full.get(margin.outcome.name)) for margin in margins(own)]
        lines.append("")
    return lines


def _made(runs: Sequence[dict[str, Any]]) -> str:
    """What the runs of a chapter were made on."""
    parts = []
    for processor in sorted({run["processor"] for run in runs}):
        ways = sorted({f"{run['arithmetic']} ({run['training']})" for run in runs if run["processor"] == processor})
        parts.append(f"{processor}: {', '.join(ways)}")
    seeds = sorted({run["seed"] for run in runs if run["budget"] == "quick"})
    changed = {True: " with changes", False: ""}
    commits = ", ".join(sorted({f"`{run['commit'][:10]}`{changed['+' in run['commit']]}" for run in runs}))
    last = max(run["date"] for run in runs)
    return f"Seeds {', '.join(map(str, seeds))} on {'; '.join(parts)}. Commits {commits}, last on {last}."


def _row(margin: Margin, full: float | None) -> str:
    low, high = min(margin.values), max(margin.values)
    found = " to ".join(dict.fromkeys((f"{low:.4g}", f"{high:.4g}")))
    far = f"{margin.deviations:.1f}" if margin.deviations < 100 else "over 100"
    far = "never changes" if math.isinf(margin.deviations) else f"{far} deviations"
    cells = [margin.outcome.claim.replace("|", r"\|"), allowed(margin.outcome), found, f"{margin.spread:.2g}", far]
    return f"| {' | '.join(cells)} | {'' if full is None else f'{full:.4g}'} |"


def allowed(outcome: Outcome) -> str:
    """The bounds in a few words."""
    if outcome.low == outcome.high:
        return f"{outcome.low:.4g}"
    if math.isinf(outcome.high):
        return f"at least {outcome.low:.4g}"
    return f"at most {outcome.high:.4g}" if math.isinf(outcome.low) else f"{outcome.low:.4g} to {outcome.high:.4g}"


class OutcomesDirective(SphinxDirective):
    """All chapters' tables."""

    def run(self) -> list[nodes.Node]:
        for path in OUTCOMES.glob("*.yml"):
            self.env.note_dependency(str(path))
        self.env.note_dependency(str(OUTCOMES.parent / "results" / "margins.json"))
        parent, runs = nodes.section(), stored_result("margins")["runs"]
        titles = {run["chapter"]: self._title(run["chapter"]) for run in runs}
        self.state.nested_parse(StringList(tables(runs, titles)), self.content_offset, parent, match_titles=True)
        return parent.children

    def _title(self, chapter: str) -> str:
        """The first heading of a chapter, in words that a list of contents can show."""
        path = Path(self.env.doc2path(f"notebooks/{chapter}"))
        self.env.note_dependency(str(path))
        lines = jupytext.read(path).cells[0].source.splitlines()
        return next(line.removeprefix("# ") for line in lines if line.startswith("# "))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("outcomes", OutcomesDirective)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
