"""Reading and writing pictures.

Pixels come out upright, RGB, in [0, 1]. What cannot be read without loss is refused, with the file's name.
"""

import os
import struct
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from srbook.arguments import require_instance
from srbook.data.decode import decode, upright_size
from srbook.data.formats.exif import add_to_tiff, exif_for_size
from srbook.files import atomic_path
from srbook.images import require_images, round_to_8bit

# Pillow's names of the formats we write, with settings that lose nothing, or as little as JPEG allows. TIFF stays
# uncompressed, which all programs read.
FORMATS = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
    ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
}
IMAGE_SUFFIXES = tuple(FORMATS)
_WITHOUT_ALPHA = ("JPEG", "BMP")
_SIDES = {"WEBP": 16383, "JPEG": 65500}  # 65500 is libjpeg's limit; the format's own is 65535
_BELOW_4_GIB, _4_GIB = ("TIFF", "BMP"), 2**32 - 2**20  # with room for headers
_JPEG_BYTES = {"exif": 65533, "icc_profile": 255 * 65519}  # one segment, and as many as can be counted
_HOLDS = {
    "PNG": ("exif", "icc_profile", "dpi"),
    "JPEG": ("exif", "icc_profile", "dpi"),
    "WEBP": ("exif", "icc_profile"),
    "BMP": ("dpi",),
    "TIFF": ("exif", "icc_profile", "dpi"),
}
_OPAQUE = 254.5 / 255  # what 8 bits show as opaque
_SRGB_GAMMA = struct.pack(">L", 45455)
_SRGB_COLORS = struct.pack(">8L", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


@dataclass(frozen=True)
class Picture:
    """A picture with everything that should survive being upscaled.

    Attributes:
        rgb: (1, 3, H, W) in [0, 1], upright. Gray is repeated.
        alpha: (1, 1, H, W) in [0, 1], or None where every pixel is opaque.
        exif: the EXIF block with its orientation set to upright, or None.
        icc: the color profile, RGB or (of a gray file) gray, or None.
        gray: there is no color in it: the three channels are equal everywhere.
        dpi: horizontal and vertical resolution in dots per inch, or None.
        marks: PNG chunks that say how the colors are meant (gAMA, cHRM, sRGB, cICP), by name.
        dropped: what the file holds besides and could not be kept, in plain words ("EXIF data (damaged)", "XMP").
    """

    rgb: Tensor
    alpha: Tensor | None = None
    exif: bytes | None = None
    icc: bytes | None = None
    gray: bool = False
    dpi: tuple[float, float] | None = None
    marks: tuple[tuple[bytes, bytes], ...] = ()
    dropped: tuple[str, ...] = ()


def read_image(path: str | Path) -> Tensor:
    """Read a photograph for training or measuring, as (3, H, W), float32, RGB in [0, 1].

    Gray is repeated to three channels, 16 bits are scaled and not cut, EXIF orientation is applied, palettes are
    resolved. CMYK goes through Pillow's plain formula without the color profile, so its colors are approximate.

    Args:
        path: a PNG, JPEG, WebP, BMP, TIFF, or GIF file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: names the file: damaged, not a picture, too large to be one, with several frames, of a form whose
            values are not certain, or with transparent pixels (whose color is undefined).
    """
    return pixels_to_image(read_pixels(path))


def read_pixels(path: str | Path) -> np.ndarray:
    """What `read_image` reads, before scaling: (H, W, 3), uint8 or uint16. Raises the same errors."""
    require_instance("path", path, str | PathLike)
    decoded = decode(Path(path))
    pixels, alpha = decoded.pixels, decoded.alpha
    if alpha is not None and alpha.min() < np.iinfo(alpha.dtype).max:
        raise ValueError(
            f"{path} has transparent pixels, which have no definite color; "
            "flatten it first (any image editor), or read it with srbook.data.read_picture"
        )
    return pixels


def pixels_to_image(pixels: np.ndarray) -> Tensor:
    """(H, W, C) uint8 or uint16 to (C, H, W) float32 in [0, 1]."""
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))  # before they become four times as large
    return torch.from_numpy(planes.astype(np.float32)).div_(np.iinfo(pixels.dtype).max)


