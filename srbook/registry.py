"""Finding methods by name: presets describe them, `build` makes one, `load` brings one with trained weights."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field

from srbook.files import load_tensors
from srbook.methods import METHODS, Method
from srbook.settings import TrainingConfig

_PRESETS = Path(__file__).parent / "presets"
_WEIGHTS = Path(__file__).parent / "weights"


class Preset(BaseModel):
    """One configuration: which method, with which arguments, and how it is trained.

    Attributes:
        name: the file's name without `.yaml`.
        summary: one line for tables.
        source: bibliography key of the paper, empty for our own.
        method: a key of `srbook.methods.METHODS`.
        arguments: the method's constructor arguments.
        training: settings of its training by stage (`Method.stages`), empty where nothing is trained.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    summary: str
    source: str = ""
    method: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, TrainingConfig] = Field(default_factory=dict)


def presets() -> list[str]:
    """Names of all presets, sorted."""
    return sorted(path.stem for path in _PRESETS.glob("*.yaml"))


def trained() -> list[str]:
    """Names whose trained weights ship with the package (and `bicubic`, which needs none)."""
    return sorted({"bicubic", *(path.stem for path in _WEIGHTS.glob("*.safetensors"))})


def read_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ValueError: there is none; the message lists those that exist.
    """
    if name not in presets():
        raise ValueError(f"unknown preset {name!r}; choose from {', '.join(presets())}")
    text = (_PRESETS / f"{name}.yaml").read_text(encoding="utf-8")
    return Preset(name=name, **yaml.safe_load(text))


def recipe(name: str) -> dict[str, Any]:
    """How shipped weights were made and what they reach: data, settings, machine, hours, quality with its protocol.

    Raises:
        ValueError: no recipe of that name.
    """
    if not (_WEIGHTS / f"{name}.json").is_file():
        raise ValueError(f"no recipe for {name!r}; weights ship for {', '.join(trained())}")
    return json.loads((_WEIGHTS / f"{name}.json").read_text(encoding="utf-8"))


def build(preset: str, **overrides: Any) -> Method:
    """A method with fresh weights.

    Args:
        preset: a name from `srbook.presets()`.
        overrides: replace arguments of the method; dicts are merged, so
            `build("rrdb", scale=2, network={"blocks": 4})` keeps the other arguments of the network.

    Raises:
        ValueError: unknown preset or argument.
    """
    description = read_preset(preset)
    return _construct(description.method, _merge(description.arguments, overrides))


def load(checkpoint_or_name: str | Path) -> Method:
    """A method with trained weights, in evaluation mode on the CPU.

    Args:
        checkpoint_or_name: a file written by `Method.save` or by training (`weights.safetensors`), or a name whose
            weights ship with the package (`srbook.registry.trained()`).

    Raises:
        FileNotFoundError: neither such a file nor shipped weights of that name.
        ValueError: the file is damaged, or does not hold a method.
    """
    name = str(checkpoint_or_name)
    if name == "bicubic":
        return build(name).eval()
    if name in trained():
        return _read(_WEIGHTS / f"{name}.safetensors")
    if Path(checkpoint_or_name).is_file():
        return _read(Path(checkpoint_or_name))
    if Path(checkpoint_or_name).is_dir():
        raise FileNotFoundError(f"{name} is a folder; give the file in it: {Path(name) / 'weights.safetensors'}")
    if name in presets():
        raise FileNotFoundError(
            f"no trained weights ship for {name!r}. Train it (srbook train --preset {name} --data FOLDER) and load "
            f"the weights.safetensors that this writes. Weights ship for: {', '.join(trained())}"
        )
    raise FileNotFoundError(
        f"{name!r} is neither a checkpoint file nor a name with shipped weights ({', '.join(trained())})"
    )


def _read(path: Path) -> Method:
    tensors, metadata = load_tensors(path)
    if metadata.get("format") != "srbook-method-1" or "config" not in metadata:
        raise ValueError(
            f"{path} does not hold an srbook method (format {metadata.get('format', 'unknown')!r}). Load the file that "
            "Method.save or a training run wrote (weights.safetensors)."
        )
    config = json.loads(metadata["config"])
    with torch.device("meta"):  # fresh weights would be drawn in vain
        method = _construct(config["method"], config["arguments"])
    try:
        method.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{path}: the weights do not fit the method they name ({error})") from error
    return method.eval()


def _construct(kind: str, arguments: dict[str, Any]) -> Method:
    if kind not in METHODS:
        raise ValueError(f"unknown method {kind!r}; this version of srbook knows {', '.join(sorted(METHODS))}")
    try:
        return METHODS[kind](**arguments)
    except TypeError as error:
        raise ValueError(f"method {kind!r} does not take these arguments: {error}") from error


def _merge(base: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overrides.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
