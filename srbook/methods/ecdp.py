"""ECDP: a path that keeps mean and variance, and a loss on the image at its end."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, l1_loss

from srbook.degradations import bicubic_upsample
from srbook.losses import feature_distance, vgg19_features
from srbook.losses.features import FeatureExtractor
from srbook.methods.base import Stage
from srbook.methods.diffusion import Condition, Diffusion
from srbook.networks import GuidedUNet, RRDBDecoder, RRDBEncoder
from srbook.networks.rrdb import require_taps
from srbook.objectives import Distance
from srbook.parametrizations import blend_weight, hybrid, two_heads
from srbook.paths import ContinuousVP
from srbook.progress import Progress
from srbook.random import normal
from srbook.samplers import SampleResult, Variance, probability_flow

Kernel = Literal["matlab", "torch"]
Blend = Literal["hybrid", "eps", "x0"]
Weighting = Literal["plain", "score"]
Sampler = Literal["flow", "ancestral"]
Gradients = Literal["adjoint", "backprop"]
Features = Literal["vgg19", "encoder"]

CLOCK = 300  # the network is told 300 t, and this is the program's number of ancestral steps
END_OF_FLOW = 1 / 3000  # where the flow stops: at t = 0 its velocity has no value


class ECDP(Diffusion):
    """Efficient conditional diffusion with the probability flow (Yuan and Yuan 2024).

    The path leads from the image to the bicubic one with noise, in continuous time t from 0 to 1. Its sigma is the
    deviation of the residual, so that the normalized image z_t keeps mean 0 and variance 1. A U-Net, told about the
    low-resolution image by an RRDB encoder, predicts both the noise and the clean z_0. Sampling solves the probability
    flow of their blend.

    It is trained in three stages. "encoder" trains the encoder by regression; its decoder exists in this stage only.
    "diffusion" trains the two heads. "quality" generates images by the flow, compares their features with the truth's,
    and sends the gradient back through the flow.

    The published program takes its bicubic image from torchvision. Before version 0.17 that was PyTorch's plain kernel
    (a = -0.75, `kernel="torch"`); later it is the antialiased one, which equals MATLAB's but for the border.

    Args:
        encoder: arguments of `srbook.networks.RRDBEncoder`.
        taps: which of the encoder's blocks tell the U-Net, from 0.
        network: arguments of `srbook.networks.GuidedUNet` but the context.
        sigma: strength of the noise in pixel units; `srbook.degradations.residual_deviation` measures it for a set.
        kernel: of the bicubic image: "matlab", as everywhere in this package (a = -0.5), or "torch".
        blend: what sampling makes of the heads: "hybrid", or one of them alone, "eps" or "x0".
        ratio: error of the x0 head over that of the eps head, for the weight of the hybrid, see
            `srbook.parametrizations.blend_weight`; 1 gives the program's alpha^2.
        weighting: of the heads' errors over time: "plain", as in the program, or "score", see
            `srbook.objectives.score_weights`.
        encoder_learns: the later stages that go on training the encoder. In the program "diffusion" does; in "quality"
            its encoder is outside of the adjoint equation, and so gets no gradient.
        quality_features: what "quality" compares: "vgg19" for `srbook.losses.vgg19_features`, "encoder" for the
            features of its own encoder, which must then be frozen. `set_feature_extractor` sets any other function.
        quality_weight: of the distance of features in "quality"; 0.5 or 1 in the program.
        matching_weight: of the loss of "diffusion" in "quality"; 0 in the program, while the paper adds them.
        gradients: how they pass the flow in "quality": "adjoint" or "backprop", see `srbook.samplers.probability_flow`.
        sampler: "flow", which draws noise only at the start, or "ancestral".
        tolerance: of the flow, absolute and relative, for the normalized image.
        variance: fresh noise of the ancestral sampler, "forward" in the program.
        distance: of the training loss.
        sampling_steps: steps of `upscale`. None lets dopri5 choose the steps of the flow, and gives the ancestral
            sampler 300. With a number, DDIM solves the flow in that many even steps of one evaluation, down to t = 0.
    """

    kind = "ecdp"
    stages = (
        Stage("encoder", trains=("encoder", "decoder"), loss="encoder_loss", upscale="regress"),
        Stage("diffusion", ("network", "encoder"), loss="denoising_loss", upscale="sample_image", samples=True),
        Stage("quality", ("network", "encoder"), loss="quality_loss", upscale="sample_image", samples=True),
    )
    predicts = "hybrid"
    clips = False

    def __init__(
        self,
        *,
        scale: int,
        encoder: dict[str, Any],
        taps: Sequence[int],
        network: dict[str, Any],
        sigma: float = 0.2,
        kernel: Kernel = "matlab",
        blend: Blend = "hybrid",
        ratio: float = 1.0,
        weighting: Weighting = "plain",
        encoder_learns: Sequence[str] = ("diffusion",),
        quality_features: Features = "vgg19",
        quality_weight: float = 1.0,
        matching_weight: float = 0.0,
        gradients: Gradients = "adjoint",
        sampler: Sampler = "flow",
        tolerance: float = 1e-3,
        variance: Variance = "forward",
        distance: Distance = "l2",
        sampling_steps: int | None = None,
    ):
        if not taps:
            raise ValueError("taps must name at least one block of the encoder, got none")
        if not set(encoder_learns) <= {"diffusion", "quality"}:
            raise ValueError(f'encoder_learns may name "diffusion" and "quality", got {tuple(encoder_learns)}')
        if quality_features == "encoder" and "quality" in encoder_learns:
            raise ValueError('quality_features="encoder" needs a frozen encoder; leave "quality" out of encoder_learns')
        if quality_weight <= 0 or matching_weight < 0:
            raise ValueError(
                "quality_weight must be positive and matching_weight not negative, "
                f"got {quality_weight} and {matching_weight}"
            )
        if not tolerance > 0:
            raise ValueError(f"tolerance must be positive, got {tolerance}")
        super().__init__(scale, path=ContinuousVP(sigma=sigma), multiple=1)
        blend_weight(self.path, 0.5, ratio)  # refuses an impossible ratio now
        self.encoder = RRDBEncoder(**encoder)
        require_taps(taps, len(self.encoder.blocks) - 1)
        self.decoder: RRDBDecoder | None = None
        width = self.encoder.head.out_channels
        self.network = GuidedUNet(context=len(self.taps) * width, **network)
        self.stage = "diffusion"  # what most uses of a new method want: "quality" needs a trained one
        self._extract: tuple[FeatureExtractor, ...] = ()  # in a tuple: its weights are not the method's

    @property
    def eta(self) -> float:
        """0 for the steps of DDIM, which solve the flow and draw no noise; 1 for the ancestral sampler."""
        return 0.0 if self.sampler == "flow" else 1.0

    @property
    def by_score(self) -> bool:
        """Whether training weighs the errors of the heads as those of the score."""
        return self.weighting == "score"

    def begin(self, stage: str) -> None:
        self.declared(stage)
        if stage != "encoder":
            self.decoder = None  # not a part of the finished method
        elif self.decoder is None:
            head = self.encoder.head
            self.decoder = RRDBDecoder(self.scale, head.out_channels).to(head.weight)
        super().begin(stage)

    def trained_in(self, stage: str) -> Sequence[nn.Module]:
        parts = super().trained_in(stage)
        learns = stage == "encoder" or stage in self.encoder_learns
        return parts if learns else [part for part in parts if part is not self.encoder]

    def condition(self, lr: Tensor) -> Condition:
        if self.kernel == "matlab":
            upscaled = bicubic_upsample(lr, self.scale)
        else:
            upscaled = interpolate(lr, scale_factor=self.scale, mode="bicubic", align_corners=False)
        features = torch.cat(self.encoder.features(lr, self.taps), dim=1)
        return Condition(upscaled, context=self.network.prepare(features, tuple(upscaled.shape[-2:])))

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Both predictions, of the noise and of z_0, side by side in the channels: (N, 6, H, W)."""
        return self.network(self.path.normalized(x_t, condition.anchor), CLOCK * t, condition.context)

    def denoise(self, x_t: Tensor, t: Tensor, condition: Condition, *, clip: bool | None = None) -> Tensor:
        """The clean image, from the blend of the heads."""
        weight = {"eps": 1.0, "x0": 0.0}.get(self.blend)
        if weight is None:
            weight = blend_weight(self.path, t, self.ratio)
        heads = two_heads(self.path, self.predict(x_t, t, condition).to(x_t.dtype), condition.anchor)
        return self.clipped(hybrid(self.path, *heads, x_t, condition.anchor, t, weight)[0], condition, clip)

    def draw_times(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Times uniform in (0, 1]; in [1/3000, 1] for the weights of the score, which have no mean otherwise."""
        source = device if generator is None else generator.device
        t = 1 - torch.rand(count, generator=generator, dtype=torch.float64, device=source).to(device)
        return END_OF_FLOW + (1 - END_OF_FLOW) * t if self.by_score else t

    def encoder_loss(self, hr: Tensor, lr: Tensor, generator: torch.Generator | None) -> dict[str, Tensor]:
        return {"loss": l1_loss(self.regress(lr), hr)}

    def quality_loss(self, hr: Tensor, lr: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The loss of the stage "quality", the distance of features in it, and the number of network evaluations.

        Implements :eq:`eq-quality-loss`.
        """
        condition = self.condition(lr)
        inside = [*self.network.weights_of_forward(), *condition.context] if self.gradients == "adjoint" else None
        result = self.flow(condition, normal(hr.shape, hr, generator), adjoint=inside)
        quality = feature_distance(result.image, hr, self.extractor)
        losses = {"quality": quality, "evaluations": hr.new_tensor(result.nfe)}
        if self.matching_weight == 0:
            return {"loss": self.quality_weight * quality, **losses}
        t = self.draw_times(len(hr), generator, hr.device)
        matching = self.losses(hr, condition, t, normal(hr.shape, hr, generator))
        total = self.quality_weight * quality + self.matching_weight * matching.pop("loss")
        return {"loss": total, **losses, **matching}

    def sample(
        self,
        condition: Condition,
        noise: Tensor,
        *,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> SampleResult:
        steps = self.sampling_steps if steps is None else steps
        if steps is None and self.sampler == "flow":
            return self.flow(condition, noise, progress=progress)
        steps = CLOCK if steps is None else steps
        return super().sample(condition, noise, steps=steps, generator=generator, progress=progress)

    def flow(
        self,
        condition: Condition,
        noise: Tensor,
        *,
        adjoint: Sequence[Tensor] | None = None,
        progress: bool = False,
    ) -> SampleResult:
        """`sample` by the probability flow :eq:`eq-quality-flow`, from t = 1 to 1/3000 with dopri5.

        The solver sees x_t - anchor, with its absolute tolerance in units of sigma, so that it takes the steps of the
        normalized image z_t. Gradients reach the weights and the condition, through the steps or by the adjoint
        equation; for `adjoint` see `srbook.samplers.probability_flow`. The other arguments are as in `sample`.
        """
        anchor, origin = condition.anchor, condition.anchor.new_zeros(())
        with Progress(100, f"sample {self.kind}", unit="part", enabled=progress) as bar:

            def centered(offset: Tensor, t: Tensor) -> Tensor:
                while bar.done < 100 * (1 - float(t[0])) - 1e-3:  # the solver chooses its steps, so time is counted
                    bar.update()
                return self.denoise(anchor + offset, t, condition) - anchor

            result = probability_flow(
                self.path,
                centered,
                self.path.start(origin, noise),
                origin,
                [1.0, END_OF_FLOW],
                solver="dopri5",
                rtol=self.tolerance,
                atol=self.tolerance * self.path.sigma,
                adjoint=adjoint,
            )
            while bar.done < 100:
                bar.update()
        return SampleResult(image=anchor + result.image, nfe=result.nfe)

    def set_feature_extractor(self, extract: FeatureExtractor) -> None:
        """Let the stage "quality" compare what `extract` makes of images. The choice is not saved with the method."""
        self._extract = (extract,)

    @property
    def extractor(self) -> FeatureExtractor:
        """The features that the stage "quality" compares."""
        if self._extract:
            return self._extract[0]
        return vgg19_features if self.quality_features == "vgg19" else self._own_features

    def _own_features(self, image: Tensor) -> Tensor:
        return torch.cat(self.encoder.features(image, self.taps), dim=1)

    def regress(self, lr: Tensor) -> Tensor:
        """The image of the stage "encoder", which its decoder makes of the last block's features."""
        return self.decoder(self.encoder.features(lr, [len(self.encoder.blocks) - 1])[0])
