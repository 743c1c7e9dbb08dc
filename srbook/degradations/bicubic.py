"""The degradation of the standard test sets, alone and with noise."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from srbook.arguments import require_numbers
from srbook.degradations.base import Degradation
from srbook.degradations.resize import bicubic_downsample, shrink
from srbook.images import round_to_8bit
from srbook.random import normal


@dataclass(frozen=True)
class Bicubic(Degradation):
    """MATLAB's antialiased bicubic, rounded to 8 bits as the test sets are made: `bicubic_downsample`."""

    kind = "bicubic"
    deterministic = True
    reach = 2  # the stretched kernel ends two low-resolution pixels from its center

    @property
    def description(self) -> str:
        return "MATLAB's bicubic, rounded to 8 bits"

    def __call__(self, hr: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return bicubic_downsample(hr, self.scale)


@dataclass(frozen=True)
class Noisy(Degradation):
    """Bicubic, white Gaussian noise on each value, then rounding to 8 bits, as of a sensor in poor light.

    `std` is the standard deviation of the noise for images in [0, 1], such as 15 / 255; out of range, it is a
    ValueError.
    """

    kind = "noisy"
    deterministic = False
    reach = Bicubic.reach

    std: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require_numbers(std=self.std)
        if not 0 <= self.std < math.inf:
            raise ValueError(f"std must be a number of at least 0, got {self.std!r}")

    @property
    def description(self) -> str:
        return f"MATLAB's bicubic and Gaussian noise of deviation {self.std:g}, rounded to 8 bits"

    def __call__(self, hr: Tensor, generator: torch.Generator | None = None) -> Tensor:
        clean = shrink(hr, self.scale)
        return round_to_8bit(clean + self.std * normal(clean.shape, clean, generator))
