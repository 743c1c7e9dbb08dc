"""The trainer: schedules by value, exact resume, interruption, divergence, and refused folders."""

import errno
import json
import math
import os
import resource
import signal
import subprocess
import sys

import pytest
import torch
from rounding import apart, identical

import srbook
from srbook.images import round_to_8bit
from srbook.methods import Method, Regression
from srbook.training import EMA, Trainer, TrainingConfig, TrainingDiverged, ema_decay_at, learning_rate_factor
from srbook.training.checkpoint import latest_checkpoint, load_checkpoint
from srbook.training.log import read_log

pytestmark = pytest.mark.usefixtures("default_signals")


class RandomBatches:
    """Smooth random images; item i is a function of i alone."""

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        lr = torch.rand(2, 3, 6, 6, generator=generator)
        return torch.nn.functional.interpolate(lr, scale_factor=4, mode="bilinear"), lr


def make(tmp=None, *, steps=6, batches=None, method=None, **settings):
    torch.manual_seed(0)
    method = method or srbook.build("predictor")
    passed = ("restart", "validation", "on_log", "workers", "origin", "accept_changes")
    options = {key: settings.pop(key) for key in passed if key in settings}
    values = {"steps": steps, "learning_rate": 1e-3, "warmup": 2, "save_every": 3, "log_every": 2, **settings}
    config = TrainingConfig(**values)
    return Trainer(method, batches or RandomBatches(), config, output=tmp, device="cpu", progress=False, **options)


def test_learning_rate_factor_by_value():
    settings = {"steps": 12, "warmup": 2}
    factors = [learning_rate_factor(step, schedule="cosine", **settings) for step in range(13)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    for step in range(2, 13):
        assert factors[step] == pytest.approx((1 + math.cos(math.pi * (step - 2) / 10)) / 2)
    assert factors[12] == pytest.approx(0)
    assert learning_rate_factor(11, schedule="constant", **settings) == 1.0
    assert learning_rate_factor(0, steps=3, warmup=0, schedule="constant") == 1.0


def test_the_cosine_ends_at_its_floor_and_stays_there():
    settings = {"steps": 12, "warmup": 2, "schedule": "cosine", "floor": 0.1}
    factors = [learning_rate_factor(step, **settings) for step in (0, 1, 2, 7, 12, 20)]
    assert factors == pytest.approx([0.5, 1.0, 1.0, 0.55, 0.1, 0.1])


def test_multistep_multiplies_at_each_milestone():
    settings = {"steps": 12, "warmup": 2, "schedule": "multistep", "milestones": (4, 6, 11), "factor": 0.1}
    factors = [learning_rate_factor(step, **settings) for step in range(12)]
    assert factors == pytest.approx([0.5, 1, 1, 1, 0.1, 0.1, *[0.01] * 5, 0.001])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"schedule": "cosine", "floor": 0.5}, [1.0, 0.875, 0.625]),
        ({"schedule": "multistep", "milestones": [1, 2], "factor": 0.3}, [1.0, 0.3, 0.09]),
    ],
)
def test_the_optimizer_gets_the_rates_of_the_schedule(settings, expected):
    records = make(steps=3, warmup=0, log_every=1, **settings).fit().records
    assert [record["learning_rate"] for record in records] == pytest.approx([1e-3 * factor for factor in expected])


def test_settings_of_another_schedule_are_refused():
    for settings in ({"schedule": "multistep"}, {"milestones": (3,)}):
        with pytest.raises(ValueError, match="multistep needs milestones and no other has them"):
            TrainingConfig(**settings)
    with pytest.raises(ValueError, match="floor belongs to schedule cosine"):
        TrainingConfig(schedule="constant", floor=0.1)


def test_ema_equals_the_recursion_written_out():
    module = torch.nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        module.weight.fill_(1.0)
    ema = EMA(module, decay=0.5)
    expected = 1.0
    for step, value in enumerate([3.0, -2.0, 5.0, 7.0]):
        with torch.no_grad():
            module.weight.fill_(value)
        ema.update(module, step)
        decay = min(0.5, (1 + step) / (10 + step))
        assert ema_decay_at(step, 0.5) == decay
        expected = decay * expected + (1 - decay) * value
        assert ema.weights["weight"].flatten().tolist() == pytest.approx([expected] * 2)


