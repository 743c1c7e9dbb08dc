"""Posteriors that can be computed exactly: ground truth for tests, and pictures for chapters."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import unfold

from srbook.degradations import bicubic_downsample


def empirical_posterior(y: Tensor, examples: Tensor, noise: float) -> Tensor:
    """Probability of each example given an observation, when the prior is the examples themselves.

    The model: x is one of K examples, all equally likely, and y is the example's low-resolution version plus
    Gaussian noise of standard deviation `noise`. Bayes' rule then gives p(x_k | y) proportional to
    exp(-|y - y_k|^2 / (2 noise^2)). The posterior mean of :eq:`eq-posterior-mean` (chapter 2) is
    `weights @ x_examples`.

    Args:
        y: (D,) the observation.
        examples: (K, D) the observations that the examples would give without noise.
        noise: standard deviation, in the units of y, positive.

    Returns:
        (K,) weights that sum to one.

    Raises:
        ValueError: shapes do not match, or the noise is not positive.
    """
    if y.ndim != 1 or examples.ndim != 2 or examples.shape[1] != y.shape[0] or len(examples) == 0:
        raise ValueError(
            f"y must have shape (D,) and examples (K, D) with K >= 1, got {tuple(y.shape)}, {tuple(examples.shape)}"
        )
    if not noise > 0:
        raise ValueError(f"noise must be positive, got {noise}")
    distance = (examples - y).square().sum(dim=1)
    return torch.softmax(-distance / (2 * noise**2), dim=0)


def patch_pairs(images: Iterable[Tensor], *, scale: int, size: int) -> tuple[Tensor, Tensor]:
    """All gray patches of some photographs with their low-resolution versions: a prior made of examples.

    Each image enters in its eight orientations. The mean of the low-resolution patch is taken off both, so that
    patches compare up to brightness.

    Args:
        images: high-resolution images (1, 3, H, W) in [0, 1], sides divisible by `scale`.
        scale: magnification.
        size: side of the low-resolution patches, in pixels.

    Returns:
        (K, size^2) low-resolution patches and (K, (scale size)^2) high-resolution patches, aligned.
    """
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
