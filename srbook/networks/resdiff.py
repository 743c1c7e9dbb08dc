"""ResDiff's denoiser: SR3's U-Net, which also sees the frequencies of the predicted image (Shang et al., 2024)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention

from srbook.arguments import require_counts, require_lists_of_counts, require_numbers
from srbook.images import require_maps
from srbook.losses import haar
from srbook.networks.blocks import as_image, as_sequence, orthogonal_
from srbook.networks.time import require_times
from srbook.networks.unet import UNet
from srbook.numbers import at_least_single


def gaussian_filter(height: int, width: int, sigma: float | Tensor, as_released: bool = False) -> Tensor:
    """The gain 1 - exp(-d^2 / (2 sigma^2)) of each frequency, in the order of `torch.fft.fft2`.

    Implements :eq:`eq-gaussian-filter`. With d the distance from frequency zero this is a high-pass, and the mean does
    not pass. The released program does not shift its spectrum, so it measures d from the highest frequency: a low-pass.
    The result is (..., height, width) of the type of `sigma`, in single precision for a number.

    Args:
        height, width: of the image.
        sigma: positive, in cycles per pixel, a number or a tensor of shape (..., 1, 1). The released program counts
            bins of an image of S x S: divide by S.
        as_released: measure d from the highest frequency.

    Raises:
        ValueError: a size below 1, or a number for `sigma` that is not positive.
    """
    require_counts(height=height, width=width)
    if not isinstance(sigma, Tensor):
        require_numbers(sigma=sigma)
        if not 0 < sigma < math.inf:
            raise ValueError(f"sigma must be positive, in cycles per pixel, got {sigma}")
        sigma = torch.tensor(float(sigma))
    rows, columns = ((side * torch.fft.fftfreq(side)).round().to(sigma) / side for side in (height, width))
    if as_released:
        rows, columns = rows.abs() - 0.5, columns.abs() - 0.5
    return -torch.expm1(-(rows.square()[:, None] + columns.square()) / (2 * sigma.square()))


class ChannelGate(nn.Module):
    """Every channel times 1 plus a weight in (0, 1) that the means of all channels decide (Hu et al., 2018).

    The hidden layer has half of the `channels`.
    """

    def __init__(self, channels: int):
        super().__init__()
        hidden = channels // 2
        self.layers = nn.Sequential(
            nn.Linear(channels, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, channels, bias=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return x * (1 + self.layers(x.mean(dim=(2, 3)))[:, :, None, None])


class FrequencySplitter(nn.Module):
    """ResDiff's first layer: the noisy image and the predicted one, with three maps made from them.

    At the defaults it has 8,419 parameters. Two defects of the released program are corrected: its Fourier transform
    mixes the images and channels of a batch, and its "high-pass" is a low-pass (see `gaussian_filter`). For images of
    another size than S x S, the noise profile is interpolated linearly, the filter keeps its frequencies, and the
    spectrum keeps the units of S x S.

    Args:
        size: side S of the training images, at least 20, or a ValueError.
        embedding: length of the noise embedding.
        as_released: keep both defects.
    """

    def __init__(self, size: int = 128, embedding: int = 64, as_released: bool = False):
        super().__init__()
        require_counts(size=size, embedding=embedding)
        if size < 20:
            raise ValueError(f"size must be at least 20, for the range of sigma from S / 2 to S - 10, got {size}")
        self.size, self.as_released = size, as_released
        self.profile = nn.Linear(embedding, size)
        self.noise_gate, self.sigma_gate, self.filter_gate = ChannelGate(3), ChannelGate(6), ChannelGate(6)
        self.low = nn.Conv2d(6, 3, 1)

    def forward(self, predicted: Tensor, noisy: Tensor, embedding: Tensor) -> Tensor:
        """The five maps, (N, 15, H, W).

        They are the noisy image, the predicted one, the noisy one gated by the signal, and the low and the high
        frequencies of the predicted one.

        Args:
            predicted: (N, 3, H, W), the predictor's image in [-1, 1].
            noisy: shaped like `predicted`, the normalized state z_t.
            embedding: (N, embedding), of the signal sqrt(abar_t).
        """
        height, width = predicted.shape[-2:]
        profile = self.profile(embedding)[:, None]
        if width != self.size:
            profile = interpolate(profile, size=width, mode="linear", align_corners=False)
        gated = noisy * self.noise_gate(profile[:, :, None].expand(-1, 3, -1, -1))
        spectrum = self._transform(at_least_single(predicted))  # half precision has no Fourier transform
        gain = gaussian_filter(height, width, self.sigma(spectrum), self.as_released)
        passed = spectrum * gain
        share = self.size**2 / (height * width)  # a pattern of unit amplitude has a peak of half the pixels
        low = predicted * self.low(self.filter_gate(_parts(share * passed, self.low.weight)))
        high = self._transform_back(passed).abs().to(predicted)
        return torch.cat([noisy, predicted, gated, low, high], dim=1)

    def sigma(self, spectrum: Tensor) -> Tensor:
        """The filter's width for each image, (N, 1, 1, 1), in cycles per pixel.

        The program lets it grow from 1/2 to 1 - 10 / S with the mean of the spectrum over all frequencies. But that
        mean is the first pixel of the image, so the width stays between 1/2 and 1/2 + 1 / S unless `as_released`.
        `spectrum` is the predicted image's, (N, 3, H, W) complex, not normalized.
        """
        mean = self.sigma_gate(_parts(spectrum, self.low.weight)).mean(dim=(1, 2, 3), keepdim=True)
        return (mean.abs().to(spectrum.real) + self.size / 2).clamp(max=self.size - 10) / self.size

    def _transform(self, image: Tensor) -> Tensor:
        return torch.fft.fftn(image) if self.as_released else torch.fft.fft2(image)

    def _transform_back(self, spectrum: Tensor) -> Tensor:
        return torch.fft.ifftn(spectrum) if self.as_released else torch.fft.ifft2(spectrum)


class HighFrequencyAttention(nn.Module):
    """Every pixel takes a weighted mean of all pixels; the details of an image choose the weights. One head.

    Implements :eq:`eq-residual-attention`. Arguments are as in `SelfAttention`.
    """

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.query = nn.Conv2d(3, channels, 1, bias=False)
        self.key_value = nn.Conv2d(channels, 2 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, details: Tensor) -> Tensor:
        """(N, C, H, W) and (N, 3, H, W) to the shape of the first. The cost grows with (HW)^2."""
        key, value = as_sequence(self.key_value(self.norm(x))).chunk(2, dim=3)
        mixed = scaled_dot_product_attention(as_sequence(self.query(details)), key, value)
        return x + self.out(as_image(mixed, x))


class ResDiffUNet(nn.Module):
    """SR3's U-Net on the maps of a `FrequencySplitter`, with attention guided by Haar details of the predicted image.

    At the defaults it has 98,871,334 parameters. Each halving's shortcut passes a `HighFrequencyAttention` whose
    queries are the sum of the three detail bands of that level; the way down goes on without it.

    Args:
        size: side of the training images, see `FrequencySplitter`.
        width, multipliers, blocks, attention, groups, dropout: as in `UNet`, with at least two levels.
        as_released: keep the defects of the released splitter.

    Raises:
        ValueError: `size` is too small, there is no halving, or as `UNet`.
    """

    def __init__(
        self,
        size: int = 128,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 4, 8, 8),
        blocks: int = 2,
        attention: Sequence[int] = (3,),
        groups: int = 32,
        dropout: float = 0.2,
        as_released: bool = False,
    ):
        super().__init__()
        require_lists_of_counts(multipliers=multipliers)
        if len(multipliers) < 2:
            raise ValueError(f"ResDiff guides the halvings of its U-Net: give two levels, got {tuple(multipliers)}")
        self.unet = UNet(15, 3, width, multipliers, blocks, attention, groups, dropout)
        self.splitter = FrequencySplitter(size, width, as_released)
        self.guides = nn.ModuleList(
            HighFrequencyAttention(width * multiplier, groups) for multiplier in multipliers[:-1]
        )
        self.multiple = self.unet.multiple
        orthogonal_(self.splitter)
        orthogonal_(self.guides)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """One evaluation, to (N, 3, H, W).

        Args:
            x: (N, 6, H, W), the predicted image in [-1, 1], then the normalized state z_t; H and W are multiples of
                `multiple`.
            time: (N,), the signal of each image.

        Raises:
            ValueError: a size that cannot be halved often enough, or a `time` of another shape.
        """
        require_maps(x, 6, "x")
        self.unet.require_sides(x)
        require_times(time, x)
        predicted, noisy = x.chunk(2, dim=1)
        embedding = self.unet.time(time)
        _, details = haar(predicted, levels=len(self.guides))

        def guide(halving: int, shortcut: Tensor) -> Tensor:
            return self.guides[halving](shortcut, details[halving].sum(dim=2))

        return self.unet.walk(self.splitter(predicted, noisy, embedding), embedding, guide)


def _parts(spectrum: Tensor, like: Tensor) -> Tensor:
    """Real parts of all channels, then imaginary parts, in the type of `like`."""
    return torch.cat([spectrum.real, spectrum.imag], dim=1).to(like)