def test_ema_averages_tied_weights_under_both_names():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    module[1].weight = module[0].weight
    ema = EMA(module, decay=0.5)
    with torch.no_grad():
        module[0].weight += 1
    ema.update(module, step=100)
    assert identical(ema.weights["0.weight"], ema.weights["1.weight"])
    assert not torch.allclose(ema.weights["1.weight"], module[1].weight)


def test_ema_copies_buffers():
    module = torch.nn.BatchNorm1d(2)
    ema = EMA(module, decay=0.9)
    module.running_mean.fill_(4.0)
    ema.update(module, 0)
    assert ema.weights["running_mean"].tolist() == [4.0, 4.0]


@pytest.mark.arithmetic
def test_one_step_is_adamw_on_the_loss():
    """The first update, computed by hand: Adam's first step is the learning rate times the gradient's sign."""
    trainer = make(steps=1, warmup=0, schedule="constant", precision="fp32", clip_norm=math.inf, ema_decay=0)
    before = [parameter.detach().clone() for parameter in trainer.method.parameters()]
    hr, lr = RandomBatches()[0]
    trainer.method.loss(hr, lr)["loss"].backward()
    gradients = [parameter.grad.clone() for parameter in trainer.method.parameters()]
    trainer.method.zero_grad()
    trainer.fit()
    for old, gradient, parameter in zip(before, gradients, trainer.method.parameters(), strict=True):
        expected = old - 1e-3 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=1e-6)


def test_each_element_of_a_gradient_is_cut_before_the_norm_is_taken():
    """SGD would show the cut itself; Adam's first step does not see sizes, so the recorded norm must."""
    trainer = make(steps=1, warmup=0, precision="fp32", clip_norm=math.inf, clip_value=1e-3)
    trainer.method.loss(*RandomBatches()[0])["loss"].backward()
    elements = torch.cat([weight.grad.flatten() for weight in trainer.method.parameters()])
    trainer.method.zero_grad()
    assert elements.abs().max() > 5e-3
    norm = trainer.fit().records[-1]["gradient_norm"]
    assert norm == pytest.approx(elements.clamp(-1e-3, 1e-3).norm().item(), rel=1e-5)


def test_parts_of_a_method_have_their_own_learning_rates(tmp_path):
    """Adam's first step is the rate times the sign, for each part with its own rate; warm-up scales both."""
    rates, after = {"encoder": 1e-5}, []
    settings = {"precision": "fp32", "ema_decay": 0, "clip_norm": math.inf, "learning_rates": rates, "log_every": 1}
    trainer = make(tmp_path, steps=2, method=srbook.build("ecdp-tiny"), warmup=2, **settings)

    def weights():
        return {name: weight.detach().clone() for name, weight in trainer.method.named_parameters()}

    before, trainer.on_log = weights(), lambda records: after.append(weights())
    records = trainer.fit().records
    moved = {name: (weight - before[name]).abs().max().item() for name, weight in after[0].items()}
    for part, rate in (("encoder", 5e-6), ("network", 5e-4)):
        assert max(far for name, far in moved.items() if name.startswith(part)) == pytest.approx(rate, rel=2e-2)
    assert records[0]["learning_rate"] == pytest.approx(5e-4)
    again = make(tmp_path, steps=3, method=srbook.build("ecdp-tiny"), warmup=2, **settings)
    assert again.start == 2 and len(again.fit().records) == 3


def test_a_learning_rate_for_a_part_that_is_not_trained_is_refused():
    with pytest.raises(ValueError, match="learning_rates names 'decoder'; what is trained here: encoder, network"):
        make(method=srbook.build("ecdp-tiny"), learning_rates={"decoder": 1e-3})


@pytest.mark.arithmetic
def test_training_lowers_the_loss_and_logs_it(tmp_path):
    result = make(tmp_path, steps=40, log_every=10, save_every=20, ema_decay=0.5).fit()
    losses = [record["loss"] for record in result.records]
    assert losses[-1] < 0.8 * losses[0]
    assert [record["step"] for record in result.records] == [10, 20, 30, 40]
    assert read_log(tmp_path / "log.jsonl") == result.records
    assert all(record["images_per_second"] > 0 for record in result.records)


