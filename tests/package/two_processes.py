"""The trainings of test_training_distributed.py: torch.distributed.run starts this file twice, with a folder."""

import os
import signal
import sys
from pathlib import Path

import test_training
import test_training_turns
import test_vqgan
import torch
from test_training import RandomBatches

import srbook
from srbook.training import validation

TOGETHER = {"steps": 4, "precision": "fp32", "ema_decay": 0.5, "log_every": 2, "save_every": 4}
IMAGES = {name: torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(ord(name))) for name in "abc"}
FAILURES = ("data", "loss", "not finite", "validation", "save", "log")


def predictor(folder: Path, **settings):
    return test_training.make(folder, method=srbook.build("predictor"), **settings)


def train_one(folder: Path, rank: int) -> object:
    trainer = predictor(folder, **TOGETHER)
    records = trainer.fit().records
    return trainer.method.state_dict(), records


def train_turns(folder: Path, rank: int) -> object:
    trainer = test_training_turns.make(folder, **TOGETHER)
    trainer.fit()
    return trainer.method.state_dict()


def train_codes(folder: Path, rank: int) -> object:
    codec = test_vqgan.small(adversary={**test_vqgan.JUDGED, "warmup": 1})
    trainer = test_training.make(folder, method=codec, **{**TOGETHER, "ema_decay": 0.0})
    trainer.fit()
    return trainer.method.network.state_dict(), trainer.method.idle


def validate(folder: Path, rank: int) -> object:
    written, write = [], validation.write_image
    validation.write_image = lambda path, image: written.append(path.stem)
    trainer = predictor(folder, steps=2, validation=IMAGES, precision="fp32", ema_decay=0.5)
    records = trainer.fit().records
    validation.write_image = write
    return records, written, trainer.method.state_dict()


def interrupt(folder: Path, rank: int) -> object:
    class Stopping(RandomBatches):
        def __getitem__(self, index):
            if index == 5:  # the second process's third
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__getitem__(index)

    result = predictor(folder, steps=8, batches=Stopping(), log_every=8, save_every=8).fit()
    return result.step, result.interrupted, result.signal


def save_by_time(folder: Path, rank: int) -> object:
    trainer = predictor(folder, steps=3, save_every=100)
    trainer._clock.due = lambda: rank == 1  # the second process's clock is ahead
    return [record["step"] for record in trainer.fit().records]


def fail_in(where: str, folder: Path, rank: int) -> object:
    def fail(*arguments):
        raise ValueError("no picture")

    class Damaged(RandomBatches):
        def __getitem__(self, index):
            return fail() if index > 2 else super().__getitem__(index)

    options = {"steps": 4, "log_every": 1, "method": srbook.build("predictor")}
    if where == "validation":
        options |= {"validation": lambda method, step: {"figure": 1.0}, "validate_every": 1}
    if rank == (0 if where in ("save", "log") else 1):  # the first process saves and shows
        if where == "data":
            options["batches"] = Damaged()
        elif where == "loss":
            options["method"].loss = fail
        elif where == "not finite":
            loss = options["method"].loss
            options["method"].loss = lambda *batch: {"loss": loss(*batch)["loss"] * float("nan")}
        elif where == "validation":
            options["validation"] = fail
        elif where == "save":
            options["method"].save = fail
        elif where == "log":
            options["on_log"] = fail
    try:
        return test_training.make(folder, **options).fit()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    home, number = Path(sys.argv[1]), int(os.environ["RANK"])
    torch.manual_seed(number)  # the processes start with different weights, and the first one's count
    runs = {"one": train_one, "turns": train_turns, "codes": train_codes, "validate": validate}
    runs |= {"interrupt": interrupt, "time": save_by_time}
    results = {name: run(home / name, number) for name, run in runs.items()}
    results |= {where: fail_in(where, home / where, number) for where in FAILURES}
    torch.save(results, home / f"{number}.pt")
