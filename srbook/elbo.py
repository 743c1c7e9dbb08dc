"""The evidence lower bound of a diffusion model, term by term.

With x_0 an image of 8 bits per value, the negative log-likelihood of the model is at most the sum of

* the prior term, KL(q(x_T | x_0) || p(x_T)): what x_T still tells about the image;
* one term for each step back but the last, KL(q(x_s | x_t, x_0) || p(x_s | x_t));
* the decoder term, -log p(x_0 | x_t) at the smallest time, for the 8-bit level of each value.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from srbook.arguments import require_choice, require_function
from srbook.images import require_floats
from srbook.paths import AnchoredPath, Time, broadcast, require_fitting, require_path
from srbook.random import normal
from srbook.samplers import Denoiser, Variance, falling

HALF_BIN = 0.5 / 255


def gaussian_kl(mean1: Tensor, std1: Tensor, mean2: Tensor, std2: Tensor) -> Tensor:
    """KL(N(mean1, std1^2) || N(mean2, std2^2)) in nats, elementwise; implements :eq:`eq-gaussian-kl`.

    The four arguments are broadcast. For vectors with independent entries, sum the result. A standard deviation that is
    not positive is a ValueError.
    """
    require_fitting(mean1, "mean1", mean2=mean2)
    for name, std in {"std1": std1, "std2": std2}.items():
        require_floats(std, name)
        require_fitting(mean1, "mean1", **{name: std})
    if not bool((std1 > 0).all() and (std2 > 0).all()):
        raise ValueError(f"standard deviations must be positive, got down to {std1.min():.4g} and {std2.min():.4g}")
    ratio = std1 / std2
    return 0.5 * (ratio.square() - 1 + ((mean1 - mean2) / std2).square()) - ratio.log()


def noise_weight(path: AnchoredPath, t: Time, s: Time, variance: Variance = "posterior") -> Tensor:
    """The weight of a wrong noise in the bound, for the step from t to s; implements :eq:`eq-elbo-weight`.

    The step's term is weight * |noise - predicted noise|^2, in nats, plus a constant that is zero for the variance of
    the posterior. On DDPM's path the weight is beta_t^2 / (2 sigma_t^2 alpha_t (1 - abar_t)) for neighbors t and
    s = t - 1. The simple loss has the weight 1 instead. Weights are float64, shaped like the times.

    Args:
        path: its sigma must be positive.
        t: times in (0, end].
        s: times in [0, t). At 0 the posterior's variance is zero, and its weight infinite.
        variance: of the model's step, as in `elbo_terms`.

    Raises:
        ValueError: the path has no noise, a time is out of range, or the variance is unknown.
    """
    _require(path, variance)
    one = torch.ones(torch.broadcast_shapes(path.level(t).shape, path.level(s).shape), dtype=torch.float64)
    pull, _ = path.posterior(0 * one, one, 0 * one, t, s)  # how far the mean follows the predicted image
    # A noise that is wrong by one moves the predicted image by sigma s_t / a_t.
    moved = pull * path.sigma * path.level(t) / path.signal(t)
    return moved.square() / (2 * _step_std(path, one, t, s, variance).square())


def elbo_terms(
    path: AnchoredPath,
    denoise: Denoiser,
    x0: Tensor,
    anchor: Tensor,
    *,
    times: Sequence[float],
    variance: Variance = "posterior",
    generator: torch.Generator | None = None,
) -> Tensor:
    """The terms of the bound, each from one draw of the noise; implements :eq:`eq-elbo`.

    The model starts at the anchor with the noise of the first time, as `AnchoredPath.start` does, and steps back like
    `srbook.samplers.ancestral`: each step is a Gaussian around the posterior mean with the predicted image in place of
    the true one. Its standard deviation is that of the posterior, or of the forward step from s to t. The last step
    always takes the latter, since the posterior's is zero there. It counts the mass in the 8-bit bin of each value; the
    bins of 0 and 1 reach to infinity (Ho, Jain, and Abbeel 2020, section 3.3). Fewer times make another model, with its
    own bound.

    Args:
        path: the path; its sigma must be positive.
        denoise: predicts the clean image.
        x0: (N, ...) images of 8 bits per value: multiples of 1 / 255 in [0, 1], the space.
        anchor: broadcastable to `x0`.
        times: K + 1 falling times, the last one 0; `path.times(steps)` makes them.
        variance: "posterior" or "forward", of all steps but the last.
        generator: source of the noise; None uses torch's global one.

    Returns:
        (N, K + 1) float64, in bits per value: the prior term, then one term per step, in the order of `times`. The sum
        over the second axis bounds the bits per value that an ideal code for the model needs, on average.

    Raises:
        ValueError: the path has no noise, `x0` has other values, `times` do not fall to 0, or the variance is unknown.
    """
    _require(path, variance)
    require_function("denoise", denoise)
    require_floats(x0, "x0")
    if x0.ndim < 2 or not bool(((x0 * 255 - (x0 * 255).round()).abs() < 1e-2).all() and ((x0 >= 0) & (x0 <= 1)).all()):
        raise ValueError(
            f"x0 must be (N, ...) with multiples of 1 / 255 in [0, 1], got {tuple(x0.shape)} from {x0.min():.4g} to "
            f"{x0.max():.4g}; srbook.images.round_to_8bit makes them"
        )
    times = falling(path, times)
    if times[-1] != 0:
        raise ValueError(f"times must fall to 0, got {times}; path.times(steps) makes them")
    require_fitting(x0, "x0", anchor=anchor)
    exact, pinned = x0.double(), torch.as_tensor(anchor, dtype=torch.float64, device=x0.device)
    mean, std = path.marginal(exact, pinned, times[0])
    terms = [gaussian_kl(mean, std, pinned, std)]
    for t, s in pairwise(times):
        std = _step_std(path, exact, t, s, "forward" if s == 0 else variance)
        noise = normal(x0.shape, x0, generator)
        x_t = path.perturb(x0, anchor, t, noise)
        predicted = denoise(x_t, x_t.new_full((len(x_t),), t)).double()
        if s == 0:
            terms.append(-_log_bin_mass(exact, predicted, std))
        else:
            mean, true_std = path.posterior(x_t.double(), exact, pinned, t, s)
            terms.append(gaussian_kl(mean, true_std, path.posterior(x_t.double(), predicted, pinned, t, s)[0], std))
    return torch.stack([term.flatten(1).mean(1) for term in terms], dim=1) / math.log(2)


def _step_std(path: AnchoredPath, image: Tensor, t: Time, s: Time, variance: Variance) -> Tensor:
    """Standard deviation of the model's step from t to s, broadcastable to `image`."""
    if variance == "posterior":
        return path.posterior(image, image, image, t, s)[1]
    forward = path.level(t).square() - (path.transition(t, s) * path.level(s)).square()
    return broadcast(path.sigma * forward.sqrt(), image)


def _log_bin_mass(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """log of the mass that N(mean, std^2) puts into the 8-bit bin of each x."""
    distance = -(x - mean).abs()  # in the lower tail, where log_ndtr keeps its digits
    upper, lower = ((distance + side) / std for side in (HALF_BIN, -HALF_BIN))
    log_upper = torch.special.log_ndtr(upper)
    inner = log_upper + torch.log(-torch.expm1(torch.special.log_ndtr(lower) - log_upper))
    black, white = ((side + HALF_BIN) / std for side in (x - mean, mean - x))  # the bins of 0 and 1 have one edge
    return torch.where(x <= 0, torch.special.log_ndtr(black), torch.where(x >= 1, torch.special.log_ndtr(white), inner))


def _require(path: AnchoredPath, variance: str) -> None:
    require_path(path)
    if path.sigma == 0:
        raise ValueError("a path with sigma = 0 has no noise, so its bound is infinite")
    require_choice("variance", variance, Variance)
