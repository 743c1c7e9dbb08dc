"""PSNR and SSIM; arguments name the conventions that change the numbers."""

import math
from typing import Literal

import torch
from torch import Tensor

from srbook.arguments import require_choice, require_integer
from srbook.images import luma, require_images, require_same_shape

Channel = Literal["y", "rgb"]

WINDOW_SIZE = 11
WINDOW_SIGMA = 1.5
K1, K2 = 0.01, 0.03


def psnr(sr: Tensor, hr: Tensor, *, channel: Channel, border: int = 0) -> Tensor:
    """Peak signal-to-noise ratio of each image, (N,) float64, in decibels; infinite for identical images.

    Implements :eq:`eq-psnr`. The peak is 1 (255 in 8-bit units), also for the Y channel, whose values only span 16 to
    235: the usual convention of super-resolution papers. Nothing is rounded or clipped here; `srbook.metrics.protocol`
    holds the complete recipes. Differentiable where the images differ.

    Args:
        sr: (N, 3, H, W) in [0, 1], the image to judge.
        hr: same shape, the truth.
        channel: "y" measures on the luminance of BT.601, "rgb" on all three channels together.
        border: pixels left out on each side, usually the magnification.

    Raises:
        ValueError: shapes that differ, another channel, a border that leaves nothing, or values outside [0, 1].
        TypeError: not float tensors.
    """
    sr, hr = _planes(sr, hr, channel, border)
    return -10 * torch.log10((sr - hr).square().mean(dim=(1, 2, 3)))


def ssim(sr: Tensor, hr: Tensor, *, channel: Channel, border: int = 0) -> Tensor:
    """Structural similarity of each image, (N,) float64; 1 for identical images. Differentiable.

    Implements :eq:`eq-ssim`. Source: Wang, Bovik, Sheikh, and Simoncelli, "Image Quality Assessment: From Error
    Visibility to Structural Similarity", IEEE TIP 2004, with its constants: Gaussian window 11x11 of sigma 1.5,
    K1 = 0.01, K2 = 0.03, dynamic range 1 (255 in 8-bit units), population variances. Only windows that lie inside the
    image count.

    Args:
        sr, hr: as in `psnr`.
        channel: "y" measures on the luminance of BT.601, "rgb" takes the mean of the three channels' values.
        border: pixels left out on each side before windows are placed, usually the magnification.

    Raises:
        ValueError, TypeError: as `psnr`, and for images smaller than the window once the border is cropped.
    """
    sr, hr = _planes(sr, hr, channel, border)
    if min(sr.shape[2:]) < WINDOW_SIZE:
        height, width = sr.shape[2:]
        raise ValueError(
            f"ssim needs at least {WINDOW_SIZE}x{WINDOW_SIZE} pixels inside the border of {border}, "
            f"got {height}x{width}"
        )
    # Only the sum of the two variances enters, so four smoothed maps are enough.
    smooth = _window_mean(torch.cat([sr, hr, sr * hr, sr.square() + hr.square()]))
    mean_sr, mean_hr, mean_product, mean_squares = smooth.chunk(4)
    product = mean_sr * mean_hr
    squares = mean_sr.square() + mean_hr.square()
    c1, c2 = K1**2, K2**2
    luminance = (2 * product + c1) / (squares + c1)
    structure = (2 * (mean_product - product) + c2) / (mean_squares - squares + c2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def _planes(sr: Tensor, hr: Tensor, channel: Channel, border: int) -> tuple[Tensor, Tensor]:
    """Both images in float64 as the planes to compare: (N, 1, h, w) for "y", (N, 3, h, w) for "rgb"."""
    require_images(sr, "sr")
    require_images(hr, "hr")
    require_same_shape(sr, hr, ("sr", "hr"))
    require_choice("channel", channel, Channel)
    require_integer("border", border, 0)
    height, width = sr.shape[2:]
    if 2 * border >= min(height, width):
        raise ValueError(f"border must be at least 0 and leave pixels of a {height}x{width} image, got {border}")
    sr, hr = (_double(image[..., border : height - border, border : width - border]) for image in (sr, hr))
    return (luma(sr), luma(hr)) if channel == "y" else (sr, hr)


def _double(image: Tensor) -> Tensor:
    # Apple's GPUs have no float64.
    return image.cpu().double() if image.device.type == "mps" else image.double()


def _window_mean(maps: Tensor) -> Tensor:
    """Gaussian-weighted mean over each whole 11x11 window: (M, C, H, W) to (M, C, H - 10, W - 10)."""
    offsets = [i - WINDOW_SIZE // 2 for i in range(WINDOW_SIZE)]
    weights = [math.exp(-0.5 * (offset / WINDOW_SIGMA) ** 2) for offset in offsets]
    weights = [weight / sum(weights) for weight in weights]
    return _correlate(_correlate(maps, weights, dim=2), weights, dim=3)


def _correlate(maps: Tensor, weights: list[float], dim: int) -> Tensor:
    # Adding shifted views takes a sixth of the time of a float64 conv2d on a CPU.
    length = maps.shape[dim] - len(weights) + 1
    total = weights[0] * maps.narrow(dim, 0, length)
    for shift, weight in enumerate(weights[1:], start=1):
        total.add_(maps.narrow(dim, shift, length), alpha=weight)
    return total
