"""Ways back from noise to an image: pure functions over an anchored path and a denoiser.

A denoiser is a function `denoise(x_t, t) -> x_0` in the working space of a method; t has shape (N,) and the type of
x_t. Every call counts as one network evaluation. Gradients flow unless the caller turns them off.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from srbook.paths import AnchoredPath, broadcast

Denoiser = Callable[[Tensor, Tensor], Tensor]
Solver = Literal["euler", "heun", "rk4"]


@dataclass(frozen=True)
class SampleResult:
    """The outcome of one `Method.upscale` call, or of one sampler.

    Attributes:
        image: (N, 3, sH, sW) in [0, 1]; from a sampler, the last state in the working space.
        trajectory: intermediate images, first to last, each shaped like `image`; empty when none were kept.
        times: the time of each entry of `trajectory`.
        nfe: number of network evaluations per image; 0 for bicubic, 1 for a regression network.
    """

    image: Tensor
    trajectory: list[Tensor] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    nfe: int = 0


def ancestral(
    path: AnchoredPath,
    denoise: Denoiser,
    x: Tensor,
    anchor: Tensor,
    times: Sequence[float],
    *,
    eta: float = 1.0,
    generator: torch.Generator | None = None,
    keep: bool = False,
) -> SampleResult:
    """Step back through `times` with `AnchoredPath.posterior`, one evaluation each.

    At eta = 1 this is the sampler of DDPM, SR3, SRDiff, ResDiff, ESRDF, and ResShift; at eta = 0 it is DDIM and the
    teacher of SinSR, and draws nothing. Any subset of the times of a path is allowed.

    Args:
        path: the path to walk back.
        denoise: predicts the clean image.
        x: (N, ...) state at `times[0]`, usually `path.start(anchor, noise)`.
        anchor: broadcastable to `x`.
        times: falling, at least two; `path.times(steps)` spaces them evenly. The last may be 0.
        eta: share of fresh noise, in [0, 1].
        generator: source of the noise; None uses torch's global one.
        keep: keep the state at every time.

    Returns:
        The state at the last time; nfe is the number of steps.

    Raises:
        ValueError: `times` do not fall, leave the path, or are too few; or `eta` is out of range.
    """

    def step(x: Tensor, t: float, s: float) -> Tensor:
        mean, std = path.posterior(x, _call(denoise, x, t), anchor, t, s, eta)
        return mean if eta == 0 or s == 0 else mean + std * _normal(x, generator)

    return _walk(path, step, x, times, keep, evaluations=1)


def probability_flow(
    path: AnchoredPath,
    denoise: Denoiser,
    x: Tensor,
    anchor: Tensor,
    times: Sequence[float],
    *,
    solver: Solver = "heun",
    keep: bool = False,
) -> SampleResult:
    """Solve dx/dt = `AnchoredPath.velocity` down the given times: deterministic (Song et al. 2021).

    The error falls with the first, second, or fourth power of the step where the rates of the path are smooth. On
    discrete paths, whole times keep every step inside a smooth piece.

    Args:
        path: the path to walk back.
        denoise: predicts the clean image.
        x: (N, ...) state at `times[0]`.
        anchor: broadcastable to `x`.
        times: falling, at least two, all above 0, where the velocity has no value: `path.times(steps, last=...)`.
        solver: "euler", "heun", or "rk4"; 1, 2, or 4 evaluations a step.
        keep: keep the state at every time.

    Returns:
        The state at the last time, which still has the noise of that time.

    Raises:
        ValueError: `times` do not fall, leave the path, reach 0, or are too few; or the solver is unknown.
    """
    if solver not in get_args(Solver):
        raise ValueError(f"solver must be one of {', '.join(get_args(Solver))}, got {solver!r}")
    if len(times) > 0 and not times[-1] > 0:
        raise ValueError(f"the probability flow must stop at a time above 0, got {times[-1]}; try path.end / 1000")

    def slope(x: Tensor, t: float) -> Tensor:
        return path.velocity(x, _call(denoise, x, t), anchor, t)

    def step(x: Tensor, t: float, s: float) -> Tensor:
        h = s - t
        first = slope(x, t)
        if solver == "euler":
            return x + h * first
        if solver == "heun":
            return x + h / 2 * (first + slope(x + h * first, s))
        second = slope(x + h / 2 * first, t + h / 2)
        third = slope(x + h / 2 * second, t + h / 2)
        return x + h / 6 * (first + 2 * second + 2 * third + slope(x + h * third, s))

    return _walk(path, step, x, times, keep, evaluations={"euler": 1, "heun": 2, "rk4": 4}[solver])


def reverse_sde(
    path: AnchoredPath,
    denoise: Denoiser,
    x: Tensor,
    anchor: Tensor,
    times: Sequence[float],
    *,
    eta: float = 1.0,
    generator: torch.Generator | None = None,
    keep: bool = False,
) -> SampleResult:
    """Integrate the reverse stochastic equation by Euler-Maruyama, one evaluation a step (Song et al. 2021).

    dx = (velocity - eta^2 g^2 score / 2) dt + eta g dw, backward in time. eta = 1 is the reverse of the process and
    eta = 0 the probability flow by Euler's method; the exact solutions have the same marginals for every eta.

    Args:
        path: the path to walk back; its scale must be positive.
        denoise: predicts the clean image.
        x: (N, ...) state at `times[0]`.
        anchor: broadcastable to `x`.
        times: falling, at least two. The last may be 0: the equation is evaluated at the start of each step.
        eta: share of fresh noise, in [0, 1].
        generator: source of the noise; None uses torch's global one.
        keep: keep the state at every time.

    Returns:
        The state at the last time; nfe is the number of steps.

    Raises:
        ValueError: `times` do not fall, leave the path, or are too few; or `eta` or the scale is out of range.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], got {eta}; 0 is the probability flow, 1 the reverse process")
    if path.scale == 0:
        raise ValueError("a path of scale 0 has no stochastic equation; use ancestral or probability_flow")

    def step(x: Tensor, t: float, s: float) -> Tensor:
        mean, std = euler_maruyama(path, x, _call(denoise, x, t), anchor, t, s, eta)
        return mean if eta == 0 else mean + std * _normal(x, generator)

    return _walk(path, step, x, times, keep, evaluations=1)


