"""Regression: one network predicts the high-resolution image at once."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from srbook.methods.base import Method, Stage
from srbook.networks import build_network
from srbook.objectives import Distance


class Regression(Method):
    """Minimize the mean distance between f(y) and x; implements :eq:`eq-risk`.

    With "l2" the best possible f is the posterior mean E[x | y], with "l1" the median of each pixel. Both average over
    all images that fit y, which is why they look smooth.

    Args:
        network: its kind and arguments, as in `srbook.networks.build_network`.
        distance: "l1" or "l2", the mean over all values.
    """

    kind = "regression"
    stages = (Stage("main", trains=("network",), loss="regression_loss", upscale="network"),)

    def __init__(self, *, scale: int, network: dict[str, Any], distance: Distance = "l1"):
        super().__init__(scale)
        self.network = build_network(scale, **network)

    def regression_loss(self, hr: Tensor, lr: Tensor, generator: torch.Generator | None) -> dict[str, Tensor]:
        distance = {"l1": l1_loss, "l2": mse_loss}[self.distance]
        return {"loss": distance(self.network(lr), hr)}
