"""Where a number comes from: the commit, the processor, and the hours of training."""

import platform
import subprocess
from pathlib import Path

from srbook.training.log import read_log


def commit() -> str:
    """The commit at hand, with "+changes" if files differ from it."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def cpu_model() -> str:
    """The processor, as Linux names it where there is Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def training_hours(log: Path, batch_size: int) -> float:
    """Time spent in training steps, from the throughput of the log's records."""
    seconds, before = 0.0, 0
    for record in read_log(log):
        if "images_per_second" in record:
            seconds += (record["step"] - before) * batch_size / record["images_per_second"]
            before = record["step"]
    return seconds / 3600
