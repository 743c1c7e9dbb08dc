"""The proofs of chapter 4: moments, scores, the Fokker-Planck equation, and the family of ways back."""

import math
from itertools import pairwise

import pytest
import sympy
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from srbook.exact import GaussianMixture, empirical_posterior, gaussian
from srbook.parametrizations import target, to_x0
from srbook.paths import AnchoredPath, ContinuousVP, DiscreteVP, MeanReverting, ResidualShift
from srbook.samplers import euler_maruyama, probability_flow
from srbook.schedules import linear_betas, mean_reverting_thetas, resshift_sqrt_etas, vp_beta

TIGHT = {"rtol": 1e-9, "atol": 1e-9}
PATHS: dict[str, AnchoredPath] = {
    "continuous": ContinuousVP(sigma=0.5),
    "ddpm": DiscreteVP(linear_betas(50, 1e-3, 0.1), sigma=0.5),
    "irsde": MeanReverting(mean_reverting_thetas(30), sigma=0.4),
    "resshift": ResidualShift(resshift_sqrt_etas(15)),
}
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
ANCHOR = torch.tensor([0.3, -0.2], dtype=torch.float64)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixture() -> GaussianMixture:
    roots = draw(3, 2, 2, seed=1)
    covariances = 0.2 * roots @ roots.mT + 0.05 * torch.eye(2, dtype=torch.float64)
    return GaussianMixture(
        torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), draw(3, 2), (covariances + covariances.mT) / 2
    )


