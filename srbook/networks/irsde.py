"""IR-SDE's denoisers: a U-Net with linear attention (Luo et al., 2023a), and Refusion's NAFNet (Luo et al., 2023b)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from srbook.arguments import require_counts, require_lists_of_counts
from srbook.images import require_maps
from srbook.networks.time import TimeEmbedding, require_times


class ChannelNorm(nn.Module):
    """Bring the channels of each pixel to mean 0 and deviation 1, and multiply them by learned gains."""

    def __init__(self, channels: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
        return (x - mean) * (variance + 1e-5).rsqrt() * self.gain


class LinearAttention(nn.Module):
    """Add to every pixel what it asks of a small summary of all pixels; the cost grows with HW (Shen et al., 2021).

    The summary has depth x depth numbers per head: which values go with which keys. Keys are shares over the pixels,
    queries shares over the depth.

    Args:
        channels: of the input and of the output.
        heads: that look for different things.
        depth: channels of each head.
    """

    def __init__(self, channels: int, heads: int = 4, depth: int = 32):
        super().__init__()
        self.heads, self.depth = heads, depth
        self.norm = ChannelNorm(channels)
        self.qkv = nn.Conv2d(channels, 3 * heads * depth, 1, bias=False)
        self.out = nn.Conv2d(heads * depth, channels, 1)
        self.last = ChannelNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        parts = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, self.depth))
        query, key, value = parts.unbind(1)  # N, heads, depth, HW
        query, key = query.softmax(dim=2) / self.depth**0.5, key.softmax(dim=3)
        summary = key @ (value / value.shape[3]).transpose(2, 3)  # N, heads, depth of keys, depth of values
        mixed = (summary.transpose(2, 3) @ query).flatten(1, 2).unflatten(2, x.shape[2:])
        return x + self.last(self.out(mixed))


class ScaledBlock(nn.Module):
    """Two 3x3 convolutions without normalization or bias, plus the input; the time scales and shifts the first one.

    Args:
        inputs, outputs: channels of the input and of the output.
        time_channels: length of the time embedding.
    """

    def __init__(self, inputs: int, outputs: int, time_channels: int):
        super().__init__()
        self.time = nn.Linear(time_channels, 2 * outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(N, inputs, H, W) and the embedding (N, time_channels) to (N, outputs, H, W)."""
        scale, shift = self.time(silu(time))[:, :, None, None].chunk(2, dim=1)
        y = silu(self.conv1(x) * (1 + scale) + shift)
        return silu(self.conv2(y)) + self.skip(x)


