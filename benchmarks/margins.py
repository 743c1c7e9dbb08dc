"""Run the chapters over seeds and arithmetics, and record how far each claimed outcome stays from its bound.

    python -m benchmarks.margins                            every chapter: three seeds, two arithmetics
    python -m benchmarks.margins 05 11 --seeds 0 1 2 3 4     two chapters, five seeds
    python -m benchmarks.margins --budget full --seeds 0 --arithmetics own

A seed k adds 1000 k to every seed of a chapter (`manual_seed`, the trainer's, the patches'). A line with the comment
`# a fixed seed: WHY` keeps its own. Values are recorded, not judged, so that one failure hides no other.

After code was rewritten that computes what it did, `--rewritten` runs the first seed of each changed chapter alone. A
training answers to rounding, as it does to another arithmetic, so its values move within their deviation over seeds and
arithmetics. If none moves by more than two deviations, the other runs are kept, with a note of how far one moved.

Runs are kept in srbook/results/margins.json with their machine, and the book shows them beside the claims. A run that
is there for the same code, machine, seed, and arithmetic is not made again. The command fails where a bound is crossed
or lies closer than three standard deviations.
"""

import argparse
import ast
import concurrent.futures
import datetime
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev
from typing import Any

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from benchmarks.provenance import commit, cpu_model
from srbook.budget import BUDGETS
from srbook.files import atomic_path
from srbook.study.margins import WANTED, margins

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RESULT = ROOT / "srbook" / "results" / "margins.json"
FIXED = "# a fixed seed:"
KEPT = 2.0  # deviations over seeds and arithmetics: as far as rewritten code may move a value
STRIDE = 1000  # between seeds, so that `for seed in range(3)` shares no draw with the next
SEEDED = ("TrainingConfig", "PairedPatches", "LabeledPatches")  # take `seed=`, 0 by default
ARITHMETICS = {
    "own": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE"},
    "plain": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
}
RECORDER = """\
import json, os, torch
from srbook.accel import bf16_units

def _record(name, value):
    with open(os.environ["MARGINS_FILE"], "a", encoding="utf-8") as file:
        file.write(json.dumps([name, value if isinstance(value, str) else float(value)]) + "\\n")

_record("training", bf16_units(torch.device("cpu")) or "float32")
"""
LAST = '_record("cpu_seconds", __import__("time").process_time())'


@dataclass(frozen=True)
class Job:
    """One execution of a chapter."""

    notebook: Path
    seed: int
    arithmetic: str
    budget: str

    @property
    def chapter(self) -> str:
        return self.notebook.stem

    def __str__(self) -> str:
        return f"{self.chapter}, seed {self.seed}, {self.arithmetic}, {self.budget}"


class _Reseed(ast.NodeTransformer):
    """Moves seeds, and turns checks into records."""

    def __init__(self, shift: int, fixed: set[int]):
        self.shift, self.fixed = shift, fixed

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name == "check":
            return ast.Call(ast.Name("_record", ast.Load()), node.args[:2], [])
        if node.lineno in self.fixed or not self.shift:
            return node
        if name == "manual_seed":
            node.args = [self._moved(node.args[0])]
        if name in SEEDED:
            own = [keyword.value for keyword in node.keywords if keyword.arg == "seed"] or [ast.Constant(0)]
            others = [keyword for keyword in node.keywords if keyword.arg != "seed"]
            node.keywords = [*others, ast.keyword("seed", self._moved(own[0]))]
        return node

    def _moved(self, seed: ast.expr) -> ast.expr:
        return ast.BinOp(seed, ast.Add(), ast.Constant(self.shift))


def reseeded(source: str, seed: int) -> str:
    """A cell's code with its seeds moved by `STRIDE * seed`, and `check(name, value, ...)` as `_record(name, value)`.

    Raises:
        SyntaxError: it is not Python.
    """
    python = TransformerManager().transform_cell(source)  # what IPython makes of %pip
    fixed = {number for number, line in enumerate(python.splitlines(), 1) if FIXED in line}
    tree = _Reseed(STRIDE * seed, fixed).visit(ast.parse(python))
    return ast.unparse(ast.fix_missing_locations(tree))


