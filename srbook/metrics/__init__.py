"""How good an upscaled image is: PSNR, SSIM, LPIPS, the protocols of the tables, and the power spectrum."""

from srbook.metrics.fidelity import psnr, ssim
from srbook.metrics.perceptual import lpips
from srbook.metrics.protocol import PROTOCOL_A, PROTOCOL_B, PROTOCOLS, Protocol, Scores
from srbook.metrics.spectrum import radial_spectrum

__all__ = [
    "PROTOCOLS",
    "PROTOCOL_A",
    "PROTOCOL_B",
    "Protocol",
    "Scores",
    "lpips",
    "psnr",
    "radial_spectrum",
    "ssim",
]
