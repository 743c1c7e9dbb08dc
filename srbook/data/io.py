"""Reading and writing pictures.

Pixels come out upright, RGB, in [0, 1]. What cannot be read without loss is refused, with the file's name.
"""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from srbook.arguments import require_instance
from srbook.data.decode import decode
from srbook.files import atomic_path
from srbook.images import require_images, round_to_8bit

# Pillow's names of the formats we write, with settings that lose nothing, or as little as JPEG allows. TIFF stays
# uncompressed: with compression Pillow cannot write EXIF blocks.
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
_EXIF_IFD, _WIDTH, _HEIGHT = 0x8769, 0xA002, 0xA003


@dataclass(frozen=True)
class Picture:
    """A picture with everything that should survive being upscaled.

    Attributes:
        rgb: (1, 3, H, W) in [0, 1], upright. Gray is repeated.
        alpha: (1, 1, H, W) in [0, 1], or None where the file has no transparency.
        exif: the EXIF block with its orientation set to upright, or None.
        icc: the RGB color profile, or None.
    """

    rgb: Tensor
    alpha: Tensor | None = None
    exif: bytes | None = None
    icc: bytes | None = None


def read_image(path: str | Path) -> Tensor:
    """Read a photograph for training or measuring, as (3, H, W), float32, RGB in [0, 1].

    Gray is repeated to three channels, 16 bits are scaled and not cut, EXIF orientation is applied, palettes are
    resolved. CMYK goes through Pillow's plain formula without the color profile, so its colors are approximate.

    Args:
        path: a PNG, JPEG, WebP, BMP, or TIFF file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: names the file: damaged, not a picture, too large to be one, with several frames, of a type whose
            range is unknown, or with transparent pixels (whose color is undefined).
    """
    return pixels_to_image(read_pixels(path))


def read_pixels(path: str | Path) -> np.ndarray:
    """What `read_image` reads, before scaling: (H, W, 3), uint8 or uint16. Raises the same errors."""
    require_instance("path", path, str | PathLike)
    pixels, alpha, _, _ = decode(Path(path), keep_exif=False)
    if alpha is not None and alpha.min() < np.iinfo(alpha.dtype).max:
        raise ValueError(
            f"{path} has transparent pixels, which have no definite color; "
            "flatten it first (any image editor), or read it with srbook.data.read_picture"
        )
    return pixels


def pixels_to_image(pixels: np.ndarray) -> Tensor:
    """(H, W, C) uint8 or uint16 to (C, H, W) float32 in [0, 1]."""
    scaled = torch.from_numpy(pixels.astype(np.float32)).div_(np.iinfo(pixels.dtype).max)
    return scaled.permute(2, 0, 1).contiguous()


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


def read_picture(path: str | Path) -> Picture:
    """Read a picture with its transparency, EXIF data, and color profile; otherwise as `read_image`, errors included.

    A profile of another color space than RGB (of a gray or CMYK file) would be wrong for the converted pixels and is
    dropped.
    """
    pixels, alpha, exif, icc = decode(Path(path), keep_exif=True)
    return Picture(
        rgb=pixels_to_image(pixels).unsqueeze(0),
        alpha=None if alpha is None else pixels_to_image(alpha[..., None]).unsqueeze(0),
        exif=exif,
        icc=icc if icc and icc[16:20] == b"RGB " else None,
    )


def write_picture(path: str | Path, picture: Picture) -> Path:
    """Round to 8 bits and write with transparency, EXIF data, and color profile, atomically; formats as `write_image`.

    BMP holds neither EXIF data nor a profile; they are left out there. Errors are those of `write_image`, and a
    ValueError for transparency in a format that has none.
    """
    require_writable(path, picture)
    path = Path(path)
    name, settings = image_format(path)
    require_images(picture.rgb)
    if len(picture.rgb) != 1:
        raise ValueError(f"one file holds one image, got a batch of {len(picture.rgb)} for {path}")
    channels = picture.rgb
    if picture.alpha is not None:
        channels = torch.cat([channels, picture.alpha.to(channels)], dim=1)
    levels = round_to_8bit(channels[0].detach().float()).mul(255).round().byte()
    image = Image.fromarray(levels.permute(1, 2, 0).contiguous().cpu().numpy())
    if name != "BMP":
        exif = None if picture.exif is None else _exif_for_size(picture.exif, *image.size)
        settings = settings | {key: value for key, value in (("exif", exif), ("icc_profile", picture.icc)) if value}
    with atomic_path(path) as temporary:
        image.save(temporary, format=name, **settings)
    return path


def require_writable(path: str | Path, picture: Picture) -> None:
    """Raise, before any work, the ValueError of `write_picture` for this suffix and transparency."""
    name, _ = image_format(path)
    if picture.alpha is not None and name in _WITHOUT_ALPHA:
        raise ValueError(f"{path}: {name} has no transparency and this picture does; write a .png instead")


def image_format(path: str | Path) -> tuple[str, dict]:
    """Pillow's name of the format for a path's suffix, and its settings here; a ValueError if we do not write it."""
    require_instance("path", path, str | PathLike)
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"cannot write {path}: unknown suffix {suffix!r}; use one of {', '.join(FORMATS)}")
    return FORMATS[suffix]


def _exif_for_size(exif: bytes, width: int, height: int) -> bytes:
    """The EXIF block with the size it states, if it does, brought up to date."""
    block = Image.Exif()
    block.load(exif)
    photo = block.get_ifd(_EXIF_IFD)
    photo.update({tag: value for tag, value in ((_WIDTH, width), (_HEIGHT, height)) if tag in photo})
    return block.tobytes()
