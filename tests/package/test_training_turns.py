"""Steps of several turns: a small generator and its discriminator, which is no super-resolution method of the book."""

import json
import math

import pytest
import torch
from rounding import apart, identical
from test_training import RandomBatches
from torch import nn
from torch.nn.functional import l1_loss, pixel_shuffle, softplus

import srbook
from srbook.files import load_tensors, save_tensors
from srbook.methods import Regression
from srbook.training import Trainer, TrainingConfig, TrainingDiverged, Turn
from srbook.training.checkpoint import latest_checkpoint, load_checkpoint
from srbook.training.log import read_log


class TinyGAN(nn.Module):
    """Neither loss detaches anything: that a turn leaves the other's weights alone is the trainer's part."""

    kind, stage = "tiny-gan", "main"

    def __init__(self, noise: float = 0.0):
        super().__init__()
        self.arguments = {"noise": noise}
        self.generator = nn.Conv2d(3, 48, 3, padding=1)
        self.discriminator = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 1, 3))

    def begin(self, stage):
        self.stage = stage

    def fake(self, lr, generator):
        noise = torch.randn(lr.shape, generator=generator)
        return pixel_shuffle(self.generator(lr + self.arguments["noise"] * noise), 4)

    def generator_loss(self, hr, lr, generator=None):
        fake = self.fake(lr, generator)
        pixels, realism = l1_loss(fake, hr), softplus(-self.discriminator(fake)).mean()
        return {"loss": pixels + 0.1 * realism, "pixels": pixels}

    def discriminator_loss(self, hr, lr, generator=None):
        real, fake = self.discriminator(hr), self.discriminator(self.fake(lr, generator))
        return {"loss": softplus(-real).mean() + softplus(fake).mean()}

    def turns(self):
        return [
            Turn("generator", [self.generator], self.generator_loss),
            Turn("discriminator", [self.discriminator], self.discriminator_loss),
        ]

    def save(self, path):
        return save_tensors(path, self.state_dict(), {"format": "tiny-gan"})


def make(folder=None, *, noise=0.0, method=None, **settings):
    torch.manual_seed(0)
    values = {"steps": 6, "learning_rate": 1e-3, "precision": "fp32", "log_every": 2, "save_every": 3, **settings}
    method = method or TinyGAN(noise)
    return Trainer(method, RandomBatches(), TrainingConfig(**values), output=folder, device="cpu", progress=False)


@pytest.mark.arithmetic
@pytest.mark.parametrize("channels_last", [True, False])
def test_turns_alternate_as_in_a_loop_by_hand(channels_last):
    rates = {"discriminator": 4e-3}
    settings = {"schedule": "constant", "clip_norm": math.inf, "ema_decay": 0.0, "learning_rates": rates}
    trainer = make(channels_last=channels_last, **settings)
    torch.manual_seed(0)
    method = TinyGAN()
    first = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    plain = {"betas": (0.9, 0.99), "weight_decay": 0.0, "foreach": False}
    players = [
        (torch.optim.AdamW(method.generator.parameters(), lr=1e-3, **plain), method.generator_loss),
        (torch.optim.AdamW(method.discriminator.parameters(), lr=4e-3, **plain), method.discriminator_loss),
    ]
    for index in range(6):
        for optimizer, loss in players:
            method.zero_grad()
            loss(*RandomBatches()[index])["loss"].backward()
            optimizer.step()
    trainer.fit()
    assert apart(method.state_dict(), trainer.method.state_dict(), first) < 1e-4


def test_only_the_turns_own_weights_require_gradients_in_it():
    method, seen = TinyGAN(), []

    def watched(loss):
        def watching(hr, lr, generator):
            seen.append([part for part in ("generator", "discriminator") if getattr(method, part)._requires()])
            return loss(hr, lr, generator)

        return watching

    for part in (method.generator, method.discriminator):
        part._requires = lambda part=part: all(weight.requires_grad for weight in part.parameters())
    method.turns = lambda: [Turn(turn.name, turn.parameters, watched(turn.loss)) for turn in TinyGAN.turns(method)]
    make(method=method, steps=2).fit()
    assert seen == [["generator"], ["discriminator"]] * 2
    assert all(weight.requires_grad and weight.grad is None for weight in method.parameters())


@pytest.mark.arithmetic
def test_resuming_keeps_both_optimizers_and_the_noise(tmp_path):
    whole = make(tmp_path / "whole", noise=0.1)
    start = {name: tensor.clone() for name, tensor in whole.method.state_dict().items()}
    whole.fit()
    make(tmp_path / "parts", noise=0.1, steps=6, save_every=2).fit()
    for path in (tmp_path / "parts" / "checkpoints").glob("*6.safetensors"):
        path.unlink()
    torch.manual_seed(99)
    second = make(tmp_path / "parts", noise=0.1, save_every=2)
    assert second.start == 4
    kept = load_checkpoint(latest_checkpoint(tmp_path / "parts")).optimizer
    assert identical(second.turns.tensors(), kept)
    names = {f"{turn}.exp_avg" for turn in ("generator/0", "generator/1", *(f"discriminator/{i}" for i in range(4)))}
    assert {name for name in kept if name.endswith("exp_avg")} == names
    second.fit()
    assert apart(whole.method.state_dict(), second.method.state_dict(), start) < 1e-3
    saved, _ = load_tensors(tmp_path / "parts" / "weights.safetensors")
    assert identical(saved, second.method.state_dict())


