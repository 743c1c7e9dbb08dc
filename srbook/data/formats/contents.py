"""What a picture file holds, and how its pixels are to be read."""

import io
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO


class Refused(ValueError):
    """A file that is intact, but of a form that is not read. The message goes on after the file's name."""


@dataclass
class Contents:
    """The parts of a picture file.

    Attributes:
        image: what Pillow reads: the part of the file that makes the pixels.
        turn: the orientation, 1 to 8, that is to be applied.
        exif: the EXIF block, with its orientation set to upright, or None.
        icc: the color profile, or None.
        dpi: horizontal and vertical dots per inch, before turning, or None.
        marks: PNG chunks that say what the colors mean.
        dropped: what cannot be kept, in plain words.
        deep: pixels have 16 bits, of which Pillow reads the high byte.
        pairs: Pillow reads the two bytes of a 16-bit channel as two channels.
        levels: the largest value that Pillow's pixels can have, where that is not all bits of their type.
        negative: stored values count from white down to black.
        premultiplied: stored colors are multiplied by alpha.
        transparent: the stored color that is transparent, or None.
    """

    image: BinaryIO
    turn: int = 1
    exif: bytes | None = None
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    marks: tuple[tuple[bytes, bytes], ...] = ()
    dropped: list[str] = field(default_factory=list)
    deep: bool = False
    pairs: bool = False
    levels: int | None = None
    negative: bool = False
    premultiplied: bool = False
    transparent: tuple[int, ...] | None = None


class Splice(io.RawIOBase):
    """A file made of bytes and of stretches (start, end) of another file, read from where they are."""

    def __init__(self, file: BinaryIO, parts: Sequence[bytes | tuple[int, int]]) -> None:
        self._file, self._at = file, 0
        self._parts, self._ends, end = parts, [], 0
        for part in parts:
            end += len(part) if isinstance(part, bytes) else part[1] - part[0]
            self._ends.append(end)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ends[-1]}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:
        index = bisect_right(self._ends, self._at)
        if index == len(self._parts):
            return 0
        part, left = self._parts[index], self._ends[index] - self._at
        count = min(len(buffer), left)
        if isinstance(part, bytes):
            data = part[len(part) - left :][:count]
        else:
            self._file.seek(part[1] - left)
            data = self._file.read(count)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def spliced(file: BinaryIO, parts: Sequence[bytes | tuple[int, int]]) -> BinaryIO:
    """A buffered `Splice`."""
    return io.BufferedReader(Splice(file, parts), 1 << 16)
