"""Finding methods by name: presets describe them, `build` makes one, `load` brings one with trained weights."""

import json
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from srbook.arguments import require_instance
from srbook.codecs import CODECS
from srbook.codecs.base import FORMAT as CODEC
from srbook.codecs.base import build_codec, rebuild_codec
from srbook.degradations import build_degradation
from srbook.files import checksum, load_tensors
from srbook.frozen import Frozen
from srbook.methods import METHODS, Method
from srbook.methods.files import build_method, rebuild_method
from srbook.settings import TrainingConfig

_PRESETS = Path(__file__).parent / "presets"
_WEIGHTS = Path(__file__).parent / "weights"


class Preset(BaseModel):
    """One configuration: which method, with which arguments, and how it is trained.

    Attributes:
        name: the file's name without `.yaml`.
        summary: one line for tables.
        source: bibliography key of the paper, empty for our own.
        extends: the preset whose contents this one changes: mappings are merged, all else is replaced.
        method: a key of `srbook.methods.METHODS`, or of `srbook.codecs.CODECS`.
        arguments: the method's constructor arguments.
        degradation: how the low-resolution images are made, as `srbook.degradations.build_degradation` takes it.
        starts_from: whose weights the training begins with: a name or a file for `load`. None begins with fresh ones.
        training: settings of its training by stage (`Method.stages`), empty where nothing is trained. Only a preset
            that starts from weights may leave stages out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    summary: str = ""
    source: str = ""
    extends: str | None = None
    method: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    degradation: str | dict[str, Any] = "bicubic"
    starts_from: str | None = None
    training: dict[str, TrainingConfig] = Field(default_factory=dict)


def presets() -> list[str]:
    """Names of all presets, sorted."""
    return sorted(path.stem for path in _PRESETS.glob("*.yaml"))


def trained() -> list[str]:
    """Names whose trained weights ship with the package (and `bicubic`, which needs none)."""
    return sorted({"bicubic", *(path.stem for path in _WEIGHTS.glob("*.safetensors"))})


def read_preset(name: str) -> Preset:
    """The preset of a name from `presets()`, or of a `.yaml` file of your own, with all that it extends.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such preset (the message lists those that exist), or contents that do not fit together.
    """
    require_instance("name", name, str | PathLike, f"such as {'sr3-tiny'!r}; srbook.presets() lists them")
    contents = _contents(name)
    try:
        preset = Preset(name=Path(name).stem, **contents)
        _require_consistent(preset)
    except ValueError as error:
        raise ValueError(f"preset {name!r}: {error}") from error
    return preset


def is_labeled(preset: Preset) -> bool:
    """Whether it is trained on patches with their classes, as `srbook.data.LabeledPatches` gives them."""
    return getattr(_class(preset.method), "labeled", False)


def begin_from(method: Method, preset: Preset) -> str | None:
    """Give a fresh method the weights that its preset starts from, and return their checksum, if it starts from any.

    All of them must have a place in the method, which may have more weights than that.

    Raises:
        FileNotFoundError: the weights are absent; says how to get them.
        ValueError: they are not those of a method, or do not fit.
    """
    require_instance("method", method, nn.Module, "srbook.build(name) makes one")
    require_instance("preset", preset, Preset, "srbook.registry.read_preset(name) makes it")
    if preset.starts_from is None:
        return None
    try:
        origin = load(preset.starts_from)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{preset.name} starts from the weights of {preset.starts_from!r}: {error}") from error
    heir = method.get_submodule(getattr(method, "starts_as", ""))
    if part := getattr(origin, "starts_as", ""):  # of one that has a student, this
        origin = origin.get_submodule(part)
    if origin.kind == heir.kind:
        origin.begin(heir.stage)  # drops what only an earlier stage has
    weights = origin.state_dict()
    own = heir.state_dict()
    unfit = [name for name, tensor in weights.items() if name not in own or own[name].shape != tensor.shape]
    if unfit:
        raise ValueError(
            f"{preset.name} starts from {preset.starts_from!r}, but {len(unfit)} of its {len(weights)} tensors have no "
            f"place of their shape in the method, {unfit[0]!r} first"
        )
    heir.load_state_dict(weights, strict=False)
    return checksum(weights)


def recipe(name: str) -> dict[str, Any]:
    """How shipped weights were made and what they reach: data, settings, machine, hours, quality with its protocol.

    A name without a recipe is a ValueError.
    """
    require_instance("name", name, str)
    if not (_WEIGHTS / f"{name}.json").is_file():
        raise ValueError(f"no recipe for {name!r}; weights ship for {', '.join(trained())}")
    return json.loads((_WEIGHTS / f"{name}.json").read_text(encoding="utf-8"))


def build(preset: str, **overrides: Any) -> Method:
    """A method, or a codec, with fresh weights.

    Args:
        preset: a name from `srbook.presets()`, or a `.yaml` file of your own.
        overrides: replace arguments of the method; dicts are merged, so `build("rrdb", scale=2, network={"blocks": 4})`
            keeps the other arguments of the network.

    Raises:
        ValueError: unknown preset or argument.
    """
    require_instance("preset", preset, str | PathLike, f"such as {'sr3-tiny'!r}; srbook.presets() lists them")
    description = read_preset(preset)
    method = _construct(description.method, _described(_merge(description.arguments, overrides)))
    missing = [name for name, part in method.named_modules() if isinstance(part, Frozen) and part.missing]
    if missing:
        raise FileNotFoundError(f"{preset} needs {', '.join(missing)}, whose weights are not on this machine")
    return method


def count_parameters(preset: str) -> int:
    """How many weights a preset trains, without any memory or weights; the preset is as in `build`."""
    description = read_preset(preset)
    with torch.device("meta"):
        method = _construct(description.method, _described(description.arguments))
    return sum(parameter.numel() for parameter in method.parameters())


def load(checkpoint_or_name: str | Path) -> Method:
    """A method, or a codec, with trained weights, in evaluation mode on the CPU.

    `checkpoint_or_name` is a file written by `Method.save` or by training (`weights.safetensors`), or a name whose
    weights ship with the package (`srbook.registry.trained()`).

    Raises:
        FileNotFoundError: neither such a file nor shipped weights of that name.
        ValueError: the file is damaged, or holds neither a method nor a codec.
    """
    require_instance("checkpoint_or_name", checkpoint_or_name, str | PathLike, "the name or file of a method")
    name = str(checkpoint_or_name)
    if name == "bicubic":
        return build(name).eval()
    if (shipped := _WEIGHTS / f"{name}.safetensors").is_file():
        return _read(shipped)
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
    rebuild = rebuild_codec if metadata.get("format") == CODEC else rebuild_method
    return rebuild(path, tensors, metadata)


def _class(kind: str) -> type:
    return METHODS[kind] if kind in METHODS else CODECS[kind]


def _described(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a method, with the presets that they name described: its codec, and whom it teaches."""
    described = dict(arguments)
    if (name := arguments.get("codec")) in presets():  # its weights may not be there
        codec = read_preset(name)
        described["codec"] = {"file": name, "kind": codec.method, "arguments": codec.arguments}
    if (name := arguments.get("student")) in presets():
        student = read_preset(name)
        described["student"] = {"method": student.method, "arguments": _described(student.arguments)}
    return described


