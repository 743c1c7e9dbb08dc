"""Small parts of the training loop: which batches, running sums, and a Ctrl-C that waits for the end of the step."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor
from torch.utils.data import Sampler


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
        self.sums: dict[str, Tensor] = {}
        self.steps = self.images = 0
        self.started = time.perf_counter()

    def add(self, figures: dict[str, Tensor], images: int) -> None:
        for name, figure in figures.items():
            self.sums[name] = self.sums.get(name, 0) + figure.float()
        self.steps += 1
        self.images += images

    def means(self) -> dict[str, float]:
        """Means of the figures, and "images_per_second"; the next window begins."""
        means = {name: float(total) / self.steps for name, total in self.sums.items()}
        means["images_per_second"] = self.images / (time.perf_counter() - self.started)
        self._reset()
        return means


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
