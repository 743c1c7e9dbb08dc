"""Distances between images by other things than pixels: gray levels, features, embeddings, and frequencies."""

from srbook.losses.adversarial import adaptive_weight, hinge_loss
from srbook.losses.embeddings import embedding
from srbook.losses.entropy import entropy_matching_loss, soft_histogram
from srbook.losses.features import FeatureExtractor, alexnet_features, feature_distance, vgg16_features, vgg19_features
from srbook.losses.jensen_shannon import jensen_shannon, jensen_shannon_loss
from srbook.losses.wavelet import fourier_loss, haar, wavelet_loss

__all__ = [
    "FeatureExtractor",
    "adaptive_weight",
    "alexnet_features",
    "embedding",
    "entropy_matching_loss",
    "feature_distance",
    "fourier_loss",
    "haar",
    "hinge_loss",
    "jensen_shannon",
    "jensen_shannon_loss",
    "soft_histogram",
    "vgg16_features",
    "vgg19_features",
    "wavelet_loss",
]
