"""The parts of the U-Net: a residual block that knows the time, attention over all pixels, doubling, and dropout."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import conv2d, dropout, linear, scaled_dot_product_attention, silu

from srbook.networks.convolution import Convolution


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm`, with a backward pass in float32 where that is faster: for bfloat16, channels last, on a CPU.

    There torch takes twice as long, for gradients that differ by rounding only.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        slow = x.device.type == "cpu" and x.dtype == torch.bfloat16 and x.requires_grad
        if slow and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
            return _NormalizeGroups.apply(x, self.weight, self.bias, self.num_groups, self.eps)
        return super().forward(x)


class _NormalizeGroups(torch.autograd.Function):
    """For (N, C, H, W), channels last."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        images, channels, height, width = x.shape
        ctx.sizes = images, channels, height * width, groups
        y, mean, rstd = torch.native_group_norm(x, weight, bias, *ctx.sizes, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)  # torch relies on one layout
        wide = [tensor.float() for tensor in (gradient, x, mean, rstd, weight)]
        wanted = ctx.needs_input_grad[:3]
        gradients = torch.ops.aten.native_group_norm_backward(*wide, *ctx.sizes, wanted)
        kinds = x.dtype, weight.dtype, weight.dtype
        return *(g.to(kind) if g is not None else None for g, kind in zip(gradients, kinds, strict=True)), None, None


class SelfAttention(nn.Module):
    """Every pixel takes a weighted mean of all pixels, and adds it to itself. One head (Vaswani et al., 2017).

    Args:
        channels: width, a multiple of `groups`.
        groups: of the group normalization.
    """

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm = GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape. The cost grows with (HW)^2."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (N, HW, C)
        query, key, value = linear(tokens, self.qkv.weight.flatten(1)).unsqueeze(1).chunk(3, dim=3)
        mixed = scaled_dot_product_attention(query, key, value)  # one head; logits are divided by sqrt(C)
        mixed = linear(mixed.squeeze(1), self.out.weight.flatten(1), self.out.bias)
        return x + mixed.transpose(1, 2).unflatten(2, x.shape[2:])


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
        self.norm1 = GroupNorm(groups, inputs)
        self.conv1 = Convolution(inputs, outputs)
        self.time = nn.Linear(time_channels, outputs)
        self.norm2 = GroupNorm(groups, outputs)
        self.dropout = Dropout(dropout)
        self.conv2 = Convolution(outputs, outputs)
        self.skip = Pointwise(inputs, outputs) if inputs != outputs else nn.Identity()
        self.attention = SelfAttention(outputs, groups) if attention else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(N, inputs, H, W) and the embedding (N, time_channels) to (N, outputs, H, W)."""
        shift = self.time(silu(time) if self.time_activation else time)
        y = self.conv1(activate(self.norm1(x)))
        y += shift[:, :, None, None]  # in place: no gradient needs what a convolution returned
        y = self.conv2(self.dropout(activate(self.norm2(y))))
        y += self.skip(x)
        return self.attention(y)


class Pointwise(nn.Conv2d):
    """A 1x1 convolution, on a CPU as a product of matrices: in bfloat16 twice as fast, and in float32, channels last.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        if x.device.type != "cpu":
            return super().forward(x)
        if not x.is_contiguous():
            return linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        weight = self.weight.flatten(1).expand(len(x), -1, -1)
        return torch.baddbmm(self.bias[:, None], weight, x.flatten(2)).unflatten(2, x.shape[2:])


class Doubling(nn.Conv2d):
    """Every pixel becomes 2x2 equal ones, then a 3x3 convolution: 4 instead of 9 products per output and channel.

    The nine weights of an output reach only 2x2 different pixels of the small image, and which ones depends on the
    output's parity alone. So their sums per pixel are four 2x2 convolutions of the small image, computed as one. It is
    exact but for rounding, and keeps the weights of the 3x3 convolution.

    Args:
        channels: of the input and of the output.
    """

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, 2H, 2W)."""
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


class Dropout(nn.Module):
    """`nn.Dropout`, whose drawing takes a tenth of a training step on a CPU: here 16 random bits per value decide.

    Args:
        probability: share of values that become zero, rounded to a multiple of 2^-16. The others grow by as much.
    """

    def __init__(self, probability: float):
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"the share of dropped values must lie in [0, 1), got {probability}")
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same one; nothing is dropped in evaluation mode."""
        if not self.training or self.probability == 0:
            return x
        if x.device.type != "cpu":
            return dropout(x, self.probability)
        dropped = round(self.probability * 2**16)
        bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = (bits[: x.numel()] >= dropped - 2**15).to(x.dtype).mul_(2**16 / (2**16 - dropped))
        return x * kept.as_strided(x.shape, x.stride())  # in the order in which x lies in memory


def activate(x: Tensor) -> Tensor:
    """SiLU, in place where no gradient will ask for `x`."""
    return silu(x, inplace=not x.requires_grad)


@torch.no_grad()
def orthogonal_(module: nn.Module) -> None:
    """Start every convolution and linear layer of `module` with orthogonal rows (or columns) and no bias.

    The matrices are those of `nn.init.orthogonal_`, up to rounding, in half the time.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.copy_(_orthogonal(layer.weight.flatten(1)).reshape(layer.weight.shape))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _orthogonal(like: Tensor) -> Tensor:
    rows, columns = like.shape
    if max(rows, columns) < 2 * min(rows, columns):  # nearly square Gaussians can be ill-conditioned
        return nn.init.orthogonal_(torch.empty_like(like))
    # A = Q R has one solution with a positive diagonal of R: the Cholesky factor of A^T A. Multiplying and
    # solving take half the time of Householder's reflections, and long Gaussian matrices are well-conditioned.
    wide = torch.empty_like(like).normal_()
    wide = wide if rows <= columns else wide.T
    short = torch.linalg.solve_triangular(torch.linalg.cholesky(wide @ wide.T), wide, upper=False)
    return short if rows <= columns else short.T
