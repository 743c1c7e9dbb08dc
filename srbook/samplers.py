"""What every way of producing a high-resolution image returns."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class SampleResult:
    """The outcome of one `Method.upscale` call.

    Attributes:
        image: (N, 3, sH, sW) in [0, 1].
        trajectory: intermediate images, first to last, each shaped like `image`; empty when none were kept.
        times: the time of each entry of `trajectory`.
        nfe: number of network evaluations per image; 0 for bicubic, 1 for a regression network.
    """

    image: Tensor
    trajectory: list[Tensor] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    nfe: int = 0
