"""ResDiff: a small network predicts the image, and diffusion supplies the residual."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from srbook.images import clip
from srbook.losses import fourier_loss, wavelet_loss
from srbook.methods.base import Stage
from srbook.methods.diffusion import DIFFUSION, Condition, Diffusion
from srbook.networks import ResDiffUNet, ResidualPredictor
from srbook.objectives import Distance, draw_between_steps
from srbook.paths import DiscreteVP
from srbook.samplers import Variance
from srbook.schedules import linear_betas


class ResDiff(Diffusion):
    """Super-resolution by diffusion of a network's residual (Shang et al. 2024).

    The path leads from the image to the predictor's one with noise. The predictor is trained first and then frozen. The
    denoiser sees the predicted image, and its high frequencies guide it. Times, loss, and sampler are those of SR3's
    program. The released program keeps predicted images as 8-bit files; here they are clipped, but not rounded.

    Args:
        schedule: arguments of `srbook.schedules.linear_betas`.
        predictor: arguments of `srbook.networks.ResidualPredictor` but the scale.
        network: arguments of `srbook.networks.ResDiffUNet`.
        pixel_weight: of the squared error in the predictor's loss: the paper's term for the truth, which the program
            leaves out.
        fourier_weight: of `srbook.losses.fourier_loss`, which equals the squared error.
        wavelet_weight: of `srbook.losses.wavelet_loss`.
        variance, distance, sampling_steps: of the diffusion, as in `DDPM`.
    """

    kind = "resdiff"
    stages = (Stage("predictor", trains=("predictor",), loss="predictor_loss", upscale="predictor"), DIFFUSION)

    def __init__(
        self,
        *,
        scale: int,
        schedule: dict[str, Any],
        predictor: dict[str, Any],
        network: dict[str, Any],
        pixel_weight: float = 0.0,
        fourier_weight: float = 0.2,
        wavelet_weight: float = 0.1,
        variance: Variance = "posterior",
        distance: Distance = "l1",
        sampling_steps: int | None = None,
    ):
        weights = {"pixel": pixel_weight, "fourier": fourier_weight, "wavelet": wavelet_weight}
        if min(weights.values()) < 0 or max(weights.values()) == 0:
            raise ValueError(f"the weights of the predictor's loss must not be negative nor all 0, got {weights}")
        unet = ResDiffUNet(**network)
        super().__init__(scale, path=DiscreteVP(linear_betas(**schedule), sigma=0.5), multiple=unet.multiple)
        self.weights = weights
        self.predictor, self.network = ResidualPredictor(scale, **predictor), unet

    def condition(self, lr: Tensor) -> Condition:
        with torch.no_grad():  # the predictor is frozen
            predicted = clip(self.predictor(lr))
        return Condition(predicted, context=2 * predicted - 1)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The noise in z_t, from the predicted image and z_t side by side, and the signal."""
        z = self.path.normalized(x_t, condition.anchor)
        return self.network(torch.cat([condition.context, z], dim=1), self.path.signal(t))

    def draw_times(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        return draw_between_steps(self.path, count, generator=generator, device=device)

    def predictor_loss(self, hr: Tensor, lr: Tensor, generator: torch.Generator | None) -> dict[str, Tensor]:
        return self.prediction_terms(self.predictor(lr), hr)

    def prediction_terms(self, predicted: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """The weighted sum that trains the predictor, and its terms: :eq:`eq-resdiff-losses`."""
        terms = {
            "pixel": mse_loss(predicted, hr),
            "fourier": fourier_loss(predicted, hr),
            "wavelet": wavelet_loss(predicted, hr),
        }
        return {"loss": sum(self.weights[name] * term for name, term in terms.items()), **terms}
