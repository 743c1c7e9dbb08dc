"""Files of methods: written by `Method.save`, read by `read_method`."""

from os import PathLike
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from srbook.arguments import require_instance
from srbook.files import load_tensors, parse_metadata, require_tensors
from srbook.frozen import Frozen
from srbook.methods import METHODS
from srbook.methods.base import COMPILED, FORMAT, Method
from srbook.methods.renamed import present_arguments

_WEIGHTS = Path(__file__).parents[1] / "weights"


def read_method(file_or_name: str | Path) -> Method:
    """A trained method in evaluation mode, from a file or by the name of one that ships with the package.

    Raises:
        FileNotFoundError: neither such a file nor a shipped method; or one of its frozen parts is not on this machine.
        ValueError: the file is damaged, or holds no method.
    """
    require_instance("file_or_name", file_or_name, str | PathLike, "the name or file of a method")
    shipped = _WEIGHTS / f"{file_or_name}.safetensors"
    path = shipped if shipped.is_file() else Path(file_or_name)
    return rebuild_method(path, *load_tensors(path))


def build_method(kind: str, arguments: dict[str, Any]) -> Method:
    """A method with fresh weights; an unknown kind, or arguments that it does not take, are a ValueError."""
    _require_known(kind)
    try:
        return METHODS[kind](**arguments)
    except TypeError as error:
        raise ValueError(f"method {kind!r} does not take these arguments: {error}") from error


def rebuild_method(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> Method:
    """The method of a file that has been read; raises as `read_method`."""
    if metadata.get("format") != FORMAT or "config" not in metadata:
        raise ValueError(
            f"{path} does not hold an srbook method (format {metadata.get('format', 'unknown')!r}). Load the file that "
            "Method.save or a training run wrote (weights.safetensors)."
        )
    config = parse_metadata(_Config, metadata["config"], path)
    _require_known(config.method, f"{path}: ")
    try:
        arguments = present_arguments(config.method, config.arguments)
        with torch.random.fork_rng(devices=[]):  # its fresh weights draw from the global generator
            method = _build_to_upscale(config.method, arguments)
            if config.stage is not None:
                method.begin(config.stage)
    except FileNotFoundError:
        raise  # a frozen part is not on this machine
    except Exception as error:  # whatever a constructor does with the arguments of a foreign file
        raise ValueError(f"{path}: no {config.method} can be made of the arguments it names ({error})") from error
    carried = {name: tensors.pop(name) for name in list(tensors) if name.startswith("frozen/")}
    expected = method.state_dict()
    tensors = {name.replace(COMPILED, ""): tensor for name, tensor in tensors.items()}  # earlier versions kept that
    require_tensors(tensors, expected, path, f"the method they name ({config.method})")
    method.load_state_dict({name: tensor.to(expected[name].dtype) for name, tensor in tensors.items()}, assign=True)
    _load_frozen(method, config.frozen, carried, path)
    return method.eval()


def _build_to_upscale(kind: str, arguments: dict[str, Any]) -> Method:
    """`build_method`, also where what only training needs is damaged or does not fit any more."""
    try:
        return build_method(kind, arguments)
    except ValueError:
        idle = {name for name in METHODS[kind].only_in_training if arguments.get(name) is not None}
        if not idle:
            raise
        method = build_method(kind, {**arguments, **dict.fromkeys(idle)})
        method.arguments.update({name: arguments[name] for name in idle})
        return method


class _Config(BaseModel):
    """What a method's file says of it. Files of the first versions have no stage."""

    model_config = ConfigDict(extra="forbid", strict=True)

    method: str
    arguments: dict[str, Any]
    stage: str | None = None
    frozen: dict[str, str] = Field(default_factory=dict)


def _load_frozen(method: Method, hashes: dict[str, str], carried: dict[str, Tensor], path: Path) -> None:
    """Give the frozen parts their carried tensors, or check that those of this machine are the same."""
    parts = {name: part for name, part in method.named_modules() if isinstance(part, Frozen)}
    method.hashes_in_training = {name: hashes[name] for name in hashes.keys() - method.needed(hashes)}
    if foreign := set(method.needed(hashes)) - parts.keys():
        raise ValueError(f"{path} names the frozen part {min(foreign)!r}, which {method.kind} does not have")
    for name, part in parts.items():
        prefix = f"frozen/{name}/"
        if own := {key: carried.pop(key) for key in list(carried) if key.startswith(prefix)}:
            try:
                part.load({key.removeprefix(prefix): tensor for key, tensor in own.items()})
            except ValueError as error:
                raise ValueError(f"{path}: {name}: {error}") from error
        elif part.missing or part.hash != hashes.get(name, part.hash):
            if not method.needed([name]):
                setattr(method, name.split(".")[0], None)  # not the one it was trained with
                continue
            has = f"another one is there ({part.hash})" if part.hash else "it is missing"
            raise FileNotFoundError(
                f"{path} needs the frozen part {name!r} with the hash {hashes.get(name)}, and {has}. Install it, or "
                "have the file written again with Method.save(path, carry=True)."
            )
    if carried:
        raise ValueError(f"{path} holds {min(carried)!r}, which belongs to no frozen part of {method.kind}")


def _require_known(kind: str, where: str = "") -> None:
    if kind not in METHODS:
        raise ValueError(f"{where}unknown method {kind!r}; this version of srbook knows {', '.join(sorted(METHODS))}")
