"""How high-resolution images become low-resolution ones."""

from srbook.degradations.consistency import consistent, fixed_and_free
from srbook.degradations.residual import ResidualMoments, residual_deviation
from srbook.degradations.resize import (
    bicubic_downsample,
    bicubic_upsample,
    crop_to_multiple,
    cubic_kernel,
    imresize,
    resize_weights,
)

__all__ = [
    "ResidualMoments",
    "bicubic_downsample",
    "bicubic_upsample",
    "consistent",
    "crop_to_multiple",
    "cubic_kernel",
    "fixed_and_free",
    "imresize",
    "residual_deviation",
    "resize_weights",
]
