"""Fair timing on a shared machine: CPU time of this process, one thread, the contenders taking turns."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Contender:
    """Something to time.

    Attributes:
        name: as the table shows it.
        run: one unit of work.
        note: what a reader must know to compare it.
    """

    name: str
    run: Callable[[], object]
    note: str = ""


@dataclass(frozen=True)
class Entry:
    """A benchmark.

    Attributes:
        setting: sizes and data, in a line.
        contenders: ours first; ratios are taken to it.
    """

    setting: str
    contenders: list[Contender]


@dataclass(frozen=True)
class Timing:
    """CPU milliseconds of one contender; `ratio` is its median over the first contender's."""

    name: str
    median_ms: float
    low_ms: float
    high_ms: float
    ratio: float
    note: str


def measure(entry: Entry, rounds: int) -> list[Timing]:
    """Time all contenders in turns, `rounds` times after two that do not count.

    Taking turns spreads what others do on the machine over all contenders alike. `low_ms` and `high_ms` are the
    quartiles.
    """
    times: dict[str, list[float]] = {contender.name: [] for contender in entry.contenders}
    for turn in range(rounds + 2):
        for contender in entry.contenders:
            start = time.process_time()
            contender.run()
            if turn >= 2:
                times[contender.name].append(1e3 * (time.process_time() - start))
    reference = statistics.median(times[entry.contenders[0].name])
    timings = []
    for contender in entry.contenders:
        low, median, high = statistics.quantiles(times[contender.name], n=4)
        timings.append(Timing(contender.name, median, low, high, median / reference, contender.note))
    return timings
