"""A prior made of examples: all patches of some photographs."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import unfold

from srbook.arguments import require_iterable
from srbook.degradations import bicubic_downsample


def patch_pairs(images: Iterable[Tensor], *, scale: int, size: int) -> tuple[Tensor, Tensor]:
    """All gray patches of some photographs with their low-resolution versions: a prior made of examples.

    Each image enters in its eight orientations. The mean of the low-resolution patch is taken off both, so that patches
    compare up to brightness. The result is (K, size^2) low-resolution and (K, (scale size)^2) high-resolution patches.

    Args:
        images: high-resolution images (1, 3, H, W) in [0, 1], sides divisible by `scale`.
        size: side of the low-resolution patches, in pixels.
    """
    require_iterable("images", images, "images (1, 3, H, W)")
    images = list(images)
    if not images:
        raise ValueError("patch_pairs needs at least one image, got none")
    low, high = [], []
    for image in images:
        hr, lr = (x.mean(dim=1, keepdim=True) for x in (image, bicubic_downsample(image, scale)))
        for turns in range(4):
            for flip in (False, True):
                hr_view, lr_view = (torch.rot90(x.flip(3) if flip else x, turns, dims=(2, 3)) for x in (hr, lr))
                y = unfold(lr_view, size)[0].T
                brightness = y.mean(dim=1, keepdim=True)
                low.append(y - brightness)
                high.append(unfold(hr_view, scale * size, stride=scale)[0].T - brightness)
    return torch.cat(low), torch.cat(high)
