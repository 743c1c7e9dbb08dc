"""How high-resolution images become low-resolution ones."""

from srbook.degradations.base import Degradation
from srbook.degradations.bicubic import Bicubic, Noisy
from srbook.degradations.consistency import consistent, fixed_and_free
from srbook.degradations.residual import ResidualMoments, residual_deviation
from srbook.degradations.resize import (
    bicubic_downsample,
    bicubic_upsample,
    cubic_kernel,
    imresize,
    resize_weights,
)
from srbook.degradations.table import DEGRADATIONS, build_degradation
from srbook.images import crop_to_multiple

__all__ = [
    "DEGRADATIONS",
    "Bicubic",
    "Degradation",
    "Noisy",
    "ResidualMoments",
    "bicubic_downsample",
    "bicubic_upsample",
    "build_degradation",
    "consistent",
    "crop_to_multiple",
    "cubic_kernel",
    "fixed_and_free",
    "imresize",
    "residual_deviation",
    "resize_weights",
]
