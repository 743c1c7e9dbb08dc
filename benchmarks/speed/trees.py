"""Time this tree against another one: a training run and sampling of presets, as a library's user calls them.

    git worktree add ../before main
    python -m benchmarks.speed.trees ../before --rounds 5

CPU time, one thread, a process for each tree, taking turns. Freed memory is kept in both, as the commands do.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

# preset, precision, batch, side, optimizer steps of a run, images sampled at once, sampling steps
WORK = {
    "sr3-tiny": (16, 32, 8, 4, 8),
    "sr3-small": (16, 32, 5, 4, 4),
    "sr3-16-128": (2, 128, 2, 1, 3),
}


def serve(preset: str, work: str, precision: str) -> None:
    """Run the work once for every line of input, and answer with CPU seconds."""
    import torch

    import srbook
    from srbook.training import Trainer, TrainingConfig

    try:
        from srbook.accel import keep_freed_memory
    except ImportError:  # an older tree
        from srbook.memory import keep_freed_memory

    torch.set_num_threads(1)
    torch.manual_seed(0)
    batch, side, steps, images, evaluations = WORK[preset]
    method = srbook.build(preset)
    hr = torch.rand(batch, 3, side, side)
    pair = hr, torch.rand(batch, 3, side // method.scale, side // method.scale)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")

    def train() -> None:
        config = TrainingConfig(steps=steps, batch_size=batch, patch_size=side, precision=precision, ema_decay=0.9)
        Trainer(method, [pair] * steps, config, device="cpu", progress=False).fit()

    def sample() -> None:
        with autocast:
            method.upscale(pair[1][:1].repeat(images, 1, 1, 1), steps=evaluations)

    method.eval().to(memory_format=torch.channels_last)
    run = {"train": train, "sample": sample}[work]
    with keep_freed_memory():
        for _ in sys.stdin:
            start = time.process_time()
            run()
            print(time.process_time() - start, flush=True)


def start(tree: Path, arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, "--serve", *arguments],
        env={**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def turn(process: subprocess.Popen[str]) -> float:
    """CPU seconds of one run."""
    print("run", file=process.stdin, flush=True)
    return float(process.stdout.readline())


def main() -> None:
    """Parse the command line, take turns, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path, help="the other tree")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--presets", nargs="+", choices=WORK, default=list(WORK))
    options = parser.parse_args()
    here = Path(__file__).parents[2]
    for preset in options.presets:
        for work in ("train", "sample"):
            for precision in ("fp32", "bf16"):
                processes = [start(tree.resolve(), [preset, work, precision]) for tree in (here, options.tree)]
                turns = [[turn(process) for process in processes] for _ in range(1 + options.rounds)][1:]
                for process in processes:
                    process.stdin.close()
                    process.wait()
                now, before = (statistics.median(times) for times in zip(*turns, strict=True))
                paired = statistics.median(ours / theirs for ours, theirs in turns)
                record = {"preset": preset, "work": work, "precision": precision, "now_s": round(now, 3)}
                record |= {"before_s": round(before, 3), "ratio": round(now / before, 3), "paired": round(paired, 3)}
                print(json.dumps(record), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
    else:
        main()
