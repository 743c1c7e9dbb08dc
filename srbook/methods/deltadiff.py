"""DeltaDiff: ResShift without noise, from the small image to the large one in four deterministic steps."""

from typing import Any, Literal

from torch import Tensor

from srbook.methods.resshift import PerceptualNet, Prediction, ResShift
from srbook.paths import ResidualShift, Time, broadcast
from srbook.schedules import resshift_sqrt_etas

Reading = Literal["share", "resshift", "root"]
Step = Literal["interpolation", "prediction"]


class DeltaDiff(ResShift):
    """Super-resolution by a path of the residual without noise (Yang et al. 2025): ResShift with kappa = 0.

    x_t = x_0 + eta_t (anchor - x_0), and a step back is the mean of ResShift's posterior, which does not depend on
    kappa. Two texts describe the method and contradict each other; this is the reading that is consistent with the
    reverse step of both. They leave open what "0.01" and "0.99" are:

    * "share": eta_1 and eta_T, as the texts write it;
    * "resshift": eta_1 and sqrt(eta_T), so that ResShift's journal schedule stays as it is;
    * "root": sqrt(eta_1) and sqrt(eta_T), as ResShift's program names its arguments.

    The released program (github.com/continueyang/DeltaDiff, commit ccc7a26; the class `ResDiffusion` of
    models/gaussian_diffusion.py) settles this question and raises others:

    * It takes the table of its schedule for eta itself (line 142: the square is gone): "share". Its configuration still
      divides the start by the kappa of ResShift, so that eta runs from 0.005 to 0.99.
    * Its step back is the prediction itself (`q_posterior_mean_variance`, line 215), not a point between x_t and the
      prediction: `step` "prediction". The network then meets predictions where training showed it points of the path.
    * `_scale_input` divides x_t by sqrt(1 + 4 eta_t), as if it had noise. That is a fixed factor at each time, and left
      out here.
    * It does not clip a prediction (`p_mean_variance`), as ResShift's program does on pixels, and as is done here.
    * It works on plain pixels beside the bicubic image, in a network of 64 channels with one window attention
      (configs/bicx4delta_swinunet_lpips.yaml), and trains by squared error and LPIPS: the preset `deltadiff-released`.
      The texts have a latent and more than 100 million weights.
    * The validation in its trainer.py (commit aeedc47) starts the path from the truth,
      `p_sample_loop_progressive(y=im_gt, ...)`, while the network sees the bicubic image.

    Args:
        network, codec, unshuffle, predicts, perceptual, perceptual_net: as in `ResShift`.
        steps: T, the length of the path.
        power: how late the shares grow, ResShift's 0.3; no text gives it.
        start, end: where they begin and end, 0.01 and 0.99 in the texts.
        reading: what `start` and `end` are.
        step: "interpolation", or "prediction" as in the program.
        sampling_steps: steps of `upscale`; None takes all.
    """

    kind = "deltadiff"

    def __init__(
        self,
        *,
        scale: int,
        network: dict[str, Any],
        steps: int = 4,
        power: float = 0.3,
        start: float = 0.01,
        end: float = 0.99,
        reading: Reading = "share",
        step: Step = "interpolation",
        codec: str | dict[str, Any] | None = None,
        unshuffle: int = 4,
        predicts: Prediction = "x0",
        perceptual: float = 0.0,
        perceptual_net: PerceptualNet = "vgg",
        sampling_steps: int | None = None,
    ):
        if not 0 < start < end <= 1:
            raise ValueError(f"the shares must grow from start to end, above 0 and at most 1, got {start} and {end}")
        first = start if reading == "root" else start**0.5
        last = end**0.5 if reading == "share" else end
        schedule = {"steps": steps, "power": power, "min_noise_level": first, "sqrt_eta_end": last}
        super().__init__(
            scale=scale,
            schedule=schedule,
            network=network,
            kappa=0.0,
            codec=codec,
            unshuffle=unshuffle,
            predicts=predicts,
            perceptual=perceptual,
            perceptual_net=perceptual_net,
            sampling_steps=sampling_steps,
        )
        if step == "prediction":
            self.path = Jumping(resshift_sqrt_etas(kappa=1.0, **schedule), kappa=0.0)


class Jumping(ResidualShift):
    """The path of DeltaDiff's program: forward as in the texts, and back to the prediction at once."""

    def posterior(
        self, x_t: Tensor, x0: Tensor, anchor: Tensor, t: Time, s: Time, eta: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        return x0, broadcast(0 * self.level(s), x_t)