def write_image(path: str | Path, image: Tensor) -> Path:
    """Round to 8 bits and write, atomically. PNG, WebP, BMP, and TIFF lose nothing more; JPEG is quality 95, 4:4:4.

    Args:
        path: the target; its suffix chooses the format. Missing folders are made.
        image: (3, H, W) or (1, 3, H, W) in [0, 1].

    Raises:
        ValueError: unknown suffix, or not one image in [0, 1].
        TypeError: not a float tensor.
    """
    if isinstance(image, Tensor) and image.ndim == 3:
        image = image.unsqueeze(0)
    return write_picture(path, Picture(image))


def read_picture(path: str | Path, *, max_pixels: int | None = None) -> Picture:
    """Read a picture with all that `Picture` keeps; otherwise as `read_image`, errors included.

    Args:
        path: as for `read_image`.
        max_pixels: a picture of more is refused; None takes Pillow's limit, 179 megapixels.
    """
    require_instance("path", path, str | PathLike)
    decoded = decode(Path(path), max_pixels=max_pixels)
    pixels, alpha = decoded.pixels, decoded.alpha
    if alpha is not None and alpha.min() > _OPAQUE * np.iinfo(alpha.dtype).max:
        alpha = None
    return Picture(
        rgb=pixels_to_image(pixels).unsqueeze(0),
        alpha=None if alpha is None else pixels_to_image(alpha[..., None]).unsqueeze(0),
        gray=bool((pixels[..., 1:] == pixels[..., :1]).all()),
        exif=decoded.exif,
        icc=decoded.icc,
        dpi=decoded.dpi,
        marks=decoded.marks,
        dropped=decoded.dropped,
    )


def picture_size(path: str | Path, *, max_pixels: int | None = None) -> tuple[int, int]:
    """(height, width) of the upright picture, from the header of the file. Raises as `read_image`."""
    return upright_size(Path(path), max_pixels=max_pixels)


def write_picture(path: str | Path, picture: Picture) -> Path:
    """Round to 8 bits and write with everything that `Picture` keeps, atomically; formats as `write_image`.

    A picture without color becomes a gray file. Errors are those of `write_image` and `require_writable`.
    """
    require_instance("path", path, str | PathLike)
    require_images(picture.rgb)
    if len(picture.rgb) != 1:
        raise ValueError(f"one file holds one image, got a batch of {len(picture.rgb)} for {path}")
    require_writable(path, picture, *picture.rgb.shape[-2:])
    channels = picture.rgb[:, :1] if picture.gray else picture.rgb
    if picture.alpha is not None:
        channels = torch.cat([channels, picture.alpha.to(channels)], dim=1)
    levels = round_to_8bit(channels[0].detach().float()).mul(255).round().byte()
    return write_levels(path, Image.fromarray(levels.permute(1, 2, 0).squeeze(2).contiguous().cpu().numpy()), picture)


def write_levels(path: str | Path, image: Image.Image, like: Picture) -> Path:
    """Write 8-bit levels with the EXIF data, profile, and resolution of a picture, atomically.

    The pixels are encoded from where they are, without a copy, but for a gray picture with an RGB profile, which
    becomes an RGB file. What the format cannot hold (see `require_writable`) is left out.

    Args:
        path: the target; its suffix chooses the format. Missing folders are made.
        image: of mode L, LA, RGB, or RGBA.
        like: the picture that was enlarged. Its own pixels and alpha are not looked at.
    """
    path = Path(path)
    name, settings = image_format(path)
    kept, _ = _kept(name, like)
    if image.mode in ("L", "LA") and kept.get("icc_profile", b"")[16:20] == b"RGB ":
        image = image.convert("RGBA" if image.mode == "LA" else "RGB")
    exif = kept.pop("exif", None)
    exif = None if exif is None else exif_for_size(exif, *image.size)
    if exif is not None and name != "TIFF":
        kept["exif"] = exif
    with atomic_path(path) as temporary:
        image.save(temporary, format=name, **settings, **kept)
        if exif is not None and name == "TIFF":
            add_to_tiff(temporary, exif)
    return path


