"""Schedules: how signal fades and noise grows, as float64 tables (T,) on the CPU, or as functions of continuous time.

Entry t - 1 of a table belongs to time t = 1..T; time 0 is the clean image and has no entry. `steps` is T. An argument
of a table that is out of its range is a ValueError.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from srbook.arguments import require_choice, require_integer, require_numbers

ThetaShape = Literal["cosine", "linear", "constant"]


def linear_betas(steps: int, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """Variances beta_t of the noise added at each step, evenly spaced (Ho, Jain, and Abbeel 2020).

    Implements the schedule of :eq:`eq-ddpm-forward`. DDPM has 1000 steps from 1e-4 to 0.02. SR3's released code has
    2000, and ResDiff's 1000, from 1e-6 to 1e-2.

    Args:
        steps: T, at least 1.
        start: beta_1.
        end: beta_T, at least beta_1; both lie strictly between 0 and 1.
    """
    require_integer("steps", steps, 1)
    _require_open_unit(start=start, end=end)
    if start > end:
        raise ValueError(f"start must be at most end, since noise is added ever faster, got {start} and {end}")
    return torch.linspace(start, end, steps, dtype=torch.float64, device="cpu")


def cosine_betas(steps: int, s: float = 0.008, max_beta: float = 0.999) -> Tensor:
    """Betas for which the product of (1 - beta) follows a squared cosine (Nichol and Dhariwal 2021); SRDiff's, T = 100.

    With f(u) = cos^2((u + s) / (1 + s) * pi / 2), beta_t = min(1 - f(t/T) / f((t-1)/T), max_beta). Implements
    :eq:`eq-cosine-schedule`.

    Args:
        steps: T, at least 1.
        s: offset that keeps the first betas from vanishing, not negative.
        max_beta: cap, strictly between 0 and 1. It acts on beta_T only, which would be 1.
    """
    require_integer("steps", steps, 1)
    _require_open_unit(max_beta=max_beta)
    require_numbers(s=s)
    if not 0 <= s < math.inf:
        raise ValueError(f"s must not be negative, got {s}; the usual value is 0.008")
    u = torch.arange(steps + 1, dtype=torch.float64, device="cpu") / steps
    f = torch.cos((u + s) / (1 + s) * (math.pi / 2)).square()
    return (1 - f[1:] / f[:-1]).clamp(max=max_beta)


def resshift_sqrt_etas(
    steps: int, power: float = 0.3, kappa: float = 2.0, min_noise_level: float = 0.04, sqrt_eta_end: float = 0.99
) -> Tensor:
    """Square roots of ResShift's shares eta_t of the residual, geometric in a warped time (Yue et al. 2023).

    sqrt(eta_t) = sqrt(eta_1)^(1 - u) * sqrt(eta_T)^u grows with u = ((t - 1) / (T - 1))^power, from
    sqrt(eta_1) = min(min_noise_level / kappa, min_noise_level). The released configurations call `sqrt_eta_end`
    "etas_end": their 0.99 is sqrt(eta_T), so eta_T is 0.9801. Implements :eq:`eq-resshift-schedule`.

    Args:
        steps: T, at least 2.
        power: how late the shares grow, positive.
        kappa: sigma of the path, positive. DeltaDiff has no noise: give 1 here, and kappa = 0 to the path.
        min_noise_level: standard deviation of the noise at t = 1, positive.
        sqrt_eta_end: sqrt(eta_T), above sqrt(eta_1), at most 1.
    """
    require_integer("steps", steps, 2)
    numbers = {"power": power, "kappa": kappa, "min_noise_level": min_noise_level}
    require_numbers(**numbers, sqrt_eta_end=sqrt_eta_end)
    for name, value in numbers.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive, got {value}")
    first = min(min_noise_level / kappa, min_noise_level)
    if not first < sqrt_eta_end <= 1:
        raise ValueError(
            f"sqrt_eta_end must be above sqrt(eta_1) = min(min_noise_level / kappa, min_noise_level) = {first:.4g} "
            f"and at most 1, got {sqrt_eta_end}"
        )
    u = (torch.arange(steps, dtype=torch.float64, device="cpu") / (steps - 1)) ** power
    return first ** (1 - u) * sqrt_eta_end**u


def mean_reverting_thetas(steps: int, shape: ThetaShape = "cosine", end: float = 0.005) -> Tensor:
    """How far IR-SDE reverts to its anchor in each step: theta_t dt (Luo et al. 2023). The sum is -log(end).

    The released code has a table theta with an extra slot for time 0, which only shifts the rest, and a step dt chosen
    so that the signal exp(-sum theta dt) at time T is `end`. Here both are one table.

    Args:
        steps: T, at least 1; 100 in the released code.
        shape: "cosine", "linear", or "constant".
        end: signal left at time T, strictly between 0 and 1.
    """
    require_integer("steps", steps, 1)
    _require_open_unit(end=end)
    require_choice("shape", shape, ThetaShape)
    if shape == "cosine":
        u = torch.arange(2, steps + 2, dtype=torch.float64, device="cpu") / (steps + 2)
        angle = (torch.cat([u.new_zeros(1), u]) + 0.008) / 1.008 * (math.pi / 2)
        squared = torch.cos(angle).square()
        theta = 1 - squared[1:] / squared[0]
    elif shape == "linear":  # DDPM's range; the factor that adapts it to T goes out with dt
        theta = torch.linspace(1e-4, 0.02, steps + 1, dtype=torch.float64, device="cpu")[1:]
    else:
        theta = torch.ones(steps, dtype=torch.float64, device="cpu")
    return theta * (-math.log(end) / theta.sum())


def vp_beta(t: Tensor, beta_min: float = 0.1, beta_max: float = 20.0) -> Tensor:
    """Rate beta(t) = beta_min + (beta_max - beta_min) t of the variance-preserving SDE (Song et al. 2021).

    Implements the rate in :eq:`eq-vp-sde`, for times in [0, 1] of any shape.
    """
    return beta_min + (beta_max - beta_min) * t


def vp_decay(t: Tensor, beta_min: float = 0.1, beta_max: float = 20.0) -> Tensor:
    """Half the integral of `vp_beta` from 0 to t; the signal left at time t is exp(-vp_decay(t)).

    Implements :eq:`eq-vp-signal`, for times in [0, 1] of any shape.
    """
    return 0.5 * (beta_min + 0.5 * (beta_max - beta_min) * t) * t


def _require_open_unit(**values: float) -> None:
    require_numbers(**values)
    for name, value in values.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie strictly between 0 and 1, got {value}")
