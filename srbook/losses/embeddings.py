"""Images as points of a space in which neighbors look alike: embeddings by networks that were trained elsewhere."""

import math
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from srbook.arguments import require_choice
from srbook.images import require_maps
from srbook.losses.features import alexnet_features, imagenet_normalized, vgg19_features
from srbook.losses.jensen_shannon import Embedding

Encoder = Literal["dinov2", "alexnet", "vgg19"]
DINO, DINO_MODEL, DINO_PATCH = "facebookresearch/dinov2", "dinov2_vits14", 14


def embedding(encoder: Encoder) -> Embedding:
    """A function from images (N, 3, H, W) in [0, 1] to embeddings (N, D), through which gradients flow.

    Args:
        encoder: "dinov2", the class token of its smallest network (Oquab et al. 2023; D = 384), which
            `torch.hub.load("facebookresearch/dinov2", "dinov2_vits14")` brings; or the mean over all positions of
            `alexnet_features` (D = 256) or `vgg19_features` (D = 512).

    Raises:
        ValueError: another encoder.
        FileNotFoundError: its weights are not on this machine and could not be downloaded.
    """
    require_choice("encoder", encoder, Encoder)
    if encoder == "dinov2":
        _dino(torch.device("cpu"))  # complains now
        return _dino_token
    return {"alexnet": _mean_of_alexnet, "vgg19": _mean_of_vgg19}[encoder]


def _mean_of_alexnet(image: Tensor) -> Tensor:
    return alexnet_features(image).mean(dim=(2, 3))


def _mean_of_vgg19(image: Tensor) -> Tensor:
    return vgg19_features(image).mean(dim=(2, 3))


def _dino_token(image: Tensor) -> Tensor:
    """DINOv2 takes sides that are multiples of 14, so the image is enlarged a little."""
    require_maps(image, 3, "image")
    sides = [DINO_PATCH * math.ceil(side / DINO_PATCH) for side in image.shape[-2:]]
    fitting = interpolate(image, size=sides, mode="bicubic", antialias=True)
    return _dino(image.device)(imagenet_normalized(fitting))


@cache
def _dino(device: torch.device) -> nn.Module:
    try:
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):  # its fresh weights are drawn
            model = torch.hub.load(DINO, DINO_MODEL, trust_repo=True, verbose=False)
    except (OSError, RuntimeError) as error:  # torch hub turns a network's error into the latter
        raise FileNotFoundError(
            f"DINOv2 is not on this machine and could not be downloaded ({error}). Where there is a network, "
            f"torch.hub.load({DINO!r}, {DINO_MODEL!r}) puts it into {torch.hub.get_dir()}, which may be copied; or "
            "choose another encoder, such as alexnet"
        ) from error
    return model.requires_grad_(False).eval().to(device)
