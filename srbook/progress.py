"""One progress display: a bar in a terminal or notebook, plain lines where the output is kept in a page."""

import os
import time
from types import TracebackType


def is_static() -> bool:
    """Whether output goes into a page, without a kernel or a terminal: `SRBOOK_STATIC=1`, as in the book's build."""
    return os.environ.get("SRBOOK_STATIC") == "1"


class Progress:
    """Show how far a loop is: `with Progress(total, "train", unit="step") as bar: bar.update(loss=0.02)`.

    A tqdm bar (text or notebook widget); in static mode about five printed lines.

    Args:
        total: number of updates at the end.
        description: what the loop does.
        unit: what one update is.
        initial: updates done before, in a resumed loop.
        enabled: False shows nothing.
        delay: seconds before anything is shown, for what is mostly quick.
    """

    def __init__(
        self,
        total: int,
        description: str,
        *,
        unit: str = "it",
        initial: int = 0,
        enabled: bool = True,
        delay: float = 0,
    ):
        self.total, self.description, self.unit = total, description, unit
        self.done = self._initial = initial
        self._lines = enabled and is_static()
        self._bar = None
        self._every = max(1, total // 5)
        self._started, self._delay = time.perf_counter(), delay
        if enabled and not self._lines:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, initial=initial, desc=description, unit=unit, dynamic_ncols=True, delay=delay)

    def update(self, **figures: str | float) -> None:
        """One more is done; `figures` are shown beside the bar and stay until replaced."""
        self.done += 1
        if self._bar is not None:
            if figures:
                self._bar.set_postfix(figures, refresh=False)
            self._bar.update()
        elif self._lines and (self.done % self._every == 0 or self.done == self.total):
            shown = "  ".join(f"{name} {value}" for name, value in figures.items())
            seconds = time.perf_counter() - self._started
            if seconds >= self._delay:
                print(f"{self.description} {self.done}/{self.total} {self.unit}s in {seconds:.0f} s  {shown}".rstrip())

    def write(self, line: str) -> None:
        """Print a line without breaking the bar."""
        if self._bar is not None:
            self._bar.write(line)
        elif self._lines:
            print(line)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
