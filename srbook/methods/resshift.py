"""ResShift: shift the residual between the small image and the large one, with noise that grows along, in few steps."""

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from srbook.arguments import require_integer
from srbook.codecs import read_codec
from srbook.codecs.base import build_codec
from srbook.degradations import bicubic_upsample
from srbook.frozen import Frozen
from srbook.methods.diffusion import Condition, Diffusion
from srbook.metrics import lpips
from srbook.networks import SwinUNet
from srbook.paths import ResidualShift, broadcast
from srbook.random import normal
from srbook.schedules import resshift_sqrt_etas
from srbook.spaces import Latent, Space, Unshuffled

Prediction = Literal["x0", "residual"]
PerceptualNet = Literal["alex", "vgg", "squeeze"]
Respacing = Literal["even", "released"]


class ResShift(Diffusion):
    """Super-resolution by residual shifting (Yue, Wang, and Loy 2023; 2024 with the perceptual term).

    The path leads from the clean latent to the one of the bicubic image, with noise of deviation kappa sqrt(eta_t). The
    network sees x_t beside the low-resolution image, is told the zero-based step, and predicts the clean latent.
    Training weighs all steps alike, without the weights of the evidence lower bound.

    Without a codec the same program works on pixels, unshuffled to the size of a latent.

    The released program (github.com/zsyOAOA/ResShift, commit 3ce1d81, models/gaussian_diffusion.py) upscales by torch's
    bicubic before it encodes; here it is MATLAB's. It drops a perceptual term that is not a number, an accident of its
    float16 that float32 does not have.

    Args:
        schedule: arguments of `srbook.schedules.resshift_sqrt_etas` but kappa.
        network: arguments of `srbook.networks.SwinUNet` but its channels and halvings.
        kappa: strength of the noise, in the units of the space. 0 gives a path without noise, on the schedule that
            kappa = 1 has.
        codec: whose latent the path lives in: a file or name for `srbook.codecs.read_codec`, or a description, see
            `described`. None for pixels.
        unshuffle: side of the blocks of pixels that become channels, without a codec; 1 for plain pixels. Where x is
            larger than the low-resolution image, the network sees the bicubic one instead.
        predicts: what the network does: "x0" in the released configurations, or "residual", which the program can do,
            too. The error is the same, but a residual begins near the bicubic image: better for small budgets.
        perceptual: weight of LPIPS between the decoded prediction and the truth, through the frozen decoder; 1 in the
            journal's version, 0 in the first one.
        perceptual_net: whose features LPIPS compares; "vgg" in the released configurations.
        respacing: which of the T times fewer steps keep. "even" starts at T. "released" keeps 1 + floor(T k / steps) as
            the program does: the last of them is below T, where the small image alone is a worse start.
        sampling_steps: steps of `upscale`; None takes all.
    """

    kind = "resshift"
    clips = False  # not within sigma, see `clipped`

    def __init__(
        self,
        *,
        scale: int,
        schedule: dict[str, Any],
        network: dict[str, Any],
        kappa: float = 2.0,
        codec: str | dict[str, Any] | None = None,
        unshuffle: int = 4,
        predicts: Prediction = "x0",
        perceptual: float = 0.0,
        perceptual_net: PerceptualNet = "vgg",
        respacing: Respacing = "even",
        sampling_steps: int | None = None,
    ):
        if not 0 <= perceptual < math.inf:
            raise ValueError(f"perceptual must be a weight of at least 0, got {perceptual}")
        frozen = None if codec is None else frozen_codec(codec)
        space = Unshuffled(unshuffle) if frozen is None else Latent(frozen.module)
        unet = SwinUNet(space.channels, *_beside(space, scale), **network)
        path = ResidualShift(resshift_sqrt_etas(kappa=max(kappa, 1.0), **schedule), kappa)
        super().__init__(scale, path=path, multiple=unet.multiple, space=space)
        self.codec, self.network = frozen, unet
        if frozen is not None and "codec" in self.arguments:  # a subclass may fix it
            self.arguments["codec"] = described(frozen, codec if isinstance(codec, str) else codec["file"])

    def condition(self, lr: Tensor) -> Condition:
        with torch.no_grad():
            anchor = self.space.encode(bicubic_upsample(lr, self.scale))
        return Condition(anchor, context=2 * lr - 1 if self.space.factor >= self.scale else anchor)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The clean latent or the residual, from x_t at a spread of about 1, the zero-based step, and the condition."""
        return self.network(x_t / broadcast(self.spread(t), x_t), t - 1, condition.context)

    def spread(self, t: Tensor) -> Tensor:
        """What the network's x_t is divided by: the deviation of x_t if that of a latent is 1, or the reach of pixels.

        With sigma_t = kappa sqrt(eta_t), it is sqrt(1 + sigma_t^2), or 1 + 3 sigma_t for pixels, three deviations
        beyond [-1, 1] (`_scale_input` of the program). Implements :eq:`eq-resshift-input`.
        """
        noise = self.path.sigma * self.path.level(t)
        return 1 + 3 * noise if self.codec is None else (1 + noise.square()).sqrt()

    def clipped(self, x0: Tensor, condition: Condition, clip: bool | None) -> Tensor:
        """`x0` in [-1, 1], unless it is a latent, which has no bounds."""
        clip = self.codec is None if clip is None else clip
        return x0.clamp(-1, 1) if clip else x0

    def denoising_loss(self, hr: Tensor, lr: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        condition = self.condition(lr)
        t, x0 = self.draw_times(len(hr), generator, hr.device), self.clean(hr, condition)
        return self.losses(x0, condition, t, normal(x0.shape, x0, generator), hr)

    def losses(
        self, x0: Tensor, condition: Condition, t: Tensor, noise: Tensor, hr: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The squared error of x_0 ("l2"), and LPIPS of its image against `hr` ("perceptual") if it has a weight.

        Implements :eq:`eq-resshift-loss`.
        """
        x_t = self.path.perturb(x0, condition.anchor, t, noise)
        predicted = self.denoise(x_t, t, condition, clip=False)
        terms = {"l2": mse_loss(predicted, x0)}
        if self.perceptual == 0:
            return {"loss": terms["l2"], **terms}
        if hr is None:
            raise ValueError("the perceptual term compares images: pass hr (N, 3, H, W), or set perceptual to 0")
        terms["perceptual"] = lpips(self.space.decode(predicted), hr, net=self.perceptual_net).mean()
        return {"loss": terms["l2"] + self.perceptual * terms["perceptual"], **terms}

    def sampling_times(self, steps: int | None) -> list[float]:
        times = super().sampling_times(steps)
        if self.respacing == "even":
            return times
        kept = len(times) - 1
        return [float(1 + int(self.path.end) * k // kept) for k in reversed(range(kept))] + [0.0]


def frozen_codec(codec: str | dict[str, Any]) -> Frozen:
    """The codec of a file or name, or of a description. Only with a description it may be missing, see `Frozen`."""
    if isinstance(codec, str):
        return Frozen(read_codec(codec))
    if codec.keys() != {"file", "kind", "arguments"}:
        raise ValueError(f"a codec is a file, or described by its file, kind, and arguments, got {codec!r}")
    try:
        return Frozen(read_codec(codec["file"]))
    except FileNotFoundError:
        with torch.device("meta"):
            return Frozen(build_codec(codec["kind"], codec["arguments"]))


def described(frozen: Frozen, file: str) -> dict[str, Any]:
    """A codec's file or name, kind, and arguments: what rebuilds it where it is not, for a file that carries it."""
    return {"file": file, "kind": frozen.module.kind, "arguments": frozen.module.arguments}


def _beside(space: Space, scale: int) -> tuple[int, int]:
    """Channels of what the network sees beside x, and how often they are halved to reach the size of x."""
    require_integer("scale", scale, 2)
    if space.factor < scale:
        return space.channels, 0  # the bicubic image
    halvings = math.log2(space.factor / scale)
    if halvings != int(halvings):
        raise ValueError(
            f"the low-resolution image must be 1, 2, 4, ... times as large as x, but the space has one position for "
            f"{space.factor} pixels of an axis and the scale is {scale}"
        )
    return 3, int(halvings)
