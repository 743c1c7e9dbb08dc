"""Networks that can be run backward: nothing of their input is lost, so they keep the high frequencies."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu

from srbook.arguments import require_choice, require_counts, require_numbers
from srbook.images import require_maps

Inner = Literal["convolutions", "inverted"]


class Coupling(nn.Module):
    """An affine coupling (Dinh, Sohl-Dickstein, and Bengio 2017) with an exponent, as in CDDFuse and HF-Diff.

    The channels are halved to u and v, and

        v <- v + shift(u),        u <- u * exp(scale(v)) + offset(v).

    Each line leaves one half as it is, so it can be undone whatever the three networks are. HF-Diff's equation 5.

    Implements :eq:`eq-hfdiff-coupling`.

    Args:
        width: channels, an even number.
        inner: the three networks: "convolutions", two of 3x3 with a leaky ReLU (HF-Diff's text says "two-layer CNN"),
            of which the last starts at 0, or "inverted", CDDFuse's (`InvertedResidual`).
        mixing: a 1x1 convolution before halving, so that all channels meet. It starts as a rotation. CDDFuse has it,
            HF-Diff's equation does not; without it the halves change places.
        bound: of the exponent's magnitude, by bound * tanh(exponent / bound); None leaves it free, as in CDDFuse.
    """

    def __init__(self, width: int, *, inner: Inner = "convolutions", mixing: bool = True, bound: float | None = 2.0):
        super().__init__()
        require_counts(width=width)
        require_choice("inner", inner, Inner)
        if width % 2:
            raise ValueError(f"width must be even, for two halves, got {width}")
        if bound is not None:
            require_numbers(bound=bound)
            if not 0 < bound < math.inf:
                raise ValueError(f"bound must be positive, or None for no bound, got {bound}")
        network = {"convolutions": TwoConvolutions, "inverted": InvertedResidual}[inner]
        self.width, self.bound = width, bound
        self.mixing = nn.Conv2d(width, width, 1) if mixing else None
        if mixing:
            nn.init.orthogonal_(self.mixing.weight.flatten(1))
        self.shift, self.scale, self.offset = (network(width // 2) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) to the same shape."""
        require_maps(x, self.width, "x")
        u, v = (x if self.mixing is None else self.mixing(x)).chunk(2, dim=1)
        v = v + self.shift(u)
        u = u * self._factor(v) + self.offset(v)
        return torch.cat([u, v] if self.mixing is not None else [v, u], dim=1)

    def inverse(self, y: Tensor) -> Tensor:
        """What `forward` made `y` of, up to rounding. Implements :eq:`eq-hfdiff-inverse`."""
        require_maps(y, self.width, "y")
        u, v = y.chunk(2, dim=1) if self.mixing is not None else y.chunk(2, dim=1)[::-1]
        u = (u - self.offset(v)) / self._factor(v)
        v = v - self.shift(u)
        x = torch.cat([u, v], dim=1)
        if self.mixing is None:
            return x
        weight = torch.linalg.inv(self.mixing.weight[:, :, 0, 0])
        return conv2d(x - self.mixing.bias.view(-1, 1, 1), weight[:, :, None, None])

    def _factor(self, v: Tensor) -> Tensor:
        exponent = self.scale(v)
        return (exponent if self.bound is None else self.bound * torch.tanh(exponent / self.bound)).exp()


class InvertibleNetwork(nn.Sequential):
    """Couplings in a row; arguments other than `depth` are those of `Coupling`."""

    def __init__(
        self,
        width: int = 64,
        depth: int = 3,
        *,
        inner: Inner = "convolutions",
        mixing: bool = True,
        bound: float | None = 2.0,
    ):
        require_counts(depth=depth)
        super().__init__(*(Coupling(width, inner=inner, mixing=mixing, bound=bound) for _ in range(depth)))

    def inverse(self, y: Tensor) -> Tensor:
        """What `forward` made `y` of, up to rounding."""
        for coupling in reversed(self):
            y = coupling.inverse(y)
        return y


class TwoConvolutions(nn.Module):
    """3x3, leaky ReLU, 3x3; it starts at 0, so that a fresh coupling changes nothing."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.last = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(leaky_relu(self.first(x), 0.2))


class InvertedResidual(nn.Sequential):
    """MobileNet's inverted bottleneck (Sandler et al. 2018) as CDDFuse has it: twice as wide inside, no biases."""

    def __init__(self, width: int):
        inner = 2 * width
        super().__init__(
            nn.Conv2d(width, inner, 1, bias=False),
            nn.ReLU6(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(inner, inner, 3, groups=inner, bias=False),
            nn.ReLU6(),
            nn.Conv2d(inner, width, 1, bias=False),
        )


class FrequencyExtractor(nn.Module):
    """HF-Diff's features: a residual block to `width` channels, and an invertible network; the size stays.

    `classes` brings a classifier, by which the features are trained: strided convolutions, the mean, and a linear
    layer. The paper trains it on ImageNet.

    Args:
        width, depth, inner, mixing, bound: as in `InvertibleNetwork`; the paper does not say its width and depth.
        classes: of the classifier.
    """

    def __init__(
        self,
        classes: int,
        *,
        width: int = 64,
        depth: int = 3,
        inner: Inner = "convolutions",
        mixing: bool = True,
        bound: float | None = 2.0,
    ):
        super().__init__()
        require_counts(classes=classes, width=width, depth=depth)
        self.entry, self.body = (
            nn.Conv2d(3, width, 1),
            nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)),
        )
        self.invertible = InvertibleNetwork(width, depth, inner=inner, mixing=mixing, bound=bound)
        self.head = nn.Sequential(
            *(part for _ in range(3) for part in (nn.Conv2d(width, width, 3, stride=2, padding=1), nn.ReLU())),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, classes),
        )

    def features(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] to (N, width, H, W)."""
        require_maps(image, 3, "image")
        return self.invertible(self.entry(image) + self.body(image))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] to the scores of the classes (N, classes)."""
        return self.head(self.features(image))
