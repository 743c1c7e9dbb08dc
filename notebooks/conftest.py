"""What the book and the tests share: a notebook that passes here is not executed again by the book's build.

nbval runs every cell. When all cells of a notebook have passed, their outputs go into the cache that the book
reads (see book/_ext/book_execution.py for its name). Several notebooks run at once under pytest-xdist, the longest
first: `pytest -n 2 --dist loadfile --no-loadscope-reorder --nbval-lax notebooks`.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_cache import get_cache
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from book_execution import cache_folder, keep, longest_first, open_cache, prepare_kernels, snapshot, uses  # noqa: E402
from kernel_uses import USED, WATCH  # noqa: E402

SECONDS = pytest.StashKey[dict[str, float]]()
STARTED = pytest.StashKey[float]()
BEFORE = pytest.StashKey[dict[str, str]]()
PASSED = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    worker = getattr(config, "workerinput", None)  # there in a process of pytest-xdist
    prepare_kernels(worker["workercount"] if worker else 1)  # as in the book's build
    if worker:
        config.stash[SECONDS] = worker["seconds"]
        return
    # This makes the database, which two workers could not do at once.
    _, config.stash[SECONDS] = open_cache(ROOT)


@pytest.hookimpl(optionalhook=True)  # there is none without pytest-xdist
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist what the main process read before it removed outdated caches."""
    node.workerinput["seconds"] = node.config.stash[SECONDS]


def pytest_sessionstart(session: pytest.Session) -> None:
    if reporter := session.config.pluginmanager.getplugin("terminalreporter"):  # the main process has one
        session.config.pluginmanager.register(Progress(reporter))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the notebooks that take longest first; the order of their cells stays."""
    order = longest_first({item.path.stem for item in items}, config.stash[SECONDS])
    items.sort(key=lambda item: order.index(item.path.stem))


class Progress:
    """A line when a chapter starts, one when it is done, and one at its first cell that fails."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self.reporter, self.started, self.failed = reporter, set[str](), set[str]()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        name = chapter(nodeid)
        if name not in self.started:
            self.started.add(name)
            self.reporter.write_line(f"{name}: started")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = chapter(report.nodeid)
        if report.failed and name not in self.failed:
            self.failed.add(name)
            self.reporter.write_line(f"{name}: failed in {report.nodeid.split('::')[1]}")
        for _, seconds in report.user_properties if report.when == "call" else []:
            self.reporter.write_line(f"{name}: done in {seconds:.0f} s")


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Count cells that pass without a dot for each."""
    return ("passed", "", "") if report.when == "call" and report.passed else None


def chapter(nodeid: str) -> str:
    """The name of the notebook in `notebooks/01-x.ipynb::Cell 0`."""
    return Path(nodeid.split("::")[0]).stem


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    notebook = item.parent
    if STARTED not in notebook.stash:
        notebook.stash[STARTED], notebook.stash[BEFORE] = time.perf_counter(), snapshot(ROOT)
        notebook.kernel.kc.execute(WATCH, silent=True, reply=True)
    yield  # raises when the cell fails; then the count below never becomes complete
    item.cell.outputs = [as_stored(output) for output in item.test_outputs]
    item.cell.execution_count = notebook.stash[PASSED] = notebook.stash.get(PASSED, 0) + 1
    cells = [cell for cell in notebook.nb.cells if cell.cell_type == "code"]
    if notebook.stash[PASSED] == len(cells):
        seconds = time.perf_counter() - notebook.stash[STARTED]
        reply = notebook.kernel.kc.execute("", silent=True, user_expressions={"uses": USED}, reply=True)
        # A note on the language that execution leaves and nbval does not.
        notebook.nb.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
        used = uses(reply, ROOT, notebook.stash[BEFORE])
        keep(get_cache(cache_folder(ROOT)), notebook.path, notebook.nb, seconds, used)
        item.user_properties.append(("seconds", seconds))


def as_stored(output: NotebookNode) -> NotebookNode:
    """An output in the form of a notebook file; nbval leaves an empty `metadata` out of some."""
    if output.output_type in ("display_data", "execute_result"):
        output.setdefault("metadata", NotebookNode())
    return output
