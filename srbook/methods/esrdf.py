"""ESRDF: a predictor trained to have the truth's gray levels, and diffusion of its residual (Huang et al. 2026)."""

from inspect import signature
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from srbook.images import clip
from srbook.losses import entropy_matching_loss, feature_distance, vgg16_features
from srbook.losses.features import FeatureExtractor
from srbook.methods.base import Stage
from srbook.methods.diffusion import DIFFUSION, Condition, Diffusion
from srbook.networks import AttentionPredictor, UNet
from srbook.objectives import Distance
from srbook.paths import DiscreteVP, Time
from srbook.samplers import Variance
from srbook.schedules import linear_betas

Anchor = Literal["predictor", "gray"]
Start = Literal["matched", "unit"]


class ESRDF(Diffusion):
    """Super-resolution by diffusion of a residual whose entropy the predictor's training keeps low (Huang et al. 2026).

    The path leads from the image to the predictor's one with noise. The predictor is trained first, on pixels, on the
    histogram of its gray levels (`srbook.losses.entropy_matching_loss`), and on features, and is then frozen. The
    denoiser sees the predicted image beside the noisy one, and is told the zero-based step. The path implements
    :eq:`eq-esrdf-anchor`.

    The defaults correct three things in the released program:

    * It counts the gray levels of images in [-1, 1] as if they were in [0, 1], so the darker half gives no gradient. It
      also exchanges the arguments of the divergence. Here the range is right and the direction is the paper's.
    * Its betas run from 1e-6 to 1e-2 whatever T is. Their sum is 1 at T = 200, so abar_T = 0.37: the last state still
      holds 61 % of the residual, and has the variance 0.63 and not 1. The presets scale the betas by 1000 / T, which
      gives abar_T = 0.006, as ResDiff has.
    * Its sampler starts from variance 1, which the network has not met. Here it starts from the noise of the path.

    `build("esrdf-ffhq", schedule={"start": 1e-6, "end": 1e-2}, start="unit", entropy={"direction": "reverse",
    "released_range": True})` undoes all three. Two more differences remain: predicted images are clipped, and features
    are those of `set_feature_extractor`.

    For the paper's ablation, `entropy_weight=0.0` leaves the entropy out, and `anchor="gray"` diffuses the image. With
    bicubic upscaling in the predictor's place both are `SR3` with `clock="step"`, of which `anchor="bicubic"` diffuses
    the residual and `anchor="gray"` is the paper's baseline, DDPM on natural images.

    Args:
        schedule: arguments of `srbook.schedules.linear_betas`.
        predictor: arguments of `srbook.networks.AttentionPredictor` but the scale.
        network: arguments of `srbook.networks.UNet` but its channels of input and output.
        anchor: "predictor" diffuses the residual, "gray" the image; the network sees the predicted image in both.
        sigma: strength of the noise in pixel units; 0.5 makes z_0 the residual of images in [-1, 1].
        start: sampling starts from noise as strong as the path's at T ("matched") or of strength 1 ("unit").
        pixel_weight: of the mean absolute error; 2 is the program's 1 for images in [-1, 1].
        entropy_weight: of the entropy matching loss; 300 / 256 is the program's 100, see there. Its gradient for most
            values is as strong in the paper's direction of the divergence as in the program's; for a few it is far
            stronger, as the chapter on ESRDF shows.
        feature_weight: of the mean squared difference of features. VGG's weights are read only if it is positive.
        entropy: arguments of `srbook.losses.entropy_matching_loss`.
        variance: fresh noise of a sampling step, see `srbook.samplers.ancestral`.
        distance: of the diffusion's training loss.
        sampling_steps: steps of `upscale`; None takes all.
    """

    kind = "esrdf"
    stages = (Stage("predictor", trains=("predictor",), loss="predictor_loss", upscale="predictor"), DIFFUSION)

    def __init__(
        self,
        *,
        scale: int,
        schedule: dict[str, Any],
        predictor: dict[str, Any],
        network: dict[str, Any],
        anchor: Anchor = "predictor",
        sigma: float = 0.5,
        start: Start = "matched",
        pixel_weight: float = 2.0,
        entropy_weight: float = 300 / 256,
        feature_weight: float = 1.0,
        entropy: dict[str, Any] | None = None,
        variance: Variance = "posterior",
        distance: Distance = "l1",
        sampling_steps: int | None = None,
    ):
        weights = {"pixel": pixel_weight, "entropy": entropy_weight, "feature": feature_weight}
        if min(weights.values()) < 0 or max(weights.values()) == 0:
            raise ValueError(f"the weights of the predictor's loss must not be negative nor all 0, got {weights}")
        entropy = entropy or {}
        options = signature(entropy_matching_loss).parameters.keys() - {"sr", "hr"}
        if unknown := entropy.keys() - options:
            raise ValueError(f"entropy takes {', '.join(sorted(options))}, got {', '.join(sorted(unknown))}")
        unet = UNet(inputs=6, outputs=3, **network)
        path = (_UnitStart if start == "unit" else DiscreteVP)(linear_betas(**schedule), sigma)
        super().__init__(scale, path=path, multiple=unet.multiple)
        self.weights, self.entropy = weights, entropy
        self.predictor, self.network = AttentionPredictor(scale, **predictor), unet
        self.set_feature_extractor(vgg16_features)
        self.train()

    def set_feature_extractor(self, extract: FeatureExtractor) -> None:
        """Use other features than VGG's in the predictor's loss, see `srbook.losses.feature_distance`.

        Checkpoints do not keep the choice, and the weights of a module do not become the method's.
        """
        self._extract = (extract,)  # a bare module would be registered

    def begin(self, stage: str) -> None:
        super().begin(stage)
        self.train(self.training)

    def train(self, mode: bool = True) -> "ESRDF":
        """As in every module, but the predictor's batch statistics stay fixed while it is frozen."""
        super().train(mode)
        self.predictor.train(mode and self.stage == "predictor")
        return self

    def condition(self, lr: Tensor) -> Condition:
        with torch.no_grad():  # the predictor is frozen
            predicted = clip(self.predictor(lr))
        anchor = predicted if self.anchor == "predictor" else torch.full_like(predicted, 0.5)
        return Condition(anchor, context=2 * predicted - 1)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The noise in z_t, from the predicted image and z_t side by side, and the zero-based step."""
        z = self.path.normalized(x_t, condition.anchor)
        return self.network(torch.cat([condition.context, z], dim=1), t - 1)

    def predictor_loss(self, hr: Tensor, lr: Tensor, generator: torch.Generator | None) -> dict[str, Tensor]:
        return self.prediction_terms(self.predictor(lr), hr)

    def prediction_terms(self, predicted: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """The weighted sum that trains the predictor, and those of its terms whose weight is positive.

        Implements :eq:`eq-esrdf-predictor`.
        """
        losses = {
            "pixel": lambda: l1_loss(predicted, hr),
            "entropy": lambda: entropy_matching_loss(predicted, hr, **self.entropy),
            "feature": lambda: feature_distance(predicted, hr, self._extract[0], "l2"),
        }
        terms = {name: loss() for name, loss in losses.items() if self.weights[name] > 0}
        return {"loss": sum(self.weights[name] * term for name, term in terms.items()), **terms}


class _UnitStart(DiscreteVP):
    """A path whose sampling starts from noise of strength 1 instead of s_T, as the released program's does."""

    def start(self, anchor: Tensor, noise: Tensor, t: Time | None = None) -> Tensor:
        return anchor + self.sigma * noise
