"""How much memory there is, and how much a computation takes."""

import os
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def available_bytes() -> int | None:
    """Memory of the machine, or of the container, that is free or can be freed; None where the system does not say."""
    free = [limit for limit in (_free_of_system(), *_free_of_groups()) if limit is not None]
    return min(free, default=None)


def peak_bytes(compute: Callable[[], Any]) -> int:
    """The most bytes at once in tensors that a computation's operations return, views of its input included.

    What an operation needs for itself while it runs is not seen: a process takes up to 1.4 times as much. Weights are
    not counted.
    """
    with _Counted() as counted:
        compute()
    return counted.peak


class _Counted(TorchFunctionMode):
    """Follows the tensors that operations return until Python lets them go; several may share a storage."""

    def __init__(self) -> None:
        super().__init__()
        self.holders: dict[int, int] = {}
        self.present = self.peak = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor) and not isinstance(tensor, nn.Parameter):
                self._hold(tensor)
        return result

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        self.holders[address] = self.holders.get(address, 0) + 1
        if self.holders[address] == 1:
            self.present += size
            self.peak = max(self.peak, self.present)
        weakref.finalize(tensor, self._drop, address, size)

    def _drop(self, address: int, size: int) -> None:
        self.holders[address] -= 1
        if self.holders[address] == 0:
            self.present -= size


def _free_of_system() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # macOS: all there is
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def _free_of_groups() -> Iterator[int | None]:
    """What the control groups of this process (containers, batch systems) leave it, in versions 1 and 2 of Linux."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = Path("/sys/fs/cgroup"), ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = Path("/sys/fs/cgroup/memory")
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                yield free_of_group(folder, *names)


def free_of_group(folder: Path, limit: str, usage: str, reclaimable: str) -> int | None:
    """What a control group leaves, from its limit, its usage, and the entry of `memory.stat` that can be freed."""
    try:
        most, used = int((folder / limit).read_text()), int((folder / usage).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such group here, or "max"
        return None
    return max(0, most - used + int(stat.get(reclaimable, 0)))
