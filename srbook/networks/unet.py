"""The U-Net of DDPM and SR3: down to small images, up again, with shortcuts between equal sizes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from srbook.arguments import require_counts
from srbook.images import require_maps
from srbook.networks.blocks import Doubling, ResidualBlock, level_widths, orthogonal_
from srbook.networks.time import TimeEmbedding, require_times


class Levels(nn.Module):
    """The way down and up again: a stem, levels of blocks with halvings and doublings between them, and a last layer.

    A subclass makes the parts: `stem`, `down`, `shrink`, `middle`, `up`, `grow`, `norm`, and `tail`. Both sides of x
    are multiples of its `multiple`.
    """

    def require_sides(self, x: Tensor) -> None:
        """Check that both sides of `x` can be halved often enough; otherwise raise a ValueError."""
        if any(size % self.multiple for size in x.shape[-2:]):
            raise ValueError(f"height and width must be multiples of {self.multiple}, got {tuple(x.shape[-2:])}")

    def walk(self, x: Tensor, time: Tensor, guide: Callable[[int, Tensor], Tensor] | None = None) -> Tensor:
        """Everything after the time embedding `time` (N, ...), from x (N, inputs, H, W) to (N, outputs, H, W).

        `guide` replaces the shortcut that halving number 0, 1, ... leaves; the way down goes on without it.
        """
        x = self.stem(x)
        shortcuts = [x]
        for level, blocks in enumerate(self.down):
            if level > 0:
                x = self.shrink[level - 1](x)
                shortcuts.append(guide(level - 1, x) if guide else x)
            for block in blocks:
                x = block(x, time)
                shortcuts.append(x)
        for block in self.middle:
            x = block(x, time)
        for stage, blocks in enumerate(self.up):
            if stage > 0:
                x = self.grow[stage - 1](x)
            for block in blocks:
                x = block(torch.cat([x, shortcuts.pop()], dim=1), time)
        return self.tail(silu(self.norm(x)))


class UNet(Levels):
    """The U-Net of DDPM (Ho et al., 2020), in the form of the community's SR3 program.

    The defaults are SR3's 16 to 128 network: 97,807,491 parameters. With `time_activation` and `multipliers` (1, 1, 2,
    2, 4, 4) it is that program's DDPM. The method decides what the output means (noise, image, or velocity) and what
    `time` means (a step or a signal), and concatenates a condition to the input.

    The stem, each block on the way down, and each halving leave a shortcut; each block on the way up takes one, so
    there is one more block per level. Weights start orthogonal and biases at zero.

    Args:
        inputs: channels of the input, for example 6 for an image and its condition.
        outputs: channels of the output.
        width: channels at full resolution, and length of the time embedding.
        multipliers: channels of each level as multiples of `width`; each level halves the resolution.
        blocks: residual blocks per level on the way down.
        attention: levels (0 is the full resolution) whose blocks end with self-attention. The middle always has it.
        groups: of the group normalizations.
        dropout: share of values that training drops in each block.
        time_activation: SiLU before each block's time layer (DDPM); without it the layer is bare (SR3).

    Raises:
        ValueError: no level or block, a level that does not exist, or widths that the groups do not divide.
    """

    def __init__(
        self,
        inputs: int = 6,
        outputs: int = 3,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 4, 8, 8),
        blocks: int = 2,
        attention: Sequence[int] = (3,),
        groups: int = 32,
        dropout: float = 0.2,
        time_activation: bool = False,
    ):
        super().__init__()
        require_counts(inputs=inputs, outputs=outputs, blocks=blocks)
        widths = level_widths(width, multipliers, attention, groups, dropout)

        def block(inputs: int, outputs: int, attend: bool) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, width, groups, dropout, time_activation, attend)

        self.multiple = 2 ** (len(widths) - 1)
        self.time = TimeEmbedding(width, nn.SiLU())
        self.stem = nn.Conv2d(inputs, width, 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        shortcuts = [width]
        for level, channels in enumerate(widths):
            if level > 0:
                self.shrink.append(nn.Conv2d(shortcuts[-1], shortcuts[-1], 3, stride=2, padding=1))
                shortcuts.append(shortcuts[-1])
            stage = nn.ModuleList()
            for _ in range(blocks):
                stage.append(block(shortcuts[-1], channels, level in attention))
                shortcuts.append(channels)
            self.down.append(stage)
        deepest = widths[-1]
        self.middle = nn.ModuleList([block(deepest, deepest, True), block(deepest, deepest, False)])
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        current = deepest
        for level, channels in reversed(list(enumerate(widths))):
            stage = nn.ModuleList()
            for _ in range(blocks + 1):
                stage.append(block(current + shortcuts.pop(), channels, level in attention))
                current = channels
            self.up.append(stage)
            if level > 0:
                self.grow.append(Doubling(channels))
        self.norm = nn.GroupNorm(groups, current)
        self.tail = nn.Conv2d(current, outputs, 3, padding=1)
        orthogonal_(self)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """One evaluation, to (N, outputs, H, W).

        Args:
            x: (N, inputs, H, W); H and W are multiples of 2^(levels - 1), kept in `multiple`.
            time: (N,), the step or the signal of each image.

        Raises:
            ValueError: a size that cannot be halved often enough, or a `time` of another shape.
        """
        require_maps(x, self.stem.in_channels, "x")
        self.require_sides(x)
        require_times(time, x)
        return self.walk(x, self.time(time))
