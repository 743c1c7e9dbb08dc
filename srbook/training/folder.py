"""The folder of a run: who writes it, what lies there, and what is cleared away."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from srbook.files import clear_temporary
from srbook.parts import require
from srbook.training.checkpoint import delete_checkpoints, set_aside

LOG, WEIGHTS, VALIDATION = "log.jsonl", "weights.safetensors", "validation"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder. The lock (run.lock) ends with the process, whatever ends it; it may nest.

    Raises:
        ValueError: another run is writing there.
        OSError: the folder cannot be written.
    """
    filelock = require("filelock")
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock((folder / "run.lock").resolve(), timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise ValueError(
            f"another run is writing to {folder}; wait for its end, stop it, or choose another output folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_first_process() -> bool:
    """Whether this is the process that writes, as far as the launcher (accelerate, torchrun) has said."""
    return os.environ.get("RANK", "0") == "0"


def tidy(folder: Path, step: int) -> None:
    """Clear what crashes have left in the folder of a run that goes on after `step`."""
    for place in (folder, folder / "checkpoints", folder / VALIDATION):
        clear_temporary(place)
    set_aside(folder, step)


def clear(folder: Path) -> None:
    """Delete what a run has left in its folder, so that nothing of it is taken for a later one's."""
    delete_checkpoints(folder)
    for path in (folder / LOG, folder / WEIGHTS, *(folder / VALIDATION).glob("step-*.png")):
        path.unlink(missing_ok=True)
