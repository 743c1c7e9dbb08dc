"""Presets: what they may say, what they take from others, and what is found wrong when they are read."""

from pathlib import Path

import pytest
import torch
from rounding import identical

from srbook import registry
from srbook.codecs import CODECS
from srbook.methods import METHODS
from srbook.registry import begin_from, build, read_preset

BASE = """
summary: a method of two stages
method: srdiff
arguments: {scale: 4, schedule: {steps: 100}, encoder: {width: 16, growth: 8, blocks: 2}, network: {width: 32}}
degradation: {kind: noisy, std: 0.1}
training: {encoder: {steps: 10, batch_size: 2}, diffusion: {steps: 20}}
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes presets in an empty folder."""
    monkeypatch.setattr(registry, "_PRESETS", tmp_path)

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.yaml").write_text(text)

    return write


@pytest.mark.parametrize("name", registry.presets())
def test_presets_that_ship_are_read(name: str):
    preset = read_preset(name)
    assert preset.degradation == "bicubic" and (preset.starts_from is not None) == (
        preset.method in ("sinsr", "hfdiff") or name == "resshift-15-small"
    )
    kinds = METHODS if preset.method in METHODS else CODECS
    assert tuple(preset.training) in ((), kinds[preset.method].stage_names())


def test_a_preset_changes_the_one_that_it_extends(write):
    write("base", BASE)
    write("child", "summary: mine\nextends: base\narguments: {encoder: {blocks: 4}}\ntraining: {encoder: {steps: 5}}")
    write("grandchild", "extends: child\ndegradation: {std: 0.2}\nstarts_from: base")
    base, child, grandchild = (read_preset(name) for name in ("base", "child", "grandchild"))
    assert child.summary == "mine" and child.method == "srdiff" and child.degradation == base.degradation
    assert child.arguments == base.arguments | {"encoder": {"width": 16, "growth": 8, "blocks": 4}}
    assert child.training["encoder"].steps == 5 and child.training["encoder"].batch_size == 2
    assert child.training["diffusion"] == base.training["diffusion"]
    assert grandchild.extends == "child" and grandchild.arguments == child.arguments
    assert grandchild.degradation == {"kind": "noisy", "std": 0.2} and grandchild.starts_from == "base"


def test_another_kind_takes_no_arguments_of_the_former(write):
    write("base", BASE)
    write("child", "extends: base\ndegradation: {kind: bicubic}")
    assert read_preset("child").degradation == {"kind": "bicubic"}


def test_overrides_of_another_kind_replace_the_network():
    network = {"kind": "srcnn", "widths": [8, 4], "kernels": [3, 1, 3]}
    assert build("rrdb-tiny", network=network).arguments["network"] == network
    assert build("rrdb-tiny", network={"blocks": 2}).arguments["network"]["width"] == 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("extends: nothing", "preset 'child' extends the unknown preset 'nothing'; choose from base, child"),
        ("extends: child", "extend each other in a circle: child -> child"),
        (
            "extends: base\nmethod: magic",
            "preset 'child': unknown method 'magic'; this version",
        ),
        ("extends: base\ntraining: {teacher: {steps: 1}}", "srdiff has the stages encoder, diffusion; training has"),
        ("summary: s\nmethod: sr3\ntraining: {encoder: {}}", "sr3 has the stages main; training has encoder"),
        ("summary: s\nmethod: srdiff\ntraining: {diffusion: {}}", "training leaves out the stage encoder"),
        ("summary: s\nmethod: srdiff\ntraining: {diffusion: {}, encoder: {}}", "has the stages encoder, diffusion;"),
        ("extends: base\ndegradation: blurry", "preset 'child': unknown degradation 'blurry'; choose from bicubic"),
        ("extends: base\ndegradation: {kind: [noisy]}", r"unknown degradation \['noisy'\]; choose from bicubic"),
        ("extends: base\nname: mine", "child says name, .*the file's name"),
        ("extends: base\n1: 2", "child says 1, "),
        ("extends: [base]", r"child: extends must be a name or a .yaml file, got \['base'\]"),
        ("extends: base\ndegradation: {mean: 0}", "'noisy' does not take these arguments"),
        ("extends: base\nstarts_from: child", "starts_from must be another preset or a .safetensors file, got 'child'"),
        ("extends: base\nstarts_from: somewhere", "starts_from must be another preset"),
        ("summary: s\nmethod: sr3\ntraining: {main: {steps: -3}}", r"preset 'child': (.|\n)*training.main.steps"),
        ("extends: base\nweights: base", "child says weights, but a preset has only summary"),
    ],
)
def test_what_does_not_fit_is_found_when_it_is_read(write, changes: str, message: str):
    write("base", BASE)
    write("child", changes)
    with pytest.raises(ValueError, match=message):
        read_preset("child")


def test_circles_of_several_presets_are_named(write):
    write("a", "extends: b")
    write("b", "extends: c")
    write("c", "extends: a")
    with pytest.raises(ValueError, match="in a circle: b -> c -> a -> b"):
        read_preset("b")


def test_a_training_begins_with_the_weights_of_another(tmp_path: Path):
    torch.manual_seed(0)
    weights = build("srdiff-tiny").save(tmp_path / "weights.safetensors")
    preset = read_preset("srdiff-tiny")
    method = build("srdiff-tiny")
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    begin_from(method, preset)
    assert all(identical(tensor, before[name]) for name, tensor in method.state_dict().items())
    begin_from(method, preset.model_copy(update={"starts_from": str(weights)}))
    stored = registry.load(weights).state_dict()
    assert all(identical(tensor, stored[name]) for name, tensor in method.state_dict().items())
    assert not all(identical(tensor, before[name]) for name, tensor in method.state_dict().items())


def test_a_training_begins_with_what_an_earlier_stage_trained(tmp_path: Path):
    """Without the parts that only that stage has."""
    method = build("ecdp-tiny")
    method.begin("encoder")
    weights = method.save(tmp_path / "weights.safetensors")
    fresh = build("ecdp-tiny")
    begin_from(fresh, read_preset("ecdp-tiny").model_copy(update={"starts_from": str(weights)}))
    assert identical(fresh.encoder.state_dict(), method.encoder.state_dict()) and fresh.decoder is None


@pytest.mark.parametrize(
    ("origin", "error", "message"),
    [
        (
            "sr3-16-128",
            FileNotFoundError,
            "starts from the weights of 'sr3-16-128': no trained weights ship",
        ),
        ("lost.safetensors", FileNotFoundError, "starts from the weights of 'lost.safetensors': .*neither"),
        ("sr3-small", ValueError, "srdiff-tiny starts from 'sr3-small', but .* no place of their shape in the method"),
    ],
)
def test_weights_that_are_absent_or_do_not_fit_are_refused(origin: str, error: type[Exception], message: str):
    preset = read_preset("srdiff-tiny").model_copy(update={"starts_from": origin})
    method = build("srdiff-tiny")
    with pytest.raises(error, match=message):
        begin_from(method, preset)
