"""Files of codecs: written by `save_codec`, found and read by `read_codec`."""

from os import PathLike
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from srbook.arguments import require_choice, require_instance
from srbook.files import load_tensors, parse_metadata, require_tensors, save_tensors
from srbook.lazy import Classes

FORMAT = "srbook-codec-1"
# Classes of codecs by their `kind`, which presets and files name.
CODECS: Classes = Classes(extractor="srbook.codecs.extractor:Extractor", vqgan="srbook.codecs.vqgan:VQGAN")

_WEIGHTS = Path(__file__).parents[1] / "weights"


class _About(BaseModel):
    """What a codec's file says of it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    codec: str
    arguments: dict[str, Any]


def save_codec(path: str | Path, codec: nn.Module, kind: str, arguments: dict[str, Any]) -> Path:
    """Write a codec's tensors, and the kind and arguments that rebuild it, to one safetensors file, atomically."""
    about = _About(codec=kind, arguments=arguments)
    return save_tensors(path, codec.state_dict(), {"format": FORMAT, "about": about.model_dump_json()})


def read_codec(file_or_name: str | Path) -> nn.Module:
    """A trained codec in evaluation mode, from a file or by the name of one that ships with the package.

    A method keeps it as `Frozen(read_codec("vqgan-small"))` and works in `Latent` of that.

    Raises:
        FileNotFoundError: neither such a file nor a shipped codec.
        ValueError: the file is damaged, or holds no codec.
    """
    require_instance("file_or_name", file_or_name, str | PathLike, "the name or file of a codec")
    shipped = _WEIGHTS / f"{file_or_name}.safetensors"
    path = shipped if shipped.is_file() else Path(file_or_name)
    return rebuild_codec(path, *load_tensors(path))


def build_codec(kind: str, arguments: dict[str, Any]) -> nn.Module:
    """A codec with fresh weights; an unknown kind, or arguments that it does not take, are a ValueError."""
    require_choice("the kind of a codec", kind, CODECS)
    try:
        return CODECS[kind](**arguments)
    except TypeError as error:
        raise ValueError(f"codec {kind!r} does not take these arguments: {error}") from error


def rebuild_codec(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> nn.Module:
    """The codec of a file that has been read; raises as `read_codec`."""
    if metadata.get("format") != FORMAT or "about" not in metadata:
        raise ValueError(f"{path} does not hold a codec of srbook (format {metadata.get('format', 'unknown')!r})")
    about = parse_metadata(_About, metadata["about"], path)
    try:
        with torch.random.fork_rng(devices=[]):  # its fresh weights draw from the global generator
            codec = build_codec(about.codec, about.arguments)
    except Exception as error:  # whatever a constructor does with the arguments of a foreign file
        raise ValueError(f"{path}: no codec can be made of what it says ({error})") from error
    expected = codec.state_dict()
    require_tensors(tensors, expected, path, f"the codec they name ({about.codec})")
    codec.load_state_dict({name: tensor.to(expected[name].dtype) for name, tensor in tensors.items()}, assign=True)
    return codec.eval()
