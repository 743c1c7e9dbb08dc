"""ResShift's Swin U-Net written plainly, operation by operation: the peer of the benchmarks of `SwinUNet`."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate

from srbook.networks import ModulatedBlock, SwinBlock, SwinUNet


def wake(net: SwinUNet) -> SwinUNet:
    """Let its blocks say something, as after some training; fresh ones only pass on what they get."""
    for block in net.modules():
        if isinstance(block, ModulatedBlock):
            nn.init.normal_(block.conv2.weight, std=0.02)
    return net


@torch.no_grad()
def largest_difference(net: nn.Module, plain: nn.Module, *inputs: Tensor) -> float:
    """The largest difference of two networks' outputs, as a share of the largest value.

    More than 1e-5 is an AssertionError.
    """
    known = plain(*inputs)
    difference = float((net(*inputs) - known).abs().max() / known.abs().max())
    if difference > 1e-5:
        raise AssertionError(f"the contenders compute different things: {difference:.2g}")
    return difference


class PlainSwinUNet(nn.Module):
    """The layers and the weights of `net`, but every operation on its own: no fusion, nothing in place.

    SiLU is x * sigmoid(x), attention a softmax of scaled products, and the mask of shifted windows is made at every
    call, as in the released program. Sides of x are multiples of the windows'.
    """

    def __init__(self, net: SwinUNet):
        super().__init__()
        self.net = copy.deepcopy(net)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """As `SwinUNet.forward`."""
        net = self.net
        time = net.time(time)
        x = net.stem(torch.cat([x, net.condition(condition)], dim=1))
        shortcuts = [x]
        for level, blocks in enumerate(net.down):
            if level > 0:
                x = net.shrink[level - 1](x)
                shortcuts.append(x)
            for block in blocks:
                x = _block(block, x, time)
                shortcuts.append(x)
        for block in net.middle:
            x = _block(block, x, time)
        for stage, blocks in enumerate(net.up):
            if stage > 0:
                grow = net.grow[stage - 1]
                x = torch.conv2d(interpolate(x, scale_factor=2, mode="nearest"), grow.weight, grow.bias, padding=1)
            for block in blocks:
                x = _block(block, torch.cat([x, shortcuts.pop()], dim=1), time)
        return net.tail(_swish(net.norm(x)))


def _swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def _block(block: ModulatedBlock, x: Tensor, time: Tensor) -> Tensor:
    scale, shift = block.time(_swish(time))[:, :, None, None].chunk(2, dim=1)
    y = block.conv1(_swish(block.norm1(x)))
    y = block.norm2(y) * (1 + scale) + shift
    x = block.conv2(block.dropout(_swish(y))) + block.skip(x)
    if isinstance(block.attention, nn.Identity):
        return x
    x = block.attention.enter(x)
    for each in block.attention.blocks:
        x = _swin_block(each, x)
    return block.attention.leave(x)


def _swin_block(block: SwinBlock, x: Tensor) -> Tensor:
    first, _, second = block.mlp
    y = torch.roll(block.norm1(x), (-block.shift, -block.shift), dims=(2, 3))
    y = _join(_attend(block, _split(y, block.side), x.shape[2:]), block.side, x.shape)
    x = x + torch.roll(y, (block.shift, block.shift), dims=(2, 3))
    return x + second(gelu(first(block.norm2(x))))


def _attend(block: SwinBlock, windows: Tensor, size: torch.Size) -> Tensor:
    attention = block.attention
    count, pixels, channels = windows.shape
    depth = channels // attention.heads
    qkv = attention.qkv(windows).reshape(count, pixels, 3, attention.heads, depth)
    query, key, value = (qkv[:, :, k].transpose(1, 2) for k in range(3))
    logits = (query * depth**-0.5) @ key.transpose(2, 3)
    bias = attention.bias[attention.offsets.reshape(-1)].reshape(pixels, pixels, attention.heads)
    logits = logits + bias.permute(2, 0, 1).contiguous()[None]
    if block.shift:
        mask = _mask(size, block.side, block.shift, block.as_released).to(logits)
        logits = logits.reshape(-1, len(mask), *logits.shape[1:]) + mask[None, :, None]
        logits = logits.reshape(count, attention.heads, pixels, pixels)
    mixed = torch.softmax(logits, dim=-1) @ value
    return attention.out(mixed.transpose(1, 2).reshape(count, pixels, channels))


def _mask(size: torch.Size, side: int, shift: int, as_released: bool) -> Tensor:
    """0 where two pixels of a window may attend to each other, and -100 elsewhere: (windows, side^2, side^2)."""
    height, width = size
    region = torch.zeros(1, 1, height, width)
    if as_released:  # the last row of windows only, into left and right
        region[..., height - side :, :] = (torch.arange(width) % side >= side - shift).float()
    else:
        region[..., height - shift :, :] += 1
        region[..., width - shift :] += 2
    each = _split(region, side).squeeze(2)
    return (each[:, :, None] != each[:, None, :]).float() * -100


def _split(x: Tensor, side: int) -> Tensor:
    images, channels, height, width = x.shape
    x = x.reshape(images, channels, height // side, side, width // side, side)
    return x.permute(0, 2, 4, 3, 5, 1).contiguous().reshape(-1, side * side, channels)


def _join(windows: Tensor, side: int, shape: torch.Size) -> Tensor:
    images, channels, height, width = shape
    x = windows.reshape(images, height // side, width // side, side, side, channels)
    return x.permute(0, 5, 1, 3, 2, 4).contiguous().reshape(shape)
