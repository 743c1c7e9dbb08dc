"""Soft histograms, and ESRDF's entropy matching: make the gray levels of a prediction as frequent as the truth's.

A soft histogram gives every value to all bins, weighted by a Gaussian of their distance, so it has a gradient. Computed
directly, that is one exponential per value and bin. Here values are first gathered in cells, narrower than the
Gaussian, as sums of powers of their place in the cell; a fixed matrix turns these moments into bins (the fast Gauss
transform of Greengard and Strain, 1991). The result is the same up to rounding. Memory and time grow with the number of
values, not with their product with the bins.
"""

import math
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from srbook.arguments import require_choice, require_integer, require_numbers
from srbook.images import require_floats, require_same_shape

Direction = Literal["forward", "reverse"]

CELL = 0.4  # width of a cell over sigma: a value is at most 0.2 sigma from the middle of its cell
TERMS = {torch.float32: 8, torch.float64: 14}  # moments per cell, for rounding errors of each type


def soft_histogram(
    values: Tensor, *, bins: int = 256, sigma: float = 0.01, low: float = 0.0, high: float = 1.0
) -> Tensor:
    """The share of each bin in a set of values, blurred by a Gaussian: (..., bins), not negative, with the sum 1.

    Implements :eq:`eq-esrdf-histogram`, by :eq:`eq-esrdf-cells`. With centers c_b evenly spaced from `low` to `high`,
    both included, bin b gets the sum over all values x of exp(-(x - c_b)^2 / (2 sigma^2)), divided by the sum of all
    bins (Huang et al. 2026). Values outside the range count at its ends, without a gradient. A value at an end weighs
    little more than half of one inside, since no bins lie beyond.

    Beside the values it needs memory for cells and bins, in all for about 20 (high - low) / sigma (bins + sets)
    numbers. Gradients cannot be differentiated again.

    Args:
        values: (..., M), floating point: one histogram over each last axis. For the channels of images (N, C, H, W),
            `image.flatten(2)`. Half precision is computed in single precision.
        bins: number of bins, at least 2.
        sigma: standard deviation of the Gaussian, in the units of the values. At least an eighth of the distance
            between bins, so that no value falls between them.
        low, high: centers of the first and of the last bin.

    Raises:
        TypeError: not a float tensor.
        ValueError: no values, fewer than two bins, an empty range, or a sigma that is too small or not finite.
    """
    require_floats(values, "values")
    if values.ndim < 1 or values.numel() == 0:
        raise ValueError(f"values must have shape (..., M) with at least one value, got {tuple(values.shape)}")
    require_integer("bins", bins, 2)
    require_numbers(sigma=sigma, low=low, high=high)
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"low must be below high, and both finite, got {low} and {high}")
    least = (high - low) / (8 * (bins - 1))
    if not least <= sigma < math.inf:
        raise ValueError(f"sigma must be at least {least:.3g}, an eighth of the distance between bins, got {sigma}")
    if values.dtype not in TERMS:
        values = values.float()
    transfer = _transfer(bins, float(sigma), float(low), float(high), values.dtype, values.device)
    rows = values.clamp(low, high).reshape(-1, values.shape[-1])
    weights = _KernelSums.apply(rows, transfer, low, high, sigma)
    return (weights / weights.sum(dim=-1, keepdim=True)).reshape(*values.shape[:-1], bins)


def entropy_matching_loss(
    sr: Tensor,
    hr: Tensor,
    *,
    bins: int = 256,
    sigma: float = 0.01,
    patch: int | None = None,
    direction: Direction = "forward",
    released_range: bool = False,
    eps: float = 1e-10,
) -> Tensor:
    """Kullback-Leibler divergence between the soft histograms of truth and prediction, in nats (Huang et al. 2026).

    Implements :eq:`eq-esrdf-loss`; its gradient is :eq:`eq-esrdf-gradient`. The loss is the mean over images, patches,
    and channels.

    "forward" is the paper's KL(truth || prediction) = sum over b of P_b log((P_b + eps) / (Q_b + eps)), with P from the
    truth and Q from the prediction: it punishes gray levels that the prediction lacks. "reverse" exchanges the two, as
    the released program does: it punishes levels that the truth lacks.

    The released program also takes images in [-1, 1], but counts levels in [0, 1]: all pixels darker than mid-gray fall
    into the first bin, without a gradient. `released_range` does the same. That program averages over the bins and sums
    over the channels, so its loss is 3 / bins times this one; its weight 100 is 300 / 256 = 1.17 here.

    Args:
        sr: (N, C, H, W), the prediction; values outside [0, 1] count as 0 or 1.
        hr: same shape, the truth in [0, 1].
        sigma: as in `soft_histogram`; 0.01 is 2.55 gray levels.
        patch: side of square patches with histograms of their own, which must tile the image. None takes whole images,
            as the program does; the paper speaks of patches without a size.
        direction: "forward" or "reverse".
        released_range: reproduce the program's range.
        eps: positive; it bounds the logarithm where a bin is empty.

    Raises:
        ValueError: shapes that differ, a patch that does not tile them, an unknown direction, an `eps` that is not
            positive, or as `soft_histogram`.
        TypeError: not float tensors.
    """
    require_same_shape(sr, hr, ("sr", "hr"))
    if sr.ndim != 4:
        raise ValueError(f"sr and hr must have the shape (N, C, H, W), got {tuple(sr.shape)}")
    require_choice("direction", direction, Direction)
    require_numbers(eps=eps)
    if not 0 < eps < math.inf:
        raise ValueError(f"eps must be positive, got {eps}")
    found, wanted = (
        soft_histogram(_sets(2 * image - 1 if released_range else image, patch), bins=bins, sigma=sigma)
        for image in (sr, hr)
    )
    p, q = (wanted, found) if direction == "forward" else (found, wanted)
    return (p * ((p + eps) / (q + eps)).log()).sum(dim=-1).mean()


