"""A batch of pictures: none ends the others, and the end says what became of each."""

import errno
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from srbook.accel import keep_freed_memory
from srbook.cli.errors import explain, is_expected
from srbook.cli.jobs import Job, require_possible
from srbook.cli.output import say
from srbook.data import read_picture, require_writable, write_levels
from srbook.methods import Method
from srbook.names import printable
from srbook.progress import is_static
from srbook.upscaling import upscale_picture

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass
class Batch:
    """What became of the pictures so far.

    Attributes:
        total: the number of pictures.
        debug: whether the traceback of an error is shown.
        failed: a line for each that failed.
    """

    total: int
    debug: bool
    done: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)

    @property
    def position(self) -> str:
        """Where the next picture stands among several, as "3 of 500: "."""
        return f"{self.ended + 1} of {self.total}: " if self.total > 1 else ""

    @property
    def ended(self) -> int:
        return self.done + self.skipped + len(self.failed)

    def fail(self, path: Path, error: Exception | str) -> None:
        """Say why a picture failed, and remember it."""
        message = error if isinstance(error, str) else _reason(error)
        line = message if str(path) in message else f"{path}: {message}"
        self.failed.append(line)
        say(f"Error: {line}", err=True)
        if self.debug and isinstance(error, Exception):
            for text in "".join(traceback.format_exception(error)).splitlines():
                say(text, err=True)

    def summarize(self) -> None:
        """Print how many were done, failed, were skipped, and were not reached; then why each failed."""
        counts = [f"{self.done} of {self.total} pictures done"]
        counts += [f"{len(self.failed)} failed"] * bool(self.failed)
        counts += [f"{self.skipped} skipped, whose results exist"] * bool(self.skipped)
        counts += [f"{self.total - self.ended} not reached"] * (self.ended < self.total)
        bad = self.done + self.skipped < self.total
        say(", ".join(counts) + (":" if self.failed else ""), err=bad)
        for line in self.failed:
            say(f"  {line}", err=True)


@contextmanager
def ended_like_by_ctrl_c() -> Iterator[None]:
    """In this block the end of a job (Slurm, Docker, kill) and a closed terminal raise KeyboardInterrupt, too.

    Signals that someone handles or ignores, as nohup does, are left alone.
    """
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no SIGHUP
    ours = [number for number in (getattr(signal, name) for name in names) if _is_free(number)]
    for number in ours:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _is_free(number: int) -> bool:
    main = threading.current_thread() is threading.main_thread()  # which alone may set handlers
    return main and signal.getsignal(number) is signal.SIG_DFL


def possible(batch: Batch, jobs: list[Job], **limits: Any) -> list[Job]:
    """The jobs that nothing known beforehand speaks against (`require_possible`); the others have failed."""
    fine = []
    for job in jobs:
        try:
            require_possible(job, **limits)
        except Exception as error:
            batch.fail(job.source, error)
        else:
            fine.append(job)
    return fine


def work_through(batch: Batch, jobs: list[Job], method: Method, **options: Any) -> None:
    """Upscale one picture after the other, and say of each how it ended. A full disk ends the batch."""
    for job in jobs:
        started, position = time.perf_counter(), batch.position
        try:
            height, width = upscale_file(method, job, position=position, **options)
        except Exception as error:
            batch.fail(job.source, error)
            if isinstance(error, OSError) and error.errno in _DISK_FULL:
                return  # the others would fail in the same way, after all their work
        else:
            batch.done += 1
            seconds = time.perf_counter() - started
            say(f"{position}{job.source} -> {job.target}  {width}x{height}  {seconds:.1f} s")


def upscale_file(
    method: Method, job: Job, *, position: str, steps: int | None, seed: int, tile: int
) -> tuple[int, int]:
    """Upscale one picture; returns the height and width of the result.

    Every file gets its own generator, so that a result does not depend on what else is upscaled.
    """
    picture = read_picture(job.source, max_pixels=sys.maxsize)  # `require_possible` has looked at its size
    height, width = (method.scale * side for side in picture.rgb.shape[-2:])
    lost = (*picture.dropped, *require_writable(job.target, picture, height, width))
    if lost:
        say(f"Warning: {job.source}: the result is without {', '.join(lost)}", err=True)
    device = next((parameter.device for parameter in method.parameters()), torch.device("cpu"))
    with keep_freed_memory():  # not while reading: what that leaves behind would lie between the tiles' memory
        levels = upscale_picture(
            method,
            picture,
            tile=tile,
            steps=steps,
            generator=torch.Generator(device).manual_seed(seed),
            progress=position + printable(job.source.name) if sys.stderr.isatty() or is_static() else None,
        )
    write_levels(job.target, levels, picture)
    return height, width


def _reason(error: Exception) -> str:
    if is_expected(error):
        return explain(error)
    return f"unexpected {type(error).__name__}: {error}; this is a bug of srbook, and --debug shows where"
