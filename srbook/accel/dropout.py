"""Dropout that draws 16 bits per value, on CPUs."""

import torch
from torch import Tensor, nn


class FastDropout(nn.Dropout):
    """`nn.Dropout`, where 16 random bits per value decide: its probability is rounded to a multiple of 2^-16.

    Measured on an AMD EPYC (AVX-512, one core): without it a training step of sr3-16-128 takes 1.05 times as long in
    float32 and 1.03 times in bfloat16. On an Intel Xeon torch's drawing took a tenth of such a step.
    """

    @staticmethod
    def replaces(layer: nn.Module) -> bool:
        """Whether the layer is a plain dropout that leaves its input alone."""
        return type(layer) is nn.Dropout and not layer.inplace

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same one."""
        dropped = round(self.p * 2**16)
        if not self.training or not 0 < dropped < 2**16 or x.device.type != "cpu":
            return super().forward(x)
        bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = (bits[: x.numel()] >= dropped - 2**15).to(x.dtype).mul_(2**16 / (2**16 - dropped))
        return x * kept.as_strided(x.shape, torch.empty_like(x).stride())  # in the order in which x lies in memory
