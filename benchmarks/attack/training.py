"""Trainings that are killed, interrupted, misused, and short of disk: they end as if nothing had been, or say why not.

Every run is a process of its own, made by fork from one that has loaded the package, and gets real signals.
"""

import contextlib
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import count
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

import srbook
from benchmarks.attack import Attempt, Verdict
from srbook.cli import app
from srbook.files import load_tensors
from srbook.training.checkpoint import latest_checkpoint
from srbook.training.log import read_log

STEPS = 24
PRESETS = ("rrdb-tiny", "srdiff-tiny", "resdiff-tiny", "sr3-tiny")
SIGNALS = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM, "HUP": signal.SIGHUP, "INT": signal.SIGINT}
MOMENTS = 2
SAME = 1e-3  # of the way that the weights went: the same sums at other addresses round differently


def attempts() -> Iterator[Attempt]:
    Accelerator(cpu=True)  # what it loads takes seconds, which the forked processes save
    for preset in PRESETS:
        for name in SIGNALS:
            for moment in range(MOMENTS):
                yield Attempt(f"{preset} {name} {moment}", partial(_interrupted, preset, name, moment))
    yield Attempt("killed again and again", _killed_often)
    yield Attempt("--restart stopped in the first stage", _restart_stopped)
    yield Attempt("an earlier stage prolonged", _prolonged)
    yield Attempt("an earlier stage trained anew", _trained_anew)
    for limit in (3_000, 100_000, 400_000):
        yield Attempt(f"no file over {limit} bytes", partial(_full_disk, limit))
    yield Attempt("two runs in one folder", _two_runs)
    yield Attempt("another picture", _other_data)
    yield Attempt("a picture damaged in mid-run", partial(_damaged_picture, 0))
    yield Attempt("a picture damaged in mid-run, with workers", partial(_damaged_picture, 1))
    yield Attempt("a worker process killed", _killed_worker)
    yield Attempt("a run below its own data", _below_its_data)
    yield Attempt("a closed terminal", _closed_terminal)


# Runs