@pytest.mark.arithmetic
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stop_at", [3, 5])
def test_resumed_run_equals_uninterrupted_run(tmp_path, stop_at, precision):
    whole = make(tmp_path / "whole", steps=8, precision=precision)
    whole.fit()

    class Stopping(RandomBatches):
        def __getitem__(self, index):
            if index == stop_at - 1:
                os.kill(os.getpid(), signal.SIGINT)
            return super().__getitem__(index)

    first = make(tmp_path / "parts", steps=8, precision=precision, batches=Stopping()).fit()
    assert first.interrupted and first.step == stop_at
    torch.manual_seed(99)  # the second part must not depend on the global generator
    second = make(tmp_path / "parts", steps=8, precision=precision)
    kept = load_checkpoint(latest_checkpoint(tmp_path / "parts"))
    assert second.start == kept.step == stop_at
    assert identical(second.method.state_dict(), kept.weights) and identical(second.ema.weights, kept.ema)
    assert identical(second.turns.tensors(), kept.optimizer)
    result = second.fit()
    assert not result.interrupted and result.step == 8
    start, share = make().method.state_dict(), {"fp32": 1e-3, "bf16": 1e-2}[precision]
    a, b = (load_checkpoint(latest_checkpoint(tmp_path / run)) for run in ("whole", "parts"))
    assert apart(a.weights, b.weights, start) < share and apart(a.ema, b.ema, start) < share
    assert identical(second.method.state_dict(), b.ema)
    shipped = srbook.load(tmp_path / "parts" / "weights.safetensors")
    assert identical(shipped.state_dict(), second.method.state_dict())
    assert [record["step"] for record in read_log(tmp_path / "parts" / "log.jsonl")][-1] == 8


def test_ctrl_c_restores_the_handler_and_leaves_no_temporary_files(tmp_path):
    before = signal.getsignal(signal.SIGINT)

    class Stopping(RandomBatches):
        def __getitem__(self, index):
            os.kill(os.getpid(), signal.SIGINT)
            return super().__getitem__(index)

    result = make(tmp_path, batches=Stopping()).fit()
    assert result.interrupted and result.step == 1
    assert signal.getsignal(signal.SIGINT) is before
    assert not list(tmp_path.rglob(".*"))


def test_checkpoints_keep_the_last_two(tmp_path):
    make(tmp_path, steps=12, save_every=3).fit()
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == [
        "step-00000009.safetensors",
        "step-00000012.safetensors",
    ]


def test_diverging_run_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    trainer = make(tmp_path, steps=9)

    def poison(records):
        if records[-1]["step"] == 4:
            with torch.no_grad():
                next(trainer.method.parameters()).fill_(float("inf"))

    trainer.on_log = poison
    with pytest.raises(TrainingDiverged, match=r"Last good checkpoint: .*step-00000003.safetensors"):
        trainer.fit()
    checkpoint = load_checkpoint(latest_checkpoint(tmp_path))
    assert checkpoint.step == 3
    assert all(torch.isfinite(tensor).all() for tensor in checkpoint.weights.values())
    assert all(math.isfinite(record["loss"]) for record in read_log(tmp_path / "log.jsonl"))


def test_validation_measures_the_averaged_weights_and_writes_images(tmp_path):
    hr = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8), scale_factor=4, mode="bicubic").clamp(0, 1)
    trainer = make(tmp_path, steps=4, validation={"blob": hr}, validate_every=2)
    result = trainer.fit()
    recorded = [record["validation_psnr"] for record in result.records if "validation_psnr" in record]
    lr = srbook.degradations.bicubic_downsample(hr, 4)
    final = srbook.metrics.psnr(round_to_8bit(trainer.method.upscale(lr).image), hr, channel="y", border=4)
    assert len(recorded) == 2
    assert recorded[-1] == pytest.approx(final.item(), abs=1e-4)
    assert (tmp_path / "validation" / "step-00000004-blob.png").is_file()


