"""The parts of the U-Net: a residual block that is told the time, attention over all pixels, and doubling."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention, silu

from srbook.arguments import require_counts, require_lists_of_counts, require_numbers


class SelfAttention(nn.Module):
    """Add to every pixel a weighted mean of all pixels. One head (Vaswani et al., 2017).

    `groups`, of the group normalization, divides `channels`.
    """

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape. The cost grows with (HW)^2."""
        query, key, value = as_sequence(self.qkv(self.norm(x))).chunk(3, dim=3)
        mixed = scaled_dot_product_attention(query, key, value)  # logits are divided by sqrt(C)
        return x + self.out(as_image(mixed, x))


def as_sequence(x: Tensor) -> Tensor:
    """(N, C, H, W) to one head of HW pixels, (N, 1, HW, C)."""
    return x.flatten(2).transpose(1, 2).unsqueeze(1)


def as_image(sequence: Tensor, x: Tensor) -> Tensor:
    """The inverse of `as_sequence`, to the size of the image `x`."""
    return sequence.squeeze(1).transpose(1, 2).unflatten(2, x.shape[2:])


class ResidualBlock(nn.Module):
    """Two normalized 3x3 convolutions with the time added in between, plus the input (Ho et al., 2020).

    Args:
        inputs: channels of the input, a multiple of `groups`.
        outputs: channels of the output, a multiple of `groups`.
        time_channels: length of the time embedding.
        groups: of the group normalizations.
        dropout: share of values that training drops before the second convolution.
        time_activation: SiLU before the time's linear layer (DDPM); without it the layer is bare (SR3).
        attention: self-attention after the block.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        time_channels: int,
        groups: int,
        dropout: float = 0.0,
        time_activation: bool = False,
        attention: bool = False,
    ):
        super().__init__()
        self.time_activation = time_activation
        self.norm1 = nn.GroupNorm(groups, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(time_channels, outputs)
        self.norm2 = nn.GroupNorm(groups, outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.attention = SelfAttention(outputs, groups) if attention else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(N, inputs, H, W) and the embedding (N, time_channels) to (N, outputs, H, W)."""
        shift = self.time(silu(time) if self.time_activation else time)
        y = self.conv1(silu(self.norm1(x))) + shift[:, :, None, None]
        y = self.conv2(self.dropout(silu(self.norm2(y))))
        return self.attention(y + self.skip(x))


class Doubling(nn.Conv2d):
    """Every pixel becomes 2x2 equal ones, then a 3x3 convolution that keeps the number of channels."""

    doubles = True  # by this `srbook.accel` knows the layer

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, 2H, 2W)."""
        return super().forward(interpolate(x, scale_factor=2, mode="nearest"))


def level_widths(
    width: int, multipliers: Sequence[int], attention: Sequence[int], groups: int, dropout: float
) -> list[int]:
    """Channels of each level of a U-Net; a ValueError or TypeError if these arguments make none.

    They are the network's own, see `srbook.networks.UNet`.
    """
    require_counts(width=width, groups=groups)
    require_lists_of_counts(multipliers=multipliers)
    require_numbers(dropout=dropout)
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be a share from 0 to below 1, got {dropout}")
    levels = len(multipliers)
    if levels == 0:
        raise ValueError("a U-Net needs at least one level, got no multipliers")
    if not isinstance(attention, list | tuple) or not set(attention) <= set(range(levels)):
        raise ValueError(f"attention must name levels from 0 to {levels - 1}, got {attention!r}")
    widths = [width * multiplier for multiplier in multipliers]
    if any(channels % groups for channels in (width, *widths)):
        raise ValueError(f"every level's channels must be a multiple of groups={groups}, got {(width, *widths)}")
    return widths


@torch.no_grad()
def orthogonal_(module: nn.Module) -> None:
    """Start every convolution and linear layer of `module` with orthogonal rows (or columns) and no bias."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
