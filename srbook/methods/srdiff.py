"""SRDiff: diffuse what bicubic upscaling misses, and show the network features of the small image."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from srbook.degradations import bicubic_upsample
from srbook.methods.diffusion import Condition, Diffusion
from srbook.networks import RRDBNet, SRDiffUNet
from srbook.objectives import Distance
from srbook.paths import DiscreteVP
from srbook.samplers import SampleResult, Variance
from srbook.schedules import cosine_betas


class SRDiff(Diffusion):
    """Super-resolution by diffusion of the residual (Li et al. 2021).

    The path leads from the image to the bicubic one with noise, on a cosine schedule. An RRDBNet, trained first and
    then frozen, tells the denoiser about the low-resolution image: every third of its blocks is tapped.

    Args:
        scale: magnification.
        steps: T of the cosine schedule.
        encoder: arguments of `srbook.networks.RRDBNet` but the scale.
        network: arguments of `srbook.networks.SRDiffUNet` but the scale and the features.
        sigma: scale of the noise in pixel units; 0.25 makes z_0 twice the residual of images in [-1, 1].
        variance: fresh noise of a sampling step, see `srbook.samplers.ancestral`.
        distance: of the training loss.
        sampling_steps: steps of `upscale`; None takes all.

    Raises:
        ValueError: an argument is out of range.
    """

    kind = "srdiff"
    stages = ("encoder", "diffusion")

    def __init__(
        self,
        *,
        scale: int,
        steps: int = 100,
        encoder: dict[str, Any],
        network: dict[str, Any],
        sigma: float = 0.25,
        variance: Variance = "posterior",
        distance: Distance = "l1",
        sampling_steps: int | None = None,
    ):
        rrdb = RRDBNet(scale, **encoder)
        taps = range(2, len(rrdb.blocks) + 1, 3)
        unet = SRDiffUNet(scale, features=len(taps) * rrdb.head.out_channels, **network)
        super().__init__(
            path=DiscreteVP(cosine_betas(steps), sigma),
            multiple=unet.multiple,
            sampling_steps=sampling_steps,
            variance=variance,
            distance=distance,
            scale=scale,
            steps=steps,
            encoder=encoder,
            network=network,
            sigma=sigma,
        )
        self.encoder, self.taps, self.network = rrdb, taps, unet

    def trained_in(self, stage: str) -> Sequence[nn.Module]:
        return [self.encoder] if stage == "encoder" else [self.network]

    def condition(self, lr: Tensor) -> Condition:
        with torch.no_grad():  # the encoder is frozen
            features = self.encoder.features(lr, self.taps)
        return Condition(bicubic_upsample(lr, self.scale), context=torch.cat(features, dim=1))

    def predict(self, z: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """The noise in z_t, from z_t, the zero-based step, and the tapped features."""
        return self.network(z, t - 1, context)

    def clean(self, hr: Tensor, anchor: Tensor) -> Tensor:
        """The truth, brought within one scale of the anchor, which is as far as sampling can go.

        Implements :eq:`eq-srdiff-residual` in pixel units.
        """
        return anchor + (hr - anchor).clamp(-self.path.scale, self.path.scale)

    def loss(self, hr: Tensor, lr: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        if self.stage == "encoder":
            self.require_pair(hr, lr)
            return {"loss": l1_loss(self.encoder(lr), hr)}
        return super().loss(hr, lr, generator)

    def upscale(
        self,
        lr: Tensor,
        *,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> SampleResult:
        if self.stage == "encoder":
            return self.upscale_directly(self.encoder, lr, steps)
        return super().upscale(lr, steps=steps, generator=generator, progress=progress)