class Run:
    """`srbook train` in a process of its own. What it says goes to a file beside its folder."""

    def __init__(self, output: Path, *words: object, preset: str = "rrdb-tiny", limit: int | None = None):
        output.parent.mkdir(parents=True, exist_ok=True)
        self.said = output.parent / f"said-{next(_numbers)}.txt"
        words = ("train", "-p", preset, "-d", _photographs(), "-o", output, *_settings(), *words)
        self.pid = os.fork()
        if self.pid == 0:
            _child([str(word) for word in words], self.said, limit)

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self) -> int:
        """Wait for it: the exit status, or minus the signal that killed it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    @property
    def text(self) -> str:
        return self.said.read_text(errors="replace")

    @property
    def error(self) -> str:
        """Its last line, if that is all it says of an error."""
        lines = [line for line in self.text.replace("\r", "\n").splitlines() if line.strip()]
        return lines[-1] if lines and lines[-1].startswith("Error: ") and "Traceback" not in self.text else ""


_numbers = count()


def _child(words: list[str], said: Path, limit: int | None) -> None:
    status = 70
    try:
        file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        app(words)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException as error:
        print(f"Traceback: {error!r}")
        status = 71
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _settings() -> tuple[object, ...]:
    chosen = {"batch-size": 1, "patch-size": 32, "precision": "fp32", "save-every": 5, "device": "cpu", "steps": STEPS}
    return tuple(word for name, value in chosen.items() for word in (f"--{name}", value))


@cache
def _photographs() -> Path:
    folder = tempfile.TemporaryDirectory()
    _keep.append(folder)
    for number in range(3):
        _photograph(Path(folder.name) / f"{number}.png", number)
    return Path(folder.name)


_keep: list[tempfile.TemporaryDirectory] = []


def _photograph(path: Path, seed: int, side: int = 72) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).resize((side, side)).save(path)


@cache
def _whole(preset: str) -> tuple[dict[str, Tensor], float]:
    """The weights of a run that nothing disturbed, and the seconds that it took."""
    with tempfile.TemporaryDirectory() as name:
        started = time.perf_counter()
        run = Run(Path(name) / "run", preset=preset)
        assert run.end() == 0, run.text
        return load_tensors(Path(name) / "run" / "weights.safetensors")[0], time.perf_counter() - started


def _distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return sum((one[name].double() - other[name].double()).square().sum().item() for name in one) ** 0.5


def _ends_well(preset: str, output: Path) -> Verdict:
    """Whether the same command once more ends with the weights of the undisturbed run."""
    if Run(output, preset=preset).end() != 0:
        return "broken"
    expected, _ = _whole(preset)
    torch.manual_seed(0)
    way = _distance(srbook.build(preset).state_dict(), expected)
    found, _ = load_tensors(output / "weights.safetensors")
    if found.keys() != expected.keys() or _distance(found, expected) > SAME * way:
        return "silent"
    return "broken" if list(output.rglob(".srbook-*")) else "survived"


def _wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not until():
        assert time.monotonic() < end, "waited for two minutes"
        time.sleep(0.01)


def _stop(run: Run, after: float, number: int) -> int:
    time.sleep(after)
    with contextlib.suppress(ProcessLookupError):
        run.kill(number)
    return run.end()


# Attempts


def _interrupted(preset: str, name: str, moment: int, folder: Path) -> Verdict:
    seconds = _whole(preset)[1]
    number, share = SIGNALS[name], random.Random(f"{preset} {name} {moment}").uniform(0.2, 1.0)
    run = Run(folder / "run", preset=preset)
    status = _stop(run, share * seconds, number)
    if status not in (0, -number, 128 + number):
        return "broken"
    if "saved; run again" in run.text and not list((folder / "run").rglob("step-*.safetensors")):
        return "broken"
    return _ends_well(preset, folder / "run")


def _killed_often(folder: Path) -> Verdict:
    seconds = _whole("srdiff-tiny")[1]
    for turn in range(5):
        status = _stop(Run(folder / "run", preset="srdiff-tiny"), (0.3 + 0.05 * turn) * seconds, signal.SIGKILL)
        if status not in (0, -signal.SIGKILL):
            return "broken"
    return _ends_well("srdiff-tiny", folder / "run")


def _restart_stopped(folder: Path) -> Verdict:
    """The old model of the second stage must not come back as the new one's."""
    output, preset = folder / "run", "srdiff-tiny"
    if Run(output, "--seed", 5, preset=preset).end() != 0:
        return "broken"
    run = Run(output, "--restart", preset=preset)
    _wait(lambda: (output / "encoder" / "log.jsonl").is_file() and not (output / "weights.safetensors").exists())
    _stop(run, 0.02, signal.SIGTERM)
    if (output / "weights.safetensors").exists() and latest_checkpoint(output) is None:
        return "silent"
    return _ends_well(preset, output)


def _prolonged(folder: Path) -> Verdict:
    output, preset = folder / "run", "srdiff-tiny"
    if Run(output, preset=preset).end() != 0:
        return "broken"
    before = {path: path.read_bytes() for path in output.rglob("*.safetensors")}
    longer = Run(output, "--steps", STEPS + 5, preset=preset)
    if longer.end() == 0:
        return "silent"
    if before != {path: path.read_bytes() for path in output.rglob("*.safetensors")}:
        return "broken"
    return "clear" if "encoder" in longer.error and "--restart" in longer.error else "unclear"


def _trained_anew(folder: Path) -> Verdict:
    """The checkpoints of the first stage are those of another run, at the same step."""
    one, other, preset = folder / "one" / "run", folder / "other" / "run", "srdiff-tiny"
    if Run(one, preset=preset).end() or Run(other, "-d", _others(), preset=preset).end():
        return "broken"
    for path in (one / "encoder" / "checkpoints").iterdir():
        path.write_bytes((other / "encoder" / "checkpoints" / path.name).read_bytes())
    again = Run(one, "--accept-changes", preset=preset)
    if again.end() == 0:
        return "silent"
    return "clear" if "began with other weights" in again.error else "unclear"


