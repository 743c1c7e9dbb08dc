"""SR3's U-Net written plainly, operation by operation: the peer of the benchmarks of `UNet`."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from srbook.networks import UNet


class PlainUNet(nn.Module):
    """The layers and the weights of `net`, but every operation on its own: no fusion, nothing in place.

    SiLU is x * sigmoid(x), and attention a softmax of products.
    """

    def __init__(self, net: UNet):
        super().__init__()
        self.net = copy.deepcopy(net)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """As `UNet.forward`."""
        net = self.net
        time = net.time(time)
        x = net.stem(x)
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
                x = _convolve(net.grow[stage - 1], interpolate(x, scale_factor=2, mode="nearest"))
            for block in blocks:
                x = _block(block, torch.cat([x, shortcuts.pop()], dim=1), time)
        return net.tail(_swish(net.norm(x)))


def _convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return torch.conv2d(x, layer.weight, layer.bias, padding=layer.kernel_size[0] // 2)


def _swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def _block(block: nn.Module, x: Tensor, time: Tensor) -> Tensor:
    y = block.conv1(_swish(block.norm1(x))) + block.time(time)[:, :, None, None]
    y = block.conv2(block.dropout(_swish(block.norm2(y))))
    x = y + (x if isinstance(block.skip, nn.Identity) else _convolve(block.skip, x))
    return x if isinstance(block.attention, nn.Identity) else _attend(block.attention, x)


def _attend(attention: nn.Module, x: Tensor) -> Tensor:
    images, channels, height, width = x.shape
    query, key, value = _convolve(attention.qkv, attention.norm(x)).chunk(3, dim=1)
    logits = torch.einsum("nchw,ncyx->nhwyx", query, key) / channels**0.5
    weights = torch.softmax(logits.reshape(images, height, width, -1), dim=-1)
    weights = weights.reshape(images, height, width, height, width)
    return x + _convolve(attention.out, torch.einsum("nhwyx,ncyx->nchw", weights, value))
