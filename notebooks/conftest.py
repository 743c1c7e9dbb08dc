"""What the book and the tests share: a notebook that passes here is not executed again by the book's build.

nbval runs every cell. When all cells of a notebook have passed, their outputs go into the cache that the book
reads (see book/_ext/book_execution.py for its name).
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from book_execution import cache_folder, prepare_kernels, remove_outdated  # noqa: E402

STARTED = pytest.StashKey[float]()
PASSED = pytest.StashKey[int]()


def pytest_configure() -> None:
    prepare_kernels()  # as in the book's build
    remove_outdated(cache_folder(ROOT))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    notebook = item.parent
    notebook.stash.setdefault(STARTED, time.perf_counter())
    yield  # raises when the cell fails; then the count below never becomes complete
    item.cell.outputs = [as_stored(output) for output in item.test_outputs]
    item.cell.execution_count = notebook.stash[PASSED] = notebook.stash.get(PASSED, 0) + 1
    cells = [cell for cell in notebook.nb.cells if cell.cell_type == "code"]
    if notebook.stash[PASSED] == len(cells):
        keep(notebook.path, notebook.nb, time.perf_counter() - notebook.stash[STARTED])


def as_stored(output: NotebookNode) -> NotebookNode:
    """An output in the form of a notebook file; nbval leaves an empty `metadata` out of some."""
    if output.output_type in ("display_data", "execute_result"):
        output.setdefault("metadata", NotebookNode())
    return output


def keep(path: Path, notebook: NotebookNode, seconds: float) -> None:
    """Put an executed notebook into the book's cache, with the note on its language that execution leaves."""
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    bundle = CacheBundleIn(notebook, str(path), data={"execution_seconds": seconds})
    get_cache(cache_folder(ROOT)).cache_notebook_bundle(bundle, overwrite=True)