def _construct(kind: str, arguments: dict[str, Any]) -> Method:
    return build_codec(kind, arguments) if kind in CODECS else build_method(kind, arguments)


def _contents(name: str, heirs: tuple[str, ...] = ()) -> dict[str, Any]:
    """A preset's contents, merged into those of the preset that it extends; `heirs` are the presets that led here."""
    if name in heirs:
        raise ValueError(f"presets extend each other in a circle: {' -> '.join((*heirs, name))}")
    if Path(name).suffix in (".yaml", ".yml"):
        path = Path(name)
        if not path.is_file():
            raise FileNotFoundError(f"no such preset file: {name}")
    elif not (path := _PRESETS / f"{name}.yaml").is_file():
        who = f"preset {heirs[-1]!r} extends the " if heirs else ""
        raise ValueError(f"{who}unknown preset {name!r}; choose from {', '.join(presets())}, or give a .yaml file")
    try:
        own = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is not YAML: {error}") from error
    if not isinstance(own, dict):
        raise ValueError(
            f"{name} is no preset: it must hold a mapping with the method, its arguments, and its training"
        )
    for key in own:
        if key not in Preset.model_fields or key == "name":
            known = ", ".join(field for field in Preset.model_fields if field != "name")
            raise ValueError(f"{name} says {key}, but a preset has only {known}; its name is the file's name")
    base = own.get("extends")
    if not isinstance(base, str | None):
        raise ValueError(f"{name}: extends must be a name or a .yaml file, got {base!r}")
    return own if base is None else _merge(_contents(base, (*heirs, name)), own)


def _require_consistent(preset: Preset) -> None:
    _require_known(preset.method)
    stages = _class(preset.method).stage_names()
    named = list(preset.training)
    if named != [stage for stage in stages if stage in named]:
        raise ValueError(f"{preset.method} has the stages {', '.join(stages)}; training has {', '.join(named)}")
    if named and len(named) < len(stages) and preset.starts_from is None:
        absent = next(stage for stage in stages if stage not in named)
        raise ValueError(f"training leaves out the stage {absent}, and no starts_from says whose weights bring it")
    build_degradation(preset.degradation, preset.arguments.get("scale", 4))
    origin = preset.starts_from
    if origin is not None and (
        origin == preset.name or not ((_PRESETS / f"{origin}.yaml").is_file() or origin.endswith(".safetensors"))
    ):
        raise ValueError(f"starts_from must be another preset or a .safetensors file, got {origin!r}")


def _require_known(kind: str, where: str = "") -> None:
    known = sorted([*METHODS, *CODECS])
    if kind not in known:
        raise ValueError(f"{where}unknown method {kind!r}; this version of srbook knows {', '.join(known)}")


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Mappings are merged at every depth, unless they are of another kind: those take no arguments of the former."""
    merged = dict(base)
    for key, value in changes.items():
        former = merged.get(key)
        both = isinstance(value, dict) and isinstance(former, dict)
        alike = both and value.get("kind", former.get("kind")) == former.get("kind")
        merged[key] = _merge(former, value) if alike else value
    return merged
