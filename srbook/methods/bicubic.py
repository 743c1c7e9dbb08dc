"""Bicubic interpolation as a method: the baseline of every table, and the anchor of most paths."""

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from srbook.degradations import bicubic_upsample
from srbook.images import require_images
from srbook.methods.base import Method
from srbook.samplers import SampleResult


class Bicubic(Method):
    """MATLAB's bicubic upscaling, clipped to [0, 1]. It has nothing to train.

    Args:
        scale: magnification.
    """

    kind = "bicubic"

    def __init__(self, *, scale: int = 4):
        super().__init__(scale=scale)

    def loss(self, hr: Tensor, lr: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        self.require_pair(hr, lr)
        return {"loss": mse_loss(bicubic_upsample(lr, self.scale), hr)}

    def upscale(
        self,
        lr: Tensor,
        *,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> SampleResult:
        require_images(lr, "lr")
        self.require_single_step(steps)
        return SampleResult(image=bicubic_upsample(lr, self.scale).clamp(0, 1), nfe=0)
