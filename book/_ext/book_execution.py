"""Executed chapters are cached by what they depend on: the notebook, the pins, budget, arithmetic, and what it uses.

jupyter-cache knows the notebook only. Pins, budget, and arithmetic are part of its folder's name. Each record holds the
files of srbook that the notebook used (kernel_uses.py asks the kernel) as they were before it ran; where one has
changed, the record goes. Three programs fill the same folder: `book/execute_chapters.py`, which runs chapters side by
side, `notebooks/conftest.py` from a passing test run, and else the book's own build.
"""

import ast
import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.config import Config

# Environment variables that change how sums and products round.
ARITHMETIC = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR")

# What chapters took on one core, in seconds: their order where nothing has run yet. It need not be exact.
USUAL_SECONDS = {
    "01-the-problem": 20,
    "02-predicting-the-mean": 75,
    "03-diffusion-from-the-elbo": 65,
    "04-scores-and-flows": 42,
    "05-one-path": 31,
    "06-sr3": 110,
    "07-diffuse-the-residual": 76,
    "08-ecdp-hybrid": 60,
    "09-ecdp-quality": 63,
    "10-entropy": 61,
    "11-esrdf": 84,
    "12-resshift": 60,
    "13-deltadiff": 30,
    "14-irsde": 33,
    "15-sinsr": 50,
    "16-hf-diff": 25,
}


def execution_key(root: Path, budget: str) -> str:
    """Name of the cache folder: budget, arithmetic, and a hash of the pins of the checkout `root`."""
    return f"{budget}{_arithmetic()}-{_hash((root / 'constraints.txt').read_bytes())}"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def snapshot(root: Path) -> dict[str, str]:
    """A hash of every file of srbook by its path below `root`, and of every folder.

    A folder's is that of its files' names without Python's: to import a module is to list folders, and a new module
    changes nothing for those who do not use it.
    """
    paths = [root / "srbook", *(root / "srbook").rglob("*")]
    return {p.relative_to(root).as_posix(): _state(p) for p in paths if "__pycache__" not in p.parts}


def _state(path: Path) -> str:
    if path.is_dir():
        names = sorted(file.name for file in path.iterdir() if file.is_file() and file.suffix != ".py")
        return _hash("\n".join(names).encode())
    return _hash(path.read_bytes())


def uses(reply: Mapping[str, Any], root: Path, before: Mapping[str, str]) -> dict[str, str]:
    """What a notebook used, from the kernel's answer to `kernel_uses.USED`, as it was in the snapshot `before`.

    Raises:
        RuntimeError: the kernel has not the package of the checkout `root`.
    """
    found = json.loads(ast.literal_eval(reply["content"]["user_expressions"]["uses"]["data"]["text/plain"]))
    if found["root"] and Path(found["root"]) != root.resolve():
        raise RuntimeError(f"the kernel imports srbook from {found['root']}, not from {root}")
    return {path: before.get(path, "absent") for path in found["paths"]}


def _arithmetic() -> str:
    """Nothing in the machine's own arithmetic, else a short hash of what was set."""
    settings = " ".join(f"{name}={os.environ[name]}" for name in ARITHMETIC if os.environ.get(name))
    return f".{hashlib.sha256(settings.encode()).hexdigest()[:8]}" if settings else ""


def cache_folder(root: Path) -> Path:
    """Where executed notebooks of the checkout `root` are kept for the budget in force."""
    from srbook.budget import current_budget

    return root / "_build" / ".jupyter_cache" / execution_key(root, current_budget())


def _siblings(folder: Path) -> list[Path]:
    """The caches of the same budget and arithmetic as `folder`, which may be among them."""
    return sorted(folder.parent.glob(f"{folder.name.split('-')[0]}-*"))


def open_cache(root: Path) -> tuple[JupyterCacheAbstract, dict[str, float]]:
    """The executed notebooks that still hold, without all others, and what each chapter took when it last ran."""
    folder = cache_folder(root)
    seconds = last_seconds(folder)
    for path in _siblings(folder):
        if path != folder:
            shutil.rmtree(path)
    cache, now = get_cache(folder), snapshot(root)
    for record in cache.list_cache_records():
        used = record.data.get("uses", {"": "unknown"})
        if any(now.get(path, "absent") != state for path, state in used.items()):
            with contextlib.suppress(KeyError):  # another program was faster
                cache.remove_cache(record.pk)
    return cache, seconds


def keep(cache: JupyterCacheAbstract, path: Path, notebook: NotebookNode, seconds: float, used: dict[str, str]) -> None:
    """Store an executed notebook: where it lies, what it took, and what it used (see `uses`)."""
    bundle = CacheBundleIn(notebook, str(path), data={"execution_seconds": seconds, "uses": used})
    cache.cache_notebook_bundle(bundle, overwrite=True)


def last_seconds(folder: Path) -> dict[str, float]:
    """What each chapter took when it last ran: in `folder`, in the caches that it follows, or usually."""
    seconds = dict(USUAL_SECONDS)
    records = [record for path in _siblings(folder) for record in get_cache(path).list_cache_records()]
    for record in sorted(records, key=lambda record: record.created):
        seconds[Path(record.uri).stem] = record.data["execution_seconds"]
    return seconds


def longest_first(names: Iterable[str], seconds: dict[str, float]) -> list[str]:
    """The order that keeps all cores busy to the end; a chapter of which nothing is known may be long."""
    return sorted(names, key=lambda name: (-seconds.get(name, float("inf")), name))


def prepare_kernels(side_by_side: int = 1) -> None:
    """Set what the kernels inherit: output that lives without them, and threads that leave the cores to others.

    PyTorch's threads wait by spinning: beside another busy process a step on all cores can take 40 times as long.
    A kernel among others has one thread; a kernel alone leaves one core free, if `OMP_NUM_THREADS` does not say more.
    """
    os.environ["SRBOOK_STATIC"] = "1"
    if side_by_side > 1:
        os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) - 1)))


def _use_cache(app: Sphinx, config: Config) -> None:
    # Before myst-nb reads it. Either value, when it changes, makes Sphinx read every page again.
    root = Path(app.confdir)
    open_cache(root)
    config["nb_execution_cache_path"] = str(cache_folder(root))
    config["book_snapshot"] = snapshot(root)


def _complete(app: Sphinx, exception: Exception | None) -> None:
    """Of a notebook that myst-nb ran we know only that it may use the whole package."""
    cache = get_cache(app.config["nb_execution_cache_path"])
    for record in cache.list_cache_records():
        if "uses" not in record.data:
            notebook = cache.get_cache_bundle(record.pk).nb
            seconds = record.data["execution_seconds"]
            keep(cache, Path(record.uri), notebook, seconds, app.config["book_snapshot"])


def setup(app: Sphinx) -> dict[str, bool]:
    prepare_kernels()
    app.add_config_value("book_snapshot", {}, "env", dict)
    app.connect("config-inited", _use_cache)
    app.connect("build-finished", _complete)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
