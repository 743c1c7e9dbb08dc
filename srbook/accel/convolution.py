"""A 3x3 convolution by Winograd's algorithm, for CPUs."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import conv2d
from torch.nn.grad import conv2d_input

# Where the polynomials are evaluated, besides infinity. With these fractions tiles of four outputs lose less to
# rounding than with 1, -1, 2, -2.
POINTS = {2: (0, 1, -1), 4: (0, 3 / 4, -3 / 4, 3 / 2, -3 / 2)}
SMALL = 256  # pixels of all images, up to which the gradient of the weights is one product


class FastConvolution(nn.Conv2d):
    """A 3x3 convolution of 128 and more channels in fewer products, or with a quicker gradient of its weights.

    In float32 large images take Winograd's algorithm (Lavin and Gray, 2016). m outputs of a filter w of three weights
    depend on m + 2 pixels d. Let A, B and C evaluate polynomials of m, 3 and m + 2 coefficients at m + 2 points.
    A^T ((B w) * (C^-T d)) are the outputs, for m + 2 products instead of 3m; along both axes for (m + 2)^2 instead of
    9m^2. The sum over input channels is taken before A, so that the transformations cost little. Tiles of 4x4 outputs
    take 2.25 products per output, and their rounding errors are seven times those of the direct way. Tiles of 2x2 take
    4 products, with twice the rounding errors. They suit smaller images, where the transformed weights are larger than
    the image. In bfloat16 Winograd's sums would lose too much.

    On images smaller still, the gradient of the weights is one product of matrices, where torch's way reorders the
    weights.

    Measured on an AMD EPYC (AVX-512, one core), channels last: without it a training step of sr3-16-128 takes 1.21
    times as long, one of ecdp-div2k 1.15 times, and an evaluation of either 1.04 times. On an Intel Xeon (AMX) these
    layers took a third less time. The product of matrices takes a sixth off such a layer's step on 8x8
    pixels of 640 and more channels in float32, and 8 to 34 percent in bfloat16.
    """

    @staticmethod
    def replaces(layer: nn.Module) -> bool:
        """Whether the layer is a plain 3x3 convolution that keeps the size and has many channels."""
        if type(layer) is not nn.Conv2d or min(layer.in_channels, layer.out_channels) < 128:
            return False
        shape = layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups, layer.padding_mode
        return shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        return convolve(x, self.weight, self.bias)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 3x3 convolution that keeps the size, in the way that is fastest."""
    tile = winograd_tile(x, weight)
    if tile is not None:
        y = _Winograd.apply(x, weight, tile)
        return y if bias is None else y.add_(bias[:, None, None])
    learns = torch.is_grad_enabled() and weight.requires_grad
    if not learns or x.device.type != "cpu" or x.dim() != 4 or pixels(x) > SMALL:
        return conv2d(x, weight, bias, padding=1)
    if torch.is_autocast_enabled("cpu"):
        x, weight = (tensor.to(torch.get_autocast_dtype("cpu")) for tensor in (x, weight))
        bias = None if bias is None else bias.to(x.dtype)
    return _Direct.apply(x, weight, bias)


def winograd_tile(x: Tensor, weight: Tensor, doubled: bool = False) -> int | None:
    """The side of the tiles for `x`, or for `x` with its sides doubled; None where the direct way is faster."""
    single = x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if x.device.type != "cpu" or x.dim() != 4 or not single or min(weight.shape[:2]) < 128:
        return None
    height, width = (side * (1 + doubled) for side in x.shape[-2:])
    count = len(x) * height * width
    if count >= 1024 and height % 4 == width % 4 == 0:
        return 4
    return 2 if min(weight.shape[:2]) >= 256 and count >= 256 and height % 2 == width % 2 == 0 else None


def pixels(x: Tensor) -> int:
    """Of all images together."""
    return x.numel() // x.shape[1]


