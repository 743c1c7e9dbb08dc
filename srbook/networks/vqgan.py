"""The VQ-GAN of latent diffusion: an image as a small map of codes, and back."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, embedding, interpolate, pad, scaled_dot_product_attention, silu

from srbook.arguments import require_counts, require_integer, require_lists_of_counts
from srbook.images import require_maps
from srbook.networks.blocks import Doubling, as_image, as_sequence

EPSILON = 1e-6  # of the group normalizations
ROWS = 128  # positions that are compared with all codes at once: these distances stay in the cache of a processor


class VQAutoencoder(nn.Module):
    """The autoencoder of latent diffusion (Rombach et al., 2022), after VQ-GAN (Esser et al., 2021).

    The defaults are ResShift's f4: 55,322,782 parameters, and an image of 256x256 becomes a latent (3, 64, 64). Its f8
    for faces has width 64, multipliers (1, 2, 4, 8), blocks (1, 2, 3, 4), 8 channels, and 4096 codes: 77,009,115.
    Images lie in [-1, 1]. A diffusion works on `encode`, which is not quantized; what is decoded should be.

    Args:
        width: channels at full resolution.
        multipliers: channels of each level as multiples of `width`; each level but the first halves the resolution.
        blocks: residual blocks per level of the encoder, one number or one per level, each at least 0; the decoder has
            one more.
        channels: of the latent.
        codes: how many vectors the codebook has.
        attention: self-attention over all positions in the middle of both halves.
        anchored: add the image, averaged down, to the latent, and the latent, interpolated, to the image. The latent
            then starts as a small picture, to which training adds details; `channels` must be 3.
        groups: of the group normalizations. None leaves them out, so that a pixel depends only on those around it: what
            was trained on patches then does the same on large images, and on tiles of them.

    Attributes:
        factor: image pixels per position of the latent and axis.

    Raises:
        ValueError: an argument out of range, no level, another number of blocks than levels, widths that the groups do
            not divide, or an anchored latent of another number of channels than 3.
    """

    def __init__(
        self,
        width: int = 128,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks: int | Sequence[int] = 2,
        channels: int = 3,
        codes: int = 8192,
        attention: bool = True,
        anchored: bool = False,
        groups: int | None = 32,
    ):
        super().__init__()
        require_counts(width=width, channels=channels)
        require_lists_of_counts(multipliers=multipliers)
        widths = [width * multiplier for multiplier in multipliers]
        depths = blocks if isinstance(blocks, list | tuple) else [blocks] * len(widths)
        for depth in depths:
            require_integer("each of blocks", depth, 0)
        if groups is not None:
            require_counts(groups=groups)
        if not widths or len(depths) != len(widths):
            raise ValueError(f"each level needs its blocks, got {len(widths)} levels and blocks for {len(depths)}")
        if groups is not None and any(each % groups for each in (width, *widths)):
            raise ValueError(f"every level's channels must be a multiple of groups={groups}, got {(width, *widths)}")
        if anchored and channels != 3:
            raise ValueError(f"an anchored latent is a picture of 3 channels, got {channels}")
        self.factor, self.channels, self.anchored = 2 ** (len(widths) - 1), channels, anchored
        self.encoder = Encoder(width, widths, depths, channels, attention, groups)
        self.before = nn.Conv2d(channels, channels, 1)
        self.codebook = Codebook(codes, channels)
        self.after = nn.Conv2d(channels, channels, 1)
        self.decoder = Decoder(widths, depths, channels, attention, groups)
        if anchored:
            for layer in (self.before, self.after):
                nn.init.dirac_(layer.weight)
            for layer in (self.encoder.tail, self.decoder.tail):
                nn.init.zeros_(layer.weight)
            for layer in (self.before, self.after, self.encoder.tail, self.decoder.tail):
                nn.init.zeros_(layer.bias)

    def encode(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] to the latent (N, channels, H / factor, W / factor), not quantized.

        Sides that the factor does not divide are a ValueError.
        """
        require_maps(image, 3, "image")
        if any(side % self.factor for side in image.shape[-2:]):
            raise ValueError(f"sides must be multiples of {self.factor}, got {tuple(image.shape[-2:])}")
        z = self.before(self.encoder(image))
        return z + avg_pool2d(image, self.factor) if self.anchored else z

    def quantize(self, z: Tensor) -> Tensor:
        """Every position's nearest code, with the gradient of the identity.

        This is the straight-through estimator of VQ-VAE (van den Oord et al., 2017).
        """
        return straight_through(z, self.codebook(self.codebook.nearest(z)))

    def decode(self, z: Tensor) -> Tensor:
        """A latent, quantized or not, to the image in [-1, 1], not clipped."""
        image = self.decoder(self.after(require_maps(z, self.channels, "z")))
        return image + interpolate(z, scale_factor=self.factor, mode="bilinear") if self.anchored else image

    def forward(self, image: Tensor) -> Tensor:
        """The reconstruction of an image in [-1, 1], through the codes."""
        return self.decode(self.quantize(self.encode(image)))

    @property
    def last(self) -> nn.Parameter:
        """The weight of the decoder's last layer, where losses of the image are weighed against each other."""
        return self.decoder.tail.weight


