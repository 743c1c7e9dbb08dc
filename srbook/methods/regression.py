"""Regression: one network predicts the high-resolution image at once."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from srbook.methods.base import Method
from srbook.networks import build_network
from srbook.samplers import SampleResult

LOSSES = {"l1": l1_loss, "l2": mse_loss}


class Regression(Method):
    """Minimize the mean distance between f(y) and x; implements :eq:`eq-risk`.

    With "l2" the best possible f is the posterior mean E[x | y], with "l1" the median of each pixel: both average
    over all images that fit y, which is why they look smooth.

    Args:
        scale: magnification.
        network: its kind and arguments, as in `srbook.networks.build_network`.
        loss: "l1" or "l2", the mean over all values.

    Raises:
        ValueError: unknown loss or network.
    """

    kind = "regression"

    def __init__(self, *, scale: int, network: dict[str, Any], loss: str = "l1"):
        super().__init__(scale=scale, network=network, loss=loss)
        if loss not in LOSSES:
            raise ValueError(f"unknown loss {loss!r}; choose from {', '.join(LOSSES)}")
        self.distance = LOSSES[loss]
        self.network = build_network(scale, **network)

    def loss(self, hr: Tensor, lr: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        self.require_pair(hr, lr)
        return {"loss": self.distance(self.network(lr), hr)}

    def upscale(
        self,
        lr: Tensor,
        *,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> SampleResult:
        return self.upscale_directly(self.network, lr, steps)
