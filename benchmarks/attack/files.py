"""Damaged and foreign files: weights that `srbook.load` gets, codecs, and checkpoints that a training resumes from."""

import json
import pickle
import random
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

import srbook
from benchmarks.attack import Attempt, Verdict, refusal
from srbook.codecs import VQGAN, read_codec
from srbook.files import CHECKSUM, checksum, load_tensors, save_tensors
from srbook.methods import Regression
from srbook.training import Trainer, TrainingConfig
from srbook.training.checkpoint import latest_checkpoint, load_checkpoint

FLIPS = 40
Contents = tuple[dict[str, Tensor], dict[str, Any]]
Change = Callable[[dict[str, Tensor], dict[str, Any]], object]


def attempts() -> Iterator[Attempt]:
    for name, spoil in RAW.items():
        yield Attempt(f"weights: {name}", lambda folder, spoil=spoil: _load_spoiled(folder, spoil))
        yield Attempt(f"checkpoint: {name}", lambda folder, spoil=spoil: _resume_spoiled(folder, spoil))
    for name, change in WEIGHTS.items():
        yield Attempt(f"weights: {name}", lambda folder, change=change: _load_changed(folder, change))
    for name, change in CODECS.items():
        yield Attempt(f"codec: {name}", lambda folder, change=change: _read_changed(folder, change))
    for name, change in CHECKPOINTS.items():
        yield Attempt(f"checkpoint: {name}", lambda folder, change=change: _resume_changed(folder, change))
    for seed in range(FLIPS):
        yield Attempt(f"weights: flipped bit {seed}", lambda folder, seed=seed: _load_flipped(folder, seed))
        yield Attempt(f"checkpoint: flipped bit {seed}", lambda folder, seed=seed: _resume_flipped(folder, seed))


# The good files


class Batches:
    """Random images; item i is a function of i alone."""

    fingerprint = "random images"

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        hr = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(index))
        return hr, hr[..., ::2, ::2]


def _trainer(folder: Path, steps: int, **options: Any) -> Trainer:
    torch.manual_seed(0)
    method = Regression(scale=2, network={"kind": "predictor", "widths": [4, 4]})
    config = TrainingConfig(steps=steps, learning_rate=1e-3, schedule="constant", precision="fp32", save_every=1)
    return Trainer(method, Batches(), config, output=folder, device="cpu", progress=False, origin="first", **options)


@cache
def _good_files() -> tuple[bytes, dict[str, bytes]]:
    """A file of weights, and the two checkpoints of a run by name."""
    with tempfile.TemporaryDirectory() as name:
        _trainer(Path(name), 3).fit()
        checkpoints = {path.name: path.read_bytes() for path in (Path(name) / "checkpoints").iterdir()}
        return (Path(name) / "weights.safetensors").read_bytes(), checkpoints


@cache
def _good_codec() -> bytes:
    network = {"width": 4, "multipliers": [1, 2], "blocks": 1, "codes": 8, "attention": False, "groups": 2}
    with tempfile.TemporaryDirectory() as name, torch.random.fork_rng():
        codec = VQGAN(network=network, perceptual="none", adversary={"width": 4, "layers": 1})
        return codec.save(Path(name) / "codec.safetensors").read_bytes()


def _write_run(folder: Path, *, only_newest: bool) -> Path:
    """The checkpoints of the good run, or only the newest one, whose path it returns."""
    names = sorted(_good_files()[1])
    for name in names[-1:] if only_newest else names:
        path = folder / "checkpoints" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(_good_files()[1][name])
    return folder / "checkpoints" / names[-1]


# What is done with a spoiled file, and what is right


def _named(call: Callable[[], Any], path: Path) -> Verdict:
    """The verdict on a call that must be refused by an error of ours that names the file."""
    errors: list[str] = []

    def noting() -> None:
        try:
            call()
        except Exception as error:
            errors.append(str(error))
            raise

    verdict = refusal(noting)
    return "unclear" if errors and path.name not in errors[0] else verdict


