"""Batches from processes that prepare them, whose errors arrive as they are."""

import pickle
import signal
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from srbook.arguments import shown
from srbook.training.loop import ENDINGS

Batch = tuple[Tensor, Tensor]


class Batches(Protocol):
    """Training data with random access: item i is always the same batch (hr, lr). See `srbook.data.PairedPatches`.

    Where it has a `fingerprint`, a text that tells it from other data, a resumed run must have the same.
    """

    def __getitem__(self, index: int) -> Batch: ...


def feed(batches: Batches, indices: range, *, workers: int, pin_memory: bool) -> Iterator[Batch]:
    """Batches by their numbers, in order, prepared by other processes if `workers` is not 0.

    Raises:
        Exception: what a batch raises, wherever it was prepared.
        TypeError, ValueError: a batch is no pair of tensors, or there is none.
        ChildProcessError: a process that prepares batches has died.
    """
    loader = DataLoader(
        _Caught(batches) if workers else batches,  # type: ignore[arg-type]  # torch asks for its own base class
        batch_size=None,
        sampler=_Indices(indices),
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_ignore_endings,
        generator=torch.Generator(),  # else the loader draws from the global one
    )
    loaded = iter(loader)
    try:
        for index in indices:
            try:
                batch = next(loaded)
            except IndexError as error:
                batch = error
            except (RuntimeError, ConnectionError, EOFError) as error:
                if not workers:
                    raise
                raise worker_died(error) from error
            if isinstance(batch, IndexError):
                raise ValueError(f"there is no batch {index} ({batch}), and the run goes to {indices[-1]}") from batch
            if isinstance(batch, Exception):
                raise batch
            yield _pair(batch, index)
    finally:
        del loaded  # ends its processes; the traceback of an error would keep them


def is_dead_worker(error: Exception) -> bool:
    """Whether torch tells of a process that died: by an error in the midst of whatever the main thread does."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker")


def worker_died(error: Exception) -> ChildProcessError:
    """The same in our words."""
    return ChildProcessError(
        f"a process that prepares batches has died ({' '.join(str(error).split())}); if memory is short, fewer workers "
        "help (--workers 0)"
    )


def _pair(batch: Any, index: int) -> Batch:
    pair = isinstance(batch, tuple | list) and len(batch) == 2
    if not pair or not all(isinstance(image, Tensor) for image in batch):
        raise TypeError(f"batch {index} must be a pair of tensors (hr, lr), got {shown(batch)}")
    return batch[0], batch[1]


class _Caught(Dataset):
    """Batches, or the error instead of one: torch would send its traceback as a text."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def __getitem__(self, index: int) -> Any:
        try:
            return self.batches[index]
        except Exception as error:
            return error if _travels(error) else RuntimeError(f"{type(error).__name__}: {error}")


class _Indices(Sampler[int]):
    """Which batches a process takes, in order."""

    def __init__(self, indices: range):
        self.indices = indices

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def _travels(error: Exception) -> bool:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # of a foreign class, which may do anything
        return False
    return True


def _ignore_endings(worker: int) -> None:
    for number in ENDINGS:  # a terminal or Slurm sends them to all processes; these end with the one that trains
        signal.signal(number, signal.SIG_IGN)
