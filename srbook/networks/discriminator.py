"""A discriminator that judges patches: of an image it gives a map of scores."""

from itertools import pairwise

from torch import Tensor, nn

from srbook.arguments import require_counts
from srbook.images import require_maps


class PatchDiscriminator(nn.Module):
    """The PatchGAN of pix2pix (Isola et al., 2017), as VQ-GAN and latent diffusion use it.

    Strided 4x4 convolutions, each but the first with batch normalization. With the defaults each score sees 70x70
    pixels, and there are 2,765,633 parameters. Weights start normal with deviation 0.02, around 1 in the
    normalizations.

    Args:
        width: channels after the first convolution; they double with each further one, up to eight times as many.
        layers: convolutions that halve the size; two more keep it.
    """

    def __init__(self, width: int = 64, layers: int = 3):
        super().__init__()
        require_counts(width=width, layers=layers)
        self.least = 3 * 2**layers
        widths = [width * min(2**layer, 8) for layer in range(layers + 1)]
        parts: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for layer, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            stride = 2 if layer < layers else 1
            parts += [
                nn.Conv2d(inputs, outputs, 4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.LeakyReLU(0.2),
            ]
        self.body = nn.Sequential(*parts, nn.Conv2d(widths[-1], 1, 4, padding=1))
        for part in self.body:
            if isinstance(part, nn.Conv2d | nn.BatchNorm2d):
                mean = 1.0 if isinstance(part, nn.BatchNorm2d) else 0.0
                nn.init.trunc_normal_(part.weight, mean, 0.02)  # cut off at 50 deviations and more

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] to scores (N, 1, h, w), high where the image looks real.

        Sides below 3 times 2^layers, kept in `least`, have no score, and are a ValueError.
        """
        if min(require_maps(image, 3, "image").shape[-2:]) < self.least:
            raise ValueError(f"height and width must be at least {self.least}, got {tuple(image.shape[-2:])}")
        return self.body(image)
