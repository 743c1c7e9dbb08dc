"""Executed chapters are cached by what they depend on: the notebook, the package, the pins, and the budget.

jupyter-cache knows the notebook only. Here the rest becomes part of its folder's name, so that a changed
package finds an empty cache. `notebooks/conftest.py` fills the same folder from a passing test run.
"""

import hashlib
import os
import shutil
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config


def execution_key(root: Path, budget: str) -> str:
    """Name of the cache folder: the budget, and a hash of the package's files and the pins below `root`."""
    digest = hashlib.sha256()
    package = sorted(path for path in (root / "srbook").rglob("*") if path.is_file())
    for path in [root / "constraints.txt", *(path for path in package if path.suffix != ".pyc")]:
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"{budget}-{digest.hexdigest()[:16]}"


def cache_folder(root: Path) -> Path:
    """Where executed notebooks of the checkout `root` are kept for the budget in force."""
    from srbook.budget import current_budget

    return root / "_build" / ".jupyter_cache" / execution_key(root, current_budget())


def remove_outdated(folder: Path) -> list[Path]:
    """Delete the caches beside `folder` that have its budget and another hash; returns them."""
    budget = folder.name.split("-")[0]
    outdated = [path for path in folder.parent.glob(f"{budget}-*") if path != folder]
    for path in outdated:
        shutil.rmtree(path)
    return outdated


def prepare_kernels() -> None:
    """Set what the kernels inherit: output that lives without them, and threads that leave one core to others.

    PyTorch's threads wait by spinning. Beside another busy process a step on all cores can take 40 times as long.
    """
    os.environ["SRBOOK_STATIC"] = "1"
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
