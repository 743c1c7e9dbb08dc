"""The part of a high-resolution image that its low-resolution image fixes, and the part that it leaves free."""

from functools import lru_cache

import torch
from torch import Tensor

from srbook.arguments import require_integer
from srbook.degradations.resize import resize_weights
from srbook.images import require_planes


def consistent(image: Tensor, lr: Tensor) -> Tensor:
    """The image closest to `image` that shrinks exactly to `lr`: image + A^+ (lr - A image).

    A is bicubic shrinking without rounding, and A^+ its pseudoinverse. Implements :eq:`eq-consistent`. Computed in
    float64 and returned in the type of `image`. Values may leave [0, 1].

    Args:
        image: (..., H, W), floating point.
        lr: (..., H / s, W / s) for one integer s.

    Raises:
        TypeError: not floating point tensors.
        ValueError: the sides of `image` are not one integer multiple of those of `lr`.
    """
    scale = _scale(image, lr)
    rows, columns = _shrinking(lr.shape[-2], scale, image.device), _shrinking(lr.shape[-1], scale, image.device)
    x = image.double()
    missing = lr.double() - rows.matrix @ x @ columns.matrix.T
    return (x + rows.inverse @ missing @ columns.inverse.T).to(image.dtype)


def fixed_and_free(image: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """Split an image into the part that its low-resolution version fixes and the part that it leaves free.

    Implements :eq:`eq-split`: the parts, both (..., H, W), add up to the image and are orthogonal. The first is A^+ A
    x. The second lies in the null space of A, so that shrinking it gives zero, and has both signs.

    Args:
        image: (..., H, W), floating point, both sides divisible by `scale`.

    Raises:
        TypeError: not a floating point tensor.
        ValueError: a side is not divisible by `scale`.
    """
    require_integer("scale", scale, 1)
    height, width = require_planes(image, "image").shape[-2:]
    if height % scale or width % scale:
        raise ValueError(
            f"height and width must be divisible by the scale, got {height} x {width} and {scale}; "
            "see srbook.images.crop_to_multiple"
        )
    free = consistent(image, image.new_zeros(*image.shape[:-2], height // scale, width // scale))
    return image - free, free


class _Shrinking:
    """One axis of A and its pseudoinverse, (n, s n) and (s n, n). A^+ of the image is the product over the axes."""

    def __init__(self, matrix: Tensor, device: torch.device):
        self.matrix = matrix.to(device)
        self.inverse = torch.linalg.pinv(matrix).to(device)


@lru_cache(maxsize=64)
def _shrinking(length: int, scale: int, device: torch.device) -> _Shrinking:
    with torch.inference_mode(False), torch.no_grad():  # the cache outlives the caller's mode
        return _Shrinking(resize_weights(length * scale, length, 1 / scale), device)


def _scale(image: Tensor, lr: Tensor) -> int:
    (height, width), (small_height, small_width) = (
        require_planes(each, name).shape[-2:] for each, name in ((image, "image"), (lr, "lr"))
    )
    scale = height // max(1, small_height)
    if scale < 1 or (height, width) != (scale * small_height, scale * small_width):
        raise ValueError(
            f"image must be an integer times larger than lr on both axes, got {height} x {width} "
            f"and {small_height} x {small_width}"
        )
    if any(
        one != other and 1 not in (one, other)
        for one, other in zip(image.shape[-3::-1], lr.shape[-3::-1], strict=False)
    ):
        raise ValueError(f"image and lr must be as many, got {tuple(image.shape)} and {tuple(lr.shape)}")
    return scale
