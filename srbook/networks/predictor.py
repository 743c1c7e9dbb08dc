"""The small residual predictor: bicubic plus the output of three convolutions."""

from torch import Tensor, nn

from srbook.arguments import require_counts, require_lists_of_counts
from srbook.degradations import bicubic_upsample
from srbook.images import require_maps


class ResidualPredictor(nn.Module):
    """Bicubic upscaling plus a learned residual, computed at low resolution; :eq:`eq-predictor`.

    Three 3x3 convolutions, with `widths` channels after the first two, end in 3 s^2 channels, which a pixel shuffle
    turns into the high-resolution residual (Shi et al., 2016). At the default widths and x4 this is ResDiff's
    predictor, with 34,128 parameters, except that the bicubic image is MATLAB's (a = -0.5) where the released program
    takes torch's (a = -0.75).
    """

    def __init__(self, scale: int, widths: tuple[int, ...] = (64, 32)):
        super().__init__()
        require_counts(scale=scale)
        require_lists_of_counts(widths=widths)
        self.scale = scale
        layers: list[nn.Module] = []
        channels = 3
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        self.body = nn.Sequential(*layers, nn.Conv2d(channels, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def residual(self, lr: Tensor) -> Tensor:
        """The residual that is added to the bicubic image: (N, 3, H, W) to (N, 3, sH, sW)."""
        return self.body(require_maps(lr, 3, "lr"))

    def forward(self, lr: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, 3, sH, sW), not clipped."""
        return bicubic_upsample(lr, self.scale) + self.residual(lr)
