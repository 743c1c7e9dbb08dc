"""SRDiff: diffuse the residual of bicubic upscaling, and tell the network features of the small image."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from srbook.degradations import bicubic_upsample
from srbook.methods.base import Stage
from srbook.methods.diffusion import DIFFUSION, Condition, Diffusion, within_sigma
from srbook.networks import RRDBNet, SRDiffUNet
from srbook.objectives import Distance
from srbook.paths import DiscreteVP
from srbook.samplers import Variance
from srbook.schedules import cosine_betas


class SRDiff(Diffusion):
    """Super-resolution by diffusion of the residual (Li et al. 2021).

    The path leads from the image to the bicubic one with noise, on a cosine schedule. An RRDBNet, trained first and
    then frozen, tells the denoiser about the low-resolution image: every third of its blocks is tapped.

    Args:
        schedule: arguments of `srbook.schedules.cosine_betas`.
        encoder: arguments of `srbook.networks.RRDBNet` but the scale.
        network: arguments of `srbook.networks.SRDiffUNet` but the scale and the context.
        sigma: strength of the noise in pixel units; 0.25 makes z_0 twice the residual of images in [-1, 1].
        variance, distance, sampling_steps: as in `DDPM`.
    """

    kind = "srdiff"
    stages = (Stage("encoder", trains=("encoder",), loss="encoder_loss", upscale="encoder"), DIFFUSION)

    def __init__(
        self,
        *,
        scale: int,
        schedule: dict[str, Any],
        encoder: dict[str, Any],
        network: dict[str, Any],
        sigma: float = 0.25,
        variance: Variance = "posterior",
        distance: Distance = "l1",
        sampling_steps: int | None = None,
    ):
        rrdb = RRDBNet(scale, **encoder)
        taps = range(2, len(rrdb.blocks) + 1, 3)
        unet = SRDiffUNet(scale, context=len(taps) * rrdb.head.out_channels, **network)
        path = DiscreteVP(cosine_betas(**schedule), sigma)
        super().__init__(scale, path=path, multiple=unet.multiple, least=unet.least)
        self.encoder, self.taps, self.network = rrdb, taps, unet

    def condition(self, lr: Tensor) -> Condition:
        with torch.no_grad():  # the encoder is frozen
            features = self.encoder.features(lr, self.taps)
        return Condition(bicubic_upsample(lr, self.scale), context=torch.cat(features, dim=1))

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The noise in z_t, from z_t, the zero-based step, and the tapped features."""
        return self.network(self.path.normalized(x_t, condition.anchor), t - 1, condition.context)

    def clean(self, hr: Tensor, condition: Condition) -> Tensor:
        """The truth, brought within one sigma of the anchor, the range that sampling can reach.

        Implements :eq:`eq-srdiff-residual` in pixel units.
        """
        return within_sigma(self.path, hr, condition.anchor)

    def encoder_loss(self, hr: Tensor, lr: Tensor, generator: torch.Generator | None) -> dict[str, Tensor]:
        return {"loss": l1_loss(self.encoder(lr), hr)}
