"""Losses on the coefficients of two orthonormal transforms: Fourier's and Haar's.

Both transforms keep energy, so the squared error of all coefficients is that of the pixels. A loss on them differs only
if it weighs the coefficients: the wavelet loss leaves out the low band, and gives every level the same weight.
"""

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, pad

from srbook.arguments import require_integer
from srbook.images import require_floats, require_same_shape


def haar(image: Tensor, levels: int) -> tuple[Tensor, list[Tensor]]:
    """The orthonormal Haar transform: squares of 2x2 pixels become one mean and three differences, again and again.

    For the pixels p q / r s of a square, the low band has (p + q + r + s) / 2, and the detail bands are, in this order,
    (p + q - r - s) / 2 for horizontal edges, (p - q + r - s) / 2 for vertical ones, and (p - q - r + s) / 2 for
    diagonal ones. An odd side is first extended by repeating its last row or column.

    Args:
        image: (N, C, H, W), floating point, any range.
        levels: how often the low band is transformed again, at least 1.

    Returns:
        The low band, (N, C, h_L, w_L), and one (N, C, 3, h_j, w_j) of details for each level j = 1..L, fine to coarse,
        with h_0 = H and h_j = ceil(h_{j-1} / 2). For sides that are multiples of 2^L the sum of squares is that of the
        image.

    Raises:
        ValueError: `image` has another number of axes or no pixels, or `levels` is not an integer of at least 1.
    """
    require_floats(image, "image")
    if image.ndim != 4 or 0 in image.shape:
        raise ValueError(f"image must have shape (N, C, H, W) with at least one pixel, got {tuple(image.shape)}")
    require_integer("levels", levels, 1)
    low, details = image, []
    for _ in range(levels):
        low = pad(low, (0, low.shape[-1] % 2, 0, low.shape[-2] % 2), mode="replicate")
        p, q, r, s = low[..., ::2, ::2], low[..., ::2, 1::2], low[..., 1::2, ::2], low[..., 1::2, 1::2]
        details.append(torch.stack([p + q - r - s, p - q + r - s, p - q - r + s], dim=2) / 2)
        low = (p + q + r + s) / 2
    return low, details


def wavelet_loss(a: Tensor, b: Tensor, levels: int = 4) -> Tensor:
    """Sum over levels and detail bands of the mean squared difference of Haar coefficients.

    Part of :eq:`eq-resdiff-losses`: ResDiff's second loss for its predictor (Shang et al. 2024). Coarse bands have
    fewer coefficients but the same weight, so they count more per coefficient; the low band does not count. The result
    is in squared units of the images.

    Args:
        a, b: (N, C, H, W), any range.
        levels: as in `haar`; 4 in the released program.

    Raises:
        ValueError: the shapes differ, or as `haar`.
    """
    require_same_shape(a, b, ("a", "b"))
    _, details = haar(a - b, levels)  # the transform is linear
    return torch.stack([3 * band.square().mean() for band in details]).sum()


def fourier_loss(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of the real, plus of the imaginary parts of the orthonormal 2-D Fourier transforms.

    Part of :eq:`eq-resdiff-losses`: ResDiff's first loss for its predictor (Shang et al. 2024). It is the mean squared
    error of the pixels, by Parseval's identity, :eq:`eq-parseval`. Images are (N, C, H, W), of any range, in single or
    double precision; shapes that differ are a ValueError.
    """
    require_same_shape(a, b, ("a", "b"))
    spectra = [torch.view_as_real(torch.fft.fft2(image, norm="ortho")) for image in (a, b)]
    return 2 * mse_loss(*spectra)  # the mean over both parts is half the sum of their means
