"""ECDP's denoiser: a U-Net in which features of the low-resolution image enter every block (Yuan and Yuan, 2024)."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from srbook.arguments import require_counts, require_lists_of_counts
from srbook.images import require_maps
from srbook.networks.blocks import Doubling
from srbook.networks.time import TimeEmbedding, require_times
from srbook.numbers import at_least_single

HEAD_GROUPS = 16


class GuidedBlock(nn.Module):
    """Two normalized 3x3 convolutions, with the time and a map of the condition added in between, plus the input.

    The block owns the 1x1 convolution `guide`, which makes its map from the features of the low-resolution image. The
    network calls it, once per image: see `GuidedUNet.prepare`.

    Args:
        inputs, outputs: channels of the input and of the output.
        time_channels: length of the time embedding.
        context: channels of the features.
    """

    def __init__(self, inputs: int, outputs: int, time_channels: int, context: int):
        super().__init__()
        self.norm1 = _normalization(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(time_channels, outputs)
        self.guide = nn.Conv2d(context, outputs, 1)
        self.norm2 = _normalization(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        with torch.no_grad():  # the block starts near its skip
            self.conv2.weight.mul_(1e-3)
            if inputs != outputs:
                self.skip.weight.mul_(0.1)

    def forward(self, x: Tensor, time: Tensor, guide: Tensor) -> Tensor:
        """(N, inputs, H, W), the embedding (N, time_channels), and a map (N, outputs, H, W) to (N, outputs, H, W)."""
        y = self.conv1(silu(self.norm1(x))) + self.time(time)[:, :, None, None] + guide
        return self.conv2(silu(self.norm2(y))) + self.skip(x)


class GuidedUNet(nn.Module):
    """ECDP's denoiser. With the defaults: 26,039,302 parameters.

    Every block adds its own 1x1 convolution of the features of the low-resolution image, resized to its resolution.
    `prepare` makes all these maps once per image, and each evaluation adds them. The published program makes them anew
    at every evaluation, and resizes the features before the convolution. The two operations commute, and the
    convolution is cheaper on the small maps.

    The stem, each block on the way down, and each halving leave a shortcut. Each block on the way up takes one, so
    there is one more block per level. The halves of odd sides are rounded up, and the way up cuts the surplus off, so
    images of every size pass. There is no attention and no dropout.

    Args:
        context: channels of the features.
        inputs: channels of the noisy image.
        outputs: channels of the output: 6 for the two heads.
        width: channels at full resolution.
        multipliers: channels of each level as multiples of `width`; each level halves the resolution.
        blocks: residual blocks of each level on the way down.
        time_channels: length of the sinusoidal embedding; its layers are four times as wide.
        antialias: smooth the condition where a level is smaller than it, as torchvision does since version 0.17. At x4
            this concerns a fourth level only.

    Raises:
        ValueError: no level, a level without its number of blocks, a width that is not a multiple of 16, the number of
            groups of the last normalization, or widths of other levels that are not multiples of 4.
    """

    def __init__(
        self,
        context: int = 256,
        inputs: int = 3,
        outputs: int = 6,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 4, 4),
        blocks: Sequence[int] = (2, 2, 2, 2),
        time_channels: int = 128,
        antialias: bool = False,
    ):
        super().__init__()
        require_counts(context=context, inputs=inputs, outputs=outputs, width=width, time_channels=time_channels)
        require_lists_of_counts(multipliers=multipliers, blocks=blocks)
        if not multipliers or len(blocks) != len(multipliers):
            raise ValueError(
                "a U-Net needs at least one level, and at least one block for each, "
                f"got multipliers {tuple(multipliers)} and blocks {tuple(blocks)}"
            )
        widths = [width * multiplier for multiplier in multipliers]
        if widths[0] % HEAD_GROUPS:
            raise ValueError(f"the first level must have a multiple of {HEAD_GROUPS} channels, got {widths[0]}")
        embedding = 4 * time_channels

        def block(inputs: int, outputs: int) -> GuidedBlock:
            return GuidedBlock(inputs, outputs, embedding, context)

        self.antialias = antialias
        self.time = TimeEmbedding(time_channels, nn.SiLU(), inclusive=True, outputs=embedding)
        self.stem = nn.Conv2d(inputs, width, 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        shortcuts = [width]
        for level, channels in enumerate(widths):
            if level > 0:
                self.shrink.append(nn.Conv2d(shortcuts[-1], shortcuts[-1], 3, stride=2, padding=1))
                shortcuts.append(shortcuts[-1])
            stage = nn.ModuleList()
            for _ in range(blocks[level]):
                stage.append(block(shortcuts[-1], channels))
                shortcuts.append(channels)
            self.down.append(stage)
        deepest = widths[-1]
        self.middle = nn.ModuleList([block(deepest, deepest), block(deepest, deepest)])
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        current = deepest
        for level, channels in reversed(list(enumerate(widths))):
            stage = nn.ModuleList()
            for _ in range(blocks[level] + 1):
                stage.append(block(current + shortcuts.pop(), channels))
                current = channels
            self.up.append(stage)
            if level > 0:
                self.grow.append(Doubling(channels))
        self.norm = nn.GroupNorm(HEAD_GROUPS, current)
        self.tail = nn.Conv2d(current, outputs, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.zeros_(layer.bias)

    def prepare(self, features: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """The maps (N, channels, H, W) that the blocks add, in the order of use, at each block's channels and size.

        With the default widths they hold 588 numbers per pixel of the large image.

        Args:
            features: (N, context, h, w), the condition, usually at low resolution.
            size: height and width of the images that `forward` will get.
        """
        sizes = [size]
        for _ in self.shrink:
            sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))
        return [_resize(block.guide(features), sizes[level], self.antialias) for level, block in self._blocks()]

    def weights_of_forward(self) -> list[nn.Parameter]:
        """The weights that `forward` uses: all but those of `prepare`."""
        return [weight for name, weight in self.named_parameters() if ".guide." not in name]

    def forward(self, x: Tensor, time: Tensor, guides: Sequence[Tensor]) -> Tensor:
        """One evaluation, for x (N, inputs, H, W) of any size, to (N, outputs, H, W).

        Args:
            time: (N,), the time of each image.
            guides: what `prepare` made for this size.

        Raises:
            ValueError: a `time` of another shape, or maps for another network or size.
        """
        require_maps(x, self.stem.in_channels, "x")
        require_times(time, x)
        count = sum(1 for _ in self._blocks())
        if len(guides) != count or guides[0].shape[-2:] != x.shape[-2:]:
            raise ValueError(
                f"guides must be the {count} maps that prepare(features, {tuple(x.shape[-2:])}) makes, "
                f"got {len(guides)} for {tuple(guides[0].shape[-2:]) if guides else 'no size'}"
            )
        maps = iter(guides)
        time = silu(self.time(time))
        x = self.stem(x)
        shortcuts = [x]
        for level, blocks in enumerate(self.down):
            if level > 0:
                x = self.shrink[level - 1](x)
                shortcuts.append(x)
            for block in blocks:
                x = block(x, time, next(maps))
                shortcuts.append(x)
        for block in self.middle:
            x = block(x, time, next(maps))
        for stage, blocks in enumerate(self.up):
            if stage > 0:
                height, width = shortcuts[-1].shape[-2:]
                x = self.grow[stage - 1](x)[..., :height, :width]
            for block in blocks:
                x = block(torch.cat([x, shortcuts.pop()], dim=1), time, next(maps))
        return self.tail(silu(self.norm(x)))

    def _blocks(self) -> Iterator[tuple[int, GuidedBlock]]:
        """The level of each block, and the block, in the order of use."""
        deepest = len(self.down) - 1
        for level, stage in enumerate(self.down):
            yield from ((level, block) for block in stage)
        yield from ((deepest, block) for block in self.middle)
        for position, stage in enumerate(self.up):
            yield from ((deepest - position, block) for block in stage)


def _normalization(channels: int) -> nn.GroupNorm:
    """Groups of four channels, but at most 32 groups; as many as divide the channels."""
    if channels < 4 or channels % 4:
        raise ValueError(f"every level must have a multiple of 4 channels, got {channels}")
    return nn.GroupNorm(channels // 4 if channels < 128 else math.gcd(channels, 32), channels)


def _resize(maps: Tensor, size: tuple[int, int], antialias: bool) -> Tensor:
    if maps.shape[-2:] == size:
        return maps
    shrinks = maps.shape[-2] > size[0] or maps.shape[-1] > size[1]
    if not (antialias and shrinks):  # enlarging has nothing to smooth
        return interpolate(maps, size=size, mode="bilinear", align_corners=False)
    wide = at_least_single(maps)  # antialiasing has no kernel for bfloat16
    return interpolate(wide, size=size, mode="bilinear", align_corners=False, antialias=True).to(maps)
