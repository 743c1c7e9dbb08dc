"""Small parts of the training loop: running sums, and signals that wait for the end of the step."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

# Ctrl-C, the end of a job (Slurm, Docker, kill), and a closed terminal. Windows has no SIGHUP.
ENDINGS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


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


class Clock:
    """Says when it is time for the next checkpoint."""

    def __init__(self, minutes: float):
        self.seconds = 60 * minutes
        self.restart()

    def restart(self) -> None:
        self.started = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self.started >= self.seconds


class Ending:
    """Which signal has come: its number, or 0."""

    number = 0


@contextmanager
def delayed_ending() -> Iterator[Ending]:
    """Note the signals of `ENDINGS`, so that the step is finished and saved; a second Ctrl-C stops at once.

    A signal that the process ignores (`nohup`) stays ignored. Closing a terminal sends its signal more than once, so
    the others may come again.
    """
    ending = Ending()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield ending
        return

    previous = {number: signal.getsignal(number) for number in ENDINGS}
    previous = {number: handler for number, handler in previous.items() if handler is not signal.SIG_IGN}

    def handler(number: int, frame: object) -> None:
        ending.number = ending.number or number
        if number == signal.SIGINT:
            signal.signal(number, previous[number])

    for number in previous:
        signal.signal(number, handler)
    try:
        yield ending
    finally:
        for number, former in previous.items():
            signal.signal(number, former)
