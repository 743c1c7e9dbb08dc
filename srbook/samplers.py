"""Ways back from noise to an image: pure functions over an anchored path and a denoiser.

A denoiser is a function `denoise(x_t, t) -> x_0` in the space of a method; t has shape (N,) and the type of x_t. Every
call counts as one network evaluation. Gradients flow unless the caller turns them off. Samplers return the state at the
last time, and raise a ValueError if the times do not fall, leave the path, or are too few.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from srbook.arguments import require_choice, require_function, require_iterable, require_numbers
from srbook.paths import AnchoredPath, Time, broadcast, require_fitting, require_path
from srbook.random import normal, require_generator

Denoiser = Callable[[Tensor, Tensor], Tensor]
Solver = Literal["euler", "heun", "rk4", "dopri5"]
Variance = Literal["posterior", "forward"]


@dataclass(frozen=True)
class SampleResult:
    """The outcome of one `Method.upscale` call, or of one sampler.

    Attributes:
        image: (N, 3, sH, sW) in [0, 1]; from a sampler, the last state in the space of the method.
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
    variance: Variance = "posterior",
    generator: torch.Generator | None = None,
    keep: bool = False,
) -> SampleResult:
    """Step back through `times` with `AnchoredPath.posterior`, one evaluation each.

    At eta = 1 this is the sampler of DDPM, SR3, SRDiff, ResDiff, ESRDF, and ResShift. At eta = 0 it is DDIM and the
    teacher of SinSR, and draws nothing. Any subset of the times of a path is allowed. The step is :eq:`eq-one-step`; on
    DDPM's path it implements :eq:`eq-ddpm-sampler`, and with SR3's clipped prediction :eq:`eq-sr3-sampler`.

    DDPM (Ho, Jain, and Abbeel 2020, section 3.2) names two variances for the fresh noise of a step. "posterior" would
    be right if the clean images were a single point, and "forward" if they were standard normal. "forward" is the
    variance of the forward step, sigma^2 (s_t^2 - m(t|s)^2 s_s^2): it is beta_t in DDPM's whole steps, and SR3's paper
    takes it. The smaller the steps, the less they differ.

    Args:
        path: the path to walk back.
        denoise: predicts the clean image.
        x: (N, ...) state at `times[0]`, usually `path.start(anchor, noise)`.
        anchor: broadcastable to `x`.
        times: falling, at least two; `path.times(steps)` spaces them evenly. The last may be 0.
        eta: share of fresh noise, in [0, 1].
        variance: of the fresh noise, "posterior" or "forward"; "forward" needs eta = 1. No noise enters at time 0.
        generator: source of the noise; None uses torch's global one.
        keep: keep the state at every time.

    Raises:
        ValueError: `times` or `eta` is out of range, or `variance` is unknown or does not go with `eta`.
    """
    _require(path, denoise, x, anchor, generator)
    require_choice("variance", variance, Variance)
    require_numbers(eta=eta)
    if variance == "forward" and eta != 1:
        raise ValueError(f'variance="forward" needs eta = 1, got eta = {eta}; the variance "posterior" takes any eta')

    def step(x: Tensor, t: float, s: float) -> Tensor:
        mean, std = path.posterior(x, _call(denoise, x, t), anchor, t, s, eta)
        if eta == 0 or s == 0:
            return mean
        if variance == "forward":
            std = std * broadcast(path.level(t) / path.level(s), x)
        return mean + std * normal(x.shape, x, generator)

    return _walk(path, step, x, times, keep, evaluations=1)


