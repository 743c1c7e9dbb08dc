"""How good an upscaled image is, and how much information images and residuals hold.

PSNR, SSIM, LPIPS, NIQE, CLIPIQA, MUSIQ, the protocols of the tables, and the table of metrics; the power spectrum;
entropies of images and residuals, and distances between distributions.
"""

from srbook.metrics.entropy import image_entropy, residual_entropy, shannon_entropy
from srbook.metrics.fidelity import psnr, ssim
from srbook.metrics.frechet import FeatureStatistics, feature_statistics, frechet_distance
from srbook.metrics.niqe import PristineModel, fit_pristine, niqe
from srbook.metrics.no_reference import clipiqa, musiq
from srbook.metrics.perceptual import lpips
from srbook.metrics.protocol import PROTOCOL_A, PROTOCOL_B, PROTOCOLS, Protocol, Scores
from srbook.metrics.spectrum import radial_spectrum
from srbook.metrics.table import METRICS, Metric, chosen_metrics
from srbook.metrics.wasserstein import sliced_wasserstein_to_gaussian, wasserstein_to_gaussian

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "PROTOCOL_A",
    "PROTOCOL_B",
    "FeatureStatistics",
    "Metric",
    "PristineModel",
    "Protocol",
    "Scores",
    "chosen_metrics",
    "clipiqa",
    "feature_statistics",
    "fit_pristine",
    "frechet_distance",
    "image_entropy",
    "lpips",
    "musiq",
    "niqe",
    "psnr",
    "radial_spectrum",
    "residual_entropy",
    "shannon_entropy",
    "sliced_wasserstein_to_gaussian",
    "ssim",
    "wasserstein_to_gaussian",
]
