"""Run benchmarks and record their results."""

import argparse
import importlib
import json
import platform
import shlex
import sys
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

import torch

import srbook
from benchmarks.provenance import commit, cpu_model
from benchmarks.speed.timing import Timing, measure
from srbook.files import atomic_path

HERE = Path(__file__).parent
ENTRIES = "benchmarks.speed.entries"


def names() -> list[str]:
    """The entries: the modules in `entries/`."""
    return sorted(path.stem for path in (HERE / "entries").glob("*.py") if path.stem != "__init__")


def table(timings: list[Timing]) -> str:
    """Medians, quartiles, and ratios, one line per contender."""
    width = max(len(timing.name) for timing in timings)
    lines = [f"{'':{width}}  median ms   quartiles ms     ratio"]
    for t in timings:
        spread = f"{t.low_ms:.2f}-{t.high_ms:.2f}"
        lines.append(f"{t.name:{width}}  {t.median_ms:9.2f}  {spread:>14}  {t.ratio:7.2f}x  {t.note}".rstrip())
    return "\n".join(lines)


def circumstances() -> dict[str, object]:
    """Where, when, and with what a result was made."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "benchmarks.speed", *sys.argv[1:]]),
        "commit": commit(),
        "machine": platform.platform(),
        "cpu": cpu_model(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "srbook": srbook.__version__,
    }


def main() -> None:
    """Parse the command line, run, print, and record."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description="Times our code against named peers: CPU time, one thread, a process for each, taking turns, "
        "medians. Trust the ratios more than the milliseconds. Without a name it lists what there is.",
        epilog="Examples:\n"
        "  python -m benchmarks.speed                      list the benchmarks\n"
        "  python -m benchmarks.speed imresize             run one and record it in benchmarks/results/imresize.json\n"
        "  python -m benchmarks.speed all --rounds 10      run all, less exactly\n"
        "  python -m benchmarks.speed patches --output out record elsewhere\n\n"
        "To add one, see benchmarks/README.md.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(names())}, or all")
    parser.add_argument("--rounds", type=int, default=30, help="turns that count, at least 2 (default 30)")
    parser.add_argument("--output", type=Path, default=HERE.parent / "results", help="folder for the JSON results")
    options = parser.parse_args()
    if unknown := set(options.names) - {*names(), "all"}:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names())}, and all")
    if options.rounds < 2:
        parser.error(f"--rounds must be at least 2, got {options.rounds}")

    modules = {name: importlib.import_module(f"{ENTRIES}.{name}") for name in names()}
    if not options.names:
        for name, module in modules.items():
            print(f"{name:12} {module.__doc__.splitlines()[0]}")
        return
    torch.set_num_threads(1)  # as in the processes that compute
    for name in names() if "all" in options.names else dict.fromkeys(options.names):
        setting, timings = measure(f"{ENTRIES}.{name}", options.rounds)
        print(f"{name}: {setting}\n{table(timings)}\n")
        record = {"benchmark": name, "setting": setting, "rounds": options.rounds, **circumstances()}
        record["results"] = [asdict(timing) for timing in timings]
        with atomic_path(options.output / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