def probability_flow(
    path: AnchoredPath,
    denoise: Denoiser,
    x: Tensor,
    anchor: Tensor,
    times: Sequence[float],
    *,
    solver: Solver = "heun",
    rtol: float = 1e-3,
    atol: float = 1e-3,
    keep: bool = False,
    adjoint: Sequence[Tensor] | None = None,
) -> SampleResult:
    """Solve dx/dt = `AnchoredPath.velocity` down the given times: deterministic (Song et al. 2021).

    Implements :eq:`eq-probability-flow`, and its gradients by :eq:`eq-quality-adjoint` and :eq:`eq-quality-gradient`.

    With "euler", "heun", or "rk4" the steps go from time to time, and the error falls with the first, second, or fourth
    power of the step where the rates of the path are smooth. On discrete paths, whole times keep every step inside a
    smooth piece.

    "dopri5" (Dormand and Prince's pair of orders 5 and 4, in torchdiffeq) chooses its own steps between the first and
    the last time. It repeats a step where the root mean square of estimated error / (atol + rtol |x|), over the whole
    batch, is above 1: :eq:`eq-quality-tolerance`. So all images of a batch share their steps, and an image alone may
    take others. The tolerance bounds the error of a step, not of the end. On discrete paths the rates jump at whole
    numbers, and the estimate misses a part of these jumps: with 200 steps an error of about 2e-3 stays however tight
    the tolerance, while the number of evaluations grows. Take "rk4" at whole times there.

    Gradients come by back-propagation through the steps, which keeps the network's features of every step in memory.
    With `adjoint`, a second equation gives them, solved from the last time back to the first together with the flow
    (Chen et al. 2018). Then the memory does not grow with the steps, but the network is evaluated again, and the
    gradients have an error of the order of the tolerance.

    Args:
        path, denoise, x, anchor: as in `ancestral`.
        times: falling, at least two, all above 0, where the velocity has no value: `path.times(steps, last=...)`.
        solver: "euler", "heun", or "rk4" with 1, 2, or 4 evaluations a step; or "dopri5".
        rtol: relative tolerance of "dopri5", positive; the other solvers do not use it.
        atol: absolute tolerance of "dopri5", in units of the space, positive.
        keep: keep the state at every time. Those of "dopri5" are interpolated inside its steps.
        adjoint: every tensor inside `denoise` that shall get a gradient, leaves or not; only with "dopri5". Others, the
            anchor included, get none; `x` always does. None may be computed from another, or the other gets its part
            twice. The tolerances of the way back are meant for a loss that is a mean over values.

    Returns:
        The state at the last time, which still has the noise of that time; nfe counts every evaluation.

    Raises:
        ValueError: `times` are out of range or reach 0; the solver is unknown, or is not "dopri5" although `adjoint` is
            given; or a tolerance is not positive or cannot be met.
    """
    _require(path, denoise, x, anchor)
    require_choice("solver", solver, Solver)
    if adjoint is not None and solver != "dopri5":
        raise ValueError(f'gradients by the adjoint method need solver="dopri5", got {solver!r}')
    times = falling(path, times)
    if not times[-1] > 0:
        raise ValueError(f"the probability flow must stop at a time above 0, got {times[-1]}; try path.end / 1000")

    def slope(x: Tensor, t: float) -> Tensor:
        return path.velocity(x, _call(denoise, x, t), anchor, t)

    if solver == "dopri5":
        return _dormand_prince(slope, x, times, rtol, atol, keep, adjoint)

    def step(x: Tensor, t: float, s: float) -> Tensor:
        h = s - t
        s = math.nextafter(s, t)  # where the rates of a discrete path jump at s, take those of this step
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
    Implements :eq:`eq-reverse-sde`.

    Args:
        path: the path to walk back; its sigma must be positive.
        denoise, x, anchor, eta, generator, keep: as in `ancestral`.
        times: falling, at least two. The last may be 0: the equation is evaluated at the start of each step.

    Raises:
        ValueError: `times`, `eta`, or sigma is out of range.
    """
    _require(path, denoise, x, anchor, generator)
    require_numbers(eta=eta)
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], got {eta}; 0 is the probability flow, 1 the reverse process")
    if path.sigma == 0:
        raise ValueError("a path with sigma = 0 has no stochastic equation; use ancestral or probability_flow")

    def step(x: Tensor, t: float, s: float) -> Tensor:
        mean, std = euler_maruyama(path, x, _call(denoise, x, t), anchor, t, s, eta)
        return mean if eta == 0 else mean + std * normal(x.shape, x, generator)

    return _walk(path, step, x, times, keep, evaluations=1)


def euler_maruyama(
    path: AnchoredPath, x_t: Tensor, x0: Tensor, anchor: Tensor, t: float, s: float, eta: float = 1.0
) -> tuple[Tensor, Tensor]:
    """One step of `reverse_sde` from time t to s, without its noise; discretizes :eq:`eq-reverse-sde`.

    The result is the mean, shaped like `x_t`, and the standard deviation eta g_t sqrt(t - s), shape (). t is above 0
    and above s; x_t, x0, and anchor are as in `AnchoredPath.posterior`, and eta as in `reverse_sde`.
    """
    mean, std = path.marginal(x0, anchor, t)
    score = (mean - x_t) / std.square()
    g = broadcast(path.diffusion(t), x_t)
    drift = path.velocity(x_t, x0, anchor, t) - eta**2 * g.square() / 2 * score
    return x_t - (t - s) * drift, eta * g * math.sqrt(t - s)


def step_coefficients(path: AnchoredPath, t: Time, s: Time, eta: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """How much of x_0, of x_t, and of the anchor the mean of a step back holds: k, m, and j, float64 scalars.

    They sum to 1. At eta = 0 on ResShift's path they are those of SinSR (Wang et al. 2024), :eq:`eq-sinsr-step`; at
    eta = 1 its j is 0. Other eta give the steps between, :eq:`eq-sinsr-family`.
    Arguments and errors are as in `AnchoredPath.posterior`, for one time.
    """
    require_path(path)
    for name, moment in (("t", t), ("s", s)):
        if isinstance(moment, Tensor) and moment.ndim:
            raise ValueError(f"{name} must be one time, got {tuple(moment.shape)}")
    x0, x_t, anchor = torch.eye(3, dtype=torch.float64)
    k, m, j = path.posterior(x_t, x0, anchor, t, s, eta)[0]
    return k, m, j


def _walk(
    path: AnchoredPath,
    step: Callable[[Tensor, float, float], Tensor],
    x: Tensor,
    times: Sequence[float],
    keep: bool,
    evaluations: int,
) -> SampleResult:
    times = falling(path, times)
    trajectory = [x] if keep else []
    for t, s in pairwise(times):
        x = step(x, t, s)
        if keep:
            trajectory.append(x)
    return SampleResult(x, trajectory, times if keep else [], evaluations * (len(times) - 1))


def _dormand_prince(
    slope: Callable[[Tensor, float], Tensor],
    x: Tensor,
    times: list[float],
    rtol: float,
    atol: float,
    keep: bool,
    adjoint: Sequence[Tensor] | None,
) -> SampleResult:
    require_numbers(rtol=rtol, atol=atol)
    if not (0 < rtol < math.inf and 0 < atol < math.inf):
        raise ValueError(f"rtol and atol must be positive, got rtol={rtol} and atol={atol}")
    from torchdiffeq import odeint, odeint_adjoint

    evaluations = 0
    kind = x.device.type
    autocast = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)

    def counted(t: Tensor, x: Tensor) -> Tensor:
        nonlocal evaluations
        evaluations += 1
        # The solver rounds t to the type of x.
        moment = min(max(float(t.detach()), times[-1]), times[0])
        if adjoint is None:
            return slope(x, moment)
        # The adjoint equation is solved outside the caller's autocast. A cache would hand on casts without gradient.
        with torch.autocast(kind, enabled=autocast[0], dtype=autocast[1], cache_enabled=False):
            return slope(x, moment)

    grid = torch.tensor(times if keep else [times[0], times[-1]], dtype=torch.float64, device=x.device)
    # A step ends at the last time exactly; else the solver would step over it, perhaps below 0, and come back.
    # The first step is given, since the solver's own guess depends on x and would put wrong terms into gradients.
    first = (times[0] - times[-1]) / 100
    settings = {"rtol": rtol, "atol": atol, "method": "dopri5", "options": {"step_t": grid[-1:], "first_step": first}}
    try:
        if adjoint is None:
            states = odeint(counted, x, grid, **settings)
        else:
            inside = tuple(tensor for tensor in adjoint if tensor.requires_grad)
            gradient = rtol / x.numel()  # absolute tolerance for the parts of the gradient of a mean
            back = [x.new_tensor(tolerance) for tolerance in (atol, atol, gradient, *[gradient] * len(inside))]
            states = odeint_adjoint(
                counted,
                x,
                grid,
                **settings,
                adjoint_params=inside,
                adjoint_atol=back,
                # The steps follow the state and its gradient alone: those of `inside` are integrals over their path,
                # which do not act back (Kidger, Chen, and Lyons 2021). Backward, torchdiffeq counts the negative time.
                adjoint_options={"norm": "seminorm", "step_t": -grid[:1], "first_step": first},
            )
    except AssertionError as error:
        raise ValueError(
            f"dopri5 gave up after {evaluations} evaluations with rtol={rtol}, atol={atol} in {x.dtype}: {error}. "
            "Loosen the tolerances, use float64, or look for infinite predictions of the denoiser."
        ) from error
    return SampleResult(states[-1], list(states) if keep else [], times if keep else [], evaluations)


def falling(path: AnchoredPath, times: Iterable[float]) -> list[float]:
    """The times of a sampler as numbers; a ValueError or TypeError if they do not fall, or leave the path."""
    require_iterable("times", list(times) if isinstance(times, Tensor) else times, "numbers")
    times = list(times)
    for t in times:
        require_numbers(**{"a time": t})
    times = [float(t) for t in times]
    if len(times) < 2 or any(not later > earlier for later, earlier in pairwise(times)):
        raise ValueError(f"times must fall, and be at least two, got {times}; path.times(steps) makes them")
    if not (times[0] <= path.end and times[-1] >= 0):  # before any work is done
        raise ValueError(f"times of this path lie in [0, {path.end}], got {times[0]} down to {times[-1]}")
    return times


def _call(denoise: Denoiser, x: Tensor, t: float) -> Tensor:
    x0 = denoise(x, x.new_full((len(x),), t))
    if not isinstance(x0, Tensor) or not (x0.shape == x.shape or _fits(x0.shape, x.shape)):
        given = tuple(x0.shape) if isinstance(x0, Tensor) else type(x0).__name__
        raise ValueError(f"denoise must give a tensor shaped like x, {tuple(x.shape)}, got {given}")
    return x0


def _fits(shape: Sequence[int], onto: Sequence[int]) -> bool:
    return len(shape) <= len(onto) and all(a in (1, b) for a, b in zip(reversed(shape), reversed(onto), strict=False))


def _require(
    path: AnchoredPath, denoise: Denoiser, x: Tensor, anchor: Tensor, generator: torch.Generator | None = None
) -> None:
    require_path(path)
    require_function("denoise", denoise)
    require_fitting(x, "x", anchor=anchor)
    require_generator(generator)
