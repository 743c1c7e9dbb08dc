"""Trainings that lose nothing: signals, errors, clocks, locks, and what a run may go on from."""

import json
import math
import os
import signal
import threading
import warnings

import pytest
import test_training_turns
import torch
from filelock import FileLock
from rounding import apart
from test_training import RandomBatches, make

from srbook.files import load_tensors, save_tensors
from srbook.training import TrainingConfig, TrainingDiverged
from srbook.training.checkpoint import latest_checkpoint, load_checkpoint
from srbook.training.folder import locked
from srbook.training.log import TrainingLog, read_log

pytestmark = pytest.mark.usefixtures("default_signals")


class Acting(RandomBatches):
    """Does something before a batch is made."""

    def __init__(self, at, act):
        self.at, self.act = at, act

    def __getitem__(self, index):
        if index == self.at:
            self.act()
        return super().__getitem__(index)


def failing(message="photo.png is damaged"):
    def fail(*arguments):
        raise ValueError(message)

    return fail


def saved_step(folder):
    return load_checkpoint(latest_checkpoint(folder)).step


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_that_end_a_process_finish_the_step_and_save(tmp_path, number):
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    times = 1 if number == signal.SIGINT else 2  # a terminal that closes sends its signal twice
    stopping = Acting(1, lambda: [os.kill(os.getpid(), number) for _ in range(times)])
    result = make(tmp_path, save_every=100, batches=stopping).fit()
    assert (result.interrupted, result.signal, result.step) == (True, number, 2)
    assert saved_step(tmp_path) == 2
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    stopping = Acting(4, lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, steps=9, batches=stopping).fit()
    assert saved_step(tmp_path) == 3


