"""A distance of images in the eyes of a network. Any function of images serves; VGG-19 is ECDP's choice."""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from srbook.backbones import backbone_weights
from srbook.losses.features import IMAGENET_MEAN, IMAGENET_STD, FeatureExtractor
from srbook.torchvision_compat import import_torchvision

VGG19_CONV5_4 = 34  # position among VGG-19's layers; the ReLU after it is left out


def feature_distance(sr: Tensor, hr: Tensor, extract: FeatureExtractor) -> Tensor:
    """Mean magnitude of the difference of features: the distance in ECDP's image quality loss (Yuan and Yuan 2024).

    Args:
        sr: (N, 3, H, W), judged; gradients flow to it.
        hr: the truth, shaped like `sr`; no gradients flow to it.
        extract: from images to features of any shape, for example `vgg19_features`.

    Returns:
        Shape (), float32 or wider.

    Raises:
        ValueError: the shapes differ.
    """
    if sr.shape != hr.shape:
        raise ValueError(f"the two images must have the same shape, got {tuple(sr.shape)} and {tuple(hr.shape)}")
    with torch.no_grad():
        expected = extract(hr)
    dtype = torch.promote_types(expected.dtype, torch.float32)
    return l1_loss(extract(sr).to(dtype), expected.to(dtype))


def vgg19_features(image: Tensor) -> Tensor:
    """What VGG-19's convolution conv5_4 sees in images, before its ReLU: ESRGAN's and ECDP's features.

    Its 16 convolutions were trained to name the objects in ImageNet's photographs. `srbook.backbones` says where their
    weights come from. They are read at the first call, kept, and frozen; gradients flow to the image.

    Args:
        image: (N, 3, H, W), sides of at least 16, nominally in [0, 1]; what lies outside is not clipped.

    Returns:
        (N, 512, H // 16, W // 16).

    Raises:
        ValueError: an image that is too small, or damaged weights.
        FileNotFoundError: the weights are not there and cannot be downloaded.
        ImportError: torchvision is missing.
    """
    if min(image.shape[-2:]) < 16:
        raise ValueError(f"VGG-19 halves an image four times, so it needs 16x16 pixels, got {tuple(image.shape)}")
    mean, deviation = (image.new_tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return _vgg19(image.device)((image - mean) / deviation)


@cache
def _vgg19(device: torch.device) -> nn.Module:
    import_torchvision()
    from torchvision import models

    with torch.inference_mode(False):  # a cached module must also serve later calls that want gradients
        weights = backbone_weights("vgg19")
        with torch.device("meta"):  # built empty: no random numbers are drawn
            layers = models.vgg19(weights=None).features[: VGG19_CONV5_4 + 1]
        layers.load_state_dict({name: weights[f"features.{name}"] for name in layers.state_dict()}, assign=True)
        return layers.requires_grad_(False).eval().to(device)
