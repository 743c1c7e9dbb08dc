"""The power spectrum of an image by spatial frequency."""

import torch
from torch import Tensor

from srbook.images import require_floats


def radial_spectrum(image: Tensor) -> tuple[Tensor, Tensor]:
    """How the mean square of an image is shared out among rings of equal spatial frequency.

    With F the two-dimensional discrete Fourier transform, the power of ring k is the sum of |F|^2 / (H W)^2 over the
    frequencies within half a ring's width of radius k / min(H, W). By Parseval's theorem the powers add up to the mean
    square of the image. Subtract the mean first to remove ring 0's constant part. A larger ring holds more frequencies:
    the power of white noise rises in proportion to the radius, and that of a natural image, whose density falls as
    1/f^2, falls as 1/f. Opposite sides of the image count as neighbors, so a jump between them adds power along the two
    axes.

    Args:
        image: (N, C, H, W) of floating point, any range; residuals are welcome.

    Returns:
        Frequencies (K,) in cycles per pixel, from 0 through 0.5 (Nyquist along an axis) to about 0.71 (the corners),
        and powers (N, K), averaged over the channels, in squared units of the image. Both float64.

    Raises:
        TypeError: not a float tensor.
        ValueError: not four axes, empty, or values that are not finite.
    """
    require_floats(image, "image")
    if image.ndim != 4 or 0 in image.shape:
        raise ValueError(f"image must have shape (N, C, H, W), got {tuple(image.shape)}")
    if not image.isfinite().all():
        raise ValueError("image must be finite, got nan or infinite values")
    height, width = image.shape[2:]
    rings = min(height, width)
    y = torch.fft.fftfreq(height, dtype=torch.float64, device=image.device)
    x = torch.fft.fftfreq(width, dtype=torch.float64, device=image.device)
    ring = torch.floor(torch.hypot(y[:, None], x[None, :]) * rings + 0.5).long()
    power = torch.fft.fft2(image.double(), norm="forward").abs().square().mean(dim=1)
    count = int(ring.max()) + 1
    total = power.new_zeros(len(image), count).index_add(1, ring.flatten(), power.flatten(1))
    return torch.arange(count, dtype=torch.float64, device=image.device) / rings, total
