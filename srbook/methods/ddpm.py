"""DDPM: a prior for images, without a condition."""

from typing import Any

from torch import Tensor

from srbook.degradations import consistent
from srbook.methods.base import Stage
from srbook.methods.diffusion import Condition, Diffusion
from srbook.networks import UNet
from srbook.objectives import Distance
from srbook.paths import DiscreteVP
from srbook.samplers import Variance
from srbook.schedules import linear_betas


class DDPM(Diffusion):
    """Denoising diffusion (Ho, Jain, and Abbeel 2020): it learns p(x), and draws from it with `sample`.

    It has not learned from low-resolution images, but `upscale` can still take one into account: it replaces the part
    of each predicted image that the low-resolution one fixes, and the prior gives the rest (DDNM, Wang, Yu, and Zhang
    2023). It implements :eq:`eq-ddnm`. Whatever the network, the result shrinks to the input, up to the clipping to [0,
    1].

    Args:
        scale: magnification of `upscale`; training does not use it.
        schedule: arguments of `srbook.schedules.linear_betas`.
        network: arguments of `srbook.networks.UNet` but its channels of input and output.
        variance: fresh noise of a sampling step, see `srbook.samplers.ancestral`.
        distance: of the training loss.
        sampling_steps: steps of sampling; None takes all.
    """

    kind = "ddpm"
    stages = (Stage("main", trains=("network",), loss="denoising_loss", upscale="sample_image", samples=True),)

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
        super().__init__(scale, path=DiscreteVP(linear_betas(**schedule), sigma=0.5), multiple=unet.multiple)
        self.network = unet

    def condition(self, lr: Tensor | None = None) -> Condition:
        """Mid-gray for the prior, without an image; with one, `denoise` keeps to it."""
        like = next(self.parameters()).detach() if lr is None else lr
        return Condition(anchor=like.new_tensor(0.5), context=lr)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The noise in z_t, from z_t and the zero-based step."""
        return self.network(self.path.normalized(x_t, condition.anchor), t - 1)

    def denoise(self, x_t: Tensor, t: Tensor, condition: Condition, *, clip: bool | None = None) -> Tensor:
        x0 = super().denoise(x_t, t, condition, clip=clip)
        return x0 if condition.context is None else consistent(x0, condition.context)