def require_writable(path: str | Path, picture: Picture, height: int, width: int) -> tuple[str, ...]:
    """All that can be known before the work about writing a picture, enlarged to a size.

    Returns:
        What the format cannot hold and the writing will leave out, in plain words.

    Raises:
        ValueError: unknown suffix; transparency, or a size, that the format does not have.
        OSError: the folder cannot be written to, or the name is none.
    """
    path = Path(path)
    name, _ = image_format(path)
    if picture.alpha is not None and name in _WITHOUT_ALPHA:
        raise ValueError(f"{path}: {name} has no transparency and this picture does; write a .png instead")
    if max(height, width) > _SIDES.get(name, max(height, width)):
        raise ValueError(
            f"{path}: {name} holds at most {_SIDES[name]} pixels a side and this would have {width} x {height}; "
            "write a .png instead"
        )
    channels = (1 if picture.gray else 3) + (picture.alpha is not None)
    if name in _BELOW_4_GIB and height * width * channels > _4_GIB:
        raise ValueError(f"{path}: {name} holds at most 4 GiB and {width} x {height} pixels are more; write a .png")
    _require_place(path)
    return _kept(name, picture)[1]


def _kept(name: str, picture: Picture) -> tuple[dict, tuple[str, ...]]:
    """What of a picture's data besides its pixels a format holds, as Pillow's settings; and what it does not."""
    kept, lost = {}, []
    gray_profile = picture.icc is not None and picture.icc[16:20] == b"GRAY"
    for key, value, words in (
        ("exif", picture.exif, "EXIF data"),
        ("icc_profile", picture.icc, "color profile"),
        ("dpi", picture.dpi, "resolution"),
    ):
        if value is None:
            continue
        if key not in _HOLDS[name]:
            lost.append(f"{words} ({name} has none)")
        elif name == "JPEG" and key in _JPEG_BYTES and len(value) > _JPEG_BYTES[key]:
            lost.append(f"{words} (over {round(_JPEG_BYTES[key] / 1024)} kB, the limit of JPEG)")
        elif key == "icc_profile" and gray_profile and (name == "WEBP" or not picture.gray):
            lost.append(f"{words} (of gray, for a file of colors)")
        else:
            kept[key] = value
    if name == "PNG" and picture.marks:
        kept["pnginfo"] = PngInfo()
        for kind, data in picture.marks:
            kept["pnginfo"].add(kind, data)
    elif not _means_srgb(dict(picture.marks)):
        lost += [f"{kind.decode()} ({name} has none)" for kind, _ in picture.marks]
    return kept, tuple(lost)


def _means_srgb(marks: dict[bytes, bytes]) -> bool:
    """Whether PNG's marks say no more than what is assumed of a file without them."""
    if b"cICP" in marks:
        return False
    usual = {b"gAMA": _SRGB_GAMMA, b"cHRM": _SRGB_COLORS}
    return b"sRGB" in marks or all(marks.get(kind, value) == value for kind, value in usual.items())


def _require_place(path: Path) -> None:
    """Raise an OSError if no file can be made at a path."""
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file, so {path} cannot be written; choose another folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"no permission to write into {folder}; choose another folder")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; choose another name")


def image_format(path: str | Path) -> tuple[str, dict]:
    """Pillow's name of the format for a path's suffix, and its settings here; a ValueError if we do not write it."""
    require_instance("path", path, str | PathLike)
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"cannot write {path}: unknown suffix {suffix!r}; use one of {', '.join(FORMATS)}")
    return FORMATS[suffix]
