"""Upscaling images of any size, piece by piece, without seams and in bounded memory.

A tile counts only where its network has seen `overlap` pixels of true surroundings; its outer margin is dropped. Where
neighboring tiles overlap, they are blended in a smooth cross-fade. So a network whose receptive field reaches no
further than `overlap` gives the same image as without tiles, and any other method (a wide field, random samples) has
transitions instead of seams.
"""

import math
from itertools import pairwise, product

import torch
from torch import Tensor

from srbook.arguments import require_counts, require_instance, require_integer
from srbook.images import clip, require_images
from srbook.methods.base import Method
from srbook.progress import Progress


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """First pixel of each tile along one axis: as few tiles as possible, evenly spread, all inside the image.

    Neighbors share at least `3 * overlap` pixels: a margin to discard on either side, and a cross-fade between. An axis
    no longer than a tile has one tile, the whole axis.
    """
    if length <= tile:
        return [0]
    intervals = math.ceil((length - tile) / (tile - 3 * overlap))
    return [i * (length - tile) // intervals for i in range(intervals + 1)]


def tile_windows(length: int, tile: int, overlap: int, scale: int) -> Tensor:
    """Weight of each tile at each output pixel of one axis: (tiles, scale * length), float64, columns sum to one.

    With R_k a raised cosine that rises from 0 to 1 over `overlap` pixels around the middle of what tiles k - 1 and k
    share (R_0 = 1), window k is R_k - R_{k+1}. The sum telescopes, and each window vanishes within `overlap` pixels of
    its tile's inner edges. Lengths are as in `tile_starts`, in input pixels.
    """
    starts = tile_starts(length, tile, overlap)
    centers = (torch.arange(scale * length, dtype=torch.float64) + 0.5) / scale
    rises = [torch.ones_like(centers)]
    for start, following in pairwise(starts):
        middle = (start + tile + following) / 2
        if overlap == 0:
            rises.append((centers > middle).double())
        else:
            progress = ((centers - middle) / overlap + 0.5).clamp(0, 1)
            rises.append(0.5 - 0.5 * torch.cos(math.pi * progress))
    rises.append(torch.zeros_like(centers))
    return -torch.stack(rises).diff(dim=0)


def upscale_tiled(
    method: Method,
    image: Tensor,
    *,
    tile: int = 256,
    overlap: int | None = None,
    steps: int | None = None,
    generator: torch.Generator | None = None,
    progress: str | None = None,
) -> Tensor:
    """Upscale an image of any size by tiles; memory is that of the result plus one tile.

    All tiles have one size, `tile` or the image's where that is smaller; at the borders they are moved inside. Where
    the method is random, neighboring tiles are different samples. The cross-fade hides the transition, and blurs it a
    little.

    Args:
        method: runs on the device of its parameters.
        image: (N, 3, H, W) in [0, 1]; any H, W of at least 1.
        tile: side of a tile in input pixels; memory grows with its square.
        overlap: input pixels of surroundings that a tile must have seen where it counts, and width of the cross-fade.
            None takes 16, or an eighth of a smaller tile.
        steps, generator: as in `Method.upscale`.
        progress: what a progress display is called; None shows none. It counts tiles, or the sampling steps of an image
            of one tile.

    Returns:
        (N, 3, sH, sW) float32 in [0, 1], on the device of `image`.

    Raises:
        ValueError: the image breaks the convention, or the overlap leaves nothing of a tile.
    """
    require_images(image)
    require_instance("method", method, Method, "srbook.load(name) makes one")
    require_counts(tile=tile)
    if overlap is None:
        overlap = min(16, tile // 8)
    require_integer("overlap", overlap, 0)
    if not 0 <= 3 * overlap < tile:
        raise ValueError(f"overlap must be at least 0 and less than a third of the tile ({tile}), got {overlap}")

    batch, _, height, width = image.shape
    scale = method.scale
    tops, lefts = tile_starts(height, tile, overlap), tile_starts(width, tile, overlap)
    rows = tile_windows(height, tile, overlap, scale).to(image.device, torch.float32)
    columns = tile_windows(width, tile, overlap, scale).to(image.device, torch.float32)
    device = next((parameter.device for parameter in method.parameters()), image.device)
    result = torch.zeros(batch, 3, scale * height, scale * width, device=image.device)
    grid = list(product(enumerate(tops), enumerate(lefts)))
    inner = progress is not None and len(grid) == 1 and method.samples
    with Progress(len(grid), progress or "", unit="tile", enabled=progress is not None and not inner) as bar:
        for (i, top), (j, left) in grid:
            piece = image[..., top : top + tile, left : left + tile].to(device)
            with torch.no_grad():
                upscaled = method.upscale(piece, steps=steps, generator=generator, progress=inner).image.to(result)
            down = slice(scale * top, scale * (top + tile))
            across = slice(scale * left, scale * (left + tile))
            result[..., down, across] += rows[i, down, None] * columns[j, across] * upscaled
            bar.update()
    for plane in result.flatten(0, 1):  # one by one: a copy of the result could be too much
        plane.copy_(clip(plane))
    return result
