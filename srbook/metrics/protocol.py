"""Complete recipes for the PSNR and SSIM of a test set: what is rounded, when, and on which channel.

Two recipes cover most tables of the field. They differ by hundredths of a decibel on color photographs, and by 1.3 dB
on a file that stores one gray channel.

Protocol A starts from 8-bit RGB files and measures the Y channel, 16 + 219 v in 8-bit units for a gray value v. A gray
file is read as RGB like any other, so its contrast shrinks by 219/255 before it is measured.

Protocol B starts from the Y channel, rounded to 8 bits, and degrades, upscales, and measures that one plane. Its
scripts convert only files that have three channels. A file with one gray channel keeps its full contrast, so its error
is 255/219 times as large: 20 log10(255/219) = 1.32 dB less. Its SSIM falls too, because the constants of SSIM do not
grow with the contrast. In Set14, `bridge` is stored with one channel. Its bicubic x4 scores 23.15 dB / .5403 where
conversion would give 24.47 / .5663, which takes 0.094 dB from the mean of the set. `man` is gray, too, but stored with
three equal channels, and loses nothing. That is why `target` must be told how the file is stored.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from srbook.arguments import require_function, require_instance, require_integer
from srbook.degradations import Bicubic, Degradation, bicubic_downsample, imresize
from srbook.images import clip, crop_to_multiple, luma, require_images, round_to_8bit
from srbook.metrics.fidelity import Channel, psnr, ssim
from srbook.random import require_generator


class Scores(NamedTuple):
    """PSNR in decibels and SSIM of each image, both (N,) float64."""

    psnr: Tensor
    ssim: Tensor


@dataclass(frozen=True)
class Protocol:
    """A recipe: `target` prepares the truth, `degrade` makes the input, `score` judges the output.

    In every protocol the truth is cropped to a multiple of the scale at its lower right, the degradation is MATLAB's
    antialiased bicubic unless another is given, outputs are clipped and rounded to 8 bits, and `scale` pixels are left
    out on each side before measuring.

    Attributes:
        name: how tables call it.
        description: one sentence for a table's caption.
        y_first: True if the picture is reduced to its 8-bit Y channel before anything else.
        lr_rounded: True if the low-resolution input is rounded to 8 bits.
    """

    name: str
    description: str
    y_first: bool
    lr_rounded: bool

    @property
    def channel(self) -> Channel:
        """What PSNR and SSIM measure; once the picture is its Y channel, "rgb" holds that."""
        return "rgb" if self.y_first else "y"

    def target(self, hr: Tensor, scale: int, *, stored_gray: bool = False) -> Tensor:
        """The image that the output is compared with, (N, 3, H', W') in [0, 1], cropped to multiples of the scale.

        Where the protocol starts from Y, the three channels are equal.

        Args:
            hr: (N, 3, H, W) in [0, 1], as read from the files.
            stored_gray: True if the files hold one gray channel. A protocol that starts from Y then keeps the gray
                values as they are; the others treat the files as RGB.

        Raises:
            ValueError: an image smaller than the scale, or one said to be gray whose channels differ.
        """
        require_images(hr, "hr")
        if stored_gray and not (hr == hr[:, :1]).all():
            raise ValueError("stored_gray is True, but the channels of hr differ; pass True only for gray files")
        hr = crop_to_multiple(hr, scale)
        if not self.y_first:
            return hr
        plane = hr[:, :1] if stored_gray else luma(hr)
        return round_to_8bit(plane).expand_as(hr)

    def degrade(
        self,
        target: Tensor,
        scale: int,
        degradation: Degradation | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The low-resolution input for a `target`: (N, 3, H, W) to (N, 3, H/scale, W/scale), in [0, 1].

        `degradation` is of this scale and goes through `require_degradation`; None is the protocol's own. `generator`
        serves a random one.
        """
        if degradation is not None:
            self.require_degradation(degradation, scale)
            if degradation != Bicubic(scale):
                return degradation(target, generator)
        require_generator(generator)
        require_images(target, "target")
        return bicubic_downsample(target, scale) if self.lr_rounded else clip(imresize(target, 1 / scale))

    def require_degradation(self, degradation: Degradation, scale: int) -> None:
        """Raise a ValueError for another scale, and for another degradation than bicubic in one that starts from Y."""
        require_instance("degradation", degradation, Degradation, "such as srbook.degradations.Bicubic(4)")
        if degradation.scale != scale:
            raise ValueError(f"the degradation shrinks {degradation.scale} times, not {scale} times")
        if self.y_first and degradation != Bicubic(scale):
            raise ValueError(f"protocol {self.name} measures bicubic only; take protocol A for other degradations")

    def output(self, sr: Tensor) -> Tensor:
        """An output as a file would hold it: clipped, and rounded to 8 bits."""
        return round_to_8bit(require_images(sr, "sr"))

    def score(self, sr: Tensor, target: Tensor, scale: int) -> Scores:
        """PSNR and SSIM of the output `sr` against its `target`, both (N, 3, H, W) in [0, 1]."""
        require_integer("scale", scale, 1)
        how = {"channel": self.channel, "border": scale}
        sr = self.output(sr)
        return Scores(psnr(sr, target, **how), ssim(sr, target, **how))

    def evaluate(
        self, upscale: Callable[[Tensor], Tensor], hr: Tensor, scale: int, *, stored_gray: bool = False
    ) -> Scores:
        """Degrade, upscale, and score in one call.

        Args:
            upscale: maps (N, 3, H, W) to (N, 3, scale*H, scale*W), both in [0, 1]; for a method, `lambda lr:
                method.upscale(lr).image`.
            hr, scale, stored_gray: as in `target`.
        """
        require_function("upscale", upscale)
        target = self.target(hr, scale, stored_gray=stored_gray)
        return self.score(upscale(self.degrade(target, scale)), target, scale)


PROTOCOL_A = Protocol(
    name="A",
    description="LR and SR rounded to 8 bits in RGB; PSNR and SSIM on Y in floating point; border = scale",
    y_first=False,
    lr_rounded=True,
)
PROTOCOL_B = Protocol(
    name="B",
    description="on Y rounded to 8 bits from the start, LR not rounded; gray files keep 0-255; border = scale",
    y_first=True,
    lr_rounded=False,
)
PROTOCOLS = {protocol.name: protocol for protocol in (PROTOCOL_A, PROTOCOL_B)}
