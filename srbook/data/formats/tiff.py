"""TIFF: the forms of pixels that are read, and all others refused by name."""

import struct
from collections.abc import Iterator
from typing import BinaryIO

from srbook.data.formats.contents import Contents, Refused, spliced
from srbook.data.formats.exif import ORIENTATION, read_nested, take_directory
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

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_SAMPLES, _PLANAR, _COLORMAP, _INKS, _EXTRA, _FORMAT = 277, 284, 320, 332, 338, 339
_STRIP_OFFSETS, _ROWS, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _ICC = 273, 278, 322, 323, 324, 34675
# Tags that Pillow sees: those from which the pixels follow. Of the orientation and all that is told, it knows nothing.
_PIXELS = (256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332, 338)
_PIXELS += (339, 347, *range(512, 522), 529, 530, 531, 532)
# Tags that are kept: description, maker, model, resolution, software, date, artist, host, copyright, and EXIF and GPS.
_KEPT = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432, 34665, 34853)
_DROPPED = {
    700: "XMP",
    33723: "Photoshop and IPTC data",
    34377: "Photoshop and IPTC data",
    34735: "GeoTIFF data",
    33550: "GeoTIFF data",
    301: "transfer function",
    318: "white point",
    319: "primaries",
}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _INDEXED, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_CHANNELS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _INDEXED: 1, _CMYK: 4, _YCBCR: 3}
_OTHER_COLORS = {4: "a mask", 8: "CIE Lab", 9: "ICC Lab", 10: "ITU Lab", 32803: "raw sensor values", 32844: "LogL"}
_OTHER_COLORS |= {32845: "LogLuv", 34892: "linear raw values"}
_BITS_READ = {_WHITE_IS_ZERO: (1, 2, 4, 8, 12, 16), _BLACK_IS_ZERO: (1, 2, 4, 8, 12, 16), _RGB: (8, 16)}
_BITS_READ |= {_INDEXED: (1, 2, 4, 8), _CMYK: (8,), _YCBCR: (8,)}
_JPEG = 7
_COMPRESSIONS = (1, 2, 3, 4, 5, _JPEG, 8, 32773, 32946, 34925, 50000, 50001)
# Of further channels, the meaning of the first (0 none, 1 alpha multiplied in, 2 alpha) and how many there may be; any
# but the first has none.
_UNSPECIFIED, _ASSOCIATED, _ALPHA = 0, 1, 2
_EXTRA_READ = {_WHITE_IS_ZERO: ((0, 1, 2), 1), _BLACK_IS_ZERO: ((0, 1, 2), 1), _RGB: ((0, 1, 2), 3)}
_EXTRA_READ |= {_INDEXED: ((0, 2), 1), _CMYK: ((0,), 2), _YCBCR: ((), 0)}
_PAGES = 1000


def read_tiff(file: BinaryIO) -> Contents:
    """The contents of a TIFF file.

    Pillow sees a directory that is written here, with the tags alone from which the pixels follow.

    Raises:
        Refused: several pages, or pixels of a form whose values Pillow would not read right.
        ValueError: it is damaged.
    """
    form, offset = read_header(file)
    directory, following, lost = read_directory(file, offset, form)
    contents = Contents(file)
    if damaged := sorted({*lost} & {0, *_PIXELS}):
        raise ValueError(f"tags {', '.join(map(str, damaged))} cannot be read")
    _require_one_page(file, following, form, contents)
    _require_whole(directory, form)
    _require_readable(directory, form, contents)

    told, more = read_nested(file, offset, form)
    take_directory({tag: value for tag, value in told.items() if tag in (ORIENTATION, *_KEPT)}, form, more, contents)
    contents.icc = directory[_ICC].data if _ICC in directory else None
    contents.dropped += dict.fromkeys(_DROPPED[tag] for tag in directory if tag in _DROPPED)
    pixels = {tag: value for tag, value in directory.items() if tag in _PIXELS}
    if contents.negative:  # Pillow inverts some depths and not others; here all are
        pixels[_PHOTOMETRIC] = Value(SHORT, struct.pack(f"{form.order}H", _BLACK_IS_ZERO))
    if _COLORMAP in pixels:
        pixels[_COLORMAP] = _full_scale(pixels[_COLORMAP], form)
    contents.image = _with_directory(file, pixels, form)
    return contents


def _with_directory(file: BinaryIO, pixels: Directory, form: Form) -> BinaryIO:
    """The file with another first directory, which stands behind all else."""
    length = file.seek(0, 2)
    if integers(pixels, _BITS, form) == (12,) and form.order == ">":  # packed values have no byte order, but Pillow
        pixels, form = {tag: value.reversed() for tag, value in pixels.items()}, form._replace(order="<")
    if form.big and length < 2**31:  # Pillow does not read all of BigTIFF
        pixels = {tag: _short_offsets(value, form) for tag, value in pixels.items()}
        form = form._replace(big=False)
    start = length + -length % 16
    head = (b"II" if form.order == "<" else b"MM") + (
        struct.pack(f"{form.order}HHHQ", 43, 8, 0, start) if form.big else struct.pack(f"{form.order}HL", 42, start)
    )
    return spliced(file, [head, (len(head), length), bytes(start - length) + directory_bytes(pixels, start, form)])


