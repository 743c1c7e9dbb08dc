"""What the diffusion methods share: an anchored path in pixel units, and a network that sees the noise in it."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from srbook.accel import accelerate
from srbook.images import require_images
from srbook.methods.base import Method
from srbook.objectives import Distance, draw_steps, noise_loss
from srbook.parametrizations import to_x0
from srbook.paths import AnchoredPath
from srbook.progress import Progress
from srbook.samplers import Denoiser, SampleResult, Variance, ancestral

Context = Tensor | Sequence[Tensor] | None


@dataclass(frozen=True)
class Condition:
    """What a method computes once per low-resolution image, and uses at every step.

    Attributes:
        anchor: where the path ends, broadcastable to the high-resolution images.
        context: what the network is told beside the noisy image; None for nothing.
    """

    anchor: Tensor
    context: Context = None


class Diffusion(Method):
    """A method on an anchored path whose network predicts the noise.

    The path lives in pixel units: x_t = anchor + a_t (x_0 - anchor) + scale s_t noise. The network gets the
    normalized image z_t = (x_t - anchor) / scale, which is the variable of the published programs. A subclass makes
    the condition, calls the network, and may choose how times are drawn. A network that says more than the noise also
    has its own `losses` and `estimate`.

    Args:
        path: with a positive scale.
        multiple: the network takes images whose sides are multiples of this.
        sampling_steps: steps of `upscale` unless it is told otherwise; None takes all steps of the path.
        variance: the fresh noise of a sampling step, see `srbook.samplers.ancestral`.
        distance: of the training loss.
        arguments: the other arguments of the subclass's constructor, for checkpoints.

    Attributes:
        clips: sampling keeps predictions within one scale of the anchor, unless it is told otherwise.
        eta: share of fresh noise in a sampling step, see `srbook.samplers.ancestral`.
    """

    clips: ClassVar[bool] = True
    eta: float = 1.0

    def __init__(
        self,
        *,
        path: AnchoredPath,
        multiple: int,
        sampling_steps: int | None,
        variance: Variance = "posterior",
        distance: Distance,
        **arguments: Any,
    ):
        super().__init__(sampling_steps=sampling_steps, variance=variance, distance=distance, **arguments)
        self.path, self.multiple = path, multiple
        self.sampling_steps = int(path.end) if sampling_steps is None else sampling_steps
        self.variance, self.distance = variance, distance
        path.times(self.sampling_steps)  # refuses an impossible number now

    @abstractmethod
    def condition(self, lr: Tensor) -> Condition:
        """The anchor and the context of low-resolution images (N, 3, H, W) in [0, 1]."""

    @abstractmethod
    def predict(self, z: Tensor, t: Tensor, context: Context) -> Tensor:
        """The network's noise, shaped like z_t, for the normalized images `z` at times `t` (N,)."""

    def draw_times(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Times for a training batch, (count,): whole steps."""
        return draw_steps(self.path, count, generator, device)

    def clean(self, hr: Tensor, anchor: Tensor) -> Tensor:
        """The end of the path that training aims at: the truth."""
        return hr

    def loss(self, hr: Tensor, lr: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        self.require_pair(hr, lr)
        condition = self.condition(lr)
        t = self.draw_times(len(hr), generator, hr.device)
        noise = normal(hr.shape, hr, generator)
        return self.losses(self.clean(hr, condition.anchor), condition, t, noise)

    def losses(self, x0: Tensor, condition: Condition, t: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """`loss` for clean images (N, 3, H, W), times (N,), and noise shaped like the images."""
        predict = partial(self.predict, context=condition.context)
        return {"loss": noise_loss(self.path, predict, x0, condition.anchor, t, noise, self.distance)}

    def estimate(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The clean image that the network sees in x_t, in pixel units and not clipped."""
        z = (x_t - condition.anchor) / self.path.scale
        noise = self.predict(z, t, condition.context).to(x_t.dtype)
        return to_x0(self.path, "eps", noise, x_t, condition.anchor, t)

    def denoiser(self, lr: Tensor, *, clip: bool | None = None) -> tuple[Tensor, Denoiser]:
        """What a sampler needs: the anchor, and a function from x_t and t to the predicted clean image.

        The condition is computed once, here.

        Args:
            lr: (N, 3, H, W) in [0, 1]; the sides of the high-resolution image must be multiples of `multiple`.
            clip: keep predictions within one scale of the anchor: for an anchor of mid-gray and a scale of 0.5 that
                is [0, 1]. None does what the published program of the method does.
        """
        return self.denoiser_given(self.condition(lr), clip=clip)

    def denoiser_given(self, condition: Condition, *, clip: bool | None = None) -> tuple[Tensor, Denoiser]:
        """`denoiser` for a condition that is known already."""
        anchor, sigma = condition.anchor, self.path.scale
        clip = self.clips if clip is None else clip

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            x0 = self.estimate(x_t, t, condition)
            return anchor + (x0 - anchor).clamp(-sigma, sigma) if clip else x0

        return anchor, denoise

    @torch.no_grad()
    def upscale(
        self,
        lr: Tensor,
        *,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> SampleResult:
        require_images(lr, "lr")
        height, width = (self.scale * side for side in lr.shape[-2:])
        padded = _extend(lr, self.multiple // math.gcd(self.multiple, self.scale))
        shape = (len(lr), 3, *(self.scale * side for side in padded.shape[-2:]))
        accelerate(self, lr.device)
        anchor, denoise = self.denoiser(padded)
        result = self.draw(anchor, denoise, shape, steps=steps, generator=generator, progress=progress)
        return SampleResult(image=result.image[..., :height, :width], nfe=result.nfe)

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
        """Images (N, 3, H, W) in [0, 1], from noise around the anchor back to time 0; arguments as in `upscale`."""
        times = self.path.times(self.sampling_steps if steps is None else steps)
        variance = self.variance if self.eta == 1 else "posterior"  # the only one that goes with less noise
        with Progress(len(times) - 1, f"sample {self.kind}", unit="step", enabled=progress) as bar:

            def watched(x_t: Tensor, t: Tensor) -> Tensor:
                x0 = denoise(x_t, t)
                bar.update()
                return x0

            x = self.path.start(anchor, normal(shape, anchor, generator))
            result = ancestral(
                self.path, watched, x, anchor, times, eta=self.eta, variance=variance, generator=generator
            )
        return SampleResult(image=result.image.clamp(0, 1), nfe=result.nfe)


def _extend(lr: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until both sides are multiples; the surplus is cut off after sampling."""
    down, right = (-side % multiple for side in lr.shape[-2:])
    return pad(lr, (0, right, 0, down), mode="replicate")


def normal(shape: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Noise drawn where the generator lives, so that a seed gives the same image on every device."""
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device, dtype=like.dtype).to(like.device)
