"""Decoded images that are kept, up to a number of bytes."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")


class ByteCache(Generic[V]):
    """Keeps values while their sizes sum to at most `limit` bytes; the least recently used go first.

    A value larger than that is not kept. Copies in other processes start empty. `size` gives the bytes of a value.
    """

    def __init__(self, limit: int, size: Callable[[V], int]):
        if limit < 0:
            raise ValueError(f"the limit of a cache is a number of bytes of at least 0, got {limit}")
        self.limit, self.size = limit, size
        self.used = 0
        self._values: OrderedDict[int, V] = OrderedDict()

    def get(self, key: int, make: Callable[[], V]) -> V:
        """The value kept under `key`, or a new one."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = make()
        size = self.size(value)
        if size <= self.limit:
            self._values[key] = value
            self.used += size
            while self.used > self.limit:
                self.used -= self.size(self._values.popitem(last=False)[1])
        return value

    def __getstate__(self) -> dict:
        return {"limit": self.limit, "size": self.size, "used": 0, "_values": OrderedDict()}
