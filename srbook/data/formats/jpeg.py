"""JPEG: its segments."""

import struct
from typing import BinaryIO

from srbook.data.formats.contents import Contents, Refused, spliced
from srbook.data.formats.exif import take_exif

_SOI, _SOS, _EOI, _COMMENT, _APP0 = 0xD8, 0xDA, 0xD9, 0xFE, 0xE0
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
_JFIF, _EXIF, _XMP, _ICC, _MPF = b"JFIF\0", b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0", b"MPF\0"


def read_jpeg(file: BinaryIO) -> Contents:
    """The contents of a JPEG file.

    Pillow sees JFIF's and Adobe's segments, which decide over colors, and the picture; of several pictures (phones put
    a preview, a gain map, or a depth map behind the photograph) the first.
    """
    length = file.seek(0, 2)
    contents, kept, profile, exif, dropped = Contents(file), [(0, 2)], {}, b"", {}
    at, channels, adobe = 2, 0, False
    while at + 4 <= length:
        file.seek(at)
        head, marker, size = struct.unpack(">BBH", file.read(4))
        if head != 0xFF:
            break  # not a segment: Pillow says what it thinks of the rest
        if marker == 0xFF or marker in _WITHOUT_LENGTH:  # padding, or a marker alone
            at += 1 if marker == 0xFF else 2
            continue
        if marker in (_SOS, _EOI):
            break
        start, at = at, at + 2 + size
        data = file.read(max(size - 2, 0)) if marker == _COMMENT or _APP0 <= marker < _APP0 + 16 else b""
        if marker in _FRAMES:
            bits, _, _, channels = struct.unpack(">BHHB", file.read(6).ljust(6, b"\0"))
            _require_readable(bits, channels)
        if marker == _APP0 and data.startswith(_JFIF):
            contents.dpi = _density(data)
        elif marker == _APP0 + 1 and data.startswith(_EXIF):
            exif += data[len(_EXIF) :]
            continue
        elif marker == _APP0 + 2 and data.startswith(_ICC) and len(data) > len(_ICC) + 2:
            profile[data[len(_ICC)]] = (data[len(_ICC) + 1], data[len(_ICC) + 2 :])
            continue
        elif marker == _APP0 + 1 and data.startswith(_XMP):
            dropped["XMP"] = None
        elif marker == _APP0 + 2 and data.startswith(_MPF):
            dropped["further pictures (previews, gain or depth maps)"] = None
        elif marker == _APP0 + 13:
            dropped["Photoshop and IPTC data"] = None
        elif marker == _APP0 + 14:
            adobe = data.startswith(b"Adobe")
        elif marker == _COMMENT:
            dropped["comment"] = None
        if marker == _APP0 or (marker != _COMMENT and not _APP0 < marker < _APP0 + 14):
            kept.append((start, min(at, length)))
    contents.image = spliced(file, [*kept, (min(at, length), length)])
    if channels == 4 and not adobe:
        raise Refused("is a CMYK JPEG without Adobe's mark, so 0 may be ink or paper; convert it to RGB")
    if profile:
        count = len(profile)
        if profile.keys() == {*range(1, count + 1)} and all(stated == count for stated, _ in profile.values()):
            contents.icc = b"".join(profile[number][1] for number in range(1, count + 1))
        else:
            dropped["color profile (damaged)"] = None
    contents.dropped += dropped
    if exif:
        take_exif(exif, contents)
    return contents


def _density(jfif: bytes) -> tuple[float, float] | None:
    """Dots per inch of a JFIF segment, if it states some."""
    if len(jfif) < 12:
        return None
    unit, x, y = struct.unpack_from(">BHH", jfif, 7)
    return {1: (float(x), float(y)), 2: (2.54 * x, 2.54 * y)}.get(unit)


def _require_readable(bits: int, channels: int) -> None:
    if bits != 8:
        raise Refused(f"is a JPEG of {bits} bits per channel, of which none but 8 are read; convert it to 8 bits")
    if channels not in (1, 3, 4):
        raise Refused(f"is a JPEG of {channels} channels, of which 1, 3, and 4 are read; convert it to RGB")
