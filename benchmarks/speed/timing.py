"""Fair timing on a shared machine: CPU time, one thread, a process for each contender, and all taking turns."""

import importlib
import multiprocessing
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection

WARMUP = 2


@dataclass(frozen=True)
class Contender:
    """Something to time.

    Attributes:
        name: as the table shows it.
        run: one unit of work.
        note: what a reader must know to compare it.
        within: makes a context in which its process stays for all runs.
    """

    name: str
    run: Callable[[], object]
    note: str = ""
    within: Callable[[], AbstractContextManager[object]] = nullcontext


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


@dataclass(frozen=True)
class Worker:
    """A contender in a process of its own.

    Attributes:
        connection: to the process.
        setting: of the entry.
        count: contenders of the entry.
        name: of this one.
        note: of this one.
    """

    connection: Connection
    setting: str
    count: int
    name: str
    note: str

    def run(self) -> float:
        """CPU seconds of one unit of work."""
        self.connection.send("run")
        return _receive(self.connection)


def take_turns(runs: Sequence[Callable[[], float]], rounds: int) -> list[list[float]]:
    """The seconds that each of `runs` reports, in turns, `rounds` times after two that do not count.

    Taking turns spreads what others do on the machine over all contenders alike.
    """
    turns = [[run() for run in runs] for _ in range(WARMUP + rounds)]
    return [list(seconds) for seconds in zip(*turns[WARMUP:], strict=True)]


def summarize(contenders: Sequence[Contender | Worker], seconds: Sequence[Sequence[float]]) -> list[Timing]:
    """Medians, quartiles in `low_ms` and `high_ms`, and ratios."""
    reference = 1e3 * statistics.median(seconds[0])
    timings = []
    for contender, its in zip(contenders, seconds, strict=True):
        low, median, high = (1e3 * value for value in statistics.quantiles(its, n=4))
        timings.append(Timing(contender.name, median, low, high, median / reference, contender.note))
    return timings


def measure(module: str, rounds: int) -> tuple[str, list[Timing]]:
    """Time the contenders of the entry in a module.

    Each has a process of its own, started afresh, since the memory allocator serves a process as a whole: what one
    contender keeps would serve the others, and what one gives back would be missing to them. The processes wait for
    their turn, and no two compute at once.

    Args:
        module: its name, for example "benchmarks.speed.entries.imresize".
        rounds: turns that count.

    Returns:
        The setting, and the timings.

    Raises:
        RuntimeError: a contender failed; the message has its traceback.
    """
    with ExitStack() as stack:
        workers = [stack.enter_context(worker(module, 0))]
        workers += [stack.enter_context(worker(module, index)) for index in range(1, workers[0].count)]
        return workers[0].setting, summarize(workers, take_turns([worker.run for worker in workers], rounds))


@contextmanager
def worker(module: str, index: int) -> Iterator[Worker]:
    """A process that has prepared a contender, and ends with the context."""
    context = multiprocessing.get_context("spawn")  # a copy of this process would inherit its heap
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, module, index), daemon=True)
    process.start()
    theirs.close()  # now a dead process ends the connection
    try:
        yield Worker(ours, *_receive(ours))
    finally:
        ours.close()  # which ends the process
        process.join(timeout=5)
        process.kill()
        process.join()


def _receive(connection: Connection) -> object:
    try:
        result, error = connection.recv()
    except EOFError:
        raise RuntimeError("the process of a contender died, perhaps for want of memory") from None
    if error:
        raise RuntimeError(f"a contender failed:\n{error}")
    return result


def _serve(connection: Connection, module: str, index: int) -> None:
    """Prepare a contender and run it whenever told, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends this
    try:
        imported = importlib.import_module(module)
        if "torch" in sys.modules:  # not every contender needs it, and it takes seconds to import
            sys.modules["torch"].set_num_threads(1)
        entry = imported.entry()
        contender, setting, count = entry.contenders[index], entry.setting, len(entry.contenders)
        del entry  # and with it what the other contenders hold
        with contender.within():
            connection.send(((setting, count, contender.name, contender.note), None))
            while True:
                connection.recv()
                start = time.process_time()
                contender.run()
                connection.send((time.process_time() - start, None))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception:
        connection.send((None, traceback.format_exc()))
