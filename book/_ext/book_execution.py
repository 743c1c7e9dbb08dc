"""Executed chapters are cached by what they depend on: the notebook, the package, the pins, budget and arithmetic.

jupyter-cache knows the notebook only. Here the rest becomes part of its folder's name, so that a changed
package finds an empty cache. Three programs fill the same folder: `book/execute_chapters.py`, which runs chapters
side by side, `notebooks/conftest.py` from a passing test run, and else the book's own build.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from jupyter_cache import get_cache
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
}


def execution_key(root: Path, budget: str) -> str:
    """Name of the cache folder: budget, arithmetic, and a hash of the package's files and the pins below `root`."""
    digest = hashlib.sha256()
    package = sorted(path for path in (root / "srbook").rglob("*") if path.is_file())
    for path in [root / "constraints.txt", *(path for path in package if path.suffix != ".pyc")]:
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"{budget}{_arithmetic()}-{digest.hexdigest()[:16]}"


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


def remove_outdated(folder: Path) -> list[Path]:
    """Delete the caches beside `folder` that have its budget and arithmetic and another hash; returns them."""
    outdated = [path for path in _siblings(folder) if path != folder]
    for path in outdated:
        shutil.rmtree(path)
    return outdated


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
    # Before myst-nb reads it. Its rebuild level is "env": a new path makes Sphinx read every page again.
    folder = cache_folder(Path(app.confdir))
    remove_outdated(folder)
    config["nb_execution_cache_path"] = str(folder)


def setup(app: Sphinx) -> dict[str, bool]:
    prepare_kernels()
    app.connect("config-inited", _use_cache)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