@cache
def _others() -> Path:
    folder = _photographs().parent / f"{_photographs().name}-others"
    folder.mkdir()
    for number in range(3):
        _photograph(folder / f"{number}.png", 9 + number)
    return folder


def _full_disk(limit: int, folder: Path) -> Verdict:
    run = Run(folder / "run", limit=limit)
    if run.end() != 1 or str(folder / "run") not in run.error:
        return "unclear"
    return _ends_well("rrdb-tiny", folder / "run")


def _two_runs(folder: Path) -> Verdict:
    output = folder / "run"
    first = Run(output, "--steps", 10 * STEPS)
    _wait((output / "log.jsonl").is_file)
    second = Run(output, "--restart")
    status = second.end()
    first.kill(signal.SIGKILL)
    first.end()
    if status == 0:
        return "silent"
    return "clear" if "another run is writing" in second.error else "unclear"


def _copied(folder: Path) -> Path:
    photographs = folder / "photographs"
    for path in _photographs().iterdir():
        (photographs / path.name).parent.mkdir(exist_ok=True)
        (photographs / path.name).write_bytes(path.read_bytes())
    return photographs


def _other_data(folder: Path) -> Verdict:
    photographs = _copied(folder)
    if Run(folder / "run", "-d", photographs).end() != 0:
        return "broken"
    _photograph(photographs / "more.png", 7)
    again = Run(folder / "run", "-d", photographs, "--steps", STEPS + 1)
    if again.end() == 0:
        return "silent"
    return "clear" if "other training data" in again.error and "--accept-changes" in again.error else "unclear"


def _damaged_picture(workers: int, folder: Path) -> Verdict:
    """Its header is intact, so that it is found only when it is read."""
    photographs = _copied(folder)
    path = photographs / "9.png"
    _photograph(path, 9, side=200)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    run = Run(folder / "run", "-d", photographs, "--workers", workers)
    if run.end() != 1:
        return "silent"
    return "clear" if str(path) in run.error and "damaged" in run.error else "unclear"


def _killed_worker(folder: Path) -> Verdict:
    output = folder / "run"
    run = Run(output, "--steps", 20 * STEPS, "--workers", 1)
    _wait(lambda: latest_checkpoint(output) is not None)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    if run.end() != 1:
        return "silent"
    return "clear" if "\nError: a process that prepares batches has died" in run.text else "unclear"


def _below_its_data(folder: Path) -> Verdict:
    photographs = _copied(folder)
    output = photographs / "runs" / "run"
    words = ("-d", photographs, "--validation", _photographs())
    for steps in (STEPS // 2, STEPS):
        run = Run(output, *words, "--steps", steps)
        if run.end() != 0:
            return "broken"
        if ", 3 images," not in run.text:
            return "silent"
    return "survived" if read_log(output / "log.jsonl") else "broken"


def _closed_terminal(folder: Path) -> Verdict:
    """A run in a terminal that goes away: it gets SIGHUP, and can write to no one."""
    output = folder / "run"
    words = ["train", "-p", "rrdb-tiny", "-d", _photographs(), "-o", output, *_settings(), "--save-every", 10**6]
    terminal, inner = os.openpty()
    name = Path(os.ttyname(inner))
    pid = os.fork()
    if pid == 0:
        os.close(terminal)
        os.setsid()  # the terminal that it opens next is then its own
        _child([str(word) for word in words], name, None)
    os.close(inner)
    _wait((output / "log.jsonl").is_file)
    time.sleep(0.2)
    os.close(terminal)
    os.waitpid(pid, 0)
    return _ends_well("rrdb-tiny", output) if latest_checkpoint(output) else "broken"
