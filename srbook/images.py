"""The image convention of the package, and the small conversions that every room needs.

An image is a float tensor of shape (N, 3, H, W), RGB, with values in [0, 1].
"""

import torch
from torch import Tensor, nn

from srbook.arguments import require_instance, require_integer


def require_floats(value: Tensor, name: str) -> Tensor:
    """Return `value` unchanged if it is a tensor of floats, of any shape and range; otherwise raise a TypeError."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} must be a floating point tensor, got {type(value).__name__}; torch.as_tensor makes one"
        )
    if not value.is_floating_point():
        raise TypeError(f"{name} must be a floating point tensor, got {value.dtype}; divide 8-bit values by 255")
    return value


def require_planes(image: Tensor, name: str) -> Tensor:
    """Return `image` unchanged if it is a float tensor (..., H, W) with at least one pixel, of any range.

    Otherwise raise a TypeError or a ValueError.
    """
    require_floats(image, name)
    if image.ndim < 2 or 0 in image.shape[-2:]:
        raise ValueError(f"{name} must have shape (..., H, W) with at least one pixel, got {tuple(image.shape)}")
    return image


def require_maps(image: Tensor, channels: int, name: str) -> Tensor:
    """Return `image` unchanged if it is a float tensor (N, channels, H, W) with at least one pixel, of any range.

    Otherwise raise a TypeError or a ValueError. It reads no values, so it costs nothing in a loop.
    """
    require_floats(image, name)
    if image.ndim != 4 or image.shape[1] != channels or 0 in image.shape:
        raise ValueError(f"{name} must have shape (N, {channels}, H, W), got {tuple(image.shape)}")
    return image


def require_unit_range(image: Tensor, name: str) -> Tensor:
    """Return `image` unchanged if no value is nan or outside [0, 1] by more than 0.01; otherwise raise a ValueError."""
    low, high = torch.aminmax(image.detach())
    if not (low >= -0.01 and high <= 1.01):  # written so that nan fails too
        raise ValueError(f"{name} must lie in [0, 1], got values from {low:.4g} to {high:.4g}")
    return image


def require_images(image: Tensor, name: str = "image") -> Tensor:
    """Return `image` unchanged if it keeps the convention, otherwise say what is wrong and call it `name`.

    Raises:
        TypeError: not a tensor, or not of floating point type.
        ValueError: wrong number of axes or channels, empty, not finite, or outside [0, 1] by more than 0.01.
    """
    return require_unit_range(require_maps(image, 3, name), name)


def require_one_image(image: Tensor, name: str = "image") -> Tensor:
    """`require_images` for a batch of one, (1, 3, H, W); several images are a ValueError, too."""
    if len(require_images(image, name)) != 1:
        raise ValueError(f"{name} must be one image of shape (1, 3, H, W), got a batch of {len(image)}")
    return image


def require_own(module: nn.Module, image: Tensor, name: str) -> Tensor:
    """Return `image` unchanged if it keeps the convention, and has the type and device of the module's weights.

    Otherwise raise a TypeError or a ValueError.
    """
    weight = next(module.parameters(), require_images(image, name))
    if image.dtype != weight.dtype:
        raise TypeError(f"{name} must be {weight.dtype} as the weights are, got {image.dtype}; {name}.to() converts")
    if image.device != weight.device:
        raise ValueError(f"{name} is on {image.device} and the method on {weight.device}; bring both together by .to()")
    return image


def clip(image: Tensor) -> Tensor:
    """The image with its values brought into [0, 1]."""
    return require_floats(image, "image").clamp(0, 1)


def round_to_8bit(image: Tensor) -> Tensor:
    """Clip to [0, 1] and round to the nearest of the 256 levels k/255, as saving to PNG does.

    Halves round up, as in MATLAB's `uint8`. The result keeps the input's dtype and shape.
    """
    return torch.floor(clip(image) * 255 + 0.5) / 255


def require_same_shape(first: Tensor, second: Tensor, names: tuple[str, str]) -> None:
    """Raise a ValueError that names both shapes unless they agree, or a TypeError unless both are float tensors."""
    shapes = [tuple(require_floats(value, name).shape) for value, name in zip((first, second), names, strict=True)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{names[0]} and {names[1]} must have the same shape, got {shapes[0]} and {shapes[1]}")


def crop_to_multiple(image: Tensor, scale: int) -> Tensor:
    """Cut rows at the bottom and columns at the right so that both sides are divisible by `scale`, as test sets do.

    `image` is (..., H, W) of any type, and the result a view of it. A side shorter than `scale` is a ValueError.
    """
    require_integer("scale", scale, 1)
    require_instance("image", image, Tensor)
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
    require_maps(image, 3, "image")
    weights = image.new_tensor([65.481, 128.553, 24.966]).view(1, 3, 1, 1)
    return ((image * weights).sum(dim=1, keepdim=True) + 16) / 255