def _sets(image: Tensor, patch: int | None) -> Tensor:
    """The values of each channel of each patch: (N, C, patches, M)."""
    if patch is None:
        return image.flatten(2)[:, :, None]
    require_integer("patch", patch, 1)
    if any(side % patch for side in image.shape[-2:]):
        raise ValueError(f"patch must divide the sides of the images, {tuple(image.shape[-2:])}, got {patch!r}")
    return image.unfold(2, patch, patch).unfold(3, patch, patch).flatten(4).flatten(2, 3)


class _KernelSums(torch.autograd.Function):
    """Sums of Gaussians over (K, M) values in [low, high], at all bins: (K, bins)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, transfer: Tensor, low: float, high: float, sigma: float) -> Tensor:
        terms, cells, _ = transfer.shape
        width = (high - low) / (cells - 1)
        place = (values - low) / width
        cell = place.round()
        offset = ((place - cell) * (width / sigma)).flatten()
        first = cells * torch.arange(len(values), device=values.device)[:, None]
        index = (cell.long().clamp_(0, cells - 1) + first).flatten()  # nan has no place, but must not crash
        moments = values.new_zeros(terms, len(values) * cells)
        power = torch.ones_like(offset)
        for moment in moments:
            moment.scatter_add_(0, index, power)
            power = power * offset
        ctx.save_for_backward(index, offset, transfer)
        ctx.shape, ctx.sigma = values.shape, sigma
        moments = moments.reshape(terms, -1, cells).transpose(0, 1).flatten(1)
        with torch.autocast(values.device.type, enabled=False):
            sums = moments @ transfer.flatten(0, 1)
        return sums.clamp_(min=0)  # far from all values, rounding can leave -1e-300

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        index, offset, transfer = ctx.saved_tensors
        terms, cells, _ = transfer.shape
        with torch.autocast(gradient.device.type, enabled=False):
            slopes = gradient @ transfer.flatten(0, 1).T
        slopes = slopes.reshape(-1, terms, cells).transpose(0, 1).flatten(1)
        total = (terms - 1) * slopes[-1].index_select(0, index)
        for n in range(terms - 2, 0, -1):  # the polynomial's derivative, by Horner's rule
            total.mul_(offset).add_(slopes[n].index_select(0, index), alpha=n)
        return (total / ctx.sigma).reshape(ctx.shape), None, None, None, None


@lru_cache(maxsize=8)
def _transfer(bins: int, sigma: float, low: float, high: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(terms, cells, bins): what the n-th moment of a cell adds to a bin.

    With u the distance from cell to bin and d that from cell to value, both in sigmas, Hermite's polynomials give
    exp(-(u - d)^2 / 2) = sum over n of d^n / n! He_n(u) exp(-u^2 / 2).
    """
    cells = math.ceil((high - low) / (CELL * sigma)) + 1
    with torch.inference_mode(False), torch.device("cpu"):  # kept for later calls, which may want gradients
        middles, centers = (torch.linspace(low, high, count, dtype=torch.float64) for count in (cells, bins))
        u = (centers - middles[:, None]) / sigma
        before, present = torch.zeros_like(u), torch.exp(-u.square() / 2)
        table = []
        for n in range(TERMS[dtype]):
            table.append(present)
            before, present = present, (u * present - before) / (n + 1)
        transfer = torch.stack(table)
        transfer[transfer.abs() < torch.finfo(dtype).tiny ** 0.8] = 0  # products below `tiny` take 20 times as long
        return transfer.to(device, dtype)