def code_of(notebook: Path, seed: int) -> list[str]:
    """The code cells of a notebook, reseeded."""
    cells = nbformat.read(notebook, as_version=4).cells
    return [reseeded(cell.source, seed) for cell in cells if cell.cell_type == "code"]


def key(notebook: Path) -> str:
    """A hash of a chapter's code, without the bounds of its checks: a bound may move and the runs stay true."""
    return hashlib.sha256("\n".join(code_of(notebook, 0)).encode()).hexdigest()[:16]


def execute(job: Job) -> dict[str, Any]:
    """Run a chapter on one thread; the values of its checks as far as it came, and the error that ended it."""
    origin = {"commit": commit(), "key": key(job.notebook)}  # before the run: files may change during it
    cells = [nbformat.v4.new_code_cell(code) for code in [RECORDER, *code_of(job.notebook, job.seed), LAST]]
    with tempfile.TemporaryDirectory() as folder:
        values = Path(folder) / "values.jsonl"
        values.touch()
        own = {"MARGINS_FILE": str(values), "SRBOOK_BUDGET": job.budget, "SRBOOK_STATIC": "1", "OMP_NUM_THREADS": "1"}
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, **ARITHMETICS[job.arithmetic], **own, "PYTHONPATH": path}
        client = NotebookClient(
            nbformat.v4.new_notebook(cells=cells),
            timeout=3600,
            kernel_name="python3",
            resources={"metadata": {"path": str(job.notebook.parent)}},
        )
        error = {}
        try:
            client.execute(env=environment, stderr=subprocess.DEVNULL)
        except CellExecutionError as failed:
            error = {"error": f"{failed.ename}: {failed.evalue}"}
        except (CellTimeoutError, DeadKernelError) as failed:
            error = {"error": f"{type(failed).__name__}: {failed}"}
        found = dict(json.loads(line) for line in values.read_text(encoding="utf-8").splitlines())
    return {
        "chapter": job.chapter,
        "seed": job.seed,
        "arithmetic": job.arithmetic,
        "budget": job.budget,
        "processor": cpu_model(),
        "training": found.pop("training", "unknown"),
        "cpu_seconds": round(found.pop("cpu_seconds", 0)),
        "date": datetime.date.today().isoformat(),
        **origin,
        **error,
        "values": found,
    }


def known_runs() -> list[dict[str, Any]]:
    """The stored runs of chapters as they are now."""
    runs = json.loads(RESULT.read_text(encoding="utf-8"))["runs"] if RESULT.is_file() else []
    keys = {path.stem: key(path) for path in NOTEBOOKS}
    return [run for run in runs if keys.get(run["chapter"]) == run["key"]]


def keep(runs: list[dict[str, Any]], fresh: dict[str, Any]) -> str:
    """Let a chapter's stored runs count for its rewritten code, if that gives the values of the run that it replaces.

    Args:
        runs: all runs of the chapter under its former code; changed in place.
        fresh: a run of the present code, at the place of one of them.

    Returns:
        Why not, or nothing.
    """
    former = next((run for run in runs if place(run) == place(fresh)), None)
    if former is None or "error" in fresh:
        return fresh.get("error", "no stored run of this processor, seed, arithmetic, and budget to compare with")
    if former["values"].keys() != fresh["values"].keys():
        return f"other outcomes: {', '.join(sorted(former['values'].keys() ^ fresh['values'].keys()))}"
    moved = {}
    for name, value in fresh["values"].items():
        values = [run["values"][name] for run in runs if run["budget"] == fresh["budget"]]
        spread = stdev(values) if len(values) > 1 else 0.0
        moved[name] = abs(value - former["values"][name]) / max(spread, 1e-6 * abs(value), 1e-12)
    farthest = max(moved, key=moved.get)
    if moved[farthest] > KEPT:
        return f"{farthest} moved by {moved[farthest]:.2f} deviations"
    for run in runs:
        run["rewritten"] = {"commit": fresh["commit"], "moved": round(moved[farthest], 4)}
        run["key"] = fresh["key"]
    runs[runs.index(former)] = fresh
    return ""


