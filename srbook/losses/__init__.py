"""Distances between images that are more than a difference of pixels."""

from srbook.losses.entropy import entropy_matching_loss, soft_histogram
from srbook.losses.features import FeatureExtractor, feature_loss, vgg_features
from srbook.losses.perceptual import feature_distance, vgg19_features
from srbook.losses.wavelet import fourier_loss, haar, wavelet_loss

__all__ = [
    "FeatureExtractor",
    "entropy_matching_loss",
    "feature_distance",
    "feature_loss",
    "fourier_loss",
    "haar",
    "soft_histogram",
    "vgg19_features",
    "vgg_features",
    "wavelet_loss",
]
