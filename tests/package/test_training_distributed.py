"""Data-parallel runs of two processes on the CPU: they train as one, fail as one, and share the validation."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import test_training
import test_training_turns
import torch
from rounding import identical
from test_training import RandomBatches
from two_processes import IMAGES, TOGETHER

import srbook
from srbook.degradations import Bicubic
from srbook.training import Validation
from srbook.training.log import read_log

SCRIPT = Path(__file__).parent / "two_processes.py"
LIMIT = 120  # of all trainings in seconds; a process that waits for one that failed would wait for a day


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two-processes")
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", SCRIPT, folder]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def results(folder):
    """What each of the two processes found, by training."""
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


class Both(RandomBatches):
    """The batches of two processes as one."""

    def __getitem__(self, index):
        pairs = [super(Both, self).__getitem__(2 * index + rank) for rank in range(2)]
        return tuple(torch.cat(images) for images in zip(*pairs, strict=True))


def test_two_processes_train_and_log_as_one_on_the_batches_of_both(folder, results):
    torch.manual_seed(0)
    alone = test_training.make(**TOGETHER, method=srbook.build("predictor"), batches=Both())
    expected = alone.fit().records
    for weights, records in (result["one"] for result in results):
        torch.testing.assert_close(weights, alone.method.state_dict(), rtol=0, atol=1e-5)
        assert [record["step"] for record in records] == [2, 4]
        assert [record["loss"] for record in records] == pytest.approx([one["loss"] for one in expected], rel=1e-3)
    assert read_log(folder / "one" / "log.jsonl") == results[0]["one"][1]


def test_two_processes_take_turns_as_one(results):
    alone = test_training_turns.make(**TOGETHER)
    alone.batches = Both()
    alone.fit()
    for result in results:
        torch.testing.assert_close(result["turns"], alone.method.state_dict(), rtol=0, atol=1e-5)


def test_two_processes_replace_the_same_codes(results):
    """Each sees other latents, and would give dead codes other values."""
    (weights, idle), (others, other_idle) = (result["codes"] for result in results)
    torch.testing.assert_close(weights, others, rtol=0, atol=1e-5)
    assert identical(idle, other_idle)


@pytest.mark.parametrize(("where", "guilty"), [("data", 1), ("loss", 1), ("validation", 1), ("save", 0), ("log", 0)])
def test_what_fails_on_one_process_ends_both_with_its_message(results, where, guilty):
    assert results[guilty][where] == "ValueError: no picture"
    assert results[1 - guilty][where] == f"ProcessFailed: process {guilty} failed: ValueError: no picture"


def test_a_loss_that_is_not_finite_on_one_process_ends_both(results):
    messages = [result["not finite"] for result in results]
    assert messages[0] == messages[1]
    start = "TrainingDiverged: training diverged before step 1: loss nan on process 1. Last good checkpoint: none."
    assert messages[0].startswith(start)


def test_the_processes_share_the_validation_images(results):
    """Three images on two processes: the mean is over images, and each is upscaled once."""
    for result, share in zip(results, ("ac", "b"), strict=True):
        records, written, weights = result["validate"]
        assert [path[-1] for path in written] == list(share)
        method = srbook.build("predictor")
        method.load_state_dict(weights)
        expected = Validation(IMAGES, Bicubic(4))(method.eval(), 2)["psnr"]
        assert records[-1]["validation_psnr"] == pytest.approx(expected, abs=1e-3)


def test_a_signal_to_one_process_stops_both_at_the_same_step(results):
    assert [result["interrupt"] for result in results] == [(3, True, signal.SIGTERM)] * 2


def test_one_clock_makes_both_save(folder, results):
    assert [result["time"] for result in results] == [[1, 2, 3]] * 2
    names = sorted(path.stem for path in (folder / "time" / "checkpoints").iterdir())
    assert names == ["step-00000002", "step-00000003"]


def test_another_number_of_processes_is_refused_unless_accepted(folder):
    """Their batches are others."""
    with pytest.raises(ValueError, match=r"another number of processes \(2; now 1\).*--accept-changes"):
        test_training.make(folder / "one", **TOGETHER, method=srbook.build("predictor"))
    changed = test_training.make(folder / "one", **TOGETHER, method=srbook.build("predictor"), accept_changes=True)
    assert changed.start == 4
