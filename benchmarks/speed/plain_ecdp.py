"""ECDP as published, operation by operation: the peer of its benchmarks."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu, silu

from srbook.methods import ECDP
from srbook.networks import GuidedBlock

SIGMA, CLOCK, END = 0.2, 300, 0.1
BETA_MIN, BETA_MAX = 0.1, 20.0


@torch.no_grad()
def wake(method: ECDP) -> ECDP:
    """Let its blocks say something, as after some training.

    Fresh ones only pass on what they get. The deepest gradients are then so small that their squares are denormal
    numbers, with which a processor is slow.
    """
    for block in method.network.modules():
        if isinstance(block, GuidedBlock):
            nn.init.normal_(block.conv2.weight, std=0.02)
    return method


class PlainECDP(nn.Module):
    """The layers and the weights of `method`, in the order of the published algorithm (Yuan and Yuan 2024).

    Every block resizes the features of the low-resolution image to its resolution and projects them, in every
    evaluation. Doubling makes a large image of equal pixels for a 3x3 convolution. Nothing is fused, kept, or done in
    place.
    """

    def __init__(self, method: ECDP):
        super().__init__()
        self.net, self.encoder = copy.deepcopy(method.network), copy.deepcopy(method.encoder)
        self.taps = method.taps

    def features(self, lr: Tensor) -> Tensor:
        """(N, 3, h, w) to (N, 256, h, w): the encoder's maps after the chosen blocks."""
        x, found = _convolve(self.encoder.head, lr), []
        for index, block in enumerate(self.encoder.blocks):
            y = x
            for dense in block.blocks:
                y = _dense(dense, y)
            x = x + 0.2 * y
            if index in self.taps:
                found.append(x)
        return torch.cat(found, dim=1)

    def forward(self, z: Tensor, time: Tensor, features: Tensor) -> Tensor:
        """(N, 3, H, W), times on the clock (N,), and the features to (N, 6, H, W): noise and z_0."""
        net = self.net
        time = silu(net.time(time))
        x = _convolve(net.stem, z)
        shortcuts = [x]
        for level, blocks in enumerate(net.down):
            if level > 0:
                x = net.shrink[level - 1](x)
                shortcuts.append(x)
            for block in blocks:
                x = _block(block, x, time, features)
                shortcuts.append(x)
        for block in net.middle:
            x = _block(block, x, time, features)
        for stage, blocks in enumerate(net.up):
            if stage > 0:
                height, width = shortcuts[-1].shape[-2:]
                x = _convolve(net.grow[stage - 1], interpolate(x, scale_factor=2, mode="nearest"))
                x = x[..., :height, :width]
            for block in blocks:
                x = _block(block, torch.cat([x, shortcuts.pop()], dim=1), time, features)
        return _convolve(net.tail, silu(net.norm(x)))

    def loss(self, hr: Tensor, lr: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Of both heads, for times (N,) in (0, 1]; a mean where the program has a sum."""
        anchor = _upscale(lr)
        z0 = (hr - anchor) / SIGMA
        a = _signal(t)[:, None, None, None]
        predicted = self(a * z0 + (1 - a**2).sqrt() * noise, CLOCK * t, self.features(lr))
        return (predicted[:, :3] - noise).square().mean() + (predicted[:, 3:] - z0).square().mean()

    @torch.no_grad()
    def sample(self, lr: Tensor, noise: Tensor, tolerance: float = 1e-3) -> tuple[Tensor, int]:
        """The image by Dormand and Prince's solver from 300 to 0.1, and the number of evaluations."""
        from torchdiffeq import odeint

        features, evaluations = self.features(lr), 0

        def slope(clock: Tensor, z: Tensor) -> Tensor:
            nonlocal evaluations
            evaluations += 1
            clock = clock.clamp(min=END)  # the solver looks beyond the end, where s has no value
            t = clock / CLOCK
            a = _signal(t)
            s = (1 - a**2).sqrt()
            noise, z0 = self(z, clock.to(z.dtype).expand(len(z)), features).chunk(2, dim=1)
            noise = a**2 * noise + (1 - a**2) * (z - a * z0) / s
            beta = BETA_MIN + t * (BETA_MAX - BETA_MIN)
            return beta / 2 * (noise / s - z) / CLOCK

        times = torch.tensor([CLOCK, END], dtype=torch.float64)
        z = odeint(slope, noise, times, rtol=tolerance, atol=tolerance, method="dopri5")[-1]
        return _upscale(lr) + SIGMA * z, evaluations


def _signal(t: Tensor) -> Tensor:
    return torch.exp(-(BETA_MIN * t + (BETA_MAX - BETA_MIN) * t**2 / 2) / 2)


def _upscale(lr: Tensor) -> Tensor:
    return interpolate(lr, scale_factor=4, mode="bicubic", align_corners=False)


def _convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return torch.conv2d(x, layer.weight, layer.bias, padding=layer.kernel_size[0] // 2)


def _block(block: nn.Module, x: Tensor, time: Tensor, features: Tensor) -> Tensor:
    y = _convolve(block.conv1, silu(block.norm1(x)))
    resized = interpolate(features, size=x.shape[-2:], mode="bilinear", align_corners=False)
    y = y + block.time(time)[:, :, None, None] + _convolve(block.guide, resized)
    y = _convolve(block.conv2, silu(block.norm2(y)))
    return y + (x if isinstance(block.skip, nn.Identity) else _convolve(block.skip, x))


def _dense(block: nn.Module, x: Tensor) -> Tensor:
    maps = [x]
    for layer in block.convolutions[:-1]:
        maps.append(leaky_relu(_convolve(layer, torch.cat(maps, dim=1)), 0.2))
    return x + 0.2 * _convolve(block.convolutions[-1], torch.cat(maps, dim=1))
