"""Distances between the features that a network sees in two images (Johnson, Alahi, and Fei-Fei 2016)."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import conv2d, mse_loss, relu

from srbook.backbones import backbone_weights

FeatureExtractor = Callable[[Tensor], Tensor]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def feature_loss(extract: FeatureExtractor, a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of features.

    Args:
        extract: images (N, 3, H, W) in [0, 1] to features of any shape, with gradients to the images.
        a: (N, 3, H, W), may lie a little outside [0, 1].
        b: same shape, the target; no gradient goes through its features.

    Returns:
        Shape (), in squared units of the features.

    Raises:
        ValueError: the images, or their features, differ in shape.
    """
    if a.shape != b.shape:
        raise ValueError(f"the two images must have the same shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    found = extract(a)
    with torch.no_grad():
        wanted = extract(b)
    if found.shape != wanted.shape:
        raise ValueError(
            f"extract gave features of different shapes for images of one shape: {tuple(found.shape)} and "
            f"{tuple(wanted.shape)}"
        )
    return mse_loss(found, wanted)


def vgg_features(image: Tensor, *, normalize: bool = True) -> Tensor:
    """The 64 maps after the second convolution of VGG-16, its relu1_2 (Simonyan and Zisserman 2015).

    `srbook.backbones` says where the weights come from; they are kept for later calls.

    Args:
        image: (N, 3, H, W) in [0, 1].
        normalize: bring the image to the mean and spread that the network was trained with. Without it the image is
            taken as it is: ESRDF's program gives 2 image - 1.

    Returns:
        (N, 64, H, W), not negative.

    Raises:
        FileNotFoundError: the weights are not there and cannot be downloaded.
        ImportError: torchvision is missing.
    """
    first, first_bias, second, second_bias = (weight.to(image) for weight in _vgg_layers(image.device))
    if normalize:
        mean, std = (image.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        image = (image - mean) / std
    return relu(conv2d(relu(conv2d(image, first, first_bias, padding=1)), second, second_bias, padding=1))


@cache
def _vgg_layers(device: torch.device) -> list[Tensor]:
    weights = backbone_weights("vgg16")
    names = [f"features.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")]
    with torch.inference_mode(False):  # kept for later calls, which may want gradients
        return [weights[name].clone().to(device) for name in names]
