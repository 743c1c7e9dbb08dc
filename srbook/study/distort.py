"""Five ways to damage an image, each with one strength, and the search for equal PSNR."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample, pad

from srbook.images import require_images, round_to_8bit
from srbook.metrics import psnr

BLOCK = 8


def blur(image: Tensor, amount: float) -> Tensor:
    """Gaussian blur of standard deviation `amount`, in pixels: (N, 3, H, W) to the same."""
    radius = max(1, math.ceil(3 * amount))
    position = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.softmax(-0.5 * (position / max(amount, 1e-6)) ** 2, dim=0)
    planes = pad(image.flatten(0, 1).unsqueeze(1), (radius,) * 4, mode="replicate")
    return conv2d(conv2d(planes, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1)).view_as(image)


def noise(image: Tensor, amount: float) -> Tensor:
    """White Gaussian noise of standard deviation `amount`, the same pattern at every strength."""
    pattern = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return image + amount * pattern.to(image)


def blocks(image: Tensor, amount: float) -> Tensor:
    """The core of JPEG: cosine transform of 8 x 8 blocks, coefficients rounded to multiples of `amount`.

    Sides that are not divisible by 8 keep the remainder unchanged.
    """
    index = torch.arange(BLOCK, dtype=image.dtype, device=image.device)
    cosine = torch.cos(math.pi / BLOCK * (index[None] + 0.5) * index[:, None]) * math.sqrt(2 / BLOCK)
    cosine[0] /= math.sqrt(2)
    height, width = (side - side % BLOCK for side in image.shape[-2:])
    tiles = image[..., :height, :width].unflatten(-2, (-1, BLOCK)).unflatten(-1, (-1, BLOCK)).transpose(-3, -2)
    step = max(amount, 1e-6)
    tiles = cosine.T @ ((cosine @ tiles @ cosine.T / step).round() * step) @ cosine
    damaged = image.clone()
    damaged[..., :height, :width] = tiles.transpose(-3, -2).flatten(-2).flatten(-3, -2)
    return damaged


def shift(image: Tensor, amount: float) -> Tensor:
    """Move to the right by `amount` pixels, with cubic interpolation in between and reflection at the edge."""
    move = torch.tensor([[1.0, 0.0, -2 * amount / image.shape[-1]], [0.0, 1.0, 0.0]]).to(image)
    grid = affine_grid(move.expand(len(image), 2, 3), list(image.shape), align_corners=False)
    return grid_sample(image, grid, mode="bicubic", padding_mode="reflection", align_corners=False)


def contrast(image: Tensor, amount: float) -> Tensor:
    """Mix with the image's mean color: 0 leaves it, 1 leaves nothing else."""
    return image + amount * (image.mean(dim=(2, 3), keepdim=True) - image)


class Matched(NamedTuple):
    """A damaged image, and the strength that was needed."""

    image: Tensor
    amount: float


# The largest strengths are where each function has destroyed any photograph.
DISTORTIONS: dict[str, tuple[Callable[[Tensor, float], Tensor], float]] = {
    "blur": (blur, 12.0),
    "noise": (noise, 1.0),
    "blocks": (blocks, 8.0),
    "shift": (shift, 64.0),
    "contrast": (contrast, 1.0),
}


def match_psnr(image: Tensor, name: str, decibels: float, *, steps: int = 16) -> Matched:
    """Damage one image until its PSNR on Y, without a border, is `decibels`: bisection over the strength.

    The result is clipped and rounded to 8 bits.

    Args:
        image: (1, 3, H, W) in [0, 1], the truth.
        name: a key of `DISTORTIONS`.
        steps: halvings of the interval.

    Raises:
        ValueError: another name, several images, or a PSNR that even the largest strength does not fall to.
    """
    if not isinstance(name, str) or name not in DISTORTIONS:
        raise ValueError(f"unknown distortion {name!r}; choose from {', '.join(DISTORTIONS)}")
    if len(require_images(image)) != 1:
        raise ValueError(f"match_psnr tunes one image, got a batch of {len(image)}")
    distort, high = DISTORTIONS[name]

    def quality(amount: float) -> float:
        return psnr(round_to_8bit(distort(image, amount)), image, channel="y").item()

    low = 0.0
    if quality(high) > decibels:
        raise ValueError(f"{name} of this image never falls to {decibels} dB; ask for more than {quality(high):.2f}")
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if quality(middle) > decibels else (low, middle)
    return Matched(round_to_8bit(distort(image, high)), high)
