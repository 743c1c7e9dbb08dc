"""RRDBNet: residual-in-residual dense blocks, ESRGAN's generator (Wang et al., 2018)."""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

from srbook.arguments import require_counts
from srbook.degradations import bicubic_upsample
from srbook.images import require_maps

RESIDUAL_SCALE = 0.2
SLOPE = 0.2


class DenseBlock(nn.Module):
    """Five 3x3 convolutions, each of which sees everything before it; the last one is added, times 0.2.

    The convolutions start at a tenth of PyTorch's default size, so that a deep stack of blocks starts near the
    identity.
    """

    def __init__(self, width: int, growth: int):
        super().__init__()
        outputs = [growth] * 4 + [width]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width + i * growth, each, 3, padding=1) for i, each in enumerate(outputs)
        )
        with torch.no_grad():
            for convolution in self.convolutions:
                convolution.weight.mul_(0.1)
                convolution.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for convolution in self.convolutions[:-1]:
            seen = torch.cat([seen, leaky_relu(convolution(seen), SLOPE)], dim=1)
        return x + RESIDUAL_SCALE * self.convolutions[-1](seen)


class RRDB(nn.Module):
    """Three dense blocks in a row, added to the input times 0.2; implements :eq:`eq-rrdb`."""

    def __init__(self, width: int, growth: int):
        super().__init__()
        self.blocks = nn.Sequential(*(DenseBlock(width, growth) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        return x + RESIDUAL_SCALE * self.blocks(x)


class RRDBEncoder(nn.Module):
    """The first part of `RRDBNet`, whose features tell other networks about a low-resolution image.

    Args:
        width: channels between blocks.
        growth: channels that each convolution of a dense block adds.
        blocks: number of RRDBs.
    """

    def __init__(self, width: int = 64, growth: int = 32, blocks: int = 23):
        super().__init__()
        require_counts(width=width, growth=growth, blocks=blocks)
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(RRDB(width, growth) for _ in range(blocks))

    def features(self, lr: Tensor, taps: Collection[int]) -> list[Tensor]:
        """Feature maps (N, width, H, W) of `lr` (N, 3, H, W) in [0, 1], after chosen blocks and in their order.

        Map k of `taps` is block k's output, from 0. Each must exist and be named once, or it is a ValueError.
        """
        require_taps(taps, len(self.blocks) - 1)
        return self._walk(self.head(require_maps(lr, 3, "lr")), taps)[0]

    def _walk(self, x: Tensor, taps: Collection[int]) -> tuple[list[Tensor], Tensor]:
        """The tapped maps, and the last block's output."""
        found = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in taps:
                found.append(x)
        return found, x


class RRDBDecoder(nn.Module):
    """The last part of `RRDBNet`: features of a low-resolution image, of `width` channels, become the large one.

    A `scale` that is not a power of two is a ValueError.
    """

    def __init__(self, scale: int, width: int = 64):
        super().__init__()
        self.upscale, self.refine, self.tail = _decoding_layers(scale, width)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, width, H, W) to (N, 3, sH, sW), not clipped."""
        return _decode(maps, self.upscale, self.refine, self.tail)


class RRDBNet(RRDBEncoder):
    """ESRGAN's generator. At 64/32/23, x4: 16,697,987 parameters.

    All blocks work at low resolution. Each octave of magnification is a nearest-neighbor doubling and a convolution;
    two more convolutions make the image.

    Args:
        scale: magnification, a power of two, or a ValueError.
        width, growth, blocks: as in `RRDBEncoder`.
        anchored: add the bicubic image, so that the network predicts a residual and starts at zero. The published one
            is not anchored; short trainings gain a great deal from it.
    """

    def __init__(self, scale: int, width: int = 64, growth: int = 32, blocks: int = 23, anchored: bool = False):
        super().__init__(width, growth, blocks)
        self.scale = scale
        self.anchored = anchored
        self.trunk = nn.Conv2d(width, width, 3, padding=1)
        self.upscale, self.refine, self.tail = _decoding_layers(scale, width)
        if anchored:
            nn.init.zeros_(self.tail.weight)
            nn.init.zeros_(self.tail.bias)

    def features(self, lr: Tensor, taps: Collection[int]) -> list[Tensor]:
        """Feature maps after chosen blocks, as in `RRDBEncoder.features`; other networks take them as a condition.

        With b blocks, map b is the trunk's output with the head's added.
        """
        last = len(self.blocks)
        require_taps(taps, last)
        shallow = self.head(require_maps(lr, 3, "lr"))
        found, x = self._walk(shallow, taps)
        if last in taps:
            found.append(shallow + self.trunk(x))
        return found

    def forward(self, lr: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, 3, sH, sW), not clipped."""
        [x] = self.features(lr, [len(self.blocks)])
        image = _decode(x, self.upscale, self.refine, self.tail)
        return image + bicubic_upsample(lr, self.scale) if self.anchored else image


def _decoding_layers(scale: int, width: int) -> tuple[nn.ModuleList, nn.Conv2d, nn.Conv2d]:
    require_counts(scale=scale, width=width)
    octaves = scale.bit_length() - 1
    if scale < 2 or scale != 2**octaves:
        raise ValueError(f"RRDBNet doubles the size some times, so its scale must be 2, 4, 8, ...; got {scale}")
    upscale = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(octaves))
    return upscale, nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)


def _decode(x: Tensor, upscale: nn.ModuleList, refine: nn.Conv2d, tail: nn.Conv2d) -> Tensor:
    for convolution in upscale:
        x = leaky_relu(convolution(interpolate(x, scale_factor=2, mode="nearest")), SLOPE)
    return tail(leaky_relu(refine(x), SLOPE))


def require_taps(taps: Collection[int], last: int) -> None:
    """Check that `taps` are different numbers from 0 to `last`; otherwise raise a ValueError."""
    if not set(taps) <= set(range(last + 1)) or len(set(taps)) < len(taps):
        raise ValueError(f"taps must be different numbers from 0 to {last}, got {tuple(taps)}")