def _load_spoiled(folder: Path, spoil: Callable[[Path], object]) -> Verdict:
    path = folder / "weights.safetensors"
    path.write_bytes(_good_files()[0])
    spoil(path)
    return _named(lambda: srbook.load(path), path)


def _resume_spoiled(folder: Path, spoil: Callable[[Path], object]) -> Verdict:
    """Alone it is refused; beside an older one the run goes on from that, with a warning, and ends well."""
    alone = folder / "alone"
    alone.mkdir()
    path = _write_run(alone, only_newest=True)
    spoil(path)
    verdict = _named(lambda: _trainer(alone, 4), path)
    if verdict != "clear":
        return verdict
    both = folder / "both"
    both.mkdir()
    path = _write_run(both, only_newest=False)
    spoil(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = _trainer(both, 4)
    if trainer.start != 2 or not any(path.name in str(warning.message) for warning in caught):
        return "silent"
    trainer.fit()
    return "survived" if load_checkpoint(latest_checkpoint(both)).step == 4 else "broken"


def _changed(path: Path, change: Change, key: str) -> None:
    """Write a file again, with an intact checksum, after a change of its tensors and its metadata."""
    tensors, metadata = load_tensors(path)
    about = {**metadata, key: json.loads(metadata[key])}
    replaced = change(tensors, about)
    about = replaced if isinstance(replaced, dict) else about
    path.unlink()
    save_tensors(path, tensors, {k: v if isinstance(v, str) else json.dumps(v) for k, v in about.items()})


def _load_changed(folder: Path, change: Change) -> Verdict:
    return _load_spoiled(folder, lambda path: _changed(path, change, "config"))


def _read_changed(folder: Path, change: Change) -> Verdict:
    """Both ways to read a codec refuse it; untouched it is read."""
    path = folder / "codec.safetensors"
    path.write_bytes(_good_codec())
    read_codec(path)
    _changed(path, change, "about")
    verdict = _named(lambda: read_codec(path), path)
    return verdict if verdict != "clear" else _named(lambda: srbook.load(path), path)


def _resume_changed(folder: Path, change: Change) -> Verdict:
    path = _write_run(folder, only_newest=True)
    _changed(path, change, "about")
    return _named(lambda: _trainer(folder, 4), path)


def _flip(path: Path, seed: int) -> None:
    """Flip one bit; every fourth time in the header, which is a small part of the file."""
    contents = bytearray(path.read_bytes())
    choice = random.Random(seed)
    header = 8 + struct.unpack("<Q", contents[:8])[0]
    contents[choice.randrange(header if seed % 4 == 0 else len(contents))] ^= 1 << choice.randrange(8)
    path.write_bytes(contents)


def _unharmed(path: Path, good: bytes) -> bool:
    """Whether a changed file says the same: a flip in the checksum's own name, or in what pads the header."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "good").write_bytes(good)
        try:
            (tensors, about), (others, more) = load_tensors(path), load_tensors(Path(name) / "good")
        except (ValueError, OSError):
            return False
    return checksum(tensors) == checksum(others) and about.items() >= more.items()


def _load_flipped(folder: Path, seed: int) -> Verdict:
    path = folder / "weights.safetensors"
    path.write_bytes(_good_files()[0])
    _flip(path, seed)
    if _unharmed(path, _good_files()[0]):
        return "survived"
    return _named(lambda: srbook.load(path), path)


def _resume_flipped(folder: Path, seed: int) -> Verdict:
    path = _write_run(folder, only_newest=True)
    _flip(path, seed)
    if _unharmed(path, _good_files()[1][path.name]):
        return "survived"
    return _named(lambda: _trainer(folder, 4), path)


# The damages: of bytes, of a method's file, and of a checkpoint


def _cut(share: float) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def _header_length(length: int) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])


def _foreign(write: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda path: (path.unlink(), write(path))


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights", "nothing")


RAW: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "four bytes": lambda path: path.write_bytes(path.read_bytes()[:4]),
    "only the header's length": lambda path: path.write_bytes(path.read_bytes()[:8]),
    "cut in the header": _cut(0.02),
    "cut in the middle": _cut(0.5),
    "the last byte is missing": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "one byte more": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a hole of zeros": lambda path: path.write_bytes(path.read_bytes()[:-40] + bytes(40)),
    "noise": lambda path: path.write_bytes(random.Random(0).randbytes(path.stat().st_size)),
    "header length 0": _header_length(0),
    "header length 2^63": _header_length(2**63),
    "header longer than the file": _header_length(10**6),
    "text": lambda path: path.write_text("weights"),
    "JSON": lambda path: path.write_text("{}"),
    "a pickle": _foreign(lambda path: path.write_bytes(pickle.dumps({"weight": [1.0]}))),
    "a file of torch": _foreign(lambda path: torch.save({"weight": torch.zeros(2)}, path)),
    "a picture": _foreign(lambda path: Image.new("RGB", (4, 4)).save(path, format="PNG")),
    "a zip file": _foreign(_zip),
    "a folder": _foreign(lambda path: path.mkdir()),
    "tensors of another program": _foreign(lambda path: save_tensors(path, {"weight": torch.zeros(2)}, {})),
    "no tensors": _foreign(lambda path: save_tensors(path, {}, {"format": "srbook-method-1"})),
    "the checksum of another file": lambda path: _wrong_checksum(path),
}


def _wrong_checksum(path: Path) -> None:
    contents = path.read_bytes()
    start = contents.index(CHECKSUM.encode() + b'":"crc32:') + len(CHECKSUM) + 9
    path.write_bytes(contents[:start] + bytes(reversed(contents[start : start + 8])) + contents[start + 8 :])


def _put(*keys: str, value: Any) -> Change:
    """Set an entry of the nested metadata."""

    def change(tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        for key in keys[:-1]:
            about = about[key]
        about[keys[-1]] = value

    return change


def _drop(*keys: str) -> Change:
    def change(tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        for key in keys[:-1]:
            about = about[key]
        del about[keys[-1]]

    return change


def _tensor(name: str, of: Callable[[Tensor], Tensor]) -> Change:
    """Replace each tensor whose name begins so by a function of it."""
    return lambda tensors, about: tensors.update({n: of(t) for n, t in tensors.items() if n.startswith(name)})


def _without(name: str) -> Change:
    return lambda tensors, about: [tensors.pop(key) for key in list(tensors) if key.startswith(name)] and None


def _with(name: str, tensor: Tensor) -> Change:
    return lambda tensors, about: tensors.update({name: tensor})


def _filled(value: float) -> Callable[[Tensor], Tensor]:
    return lambda tensor: torch.full_like(tensor, value)


def _argument(name: str, value: Any) -> Change:
    return _put("config", "arguments", name, value=value)


def _network(**values: Any) -> Change:
    return lambda tensors, about: about["config"]["arguments"]["network"].update(values)


WEIGHTS: dict[str, Change] = {
    "no metadata": lambda tensors, about: {},
    "no format": _drop("format"),
    "format of a checkpoint": _put("format", value="srbook-training-3"),
    "format of the future": _put("format", value="srbook-method-99"),
    "no config": _drop("config"),
    "config is no JSON": _put("config", value="{method"),
    "config is a list": _put("config", value=[1]),
    "config is null": _put("config", value=None),
    "config is a number": _put("config", value=3),
    "no method": _drop("config", "method"),
    "method is a number": _put("config", "method", value=1),
    "unknown method": _put("config", "method", value="magic"),
    "another method": _put("config", "method", value="srdiff"),
    "no arguments": _drop("config", "arguments"),
    "arguments are a list": _put("config", "arguments", value=[4]),
    "arguments are null": _put("config", "arguments", value=None),
    "unknown argument": _argument("magic", 1),
    "no network": _drop("config", "arguments", "network"),
    "scale is a word": _argument("scale", "two"),
    "scale is negative": _argument("scale", -2),
    "scale is null": _argument("scale", None),
    "scale is a list": _argument("scale", [2]),
    "another scale": _argument("scale", 3),
    "network is a list": _argument("network", [1]),
    "network is null": _argument("network", None),
    "network is a word": _argument("network", "predictor"),
    "network of an unknown kind": _network(kind="magic"),
    "network of a kind that is a list": _network(kind=["predictor"]),
    "network with an unknown argument": _network(magic=1),
    "widths are negative": _network(widths=[-4, 4]),
    "widths are words": _network(widths=["a", "b"]),
    "widths are a number": _network(widths=4),
    "widths are empty": _network(widths=[]),
    "unknown stage": _put("config", "stage", value="magic"),
    "stage is a number": _put("config", "stage", value=1),
    "frozen is a list": _put("config", "frozen", value=["codec"]),
    "frozen part that the method lacks": _put("config", "frozen", value={"codec": "0123"}),
    "frozen part that is trained": _put("config", "frozen", value={"network": "0123"}),
    "hash of a frozen part is a number": _put("config", "frozen", value={"codec": 1}),
    "something else in config": _put("config", "magic", value=1),
    "a tensor is missing": lambda tensors, about: tensors.pop(min(tensors)) is None,
    "all tensors are missing": _without(""),
    "a tensor too many": _with("magic", torch.zeros(2)),
    "a carried tensor too many": _with("frozen/codec/weight", torch.zeros(2)),
    "other shapes": _tensor("", lambda tensor: tensor[:1]),
    "transposed": _tensor("", lambda tensor: tensor.transpose(0, -1).contiguous()),
    "integers": _tensor("", lambda tensor: tensor.to(torch.int32)),
    "booleans": _tensor("", lambda tensor: tensor > 0),
    "complex numbers": _tensor("", lambda tensor: tensor.to(torch.complex64)),
    "not a number": _tensor("", _filled(float("nan"))),
    "infinite": _tensor("", _filled(float("-inf"))),
    "not a number, in half precision": _tensor("", lambda tensor: torch.full_like(tensor, float("nan")).half()),
}

CODECS: dict[str, Change] = {
    "no metadata": lambda tensors, about: {},
    "no format": _drop("format"),
    "format of a method": _put("format", value="srbook-method-1"),
    "format of the future": _put("format", value="srbook-codec-99"),
    "nothing about it": _drop("about"),
    "about is no JSON": _put("about", value="{codec"),
    "about is a list": _put("about", value=[1]),
    "about is null": _put("about", value=None),
    "no kind": _drop("about", "codec"),
    "kind is a number": _put("about", "codec", value=1),
    "unknown kind": _put("about", "codec", value="magic"),
    "a method's kind": _put("about", "codec", value="resshift"),
    "no arguments": _drop("about", "arguments"),
    "arguments are a list": _put("about", "arguments", value=[1]),
    "unknown argument": _put("about", "arguments", "magic", value=1),
    "no network": _drop("about", "arguments", "network"),
    "network is a list": _put("about", "arguments", "network", value=[4]),
    "network with an unknown argument": _put("about", "arguments", "network", "magic", value=1),
    "width is negative": _put("about", "arguments", "network", "width", value=-4),
    "codes are a word": _put("about", "arguments", "network", "codes", value="8"),
    "more codes": _put("about", "arguments", "network", "codes", value=16),
    "adversary is a word": _put("about", "arguments", "adversary", value="hinge"),
    "no adversary": _put("about", "arguments", "adversary", value=None),
    "patience is a fraction": _put("about", "arguments", "patience", value=0.5),
    "something else about it": _put("about", "magic", value=1),
    "a tensor is missing": _without("deviation"),
    "all tensors are missing": _without(""),
    "a tensor too many": _with("magic", torch.zeros(2)),
    "other shapes": _tensor("network", lambda tensor: tensor[:1]),
    "integers": _tensor("network", lambda tensor: tensor.to(torch.int32)),
    "not a number": _tensor("deviation", _filled(float("nan"))),
}

CHECKPOINTS: dict[str, Change] = {
    "no metadata": lambda tensors, about: {},
    "no format": _drop("format"),
    "format of a method": _put("format", value="srbook-method-1"),
    "format of the future": _put("format", value="srbook-training-99"),
    "nothing about it": _drop("about"),
    "about is no JSON": _put("about", value="{step"),
    "about is a list": _put("about", value=[1]),
    "about is null": _put("about", value=None),
    "no step": _drop("about", "step"),
    "step 0": _put("about", "step", value=0),
    "step is negative": _put("about", "step", value=-3),
    "step is a word": _put("about", "step", value="3"),
    "step is a fraction": _put("about", "step", value=2.5),
    "another step": _put("about", "step", value=2),
    "no method": _drop("about", "method"),
    "method is a list": _put("about", "method", value=["regression"]),
    "method without a kind": _drop("about", "method", "kind"),
    "kind is a number": _put("about", "method", "kind", value=1),
    "another kind": _put("about", "method", "kind", value="srdiff"),
    "arguments are a list": _put("about", "method", "arguments", value=[2]),
    "other arguments": _put("about", "method", "arguments", "scale", value=4),
    "network is a list": _put("about", "method", "arguments", "network", value=[2]),
    "another stage": _put("about", "method", "stage", value="magic"),
    "stage is null": _put("about", "method", "stage", value=None),
    "frozen is a list": _put("about", "method", "frozen", value=["codec"]),
    "other frozen parts": _put("about", "method", "frozen", value={"codec": "0123"}),
    "no config": _drop("about", "config"),
    "config is a list": _put("about", "config", value=[1]),
    "another learning rate": _put("about", "config", "learning_rate", value=0.5),
    "a setting of another type": _put("about", "config", "betas", value="high"),
    "another start": _put("about", "origin", value="second"),
    "other data": _put("about", "data", value="other images"),
    "data is a number": _put("about", "data", value=1),
    "more processes": _put("about", "processes", value=2),
    "processes are a word": _put("about", "processes", value="1"),
    "something else about it": _put("about", "magic", value=1),
    "a group of tensors too many": _with("magic/weight", torch.zeros(2)),
    "a tensor without a group": _with("weight", torch.zeros(2)),
    "no weights": _without("weights/"),
    "a weight too many": _with("weights/magic", torch.zeros(2)),
    "weights of other shapes": _tensor("weights/", lambda tensor: tensor[:1]),
    "weights are integers": _tensor("weights/", lambda tensor: tensor.to(torch.int64)),
    "weights are not finite": _tensor("weights/", _filled(float("nan"))),
    "no averages": _without("ema/"),
    "an average too many": _with("ema/magic", torch.zeros(2)),
    "averages that would spread": _tensor("ema/", lambda tensor: tensor.flatten()[:1]),
    "no optimizer": _without("optimizer/"),
    "half an optimizer": _without("optimizer/main/0.exp_avg_sq"),
    "an optimizer of another turn": _with("optimizer/magic/0.exp_avg", torch.zeros(2)),
    "an optimizer of no turn": _with("optimizer/0", torch.zeros(2)),
    "a weight that the optimizer lacks": _with("optimizer/main/99.exp_avg", torch.zeros(2)),
    "an index that is none": _with("optimizer/main/x.exp_avg", torch.zeros(2)),
    "a state that AdamW lacks": _with("optimizer/main/0.magic", torch.zeros(2)),
    "an optimizer of other shapes": _tensor("optimizer/main/0.exp_avg", lambda tensor: tensor[:1]),
    "steps of another shape": _tensor("optimizer/main/0.step", lambda tensor: tensor[None]),
    "an optimizer of integers": _tensor("optimizer/main/0.exp_avg", lambda tensor: tensor.to(torch.int32)),
    "an optimizer that is not finite": _tensor("optimizer/main/0.exp_avg_sq", _filled(float("inf"))),
}
