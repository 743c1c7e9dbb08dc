"""Small parts of the training loop: which batches, running sums, and a Ctrl-C that waits for the step's end."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.data import Sampler

from srbook.training.log import Record


class Indices(Sampler[int]):
    """Which batches a process takes, in order."""

    def __init__(self, indices: range):
        self.indices = indices

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class Window:
    """Sums since the last record, kept on the device so that a step does not wait for them."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.losses: dict[str, Tensor] = {}
        self.norm = torch.zeros(())
        self.steps = self.images = 0
        self.started = time.perf_counter()

    def add(self, losses: dict[str, Tensor], norm: Tensor, images: int) -> None:
        for name, loss in losses.items():
            self.losses[name] = self.losses.get(name, 0) + loss.float()
        self.norm = self.norm.to(norm.device) + norm.detach()
        self.steps += 1
        self.images += images

    def record(self, step: int, learning_rate: float) -> Record:
        record = {"step": step, **{name: float(total) / self.steps for name, total in self.losses.items()}}
        record["gradient_norm"] = float(self.norm) / self.steps
        record["learning_rate"] = learning_rate
        record["images_per_second"] = self.images / (time.perf_counter() - self.started)
        self._reset()
        return record


@contextmanager
def delayed_interrupt() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into a set event, so that a step is finished and saved; a second one stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield event
        return

    previous = signal.getsignal(signal.SIGINT)

    def handler(number: int, frame: object) -> None:
        event.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, handler)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)


def ignore_interrupt(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