def test_validation_by_a_function_sees_the_averaged_weights():
    seen = []

    def validation(method, step):
        assert not method.training and not torch.is_grad_enabled()
        seen.append({name: tensor.clone() for name, tensor in method.state_dict().items()})
        return {"figure": step / 10, "other": 1.0}

    trainer = make(steps=4, validation=validation, validate_every=2)
    records = [record for record in trainer.fit().records if "validation_figure" in record]
    assert records == [{"step": step, "validation_figure": step / 10, "validation_other": 1.0} for step in (2, 4)]
    assert identical(seen[-1], trainer.ema.weights)


def test_on_log_sees_every_record():
    seen = []
    make(steps=6, on_log=lambda records: seen.append(len(records))).fit()
    assert seen == [1, 2, 3]


@pytest.mark.forks
def test_workers_give_the_same_batches(tmp_path):
    alone, helped = make(steps=3, precision="fp32"), make(steps=3, precision="fp32", workers=1)
    alone.fit()
    helped.fit()
    assert apart(alone.method.state_dict(), helped.method.state_dict(), make().method.state_dict()) < 1e-3


def test_folder_of_another_run_is_refused(tmp_path):
    make(tmp_path).fit()
    with pytest.raises(ValueError, match="belongs to another method"):
        make(tmp_path, method=srbook.build("srcnn"))
    with pytest.raises(ValueError, match=r"other settings \(learning_rate, seed\)"):
        make(tmp_path, learning_rate=1e-4, seed=3)
    assert make(tmp_path, restart=True, learning_rate=1e-4).start == 0
    assert make(tmp_path, steps=20).start == 6


def test_restart_replaces_the_old_checkpoints(tmp_path):
    make(tmp_path, steps=6).fit()
    make(tmp_path, steps=3, restart=True).fit()
    assert [path.stem for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]


