"""ResShift's U-Net: attention in shifted windows, and a time that scales and shifts each block (Yue et al., 2023)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from srbook.arguments import require_counts, require_integer
from srbook.images import require_maps
from srbook.networks.blocks import Doubling, level_widths
from srbook.networks.swin import SwinLayer
from srbook.networks.time import TimeEmbedding, require_times
from srbook.networks.unet import Levels


class ModulatedBlock(nn.Module):
    """Two normalized 3x3 convolutions plus the input; the time scales and shifts what the second one sees.

    Args:
        inputs, outputs: channels of the input and of the output, multiples of `groups`.
        time_channels: length of the time embedding.
        groups: of the group normalizations.
        dropout: share of values that training drops before the second convolution.
        attention: what follows the block; None for nothing.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        time_channels: int,
        groups: int,
        dropout: float = 0.0,
        attention: nn.Module | None = None,
    ):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(time_channels, 2 * outputs)
        self.norm2 = nn.GroupNorm(groups, outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.attention = attention or nn.Identity()
        nn.init.zeros_(self.conv2.weight)  # a fresh block passes its input on
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(N, inputs, H, W) and the embedding (N, time_channels) to (N, outputs, H, W)."""
        scale, shift = self.time(silu(time))[:, :, None, None].chunk(2, dim=1)
        y = self.norm2(self.conv1(silu(self.norm1(x)))) * (1 + scale) + shift
        y = self.conv2(self.dropout(silu(y)))
        return self.attention(y + self.skip(x))


class SwinUNet(Levels):
    """The U-Net of ResShift, which its journal version, SinSR, and HF-Diff share.

    The defaults are the network for x4 in the latent of a codec of factor 4: 118,593,583 parameters. x has the size of
    the low-resolution image there, so that image enters beside it. Where it is larger, a few convolutions first halve
    it. At a scale of 2 (`halvings` 1) there are 118,640,431 parameters; for inpainting, with the mask as a fourth
    channel of the condition (`halvings` 2), 118,714,399; for faces of 512 pixels in a latent of factor 8 with 8
    channels (`halvings` 3), 118,931,604.

    As in `UNet`, the stem, each block on the way down, and each halving leave a shortcut, and each block on the way up
    takes one. The first block of a stage ends with a `SwinLayer`, and so does the first of the two in the middle.

    Args:
        channels: of x and of the output.
        condition: channels of the condition.
        halvings: how often the condition is halved to reach the size of x.
        width: channels at full resolution, and length of the sinusoidal embedding of the time.
        multipliers: channels of each level as multiples of `width`; each level halves the resolution.
        blocks: residual blocks per level on the way down.
        attention: levels (0 is the full resolution) with a `SwinLayer`. The middle always has one.
        embedding, heads, window, depth, ratio: as in `SwinLayer`.
        size: side of x in training, a multiple of `multiple`. Levels with at most one window then never shift it.
        groups: of the group normalizations.
        dropout: share of values that training drops in each block.
        as_released: divide shifted windows as the released program does, see `srbook.networks.swin.window_regions`.
            The released weights need it.

    Raises:
        ValueError: no level or block, a level that does not exist, a `size` that cannot be halved often enough, or
            channels that the groups or heads do not divide.
    """

    def __init__(
        self,
        channels: int = 3,
        condition: int = 3,
        halvings: int = 0,
        width: int = 160,
        multipliers: Sequence[int] = (1, 2, 2, 4),
        blocks: int = 2,
        attention: Sequence[int] = (0, 1, 2, 3),
        embedding: int = 192,
        heads: int = 6,
        window: int = 8,
        depth: int = 2,
        ratio: int = 4,
        size: int = 64,
        groups: int = 32,
        dropout: float = 0.0,
        as_released: bool = False,
    ):
        super().__init__()
        require_counts(channels=channels, condition=condition, blocks=blocks, size=size)
        require_integer("halvings", halvings, 0)
        widths = level_widths(width, multipliers, attention, groups, dropout)
        levels = len(widths)
        self.multiple = 2 ** (levels - 1)
        if size % self.multiple:
            raise ValueError(f"size must be a multiple of {self.multiple}, for {levels} levels, got {size}")

        def block(inputs: int, outputs: int, level: int, attend: bool) -> ModulatedBlock:
            swin = (outputs, embedding, heads, window, size // 2**level, depth, ratio, groups, as_released)
            layer = SwinLayer(*swin) if attend else None
            return ModulatedBlock(inputs, outputs, 4 * width, groups, dropout, layer)

        self.time = TimeEmbedding(width, nn.SiLU(), outputs=4 * width, cosines_first=True)
        self.condition, seen = _halvings(condition, halvings)
        self.halvings, self.conditioned = halvings, condition
        self.stem = nn.Conv2d(channels + seen, width, 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        shortcuts = [width]
        for level, each in enumerate(widths):
            if level > 0:
                self.shrink.append(nn.Conv2d(shortcuts[-1], shortcuts[-1], 3, stride=2, padding=1))
                shortcuts.append(shortcuts[-1])
            stage = nn.ModuleList()
            for k in range(blocks):
                stage.append(block(shortcuts[-1], each, level, attend=k == 0 and level in attention))
                shortcuts.append(each)
            self.down.append(stage)
        current = widths[-1]
        self.middle = nn.ModuleList(block(current, current, levels - 1, attend=k == 0) for k in range(2))
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level, each in reversed(list(enumerate(widths))):
            stage = nn.ModuleList()
            for k in range(blocks + 1):
                stage.append(block(current + shortcuts.pop(), each, level, attend=k == 0 and level in attention))
                current = each
            self.up.append(stage)
            if level > 0:
                self.grow.append(Doubling(each))
        self.norm = nn.GroupNorm(groups, current)
        self.tail = nn.Conv2d(current, channels, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """One evaluation, to (N, channels, H, W).

        Args:
            x: (N, channels, H, W); H and W are multiples of 2^(levels - 1), kept in `multiple`.
            time: (N,), the step of each image.
            condition: (N, condition, 2^halvings H, 2^halvings W).

        Raises:
            ValueError: sizes that cannot be halved often enough or do not belong together, or a `time` of another
                shape.
        """
        height, width = require_maps(x, self.tail.out_channels, "x").shape[-2:]
        self.require_sides(x)
        larger = 2**self.halvings
        require_maps(condition, self.conditioned, "condition")
        if (len(condition), *condition.shape[-2:]) != (len(x), larger * height, larger * width):
            raise ValueError(
                f"a condition of {tuple(condition.shape)} does not fit x of {tuple(x.shape)}: "
                f"it must have as many images, {larger} times as large"
            )
        require_times(time, x)
        return self.walk(torch.cat([x, self.condition(condition)], dim=1), self.time(time))


def _halvings(channels: int, count: int) -> tuple[nn.Sequential, int]:
    """Convolutions that halve the condition `count` times, and how many channels they leave."""
    layers, width = nn.Sequential(), 16
    for _ in range(count):
        layers.extend(
            [nn.Conv2d(channels, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)]
        )
        channels = width = 2 * width
    return layers, channels
