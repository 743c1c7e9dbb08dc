"""SR3: diffuse the image itself, with the bicubic one beside it."""

from typing import Any, Literal

import torch
from torch import Tensor

from srbook.degradations import bicubic_upsample
from srbook.images import clip
from srbook.methods.base import Stage
from srbook.methods.diffusion import Condition, Diffusion
from srbook.networks import UNet
from srbook.objectives import Distance, Spacing, draw_between_steps
from srbook.paths import DiscreteVP
from srbook.samplers import Variance
from srbook.schedules import linear_betas

Anchor = Literal["gray", "bicubic"]
Clock = Literal["signal", "step"]


class SR3(Diffusion):
    """Super-resolution by repeated refinement (Saharia et al. 2021), as the community's program has it.

    The path leads from the image to mid-gray noise. The network sees the bicubic image beside the noisy one, is told
    the signal sqrt(abar_t), and predicts the noise. Its loss implements :eq:`eq-sr3-loss`.

    Args:
        schedule: arguments of `srbook.schedules.linear_betas`.
        network: arguments of `srbook.networks.UNet` but its channels of input and output.
        clock: "signal" tells the network sqrt(abar), and trains between the steps too (SR3); "step" tells it the
            zero-based step, as the same program's DDPM and ESRDF do.
        uniform_in: what is uniform within a step when times are drawn, see `draw_between_steps`: "signal" in
            the program, "power" in the paper.
        variance: fresh noise of a sampling step: "posterior" in the program, "forward" in the paper.
        anchor: "gray" is SR3. "bicubic" diffuses the residual instead, with everything else equal: the comparison of
            the chapter on residuals.
        sigma: strength of the noise in pixel units; 0.5 makes z_t the image in [-1, 1].
        distance: of the training loss.
        sampling_steps: steps of `upscale`; None takes all.
    """

    kind = "sr3"
    stages = (Stage("main", trains=("network",), loss="denoising_loss", upscale="sample_image", samples=True),)

    def __init__(
        self,
        *,
        scale: int,
        schedule: dict[str, Any],
        network: dict[str, Any],
        clock: Clock = "signal",
        uniform_in: Spacing = "signal",
        variance: Variance = "posterior",
        anchor: Anchor = "gray",
        sigma: float = 0.5,
        distance: Distance = "l1",
        sampling_steps: int | None = None,
    ):
        unet = UNet(inputs=6, outputs=3, **network)
        super().__init__(scale, path=DiscreteVP(linear_betas(**schedule), sigma), multiple=unet.multiple)
        self.network = unet

    def condition(self, lr: Tensor) -> Condition:
        upscaled = clip(bicubic_upsample(lr, self.scale))
        anchor = upscaled if self.anchor == "bicubic" else torch.full_like(upscaled, 0.5)
        return Condition(anchor, context=2 * upscaled - 1)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The noise in z_t, from the bicubic image and z_t side by side, and the signal or the step."""
        z = self.path.normalized(x_t, condition.anchor)
        clock = self.path.signal(t) if self.clock == "signal" else t - 1
        return self.network(torch.cat([condition.context, z], dim=1), clock)

    def draw_times(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        if self.clock == "step":
            return super().draw_times(count, generator, device)
        return draw_between_steps(self.path, count, uniform_in=self.uniform_in, generator=generator, device=device)
