"""Enlarging a picture with its transparency, into memory of about the size of the result."""

import torch
from PIL import Image
from torch import Tensor

from srbook.data import Picture, fill_transparent
from srbook.degradations import bicubic_upsample
from srbook.images import round_to_8bit
from srbook.memory import peak_bytes
from srbook.methods.base import Upscaler
from srbook.tiling import default_overlap, upscale_blocks

_LUMA = (0.299, 0.587, 0.114)  # BT.601 in full range, as Pillow makes gray of colors
_LARGE_TILE = 2.5e9  # bytes; attention takes more than the estimate, which grows with the pixels alone
_PROBE = 32  # side of the picture on which a method's memory is measured; smaller ones show the weights, not the pixels
_UNSEEN = 1.4  # what operations take for themselves; 1.1 to 1.4 was measured for the shipped models
_MARGIN = 4  # pixels of surroundings, of which bicubic interpolation reads 2


def upscale_picture(
    method: Upscaler,
    picture: Picture,
    *,
    tile: int = 256,
    steps: int | None = None,
    generator: torch.Generator | None = None,
    progress: str | None = None,
) -> Image.Image:
    """Enlarge a picture into 8-bit levels, by tiles, each put in its place as soon as it is done.

    The colors under transparent pixels are replaced by those beside them, so that none bleeds in; alpha is enlarged by
    bicubic interpolation. Of a gray picture's result the luma is kept, 0.299 R + 0.587 G + 0.114 B.

    Args:
        method: runs on the device of its parameters.
        picture: as `srbook.data.read_picture` gives it; `srbook.data.write_levels` writes the result with what else it
            holds.
        tile, steps, generator, progress: as in `srbook.tiling.upscale_tiled`.

    Returns:
        A Pillow image of mode L, LA, RGB, or RGBA.

    Raises:
        ValueError: steps that are not possible for this method.
        MemoryError: the result does not fit.
    """
    rgb, alpha, scale = picture.rgb, picture.alpha, method.scale
    if alpha is not None:
        rgb = fill_transparent(rgb, alpha)
    mode = ("L" if picture.gray else "RGB") + ("" if alpha is None else "A")
    result = Image.new(mode, (scale * rgb.shape[-1], scale * rgb.shape[-2]))
    blocks = upscale_blocks(method, rgb, tile=tile, steps=steps, generator=generator, progress=progress)
    for top, left, block in blocks:
        if picture.gray:
            block = torch.einsum("c,nchw->nhw", block.new_tensor(_LUMA), block).unsqueeze(1)
        if alpha is not None:
            block = torch.cat([block, _enlarged(alpha, scale, top, left, *block.shape[-2:])], dim=1)
        levels = round_to_8bit(block[0]).mul(255).round().byte().permute(1, 2, 0)
        result.paste(Image.fromarray(levels.squeeze(-1).contiguous().numpy()), (left, top))
    return result


def _enlarged(alpha: Tensor, scale: int, top: int, left: int, height: int, width: int) -> Tensor:
    """A rectangle of alpha's enlargement, from as much of alpha as it depends on. Not clipped."""
    first_row, first_column = max(0, top // scale - _MARGIN), max(0, left // scale - _MARGIN)
    below, right = (top + height) // scale + _MARGIN, (left + width) // scale + _MARGIN
    enlarged = bicubic_upsample(alpha[..., first_row:below, first_column:right], scale)
    top, left = top - scale * first_row, left - scale * first_column
    return enlarged[..., top : top + height, left : left + width]


def tile_bytes(method: Upscaler, steps: int | None = None) -> float:
    """Memory that a tile takes per pixel, measured on a small picture.

    A method that samples takes the steps that are given, or one. Steps that it does not have are its ValueError.
    """
    device = next((parameter.device for parameter in method.parameters()), torch.device("cpu"))
    picture = torch.full((1, 3, _PROBE, _PROBE), 0.5, device=device)
    generator = torch.Generator(device).manual_seed(0)
    peak = peak_bytes(lambda: method.upscale(picture, steps=steps or 1, generator=generator))
    return _UNSEEN * peak / _PROBE**2


def default_tile(per_tile_pixel: float) -> int:
    """256, or half or a quarter of it where such a tile would take more than 2.5 GB, as with a codec at full size."""
    return next((tile for tile in (256, 128) if tile**2 * per_tile_pixel <= _LARGE_TILE), 64)


def needed_bytes(height: int, width: int, *, scale: int, tile: int, per_tile_pixel: float) -> float:
    """Memory that `upscale_picture` takes for a picture of this size, transparency included; an estimate.

    Pillow keeps 4 bytes for each pixel of the result, whatever its mode but L.
    """
    picture = 4 * 4 * height * width
    result = 4 * scale**2 * height * width
    between_rows = 2 * 3 * 4 * scale**2 * min(height, 3 * default_overlap(tile)) * width
    in_tile = min(tile, height) * min(tile, width)
    return picture + result + between_rows + in_tile * (per_tile_pixel + 3 * 3 * 4 * scale**2)
