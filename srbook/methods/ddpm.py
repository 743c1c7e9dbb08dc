"""DDPM: a prior for images, without a condition."""

from typing import Any

import torch
from torch import Tensor

from srbook.degradations import consistent
from srbook.methods.diffusion import Condition, Diffusion
from srbook.networks import UNet
from srbook.objectives import Distance
from srbook.paths import DiscreteVP
from srbook.samplers import Denoiser, SampleResult, Variance
from srbook.schedules import linear_betas


class DDPM(Diffusion):
    """Denoising diffusion (Ho, Jain, and Abbeel 2020): it learns p(x), and draws from it with `sample`.

    It has not learned from low-resolution images, but `upscale` can still take one into account: the part of each
    predicted image that the low-resolution one fixes is replaced, and only the free part is the prior's (DDNM,
    Wang, Yu, and Zhang 2023). It implements :eq:`eq-ddnm`. Whatever the network, the result shrinks to
    the input, up to the clipping to [0, 1].

    Args:
        scale: magnification of `upscale`; training does not use it.
        schedule: arguments of `srbook.schedules.linear_betas`.
        network: arguments of `srbook.networks.UNet` but its channels of input and output.
        variance: fresh noise of a sampling step, see `srbook.samplers.ancestral`.
        distance: of the training loss.
        sampling_steps: steps of `upscale` and `sample`; None takes all.

    Raises:
        ValueError: an argument is out of range.
    """

    kind = "ddpm"

    def __init__(
        self,
        *,
        scale: int,
        schedule: dict[str, Any],
        network: dict[str, Any],
        variance: Variance = "posterior",
        distance: Distance = "l2",
        sampling_steps: int | None = None,
    ):
        unet = UNet(inputs=3, outputs=3, **network)
        super().__init__(
            path=DiscreteVP(linear_betas(**schedule), scale=0.5),
            multiple=unet.multiple,
            sampling_steps=sampling_steps,
            variance=variance,
            distance=distance,
            scale=scale,
            schedule=schedule,
            network=network,
        )
        self.network = unet

    def condition(self, lr: Tensor) -> Condition:
        return Condition(anchor=lr.new_tensor(0.5))

    def predict(self, z: Tensor, t: Tensor, context: None = None) -> Tensor:
        """The noise in z_t, from z_t and the zero-based step."""
        return self.network(z, t - 1)

    def prior(self, *, clip: bool = True) -> tuple[Tensor, Denoiser]:
        """The anchor and the denoiser of the unconditional model, for samplers; `clip` as in `denoiser`."""
        weight = next(self.parameters()).detach()
        return self.denoiser_given(Condition(anchor=weight.new_tensor(0.5)), clip=clip)

    def denoiser(self, lr: Tensor, *, clip: bool = True) -> tuple[Tensor, Denoiser]:
        anchor, denoise = self.prior(clip=clip)

        def denoise_consistently(x_t: Tensor, t: Tensor) -> Tensor:
            return consistent(denoise(x_t, t), lr)

        return anchor, denoise_consistently

    @torch.no_grad()
    def sample(
        self,
        count: int,
        size: int | tuple[int, int],
        *,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> SampleResult:
        """Draw new images from the prior.

        Args:
            count: how many.
            size: height and width, or one number for squares; multiples of `multiple`.
            steps: sampling steps; None takes the method's default.
            generator: source of all randomness; None uses torch's global one.
            progress: show a progress display over the steps.

        Returns:
            A `SampleResult` whose `image` is (count, 3, height, width) in [0, 1].

        Raises:
            ValueError: a size or a number of steps that is not possible.
        """
        height, width = (size, size) if isinstance(size, int) else size
        anchor, denoise = self.prior()
        return self.draw(
            anchor, denoise, (count, 3, height, width), steps=steps, generator=generator, progress=progress
        )
