"""Distances between the features that a network makes of images (Johnson, Alahi, and Fei-Fei 2016)."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, l1_loss, mse_loss, relu

from srbook.arguments import require_choice, require_function
from srbook.backbones import backbone_weights
from srbook.images import require_floats, require_maps, require_same_shape
from srbook.numbers import at_least_single
from srbook.objectives import Distance
from srbook.torchvision_compat import import_torchvision

FeatureExtractor = Callable[[Tensor], Tensor]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
VGG19_CONV5_4 = 34  # position among VGG-19's layers; the ReLU after it is left out
ALEXNET_RELU5 = 11


def feature_distance(sr: Tensor, hr: Tensor, extract: FeatureExtractor, distance: Distance = "l1") -> Tensor:
    """Mean difference of features: magnitudes in ECDP's image quality loss (Yuan and Yuan 2024), squares in ESRDF's.

    With magnitudes it implements :eq:`eq-quality-loss`. The result is float32 or wider.

    Args:
        sr: (N, 3, H, W), judged; gradients flow to it. It may lie a little outside [0, 1].
        hr: the truth, shaped like `sr`; no gradients flow to it.
        extract: any function from images to features of any shape, for example `vgg19_features`.
        distance: "l1" or "l2".

    Raises:
        ValueError: the images, or their features, differ in shape.
    """
    require_same_shape(sr, hr, ("sr", "hr"))
    require_function("extract", extract)
    require_choice("distance", distance, Distance)
    with torch.no_grad():
        wanted = require_floats(extract(hr), "what extract gives")
    found = extract(sr)
    if found.shape != wanted.shape:
        raise ValueError(
            f"extract gave features of different shapes for images of one shape: {tuple(found.shape)} and "
            f"{tuple(wanted.shape)}"
        )
    return {"l1": l1_loss, "l2": mse_loss}[distance](at_least_single(found), at_least_single(wanted))


def vgg16_features(image: Tensor, *, normalize: bool = True) -> Tensor:
    """The 64 maps after the second convolution of VGG-16, its relu1_2 (Simonyan and Zisserman 2015), not negative.

    `srbook.backbones` says where the weights come from, and raises if they are missing; they are kept for later calls.

    Args:
        image: (N, 3, H, W) in [0, 1].
        normalize: bring the image to the mean and spread that the network was trained with. Without it the image is
            taken as it is: ESRDF's program gives 2 image - 1.
    """
    require_maps(image, 3, "image")
    first, first_bias, second, second_bias = (weight.to(image) for weight in _vgg_layers(image.device))
    if normalize:
        image = imagenet_normalized(image)
    return relu(conv2d(relu(conv2d(image, first, first_bias, padding=1)), second, second_bias, padding=1))


@cache
def _vgg_layers(device: torch.device) -> list[Tensor]:
    weights = backbone_weights("vgg16")
    names = [f"features.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")]
    with torch.inference_mode(False):  # kept for later calls, which may want gradients
        return [weights[name].clone().to(device) for name in names]


def vgg19_features(image: Tensor) -> Tensor:
    """The features (N, 512, H // 16, W // 16) of VGG-19's conv5_4, before its ReLU: ESRGAN's and ECDP's.

    The network was trained to name the objects in ImageNet's photographs. `srbook.backbones` says where its weights
    come from, and raises if they are missing. They are read at the first call, kept, and frozen; gradients flow to the
    image.

    Args:
        image: (N, 3, H, W), sides of at least 16, or a ValueError; nominally in [0, 1], and not clipped.
    """
    require_maps(image, 3, "image")
    if min(image.shape[-2:]) < 16:
        raise ValueError(f"VGG-19 halves an image four times, so it needs 16x16 pixels, got {tuple(image.shape)}")
    return _layers("vgg19", VGG19_CONV5_4, image.device)(imagenet_normalized(image))


def alexnet_features(image: Tensor) -> Tensor:
    """The features (N, 256, h, w) of AlexNet's last convolution, after its ReLU (Krizhevsky 2014); h is about H / 16.

    As `vgg19_features`, with images of at least 31x31 pixels.
    """
    require_maps(image, 3, "image")
    if min(image.shape[-2:]) < 31:
        raise ValueError(f"AlexNet needs 31x31 pixels, got {tuple(image.shape)}")
    return _layers("alexnet", ALEXNET_RELU5, image.device)(imagenet_normalized(image))


def imagenet_normalized(image: Tensor) -> Tensor:
    """An image in [0, 1] with the mean and spread that networks trained on ImageNet expect."""
    mean, deviation = (image.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (image - mean) / deviation


@cache
def _layers(backbone: str, last: int, device: torch.device) -> nn.Module:
    """The first layers of a backbone, `last` included, frozen."""
    import_torchvision()
    from torchvision import models

    with torch.inference_mode(False):  # a cached module must also serve later calls that want gradients
        weights = backbone_weights(backbone)
        with torch.device("meta"):  # built empty: no random numbers are drawn
            layers = models.get_model(backbone, weights=None).features[: last + 1]
        layers.load_state_dict({name: weights[f"features.{name}"] for name in layers.state_dict()}, assign=True)
        for layer in layers:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False
        return layers.requires_grad_(False).eval().to(device)
