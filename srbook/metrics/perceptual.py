"""LPIPS: a distance between the features that a classification network sees."""

import warnings
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from srbook.arguments import require_choice
from srbook.backbones import backbone_weights
from srbook.images import require_images, require_same_shape
from srbook.parts import require
from srbook.torchvision_compat import import_torchvision

PerceptualNet = Literal["alex", "vgg", "squeeze"]

_BACKBONE = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}
_SMALLEST = {"alex": 31, "vgg": 16, "squeeze": 17}  # below this a pooling layer has nothing left to pool


def lpips(sr: Tensor, hr: Tensor, *, net: PerceptualNet = "alex") -> Tensor:
    """Learned perceptual image patch similarity, version 0.1, (N,) float32; 0 for identical images, lower is nearer.

    Implements :eq:`eq-lpips`. Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual
    Metric", CVPR 2018, through the authors' package `lpips`. Papers of the field quote `net="alex"` unless they say
    otherwise; values of different networks do not compare. Gradients flow to the images that ask for them. The network
    is kept for later calls. Its heads come with the package `lpips`; `srbook.backbones` says where the backbone's
    weights come from.

    Args:
        sr, hr: (N, 3, H, W) in [0, 1].
        net: the backbone: "alex" (AlexNet), "vgg" (VGG-16), or "squeeze" (SqueezeNet 1.1).

    Raises:
        ValueError: another `net`, shapes that differ, images too small for the network, or damaged weights.
        FileNotFoundError: the backbone's weights are not there and cannot be downloaded.
        ImportError: `lpips` or torchvision is not installed; names the extra that brings it.
    """
    require_choice("net", net, PerceptualNet)
    require_images(sr, "sr")
    require_images(hr, "hr")
    require_same_shape(sr, hr, ("sr", "hr"))
    if min(sr.shape[2:]) < _SMALLEST[net]:
        least = _SMALLEST[net]
        raise ValueError(f"lpips with net={net!r} needs at least {least}x{least} pixels, got {tuple(sr.shape)}")
    module = _lpips_module(net, sr.device)
    with torch.autocast(sr.device.type, enabled=False):
        return module(sr.float(), hr.float(), normalize=True).flatten()  # normalize: [0, 1] to [-1, 1]


@cache
def _lpips_module(net: PerceptualNet, device: torch.device) -> nn.Module:
    import_torchvision()
    package = require("lpips")
    features = backbone_weights(_BACKBONE[net])
    heads_file = Path(package.__file__).parent / "weights" / "v0.1" / f"{net}.pth"
    with torch.inference_mode(False):  # a cached module must also serve later calls that want gradients
        with warnings.catch_warnings(), torch.device("meta"):  # built empty: no random numbers are drawn
            warnings.simplefilter("ignore")  # the package calls torchvision by an old keyword
            module = package.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
        weights = torch.load(heads_file, map_location="cpu", weights_only=True)
        for key in module.net.state_dict():  # "slice2.3.weight" is torchvision's "features.3.weight"
            weights[f"net.{key}"] = features["features." + key.split(".", 1)[1]].clone()
        module.load_state_dict(weights, strict=False, assign=True)
        return module.requires_grad_(False).eval().to(device)
