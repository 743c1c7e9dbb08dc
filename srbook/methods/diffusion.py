"""What the diffusion methods share: an anchored path in a space, and a network that predicts from x_t."""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from srbook.arguments import require_instance
from srbook.images import require_floats
from srbook.methods.base import Method, Stage
from srbook.objectives import Distance, denoising_losses, draw_steps
from srbook.parametrizations import Kind, to_x0
from srbook.paths import AnchoredPath
from srbook.progress import Progress
from srbook.random import normal
from srbook.samplers import SampleResult, Variance, ancestral
from srbook.spaces import Pixels, Space

DIFFUSION = Stage("diffusion", trains=("network",), loss="denoising_loss", upscale="sample_image", samples=True)


@dataclass(frozen=True)
class Condition:
    """What a method computes once per low-resolution image, and uses at every step.

    Attributes:
        anchor: where the path ends, broadcastable to x.
        context: what the network is told beside x_t; None for nothing.
    """

    anchor: Tensor
    context: Tensor | Sequence[Tensor] | None = None


class Diffusion(Method):
    """A method on an anchored path: x_t = anchor + a_t (x_0 - anchor) + sigma s_t noise, in a space.

    A subclass makes the condition and calls the network.

    Args:
        path: from x_0 to x_t.
        multiple: the network takes x whose sides are multiples of this.
        least: and at least as long as this.
        space: where the path lives.

    Attributes:
        predicts: the kind of the network's output, see `srbook.parametrizations`.
        clips: sampling keeps predictions within one sigma of the anchor, unless it is told otherwise.
        distance: of the training loss, "l2" or "l1".
        by_score: training weighs errors as those of the score, see `srbook.objectives.denoising_losses`.
        sampling_steps: steps of `upscale` unless it is told otherwise; None takes all steps of the path.
        variance: of the fresh noise of a sampling step, see `srbook.samplers.ancestral`.
        eta: the share of that noise that is drawn.
    """

    stages = (DIFFUSION,)
    predicts: ClassVar[Kind] = "eps"
    clips: ClassVar[bool] = True
    distance: Distance = "l2"
    by_score: bool = False
    sampling_steps: int | None = None
    variance: Variance = "posterior"
    eta: float = 1.0

    def __init__(self, scale: int, *, path: AnchoredPath, multiple: int, space: Space | None = None, least: int = 1):
        super().__init__(scale)
        if self.clips and path.sigma == 0:
            raise ValueError(f"a path with sigma = 0 leaves nothing within sigma; set {self.kind}'s clips to False")
        self.path, self.multiple, self.least, self.space = path, multiple, least, space or Pixels()
        if self.sampling_steps is not None:
            path.times(self.sampling_steps)  # refuses an impossible number now

    @property
    def unit(self) -> int:
        """Sides of the small image are extended to multiples of so many pixels, and tiles begin on them."""
        multiple = self.multiple * self.space.factor
        return multiple // math.gcd(multiple, self.scale)

    @abstractmethod
    def condition(self, lr: Tensor) -> Condition:
        """The anchor and the context of low-resolution images (N, 3, H, W) in [0, 1]."""

    @abstractmethod
    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The network's output, of the kind `predicts`, for x_t (N, ...) at times `t` (N,)."""

    def denoise(self, x_t: Tensor, t: Tensor, condition: Condition, *, clip: bool | None = None) -> Tensor:
        """The clean x_0 that the network sees in x_t.

        With a condition given, `partial(method.denoise, condition=condition)` is what samplers ask for.

        Args:
            x_t: (N, ...) states at the times `t`.
            t: (N,) times.
            condition: what `condition` made of the low-resolution images.
            clip: keep the prediction within one sigma of the anchor: for an anchor of mid-gray and sigma = 0.5 that is
                [0, 1]. None does what the published program of the method does.
        """
        output = self.predict(x_t, t, condition).to(x_t.dtype)
        return self.clipped(to_x0(self.path, self.predicts, output, x_t, condition.anchor, t), condition, clip)

    def clipped(self, x0: Tensor, condition: Condition, clip: bool | None) -> Tensor:
        """`x0` as `denoise` gives it back."""
        clip = self.clips if clip is None else clip
        return within_sigma(self.path, x0, condition.anchor) if clip else x0

    def draw_times(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Times for a training batch, (count,): whole steps."""
        return draw_steps(self.path, count, generator, device)

    def clean(self, hr: Tensor, condition: Condition) -> Tensor:
        """The x_0 that training aims at: the truth in the method's space."""
        return self.space.encode(hr)

    def denoising_loss(self, hr: Tensor, lr: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The loss of the stage "diffusion", at random times of the path."""
        condition = self.condition(lr)
        t = self.draw_times(len(hr), generator, hr.device)
        x0 = self.clean(hr, condition)
        return self.losses(x0, condition, t, normal(x0.shape, x0, generator))

    def losses(self, x0: Tensor, condition: Condition, t: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """`denoising_loss` for given x_0, times (N,), and noise shaped like x_0."""
        predict = partial(self.predict, condition=condition)
        return denoising_losses(
            self.path, self.predicts, predict, x0, condition.anchor, t, noise, self.distance, by_score=self.by_score
        )

    def sampling_times(self, steps: int | None) -> list[float]:
        """The times of sampling in `steps` steps, falling to 0; None takes all steps of the path."""
        return self.path.times(int(self.path.end) if steps is None else steps)

    def sample(
        self,
        condition: Condition,
        noise: Tensor,
        *,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> SampleResult:
        """From noise at the end of the path back to x_0 in the space of the method; `space.decode` makes it an image.

        Args:
            condition: as `condition` gives it.
            noise: (N, channels, H, W) of the space, standard normal: where sampling starts.
            steps, generator, progress: as in `upscale`; the generator draws the noise of the steps.
        """
        require_instance("condition", condition, Condition, "method.condition(lr) makes it")
        require_floats(noise, "noise")
        times = self.sampling_times(self.sampling_steps if steps is None else steps)
        variance = self.variance if self.eta == 1 else "posterior"  # the only one that goes with less noise
        with Progress(len(times) - 1, f"sample {self.kind}", unit="step", enabled=progress) as bar:

            def denoise(x_t: Tensor, t: Tensor) -> Tensor:
                x0 = self.denoise(x_t, t, condition)
                bar.update()
                return x0

            x, anchor = self.path.start(condition.anchor, noise, times[0]), condition.anchor
            return ancestral(self.path, denoise, x, anchor, times, eta=self.eta, variance=variance, generator=generator)

    def sample_image(
        self, lr: Tensor, *, steps: int | None, generator: torch.Generator | None, progress: bool
    ) -> SampleResult:
        """`upscale` of the stage "diffusion": sample in the space, and decode."""
        sample = partial(self.sample, steps=steps, generator=generator, progress=progress)
        return self.decoded(lr, generator, sample)

    def decoded(
        self, lr: Tensor, generator: torch.Generator | None, sample: Callable[[Condition, Tensor], SampleResult]
    ) -> SampleResult:
        """The image of the x_0 that `sample` makes of a condition and noise, for `lr` of any size."""
        height, width = (self.scale * side for side in lr.shape[-2:])
        least = math.ceil(self.least * self.space.factor / self.scale)
        padded = _extend(lr, self.unit, least)
        sides = [self.scale * side // self.space.factor for side in padded.shape[-2:]]
        condition = self.condition(padded)
        noise = normal((len(lr), self.space.channels, *sides), condition.anchor, generator)
        result = sample(condition, noise)
        return SampleResult(image=self.space.decode(result.image)[..., :height, :width], nfe=result.nfe)


def within_sigma(path: AnchoredPath, x: Tensor, anchor: Tensor) -> Tensor:
    """`x` brought within one sigma of the anchor."""
    return anchor + (x - anchor).clamp(-path.sigma, path.sigma)


def _extend(lr: Tensor, multiple: int, least: int) -> Tensor:
    """Repeat the last row and column until both sides are multiples of at least `least`.

    The surplus is cut off after sampling.
    """
    down, right = (multiple * math.ceil(max(side, least) / multiple) - side for side in lr.shape[-2:])
    return pad(lr, (0, right, 0, down), mode="replicate")