class LinearUNet(nn.Module):
    """The conditional U-Net of IR-SDE: 137,147,523 parameters at the defaults.

    Each level has two blocks and a linear attention, and twice the channels of the one above. All levels but the
    deepest are halved. The input's features come back at the end, beside those of the way up.

    Args:
        inputs, outputs: channels of the input and of the output.
        width: channels at full resolution, and length of the sinusoidal embedding of the time.
        depth: number of levels.
    """

    def __init__(self, inputs: int = 6, outputs: int = 3, width: int = 64, depth: int = 4):
        super().__init__()
        require_counts(inputs=inputs, outputs=outputs, width=width, depth=depth)
        self.multiple = 2 ** (depth - 1)
        clock = 4 * width
        self.time = TimeEmbedding(width, nn.GELU(), inclusive=True, outputs=clock)
        self.stem = nn.Conv2d(inputs, width, 7, padding=3, bias=False)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()

        def stage(inputs: int, outputs: int) -> nn.ModuleList:
            blocks = [ScaledBlock(inputs, outputs, clock) for _ in range(2)]
            return nn.ModuleList([*blocks, LinearAttention(outputs)])

        def flat(inputs: int, outputs: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)

        for level in range(depth):
            channels, below = width * 2**level, width * 2 ** (level + 1)
            halves = level < depth - 1
            self.down.append(stage(channels, channels))
            self.shrink.append(nn.Conv2d(channels, below, 4, stride=2, padding=1) if halves else flat(channels, below))
        deepest = width * 2**depth
        first, second, attention = stage(deepest, deepest)
        self.middle = nn.ModuleList([first, attention, second])
        for level in reversed(range(depth)):
            channels, below = width * 2**level, width * 2 ** (level + 1)
            self.up.append(stage(below + channels, below))
            doubling = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(below, channels, 3, padding=1))
            self.grow.append(doubling if level > 0 else flat(below, channels))
        self.last = ScaledBlock(2 * width, width, clock)
        self.tail = nn.Conv2d(width, outputs, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """One evaluation, (N, inputs, H, W) to (N, outputs, H, W).

        H and W are multiples of 2^(depth - 1), kept in `multiple`, and `time` (N,) holds the step of each image;
        otherwise a ValueError.
        """
        _require_input(self, x, time)
        time = self.time(time)
        stem = x = self.stem(x)
        shortcuts = []
        for (first, second, attention), shrink in zip(self.down, self.shrink, strict=True):
            x = first(x, time)
            shortcuts.append(x)
            x = attention(second(x, time))
            shortcuts.append(x)
            x = shrink(x)
        first, attention, second = self.middle
        x = second(attention(first(x, time)), time)
        for (first, second, attention), grow in zip(self.up, self.grow, strict=True):
            x = first(torch.cat([x, shortcuts.pop()], dim=1), time)
            x = grow(attention(second(torch.cat([x, shortcuts.pop()], dim=1), time)))
        return self.tail(self.last(torch.cat([x, stem], dim=1), time))


def gate(x: Tensor) -> Tensor:
    """One half of the channels times the other: NAFNet's only nonlinearity."""
    one, other = x.chunk(2, dim=1)
    return one * other


class Gate(nn.Module):
    """`gate` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2C, ...) to (N, C, ...)."""
        return gate(x)


class NAFBlock(nn.Module):
    """A gated depthwise convolution and gated 1x1 convolutions, without activation functions (Chen et al., 2022).

    Each half is added to its input by gains that start at 0; the time scales and shifts what it sees.
    `time_channels` is the length of the time embedding.
    """

    def __init__(self, channels: int, time_channels: int):
        super().__init__()
        self.time = nn.Linear(time_channels // 2, 4 * channels)
        self.norm1, self.norm2 = ChannelNorm(channels), ChannelNorm(channels)
        self.widen = nn.Conv2d(channels, 2 * channels, 1)
        self.spread = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.weigh = nn.Conv2d(channels, channels, 1)
        self.mix = nn.Conv2d(channels, channels, 1)
        self.hidden = nn.Conv2d(channels, 2 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(N, C, H, W) and the embedding (N, time_channels) to (N, C, H, W)."""
        shift1, scale1, shift2, scale2 = self.time(gate(time))[:, :, None, None].chunk(4, dim=1)
        y = gate(self.spread(self.widen(self.norm1(x) * (1 + scale1) + shift1)))
        x = x + self.mix(y * self.weigh(y.mean(dim=(2, 3), keepdim=True))) * self.beta
        y = gate(self.hidden(self.norm2(x) * (1 + scale2) + shift2))
        return x + self.out(y) * self.gamma


class NAFNet(nn.Module):
    """The conditional NAFNet of Refusion: 76,608,387 parameters at the defaults.

    Args:
        inputs, outputs: channels of the input and of the output.
        width: channels at full resolution, and length of the sinusoidal embedding of the time.
        down: blocks of each level on the way down; each level ends with a halving that doubles the channels.
        middle: blocks in the middle.
        up: blocks of each level on the way up, deepest first; as many levels as `down`, or a ValueError.
    """

    def __init__(
        self,
        inputs: int = 6,
        outputs: int = 3,
        width: int = 64,
        down: Sequence[int] = (1, 1, 1, 28),
        middle: int = 1,
        up: Sequence[int] = (1, 1, 1, 1),
    ):
        super().__init__()
        require_counts(inputs=inputs, outputs=outputs, width=width, middle=middle)
        require_lists_of_counts(down=down, up=up)
        if len(down) != len(up) or len(down) == 0:
            raise ValueError(f"down and up must have equally many levels, at least one, got {len(down)} and {len(up)}")
        clock = 4 * width

        def blocks(count: int, channels: int) -> nn.ModuleList:
            return nn.ModuleList(NAFBlock(channels, clock) for _ in range(count))

        widths = [width * 2**level for level in range(len(down) + 1)]
        self.multiple = 2 ** len(down)
        self.time = TimeEmbedding(width, Gate(), inclusive=True, outputs=clock, hidden=2 * clock)
        self.stem = nn.Conv2d(inputs, width, 3, padding=1)
        self.down = nn.ModuleList(blocks(count, channels) for count, channels in zip(down, widths, strict=False))
        self.shrink = nn.ModuleList(nn.Conv2d(channels, 2 * channels, 2, stride=2) for channels in widths[:-1])
        self.middle = blocks(middle, widths[-1])
        self.grow = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, 2 * channels, 1, bias=False), nn.PixelShuffle(2))
            for channels in reversed(widths[1:])
        )
        self.up = nn.ModuleList(blocks(count, channels) for count, channels in zip(up, widths[-2::-1], strict=True))
        self.tail = nn.Conv2d(width, outputs, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """As `LinearUNet`; H and W are multiples of 2^levels, kept in `multiple`."""
        _require_input(self, x, time)
        time = self.time(time)
        x = self.stem(x)
        shortcuts = []
        for stage, shrink in zip(self.down, self.shrink, strict=True):
            for block in stage:
                x = block(x, time)
            shortcuts.append(x)
            x = shrink(x)
        for block in self.middle:
            x = block(x, time)
        for stage, grow in zip(self.up, self.grow, strict=True):
            x = grow(x) + shortcuts.pop()
            for block in stage:
                x = block(x, time)
        return self.tail(x)


def _require_input(network: LinearUNet | NAFNet, x: Tensor, time: Tensor) -> None:
    require_maps(x, network.stem.in_channels, "x")
    multiple = network.multiple
    if any(size % multiple for size in x.shape[-2:]):
        raise ValueError(f"height and width must be multiples of {multiple}, got {tuple(x.shape[-2:])}")
    require_times(time, x)