def euler_maruyama(
    path: AnchoredPath, x_t: Tensor, x0: Tensor, anchor: Tensor, t: float, s: float, eta: float = 1.0
) -> tuple[Tensor, Tensor]:
    """One step of `reverse_sde` from time t to s, without its noise.

    Args:
        path: the path; its scale must be positive.
        x_t: (N, ...) state at time t.
        x0: predicted clean images, shaped like `x_t`.
        anchor: broadcastable to `x_t`.
        t: time above 0.
        s: time below t.
        eta: share of fresh noise, in [0, 1].

    Returns:
        The mean, shaped like `x_t`, and the standard deviation eta g_t sqrt(t - s), shape ().

    Raises:
        ValueError: a time is out of range.
    """
    mean, std = path.marginal(x0, anchor, t)
    score = (mean - x_t) / std.square()
    g = broadcast(path.diffusion(t), x_t)
    drift = path.velocity(x_t, x0, anchor, t) - eta**2 * g.square() / 2 * score
    return x_t - (t - s) * drift, eta * g * math.sqrt(t - s)


def _walk(
    path: AnchoredPath,
    step: Callable[[Tensor, float, float], Tensor],
    x: Tensor,
    times: Sequence[float],
    keep: bool,
    evaluations: int,
) -> SampleResult:
    times = [float(t) for t in times]
    if len(times) < 2 or any(not later > earlier for later, earlier in pairwise(times)):
        raise ValueError(f"times must fall, and be at least two, got {times}; path.times(steps) makes them")
    if not (times[0] <= path.end and times[-1] >= 0):  # before any work is done
        raise ValueError(f"times of this path lie in [0, {path.end}], got {times[0]} down to {times[-1]}")
    trajectory = [x] if keep else []
    for t, s in pairwise(times):
        x = step(x, t, s)
        if keep:
            trajectory.append(x)
    return SampleResult(x, trajectory, times if keep else [], evaluations * (len(times) - 1))


def _call(denoise: Denoiser, x: Tensor, t: float) -> Tensor:
    return denoise(x, x.new_full((len(x),), t))


def _normal(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Noise drawn where the generator lives, so that a seed gives the same image on every device."""
    device = x.device if generator is None else generator.device
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device).to(x.device)
