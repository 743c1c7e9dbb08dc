"""What the backward pass makes a computation remember, and what happens to freed memory."""

import ctypes
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


def peak_saved_bytes(compute: Callable[[], Tensor], weights: Iterable[Tensor] = ()) -> int:
    """The most memory that a computation and its gradient hold in tensors kept for the backward pass.

    Every tensor that autograd keeps is counted, from when it is kept until it is let go, tensors of one storage once.
    That is the part of the memory that grows with the depth of a network and with the steps of a solver. What does
    not: weights, their gradients, the state of a solver and of an optimizer. It is the same number on every machine.

    Args:
        compute: gives a scalar; its gradient is then computed, inside this function, and added to the `.grad` of the
            leaves as usual.
        weights: tensors not to count, because they are there anyway: parameters of networks.

    Returns:
        Bytes.
    """
    holders: dict[int, int] = {}
    anyway = {tensor.untyped_storage().data_ptr() for tensor in weights}
    present = peak = 0

    class Kept:
        def __init__(self, tensor: Tensor):
            nonlocal present, peak
            self.tensor, storage = tensor.detach(), tensor.untyped_storage()
            self.address, self.size = storage.data_ptr(), storage.nbytes()
            if self.address in anyway:
                self.size = 0
            holders[self.address] = holders.get(self.address, 0) + 1
            if holders[self.address] == 1:
                present += self.size
                peak = max(peak, present)

        def __del__(self):
            nonlocal present
            holders[self.address] -= 1
            if holders[self.address] == 0:
                del holders[self.address]
                present -= self.size

    with saved_tensors_hooks(Kept, lambda kept: kept.tensor), torch.enable_grad():
        compute().backward()
    return peak


# Parameters of glibc's mallopt (malloc.h). Its thresholds grow by themselves: a freed block of up to 32 MiB raises the
# one of mapping to its size and the one of trimming to twice that. Once set they stay, so the usual ones are the ends.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_USUAL = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20}
_KEEPING = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}
_lock = threading.Lock()
_depth = 0


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Reuse freed memory of the CPU instead of giving it back to the system at once; in the end, give it back.

    A step of training or sampling allocates the same large tensors as the step before it. glibc maps every block of
    more than 32 MiB anew and unmaps it when it is freed, and returns what is free at the end of its heap beyond
    64 MiB. The kernel then clears each page again, up to a twentieth of a step. In this context large blocks come from
    the heap, and the heap does not shrink: it holds the peak of a step, and what lies unused between its blocks.

    It concerns the whole process. Contexts may be nested and may overlap in threads; the last one to end gives the
    memory back. What lies below a small block that lives on stays in the heap, empty, and may serve large blocks later.
    Nothing happens without glibc, or where the environment sets its allocator already (`GLIBC_TUNABLES`, or a variable
    like `MALLOC_TRIM_THRESHOLD_`).
    """
    global _depth
    with _lock:
        libc = _glibc()
        _depth += 1
        if libc and _depth == 1:
            _set(libc, _KEEPING)
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if libc and _depth == 0:
                _set(libc, _USUAL)
                libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The C library if it is glibc and nobody tuned it."""
    if any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return None
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows has no library of the process
        return None
    return library if hasattr(library, "gnu_get_libc_version") else None


def _set(libc: ctypes.CDLL, options: dict[int, int]) -> None:
    for name, value in options.items():
        libc.mallopt(name, value)
