"""Execute the chapters that changed, side by side, into the cache that the book's pages are built from.

    python book/execute_chapters.py [--jobs N]

A chapter is stored as soon as it is done. One that fails is reported with its cell, the others go on, and the exit
status is 1.
"""

import argparse
import multiprocessing
import re
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import nbformat
import yaml
from jupyter_cache.base import JupyterCacheAbstract
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

COLORS = re.compile(r"\x1b\[[0-9;]*m")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from book_execution import keep, longest_first, open_cache, prepare_kernels, snapshot, uses  # noqa: E402
from kernel_uses import USED, WATCH  # noqa: E402


def main(jobs: int) -> int:
    """Execute what changed, `jobs` chapters at once; returns the exit status."""
    cache, seconds = open_cache(ROOT)
    chapters = {path.stem: path for path in (ROOT / "notebooks").glob("*.ipynb")}
    changed = longest_first((name for name, path in chapters.items() if not is_cached(cache, path)), seconds)
    if not changed:
        print(f"{len(chapters)} chapters, none changed")
        return 0
    jobs = min(jobs, len(changed))
    print(f"{len(chapters)} chapters, {len(changed)} to execute, {jobs} at once", flush=True)
    timeout = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["execute"]["timeout"]
    prepare_kernels(jobs)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    failed = []
    # Processes and not threads: nbclient wants the main thread to end its kernel when it is interrupted.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(execute, chapters[name], timeout): name for name in changed}
        try:
            for future in as_completed(running):
                name = running[future]
                notebook, took, used, problem = future.result()
                if problem:
                    failed.append(name)
                    print(f"{name}: failed after {took:.0f} s {problem}\n", end="", flush=True)
                else:
                    keep(cache, chapters[name], notebook, took, used)
                    print(f"{name}: done in {took:.0f} s\n", end="", flush=True)
        except BaseException as stop:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.kill()  # its kernel sees that and ends
            if isinstance(stop, KeyboardInterrupt):
                print("interrupted; the chapters that were done are kept")
                return 130
            raise
    if failed:
        print(f"{len(failed)} of {len(changed)} chapters failed: {', '.join(sorted(failed))}")
    return 1 if failed else 0


def is_cached(cache: JupyterCacheAbstract, path: Path) -> bool:
    """Whether the cache holds the outputs of this notebook's code."""
    try:
        cache.merge_match_into_notebook(nbformat.read(path, nbformat.NO_CONVERT))
    except KeyError:
        return False
    return True


def execute(path: Path, timeout: int) -> tuple[NotebookNode, float, dict[str, str], str]:
    """Run a notebook in a kernel of its own.

    Returns:
        The notebook with its outputs, the seconds that it took, what it used, and what went wrong in which cell, or "".
    """
    print(f"{path.stem}: started\n", end="", flush=True)  # one write: others print too
    notebook = nbformat.read(path, nbformat.NO_CONVERT)
    begun: list[int] = []
    before, used = snapshot(ROOT), {}

    async def watch(notebook: NotebookNode) -> None:
        await client.kc.execute(WATCH, silent=True, reply=True)

    async def ask(**_: Any) -> None:
        reply = await client.kc.execute("", silent=True, user_expressions={"uses": USED}, reply=True)
        used.update(uses(reply, ROOT, before))

    client = NotebookClient(
        notebook,
        timeout=timeout,
        record_timing=False,
        extra_arguments=["--log-level=CRITICAL"],  # no word about TCP, or about the interrupt that ends a kernel
        resources={"metadata": {"path": str(path.parent)}},
        on_notebook_start=watch,
        on_cell_execute=lambda cell, cell_index: begun.append(cell_index),
        on_cell_executed=ask,
    )
    start, problem = time.perf_counter(), ""
    try:
        client.execute()
    except Exception as error:  # whatever it is, it belongs to this chapter
        text = str(error) if isinstance(error, CellExecutionError) else f"{type(error).__name__}: {error}"
        problem = f"in code cell {len(begun)}\n{COLORS.sub('', text).rstrip()}"
    return notebook, time.perf_counter() - start, used, problem


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="chapters at once")
    sys.exit(main(parser.parse_args().jobs))
