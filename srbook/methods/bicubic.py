"""Bicubic interpolation as a method: the baseline of every table, and the anchor of most paths."""

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from srbook.degradations import bicubic_upsample
from srbook.methods.base import Method, Stage


class Bicubic(Method):
    """MATLAB's bicubic upscaling, clipped to [0, 1]. It has nothing to train."""

    kind = "bicubic"
    stages = (Stage("main", trains=(), loss="interpolation_loss", upscale="interpolate"),)

    def __init__(self, *, scale: int = 4):
        super().__init__(scale)

    def interpolation_loss(self, hr: Tensor, lr: Tensor, generator: torch.Generator | None) -> dict[str, Tensor]:
        return {"loss": mse_loss(self.interpolate(lr), hr)}

    def interpolate(self, lr: Tensor) -> Tensor:
        return bicubic_upsample(lr, self.scale)