class _Direct(torch.autograd.Function):
    """torch's convolution, but for the gradient of the weights."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return conv2d(x, weight, bias, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        image = conv2d_input(x.shape, weight, gradient, padding=1) if ctx.needs_input_grad[0] else None
        gradient = gradient.permute(0, 2, 3, 1).flatten(0, 2)  # positions, K
        weights = None
        if ctx.needs_input_grad[1]:
            pixels = _squares(x, 3, 1).permute(0, 1, 2, 4, 5, 3).reshape(len(gradient), -1)  # positions, 9C
            weights = (gradient.T @ pixels).view(-1, 3, 3, x.shape[1]).permute(0, 3, 1, 2)
        return image, weights, gradient.sum(dim=0) if ctx.needs_input_grad[2] else None


class _Winograd(torch.autograd.Function):
    """Without the bias. The backward pass is the transpose of the forward pass, step by step."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, tile: int) -> Tensor:
        rules, channels = _rules(tile, x.dtype), len(weight)
        flat = weight.permute(2, 3, 0, 1).flatten(0, 1).flatten(1)  # a copy if channels lie last
        filters = (rules.weights @ flat).view(-1, *weight.shape[:2])  # points, K, C
        pixels = _apply(rules.pixels, _cut(x, tile + 2, tile))  # points, tiles, C
        ctx.save_for_backward(filters, pixels)
        ctx.tile, ctx.size, ctx.last, ctx.weights_last = tile, x.shape, _is_last(x), _is_last(weight)
        tiles = _apply(rules.outputs, pixels @ filters.transpose(1, 2))
        return _paste(tiles, tile, tile, (x.shape[0], channels, *x.shape[2:]), ctx.last)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (filters, pixels), tile = ctx.saved_tensors, ctx.tile
        rules = _rules(tile, gradient.dtype)
        gradient = _apply(rules.outputs.T, _cut(gradient, tile, tile))  # points, tiles, K
        image = weight = None
        if ctx.needs_input_grad[0]:
            image = _paste(_apply(rules.pixels.T, gradient @ filters), tile + 2, tile, ctx.size, ctx.last)
        if ctx.needs_input_grad[1]:
            outer = gradient.transpose(1, 2) @ pixels
            if ctx.weights_last:
                weight = (rules.weights.T @ outer.flatten(1)).view(3, 3, *outer.shape[1:]).permute(2, 3, 0, 1)
                weight = weight.contiguous(memory_format=torch.channels_last)
            else:
                weight = (outer.flatten(1).T @ rules.weights).view(*outer.shape[1:], 3, 3)
        return image, weight, None


class _Rules(NamedTuple):
    """A^T, B and C^-T of `FastConvolution`, for both axes of a flattened square."""

    outputs: Tensor
    weights: Tensor
    pixels: Tensor


@lru_cache
def _rules(tile: int, dtype: torch.dtype) -> _Rules:
    def evaluate(terms: int) -> Tensor:
        rows = [[point**power for power in range(terms)] for point in POINTS[tile]]
        infinity = [0.0] * (terms - 1) + [1.0]  # the highest coefficient
        return torch.tensor([*rows, infinity], dtype=torch.float64, device="cpu")

    rules = evaluate(tile).T, evaluate(3), torch.linalg.inv(evaluate(tile + 2)).T
    return _Rules(*(torch.kron(rule, rule).to(dtype) for rule in rules))


def _apply(rule: Tensor, tiles: Tensor) -> Tensor:
    """(rows, columns) and (columns, tiles, channels) to (rows, tiles, channels)."""
    return (rule @ tiles.flatten(1)).unflatten(1, tiles.shape[1:])


def _cut(x: Tensor, side: int, step: int) -> Tensor:
    """(N, C, H, W) to (side^2, N (H/step) (W/step), C): see `_squares`."""
    return _squares(x, side, step).permute(4, 5, 0, 1, 2, 3).reshape(side**2, -1, x.shape[1])


def _paste(tiles: Tensor, side: int, step: int, size: tuple[int, ...], last: bool) -> Tensor:
    """The transpose of `_cut`: squares, (side^2, tiles, C), are added up to images of a size (N, C, H, W)."""
    images, channels, height, width = size
    squares = tiles.view(side, side, images, height // step, width // step, channels).permute(2, 3, 4, 5, 0, 1)
    return _add_up(squares, step, last)


def _squares(x: Tensor, side: int, step: int) -> Tensor:
    """(N, C, H, W) to (N, H/step, W/step, C, side, side): squares every `step` pixels, zeros beyond the border."""
    images, channels, height, width = x.shape
    border = (side - step) // 2
    padded = x.new_zeros(images, height + 2 * border, width + 2 * border, channels)
    padded[:, border : border + height, border : border + width] = x.permute(0, 2, 3, 1)
    return padded.unfold(1, side, step).unfold(2, side, step)


def _add_up(squares: Tensor, step: int, last: bool) -> Tensor:
    """The transpose of `_squares`: where they overlap, they are added. Channels lie last in memory, or they do not."""
    images, rows, columns, channels, side, _ = squares.shape
    border, over = (side - step) // 2, -(-side // step) - 1  # the last square reaches over by so many steps
    size = images, channels, (rows + over) * step, (columns + over) * step
    layout = torch.channels_last if last else torch.contiguous_format
    padded = torch.empty(size, dtype=squares.dtype, memory_format=torch.channels_last if over else layout)
    grid = padded.unflatten(3, (-1, step)).unflatten(2, (-1, step)).permute(0, 2, 4, 1, 3, 5)  # as `squares`
    if not over:
        grid.copy_(squares)
        return padded
    padded.zero_()
    for down in range(over + 1):
        for right in range(over + 1):
            part = squares[..., down * step : (down + 1) * step, right * step : (right + 1) * step]
            grid[:, down : down + rows, right : right + columns, :, : part.shape[4], : part.shape[5]] += part
    return padded[:, :, border : border + rows * step, border : border + columns * step].contiguous(
        memory_format=layout
    )


def _is_last(x: Tensor) -> bool:
    """Whether channels lie last in memory."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
