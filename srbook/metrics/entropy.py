"""Shannon's entropy of images and of residuals; the arguments say how gray levels are counted.

The order of the pixels does not matter, so a photograph and its shuffled pixels have the same entropy. Counting in
small blocks brings a part of the order back. Counting happens on the CPU, in double precision and without gradients;
`srbook.losses.soft_histogram` has them. Every entropy is (N,) float64, in bits.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from srbook.arguments import require_choice, require_instance, require_integer, require_numbers
from srbook.images import luma, require_images, require_same_shape, round_to_8bit

EntropyChannel = Literal["y", "rgb", "pooled"]


def shannon_entropy(values: Tensor, *, bins: int, low: float, high: float) -> Tensor:
    """Entropy of the histogram of each set of values: -sum p log2 p (Shannon 1948).

    Implements :eq:`eq-entropy`. It lies between 0 (one bin holds everything) and log2(bins). A histogram of M values
    cannot show more than log2(M) bits, and shows a little less than the truth on average, by about (used bins - 1) / (2
    M ln 2).

    Args:
        values: (N, ...), any real type; all values of an entry go into one histogram.
        bins: number of bins of equal width, at least 1.
        low: where the first bin starts.
        high: where the last bin ends; it belongs to that bin. All values lie between the two.

    Raises:
        ValueError: no value, no bin, an empty range, or values outside the range.
    """
    require_instance("values", values, Tensor)
    require_integer("bins", bins, 1)
    require_numbers(low=low, high=high)
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"low must be below high, and both finite, got {low} and {high}")
    if values.ndim < 1 or values.numel() == 0:
        raise ValueError(f"values must have shape (N, ...) with at least one value, got {tuple(values.shape)}")
    smallest, largest = torch.aminmax(values)
    if not (smallest >= low and largest <= high):  # written so that nan fails too
        raise ValueError(f"values must lie in [{low}, {high}], got {smallest.item():.4g} to {largest.item():.4g}")
    place = (values.detach().cpu().double().reshape(len(values), -1) - low) * (bins / (high - low))
    return _entropy_of_counts(place.long().clamp(max=bins - 1), bins)


def image_entropy(image: Tensor, *, channel: EntropyChannel, block: int | None = None) -> Tensor:
    """Entropy of the 8-bit levels of each image: at most 8.

    The image is rounded to 8 bits first. Y takes the whole levels 16 to 235, so at most log2(220) = 7.78 bits.

    Args:
        image: (N, 3, H, W) in [0, 1].
        channel: "y" counts the levels of Y (BT.601), "rgb" takes the mean of the three channels' entropies, "pooled"
            counts the levels of all three channels in one histogram.
        block: side of square blocks that are counted one by one, their entropies averaged; what is left over at the
            lower right is not counted. None counts the image as a whole.

    Raises:
        ValueError: another channel, a block that does not fit, or `image` breaks the image convention.
        TypeError: not float tensors.
    """
    return _mean_entropy(_levels(image, "image", channel), 256, channel, block)


def residual_entropy(image: Tensor, upscaled: Tensor, *, channel: EntropyChannel, block: int | None = None) -> Tensor:
    """Entropy of image - upscaled in whole 8-bit levels, -255 to 255: at most log2(511) = 9.00.

    Both images, (N, 3, H, W) in [0, 1], are rounded to 8 bits, for "y" converted and rounded again, and then
    subtracted. The other arguments and the errors are as in `image_entropy`.
    """
    first, second = _levels(image, "image", channel), _levels(upscaled, "upscaled", channel)
    require_same_shape(image, upscaled, ("image", "upscaled"))
    return _mean_entropy(first - second + 255, 511, channel, block)


def _levels(image: Tensor, name: str, channel: EntropyChannel) -> Tensor:
    """Whole 8-bit levels, int64: (N, 1, H, W) for "y", otherwise (N, 3, H, W)."""
    require_choice("channel", channel, EntropyChannel)
    image = round_to_8bit(require_images(image, name).detach().cpu().double())
    planes = luma(image) if channel == "y" else image
    return torch.floor(planes * 255 + 0.5).long()


def _mean_entropy(levels: Tensor, bins: int, channel: EntropyChannel, block: int | None) -> Tensor:
    count, (height, width) = len(levels), levels.shape[2:]
    if block is not None:
        require_integer("block", block, 1, min(height, width))
        levels = levels.unfold(2, block, block).unfold(3, block, block)  # (N, C, rows, columns, block, block)
        levels = levels.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
    else:
        levels = levels[:, None]
    # (N, blocks, C, ...): one histogram for each block, or for each of its planes
    levels = levels.flatten(2) if channel == "pooled" else levels.flatten(1, 2).flatten(2)
    return _entropy_of_counts(levels.flatten(0, 1), bins).reshape(count, -1).mean(dim=1)


def _entropy_of_counts(index: Tensor, bins: int) -> Tensor:
    """Bits of each row's histogram; `index` (K, M) holds numbers of bins."""
    first = bins * torch.arange(len(index))[:, None]
    counts = torch.bincount((first + index).flatten(), minlength=len(index) * bins).reshape(-1, bins)
    return torch.special.entr(counts.double() / index.shape[1]).sum(dim=1) / math.log(2)
