"""Files of codecs: written by `save_codec`, found and read by `read_codec`."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from srbook.files import load_tensors, save_tensors
from srbook.lazy import Classes

FORMAT = "srbook-codec-1"
# Classes of codecs by their `kind`, which presets and files name.
CODECS: Classes = Classes(vqgan="srbook.codecs.vqgan:VQGAN")

_WEIGHTS = Path(__file__).parents[1] / "weights"


def save_codec(path: str | Path, codec: nn.Module, kind: str, arguments: dict[str, Any]) -> Path:
    """Write a codec's tensors, and the kind and arguments that rebuild it, to one safetensors file, atomically."""
    about = {"codec": kind, "arguments": arguments}
    return save_tensors(path, codec.state_dict(), {"format": FORMAT, "about": json.dumps(about)})


def read_codec(file_or_name: str | Path) -> nn.Module:
    """A trained codec in evaluation mode, from a file or by the name of one that ships with the package.

    A method keeps it as `Frozen(read_codec("vqgan-small"))` and works in `Latent` of that.

    Raises:
        FileNotFoundError: neither such a file nor a shipped codec.
        ValueError: the file is damaged, or holds no codec.
    """
    shipped = _WEIGHTS / f"{file_or_name}.safetensors"
    path = shipped if shipped.is_file() else Path(file_or_name)
    tensors, metadata = load_tensors(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} does not hold a codec of srbook (format {metadata.get('format', 'unknown')!r})")
    return rebuild_codec(path, tensors, metadata)


def rebuild_codec(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> nn.Module:
    """The codec of a file of this `FORMAT` that has been read; raises as `read_codec`."""
    about = json.loads(metadata["about"])
    if about["codec"] not in CODECS:
        raise ValueError(f"{path} holds a codec {about['codec']!r}; this version knows {', '.join(sorted(CODECS))}")
    with torch.random.fork_rng(devices=[]):  # its fresh weights draw from the global generator
        codec = CODECS[about["codec"]](**about["arguments"])
    try:
        codec.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{path}: the weights do not fit the codec they name ({error})") from error
    return codec.eval()
