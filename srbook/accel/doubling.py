"""Nearest-neighbor doubling folded with the 3x3 convolution behind it, on CPUs."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import conv2d, interpolate

from srbook.accel.convolution import convolve, pixels, winograd_tile


class FoldedDoubling(nn.Conv2d):
    """Every pixel becomes 2x2 equal ones, then a 3x3 convolution: 4 instead of 9 products per output and channel.

    The nine weights of an output meet only 2x2 different pixels of the small image, and the output's parity says which.
    So the sums of the weights per pixel are four 2x2 convolutions of the small image, computed as one. The sums do not
    pay where pixels are few against channels, and in float32 Winograd's algorithm on the large image takes still fewer
    products.

    Measured on an AMD EPYC (AVX-512, one core), channels last: without it a training step in float32 takes 1.06 times
    as long for sr3-tiny, 1.07 for sr3-small, 1.09 for sr3-16-128 and ecdp-div2k, and in bfloat16 1.02 to 1.06 times as
    long; an evaluation of sr3-small takes 1.06 to 1.08 times as long, one of ecdp-div2k 1.06 times.
    """

    @staticmethod
    def replaces(layer: nn.Module) -> bool:
        """Whether the layer is one whose class says that it `doubles`, such as `srbook.networks.blocks.Doubling`."""
        return vars(type(layer)).get("doubles", False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, 2H, 2W)."""
        if x.device.type != "cpu":
            return super().forward(interpolate(x, scale_factor=2, mode="nearest"))
        if 2 * pixels(x) < len(self.weight) or winograd_tile(x, self.weight, doubled=True):
            return convolve(interpolate(x, scale_factor=2, mode="nearest"), self.weight, self.bias)
        channels = len(self.weight)
        # even outputs see a row of the pixel before and two of their own, odd ones two of their own and one after
        sums = self.weight.new_tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])  # parity, small row, weight row
        table = torch.einsum("aku,blv->abkluv", sums, sums).reshape(16, 9)
        folded = (table @ self.weight.reshape(-1, 9).T).reshape(4, 4, channels, channels)  # parities, 2x2, out, in
        folded = folded.permute(0, 2, 3, 1).reshape(4 * channels, channels, 2, 2)
        y = conv2d(x, folded, self.bias.repeat(4), padding=1)  # one row and one column more than the input
        return _Interleave.apply(y)


class _Interleave(torch.autograd.Function):
    """Four maps (N, 4C, H + 1, W + 1), one per parity, to the pixels of one image (N, C, 2H, 2W).

    Autograd would copy the whole gradient for each of the four maps.
    """

    PARITIES = ((0, 0), (0, 1), (1, 0), (1, 1))

    @staticmethod
    def forward(ctx: FunctionCtx, maps: Tensor) -> Tensor:
        images, channels, height, width = maps.shape
        out = _empty((images, channels // 4, 2 * (height - 1), 2 * (width - 1)), maps)
        for image, part in _Interleave.pairs(out, maps):
            image.copy_(part)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        images, channels, height, width = gradient.shape
        maps = _empty((images, 4 * channels, height // 2 + 1, width // 2 + 1), gradient).zero_()
        for image, part in _Interleave.pairs(gradient, maps):
            part.copy_(image)
        return maps

    @staticmethod
    def pairs(image: Tensor, maps: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The pixels of a parity, and the part of its map that makes them."""
        height, width = (side // 2 for side in image.shape[-2:])
        for part, (row, column) in zip(maps.chunk(4, dim=1), _Interleave.PARITIES, strict=True):
            yield image[:, :, row::2, column::2], part[:, :, row : row + height, column : column + width]


def _empty(size: Sequence[int], like: Tensor) -> Tensor:
    """In the memory layout of `like`."""
    last = like.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=layout)
