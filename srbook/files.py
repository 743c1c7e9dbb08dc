"""Writing files so that nothing half-written stays behind, and reading weights without unpickling."""

import json
import os
import re
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from srbook.arguments import require_instance
from srbook.numbers import first_not_finite

TEMPORARY = ".srbook-"  # begins the names of files that are being written
CHECKSUM = "checksum"
M = TypeVar("M", bound=BaseModel)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """A block that writes a file: errors of the system, such as a full disk, name it and not its temporary name."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or TEMPORARY in str(error.filename)):
            error.filename = str(path)
        raise


def clear_temporary(folder: Path) -> None:
    """Delete what processes that were killed while they wrote have left in a folder."""
    for path in folder.glob(f"{TEMPORARY}*"):
        path.unlink(missing_ok=True)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path` that replaces it if the block succeeds and vanishes if it fails.

    The temporary name keeps the suffix, so that libraries which look at it choose the right format.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY, suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            umask = os.umask(0)
            os.umask(umask)
            with suppress(OSError):  # some file systems have no permissions
                temporary.chmod(0o666 & ~umask)  # mkstemp gives 0600; a result should be as readable as any other file
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> Path:
    """Write a safetensors file with a checksum, atomically. A full disk, for example, is an OSError.

    Tensors are copied to the CPU. Those that share memory are stored each.
    """
    require_instance("path", path, str | os.PathLike)
    path = Path(path)
    parted: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        parted[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    metadata = {**metadata, CHECKSUM: checksum(parted, metadata)}
    with atomic_path(path) as temporary:
        try:
            save_file(parted, temporary, metadata)
        except SafetensorError as error:
            refused = re.search(r"\(os error (\d+)\)", str(error))  # safetensors reports a full disk as text
            if refused is None:
                raise
            raise OSError(int(refused[1]), os.strerror(int(refused[1])), str(path)) from error
    return path


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: tensors by name, and its metadata.

    The tensors own their memory. In a mapped file they could lie at any address, on which matrix products depend for
    their choice of kernels and so for their rounding. Files of other programs, and of the first versions of srbook,
    have no checksum.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a safetensors file, is cut short, differs from its checksum, or holds a number that is
            not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        sys.audit("open", str(path), "rb", 0)  # safetensors opens it without telling Python
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            tensors, metadata = {name: file.get_tensor(name).clone() for name in names}, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}); nothing was loaded") from error
    told = metadata.pop(CHECKSUM, None)
    if told is not None and told != checksum(tensors, metadata):
        raise ValueError(f"{path} is damaged: its contents differ from its checksum; nothing was loaded")
    if (name := first_not_finite(tensors)) is not None:
        raise ValueError(f"{path} holds a number that is not finite, in {name!r}; nothing was loaded")
    return tensors, metadata


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """CRC-32 of tensors, with their names, types, and shapes, and of metadata; it notices each flipped bit."""
    about = {name: (str(tensor.dtype), *tensor.shape) for name, tensor in sorted(tensors.items())}
    value = zlib.crc32(json.dumps([about, metadata or {}], sort_keys=True).encode())
    for name in about:
        values = tensors[name].detach().cpu().contiguous()
        value = zlib.crc32(values.reshape(-1).view(torch.uint8).numpy(), value)
    return f"crc32:{value:08x}"


def parse_metadata(model: type[M], text: str, path: str | Path) -> M:
    """JSON of a file's metadata, checked by a schema; what does not fit is a ValueError that names file and place."""
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "its JSON"
        raise ValueError(f"{path} was not written by srbook, or is damaged: {place}: {first['msg']}") from error


def require_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: str | Path, what: str) -> None:
    """Check that tensors of a file have the names and shapes of others, and fractions where those do."""
    for name in sorted(found.keys() | expected.keys()):
        if name not in found:
            problem = "is missing"
        elif name not in expected:
            problem = "has no place there"
        elif found[name].shape != expected[name].shape:
            problem = f"has the shape {tuple(found[name].shape)}, not {tuple(expected[name].shape)}"
        elif expected[name].is_floating_point() and not found[name].is_floating_point():
            problem = f"holds {found[name].dtype}, not {expected[name].dtype}"
        else:
            continue
        raise ValueError(f"{path}: the weights do not fit {what}: {name!r} {problem}")