def test_an_ignored_signal_stays_ignored():
    """As `nohup` wants."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        result = make(batches=Acting(1, lambda: os.kill(os.getpid(), signal.SIGHUP))).fit()
        assert not result.interrupted and result.step == 6
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_trains_without_signals(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(make(tmp_path, steps=3).fit()))
    thread.start()
    thread.join()
    assert results[0].step == 3 and saved_step(tmp_path) == 3


@pytest.mark.arithmetic
def test_an_error_saves_the_steps_before_it(tmp_path):
    """A damaged picture in mid-run; once it is mended, the run ends as if there had been none."""
    with pytest.raises(ValueError, match=r"photo\.png is damaged"):
        make(tmp_path / "parts", save_every=100, batches=Acting(4, failing())).fit()
    assert saved_step(tmp_path / "parts") == 4
    again, whole = make(tmp_path / "parts", save_every=100), make(tmp_path / "whole")
    again.fit()
    whole.fit()
    assert apart(whole.method.state_dict(), again.method.state_dict(), make().method.state_dict()) < 1e-3


@pytest.mark.parametrize("where", ["validation", "on_log", "log"])
def test_an_error_after_a_step_saves_it(tmp_path, monkeypatch, where):
    options = {"validation": {"validation": failing(), "validate_every": 2}, "on_log": {"on_log": failing()}, "log": {}}
    if where == "log":
        monkeypatch.setattr(TrainingLog, "add", failing())
    with pytest.raises(ValueError, match="damaged"):
        make(tmp_path, save_every=100, **options[where]).fit()
    assert saved_step(tmp_path) == 2


def test_an_error_leaves_no_trace_of_the_step_that_failed(tmp_path):
    """Not in a buffer that the forward pass changes, and not in the weights of the first of two turns."""
    method = test_training_turns.TinyGAN()
    method.register_buffer("seen", torch.zeros(()))
    losses = {"generator": method.generator_loss, "discriminator": method.discriminator_loss}

    def failing_in(turn, step):
        def loss(hr, lr, generator):
            method.seen += turn == "generator"
            if method.seen == step:
                raise ValueError("no memory left")
            return losses[turn](hr, lr, generator)

        return loss

    method.generator_loss = failing_in("generator", 3)
    with pytest.raises(ValueError, match="no memory"):
        test_training_turns.make(tmp_path / "first", method=method, save_every=100).fit()
    checkpoint = load_checkpoint(latest_checkpoint(tmp_path / "first"))
    assert checkpoint.step == 2 and checkpoint.weights["seen"] == 2

    method.seen.zero_()
    method.generator_loss, method.discriminator_loss = failing_in("generator", 99), failing_in("discriminator", 3)
    with pytest.raises(ValueError, match="no memory"):
        test_training_turns.make(tmp_path / "second", method=method, save_every=1).fit()
    assert saved_step(tmp_path / "second") == 2


def test_a_weight_that_is_not_finite_is_not_saved(tmp_path):
    trainer = make(tmp_path, steps=9)

    def poison(records):
        if records[-1]["step"] == 4:
            next(iter(trainer.ema.weights.values())).fill_(math.inf)  # no loss shows it

    trainer.on_log = poison
    with pytest.raises(TrainingDiverged, match=r"before step 6: ema/\S+ holds a number .*checkpoint: .*-00000003\."):
        trainer.fit()
    assert saved_step(tmp_path) == 3


def test_a_diverged_run_does_not_save_when_it_ends(tmp_path):
    trainer = make(tmp_path, steps=9, save_every=100, validation=lambda method, step: {}, validate_every=2)

    def poison(records):
        if records[-1]["step"] == 2:
            next(trainer.method.parameters()).data.fill_(math.nan)
            raise ValueError("something else")

    trainer.on_log = poison
    with pytest.raises(ValueError, match="something else"):
        trainer.fit()
    trainer = make(tmp_path, steps=9, save_every=100)
    trainer.on_log, trainer.batches = poison, Acting(3, failing())
    assert trainer.start == 2


def test_checkpoints_come_by_time_too(tmp_path):
    make(tmp_path, steps=4, save_every=100, save_minutes=1e-9).fit()
    names = sorted(path.stem for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000003", "step-00000004"]


def test_damaged_checkpoints_are_set_aside(tmp_path):
    make(tmp_path).fit()
    latest_checkpoint(tmp_path).write_bytes(b"nothing")
    with pytest.warns(UserWarning, match="going on from"):
        trainer = make(tmp_path, steps=4)
    trainer.fit()
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000003.safetensors", "step-00000004.safetensors", "step-00000006.damaged"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make(tmp_path, steps=5).start == 4


def test_one_run_at_a_time_writes_to_a_folder(tmp_path):
    trainer = make(tmp_path, steps=3)
    tmp_path.joinpath("run.lock").touch()
    with (
        FileLock(tmp_path / "run.lock"),
        pytest.raises(ValueError, match=r"another run is writing to .*; wait"),
    ):
        trainer.fit()
    assert {path.name for path in tmp_path.iterdir()} == {"run.lock"}
    with locked(tmp_path):  # as the command line holds it around its stages
        make(tmp_path, steps=3).fit()
    with FileLock(tmp_path / "run.lock", timeout=0):
        pass  # it is given back


def test_a_run_that_another_one_has_overtaken_is_refused(tmp_path):
    first = make(tmp_path, steps=3)
    make(tmp_path, steps=6).fit()
    with pytest.raises(ValueError, match=r"another run has written to .* since this trainer was made"):
        first.fit()
    assert saved_step(tmp_path) == 6


def test_what_a_killed_run_left_is_cleared(tmp_path):
    make(tmp_path, steps=3).fit()
    for place in (tmp_path, tmp_path / "checkpoints", tmp_path / "validation"):
        place.mkdir(exist_ok=True)
        (place / ".srbook-abc.safetensors").touch()
    make(tmp_path, steps=4).fit()
    assert not list(tmp_path.rglob(".srbook-*"))


def test_restart_deletes_the_run(tmp_path):
    hr = torch.rand(1, 3, 16, 16)
    make(tmp_path, steps=3, validation={"old": hr}).fit()
    latest_checkpoint(tmp_path).with_suffix(".damaged").touch()
    trainer = make(tmp_path, steps=3, restart=True, batches=Acting(0, failing()))
    assert (tmp_path / "weights.safetensors").is_file()  # nothing is lost before it begins
    with pytest.raises(ValueError, match="damaged"):
        trainer.fit()
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"run.lock", "log.jsonl"}


class Marked(RandomBatches):
    def __init__(self, fingerprint):
        self.fingerprint = fingerprint


def test_other_data_are_refused_unless_accepted(tmp_path):
    make(tmp_path, steps=3, batches=Marked("2 images a")).fit()
    assert make(tmp_path, batches=Marked("2 images a")).start == 3
    assert make(tmp_path).start == 3  # of these nothing is known
    with pytest.raises(ValueError, match=r"other training data \(2 images a; now 3 images b\).*--accept-changes"):
        make(tmp_path, batches=Marked("3 images b"))
    trainer = make(tmp_path, batches=Marked("3 images b"), accept_changes=True)
    trainer.fit()
    assert load_checkpoint(latest_checkpoint(tmp_path)).data == "3 images b"


def test_checkpoints_of_the_second_format_go_on(tmp_path):
    """They say nothing of data, processes, and what they began with, and their settings would be refused today."""
    make(tmp_path, steps=3, batches=Marked("2 images a")).fit()
    path = latest_checkpoint(tmp_path)
    tensors, metadata = load_tensors(path)
    about = {key: value for key, value in json.loads(metadata["about"]).items() if key in ("step", "method", "config")}
    del about["config"]["save_minutes"]
    about["config"] |= {"warmup": 20, "steps": 3}
    save_tensors(path, tensors, {"format": "srbook-training-2", "about": json.dumps(about)})
    with pytest.raises(ValueError, match=r"other settings \(warmup\)"):
        make(tmp_path, steps=6, batches=Marked("2 images b"), origin="x")
    about["config"]["warmup"] = 2
    save_tensors(path, tensors, {"format": "srbook-training-2", "about": json.dumps(about)})
    assert make(tmp_path, steps=6, batches=Marked("2 images b"), origin="x").start == 3


@pytest.mark.arithmetic
def test_the_log_is_strict_json(tmp_path):
    figures = {"psnr": math.inf, "lpips": math.nan, "ssim": 0.5}
    make(tmp_path, steps=3, validation=lambda method, step: figures, validate_every=3).fit()

    def refuse(constant):
        raise AssertionError(constant)

    last = (tmp_path / "log.jsonl").read_text().splitlines()[-1]
    expected = {"step": 3, "validation_psnr": None, "validation_lpips": None, "validation_ssim": 0.5}
    assert json.loads(last, parse_constant=refuse) == expected
    make(tmp_path, steps=4).fit()  # a resumed run reads and writes it
    record = next(record for record in read_log(tmp_path / "log.jsonl") if "validation_psnr" in record)
    assert math.isnan(record["validation_psnr"]) and record["validation_ssim"] == 0.5


@pytest.mark.parametrize("line", ["[1]", "3", '{"loss": 1.0}', '{"step": "one"}'])
def test_a_log_with_other_lines_is_refused(tmp_path, line):
    (tmp_path / "log.jsonl").write_text(f'{line}\n{{"step": 1}}\n')
    with pytest.raises(ValueError, match=r"log\.jsonl, line 1: not a record"):
        read_log(tmp_path / "log.jsonl")


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def unpicklable():
    raise Unpicklable("one", "two")


@pytest.mark.forks
@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (failing(), ValueError, r"^photo\.png is damaged$"),
        (unpicklable, RuntimeError, "^Unpicklable: one and two$"),
    ],
)
def test_the_error_of_a_worker_process_arrives_as_it_is(tmp_path, act, error, message):
    with pytest.raises(error, match=message):
        make(tmp_path, workers=1, save_every=100, batches=Acting(3, act)).fit()
    assert saved_step(tmp_path) == 3


def test_a_worker_process_that_dies_is_one_clear_line(tmp_path):
    """torch raises this in the midst of whatever the main thread does; benchmarks.attack kills a real one."""

    def die(records):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    with pytest.raises(ChildProcessError, match=r"^a process that prepares batches has died .*--workers 0"):
        make(tmp_path, save_every=100, on_log=die).fit()
    assert saved_step(tmp_path) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 10, "warmup": 11}, "warmup must be at most steps, got 11 of 10"),
        ({"betas": (0.9, 1.0)}, "less than 1"),
        ({"betas": (-0.1, 0.9)}, "greater than or equal to 0"),
        ({"betas": (0.9,)}, "Field required"),
        ({"learning_rate": math.inf}, "finite"),
        ({"learning_rate": math.nan}, "greater than 0|finite"),
        ({"learning_rates": {"encoder": math.inf}}, "finite"),
        ({"weight_decay": math.inf}, "finite"),
        ({"schedule": "multistep", "milestones": (5, 5)}, "milestones must rise, got 5, 5"),
        ({"save_minutes": 0}, "greater than 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**settings)


def test_a_warm_up_that_fills_the_run_stretches_with_it():
    short = TrainingConfig(steps=3, warmup=3).model_dump(mode="json")
    assert TrainingConfig(steps=9, warmup=9).must_match(short) == []
    assert TrainingConfig(steps=9, warmup=4).must_match({**short, "steps": 5}) == ["warmup"]
