"""`python -m benchmarks.attack`: run the families of attacks, and count how they ended."""

import argparse
import signal
import sys
import tempfile
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import get_args

from benchmarks.attack import Verdict
from srbook.progress import Progress

FAMILIES = tuple(sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py")))
VERDICTS = get_args(Verdict)
GOOD = ("survived", "clear")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"of {', '.join(FAMILIES)}; all without")
    chosen = parser.parse_args().families or FAMILIES
    if unknown := set(chosen) - set(FAMILIES):
        parser.error(f"no family {', '.join(sorted(unknown))}; there are {', '.join(FAMILIES)}")

    for number in (signal.SIGINT, signal.SIGHUP):  # what nohup or a shell ignores, the processes attacked would, too
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    counts, bad = {}, []
    for family in chosen:
        attempts = list(import_module(f"benchmarks.attack.{family}").attempts())
        counts[family] = Counter()
        with Progress(len(attempts), family, unit="attempt") as bar:
            for attempt in attempts:
                with tempfile.TemporaryDirectory() as folder:
                    verdict = attempt.run(Path(folder))
                counts[family][verdict] += 1
                if verdict not in GOOD:
                    bad.append(f"{verdict}: {family}, {attempt.name}")
                bar.update()

    print(f"{'':12}{'tried':>10}" + "".join(f"{verdict:>10}" for verdict in VERDICTS))
    for family, ends in counts.items():
        print(f"{family:12}{ends.total():10}" + "".join(f"{ends[verdict]:10}" for verdict in VERDICTS))
    print("\n".join(bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
