"""EXIF blocks: the orientation, and a block that fits the picture as it is written. Tags are copied, not judged."""

import io
from pathlib import Path
from typing import BinaryIO

from srbook.data.formats.contents import Contents
from srbook.data.formats.ifd import (
    LONG,
    SHORT,
    Directory,
    Form,
    Value,
    directory_bytes,
    integers,
    read_directory,
    read_header,
)

ORIENTATION = 0x0112
_PREFIX = b"Exif\0\0"
_EXIF, _WIDTH, _HEIGHT, _X, _Y, _UNIT = 0x8769, 0xA002, 0xA003, 282, 283, 296
_NESTED = {_EXIF: {0xA005: {}}, 0x8825: {}}  # EXIF, within it interoperability; GPS
_CLASSIC = 8  # where the first directory of a block stands


def take_exif(block: bytes, contents: Contents) -> None:
    """Put what an EXIF block says into the contents of a file. A resolution that the file states itself stays."""
    try:
        directory, form, lost = _read_exif(block)
    except ValueError:
        contents.dropped.append("EXIF data (damaged)")
        return
    take_directory(directory, form, lost, contents)


def take_directory(directory: Directory, form: Form, lost: list[int], contents: Contents) -> None:
    """Put into the contents what a directory of EXIF tags says."""
    if lost:
        contents.dropped.append("parts of the EXIF data (damaged)")
    stated = integers(directory, ORIENTATION, form)
    contents.turn = stated[0] if stated and 1 <= stated[0] <= 8 else 1
    contents.exif = _block(directory, form)
    density = [directory[tag].numbers(form) for tag in (_X, _Y) if isinstance(directory.get(tag), Value)]
    factor = {2: 1.0, 3: 2.54}.get((integers(directory, _UNIT, form) or (2,))[0])
    if contents.dpi is None and factor and len(density) == 2 and all(density):
        contents.dpi = (factor * density[0][0], factor * density[1][0])


def _read_exif(block: bytes) -> tuple[Directory, Form, list[int]]:
    while block.startswith(_PREFIX):
        block = block[len(_PREFIX) :]
    file = io.BytesIO(block)
    form, offset = read_header(file)
    directory, lost = read_nested(file, offset, form)
    return directory, form, lost


def read_nested(file: BinaryIO, offset: int, form: Form, nested: dict = _NESTED) -> tuple[Directory, list[int]]:
    """A directory with the EXIF and GPS directories in it, and the tags that could not be read."""
    directory, _, lost = read_directory(file, offset, form)
    for tag, deeper in nested.items():
        if tag in directory:
            inner, more = {}, [tag]
            if place := integers(directory, tag, form):
                inner, more = read_nested(file, place[0], form, deeper)
            lost += more
            directory[tag] = inner
            if not inner:
                del directory[tag]
    return directory, lost


def _block(directory: Directory, form: Form) -> bytes | None:
    """The block that stores a directory, with its orientation set to upright; None for an empty directory."""
    if not directory.keys() - {ORIENTATION}:
        return None
    upright = directory | {ORIENTATION: _number(SHORT, 1, form)}
    form = Form(form.order)
    head = b"II\x2a\x00\x08\x00\x00\x00" if form.order == "<" else b"MM\x00\x2a\x00\x00\x00\x08"
    return _PREFIX + head + directory_bytes(upright, _CLASSIC, form)


def exif_for_size(exif: bytes, width: int, height: int) -> bytes:
    """The EXIF block with the size it states, if it does, brought up to date."""
    directory, form, _ = _read_exif(exif)
    for tag, side in ((_WIDTH, width), (_HEIGHT, height)):
        if tag in directory.get(_EXIF, {}):
            directory[_EXIF][tag] = _number(LONG, side, form)
    return _block(directory, form) or exif


def add_to_tiff(path: Path, exif: bytes) -> None:
    """Put a block's tags into the first directory of a TIFF file; those that the file has already stay.

    Pillow would judge the tags, and refuse the file for one that does not fit its expectations.
    """
    tags, stored, _ = _read_exif(exif)
    with path.open("r+b") as file:
        form, offset = read_header(file)
        directory, _, _ = read_directory(file, offset, form)
        if stored.order != form.order:
            tags = _reversed(tags)
        end = file.seek(0, 2)
        end += file.write(bytes(end % 2))
        file.write(directory_bytes(tags | directory, end, form))
        file.seek(4)
        file.write(_number(LONG, end, form).data)


def _reversed(directory: Directory) -> Directory:
    """The directory in the other byte order."""
    return {tag: _reversed(value) if isinstance(value, dict) else value.reversed() for tag, value in directory.items()}


def _number(kind: int, value: int, form: Form) -> Value:
    return Value(kind, value.to_bytes(2 if kind == SHORT else 4, "little" if form.order == "<" else "big"))