def divergence(field: Tensor, x: Tensor) -> Tensor:
    """Of a field (N, 2) at x (N, 2), by autograd."""
    rows = (torch.autograd.grad(field[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(2))
    return sum(rows, start=x.new_zeros(len(x)))


def density_terms(path: AnchoredPath, prior: GaussianMixture, moment: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points, the score there, its divergence, and the derivative of log p by t: all from `log_density` alone."""
    t = torch.tensor(moment, dtype=torch.float64, requires_grad=True)
    x = (ANCHOR + draw(6, 2, seed=2)).requires_grad_()
    log_p = prior.log_density(path, x, ANCHOR, t)
    (score,) = torch.autograd.grad(log_p.sum(), x, create_graph=True)
    slopes = [torch.autograd.grad(value, t, retain_graph=True)[0] for value in log_p]
    return x, score, divergence(score, x).detach(), torch.stack(slopes)


@pytest.mark.parametrize("steps", [100, 400, 1600])
def test_the_chain_approaches_the_continuous_path(steps: int) -> None:
    """The error of abar is of first order: half the steps, twice the error."""

    def error(steps: int) -> float:
        times = torch.arange(1, steps + 1, dtype=torch.float64) / steps
        chain = DiscreteVP(vp_beta(times) / steps)
        abar = chain.signal(torch.arange(1, steps + 1)).square()
        return (abar - ContinuousVP().signal(times).square()).abs().max().item()

    assert error(steps) / error(2 * steps) == pytest.approx(2, abs=0.05)


def test_moments_solve_their_equations() -> None:
    """m' = -beta m / 2 and V' = beta (1 - V), for any rate, with the stated solution."""
    t, m0, v0 = sympy.symbols("t m0 v0")
    grown = sympy.Function("B")(t)  # the integral of the rate from 0 to t
    beta = grown.diff(t)
    a = sympy.exp(-grown / 2)
    mean, variance = a * m0, a**2 * v0 + 1 - a**2
    assert sympy.simplify(mean.diff(t) + beta * mean / 2) == 0
    assert sympy.simplify(variance.diff(t) - beta * (1 - variance)) == 0
    assert sympy.simplify(variance.subs(v0, 1)) == 1  # unit variance stays


def test_ito_integral_has_the_stated_variance() -> None:
    """a^2 times the integral of beta / a^2 is 1 - a^2: with symbols, and for the package's schedule by quadrature."""
    u, t, low, high = sympy.symbols("u t low high", positive=True)
    grown = low * u + (high - low) * u**2 / 2
    variance = sympy.exp(-grown.subs(u, t)) * sympy.integrate(sympy.diff(grown, u) * sympy.exp(grown), (u, 0, t))
    assert sympy.simplify(variance - (1 - sympy.exp(-grown.subs(u, t)))) == 0

    path, end = ContinuousVP(), 0.6
    middle = (torch.arange(20_000, dtype=torch.float64) + 0.5) * end / 20_000
    integral = (vp_beta(middle) / path.signal(middle).square()).mean() * end
    assert_allclose(path.signal(end).square() * integral, path.level(end).square(), rtol=1e-6)


def test_forward_simulation_has_the_moments() -> None:
    """Particles of the forward equation, step by step, against mean and covariance in closed form."""
    path, prior, generator = PATHS["continuous"], mixture(), torch.Generator().manual_seed(0)
    x = start = prior.sample(40_000, generator)
    steps, end = 400, 0.35
    for k in range(steps):
        beta = vp_beta(torch.tensor(k * end / steps, dtype=torch.float64))
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        x = x - beta / 2 * (x - ANCHOR) * end / steps + beta.sqrt() * path.sigma * math.sqrt(end / steps) * noise
    a, s = path.signal(end), path.level(end)
    assert_allclose(x.mean(0), ANCHOR + a * (start.mean(0) - ANCHOR), atol=0.01)
    expected = a**2 * start.T.cov() + (s * path.sigma) ** 2 * torch.eye(2, dtype=torch.float64)
    assert_allclose(x.T.cov(), expected, atol=0.01)


@every_path
def test_score_is_the_average_of_the_conditional_scores(path: AnchoredPath) -> None:
    """A prior of points: average -noise / (scale s_t) over the points that may have made x_t."""
    points, t = draw(5, 2, seed=4), 0.5 * path.end
    narrow = 1e-10 * torch.eye(2, dtype=torch.float64).expand(5, 2, 2)
    prior = GaussianMixture(torch.ones(5, dtype=torch.float64), points, narrow)
    x_t = ANCHOR + draw(3, 2, seed=5)
    means, std = path.marginal(points, ANCHOR, t)
    for x, score in zip(x_t, prior.score(path, x_t, ANCHOR, t), strict=True):
        noise = (x - means) / std
        conditional = target(path, "score", points, noise, ANCHOR, t)
        weights = empirical_posterior(x, means, noise=std.item())
        assert_allclose(weights @ conditional, score, rtol=1e-6, atol=1e-7)


def test_score_matching_losses_differ_by_a_constant() -> None:
    """By quadrature in one dimension: the difference is the variance of the target, whatever the model."""
    path, t = PATHS["continuous"], 0.4
    points = torch.tensor([-1.0, 0.2, 0.9], dtype=torch.float64)
    share = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    means, std = path.marginal(points, torch.tensor(0.0), t)
    x = torch.linspace(-4, 4, 8001, dtype=torch.float64)[:, None]
    joint = share * torch.exp(-(((x - means) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi)) * 0.001  # (grid, point)
    conditional = -(x - means) / std**2
    p = joint.sum(1)
    marginal = (joint * conditional).sum(1) / p
    constant = (joint * (conditional - marginal[:, None]).square()).sum()
    for model in (torch.zeros_like(x), -x, torch.sin(3 * x), marginal[:, None] + 0.1 * x**2):
        denoising = (joint * (model - conditional).square()).sum()
        explicit = (p * (model[:, 0] - marginal).square()).sum()
        assert_allclose(denoising - explicit, constant, **TIGHT)
    assert constant > 1  # far from nothing


@every_path
def test_tweedie_by_simulation(path: AnchoredPath) -> None:
    """What the score says about x_0 has an error that no function of x_t predicts."""
    prior, t, generator = mixture(), 0.6 * path.end, torch.Generator().manual_seed(0)
    x0 = prior.sample(50_000, generator)
    x_t = path.perturb(x0, ANCHOR, t, torch.randn(x0.shape, generator=generator, dtype=torch.float64))
    error = to_x0(path, "score", prior.score(path, x_t, ANCHOR, t), x_t, ANCHOR, t) - x0
    for probe in (torch.ones_like(x_t), x_t, x_t.sin()):
        assert abs((error * probe).mean().item()) < 0.02


def test_a_gaussian_solves_the_fokker_planck_equation() -> None:
    """Substitute the Gaussian with the moments of the theorem: nothing is left."""
    x, t, m0, mu = sympy.symbols("x t m0 mu", real=True)
    v0, sigma = sympy.symbols("v0 sigma", positive=True)
    grown = sympy.Function("B")(t)
    beta, a = grown.diff(t), sympy.exp(-grown / 2)
    mean, variance = mu + a * (m0 - mu), a**2 * v0 + (1 - a**2) * sigma**2
    p = sympy.exp(-((x - mean) ** 2) / (2 * variance)) / sympy.sqrt(2 * sympy.pi * variance)
    flow = beta / 2 * (x - mu) * p + beta * sigma**2 / 2 * p.diff(x)  # minus the probability that passes x
    assert sympy.simplify((p.diff(t) - flow.diff(x)) / p) == 0


@pytest.mark.parametrize("name", ["continuous", "ddpm", "irsde"])
@pytest.mark.parametrize("share", [0.11, 0.47, 0.83])
def test_the_mixture_solves_the_fokker_planck_equation(name: str, share: float) -> None:
    """d log p / dt = -div f - f score + g^2 (div score + score^2) / 2, with the drift f = -decay (x - anchor)."""
    path, prior = PATHS[name], mixture()
    moment = share * path.end
    x, score, spread, change = density_terms(path, prior, moment)
    rate, g = path.decay_rate(moment), path.diffusion(moment)
    drift = -rate * (x - ANCHOR)
    expected = 2 * rate - (drift * score).sum(1) + g**2 / 2 * (spread + score.square().sum(1))
    assert_allclose(expected.detach(), change, rtol=1e-8, atol=1e-9)


@every_path
@pytest.mark.parametrize("share", [0.11, 0.47, 0.83])
def test_the_flow_carries_the_density(path: AnchoredPath, share: float) -> None:
    """The continuity equation, with the velocity that the samplers use: d log p / dt = -div u - u score."""
    prior, moment = mixture(), share * path.end
    x, score, _, change = density_terms(path, prior, moment)
    velocity = path.velocity(x, prior.posterior_mean(path, x, ANCHOR, moment), ANCHOR, moment)
    expected = -divergence(velocity, x) - (velocity * score).sum(1)
    assert_allclose(expected.detach(), change, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["continuous", "ddpm", "irsde"])
def test_velocity_is_drift_minus_half_the_score(name: str) -> None:
    path, prior = PATHS[name], mixture()
    moment, x = 0.4 * path.end, ANCHOR + draw(5, 2, seed=3)
    score = prior.score(path, x, ANCHOR, moment)
    expected = -path.decay_rate(moment) * (x - ANCHOR) - path.diffusion(moment) ** 2 / 2 * score
    velocity = path.velocity(x, prior.posterior_mean(path, x, ANCHOR, moment), ANCHOR, moment)
    assert_allclose(velocity, expected, **TIGHT)
    if name == "continuous":  # the form with the rate
        beta = vp_beta(torch.tensor(moment, dtype=torch.float64))
        assert_allclose(velocity, -beta / 2 * (x - ANCHOR + path.sigma**2 * score), **TIGHT)


@every_path
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_every_eta_runs_the_density_backward(path: AnchoredPath, eta: float) -> None:
    """The Fokker-Planck equation of the reverse step, read off `euler_maruyama`, gives minus the forward change."""
    prior, moment, step = mixture(), 0.47 * path.end, 1e-3 * path.end
    x, score, spread, change = density_terms(path, prior, moment)
    mean, std = euler_maruyama(
        path, x, prior.posterior_mean(path, x, ANCHOR, moment), ANCHOR, moment, moment - step, eta
    )
    backward, power = (mean - x) / step, std.square() / step  # per unit of reversed time
    expected = -divergence(backward, x) - (backward * score).sum(1) + power / 2 * (spread + score.square().sum(1))
    assert_allclose(expected.detach(), -change, rtol=1e-7, atol=1e-8)


def test_euler_maruyama_has_weak_order_one() -> None:
    """For a Gaussian every step is linear, so the variance that the steps leave is known without sampling."""
    path, m, v = PATHS["continuous"], torch.zeros(1, dtype=torch.float64), 0.3
    prior = gaussian(m, torch.tensor([[v]], dtype=torch.float64))
    anchor, probe = torch.zeros(1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)

    def variance(u: float) -> float:
        return (path.signal(u) ** 2 * v + (path.sigma * path.level(u)) ** 2).item()

    def error(steps: int) -> float:
        times, spread = path.times(steps, last=0.1), variance(1.0)
        for t, s in pairwise(times):
            slope, std = euler_maruyama(path, probe, prior.posterior_mean(path, probe, anchor, t), anchor, t, s)
            spread = slope.item() ** 2 * spread + std.item() ** 2
        return abs(math.sqrt(spread) - math.sqrt(variance(0.1)))

    assert math.log2(error(80) / error(160)) == pytest.approx(1, abs=0.2)


def test_the_flow_is_an_invertible_code() -> None:
    """Up by Runge-Kutta, down by the sampler: the points come back, and the codes are standard normal."""
    path, prior, generator = ContinuousVP(), mixture(), torch.Generator().manual_seed(0)
    x0 = prior.sample(2_000, generator)

    def slope(x: Tensor, t: float) -> Tensor:
        return path.velocity(x, prior.posterior_mean(path, x, ANCHOR, t), ANCHOR, t)

    times = path.times(200, last=1e-3)[::-1]
    x = path.perturb(x0, ANCHOR, 1e-3, torch.randn(x0.shape, generator=generator, dtype=torch.float64))
    start = x
    for t, s in pairwise(times):
        h = s - t
        one = slope(x, t)
        two = slope(x + h / 2 * one, t + h / 2)
        three = slope(x + h / 2 * two, t + h / 2)
        x = x + h / 6 * (one + 2 * two + 2 * three + slope(x + h * three, s))
    assert_allclose(x.mean(0), ANCHOR, atol=0.07)
    assert_allclose(x.T.cov(), torch.eye(2), atol=0.1)
    back = probability_flow(
        path, lambda x, t: prior.posterior_mean(path, x, ANCHOR, t[0]), x, ANCHOR, times[::-1], solver="rk4"
    )
    assert (back.image - start).abs().max() < 1e-3


def test_likelihood_by_the_change_of_variables() -> None:
    """log p at the start of the flow is log p at its end plus the divergence met on the way."""
    path, prior = ContinuousVP(), mixture()
    x = ANCHOR + draw(4, 2, seed=6)
    first, steps = 0.05, 400
    h, met = (1 - first) / steps, torch.zeros(4, dtype=torch.float64)
    expected = prior.log_density(path, x, ANCHOR, first)

    def slopes(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        velocity = path.velocity(x, prior.posterior_mean(path, x, ANCHOR, t), ANCHOR, t)
        return velocity.detach(), divergence(velocity, x).detach()

    for k in range(steps):  # the midpoint rule
        t = first + k * h
        half = x + h / 2 * slopes(x, t)[0]
        velocity, spread = slopes(half, t + h / 2)
        x, met = x + h * velocity, met + h * spread
    assert_allclose(prior.log_density(path, x, ANCHOR, 1.0) + met, expected, atol=2e-3)
