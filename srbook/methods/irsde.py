"""IR-SDE: noise that forgets the image and settles around the bicubic one, and the most likely way back."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from srbook.arguments import require_choice
from srbook.degradations import bicubic_upsample
from srbook.methods.diffusion import Condition, Diffusion
from srbook.networks import LinearUNet, NAFNet
from srbook.objectives import Distance
from srbook.paths import MeanReverting, broadcast
from srbook.schedules import mean_reverting_thetas

NETWORKS = {"unet": LinearUNet, "nafnet": NAFNet}


class IRSDE(Diffusion):
    """Super-resolution by a mean-reverting stochastic equation (Luo et al. 2023).

    The path leads from the image to the bicubic one with noise of deviation sigma. The network sees how far x_t is from
    the bicubic image, with that image beside it, is told the step, and predicts the noise.

    Training compares images instead of noise: the step that the predicted noise makes of x_t, and the most likely
    x_{t-1} given the truth. With the true noise the two still differ, by the error of the Euler step. Implements
    :eq:`eq-irsde-loss`.

    Sampling draws from the posterior, `reverse_posterior` of the program (github.com/Algolzw/image-restoration-sde,
    commit 2598d73, codes/utils/sde_utils.py). `srbook.samplers.reverse_sde` takes the Euler steps with which it tests
    its super-resolution. The program enlarges by torch's bicubic; here it is MATLAB's.

    Args:
        schedule: arguments of `srbook.schedules.mean_reverting_thetas`.
        network: `kind`, "unet" or "nafnet" (Refusion), and its arguments, see `srbook.networks`.
        sigma: strength of the noise in pixel units, the paper's lambda: 30 / 255, and 50 / 255 for Refusion.
        distance: of the training loss.
        sampling_steps: steps of `upscale`; None takes all.
    """

    kind = "irsde"
    clips = False

    def __init__(
        self,
        *,
        scale: int,
        schedule: dict[str, Any],
        network: dict[str, Any],
        sigma: float = 30 / 255,
        distance: Distance = "l1",
        sampling_steps: int | None = None,
    ):
        own = dict(network)
        require_choice("the kind of the network", kind := own.pop("kind", None), NETWORKS)
        unet = NETWORKS[kind](**own)
        super().__init__(scale, path=MeanReverting(mean_reverting_thetas(**schedule), sigma), multiple=unet.multiple)
        self.network = unet

    def condition(self, lr: Tensor) -> Condition:
        upscaled = bicubic_upsample(lr, self.scale)
        return Condition(upscaled, context=upscaled)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The noise in x_t, from its distance to the bicubic image, that image, and the step."""
        return self.network(torch.cat([x_t - condition.anchor, condition.context], dim=1), t)

    def losses(self, x0: Tensor, condition: Condition, t: Tensor, noise: Tensor) -> dict[str, Tensor]:
        x_t = self.path.perturb(x0, condition.anchor, t, noise)
        predicted = self.predict(x_t, t, condition).to(x_t.dtype)
        best, _ = self.path.posterior(x_t, x0, condition.anchor, t, t - 1)
        distance = {"l1": l1_loss, "l2": mse_loss}[self.distance]
        return {"loss": distance(self.euler_step(x_t, predicted, condition.anchor, t), best)}

    def euler_step(self, x_t: Tensor, noise: Tensor, anchor: Tensor, t: Tensor) -> Tensor:
        """The mean of the reverse equation's Euler step from t to t - 1, for predicted noise.

        With theta = -log m(t | t - 1), the reversion in this step, it is
        x_t + theta (x_t - anchor) - 2 sigma theta noise / s_t.
        """
        theta = -self.path.transition(t, t - 1).log()
        pull = broadcast(2 * self.path.sigma * theta / self.path.level(t), x_t)
        return x_t + broadcast(theta, x_t) * (x_t - anchor) - pull * noise