def _short_offsets(value: Value, form: Form) -> Value:
    """Offsets of 64 bits in 32."""
    if value.type not in (16, 18):
        return value
    numbers = value.numbers(form)
    return Value(LONG, struct.pack(f"{form.order}{len(numbers)}L", *numbers))


def _require_one_page(file: BinaryIO, offset: int, form: Form, contents: Contents) -> None:
    """Raise `Refused` for further pages but previews."""
    pages = list(_pages(file, offset, form))
    if real := [page for page in pages if not integers(page, _SUBFILE, form, (0,))[0] & 1]:
        raise Refused(f"holds {1 + len(real)} frames; extract the one you mean")
    if pages:
        contents.dropped.append("further pictures (previews)")


def _pages(file: BinaryIO, offset: int, form: Form) -> Iterator[Directory]:
    seen = set()
    while offset and offset not in seen and len(seen) < _PAGES:
        seen.add(offset)
        page, offset, _ = read_directory(file, offset, form)
        yield page


def _require_whole(directory: Directory, form: Form) -> None:
    """Raise a ValueError if strips or tiles are missing, whose place Pillow would leave black."""

    def number(tag: int, default: int) -> int:
        return integers(directory, tag, form, (default,))[0]

    width, height = number(_WIDTH, 0), number(_HEIGHT, 0)
    tiled = _TILE_OFFSETS in directory
    across, down = (number(_TILE_WIDTH, 0), number(_TILE_HEIGHT, 0)) if tiled else (width, number(_ROWS, height))
    if min(width, height, across, down) < 1:
        raise ValueError("a size is missing")
    planes = number(_SAMPLES, 1) if number(_PLANAR, 1) == 2 else 1
    parts = integers(directory, _TILE_OFFSETS if tiled else _STRIP_OFFSETS, form)
    if len(parts) < planes * -(-width // across) * -(-height // down):
        raise ValueError("strips or tiles are missing")


def _require_readable(directory: Directory, form: Form, contents: Contents) -> None:
    """Raise `Refused` for pixels that Pillow would not read right; say in the contents what is to be done with them."""

    def number(tag: int, default: int) -> int:
        return integers(directory, tag, form, (default,))[0]

    compression, planes = number(_COMPRESSION, 1), number(_PLANAR, 1)
    samples = number(_SAMPLES, 1)
    colors = number(_PHOTOMETRIC, -1)
    if colors not in _CHANNELS:
        known = _OTHER_COLORS.get(colors, f"colors of the unknown kind {colors}" if colors >= 0 else "unknown colors")
        raise Refused(f"is a TIFF that stores {known}; convert it to RGB or gray")
    if compression not in _COMPRESSIONS:
        raise Refused(f"is a TIFF of compression {compression}, which is not read; save it with another")
    extra = integers(directory, _EXTRA, form)
    bits = set(integers(directory, _BITS, form, (1,))[:samples])
    if len(bits) > 1 or (depth := min(bits)) not in _BITS_READ[colors]:
        allowed = ", ".join(map(str, _BITS_READ[colors]))
        raise Refused(
            f"is a TIFF of {', '.join(map(str, sorted(bits)))} bits per channel, of which {allowed} are read here; "
            "convert it to 8 or 16 bits"
        )
    if {*integers(directory, _FORMAT, form, (1,))} - {1, 4}:
        raise Refused(
            "is a TIFF of signed or floating-point values, whose range is unknown; convert it to 8 or 16 bits"
        )
    if colors == _CMYK and number(_INKS, 1) != 1:
        raise Refused("is a TIFF of inks other than CMYK; convert it to RGB")
    if colors == _YCBCR and compression != _JPEG:
        raise Refused("is a TIFF of YCbCr colors that is not compressed as JPEG; convert it to RGB")
    if samples - _CHANNELS[colors] != len(extra) and (colors, samples, extra) != (_RGB, 4, ()):
        raise Refused(f"is a TIFF of {samples} channels, of which it does not say what they are; convert it to RGB")
    meanings, most = _EXTRA_READ[colors]
    if extra and (extra[0] not in meanings or any(extra[1:]) or len(extra) > (1 if depth == 16 else most)):
        raise Refused(f"is a TIFF with further channels of kinds {extra}, which are not read; remove them")
    if depth == 16 and _CHANNELS[colors] == 1 and extra:
        raise Refused("is a TIFF of 16-bit gray with further channels; convert it to 8 bits, or save it as PNG")
    if planes == 2 and (extra not in ((), (_ALPHA,)) or (depth == 16 and samples > 1)):
        raise Refused("is a TIFF with a plane for each of its channels; save it with interleaved channels")
    if extra[1:] or extra == (_UNSPECIFIED,):
        contents.dropped.append("further channels")
    contents.deep = depth == 16 and colors == _RGB
    contents.levels = 4095 if depth == 12 else None
    contents.negative = colors == _WHITE_IS_ZERO
    contents.premultiplied = extra[:1] == (_ASSOCIATED,)


def _full_scale(colormap: Value, form: Form) -> Value:
    """A palette of 16 bits; some programs write one of 8."""
    entries = colormap.numbers(form)
    if not entries or max(entries) > 255:
        return colormap
    return Value(SHORT, struct.pack(f"{form.order}{len(entries)}H", *(257 * entry for entry in entries)))