def rewritten(chosen: list[Path], jobs: int) -> int:
    """Run the first seed of every chapter whose code has changed, and keep its other runs where that is right."""
    stored = json.loads(RESULT.read_text(encoding="utf-8"))["runs"]
    by_chapter = {path: [run for run in stored if run["chapter"] == path.stem] for path in NOTEBOOKS}
    changed = [path for path in chosen if any(run["key"] != key(path) for run in by_chapter[path])]
    print(f"{len(changed)} chapters were rewritten")
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        pending = {pool.submit(execute, Job(path, 0, "own", "quick")): path for path in changed}
        for done in concurrent.futures.as_completed(pending):
            path, fresh = pending[done], done.result()
            why = keep(by_chapter[path], fresh)
            failed += bool(why)
            print(f"{path.stem}: {why or 'the runs are kept'}", flush=True)
            store([run for runs in by_chapter.values() for run in runs])
    return 1 if failed else 0


def place(run: dict[str, Any]) -> tuple[Any, ...]:
    """What a new run of the same place replaces."""
    return tuple(run[name] for name in ("chapter", "budget", "processor", "arithmetic", "seed"))


def store(runs: list[dict[str, Any]]) -> None:
    """Write the result file: one line a run, so that changes can be read."""
    lines = ",\n".join(json.dumps(run) for run in sorted(runs, key=place))
    command = "python -m benchmarks.margins"
    with atomic_path(RESULT) as temporary:
        temporary.write_text(f'{{"command": {json.dumps(command)}, "runs": [\n{lines}\n]}}\n', encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.margins", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("chapters", nargs="*", help="beginnings of the chapters' file names (default all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="(default 0 1 2)")
    parser.add_argument("--arithmetics", nargs="+", choices=ARITHMETICS, default=["own", "avx2"], help="(default both)")
    parser.add_argument("--budget", choices=BUDGETS, default="quick")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="chapters at once (default one a core)")
    parser.add_argument("--again", action="store_true", help="make runs that are there already, too")
    parser.add_argument("--rewritten", action="store_true", help="keep the runs of code that computes what it did")
    arguments = parser.parse_args()
    chosen = [path for path in NOTEBOOKS if not arguments.chapters or path.stem.startswith(tuple(arguments.chapters))]
    if not chosen:
        parser.error(
            f"no chapter begins with {' or '.join(arguments.chapters)}; there are {[p.stem for p in NOTEBOOKS]}"
        )
    if arguments.rewritten:
        return rewritten(chosen, arguments.jobs)
    jobs = [
        Job(path, seed, arithmetic, arguments.budget)
        for seed in arguments.seeds
        for arithmetic in arguments.arithmetics
        for path in chosen
    ]
    runs = {place(run): run for run in known_runs()}
    there = {where for where, run in runs.items() if "error" not in run and not arguments.again}
    wanted = [job for job in jobs if (job.chapter, job.budget, cpu_model(), job.arithmetic, job.seed) not in there]
    print(f"{len(wanted)} runs to make, {len(jobs) - len(wanted)} are there")
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        pending = {pool.submit(execute, job): job for job in wanted}
        for number, done in enumerate(concurrent.futures.as_completed(pending), 1):
            run = done.result()
            runs[place(run)] = run
            store(list(runs.values()))  # after each, so that an interrupted study goes on
            how = f"{run.get('error', 'done')} in {run['cpu_seconds']} s of one core"
            print(f"{number} of {len(wanted)}: {pending[done]}: {how}", flush=True)
    failed = [run for run in runs.values() if "error" in run]
    near = [margin for margin in margins(list(runs.values())) if margin.deviations < WANTED]
    for margin in near:
        print(margin)
    return 1 if near or failed else 0


if __name__ == "__main__":
    sys.exit(main())
