"""From a file to upright pixels of 8 or 16 bits. Pillow reads; what it would lose is read here or refused."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, struct.error, zlib.error)

# Tags of a TIFF file that are kept: description, maker, model, resolution, software, date, artist, host, copyright, and
# the EXIF and GPS blocks. Others say where the pixels of the old file were.
_TIFF_KEPT = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432, 34665, 34853)
_ORIENTATION = 0x0112


class Decoded(NamedTuple):
    """What a picture file holds.

    Attributes:
        pixels: (H, W, 3), uint8 or uint16.
        alpha: (H, W) of the same type, or None.
        exif: the EXIF block, with the orientation set to upright, or None.
        icc: the color profile, if it is one of these pixels, or None.
        dpi: horizontal and vertical dots per inch, or None.
        dropped: what could not be kept, in plain words.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    exif: bytes | None
    icc: bytes | None
    dpi: tuple[float, float] | None
    dropped: tuple[str, ...]


def decode(path: Path, *, keep_exif: bool, max_pixels: int | None = None) -> Decoded:
    """Everything in a picture file, upright, at its full depth; of its EXIF data only the orientation if not kept.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: names the file and says why it cannot be read faithfully.
    """
    with _opened(path) as image:
        coding = _coding(image)
        channels = _pixels(image)
        if channels.dtype == np.uint8 and ";16" in coding:
            channels = channels.astype(np.uint16) << 8 | _low_bytes(path, coding)
        colors = channels.ndim == 3
        pixels = channels[..., :3] if colors else np.repeat(channels[..., None], 3, axis=2)
        alpha = channels[..., 3] if colors and channels.shape[2] == 4 else None
        icc, dpi = image.info.get("icc_profile"), image.info.get("dpi")
        icc = icc if icc and icc[16:20] == b"RGB " else None
        return Decoded(pixels, alpha, _exif(image) if keep_exif else None, icc, dpi, ())


def stored_size(path: Path) -> tuple[int, int]:
    """(height, width) from the file's header, before EXIF orientation: a picture on its side has them swapped.

    Raises as `decode`.
    """
    with _opened(path) as image:
        return image.height, image.width


def upright_size(path: Path, *, max_pixels: int | None = None) -> tuple[int, int]:
    """(height, width) from the file's header, after EXIF orientation. Raises as `decode`."""
    with _opened(path) as image:
        size = image.height, image.width
        turned = image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
        return size[::-1] if turned else size


class _Refused(ValueError):
    """A picture that is intact, but of a form that is not read."""


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The lazily decoded picture; whatever goes wrong in the block becomes a ValueError with the file's name."""
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    with path.open("rb") as file:  # outside of the translation: errors of the file system keep their type
        try:
            with Image.open(file) as image:
                # Phones put a preview or a depth map behind the photograph ("MPO"); the first frame is the photograph.
                if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
                    raise _Refused(f"holds {image.n_frames} frames; extract the one you mean")
                yield image
        except _Refused as error:
            raise ValueError(f"{path} {error}") from error.__cause__
        except UnidentifiedImageError:
            what = "is not a picture that Pillow can read" if path.stat().st_size else "is empty"
            raise ValueError(f"{path} {what}; remove or replace it") from None
        except Image.DecompressionBombError as error:
            raise ValueError(f"{path} is larger than Pillow reads safely: {error}") from None
        except _DAMAGE as error:
            raise ValueError(f"{path} is damaged ({error}); remove or replace it") from error


def _coding(image: Image.Image) -> str:
    """How the file packs a pixel, in Pillow's terms: "RGB;16B" is three times 16 bits, high byte first."""
    arguments = image.tile[0][3] if image.tile else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _pixels(image: Image.Image) -> np.ndarray:
    """(H, W) for deep gray, else (H, W, 3) or (H, W, 4), upright. Deep colors arrive as their high bytes."""
    deep_gray = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    if image.mode in ("I", "F") and not deep_gray:
        raise _Refused("stores 32 bits per pixel, whose range is unknown; convert it to 8 or 16 bits")
    if deep_gray and "transparency" in image.info:
        raise _Refused("is 16-bit gray with a transparent level; convert it to 8 bits")
    image = ImageOps.exif_transpose(image)
    if deep_gray:
        return np.asarray(image).astype(np.uint16)
    return np.array(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def _exif(image: Image.Image) -> bytes | None:
    try:
        exif = image.getexif()
        if image.format == "TIFF":
            for tag in set(exif) - set(_TIFF_KEPT):
                del exif[tag]
        if not exif:
            return None
        exif[_ORIENTATION] = 1
        return exif.tobytes()
    except _DAMAGE as error:
        raise _Refused(f"has EXIF data that cannot be kept ({error}); remove them first") from error


def _low_bytes(path: Path, coding: str) -> np.ndarray:
    """The low bytes of a 16-bit color PNG, which Pillow drops: the file is read again with the two bytes swapped."""
    with _opened(path) as image:
        if image.format != "PNG" or coding not in ("RGB;16B", "RGBA;16B") or "transparency" in image.info:
            raise _Refused(f"has 16 bits per channel in a form that is not supported ({coding}); convert it to 8 bits")
        codec, extents, offset, _ = image.tile[0]
        image.tile = [(codec, extents, offset, coding.replace("16B", "16L"))]
        return _pixels(image)
