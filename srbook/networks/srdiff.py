"""SRDiff's denoiser: a U-Net without normalization that sees features of the low-resolution image (Li et al., 2021)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import mish

from srbook.arguments import require_counts, require_lists_of_counts
from srbook.images import require_maps
from srbook.networks.time import TimeEmbedding, require_times


def reflected_conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that sees the image mirrored at its border."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, padding_mode="reflect")


class MishBlock(nn.Module):
    """Two 3x3 convolutions, each followed by Mish, with the time added in between, plus the input.

    Args:
        inputs, outputs: channels of the input and of the output.
        time_channels: length of the time embedding.
    """

    def __init__(self, inputs: int, outputs: int, time_channels: int):
        super().__init__()
        self.conv1 = reflected_conv(inputs, outputs)
        self.time = nn.Linear(time_channels, outputs)
        self.conv2 = reflected_conv(outputs, outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(N, inputs, H, W) and the embedding (N, time_channels) to (N, outputs, H, W)."""
        y = mish(self.conv1(x)) + self.time(mish(time))[:, :, None, None]
        return self.skip(x) + mish(self.conv2(y))


class SRDiffUNet(nn.Module):
    """SRDiff's denoiser. For CelebA (x8, 96 feature channels, the default widths): 10,545,795 parameters.

    One transposed convolution brings the features of the low-resolution image to full size; they are added once, after
    the first level. As in the released program, the shortcut of that level is not used, so the condition reaches the
    decoder from below only.

    Args:
        scale: magnification, even: the features are `scale` times smaller than the image.
        context: channels of the features, for example the tapped ones of `RRDBNet.features`, concatenated.
        width, multipliers: as in `UNet`.

    Raises:
        ValueError: fewer than two levels, a first multiplier other than 1, or an odd scale.
    """

    def __init__(self, scale: int, context: int, width: int = 64, multipliers: Sequence[int] = (1, 2, 2, 4)):
        super().__init__()
        require_counts(scale=scale, context=context, width=width)
        require_lists_of_counts(multipliers=multipliers)
        if len(multipliers) < 2 or multipliers[0] != 1:
            raise ValueError(f"multipliers must be at least two and start with 1, got {tuple(multipliers)}")
        if scale < 2 or scale % 2:
            raise ValueError(f"scale must be even, so that the features can be centered on the image, got {scale}")
        widths = [width * multiplier for multiplier in multipliers]
        self.scale = scale
        self.multiple = 2 ** (len(widths) - 1)
        self.least = 2 * self.multiple  # a single pixel has nothing beside it that could be mirrored
        self.time = TimeEmbedding(width, nn.Mish(), inclusive=True)
        self.condition = nn.ConvTranspose2d(context, width, 2 * scale, stride=scale, padding=scale // 2)
        self.down = nn.ModuleList(
            nn.ModuleList([MishBlock(before, channels, width), MishBlock(channels, channels, width)])
            for before, channels in zip([3, *widths], widths, strict=False)
        )
        self.shrink = nn.ModuleList(reflected_conv(channels, channels, stride=2) for channels in widths[:-1])
        self.middle = nn.ModuleList(MishBlock(widths[-1], widths[-1], width) for _ in range(2))
        climb = list(zip(reversed(widths), reversed(widths[:-1]), strict=False))  # channels at a level, and above it
        self.up = nn.ModuleList(
            nn.ModuleList([MishBlock(2 * channels, above, width), MishBlock(above, above, width)])
            for channels, above in climb
        )
        self.grow = nn.ModuleList(nn.ConvTranspose2d(above, above, 4, stride=2, padding=1) for _, above in climb)
        self.head = reflected_conv(width, width)
        self.tail = nn.Conv2d(width, 3, 1)

    def forward(self, x: Tensor, time: Tensor, features: Tensor) -> Tensor:
        """One evaluation, to (N, 3, sH, sW).

        Args:
            x: (N, 3, sH, sW); both sizes are multiples of 2^(levels - 1), kept in `multiple`, and at least twice as
                large, kept in `least`.
            time: (N,), the step of each image.
            features: (N, context, H, W), the condition.

        Raises:
            ValueError: sizes that cannot be halved often enough or do not belong together, or a `time` of another
                shape.
        """
        height, width = require_maps(x, 3, "x").shape[-2:]
        if height % self.multiple or width % self.multiple or min(height, width) < self.least:
            raise ValueError(
                f"height and width must be multiples of {self.multiple}, and at least {self.least}, "
                f"got {(height, width)}"
            )
        if (self.scale * features.shape[-2], self.scale * features.shape[-1]) != (height, width):
            raise ValueError(
                f"features of {tuple(features.shape[-2:])} at x{self.scale} do not fit an image of {(height, width)}"
            )
        require_times(time, x)
        time = self.time(time)
        shortcuts = []
        for level, (first, second) in enumerate(self.down):
            x = second(first(x, time), time)
            if level == 0:
                x = x + self.condition(features)
            else:
                shortcuts.append(x)
            if level < len(self.shrink):
                x = self.shrink[level](x)
        for block in self.middle:
            x = block(x, time)
        for (first, second), grow in zip(self.up, self.grow, strict=True):
            x = grow(second(first(torch.cat([x, shortcuts.pop()], dim=1), time), time))
        return self.tail(mish(self.head(x)))
