"""The image convention of the package, and the small conversions that every room needs.

An image is a float tensor of shape (N, 3, H, W), RGB, with values in [0, 1].
"""

import torch
from torch import Tensor


def require_images(image: Tensor, name: str = "image") -> Tensor:
    """Return `image` unchanged if it keeps the convention, otherwise say what is wrong and call it `name`.

    Raises:
        TypeError: not a tensor, or not of floating point type.
        ValueError: wrong number of axes or channels, empty, not finite, or outside [0, 1] by more than 0.01.
    """
    if not isinstance(image, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor of shape (N, 3, H, W), got {type(image).__name__}")
    if not image.is_floating_point():
        raise TypeError(f"{name} must hold floats in [0, 1], got {image.dtype}; divide 8-bit values by 255")
    if image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape:
        raise ValueError(f"{name} must have shape (N, 3, H, W), got {tuple(image.shape)}")
    low, high = torch.aminmax(image.detach())
    if not (low >= -0.01 and high <= 1.01):  # written so that nan fails too
        raise ValueError(f"{name} must lie in [0, 1], got values from {low:.4g} to {high:.4g}")
    return image


def require_one_image(image: Tensor, name: str = "image") -> Tensor:
    """`require_images` for a batch of one, (1, 3, H, W); several images are a ValueError, too."""
    if len(require_images(image, name)) != 1:
        raise ValueError(f"{name} must be one image of shape (1, 3, H, W), got a batch of {len(image)}")
    return image


def clip(image: Tensor) -> Tensor:
    """The image with its values brought into [0, 1]."""
    return image.clamp(0, 1)


def round_to_8bit(image: Tensor) -> Tensor:
    """Clip to [0, 1] and round to the nearest of the 256 levels k/255, as saving to PNG does.

    Halves round up, as in MATLAB's `uint8`. The result keeps the input's dtype and shape.
    """
    return torch.floor(clip(image) * 255 + 0.5) / 255


def require_integer_scale(scale: int) -> None:
    """Raise a ValueError for a magnification that is not an integer of at least 1."""
    if not isinstance(scale, int) or scale < 1:
        raise ValueError(f"scale must be an integer of at least 1, got {scale!r}; for other factors use imresize")


def crop_to_multiple(image: Tensor, scale: int) -> Tensor:
    """Cut rows at the bottom and columns at the right so that both sides are divisible by `scale`, as test sets do.

    `image` is (..., H, W), and the result a view of it. A side shorter than `scale` is a ValueError.
    """
    require_integer_scale(scale)
    height, width = image.shape[-2:]
    if min(height, width) < scale:
        raise ValueError(
            f"an image of {height} x {width} is too small for scale {scale}; each side needs {scale} pixels"
        )
    return image[..., : height - height % scale, : width - width % scale]


def luma(image: Tensor) -> Tensor:
    """Luminance Y of BT.601 in its studio range: (N, 3, H, W) in [0, 1] to (N, 1, H, W) in [16/255, 235/255].

    This is the "Y channel" on which super-resolution papers measure PSNR and SSIM (MATLAB's `rgb2ycbcr`).
    Implements :eq:`eq-luma`.
    """
    weights = image.new_tensor([65.481, 128.553, 24.966]).view(1, 3, 1, 1)
    return ((image * weights).sum(dim=1, keepdim=True) + 16) / 255
