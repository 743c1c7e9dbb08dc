"""ESRDF's predictor: bicubic plus what residual units with attention add to it (Huang et al., 2026)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from srbook.arguments import require_counts
from srbook.degradations import bicubic_upsample
from srbook.images import require_maps

SLOPE = 0.1
REDUCTION = 16


class ConvolutionalAttention(nn.Module):
    """Channels, then positions, times weights in (0, 1): CBAM (Woo et al., 2018), with leaky ReLUs.

    A channel's weight comes from the means and maxima of all channels, by a hidden layer with a sixteenth of the
    `channels`. A position's weight comes from the mean and the maximum over the channels in the 7x7 positions around
    it.
    """

    def __init__(self, channels: int):
        super().__init__()
        hidden = max(1, channels // REDUCTION)
        self.channel = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.LeakyReLU(SLOPE), nn.Conv2d(hidden, channels, 1, bias=False)
        )
        self.position = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        gate = self.channel(x.mean(dim=(2, 3), keepdim=True)) + self.channel(x.amax(dim=(2, 3), keepdim=True))
        x = x * torch.sigmoid(gate)
        seen = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.position(seen))


class AttentionUnit(nn.Module):
    """Two 3x3 convolutions of `channels` and attention, added to the input: the paper's ARFU."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.attention = ConvolutionalAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        y = self.conv2(leaky_relu(self.conv1(x), SLOPE))
        return leaky_relu(self.attention(y) + x, SLOPE)


class AttentionFusion(nn.Module):
    """Three units, then a 3x3 convolution, plus a 1x1 convolution of the input: the paper's ARFM."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.units = nn.Sequential(*(AttentionUnit(inputs) for _ in range(3)))
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        return leaky_relu(self.conv(self.units(x)) + self.skip(x), SLOPE)


class AttentionPredictor(nn.Module):
    """Bicubic upscaling plus a learned residual, computed at low resolution: ESRDF's main path.

    At the defaults and x4 it has 2,381,948 parameters. The released program holds 1,731 more in a convolution that it
    never uses, and its bicubic image is torch's (a = -0.75) where this one is MATLAB's (a = -0.5). The last convolution
    starts at zero, so training starts at the bicubic image.
    """

    def __init__(self, scale: int, width: int = 64):
        super().__init__()
        require_counts(scale=scale, width=width)
        self.scale = scale
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.units = nn.ModuleList(AttentionUnit(width) for _ in range(3))
        self.fusion = AttentionFusion(3 * width, width)
        self.tail = nn.Conv2d(width, 3 * scale**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(scale)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)

    def residual(self, lr: Tensor) -> Tensor:
        """The residual that is added to the bicubic image: (N, 3, H, W) in [0, 1] to (N, 3, sH, sW).

        The convolutions see and make images in [-1, 1], as in the released program.
        """
        require_maps(lr, 3, "lr")
        x = leaky_relu(self.norm(self.head(2 * lr - 1)), SLOPE)
        found = []
        for unit in self.units:
            x = unit(x)
            found.append(x)
        return self.shuffle(self.tail(self.fusion(torch.cat(found, dim=1)))) / 2

    def forward(self, lr: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, 3, sH, sW), not clipped."""
        return bicubic_upsample(lr, self.scale) + self.residual(lr)
