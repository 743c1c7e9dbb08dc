"""Anchored paths: how every method of the book goes from a clean image to noise, and one step back.

In the space of a method,

    x_t = anchor + a_t (x_0 - anchor) + sigma * s_t * noise

with a signal a_t that falls from 1 and a level s_t that grows from 0. The marginal alone does not fix the way back, so
a path also has a transition multiplier m(t|s): Cov(x_s, x_t | x_0) = m s_s^2 sigma^2.

Discrete paths count t = 1..T, and t = 0 is the clean image. Between whole numbers their rates are constant, so each
chain is a continuous process looked at T times, and has a probability flow.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Real
from types import UnionType

import numpy as np
import torch
from torch import Tensor

from srbook.arguments import require_instance, require_integer, require_numbers
from srbook.images import require_floats
from srbook.schedules import vp_beta, vp_decay

Time = float | Tensor


def broadcast(value: Tensor, image: Tensor) -> Tensor:
    """Bring a coefficient to the type and device of `image`, shaped so that it multiplies it.

    Args:
        value: shape () for the whole batch, or (N,) with one entry per image; another shape is a ValueError.
        image: (N, ...).
    """
    if value.ndim == 0:
        return value.to(image)
    if value.shape != image.shape[:1]:
        raise ValueError(
            f"a time must be a number or a tensor of shape () or (N,) = ({len(image)},), got {tuple(value.shape)}"
        )
    return value.to(image).reshape(-1, *[1] * (image.ndim - 1))


def require_fitting(image: Tensor, name: str, **others: Tensor | float) -> None:
    """Check that an image and what is computed with it are floats, and that their shapes can be broadcast.

    Otherwise raise a TypeError or a ValueError. It reads no values, so it costs nothing in a loop.
    """
    require_floats(image, name)
    for other, value in others.items():
        if not isinstance(value, Tensor):
            require_numbers(**{other: value})
        elif not value.is_floating_point():
            require_floats(value, other)
        elif any(
            a != b and 1 not in (a, b) for a, b in zip(reversed(image.shape), reversed(value.shape), strict=False)
        ):
            raise ValueError(f"{other} does not fit {name}: got {tuple(value.shape)} for {tuple(image.shape)}")


def _alike(first: Sequence[int], second: Sequence[int]) -> bool:
    if first == second or not second:  # at every step of a sampler, so the usual cases come first
        return True
    return all(a == b or 1 in (a, b) for a, b in zip(reversed(first), reversed(second), strict=False))


class AnchoredPath(ABC):
    """What all paths share. A subclass gives six functions of time, from which everything else follows.

    Times are numbers, or tensors of shape () or (N,). Coefficients are float64 tensors shaped like the time; results
    with images have the type and device of the image. Another shape of a time is a ValueError, and so are a time
    outside of the path and a constructor's argument out of range.

    Attributes:
        sigma: standard deviation of the noise where s_t = 1, in the units of the space; 0 for no noise.
        end: the last time: T for discrete paths, 1 for `ContinuousVP`.
    """

    def __init__(self, sigma: float, end: float):
        require_numbers(sigma=sigma)
        if not 0 <= sigma < float("inf"):
            raise ValueError(f"sigma must be a number of at least 0, got {sigma}")
        self.sigma = float(sigma)
        self.end = end

    @abstractmethod
    def signal(self, t: Time) -> Tensor:
        """The signal a_t: 1 at t = 0, falling."""

    @abstractmethod
    def level(self, t: Time) -> Tensor:
        """The level s_t: 0 at t = 0, growing."""

    @abstractmethod
    def transition(self, t: Time, s: Time) -> Tensor:
        """The multiplier m(t|s) of :eq:`eq-transition`, s <= t: Cov(x_s, x_t | x_0) = m s_s^2 sigma^2."""

    @abstractmethod
    def decay_rate(self, t: Time) -> Tensor:
        """How fast the process forgets: the derivative of -log m(t|s) by t."""

    @abstractmethod
    def signal_rate(self, t: Time) -> Tensor:
        """The derivative of a_t; from below where the rates of a discrete path jump."""

    @abstractmethod
    def variance_rate(self, t: Time) -> Tensor:
        """The derivative of s_t^2; from below where the rates of a discrete path jump."""

    def diffusion(self, t: Time) -> Tensor:
        """The factor g_t of the Wiener process in the forward equation: g^2 = sigma^2 (d(s^2)/dt + 2 s^2 decay)."""
        return self.sigma * (self.variance_rate(t) + 2 * self.decay_rate(t) * self.level(t).square()).sqrt()

    def times(self, steps: int, last: float = 0.0) -> list[float]:
        """`steps` + 1 evenly spaced times from `end` down to `last`, for samplers.

        `steps` is at least 1, and `last` from 0 to below `end`. The probability flow must stop above 0.
        """
        require_integer("steps", steps, 1)
        require_numbers(last=last)
        if not 0 <= last < self.end:
            raise ValueError(f"last must be at least 0 and below the end of the path, {self.end}, got {last}")
        return torch.linspace(self.end, last, steps + 1, dtype=torch.float64, device="cpu").tolist()

    def normalized(self, x: Tensor, anchor: Tensor) -> Tensor:
        """z = (x - anchor) / sigma, the variable of the published programs; a ValueError where sigma is 0."""
        require_fitting(x, "x", anchor=anchor)
        if self.sigma == 0:
            raise ValueError("a path with sigma = 0 has no unit to normalize by; give the network x_t itself")
        return (x - anchor) / self.sigma

    def marginal(self, x0: Tensor, anchor: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of x_t given the clean image, shaped like `x0`, and () or (N, 1, ...).

        Args:
            x0: (N, ...) clean images in the space of the method.
            anchor: the point that the path fades to, broadcastable to `x0`.
            t: times in [0, end].
        """
        require_fitting(x0, "x0", anchor=anchor)
        return anchor + broadcast(self.signal(t), x0) * (x0 - anchor), broadcast(self.sigma * self.level(t), x0)

    def perturb(self, x0: Tensor, anchor: Tensor, t: Time, noise: Tensor) -> Tensor:
        """x_t made from the clean image and standard normal noise shaped like it. Implements :eq:`eq-anchored-path`.

        The other arguments are as in `marginal`.
        """
        require_fitting(x0, "x0", noise=noise)
        mean, std = self.marginal(x0, anchor, t)
        return mean + std * noise

    def start(self, anchor: Tensor, noise: Tensor, t: Time | None = None) -> Tensor:
        """Where sampling starts: the anchor with standard normal `noise` (N, ...) at the level of time t, or the last.

        The marginal there has the mean anchor + a_t (x_0 - anchor); the part that a sampler cannot know is left out.
        """
        require_fitting(noise, "noise", anchor=anchor)
        return anchor + broadcast(self.sigma * self.level(self.end if t is None else t), noise) * noise

    def posterior(
        self, x_t: Tensor, x0: Tensor, anchor: Tensor, t: Time, s: Time, eta: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """One step back, from time t to s: mean and standard deviation of x_s given x_t and the clean image.

        Implements :eq:`eq-one-step`. With r = (x_t - anchor - a_t (x0 - anchor)) / s_t and
        zeta = eta s_s sqrt(1 - m^2 s_s^2 / s_t^2), the mean is anchor + a_s (x0 - anchor) + sqrt(s_s^2 - zeta^2) r and
        the standard deviation sigma * zeta. Their shapes are those of `marginal`. Every eta keeps the marginals. At
        eta = 1 this is the posterior of the process: the step of DDPM and SR3 (Ho, Jain, and Abbeel 2020), of ResShift
        (Yue et al. 2023), and the optimal one of IR-SDE (Luo et al. 2023). At eta = 0 it is DDIM's (Song, Meng, and
        Ermon 2021) and that of SinSR's teacher. At sigma = 0 it is DeltaDiff's.

        Args:
            x_t: (N, ...) images at time t.
            x0: clean images or their prediction, shaped like `x_t`.
            anchor: broadcastable to `x_t`.
            t, s: times in (0, end] and in [0, t).
            eta: share of fresh noise, in [0, 1]; beyond, a ValueError.
        """
        require_fitting(x_t, "x_t", x0=x0, anchor=anchor)
        require_numbers(eta=eta)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {eta}; 0 is deterministic, 1 the posterior")
        t, s = self._moment(t), self._moment(s)
        if t.device.type == "cpu" and s.device.type == "cpu" and not bool(((s < t) & (t > 0)).all()):
            raise ValueError(f"a step back goes from t to a smaller s, got t = {t.tolist()} and s = {s.tolist()}")
        s_t, s_s = self.level(t), self.level(s)
        correlation = (self.transition(t, s) * s_s / s_t).square()
        kept = s_s * (1 - eta**2 * (1 - correlation)).sqrt()
        fresh = eta * s_s * (1 - correlation).clamp(min=0).sqrt()  # rounding can leave -1e-17
        offset = x0 - anchor
        residual = x_t - anchor - broadcast(self.signal(t), x_t) * offset
        mean = anchor + broadcast(self.signal(s), x_t) * offset + broadcast(kept / s_t, x_t) * residual
        return mean, broadcast(self.sigma * fresh, x_t)

    def velocity(self, x_t: Tensor, x0: Tensor, anchor: Tensor, t: Time) -> Tensor:
        """dx/dt of the probability flow, when `x0` is the prediction of the clean image from x_t.

        The derivative of the marginal at fixed noise (Song et al. 2021): :eq:`eq-velocity`. It has no value at t = 0,
        where the level starts like sqrt(t). Arguments are as in `posterior`.
        """
        require_fitting(x_t, "x_t", x0=x0, anchor=anchor)
        t = self._moment(t)
        if t.device.type == "cpu" and not bool((t > 0).all()):
            raise ValueError(f"the velocity has no value at t = 0, got t = {t.tolist()}; stop at a small positive time")
        growth = self.variance_rate(t) / (2 * self.level(t).square())
        offset = x0 - anchor
        residual = x_t - anchor - broadcast(self.signal(t), x_t) * offset
        return broadcast(self.signal_rate(t), x_t) * offset + broadcast(growth, x_t) * residual

    def _moment(self, t: Time) -> Tensor:
        """`t` as a float64 tensor, checked. Times on a GPU are not: the check would wait for it at every step."""
        if not isinstance(t, Real | np.ndarray | Tensor | list | tuple):
            raise TypeError(f"a time must be a number or a tensor of shape () or (N,), got {t!r}")
        moment = torch.as_tensor(t, dtype=torch.float64)
        if moment.ndim > 1:
            raise ValueError(f"a time must be a number or a tensor of shape () or (N,), got {tuple(moment.shape)}")
        if moment.device.type == "cpu" and not bool(((moment >= 0) & (moment <= self.end)).all()):
            raise ValueError(f"times of this path lie in [0, {self.end}], got {moment.tolist()}")
        return moment


class _Decaying(AnchoredPath):
    """Paths with a_t = exp(-D_t), s_t^2 = 1 - a_t^2, and m(t|s) = a_t / a_s: functions of the decay D_t alone."""

    @abstractmethod
    def decay(self, t: Time) -> Tensor:
        """D_t = -log a_t: 0 at t = 0, growing."""

    def signal(self, t: Time) -> Tensor:
        return torch.exp(-self.decay(t))

    def level(self, t: Time) -> Tensor:
        return torch.expm1(-2 * self.decay(t)).neg().sqrt()

    def transition(self, t: Time, s: Time) -> Tensor:
        return torch.exp(self.decay(s) - self.decay(t))

    def signal_rate(self, t: Time) -> Tensor:
        return -self.decay_rate(t) * self.signal(t)

    def variance_rate(self, t: Time) -> Tensor:
        return 2 * self.decay_rate(t) * self.signal(t).square()


class ContinuousVP(_Decaying):
    """The variance-preserving SDE with a linear rate (Song et al. 2021), on t in [0, 1]; ECDP's path.

    Implements :eq:`eq-vp-sde`.

    Args:
        beta_min: rate at t = 0, positive.
        beta_max: rate at t = 1, at least `beta_min`.
        sigma: 0.2 in ECDP, with images in [0, 1].
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, sigma: float = 1.0):
        require_numbers(beta_min=beta_min, beta_max=beta_max)
        if not 0 < beta_min <= beta_max < float("inf"):
            raise ValueError(f"need 0 < beta_min <= beta_max, got {beta_min} and {beta_max}")
        super().__init__(sigma, 1.0)
        self.beta_min, self.beta_max = beta_min, beta_max

    def decay(self, t: Time) -> Tensor:
        return vp_decay(self._moment(t), self.beta_min, self.beta_max)

    def decay_rate(self, t: Time) -> Tensor:
        return vp_beta(self._moment(t), self.beta_min, self.beta_max) / 2


class _Tabled:
    """A growing function of time known at t = 0..T, linear in between."""

    def __init__(self, increments: Tensor):
        self.values = torch.cat([increments.new_zeros(1), increments.cumsum(0)])
        self.increments = increments

    def __call__(self, t: Tensor) -> Tensor:
        step = self._step(t)
        share = t - (step - 1)  # exactly 1 at whole times
        values = self.values.to(t.device)
        return (1 - share) * values[step - 1] + share * values[step]

    def rate(self, t: Tensor) -> Tensor:
        return self.increments.to(t.device)[self._step(t) - 1]

    @staticmethod
    def _step(t: Tensor) -> Tensor:
        return t.ceil().long().clamp(min=1)  # time 0 belongs to the first step


class Stepped(AnchoredPath):
    """Paths of T steps: `times` gives whole numbers."""

    def times(self, steps: int, last: float = 0.0) -> list[float]:
        """As in every path, rounded to whole numbers: from 1 to T - `last` steps, and a whole `last`."""
        require_integer("steps", steps, 1)
        require_numbers(last=last)
        if not float(last).is_integer() or steps > self.end - last:
            raise ValueError(f"this path has {self.end:g} whole steps, got steps={steps} down to time {last:g}")
        return [float(round(t)) for t in super().times(steps, last)]


class _SteppedDecay(Stepped, _Decaying):
    """Paths of T steps, given by how much -log a_t grows in each."""

    def __init__(self, increments: Tensor, sigma: float):
        super().__init__(sigma, float(len(increments)))
        self._table = _Tabled(increments)

    def decay(self, t: Time) -> Tensor:
        return self._table(self._moment(t))

    def decay_rate(self, t: Time) -> Tensor:
        return self._table.rate(self._moment(t))


class DiscreteVP(_SteppedDecay):
    """DDPM's chain (Ho, Jain, and Abbeel 2020): a_t = sqrt(abar_t), s_t = sqrt(1 - abar_t).

    Implements :eq:`eq-ddpm-marginal` and, with `posterior`, :eq:`eq-ddpm-posterior`. The path of DDPM, SR3, SRDiff,
    ResDiff, and ESRDF; they differ in the anchor, sigma, and the betas.

    Args:
        betas: (T,) variances of the steps, strictly between 0 and 1.
        sigma: 1 in images from -1 to 1, so 0.5 in images from 0 to 1.
    """

    def __init__(self, betas: Tensor, sigma: float = 1.0):
        betas = _require_table(betas, "betas")
        if not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError(f"betas must lie strictly between 0 and 1, got {betas.min():.4g} to {betas.max():.4g}")
        super().__init__(-0.5 * torch.log1p(-betas), sigma)


class MeanReverting(_SteppedDecay):
    """IR-SDE's path (Luo et al. 2023): a_t = exp(-theta_bar_t), s_t = sqrt(1 - exp(-2 theta_bar_t)).

    Implements :eq:`eq-irsde-marginal` and, with `posterior`, :eq:`eq-irsde-step`.

    Args:
        thetas: (T,) reversion in each step, theta_t dt, positive.
        sigma: lambda of the paper; 30/255 in the released super-resolution, with images in [0, 1].
    """

    def __init__(self, thetas: Tensor, sigma: float = 30 / 255):
        thetas = _require_table(thetas, "thetas")
        if not bool((thetas > 0).all()):
            raise ValueError(f"thetas must be positive, got {thetas.min():.4g}")
        super().__init__(thetas, sigma)


class ResidualShift(Stepped):
    """ResShift's path (Yue et al. 2023), or DeltaDiff's with kappa = 0: a_t = 1 - eta_t, s_t = sqrt(eta_t), and m = 1.

    Implements :eq:`eq-resshift-marginal` and, with `posterior`, :eq:`eq-resshift-posterior`.

    Args:
        sqrt_etas: (T,) square roots of the shares, strictly increasing, above 0 and at most 1.
        kappa: sigma, in the units of the latent; 2 in the released configurations.
    """

    def __init__(self, sqrt_etas: Tensor, kappa: float = 2.0):
        etas = _require_table(sqrt_etas, "sqrt_etas").square()
        increments = torch.diff(etas, prepend=etas.new_zeros(1))
        if not bool((sqrt_etas > 0).all() and (sqrt_etas <= 1).all() and (increments > 0).all()):
            raise ValueError(f"sqrt_etas must grow strictly, above 0 and at most 1, got {sqrt_etas.tolist()}")
        super().__init__(kappa, float(len(etas)))
        self._table = _Tabled(increments)

    def signal(self, t: Time) -> Tensor:
        return 1 - self._table(self._moment(t))

    def level(self, t: Time) -> Tensor:
        return self._table(self._moment(t)).sqrt()

    def transition(self, t: Time, s: Time) -> Tensor:
        return torch.ones_like(self._moment(t) - self._moment(s))  # the increments of the noise are independent

    def decay_rate(self, t: Time) -> Tensor:
        return torch.zeros_like(self._moment(t))  # nothing is forgotten

    def signal_rate(self, t: Time) -> Tensor:
        return -self.variance_rate(t)

    def variance_rate(self, t: Time) -> Tensor:
        return self._table.rate(self._moment(t))


def _require_table(table: Tensor, name: str) -> Tensor:
    if not isinstance(table, Tensor) or table.ndim != 1 or len(table) == 0:
        given = tuple(table.shape) if isinstance(table, Tensor) else type(table).__name__
        raise ValueError(f"{name} must be a tensor of shape (T,) with an entry per step, got {given}")
    return table.detach().to("cpu", torch.float64)


def require_path(path: AnchoredPath, kind: type | UnionType = AnchoredPath) -> None:
    """Raise a TypeError unless `path` is one, and of a kind that has what is asked of it."""
    require_instance("path", path, kind, "such as srbook.paths.DiscreteVP(srbook.schedules.linear_betas(1000))")
