"""ECDP's ablation: the hybrid and each head alone, with and without the image quality loss.

One training of both heads serves all rows, since the training loss does not know how sampling will blend them. From it
the stage "quality" starts once per blend, with the features of SqueezeNet's first layers in the place of VGG-19's.
LPIPS, which judges the rows, looks through AlexNet.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import srbook
from benchmarks.studies.lab import Figures, Lab, quality
from srbook.backbones import backbone_weights
from srbook.losses.features import IMAGENET_MEAN, IMAGENET_STD
from srbook.methods import ECDP
from srbook.registry import read_preset
from srbook.torchvision_compat import import_torchvision

PRESET = "ecdp-small"
BLENDS = ("eps", "x0", "hybrid")
LAYERS = 5  # a strided convolution, a pooling, and two blocks: 128 maps of 7x7 for patches of 32x32


def run(lab: Lab) -> dict[str, Any]:
    """The rows of the table."""
    training = read_preset(PRESET).training
    torch.manual_seed(0)
    method = srbook.build(PRESET)
    for stage in ("encoder", "diffusion"):
        lab.train(stage, method, training[stage], stage)
    weights = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    rows = [row(lab, variant(weights, blend), blend, "none") for blend in BLENDS]
    for blend in BLENDS:
        tuned = variant(weights, blend)
        tuned.set_feature_extractor(squeezenet_features)
        lab.train(f"quality-{blend}-squeezenet", tuned, training["quality"], "quality")
        rows.append(row(lab, tuned, blend, "squeezenet"))
    return {"preset": PRESET, "sampling": "dopri5, tolerance 1e-3", "rows": rows}


def variant(weights: dict[str, Tensor], blend: str) -> ECDP:
    """The trained method with another blend."""
    method = srbook.build(PRESET, blend=blend)
    method.load_state_dict(weights)
    return method.eval()


def row(lab: Lab, method: ECDP, blend: str, judge: str) -> dict[str, Any]:
    def figures(truth: Tensor, lr: Tensor, seed: int) -> Figures:
        result = method.upscale(lr, generator=torch.Generator().manual_seed(seed))
        return {**quality(result.image, truth), "nfe": result.nfe}

    return {"blend": blend, "quality_loss": judge, **lab.measure(f"{blend}-{judge}", figures)}


def squeezenet_features(image: Tensor) -> Tensor:
    """What the first layers of SqueezeNet 1.1 see: (N, 3, H, W) to (N, 128, about H / 4, about W / 4)."""
    mean, deviation = (image.new_tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return _squeezenet()((image - mean) / deviation)


@cache
def _squeezenet() -> nn.Module:
    import_torchvision()
    from torchvision import models

    layers = models.squeezenet1_1(weights=None).features[:LAYERS]
    weights = backbone_weights("squeezenet1_1")
    layers.load_state_dict({name: weights[f"features.{name}"] for name in layers.state_dict()})
    return layers.requires_grad_(False).eval()
