"""How far bicubic upscaling is from the truth: what diffusion around the bicubic image has to supply."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from srbook.arguments import require_integer, require_iterable
from srbook.degradations.resize import bicubic_downsample, bicubic_upsample
from srbook.images import crop_to_multiple, require_images


@dataclass(frozen=True)
class ResidualMoments:
    """Moments of the residual, the truth minus the bicubic image, over all pixels and channels of a set.

    Attributes:
        mean: close to 0, since resizing keeps flat areas.
        deviation: root mean square around 0, the sigma for which the normalized residual has variance 1.
        by_image: (K,) root mean square of each image.
    """

    mean: float
    deviation: float
    by_image: Tensor


def residual_deviation(images: Iterable[Tensor], scale: int) -> ResidualMoments:
    """Measure the residual of a data set, in the units of its images, to choose sigma around a bicubic anchor.

    ECDP (Yuan and Yuan 2024) keeps the variance along its path constant if sigma is the standard deviation of the
    residual. Its program takes 0.2 for every data set, with images in [0, 1].

    Args:
        images: high-resolution batches (N, 3, H, W) in [0, 1], sizes may differ; sides are cropped to multiples of
            `scale`. They are shrunk by `bicubic_downsample` and enlarged by `bicubic_upsample`.
        scale: magnification, an integer of at least 2.

    Raises:
        ValueError: no image, an image that breaks the convention, or one smaller than `scale`.
    """
    require_iterable("images", images, "batches (N, 3, H, W)")
    require_integer("scale", scale, 2)
    sums, squares, counts = [], [], []
    for batch in images:
        hr = crop_to_multiple(require_images(batch), scale)
        residual = (hr - bicubic_upsample(bicubic_downsample(hr, scale), scale)).double().flatten(1)
        sums.append(residual.sum(1))
        squares.append(residual.square().sum(1))
        counts.append(torch.full_like(sums[-1], residual.shape[1]))
    if not sums:
        raise ValueError("residual_deviation needs at least one image, got none")
    total, square, count = (torch.cat(values) for values in (sums, squares, counts))
    return ResidualMoments(
        mean=(total.sum() / count.sum()).item(),
        deviation=(square.sum() / count.sum()).sqrt().item(),
        by_image=(square / count).sqrt(),
    )
