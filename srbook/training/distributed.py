"""Exchange between the processes of a data-parallel run. For a single process it costs nothing."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


class ProcessFailed(RuntimeError):
    """Another process of the run failed, so this one ends too."""


def processes() -> tuple[int, int]:
    """This process's number, from 0, and how many there are."""
    together = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if together else (0, 1)


def share(items: Sequence[T]) -> Sequence[T]:
    """The items that fall to this process: every n-th of them with n processes."""
    rank, count = processes()
    return items[rank::count]


def gather(value: T) -> list[T]:
    """The values of all processes, in their order; all must call it. Values are pickled."""
    count = processes()[1]
    if count == 1:
        return [value]
    values: list[T] = [value] * count
    dist.all_gather_object(values, value, group=_messages())
    return values


def highest(*numbers: int) -> list[int]:
    """Of each number the highest that a process has; all must call it."""
    if processes()[1] == 1:
        return list(numbers)
    values = torch.tensor([int(number) for number in numbers])
    dist.all_reduce(values, op=dist.ReduceOp.MAX, group=_messages())
    return values.tolist()


def any_process(flag: bool) -> bool:
    """Whether the flag is true on at least one process; all must call it."""
    return bool(highest(int(flag))[0])


@contextmanager
def together() -> Iterator[None]:
    """A block that all processes enter and that fails on all of them if it fails on one.

    The others would wait for the one that failed in the next exchange of gradients. Blocks do not nest.

    Raises:
        ProcessFailed: the block failed elsewhere; says where and how. Where it failed, its own error is raised.
    """
    if processes()[1] == 1:
        yield
        return
    error = None
    try:
        yield
    except Exception as caught:
        error = caught
    if not any_process(error is not None):
        return
    messages = gather(None if error is None else f"{type(error).__name__}: {error}")
    if error is not None:
        raise error
    rank = next(rank for rank, message in enumerate(messages) if message is not None)
    raise ProcessFailed(f"process {rank} failed: {messages[rank]}")


def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors by those of the first process; all must call it."""
    if processes()[1] > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def _messages() -> dist.ProcessGroup:
    return _message_group(dist.group.WORLD)


@lru_cache(maxsize=1)
def _message_group(world: dist.ProcessGroup) -> dist.ProcessGroup:
    # On the CPU, since a GPU would first have to finish its work. A process may be slow without having failed.
    return dist.new_group(backend="gloo", timeout=timedelta(days=1))
