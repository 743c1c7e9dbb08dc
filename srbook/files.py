"""Writing files so that nothing half-written stays behind, and reading weights without unpickling."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path` that replaces it if the block succeeds and vanishes if it fails.

    The temporary name keeps the suffix, so that libraries which look at it choose the right format.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".srbook-", suffix=path.suffix)
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
    """Write a safetensors file atomically. A full disk, for example, is an OSError.

    Tensors are copied to the CPU. Those that share memory are stored each.
    """
    path = Path(path)
    parted: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        parted[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
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
    their choice of kernels and so for their rounding.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a safetensors file, or is cut short.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        sys.audit("open", str(path), "rb", 0)  # safetensors opens it without telling Python
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name).clone() for name in names}, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}); nothing was loaded") from error
