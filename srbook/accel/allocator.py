"""Reuse freed memory of the CPU instead of giving it back to the system at once."""

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of glibc's mallopt (malloc.h). By itself glibc raises its thresholds: a freed block of up to 32 MiB raises
# that of mapping to its size and that of trimming to twice that. Once set they stay, so _USUAL has the highest values.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_USUAL = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20}
_KEEPING = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}
_lock = threading.Lock()
_depth = 0


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Reuse freed memory of the CPU within this context, and give it back to the system at its end.

    A step of training or sampling allocates the same large tensors as the step before it. glibc maps every block of
    more than 32 MiB anew and unmaps it when it is freed, and the kernel clears each page again: up to a twentieth of a
    step. In this context large blocks come from the heap, and the heap does not shrink.

    It changes the allocator of the whole process, so `Trainer.fit` and `Method.upscale` leave it to the program that
    calls them; `srbook train` and `srbook upscale` use it. Contexts may be nested and may overlap in threads. The last
    one to end gives the memory back, except what lies below a small block still in use. Nothing happens without glibc,
    or where the environment sets its allocator already (`GLIBC_TUNABLES`, or a variable like `MALLOC_TRIM_THRESHOLD_`).
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
