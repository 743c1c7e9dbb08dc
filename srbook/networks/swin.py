"""Attention inside of square windows, which shift by half a window from block to block (Liu et al., 2021)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from srbook.arguments import require_counts, require_integer


def cut(x: Tensor, side: int) -> Tensor:
    """(N, C, H, W) into its windows of side x side pixels, row by row: (N windows, side^2, C)."""
    grid = x.permute(0, 2, 3, 1).unflatten(2, (-1, side)).unflatten(1, (-1, side))  # N, rows, side, columns, side, C
    return grid.transpose(2, 3).reshape(-1, side**2, x.shape[1])


def paste(windows: Tensor, side: int, height: int, width: int) -> Tensor:
    """The inverse of `cut`, to images of a size (N, C, height, width)."""
    grid = windows.unflatten(1, (side, side)).unflatten(0, (-1, height // side, width // side))
    return grid.transpose(2, 3).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def window_regions(height: int, width: int, side: int, shift: int, as_released: bool = False) -> Tensor:
    """Which pixels of a window may attend to each other, once an image is padded to whole windows and rolled.

    The image grows at the bottom and on the right, and rolls up and to the left by `shift`. So the last windows of each
    axis hold pixels from opposite borders, and those that pad it. Pixels of one window with equal numbers belong
    together.

    The released program of ResShift means the same, but indexes its map of regions by the wrong axes and transposes
    each window (github.com/zsyOAOA/ResShift, commit 3ce1d81, models/swin_transformer.py, line 214). So only the windows
    of the last row are divided, and into left and right instead of top and bottom.

    Args:
        height, width: of the image, before it is padded.
        side: of the windows.
        shift: 0 to side - 1.
        as_released: divide as the released program does, whose weights were trained so.

    Returns:
        (windows, side^2), whole numbers.
    """

    def axis(length: int) -> tuple[Tensor, Tensor]:
        """Which places come from the opposite border, and which from the padding."""
        padded = length + -length % side
        place = torch.arange(padded)
        return (place >= padded - shift).long(), ((place + shift) % padded >= length).long()

    (below, rows), (right, columns) = axis(height), axis(width)
    seam = cut((below[:, None] + (0 if as_released else 2) * right)[None, None], side)
    if as_released:
        seam = seam.unflatten(1, (side, side)).transpose(1, 2).flatten(1, 2)
    padding = cut((rows[:, None] | columns)[None, None], side)
    return (seam + 4 * padding).squeeze(2)


def relative_offsets(side: int) -> Tensor:
    """For each pair of pixels of a window, the number of the way from one to the other: (side^2, side^2).

    There are 2 side - 1 distances along either axis, so the numbers are below (2 side - 1)^2.
    """
    place = torch.arange(side)
    apart = place[:, None] - place + side - 1
    ways = (2 * side - 1) * apart[:, None, :, None] + apart[None, :, None, :]
    return ways.reshape(side**2, side**2)


class WindowAttention(nn.Module):
    """Every pixel takes a weighted mean of its window. The logits have a learned bias for each way between two pixels.

    `heads` divides `channels`, or it is a ValueError; `side` is that of the windows.
    """

    def __init__(self, channels: int, heads: int, side: int):
        super().__init__()
        require_counts(channels=channels, heads=heads, side=side)
        if channels % heads:
            raise ValueError(f"heads must divide the {channels} channels of the attention, got {heads}")
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.bias = nn.Parameter(nn.init.trunc_normal_(torch.empty((2 * side - 1) ** 2, heads), std=0.02))
        self.register_buffer("offsets", relative_offsets(side), persistent=False)

    def forward(self, windows: Tensor, regions: Tensor | None = None) -> Tensor:
        """(N W, side^2, C) to the same shape.

        `regions` (W, side^2) lets pixels attend to those of the same number only; without it, to all of the window.
        """
        qkv = self.qkv(windows).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.contiguous()  # each N W, heads, side^2, C / heads
        logits = query.shape[-1] ** -0.5 * query @ key.mT
        logits += self.bias[self.offsets].permute(2, 0, 1)
        if regions is not None:
            together = regions[:, None, :, None] == regions[:, None, None, :]
            logits.unflatten(0, (-1, len(regions))).masked_fill_(~together, float("-inf"))
        mixed = logits.softmax(dim=-1) @ value
        return self.out(mixed.transpose(1, 2).flatten(2))


class SwinBlock(nn.Module):
    """Attention in windows, then two 1x1 convolutions, each added to its input and after a group normalization.

    An image that is not made of whole windows is padded, and no pixel attends to the padding.

    Args:
        channels: of the input and of the output.
        heads: of the attention; they divide `channels`.
        side: of the windows.
        shift: by how much they are shifted, 0 to side - 1.
        ratio: hidden channels of the convolutions, as a multiple of `channels`.
        groups: of the normalizations; they divide `channels`.
        as_released: see `window_regions`.

    Raises:
        ValueError: an argument out of range, or heads or groups that do not divide the channels.
    """

    def __init__(
        self, channels: int, heads: int, side: int, shift: int, ratio: int, groups: int, as_released: bool = False
    ):
        super().__init__()
        require_counts(channels=channels, side=side, ratio=ratio, groups=groups)
        require_integer("shift", shift, 0, side - 1)
        if channels % groups:
            raise ValueError(f"channels must be a multiple of groups={groups}, got {channels}")
        self.side, self.shift, self.as_released = side, shift, as_released
        self.norm1 = nn.GroupNorm(groups, channels)
        self.attention = WindowAttention(channels, heads, side)
        self.norm2 = nn.GroupNorm(groups, channels)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, ratio * channels, 1), nn.GELU(), nn.Conv2d(ratio * channels, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        x = x + self.attend(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def attend(self, x: Tensor) -> Tensor:
        """Attention in the shifted windows of x (N, C, H, W), to the same shape."""
        height, width = x.shape[-2:]
        x = pad(x, (0, -width % self.side, 0, -height % self.side))
        whole = x.shape[-2:] == (height, width)
        regions = None
        if self.shift or not whole:
            regions = window_regions(height, width, self.side, self.shift, self.as_released).to(x)
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(2, 3))
        x = paste(self.attention(cut(x, self.side), regions), self.side, *x.shape[-2:])
        if self.shift:
            x = x.roll((self.shift, self.shift), dims=(2, 3))
        return x[..., :height, :width]


class SwinLayer(nn.Module):
    """A row of `SwinBlock`, on fewer or more channels: every second one is shifted by half a window.

    Nothing leads around it.

    Args:
        channels: of the input and of the output.
        embedding: channels inside.
        heads, ratio, groups, as_released: as in `SwinBlock`.
        window: side of the windows.
        size: side of the training images. Up to one window's size, the image is one window, and nothing is shifted.
        depth: number of blocks.
    """

    def __init__(
        self,
        channels: int,
        embedding: int,
        heads: int,
        window: int,
        size: int,
        depth: int = 2,
        ratio: int = 4,
        groups: int = 32,
        as_released: bool = False,
    ):
        super().__init__()
        require_counts(channels=channels, embedding=embedding, window=window, size=size, depth=depth)
        side = min(window, size)
        shift = side // 2 if size > window else 0
        self.enter = nn.Conv2d(channels, embedding, 1)
        self.blocks = nn.Sequential(
            *(SwinBlock(embedding, heads, side, shift * (k % 2), ratio, groups, as_released) for k in range(depth))
        )
        self.leave = nn.Conv2d(embedding, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return self.leave(self.blocks(self.enter(x)))
