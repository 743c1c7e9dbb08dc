"""How a network is told the time: by its sines and cosines through two small layers."""

import torch
from torch import Tensor, nn

from srbook.arguments import require_instance, require_integer
from srbook.numbers import at_least_single


def sinusoidal_embedding(
    time: Tensor, channels: int, *, inclusive: bool = False, cosines_first: bool = False
) -> Tensor:
    """Sines, then cosines of `time` at n = `channels` / 2 frequencies that fall geometrically from 1.

    Frequency k is 10000^(-k / n), which does not reach 1 / 10000 (the released programs of DDPM and SR3), or
    10000^(-k / (n - 1)), which does (SRDiff). Implements :eq:`eq-sr3-embedding`. The result is (N, channels), of the
    type of `time`, or in single precision for integers.

    Args:
        time: (N,): step indices, signals, or continuous times.
        channels: length of the embedding, even, at least 4.
        inclusive: the last frequency is 1 / 10000.
        cosines_first: the cosines, then the sines (ResShift).

    Raises:
        ValueError: `channels` is odd or below 4, or `time` is not one-dimensional.
    """
    require_instance("time", time, Tensor)
    _require_pairs(channels)
    if time.ndim != 1:
        raise ValueError(f"time must have shape (N,), one number per image, got {tuple(time.shape)}")
    count = channels // 2
    exponents = torch.arange(count).to(time) / (count - 1 if inclusive else count)
    angles = time[:, None] * 10000.0**-exponents
    halves = [angles.sin(), angles.cos()]
    return torch.cat(halves[::-1] if cosines_first else halves, dim=1)


class TimeEmbedding(nn.Module):
    """The sinusoidal embedding through two linear layers, the hidden one four times as wide.

    Args:
        channels: length of the sinusoidal embedding.
        activation: between the two layers.
        inclusive, cosines_first: see `sinusoidal_embedding`.
        outputs: length of the result; None for `channels`.
        hidden: what the first layer makes, of which `activation` leaves 4 `channels`; None if it keeps all.
    """

    def __init__(
        self,
        channels: int,
        activation: nn.Module,
        inclusive: bool = False,
        outputs: int | None = None,
        cosines_first: bool = False,
        hidden: int | None = None,
    ):
        super().__init__()
        _require_pairs(channels)
        self.channels, self.inclusive, self.cosines_first = channels, inclusive, cosines_first
        last = nn.Linear(4 * channels, channels if outputs is None else outputs)
        first = nn.Linear(channels, 4 * channels if hidden is None else hidden)
        self.layers = nn.Sequential(first, activation, last)

    def forward(self, time: Tensor) -> Tensor:
        """(N,) of any type to (N, outputs)."""
        like = self.layers[0].weight
        angles = time.to(at_least_single(like))  # half precision would round step 700 to 704
        order = {"inclusive": self.inclusive, "cosines_first": self.cosines_first}
        return self.layers(sinusoidal_embedding(angles, self.channels, **order).to(like))


def _require_pairs(channels: int) -> None:
    require_integer("channels", channels, 1)
    if channels < 4 or channels % 2:
        raise ValueError(f"channels must be even and at least 4, for pairs of sine and cosine, got {channels}")


def require_times(time: Tensor, x: Tensor) -> None:
    """Check that `time` holds one number for each image of `x`; otherwise raise a ValueError."""
    require_instance("time", time, Tensor)
    if time.shape != x.shape[:1]:
        raise ValueError(f"time must have shape ({len(x)},), one number per image, got {tuple(time.shape)}")
