"""Picture files written byte by byte, of kinds that Pillow does not write."""

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

SHORT, LONG, RATIONAL, ASCII = 3, 4, 5, 2
_STRUCT = {1: "B", ASCII: "B", SHORT: "H", LONG: "L", RATIONAL: "L", 7: "B", 16: "Q"}


def packed(values: np.ndarray, bits: int, order: str = "<") -> bytes:
    """Rows of (H, W, C) integers, each value in so many bits, high bits first, each row a whole number of bytes."""
    if bits in (8, 16, 32):
        return values.astype(f"{order}u{bits // 8}").tobytes()
    rows = values.reshape(len(values), -1)
    shifts = np.arange(bits - 1, -1, -1)
    return np.packbits((rows[..., None] >> shifts & 1).reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def ifd(tags: Mapping[int, tuple[int, Sequence[int]]], offset: int, order: str, big: bool = False, after: int = 0):
    """A directory of tags at an offset; `after` is where the next one stands."""
    count, entry, inline = ("Q", "HHQ", 8) if big else ("H", "HHL", 4)
    head, word = struct.calcsize(f"<{count}"), "Q" if big else "L"
    at = offset + head + len(tags) * (struct.calcsize(f"<{entry}") + inline) + inline
    table, behind = struct.pack(order + count, len(tags)), b""
    for tag, (kind, values) in sorted(tags.items()):
        data = struct.pack(f"{order}{len(values)}{_STRUCT[kind]}", *values)
        field = data.ljust(inline, b"\0") if len(data) <= inline else struct.pack(order + word, at + len(behind))
        table += struct.pack(order + entry, tag, kind, len(values) // (2 if kind == RATIONAL else 1)) + field
        behind += data + bytes(len(data) % 2) if len(data) > inline else b""
    return table + struct.pack(order + word, after) + behind


def tiff(
    size: tuple[int, int],
    parts: Sequence[bytes],
    *,
    bits: Sequence[int] = (8,),
    colors: int = 1,
    order: str = "<",
    big: bool = False,
    tags: Mapping[int, tuple[int, Sequence[int]]] | None = None,
    without: Sequence[int] = (),
    pages: int = 1,
    rows: int = 0,
) -> bytes:
    """A TIFF of (height, width); the parts are its strips (of all rows, or of so many), its planes, or its tiles."""
    tags = dict(tags or {})
    start = 16 if big else 8
    data = b"".join(parts) + bytes(len(b"".join(parts)) % 2)
    offsets = [start + sum(map(len, parts[:index])) for index in range(len(parts))]
    tiled = 322 in tags
    all_tags = {
        256: (LONG, [size[1]]),
        257: (LONG, [size[0]]),
        258: (SHORT, bits),
        259: (SHORT, [1]),
        262: (SHORT, [colors]),
        277: (SHORT, [len(bits)]),
        (324 if tiled else 273): (LONG, offsets),
        (325 if tiled else 279): (LONG, [len(part) for part in parts]),
        **({} if tiled else {278: (LONG, [rows or size[0]])}),
    }
    all_tags = {tag: value for tag, value in (all_tags | tags).items() if tag not in without}
    at = start + len(data)
    directories = b""
    for page in range(pages):
        here = at + len(directories)
        length = len(ifd(all_tags, here, order, big))
        directories += ifd(all_tags, here, order, big, here + length if page < pages - 1 else 0)
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(f"{order}HHHQ", 43, 8, 0, at) if big else struct.pack(f"{order}HL", 42, at)
    return mark + head + data + directories


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def png(
    values: np.ndarray, color: int, depth: int, *, before: bytes = b"", after: bytes = b"", interlaced: bool = False,
    part: int = 1 << 30,
) -> bytes:  # fmt: skip
    """A PNG of (H, W, C) stored values, with chunks before and after the pixels, these in pieces of `part` bytes."""
    height, width, _ = values.shape
    rows = b""
    for top, left, down, right in PASSES if interlaced else ((0, 0, 1, 1),):
        for row in values[top::down, left::right]:
            rows += b"\0" + packed(row[None], depth, ">") if row.size else b""
    data = zlib.compress(rows, 1)
    pieces = b"".join(chunk(b"IDAT", data[at : at + part]) for at in range(0, len(data), part))
    header = struct.pack(">LLBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + pieces + after + chunk(b"IEND", b"")


def exif(tags: Mapping[int, tuple[int, Sequence[int]]], order: str = "<") -> bytes:
    """An EXIF block without its prefix."""
    return (b"II\x2a\0\x08\0\0\0" if order == "<" else b"MM\0\x2a\0\0\0\x08") + ifd(tags, 8, order)


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def bmp(values: bytes, size: tuple[int, int], bits: int, *, compression: int = 0, masks: Sequence[int] = (),
        palette: bytes = b"", top_down: bool = False) -> bytes:  # fmt: skip
    """A BMP of (height, width) with rows as they are stored; four masks make a header of the fourth version."""
    version_4 = len(masks) == 4
    fields = (-size[0] if top_down else size[0], 1, bits, compression, len(values), 2835, 2835, len(palette) // 4, 0)
    header = struct.pack("<LllHHLLllLL", 108 if version_4 else 40, size[1], *fields)
    header += struct.pack(f"<{len(masks)}L", *masks) + (bytes(52) if version_4 else b"")
    offset = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<LHHL", offset + len(values), 0, 0, offset) + header + palette + values
