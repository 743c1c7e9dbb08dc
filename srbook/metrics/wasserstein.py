"""How far a distribution is from the Gaussian that diffusion turns it into, by the transport of mass.

The distance is Wasserstein's of order 2: the root of the mean squared way that mass must go. In one dimension the
shortest way keeps the order of the values, so sorting solves it; in more dimensions we project on random lines.
Distances are float64 on the CPU, in the units of the samples, and differentiable.
"""

import math

import torch
from torch import Tensor

from srbook.arguments import require_integer, require_numbers
from srbook.images import require_floats
from srbook.random import require_generator


def wasserstein_to_gaussian(samples: Tensor, mean: float | Tensor = 0.0, std: float | Tensor = 1.0) -> Tensor:
    """Distance between each entry's sampled distribution and the Gaussian N(mean, std^2), shaped like `samples[0]`.

    Implements :eq:`eq-wasserstein` without its integral. With u_(1) <= ... <= u_(M) the sorted samples and q the
    quantile function of the Gaussian, W^2 = sum over i of the integral of (u_(i) - q(v))^2 over v from (i - 1) / M to
    i / M. The integrals of q are differences of the Gaussian density, so this is exact for the given samples. Samples
    themselves vary: even M draws from the Gaussian are about sqrt(log(log M) / M) std away from it.

    For a path, take residuals x_0 - anchor against N(0, sigma^2): pooled as `residual.reshape(-1)`, or one distance per
    pixel and channel as (N, 3, H, W).

    Args:
        samples: (M, ...), floating point; each of the other positions is a distribution of its own.
        mean: of the Gaussian, a number or broadcastable to `samples[0]`.
        std: of the Gaussian, not negative, a number or broadcastable to `samples[0]`. At 0 it is a point.

    Raises:
        TypeError: not a float tensor.
        ValueError: no samples, values that are not finite, or a negative `std`.
    """
    samples = _require_samples(samples)
    _require_numbers(mean=mean, std=std)
    mean, std = (torch.as_tensor(value, dtype=torch.float64, device="cpu") for value in (mean, std))
    if not bool((std >= 0).all()):
        raise ValueError(f"std must not be negative, got {std.min().item()}")
    quantiles, spread = _gaussian_cells(len(samples))
    ordered = (samples - mean).movedim(0, -1).contiguous().sort(dim=-1).values
    off = ordered - std[..., None] * quantiles
    return (off.square().mean(dim=-1) + std.square() * spread).sqrt()


def sliced_wasserstein_to_gaussian(
    samples: Tensor,
    mean: float | Tensor = 0.0,
    std: float = 1.0,
    *,
    directions: int = 128,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Distance between vectors and the Gaussian N(mean, std^2 I), along random lines (Bonneel et al. 2015).

    The root of the mean over unit vectors of the squared distance between the projections, each exact as in
    `wasserstein_to_gaussian`. It depends on how the entries of a vector hang together, which distances per entry do
    not. Vectors of 3 p p numbers from patches of p x p pixels: `torch.nn.functional.unfold(images, p,
    stride=p).transpose(1, 2).flatten(0, 1)`.

    Args:
        samples: (M, D), floating point.
        mean: of the Gaussian, a number or (D,).
        std: of the Gaussian along every line, not negative.
        directions: number of random lines, at least 1.
        generator: source of the directions; None uses torch's global one.

    Raises:
        TypeError: not a float tensor.
        ValueError: not two axes, no samples, values that are not finite, no direction, or a negative `std`.
    """
    samples = _require_samples(samples)
    if samples.ndim != 2:
        raise ValueError(f"samples must have shape (M, D), got {tuple(samples.shape)}; flatten patches to vectors")
    require_integer("directions", directions, 1)
    require_generator(generator)
    _require_numbers(mean=mean, std=std)
    device = "cpu" if generator is None else generator.device
    lines = torch.randn(samples.shape[1], directions, generator=generator, dtype=torch.float64, device=device).cpu()
    lines = lines / lines.norm(dim=0)
    shifted = samples - torch.as_tensor(mean, dtype=torch.float64, device="cpu")
    return wasserstein_to_gaussian(shifted @ lines, 0.0, std).square().mean().sqrt()


def _gaussian_cells(count: int) -> tuple[Tensor, float]:
    """The standard Gaussian in `count` cells of equal mass: the mean of each, and the mean variance inside them."""
    edges = torch.special.ndtri(torch.arange(count + 1, dtype=torch.float64, device="cpu") / count)
    density = torch.exp(-edges.square() / 2) / math.sqrt(2 * math.pi)  # 0 at both infinite ends
    means = -count * torch.diff(density)
    return means, max(0.0, 1 - means.square().mean().item())


def _require_samples(samples: Tensor) -> Tensor:
    require_floats(samples, "samples")
    if samples.ndim < 1 or samples.numel() == 0:
        raise ValueError(f"samples must have shape (M, ...) with at least one value, got {tuple(samples.shape)}")
    if not bool(samples.isfinite().all()):
        raise ValueError("samples must be finite, but some are nan or infinite")
    return samples.cpu().double()


def _require_numbers(**values: float | Tensor) -> None:
    for name, value in values.items():
        if not isinstance(value, Tensor):
            require_numbers(**{name: value})
        if not bool(torch.as_tensor(value).isfinite().all()):
            raise ValueError(f"{name} must be finite, got {value}")
