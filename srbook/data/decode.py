"""From a file to upright pixels of 8 or 16 bits. Pillow reads; what it would lose is read here or refused."""

import struct
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from srbook.data.formats.contents import Contents, Refused
from srbook.data.formats.exif import take_exif
from srbook.data.formats.jpeg import read_jpeg
from srbook.data.formats.png import read_png
from srbook.data.formats.tiff import read_tiff

_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, struct.error, zlib.error)
# By how files begin: Pillow's names of the format, and our reader. What Pillow makes of the values of other formats is
# not known here, so they are not read.
_READERS = {
    b"\x89PNG\r\n\x1a\n": (("PNG",), read_png),
    b"\xff\xd8\xff": (("JPEG",), read_jpeg),
    **dict.fromkeys((b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0", b"MM\0\x2b"), (("TIFF",), read_tiff)),
    b"RIFF": (("WEBP",), None),
    b"BM": (("BMP",), None),
    b"GIF8": (("GIF",), None),
}
_GRAY, _RGB = b"GRAY", b"RGB "
_LARGEST_DPI = 65535  # that a JPEG can state
_LIMIT = threading.Lock()


class Decoded(NamedTuple):
    """What a picture file holds.

    Attributes:
        pixels: (H, W, 3), uint8 or uint16.
        alpha: (H, W) of the same type, or None.
        exif: the EXIF block, with the orientation set to upright, or None.
        icc: the color profile, if it is one of these pixels, or None.
        dpi: horizontal and vertical dots per inch, or None.
        marks: PNG chunks that say what the colors mean.
        dropped: what could not be kept, in plain words.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    exif: bytes | None
    icc: bytes | None
    dpi: tuple[float, float] | None
    marks: tuple[tuple[bytes, bytes], ...]
    dropped: tuple[str, ...]


def decode(path: Path, *, max_pixels: int | None = None) -> Decoded:
    """Everything in a picture file, upright, at its full depth.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: names the file and says why it cannot be read faithfully.
    """
    with _opened(path, max_pixels) as (image, contents):
        channels = _channels(image, contents)
        if contents.deep:
            with _open_image(contents, (image.format,), max_pixels) as again:
                channels = channels.astype(np.uint16) << 8 | _channels(again, contents, low_bytes=True)
        colors, alpha = _as_meant(channels, contents)
    if contents.icc is not None and contents.icc[16:20] != (_GRAY if colors.shape[2] == 1 else _RGB):
        contents.icc = None
        contents.dropped.append("color profile (of other colors)")
    dpi = contents.dpi
    if dpi is not None and not all(1 <= each <= _LARGEST_DPI for each in dpi):
        dpi = None
        contents.dropped.append("resolution (out of range)")
    colors = _upright(colors, contents.turn)
    return Decoded(
        pixels=np.repeat(colors, 3, axis=2) if colors.shape[2] == 1 else np.ascontiguousarray(colors),
        alpha=None if alpha is None else np.ascontiguousarray(_upright(alpha, contents.turn)),
        exif=contents.exif,
        icc=contents.icc,
        dpi=dpi[::-1] if dpi is not None and contents.turn >= 5 else dpi,
        marks=contents.marks,
        dropped=tuple(dict.fromkeys(contents.dropped)),
    )


def stored_size(path: Path) -> tuple[int, int]:
    """(height, width) from the file's header, before EXIF orientation: a picture on its side has them swapped.

    Raises as `decode`.
    """
    with _opened(path, None) as (image, _):
        return image.height, image.width


def upright_size(path: Path, *, max_pixels: int | None = None) -> tuple[int, int]:
    """(height, width) from the file's header, after EXIF orientation. Raises as `decode`."""
    with _opened(path, max_pixels) as (image, contents):
        return (image.width, image.height) if contents.turn >= 5 else (image.height, image.width)


@contextmanager
def _opened(path: Path, max_pixels: int | None) -> Iterator[tuple[Image.Image, Contents]]:
    """The lazily decoded picture; whatever goes wrong in the block becomes a ValueError with the file's name."""
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    with path.open("rb") as file:  # outside of the translation: errors of the file system keep their type
        try:
            head = file.read(8)
            formats, reader = next((known for start, known in _READERS.items() if head.startswith(start)), ((), None))
            if not formats:
                what = (
                    "is not a picture of a format that is read (PNG, JPEG, WebP, BMP, TIFF, GIF)"
                    if head
                    else "is empty"
                )
                raise Refused(f"{what}; remove or replace it")
            contents = reader(file) if reader else Contents(file)
            with _open_image(contents, formats, max_pixels) as image:
                if getattr(image, "n_frames", 1) > 1:
                    raise Refused(f"holds {image.n_frames} frames; extract the one you mean")
                if reader is None:
                    _take_told(image.info, contents)
                yield image, contents
        except Refused as error:
            raise ValueError(f"{path} {error}") from error.__cause__
        except UnidentifiedImageError:
            raise ValueError(
                f"{path} is damaged, or {formats[0]} of a form that is not read; replace it, or save it as a plain PNG"
            ) from None
        except Image.DecompressionBombError as error:
            raise ValueError(
                f"{path} is larger than Pillow reads safely ({error}); if you trust it, give srbook.data.read_picture "
                "max_pixels"
            ) from None
        except _DAMAGE as error:
            raise ValueError(f"{path} is damaged ({error}); remove or replace it") from error


def _open_image(contents: Contents, formats: tuple[str, ...], max_pixels: int | None) -> Image.Image:
    """Pillow's lazily decoded picture.

    Pillow knows one limit of pixels, a public variable of its module; a larger one is set while the header is read, and
    for that moment other threads see it, too.
    """
    contents.image.seek(0)
    if max_pixels is None:
        return Image.open(contents.image, formats=formats)
    with _LIMIT:
        usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
        try:
            image = Image.open(contents.image, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = usual
    if image.width * image.height > max_pixels:
        raise Refused(f"has {image.width} x {image.height} pixels, and at most {max_pixels} are taken")
    return image


def _take_told(info: dict, contents: Contents) -> None:
    """What Pillow tells of the formats that are not read here."""
    contents.icc, contents.dpi = info.get("icc_profile"), info.get("dpi")
    contents.dropped += [words for key, words in (("xmp", "XMP"), ("comment", "comment")) if info.get(key)]
    if info.get("exif"):
        take_exif(info["exif"], contents)


def _channels(image: Image.Image, contents: Contents, *, low_bytes: bool = False) -> np.ndarray:
    """The stored channels, (H, W, C). Of 16-bit colors the high bytes, or the low ones."""
    if low_bytes or contents.premultiplied:
        image.tile = [_recoded(tile, low_bytes) for tile in image.tile]
    if image.mode in ("P", "PA", "CMYK", "YCbCr"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode not in ("L", "LA", "La", "RGB", "RGBA") and not _is_deep_gray(image):
        raise Refused(f"stores pixels in a form that is not read ({image.mode}); convert it to 8 or 16 bits")
    channels = np.array(image)
    if channels.dtype != np.uint8:
        channels = channels.astype(np.uint16)
    return channels if channels.ndim == 3 else channels[..., None]


def _is_deep_gray(image: Image.Image) -> bool:
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")


def _recoded(tile: tuple, low_bytes: bool) -> tuple:
    """Pillow's order to unpack a part, changed so that alpha is not divided out, and that it takes the low bytes.

    "RGB;16B" is three times 16 bits, high byte first, of which Pillow keeps the first; "N" is this machine's order.
    """
    arguments = tile[3]
    coding = arguments if isinstance(arguments, str) else arguments[0]
    coding = coding.replace("RGBa", "RGBA")
    if low_bytes:
        other = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
        coding = coding[:-1] + other[coding[-1]]
    arguments = coding if isinstance(arguments, str) else (coding, *arguments[1:])
    return tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments)  # Pillow below 11


def _as_meant(channels: np.ndarray, contents: Contents) -> tuple[np.ndarray, np.ndarray | None]:
    """Colors, (H, W, 1 or 3), and alpha, (H, W), or None, on the full scale of their type, from black to white."""
    if contents.pairs:
        channels = np.ascontiguousarray(channels).view(">u2").astype(np.uint16)
    full = np.iinfo(channels.dtype).max
    alpha = channels[..., -1] if channels.shape[2] in (2, 4) else None
    colors = channels if alpha is None else channels[..., :-1]
    if contents.levels is not None:
        colors = np.rint(colors * (full / contents.levels)).astype(colors.dtype)
    if contents.negative:
        colors = full - colors
    if contents.premultiplied and alpha is not None:
        divided = colors * (full / np.maximum(alpha, 1, dtype=np.float64))[..., None]
        colors = np.rint(np.minimum(divided, full)).astype(colors.dtype)
    if contents.transparent is not None:
        alpha = np.where((colors == contents.transparent).all(axis=2), 0, full).astype(colors.dtype)
    return colors, alpha


def _upright(pixels: np.ndarray, turn: int) -> np.ndarray:
    """A view of the pixels, turned by the orientation that EXIF counts from 1 to 8."""
    if turn >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows = -1 if turn in (3, 4, 7, 8) else 1
    columns = -1 if turn in (2, 3, 6, 7) else 1
    return pixels[::rows, ::columns]
