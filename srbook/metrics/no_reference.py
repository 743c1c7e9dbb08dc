"""CLIPIQA and MUSIQ, networks that judge an image without its truth, through the package pyiqa.

pyiqa is for non-commercial use (PolyForm Noncommercial) and brings some sixty packages, so it is an extra of its own:
`pip install "srbook[iqa]"`. It downloads the weights of a metric when that is first used. Values depend on its version
and on the precision: the published tables of SinSR and HF-Diff were computed in float16.
"""

from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from srbook.images import require_images
from srbook.parts import require


def clipiqa(image: Tensor) -> Tensor:
    """How much more CLIP finds in each image of a "good photo" than of a "bad photo" (Wang, Chan, and Loy 2023).

    Args:
        image: (N, 3, H, W) in [0, 1].

    Returns:
        (N,) float32 in [0, 1]; higher is better.

    Raises:
        ModuleNotFoundError: pyiqa is not installed.
        FileNotFoundError: the weights are not on this machine and could not be downloaded.
    """
    return _judged(image, "clipiqa")


def musiq(image: Tensor) -> Tensor:
    """The mean opinion that a transformer expects of each image (Ke et al. 2021), trained on KonIQ-10k.

    Args and errors as in `clipiqa`; (N,) float32 from about 0 to 100, higher is better.
    """
    return _judged(image, "musiq")


@torch.no_grad()
def _judged(image: Tensor, metric: Literal["clipiqa", "musiq"]) -> Tensor:
    model = _model(metric, require_images(image).device)
    with torch.autocast(image.device.type, enabled=False):
        return torch.cat([model(each).reshape(1) for each in image.float().split(1)])  # sizes matter to MUSIQ


@cache
def _model(metric: str, device: torch.device) -> nn.Module:
    pyiqa = require("pyiqa")
    try:
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):  # its fresh weights are drawn
            return pyiqa.create_metric(metric, device=device)
    except OSError as error:  # of the network, too
        raise FileNotFoundError(
            f"pyiqa could not get the weights of {metric} ({error}). Run this once where there is a network, and copy "
            "what it puts into torch hub's cache"
        ) from error
