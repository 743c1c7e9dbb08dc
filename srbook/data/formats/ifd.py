"""Directories of tags, of which TIFF files and EXIF blocks consist: read with distrust, and written anew.

Values stay bytes of their type, so that nothing is lost or judged on the way from one file to the other.
"""

import struct
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

# Bytes of a number by type; a rational is made of two.
_UNITS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 1, 7: 1, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_RATIONALS = (5, 10)
_INTEGERS = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 13: "L", 16: "Q", 17: "q", 18: "Q"}
SHORT, LONG = 3, 4


class Form(NamedTuple):
    """How numbers and directories are stored: "<" or ">", and whether offsets have 64 bits (BigTIFF)."""

    order: str
    big: bool = False


class Value(NamedTuple):
    """A tag's value: the number of its type, and its bytes in the order of the file."""

    type: int
    data: bytes

    def numbers(self, form: Form) -> tuple:
        """Integers or fractions; empty for text and for anything else that is no number."""
        size = _UNITS[self.type]
        count = len(self.data) // size
        if self.type in _RATIONALS:
            parts = struct.unpack(f"{form.order}{count}{'L' if self.type == 5 else 'l'}", self.data)
            return tuple(a / b if b else 0.0 for a, b in zip(parts[::2], parts[1::2], strict=True))
        if self.type not in _INTEGERS:
            return ()
        return struct.unpack(f"{form.order}{count}{_INTEGERS[self.type]}", self.data)

    def reversed(self) -> "Value":
        """The same value in the other byte order."""
        size = _UNITS[self.type]
        parts = [self.data[at : at + size][::-1] for at in range(0, len(self.data), size)]
        return Value(self.type, b"".join(parts))


Directory = dict[int, "Value | Directory"]


def read_header(file: BinaryIO) -> tuple[Form, int]:
    """The form of a TIFF file or an EXIF block, and where its first directory stands; a ValueError if it is neither."""
    file.seek(0)
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        raise ValueError("no TIFF header")
    form = Form(order, struct.unpack(f"{order}H", head[2:4])[0] == 43)
    if form.big and len(head) < 16:
        raise ValueError("no TIFF header")
    return form, struct.unpack(f"{order}Q", head[8:16])[0] if form.big else struct.unpack(f"{order}L", head[4:8])[0]


def read_directory(file: BinaryIO, offset: int, form: Form) -> tuple[dict[int, Value], int, list[int]]:
    """A directory's readable values by tag; where the next one stands, or 0; and the tags that could not be read.

    A value outside of the file, or of a type that does not exist, is not read. All values together are at most as long
    as the file, so that values which overlap cannot fill the memory. A cut-off directory has 0 among the unread tags.
    """
    length = file.seek(0, 2)
    count_format, entry_format, inline = ("Q", "HHQ8s", 8) if form.big else ("H", "HHL4s", 4)
    entry_size = struct.calcsize(f"<{entry_format}")
    values, lost, left = {}, [], length
    file.seek(min(offset, length))
    start = file.read(struct.calcsize(f"<{count_format}"))
    if len(start) < struct.calcsize(f"<{count_format}"):
        return {}, 0, [0]
    (count,) = struct.unpack(f"{form.order}{count_format}", start)
    table = file.read(min(count * entry_size + inline, length))
    for at in range(0, min(count, len(table) // entry_size) * entry_size, entry_size):
        tag, kind, number, field = struct.unpack_from(f"{form.order}{entry_format}", table, at)
        size = number * _UNITS.get(kind, 0) * (2 if kind in _RATIONALS else 1)
        if size > inline:
            (place,) = struct.unpack(f"{form.order}{'Q' if form.big else 'L'}", field)
            if place + size > length or size > left:
                size = 0
            else:
                left -= size
                file.seek(place)
                field = file.read(size)
        if size and tag not in values:
            values[tag] = Value(kind, field[:size])
        elif number and not size:
            lost.append(tag)
    if len(table) < count * entry_size + inline:
        return values, 0, [*lost, 0] if len(table) < count * entry_size else lost
    return values, struct.unpack(f"{form.order}{'Q' if form.big else 'L'}", table[-inline:])[0], lost


def directory_bytes(directory: Directory, offset: int, form: Form) -> bytes:
    """A directory as it is stored at an even offset; behind it those nested in it, which BigTIFF's may not have."""
    count_format, entry_format, inline = ("Q", "HHQ", 8) if form.big else ("H", "HHL", 4)
    pointer = f"{form.order}{'Q' if form.big else 'L'}"
    entries, behind = [], b""
    at = offset + struct.calcsize(f"<{count_format}") + len(directory) * struct.calcsize(f"<{entry_format}{inline}s")
    at += inline
    for tag, value in sorted(directory.items()):
        if isinstance(value, dict):
            kind, number, data = LONG, 1, directory_bytes(value, at + len(behind), form)
            field = struct.pack(pointer, at + len(behind))
        else:
            kind, data = value
            number = len(data) // _UNITS[kind] // (2 if kind in _RATIONALS else 1)
            field = data.ljust(inline, b"\0")
            if len(data) > inline:
                field = struct.pack(pointer, at + len(behind))
            else:
                data = b""
        entries.append(struct.pack(f"{form.order}{entry_format}", tag, kind, number) + field)
        behind += data + bytes(len(data) % 2)
    return struct.pack(f"{form.order}{count_format}", len(directory)) + b"".join(entries) + bytes(inline) + behind


def integers(directory: Directory, tag: int, form: Form, default: Iterable[int] = ()) -> tuple[int, ...]:
    """All of a tag's integers."""
    value = directory.get(tag)
    numbers = value.numbers(form) if isinstance(value, Value) and value.type in _INTEGERS else ()
    return numbers or tuple(default)
