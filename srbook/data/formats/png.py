"""PNG: its chunks."""

import struct
import zlib
from typing import BinaryIO

from srbook.data.formats.contents import Contents, Refused, spliced
from srbook.data.formats.exif import take_exif

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PALETTE, _GRAY, _COLOR, _GRAY_ALPHA = 3, 0, 2, 4  # color types
_MARKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP")  # next to iCCP, what says how the colors are meant
_WORDS = {
    b"iCCP": "color profile",
    b"eXIf": "EXIF data",
    b"pHYs": "resolution",
    **{kind: kind.decode() for kind in _MARKS},
    **{kind: f"{kind.decode()} (HDR)" for kind in (b"mDCV", b"mDCv", b"cLLI", b"cLLi")},
}
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_LARGEST = 16_000_000  # bytes of a profile or of EXIF data; JPEG can hold about as much of a profile
_INCH = 0.0254


def read_png(file: BinaryIO) -> Contents:
    """The contents of a PNG file.

    Pillow sees the header, the palette, and the pixels. So no size, damage, or keyword of a text or profile has a say
    in what the picture is.
    """
    length = file.seek(0, 2)
    contents, kept, found, texts = Contents(file), [_SIGNATURE], {}, {}
    depth = color = 0
    at = len(_SIGNATURE)
    while at + 8 <= length:
        file.seek(at)
        size, kind = struct.unpack(">L4s", file.read(8))
        start, at = at, min(at + 12 + size, length)
        if kind == b"IHDR":
            header = file.read(13).ljust(13, b"\0")
            depth, color = header[8:10]
            if (depth, color) == (16, _GRAY_ALPHA):  # Pillow drops the low bytes; as four bytes they all arrive
                contents.pairs = True
                kept.append(_chunk(kind, header[:8] + b"\x08\x06" + header[10:]))
                continue
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND") or (kind == b"tRNS" and color == _PALETTE):
            kept.append((start, at))
        elif kind[:1].isupper():
            raise Refused(f"holds a chunk {kind.decode('latin-1')} that changes its pixels; save it as a plain PNG")
        elif kind in _TEXT:
            texts[file.read(min(size, 80)).partition(b"\0")[0]] = (kind, start + 8, size)
        elif kind in _WORDS or kind in (b"tRNS", b"acTL"):
            data = file.read(size) if size <= _LARGEST else b""
            if size <= _LARGEST and file.read(4) == struct.pack(">L", zlib.crc32(kind + data)):
                found[kind] = data
            elif kind in _WORDS:
                contents.dropped.append(f"{_WORDS[kind]} ({'too large' if size > _LARGEST else 'damaged'})")
            else:
                raise ValueError(f"wrong checksum of the chunk {kind.decode()}")
        if kind == b"IEND":
            break
    if not depth:
        raise ValueError("no header")
    contents.image = spliced(file, _joined(kept))
    contents.deep = depth == 16 and color in (_COLOR, 6)

    frames = struct.unpack(">L", found.get(b"acTL", bytes(4))[:4].rjust(4, b"\0"))[0]
    if frames > 1:
        raise Refused(f"holds {frames} frames; extract the one you mean")
    if b"tRNS" in found and color in (_GRAY, _COLOR):
        largest = 2**depth - 1
        values = struct.unpack(">H" if color == _GRAY else ">3H", found[b"tRNS"])
        contents.transparent = tuple((value & largest) * (255 if depth < 8 else largest) // largest for value in values)
    _read_meaning(contents, found)
    exif = found.get(b"eXIf")
    for keyword, place in texts.items():
        if keyword in (b"Raw profile type exif", b"Raw profile type APP1"):
            exif = exif or _raw_profile(file, *place)
        else:
            contents.dropped.append("XMP" if keyword == b"XML:com.adobe.xmp" else "text")
    if exif:
        take_exif(exif, contents)
    return contents


def _read_meaning(contents: Contents, found: dict[bytes, bytes]) -> None:
    """How the colors and sizes are meant."""
    contents.marks = tuple((kind, found[kind]) for kind in _MARKS if kind in found)
    contents.dropped += [_WORDS[kind] for kind in found if kind[:4].upper() in (b"MDCV", b"CLLI")]
    if b"iCCP" in found:
        contents.icc = _inflated(found[b"iCCP"].partition(b"\0")[2][1:])
        if contents.icc is None:
            contents.dropped.append("color profile (damaged)")
    if len(found.get(b"pHYs", b"")) == 9:
        x, y, unit = struct.unpack(">LLB", found[b"pHYs"])
        if unit == 1:
            contents.dpi = (x * _INCH, y * _INCH)
        elif x != y:
            contents.dropped.append("pixel aspect ratio")


def _raw_profile(file: BinaryIO, kind: bytes, start: int, size: int) -> bytes | None:
    """An EXIF block as ImageMagick wrote it before PNG had a place for it: hexadecimal digits in a text."""
    file.seek(start)
    text = file.read(min(size, _LARGEST)).partition(b"\0")[2]
    if kind == b"zTXt":
        text = _inflated(text[1:]) or b""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return None


def _inflated(data: bytes) -> bytes | None:
    """Decompressed data; None for damaged data, and for data that would fill the memory."""
    try:
        inflate = zlib.decompressobj()
        whole = inflate.decompress(data, _LARGEST)
    except zlib.error:
        return None
    return whole if inflate.eof else None


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def _joined(parts: list[bytes | tuple[int, int]]) -> list[bytes | tuple[int, int]]:
    """The same, with stretches that follow each other as one."""
    joined = []
    for part in parts:
        if joined and isinstance(part, tuple) and isinstance(joined[-1], tuple) and joined[-1][1] == part[0]:
            joined[-1] = (joined[-1][0], part[1])
        else:
            joined.append(part)
    return joined
