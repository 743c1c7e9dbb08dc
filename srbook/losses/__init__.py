"""Distances between images that are more than a difference of pixels."""

from srbook.losses.wavelet import fourier_loss, haar, wavelet_loss

__all__ = ["fourier_loss", "haar", "wavelet_loss"]
