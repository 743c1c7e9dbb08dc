"""ECDP: keep mean and variance along the path, and judge the image at its end."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, l1_loss

from srbook.degradations import bicubic_upsample
from srbook.losses import feature_distance, vgg19_features
from srbook.losses.features import FeatureExtractor
from srbook.methods.diffusion import Condition, Diffusion, normal
from srbook.networks import GuidedUNet, RRDBDecoder, RRDBEncoder
from srbook.networks.rrdb import require_taps
from srbook.objectives import Distance, two_head_losses
from srbook.parametrizations import blend_weight, hybrid
from srbook.paths import ContinuousVP
from srbook.progress import Progress
from srbook.samplers import Denoiser, SampleResult, Variance, probability_flow

Interpolation = Literal["matlab", "torch"]
Blend = Literal["hybrid", "eps", "x0"]
Weighting = Literal["plain", "score"]
Sampler = Literal["flow", "ancestral"]
Gradients = Literal["adjoint", "backprop"]
Features = Literal["vgg19", "encoder"]

CLOCK = 300  # the network is told 300 t, and this is the program's number of ancestral steps
END_OF_FLOW = 1 / 3000  # where the flow stops: at t = 0 its velocity has no value


class ECDP(Diffusion):
    """Efficient conditional diffusion with the probability flow (Yuan and Yuan 2024).

    The path leads from the image to the bicubic one with noise of the scale of the residual, in continuous time t from
    0 to 1, so that the normalized image z_t keeps mean 0 and variance 1. A U-Net, told about the low-resolution image
    by an RRDB encoder, predicts both the noise and the clean z_0. The blend of the two is sampled by solving the
    probability flow.

    It is trained in three stages. "encoder" trains the encoder by regression; its decoder exists in this stage only.
    "diffusion" trains the two heads. "quality" generates images by the flow, compares their features with the truth's,
    and sends the gradient back through the flow.

    The published program takes its bicubic image from torchvision. Before version 0.17 that was PyTorch's plain
    kernel (a = -0.75, `anchor="torch"`); later it is the antialiased one, which equals MATLAB's but for the border.

    Args:
        scale: magnification.
        encoder: arguments of `srbook.networks.RRDBEncoder`.
        taps: which of the encoder's blocks tell the U-Net, from 0.
        network: arguments of `srbook.networks.GuidedUNet` but the features.
        sigma: scale of the noise in pixel units; `srbook.degradations.residual_deviation` measures that of a set.
        anchor: kernel of the bicubic image: "matlab", as everywhere in this package (a = -0.5), or "torch".
        blend: what sampling makes of the heads: "hybrid", or one of them alone, "eps" or "x0".
        ratio: error of the x0 head over that of the eps head, for the weight of the hybrid, see
            `srbook.parametrizations.blend_weight`; 1 gives the program's alpha^2.
        weighting: of the errors of the heads over time: "plain" takes them as they are, as the program does; "score"
            as errors of the score, see `srbook.objectives.score_weights`.
        encoder_learns: the later stages that go on training the encoder. In the program "diffusion" does; in
            "quality" its encoder is outside of the adjoint equation, and so gets no gradient.
        features: what "quality" looks at: "vgg19" for `srbook.losses.vgg19_features`, "encoder" for the maps of the
            own encoder, which must then be frozen. `set_feature_extractor` sets any other function.
        quality_weight: of the distance of features in "quality"; 0.5 or 1 in the program.
        matching_weight: of the loss of "diffusion" in "quality"; 0 in the program, while the paper adds them.
        gradients: how they pass the flow in "quality": "adjoint" or "backprop", see
            `srbook.samplers.probability_flow`.
        sampler: "flow", which draws noise only at the start, or "ancestral".
        tolerance: of the flow, absolute and relative, for the normalized image.
        variance: fresh noise of the ancestral sampler, "forward" in the program.
        distance: of the training loss.
        sampling_steps: steps of `upscale`. None lets dopri5 choose the steps of the flow, and gives the ancestral
            sampler 300. With a number, the flow is solved by DDIM: that many even steps of one evaluation, down to
            t = 0.

    Raises:
        ValueError: an argument is out of range.
    """

    kind = "ecdp"
    stages = ("encoder", "diffusion", "quality")
    clips = False

    def __init__(
        self,
        *,
        scale: int,
        encoder: dict[str, Any],
        taps: Sequence[int],
        network: dict[str, Any],
        sigma: float = 0.2,
        anchor: Interpolation = "matlab",
        blend: Blend = "hybrid",
        ratio: float = 1.0,
        weighting: Weighting = "plain",
        encoder_learns: Sequence[str] = ("diffusion",),
        features: Features = "vgg19",
        quality_weight: float = 1.0,
        matching_weight: float = 0.0,
        gradients: Gradients = "adjoint",
        sampler: Sampler = "flow",
        tolerance: float = 1e-3,
        variance: Variance = "forward",
        distance: Distance = "l2",
        sampling_steps: int | None = None,
    ):
        _require_choice("anchor", anchor, Interpolation)
        _require_choice("blend", blend, Blend)
        _require_choice("weighting", weighting, Weighting)
        _require_choice("features", features, Features)
        _require_choice("gradients", gradients, Gradients)
        _require_choice("sampler", sampler, Sampler)
        _require_choice("distance", distance, Distance)
        if not taps:
            raise ValueError("taps must name at least one block of the encoder, got none")
        if not set(encoder_learns) <= {"diffusion", "quality"}:
            raise ValueError(f'encoder_learns may name "diffusion" and "quality", got {tuple(encoder_learns)}')
        if features == "encoder" and "quality" in encoder_learns:
            raise ValueError('features="encoder" needs a frozen encoder; leave "quality" out of encoder_learns')
        if quality_weight <= 0 or matching_weight < 0:
            raise ValueError(
                "quality_weight must be positive and matching_weight not negative, "
                f"got {quality_weight} and {matching_weight}"
            )
        if not tolerance > 0:
            raise ValueError(f"tolerance must be positive, got {tolerance}")
        super().__init__(
            path=ContinuousVP(scale=sigma),
            multiple=1,
            sampling_steps=sampling_steps,
            variance=variance,
            distance=distance,
            scale=scale,
            encoder=encoder,
            taps=list(taps),
            network=network,
            sigma=sigma,
            anchor=anchor,
            blend=blend,
            ratio=ratio,
            weighting=weighting,
            encoder_learns=list(encoder_learns),
            features=features,
            quality_weight=quality_weight,
            matching_weight=matching_weight,
            gradients=gradients,
            sampler=sampler,
            tolerance=tolerance,
        )
        blend_weight(self.path, 0.5, ratio)  # refuses an impossible ratio now
        self.sampling_steps = sampling_steps
        self.taps, self.anchor, self.sampler, self.tolerance = tuple(taps), anchor, sampler, tolerance
        self.blend, self.ratio, self.weighting, self.encoder_learns = blend, ratio, weighting, tuple(encoder_learns)
        self.features, self.gradients = features, gradients
        self.quality_weight, self.matching_weight = quality_weight, matching_weight
        self.encoder = RRDBEncoder(**encoder)
        require_taps(taps, len(self.encoder.blocks) - 1)
        self.decoder: RRDBDecoder | None = None
        width = self.encoder.head.out_channels
        self.network = GuidedUNet(features=len(self.taps) * width, **network)
        self.stage = "diffusion"  # what most uses of a new method want: "quality" needs a trained one
        self._extract: tuple[FeatureExtractor, ...] = ()  # in a tuple: its weights are not the method's

    @property
    def eta(self) -> float:
        """DDIM's steps, which draw nothing, solve the flow; the ancestral sampler draws all of its noise anew."""
        return 0.0 if self.sampler == "flow" else 1.0

    def begin(self, stage: str) -> None:
        if stage == "encoder" and self.decoder is None:
            head = self.encoder.head
            self.decoder = RRDBDecoder(self.scale, head.out_channels).to(head.weight)
        elif stage in self.stages and stage != "encoder":
            self.decoder = None
        super().begin(stage)

    def trained_in(self, stage: str) -> Sequence[nn.Module]:
        if stage == "encoder":
            return [self.encoder, self.decoder]
        return [self.network, self.encoder] if stage in self.encoder_learns else [self.network]

    def save(self, path: str | Path) -> Path:
        decoder, self.decoder = self.decoder, None  # not a part of the finished method
        try:
            return super().save(path)
        finally:
            self.decoder = decoder

    def condition(self, lr: Tensor) -> Condition:
        if self.anchor == "matlab":
            upscaled = bicubic_upsample(lr, self.scale)
        else:
            upscaled = interpolate(lr, scale_factor=self.scale, mode="bicubic", align_corners=False)
        features = torch.cat(self.encoder.features(lr, self.taps), dim=1)
        return Condition(upscaled, context=self.network.prepare(features, tuple(upscaled.shape[-2:])))

    def heads(self, z: Tensor, t: Tensor, context: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The two predictions, of the noise and of z_0, each shaped like z_t."""
        noise, z0 = self.network(z, CLOCK * t, context).to(z.dtype).chunk(2, dim=1)
        return noise, z0

    def predict(self, z: Tensor, t: Tensor, context: Sequence[Tensor]) -> Tensor:
        """The noise in z_t as the blend of the heads has it."""
        noise, z0 = self.heads(z, t, context)
        return self._blended(noise, self.path.scale * z0, self.path.scale * z, z.new_zeros(()), t)[1]

    def estimate(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        noise, z0 = self.heads((x_t - condition.anchor) / self.path.scale, t, condition.context)
        return self._blended(noise, condition.anchor + self.path.scale * z0, x_t, condition.anchor, t)[0]

    def _blended(self, noise: Tensor, x0: Tensor, x_t: Tensor, anchor: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        if self.blend == "hybrid":
            weight = blend_weight(self.path, t, self.ratio)
        else:
            weight = 1.0 if self.blend == "eps" else 0.0
        return hybrid(self.path, noise, x0, x_t, anchor, t, weight)

    def draw_times(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Times uniform in (0, 1]; in [1/3000, 1] for the weights of the score, which have no mean otherwise."""
        source = device if generator is None else generator.device
        t = 1 - torch.rand(count, generator=generator, dtype=torch.float64, device=source).to(device)
        return END_OF_FLOW + (1 - END_OF_FLOW) * t if self.weighting == "score" else t

    def loss(self, hr: Tensor, lr: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        if self.stage == "diffusion":
            return super().loss(hr, lr, generator)
        self.require_pair(hr, lr)
        if self.stage == "encoder":
            return {"loss": l1_loss(self.regress(lr), hr)}
        return self.quality_losses(hr, lr, generator)

    def losses(self, x0: Tensor, condition: Condition, t: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """The errors of both heads and their sum; arguments as in the base class."""

        def predict(z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            return self.heads(z, t, condition.context)

        by_score = self.weighting == "score"
        of_noise, of_image = two_head_losses(
            self.path, predict, x0, condition.anchor, t, noise, self.distance, by_score=by_score
        )
        return {"loss": of_noise + of_image, "noise": of_noise, "image": of_image}

    def quality_losses(self, hr: Tensor, lr: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The loss of the stage "quality", the distance of features in it, and how often the flow asked the network.

        Implements :eq:`eq-quality-loss`.
        """
        condition = self.condition(lr)
        result = self.generate(condition, normal(hr.shape, hr, generator))
        quality = feature_distance(result.image, hr, self.extractor)
        losses = {"quality": quality, "evaluations": hr.new_tensor(result.nfe)}
        if self.matching_weight == 0:
            return {"loss": self.quality_weight * quality, **losses}
        t = self.draw_times(len(hr), generator, hr.device)
        matching = self.losses(hr, condition, t, normal(hr.shape, hr, generator))
        total = self.quality_weight * quality + self.matching_weight * matching.pop("loss")
        return {"loss": total, **losses, **matching}

    def generate(self, condition: Condition, noise: Tensor) -> SampleResult:
        """Images from noise by the flow, not clipped, with gradients to the weights and to the condition."""
        anchor, denoise = self.denoiser_given(condition)
        inside = [*self.network.weights_of_forward(), *condition.context] if self.gradients == "adjoint" else None
        return self.flow(anchor, denoise, noise, adjoint=inside)

    def flow(
        self, anchor: Tensor, denoise: Denoiser, noise: Tensor, *, adjoint: Sequence[Tensor] | None = None
    ) -> SampleResult:
        """Solve the probability flow :eq:`eq-quality-flow` from t = 1 to 1/3000 with dopri5.

        The solver sees x_t - anchor, with its absolute tolerance in units of sigma, so that it takes the steps of the
        normalized image z_t.

        Args:
            anchor: (N, 3, H, W).
            denoise: as `denoiser` gives it.
            noise: (N, 3, H, W), standard normal: z_1.
            adjoint: see `srbook.samplers.probability_flow`.

        Returns:
            The image, not clipped, and the number of evaluations.
        """
        origin = anchor.new_zeros(())

        def centered(offset: Tensor, t: Tensor) -> Tensor:
            return denoise(anchor + offset, t) - anchor

        result = probability_flow(
            self.path,
            centered,
            self.path.start(origin, noise),
            origin,
            [1.0, END_OF_FLOW],
            solver="dopri5",
            rtol=self.tolerance,
            atol=self.tolerance * self.path.scale,
            adjoint=adjoint,
        )
        return SampleResult(image=anchor + result.image, nfe=result.nfe)

    def set_feature_extractor(self, extract: FeatureExtractor) -> None:
        """Let the stage "quality" compare what `extract` makes of images. It is not saved with the method."""
        self._extract = (extract,)

    @property
    def extractor(self) -> FeatureExtractor:
        """What the stage "quality" compares images by."""
        if self._extract:
            return self._extract[0]
        return vgg19_features if self.features == "vgg19" else self._own_features

    def _own_features(self, image: Tensor) -> Tensor:
        return torch.cat(self.encoder.features(image, self.taps), dim=1)

    def regress(self, lr: Tensor) -> Tensor:
        """The image of the stage "encoder": what its decoder makes of the last block's map."""
        return self.decoder(self.encoder.features(lr, [len(self.encoder.blocks) - 1])[0])

    def upscale(
        self,
        lr: Tensor,
        *,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> SampleResult:
        if self.stage == "encoder":
            return self.upscale_directly(self.regress, lr, steps)
        return super().upscale(lr, steps=steps, generator=generator, progress=progress)

    def draw(
        self,
        anchor: Tensor,
        denoise: Denoiser,
        shape: Sequence[int],
        *,
        steps: int | None,
        generator: torch.Generator | None,
        progress: bool,
    ) -> SampleResult:
        steps = self.sampling_steps if steps is None else steps
        if steps is not None or self.sampler == "ancestral":
            steps = CLOCK if steps is None else steps
            return super().draw(anchor, denoise, shape, steps=steps, generator=generator, progress=progress)
        with Progress(100, f"sample {self.kind}", unit="part", enabled=progress) as bar:

            def watched(x_t: Tensor, t: Tensor) -> Tensor:
                while bar.done < 100 * (1 - float(t[0])) - 1e-3:  # the solver chooses its steps, so time is counted
                    bar.update()
                return denoise(x_t, t)

            result = self.flow(anchor, watched, normal(shape, anchor, generator))
            while bar.done < 100:
                bar.update()
        return SampleResult(image=result.image.clamp(0, 1), nfe=result.nfe)


def _require_choice(name: str, value: str, kinds: Any) -> None:
    if value not in get_args(kinds):
        raise ValueError(f"{name} must be one of {', '.join(get_args(kinds))}, got {value!r}")
