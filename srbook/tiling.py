"""Upscaling images of any size, piece by piece, without seams and in bounded memory.

A tile counts only where its network has seen `overlap` pixels of true surroundings; its outer margin is dropped. Where
neighboring tiles overlap, they are blended in a smooth cross-fade. So a network whose receptive field reaches no
further than `overlap` gives the same image as without tiles, and any other method (a wide field) has transitions
instead of seams.

A diffusion draws its noise for the whole picture, and each tile takes its part, so that neighbors agree on what they
invent. Its tiles begin where its network's coarsest level has a position.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from srbook.arguments import require_counts, require_instance, require_integer
from srbook.images import clip, require_images
from srbook.methods.base import Upscaler
from srbook.progress import Progress
from srbook.random import PlacedGenerator, draw_seed


def default_overlap(tile: int) -> int:
    """Pixels of surroundings for tiles of a side: 16, or an eighth of a smaller tile."""
    return min(16, tile // 8)


def tile_starts(length: int, tile: int, overlap: int, unit: int = 1) -> list[int]:
    """First pixel of each tile along one axis: as few tiles as possible, evenly spread, on multiples of `unit`.

    Neighbors share at least `3 * overlap` pixels: a margin to discard on either side, and a cross-fade between. An axis
    no longer than a tile has one tile, the whole axis. The last tile ends with the image, and is the shorter for it by
    less than a unit.
    """
    if length <= tile:
        return [0]
    units, step = math.ceil((length - tile) / unit), (tile - 3 * overlap) // unit
    intervals = math.ceil(units / step)
    return [i * units // intervals * unit for i in range(intervals + 1)]


def tile_windows(length: int, tile: int, overlap: int, scale: int) -> Tensor:
    """Weight of each tile at each output pixel of one axis: (tiles, scale * length), float64, columns sum to one.

    With R_k a raised cosine that rises from 0 to 1 over `overlap` pixels around the middle of what tiles k - 1 and k
    share (R_0 = 1), window k is R_k - R_{k+1}. The sum telescopes, and each window vanishes within `overlap` pixels of
    its tile's inner edges. Lengths are as in `tile_starts`, in input pixels.
    """
    starts = tile_starts(length, tile, overlap)
    centers = _centers(0, length, scale)
    rises = [_rise(starts, number, tile, overlap, centers) for number in range(len(starts) + 1)]
    return -torch.stack(rises).diff(dim=0)


def _centers(first: int, stop: int, scale: int) -> Tensor:
    """Where the output pixels of some input pixels are, in input pixels."""
    return (torch.arange(scale * first, scale * stop, dtype=torch.float64) + 0.5) / scale


def _rise(starts: list[int], number: int, tile: int, overlap: int, centers: Tensor) -> Tensor:
    """R_k of `tile_windows`, for k = `number` from 0 to the count of tiles; the last is 0."""
    if number in (0, len(starts)):
        return torch.full_like(centers, float(number == 0))
    middle = (starts[number - 1] + tile + starts[number]) / 2
    if overlap == 0:
        return (centers > middle).double()
    progress = ((centers - middle) / overlap + 0.5).clamp(0, 1)
    return 0.5 - 0.5 * torch.cos(math.pi * progress)


def _windows(starts: list[int], length: int, tile: int, overlap: int, scale: int, device: torch.device) -> list[Tensor]:
    """Of each window the part inside its tile, outside of which it is 0; all of them together would be large."""
    windows = []
    for number, start in enumerate(starts):
        centers = _centers(start, min(start + tile, length), scale)
        window = -torch.stack([_rise(starts, k, tile, overlap, centers) for k in (number, number + 1)]).diff(dim=0)[0]
        windows.append(window.to(device, torch.float32))
    return windows


class Block(NamedTuple):
    """A finished rectangle of a result.

    Attributes:
        top: its first row, in pixels of the result.
        left: its first column.
        image: (N, 3, h, w) float32 in [0, 1].
    """

    top: int
    left: int
    image: Tensor


def upscale_blocks(
    method: Upscaler,
    image: Tensor,
    *,
    tile: int = 256,
    overlap: int | None = None,
    steps: int | None = None,
    generator: torch.Generator | None = None,
    progress: str | None = None,
) -> Iterator[Block]:
    """What `upscale_tiled` gives, in rectangles, each as soon as no later tile adds to it.

    They cover the result, from left to right and from top to bottom, and do not overlap. Memory is that of a tile and
    of what a row of tiles leaves to the next, whatever the height of the image. Arguments and errors are those of
    `upscale_tiled`.
    """
    require_images(image)
    require_instance("method", method, Upscaler, "srbook.load(name) makes one")
    require_counts(tile=tile)
    if overlap is None:
        overlap = default_overlap(tile)
    require_integer("overlap", overlap, 0)
    if 3 * overlap >= tile:
        raise ValueError(f"overlap must be at least 0 and less than a third of the tile ({tile}), got {overlap}")
    unit = getattr(method, "unit", 1)  # of a diffusion
    if tile < 3 * overlap + unit and tile < max(image.shape[-2:]):
        raise ValueError(f"tile must be at least {3 * overlap + unit} for {method.kind} and an overlap of {overlap}")
    return _blocks(method, image, tile, overlap, unit, steps, generator, progress)


def _blocks(
    method: Upscaler,
    image: Tensor,
    tile: int,
    overlap: int,
    unit: int,
    steps: int | None,
    generator: torch.Generator | None,
    progress: str | None,
) -> Iterator[Block]:
    batch, _, height, width = image.shape
    scale = method.scale
    tops, lefts = tile_starts(height, tile, overlap, unit), tile_starts(width, tile, overlap, unit)
    rows = _windows(tops, height, tile, overlap, scale, image.device)
    columns = _windows(lefts, width, tile, overlap, scale, image.device)
    device = next((parameter.device for parameter in method.parameters()), image.device)
    count = len(tops) * len(lefts)
    inner = progress is not None and count == 1 and method.samples
    space = getattr(method, "space", None)  # a diffusion draws noise there
    placed = space is not None and count > 1
    seed = draw_seed(generator) if placed else None

    def zeros(rows: int, columns: int) -> Tensor:
        return torch.zeros(batch, 3, scale * rows, scale * columns, device=image.device)

    above = zeros(0, width)  # from this row of tiles on, what earlier ones have given
    with Progress(count, progress or "", unit="tile", enabled=progress is not None and not inner) as bar:
        for i, (top, end) in enumerate(pairwise([*tops, height])):
            bottom = min(top + tile, height)
            below = zeros(bottom - end, width)
            window = zeros(bottom - top, 0)  # from this tile's left edge on
            for j, (left, stop) in enumerate(pairwise([*lefts, width])):
                right = min(left + tile, width)
                fresh = zeros(bottom - top, right - left - window.shape[-1] // scale)
                fresh[..., : above.shape[-2], :] = above[..., scale * right - fresh.shape[-1] : scale * right]
                window = torch.cat([window, fresh], dim=-1)
                with torch.no_grad():
                    piece = image[..., top:bottom, left:right].to(device)
                    if placed:
                        place = (scale * start // space.factor for start in (top, left))
                        generator = PlacedGenerator(seed, *place)
                    upscaled = method.upscale(piece, steps=steps, generator=generator, progress=inner).image.to(window)
                window += rows[i][:, None] * columns[j] * upscaled
                del piece, upscaled
                done, window = window.tensor_split([scale * (stop - left)], dim=-1)
                finished, rest = done.tensor_split([scale * (end - top)], dim=-2)
                below[..., scale * left : scale * stop] = rest
                yield Block(scale * top, scale * left, clip(finished))
                bar.update()
            above = below


def upscale_tiled(
    method: Upscaler,
    image: Tensor,
    *,
    tile: int = 256,
    overlap: int | None = None,
    steps: int | None = None,
    generator: torch.Generator | None = None,
    progress: str | None = None,
) -> Tensor:
    """Upscale an image of any size by tiles; memory is that of the result plus one tile.

    Tiles have one size, `tile` or the image's where that is smaller; only the last ones may be shorter by what keeps
    them on the network's grid. Tiles of a diffusion share the noise where they overlap; of another random method they
    are different samples, whose transition the cross-fade hides, and blurs a little.

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
        ValueError: the image breaks the convention, the overlap leaves nothing of a tile, or the method needs a larger
            one.
    """
    blocks = upscale_blocks(
        method, image, tile=tile, overlap=overlap, steps=steps, generator=generator, progress=progress
    )
    batch, _, height, width = image.shape
    result = torch.empty(batch, 3, method.scale * height, method.scale * width, device=image.device)
    for top, left, block in blocks:
        result[..., top : top + block.shape[-2], left : left + block.shape[-1]] = block
    return result
