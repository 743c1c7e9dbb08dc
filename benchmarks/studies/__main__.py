"""Train the variants of a method that its paper compares, measure them side by side, and store the table.

    python -m benchmarks.studies ecdp --data BSDS500 T91 --tests SETS
    python -m benchmarks.studies esrdf --data BSDS500 T91 --tests SETS
    python -m benchmarks.studies shift --data BSDS500 T91 --tests SETS
    python -m benchmarks.studies one_step --data BSDS500 T91 --tests SETS

SETS is a folder with Set5 and Set14 inside; the study one_step says what else it measures on. LPIPS, and the networks
that judge images in the studies of ECDP and of one step, need the weights of AlexNet and SqueezeNet (srbook.backbones
says where they come from). Every training lies in a folder of its own below --runs: the same command goes on where it
was stopped, and measures only what is not measured yet.
"""

import argparse
import importlib
from pathlib import Path

from benchmarks.studies.lab import PIECES, Lab

STUDIES = ("ecdp", "esrdf", "one_step", "shift")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=STUDIES, help="whose paper's ablation")
    parser.add_argument("--data", nargs="+", type=Path, required=True, help="folders of photographs to train on")
    parser.add_argument("--tests", type=Path, required=True, help="folder with Set5, Set14, ...")
    parser.add_argument("--photos", default="", help="what --data holds, in words, for the stored table")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where trainings are kept (default runs)")
    parser.add_argument("--output", type=Path, help="file of the table (default srbook/results/<study>_ablation.json)")
    parser.add_argument("--steps", type=int, help="at most so many steps for each training, to try the command out")
    arguments = parser.parse_args()
    module = importlib.import_module(f"benchmarks.studies.{arguments.study}")
    lab = Lab(
        f"{arguments.study}_ablation",
        data=arguments.data,
        tests=arguments.tests,
        runs=arguments.runs,
        photos=arguments.photos,
        pieces=getattr(module, "PIECES", PIECES),
        most_steps=arguments.steps,
    )
    path = lab.store(module.run(lab), arguments.output)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