class Codebook(nn.Module):
    """The vectors that a position of the latent may be, `weight` (codes, channels)."""

    def __init__(self, codes: int, channels: int):
        super().__init__()
        require_counts(codes=codes, channels=channels)
        self.weight = nn.Parameter(torch.empty(codes, channels).uniform_(-1 / codes, 1 / codes))

    @torch.no_grad()
    def nearest(self, z: Tensor) -> Tensor:
        """The number of the code at the least distance, (N, H, W), for a latent (N, channels, H, W)."""
        # |z - w|^2 without |z|^2, which is the same for all codes, as one product: (z, 1) times (-2w, |w|^2)
        table = torch.cat([-2 * self.weight, self.weight.square().sum(dim=1, keepdim=True)], dim=1).T
        positions = pad(as_positions(z), (0, 1), value=1.0)
        rows = [(part @ table).argmin(dim=1) for part in positions.split(ROWS)]
        return torch.cat(rows).unflatten(0, (len(z), *z.shape[2:]))

    def forward(self, indices: Tensor) -> Tensor:
        """The codes of these numbers (N, H, W): (N, channels, H, W)."""
        return embedding(indices, self.weight).movedim(-1, 1)


def as_positions(z: Tensor) -> Tensor:
    """A latent (N, channels, H, W) as a list of vectors (N H W, channels)."""
    return z.movedim(1, -1).flatten(end_dim=-2)


def straight_through(z: Tensor, codes: Tensor) -> Tensor:
    """The value of `codes` with the gradient of z."""
    return z + (codes - z).detach()


class Encoder(nn.Module):
    """An image (N, 3, H, W) to (N, channels, H / factor, W / factor)."""

    def __init__(
        self,
        width: int,
        widths: Sequence[int],
        depths: Sequence[int],
        channels: int,
        attention: bool,
        groups: int | None,
    ):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        current = width
        for level, (outputs, depth) in enumerate(zip(widths, depths, strict=True)):
            if level > 0:
                self.shrink.append(Halving(current))
            inputs = [current, *[outputs] * depth]
            self.down.append(nn.Sequential(*(Block(each, outputs, groups) for each in inputs[:depth])))
            current = inputs[-1]
        self.middle = Middle(current, attention, groups)
        self.norm = _norm(current, groups)
        self.tail = nn.Conv2d(current, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for level, stage in enumerate(self.down):
            x = stage(self.shrink[level - 1](x) if level > 0 else x)
        return self.tail(silu(self.norm(self.middle(x))))


class Decoder(nn.Module):
    """A latent (N, channels, H / factor, W / factor) to the image (N, 3, H, W)."""

    def __init__(
        self, widths: Sequence[int], depths: Sequence[int], channels: int, attention: bool, groups: int | None
    ):
        super().__init__()
        current = widths[-1]
        self.stem = nn.Conv2d(channels, current, 3, padding=1)
        self.middle = Middle(current, attention, groups)
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level, (outputs, depth) in reversed(list(enumerate(zip(widths, depths, strict=True)))):
            inputs = [current, *[outputs] * depth]
            self.up.append(nn.Sequential(*(Block(each, outputs, groups) for each in inputs)))
            current = outputs
            if level > 0:
                self.grow.append(Doubling(current))
        self.norm = _norm(current, groups)
        self.tail = nn.Conv2d(current, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.middle(self.stem(z))
        for level, stage in enumerate(self.up):
            x = stage(self.grow[level - 1](x) if level > 0 else x)
        return self.tail(silu(self.norm(x)))


class Middle(nn.Sequential):
    """Two residual blocks with attention between them, at the smallest size."""

    def __init__(self, channels: int, attention: bool, groups: int | None):
        between = Attention(channels, groups) if attention else nn.Identity()
        super().__init__(Block(channels, channels, groups), between, Block(channels, channels, groups))


class Block(nn.Module):
    """Two 3x3 convolutions, each after normalization and SiLU, plus the input."""

    def __init__(self, inputs: int, outputs: int, groups: int | None):
        super().__init__()
        self.norm1 = _norm(inputs, groups)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = _norm(outputs, groups)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        y = self.conv1(silu(self.norm1(x)))
        return self.conv2(silu(self.norm2(y))) + self.skip(x)


class Attention(nn.Module):
    """Add to every position a weighted mean of all positions. One head."""

    def __init__(self, channels: int, groups: int | None):
        super().__init__()
        self.norm = _norm(channels, groups)
        self.query, self.key, self.value, self.out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape. The cost grows with (HW)^2."""
        y = self.norm(x)
        mixed = scaled_dot_product_attention(*(as_sequence(each(y)) for each in (self.query, self.key, self.value)))
        return x + self.out(as_image(mixed, x))


def _norm(channels: int, groups: int | None) -> nn.Module:
    return nn.Identity() if groups is None else nn.GroupNorm(groups, channels, EPSILON)


class Halving(nn.Conv2d):
    """A 3x3 convolution of every second pixel; a row and a column of zeros are added below and to the right only."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, 2H, 2W) to (N, C, H, W)."""
        return super().forward(pad(x, (0, 1, 0, 1)))