def test_figures_carry_the_names_of_their_turns(tmp_path):
    records = make(tmp_path, steps=2).fit().records
    assert set(records[0]) == {
        *("step", "generator_loss", "generator_pixels", "generator_gradient_norm"),
        *("discriminator_loss", "discriminator_gradient_norm", "learning_rate", "images_per_second"),
    }
    assert read_log(tmp_path / "log.jsonl") == records
    assert records[0]["generator_loss"] > records[0]["generator_pixels"] > 0


def test_each_turns_loss_must_be_finite():
    method = TinyGAN()
    method.discriminator_loss = lambda hr, lr, generator: {"loss": method.discriminator(hr).mean() * math.nan}
    with pytest.raises(TrainingDiverged, match="before step 1: discriminator loss nan"):
        make(method=method, log_every=1).fit()


def test_turns_that_cannot_be_taken_are_refused():
    method = TinyGAN()
    method.turns = lambda: [Turn(name, [method.generator], method.generator_loss) for name in ("one", "two")]
    with pytest.raises(ValueError, match="two turns of tiny-gan train the same weight"):
        make(method=method)
    method.turns = lambda: [Turn("one", [part], method.generator_loss) for part in method.children()]
    with pytest.raises(ValueError, match="different names, got one, one"):
        make(method=method)
    method.turns = lambda: [Turn("one", [method.generator], method.generator_loss), Turn("two", [], None)]
    with pytest.raises(ValueError, match="no weights to train"):
        make(method=method)


def test_a_turn_trains_tensors_and_modules_each_once():
    method = TinyGAN()
    method.generator.bias.requires_grad_(False)
    parts = [method.generator, method.generator.weight, method.discriminator[0].bias]
    weights = Turn("main", parts, method.generator_loss).weights()
    assert [id(weight) for weight in weights] == [id(method.generator.weight), id(method.discriminator[0].bias)]


def test_a_checkpoint_from_before_there_were_turns_goes_on(tmp_path):
    """As srbook 0.1 wrote it: one optimizer without a name, and fewer settings."""

    def trainer(folder, steps):
        torch.manual_seed(0)
        method = Regression(scale=4, network={"kind": "predictor", "widths": [8, 8]})
        config = TrainingConfig(steps=steps, schedule="constant", precision="fp32")
        return Trainer(method, RandomBatches(), config, output=folder, device="cpu", progress=False)

    trainer(tmp_path / "old", 3).fit()
    path = latest_checkpoint(tmp_path / "old")
    tensors, metadata = load_tensors(path)
    about = json.loads(metadata["about"])
    for setting in ("floor", "milestones", "factor"):
        del about["config"][setting]
    old = {name.replace("optimizer/main/", "optimizer/"): tensor for name, tensor in tensors.items()}
    assert "optimizer/0.exp_avg" in old
    save_tensors(path, old, {"format": "srbook-training-1", "about": json.dumps(about)})
    again, whole = trainer(tmp_path / "old", 6), trainer(tmp_path / "new", 6)
    assert again.start == 3
    assert identical(
        again.turns.tensors(), {n.removeprefix("optimizer/"): t for n, t in tensors.items() if "main" in n}
    )
    start = {name: tensor.clone() for name, tensor in whole.method.state_dict().items()}
    again.fit()
    whole.fit()
    assert apart(whole.method.state_dict(), again.method.state_dict(), start) < 1e-3


def test_frozen_parts_must_be_the_same(tmp_path):
    def gan(**hashes):
        method = TinyGAN()
        method.frozen = lambda: hashes
        return method

    make(tmp_path / "with", method=gan(codec="a1", teacher="b1"), steps=1).fit()
    assert make(tmp_path / "with", method=gan(codec="a1", teacher="b1"), steps=2).start == 1
    with pytest.raises(ValueError, match=r"was made with other frozen parts: codec\. Choose another output folder"):
        make(tmp_path / "with", method=gan(codec="a2", teacher="b1"))
    with pytest.raises(ValueError, match="other frozen parts: codec, teacher"):
        make(tmp_path / "with", method=TinyGAN())
    make(tmp_path / "without", method=TinyGAN(), steps=1).fit()  # as before there were frozen parts
    assert make(tmp_path / "without", method=gan(codec="a1"), steps=2).start == 1


def test_a_method_has_one_turn_with_what_its_stage_trains():
    method = srbook.build("srdiff-tiny")
    method.begin("encoder")
    (turn,) = method.turns()
    assert turn.name == "main" and turn.loss == method.loss
    assert {id(weight) for weight in turn.weights()} == {id(w) for w in method.parameters() if w.requires_grad}