def test_damaged_checkpoint_is_named(tmp_path):
    make(tmp_path).fit()
    path = latest_checkpoint(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(UserWarning, match=r"step-00000006\.safetensors is not a readable .*; going on from .*00003\."):
        trainer = make(tmp_path)
    assert trainer.start == 3


def test_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    """A full disk: the file being written fails, what was there stays."""
    make(tmp_path, steps=3).fit()
    before = (tmp_path / "weights.safetensors").read_bytes()

    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("srbook.files.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        make(tmp_path, steps=6).fit()
    assert (tmp_path / "weights.safetensors").read_bytes() == before
    assert load_checkpoint(latest_checkpoint(tmp_path)).step == 3
    assert not list(tmp_path.rglob(".*"))


def test_a_disk_that_refuses_is_an_error_of_the_system(tmp_path):
    """What safetensors raises for a full disk is its own; here the limit on a file's size stands for the full disk."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    trainer = make(tmp_path, steps=3)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, unlimited[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            trainer.fit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert caught.value.errno == errno.EFBIG and "weights.safetensors" in caught.value.filename
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"log.jsonl", "run.lock"}


def test_weights_that_a_crash_prevented_come_with_the_resumed_run(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(Method, "save", lambda self, path: (_ for _ in ()).throw(OSError("full")))
        make(tmp_path, steps=3).fit()
    trainer = make(tmp_path, steps=3)
    trainer.fit()
    saved = srbook.load(tmp_path / "weights.safetensors").state_dict()
    assert identical(saved, trainer.method.state_dict())


@pytest.mark.parametrize("callback", ["validation", "on_log"])
def test_a_step_is_saved_before_it_is_shown(tmp_path, monkeypatch, callback):
    def fail(*arguments):
        raise RuntimeError("cannot draw")

    if callback == "validation":
        monkeypatch.setattr("srbook.training.validation.write_image", fail)
    options = {"on_log": fail} if callback == "on_log" else {"validation": {"a": torch.rand(1, 3, 16, 16)}}
    with pytest.raises(RuntimeError, match="cannot draw"):
        make(tmp_path, steps=3, log_every=3, **options).fit()
    assert load_checkpoint(latest_checkpoint(tmp_path)).step == 3


def test_fewer_steps_than_done_change_nothing(tmp_path):
    whole = make(tmp_path, steps=6)
    whole.fit()
    log = (tmp_path / "log.jsonl").read_text()
    again = make(tmp_path, steps=2)
    result = again.fit()
    assert result.step == 6 and not result.interrupted
    assert (tmp_path / "log.jsonl").read_text() == log
    assert identical(again.method.state_dict(), whole.method.state_dict())


def test_tuples_in_the_arguments_do_not_hinder_resuming(tmp_path):
    def method():
        return Regression(scale=4, network={"kind": "predictor", "widths": (8, 8)})

    make(tmp_path, steps=3, method=method()).fit()
    assert make(tmp_path, steps=6, method=method()).start == 3


def test_a_trainer_runs_once(tmp_path):
    """It holds the averaged weights afterwards, so that going on from them would be another training."""
    trainer = make(tmp_path, steps=3)
    trainer.fit()
    with pytest.raises(RuntimeError, match="make a new Trainer"):
        trainer.fit()
    assert load_checkpoint(latest_checkpoint(tmp_path)).step == 3


def test_ctrl_c_in_the_last_step_is_no_interruption(tmp_path, capsys):
    class Stopping(RandomBatches):
        def __getitem__(self, index):
            if index == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return super().__getitem__(index)

    result = make(tmp_path, steps=3, batches=Stopping()).fit()
    assert result.step == 3 and not result.interrupted
    assert load_checkpoint(latest_checkpoint(tmp_path)).step == 3
    assert capsys.readouterr() == ("", "")  # progress=False shows nothing


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(1, 3, 33, 32), "validation image 'a' is 33 x 32; its sides must be divisible by the scale 4"),
        (torch.rand(1, 3, 8, 32), "longer than 8"),
        (torch.rand(3, 32, 32), r"validation image 'a' must have shape \(N, 3, H, W\)"),
        (torch.rand(2, 3, 32, 32), "must be one image of shape .* got a batch of 2"),
    ],
)
def test_bad_validation_images_are_refused_before_the_training(image, message):
    with pytest.raises(ValueError, match=message):
        make(validation={"a": image})


def test_devices_are_known_and_there():
    batches, config = RandomBatches(), TrainingConfig()
    with pytest.raises(ValueError, match="auto, cpu, or cuda, got 'gpu'"):
        Trainer(srbook.build("predictor"), batches, config, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="'cuda' was asked for, but this process computes on 'cpu'"):
            Trainer(srbook.build("predictor"), batches, config, device="cuda")


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="bicubic has no weights"):
        make(method=srbook.build("bicubic"))


def test_config_refuses_unknown_and_impossible_settings():
    with pytest.raises(ValueError, match="optimiser"):
        TrainingConfig(optimiser="sgd")
    with pytest.raises(ValueError, match="greater than 0"):
        TrainingConfig(steps=0)
    with pytest.raises(ValueError, match="less than 1"):
        TrainingConfig(ema_decay=1.0)


def test_log_skips_a_cut_last_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"step": 1}) + '\n{"step": 2, "lo')
    assert read_log(path) == [{"step": 1}]
    path.write_text('{"step"\n' + json.dumps({"step": 1}) + "\n")
    with pytest.raises(ValueError, match="line 1"):
        read_log(path)


@pytest.mark.arithmetic
def test_resuming_is_exact_with_dropout_and_leaves_the_global_generator_alone(tmp_path):
    """Dropout draws from torch's global generator, whose state no checkpoint holds."""

    def trainer(folder, steps):
        torch.manual_seed(1)  # the fresh weights
        network = {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [], "groups": 4, "dropout": 0.5}
        schedule = {"steps": 20, "start": 1e-3, "end": 0.2}
        method = srbook.methods.SR3(scale=4, schedule=schedule, network=network)
        config = TrainingConfig(steps=steps, batch_size=2, patch_size=16, schedule="constant", precision="fp32")
        return Trainer(method, RandomBatches(), config, output=folder, device="cpu", progress=False)

    whole = trainer(tmp_path / "whole", 4)
    start = {name: tensor.clone() for name, tensor in whole.method.state_dict().items()}
    whole.fit()
    trainer(tmp_path / "parts", 2).fit()
    second = trainer(tmp_path / "parts", 4)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    second.fit()
    assert identical(torch.get_rng_state(), before)
    assert apart(whole.method.state_dict(), second.method.state_dict(), start) < 1e-3


def test_the_registry_knows_no_trainer():
    above = "('srbook.training', 'accelerate')"
    code = f"import srbook.registry, sys; print([name for name in sys.modules if name.startswith({above})])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
