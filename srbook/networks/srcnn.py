"""SRCNN: three convolutions on the bicubic image (Dong et al., 2014)."""

from torch import Tensor, nn

from srbook.arguments import require_counts, require_lists_of_counts
from srbook.degradations import bicubic_upsample
from srbook.images import require_maps


class SRCNN(nn.Module):
    """The first convolutional super-resolution network; implements :eq:`eq-srcnn`.

    Patch extraction, non-linear mapping, and reconstruction, with a ReLU between them. The paper works on luminance and
    trains without padding; this one takes RGB and pads with zeros, so that sizes are kept.

    Args:
        widths: channels after the first and the second convolution.
        kernels: side lengths of the three convolutions, all odd; an even one is a ValueError.
    """

    def __init__(self, scale: int, widths: tuple[int, int] = (64, 32), kernels: tuple[int, int, int] = (9, 1, 5)):
        super().__init__()
        require_counts(scale=scale)
        require_lists_of_counts(widths=widths, kernels=kernels)
        if len(widths) != 2 or len(kernels) != 3:
            raise ValueError(f"SRCNN has two widths and three kernels, got {tuple(widths)} and {tuple(kernels)}")
        if any(kernel % 2 == 0 for kernel in kernels):
            raise ValueError(f"kernels must be odd and positive, so that sizes are kept, got {tuple(kernels)}")
        self.scale = scale
        first, second = widths
        self.extract = nn.Conv2d(3, first, kernels[0], padding=kernels[0] // 2)
        self.map = nn.Conv2d(first, second, kernels[1], padding=kernels[1] // 2)
        self.reconstruct = nn.Conv2d(second, 3, kernels[2], padding=kernels[2] // 2)

    def forward(self, lr: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, 3, sH, sW), not clipped."""
        upscaled = bicubic_upsample(require_maps(lr, 3, "lr"), self.scale)
        patches = self.extract(upscaled).relu()
        return self.reconstruct(self.map(patches).relu())
