"""The bound against closed forms, sampled expectations, brute force, and symbols."""

import math

import pytest
import torch
from rounding import assert_repeats
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from srbook.elbo import elbo_terms, gaussian_kl, noise_weight
from srbook.exact import gaussian
from srbook.images import round_to_8bit
from srbook.parametrizations import to_noise, to_x0
from srbook.paths import AnchoredPath, ContinuousVP, DiscreteVP, ResidualShift
from srbook.samplers import Denoiser, Variance, ancestral
from srbook.schedules import linear_betas, resshift_sqrt_etas

GRAY = torch.tensor(0.5, dtype=torch.float64)


def ddpm(steps: int = 1000) -> DiscreteVP:
    """DDPM's chain in images from 0 to 1; fewer steps have larger betas, so that it still ends in noise."""
    return DiscreteVP(linear_betas(steps, 0.1 / steps, min(0.9, 20 / steps)), sigma=0.5)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def images(count: int, *shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *shape), generator=generator).double() / 255


def wrong_by(offset: Tensor | float, x0: Tensor) -> Denoiser:
    return lambda x_t, t: (x0 + offset).to(x_t)


# The Kullback-Leibler divergence


def test_gaussian_kl_is_that_of_torch() -> None:
    mean1, mean2 = draw(50), draw(50, seed=1)
    std1, std2 = draw(50, seed=2).exp(), draw(50, seed=3).exp()
    expected = kl_divergence(Normal(mean1, std1), Normal(mean2, std2))
    torch.testing.assert_close(gaussian_kl(mean1, std1, mean2, std2), expected, rtol=1e-12, atol=1e-14)


def test_gaussian_kl_is_the_mean_log_ratio() -> None:
    """Against its definition, by sampling: E log(p / q) under p."""
    p, q = Normal(torch.tensor(0.3), torch.tensor(0.8)), Normal(torch.tensor(-0.5), torch.tensor(1.3))
    x = 0.3 + 0.8 * draw(400_000)
    sampled = (p.log_prob(x) - q.log_prob(x)).mean().item()
    assert gaussian_kl(p.mean, p.stddev, q.mean, q.stddev).item() == pytest.approx(sampled, abs=4e-3)


def test_gaussian_kl_of_equal_spreads_is_a_squared_distance() -> None:
    mean1, mean2, std = draw(20), draw(20, seed=1), draw(20, seed=2).exp()
    expected = (mean1 - mean2).square() / (2 * std.square())
    torch.testing.assert_close(gaussian_kl(mean1, std, mean2, std), expected, rtol=1e-12, atol=1e-14)


# The derivation of the chapter, step by step


def test_marginal_is_the_product_of_the_steps() -> None:
    """Running q(x_t | x_{t-1}) = N(sqrt(alpha_t) x_{t-1}, beta_t) by its moments gives abar_t."""
    betas = linear_betas(40, 1e-3, 0.3)
    path = DiscreteVP(betas)
    mean, variance = torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    for t, beta in enumerate(betas, start=1):
        mean, variance = (1 - beta).sqrt() * mean, (1 - beta) * variance + beta
        torch.testing.assert_close(path.signal(t), mean, rtol=1e-12, atol=0)
        torch.testing.assert_close(path.level(t).square(), variance, rtol=1e-12, atol=1e-15)


def test_marginal_by_symbols() -> None:
    """The induction step: variance alpha (1 - abar) + beta is 1 - alpha abar."""
    sympy = pytest.importorskip("sympy")
    alpha, abar = sympy.symbols("alpha abar", positive=True)
    assert sympy.simplify(alpha * (1 - abar) + (1 - alpha) - (1 - alpha * abar)) == 0


def test_posterior_by_completing_the_square() -> None:
    """log q(x_t | x_s) + log q(x_s | x_0) differs from log N(x_s; mean, variance) by nothing that depends on x_s."""
    sympy = pytest.importorskip("sympy")
    x0, x_s, x_t = sympy.symbols("x0 x_s x_t", real=True)
    alpha, before = sympy.symbols("alpha abar_before", positive=True)  # alpha_t and abar_{t-1}
    beta, abar = 1 - alpha, alpha * before

    def quadratic(x: object, mean: object, variance: object) -> object:
        return -((x - mean) ** 2) / (2 * variance)

    variance = (1 - before) / (1 - abar) * beta
    mean = sympy.sqrt(before) * beta / (1 - abar) * x0 + sympy.sqrt(alpha) * (1 - before) / (1 - abar) * x_t
    joint = quadratic(x_t, sympy.sqrt(alpha) * x_s, beta) + quadratic(x_s, sympy.sqrt(before) * x0, 1 - before)
    assert sympy.simplify(sympy.diff(joint - quadratic(x_s, mean, variance), x_s)) == 0


def test_mean_from_the_noise_by_symbols() -> None:
    """With x_0 written by x_t and the noise, the posterior mean is (x_t - beta / sqrt(1 - abar) eps) / sqrt(alpha)."""
    sympy = pytest.importorskip("sympy")
    x_t, noise = sympy.symbols("x_t eps", real=True)
    alpha, before = sympy.symbols("alpha abar_before", positive=True)
    beta, abar = 1 - alpha, alpha * before
    x0 = (x_t - sympy.sqrt(1 - abar) * noise) / sympy.sqrt(abar)
    mean = sympy.sqrt(before) * beta / (1 - abar) * x0 + sympy.sqrt(alpha) * (1 - before) / (1 - abar) * x_t
    expected = (x_t - beta / sympy.sqrt(1 - abar) * noise) / sympy.sqrt(alpha)
    assert sympy.simplify(mean - expected) == 0


def test_posterior_and_mean_of_the_package_are_these() -> None:
    """AnchoredPath.posterior at whole steps against the two formulas that the symbols confirm."""
    betas = linear_betas(30, 1e-3, 0.2)
    path, abar = DiscreteVP(betas), (1 - betas).cumprod(0)
    x0, noise, anchor = draw(7), draw(7, seed=1), torch.zeros((), dtype=torch.float64)
    for t in (2, 11, 30):
        beta, alpha, now, before = betas[t - 1], 1 - betas[t - 1], abar[t - 1], abar[t - 2]
        x_t = path.perturb(x0, anchor, t, noise)
        mean, std = path.posterior(x_t, x0, anchor, t, t - 1)
        by_images = before.sqrt() * beta / (1 - now) * x0 + alpha.sqrt() * (1 - before) / (1 - now) * x_t
        by_noise = (x_t - beta / (1 - now).sqrt() * noise) / alpha.sqrt()
        torch.testing.assert_close(mean, by_images, rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(mean, by_noise, rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(std.square(), (1 - before) / (1 - now) * beta, rtol=1e-11, atol=0)


def test_the_ratio_of_the_chains_telescopes() -> None:
    """Both ways to write log q(x_1..x_T | x_0) / p(x_0..x_T) agree at every point, for an arbitrary model p."""
    path, anchor = DiscreteVP(linear_betas(5, 0.05, 0.5), sigma=0.7), torch.tensor(0.2, dtype=torch.float64)
    x = draw(6, 9)  # x[t] is x_t: any points, not only likely ones

    def forward(t: int, s: int) -> Normal:
        m = path.transition(t, s)
        variance = path.level(t).square() - (m * path.level(s)).square()
        mean, _ = path.marginal(x[0], anchor, t)
        before, _ = path.marginal(x[0], anchor, s)
        return Normal(mean + m * (x[s] - before), path.sigma * variance.sqrt())

    def marginal(t: int) -> Normal:
        return Normal(*path.marginal(x[0], anchor, t))

    def model(s: int) -> Normal:
        return Normal(torch.sin(3 * x[s + 1]) + s, torch.tensor(0.3 + s, dtype=torch.float64))

    prior = Normal(anchor, torch.tensor(0.6, dtype=torch.float64)).log_prob(x[5])
    chains = sum(forward(t, t - 1).log_prob(x[t]) - model(t - 1).log_prob(x[t - 1]) for t in range(1, 6)) - prior
    terms = marginal(5).log_prob(x[5]) - prior - model(0).log_prob(x[0])
    for t in range(2, 6):
        back = Normal(*path.posterior(x[t], x[0], anchor, t, t - 1))
        terms = terms + back.log_prob(x[t - 1]) - model(t - 1).log_prob(x[t - 1])
    torch.testing.assert_close(terms, chains, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("variance", ["posterior", "forward"])
def test_noise_weight_is_that_of_the_paper(variance: Variance) -> None:
    betas = linear_betas(1000)
    path, abar = DiscreteVP(betas, sigma=0.5), (1 - betas).cumprod(0)
    t = torch.arange(2, 1001)
    beta, now, before = betas[t - 1], abar[t - 1], abar[t - 2]
    sigma2 = (1 - before) / (1 - now) * beta if variance == "posterior" else beta
    expected = beta.square() / (2 * sigma2 * (1 - beta) * (1 - now))
    torch.testing.assert_close(noise_weight(path, t, t - 1, variance), expected, rtol=1e-9, atol=0)
    one = noise_weight(path, 17, 16.0, variance)
    assert one.shape == () and one.item() == pytest.approx(expected[15].item(), rel=1e-9)


@pytest.mark.parametrize(
    "path",
    [ddpm(50), ContinuousVP(sigma=0.2), ResidualShift(resshift_sqrt_etas(8), kappa=0.3)],
    ids=lambda path: type(path).__name__,  # no address: processes that share the tests know them by their names
)
def test_a_step_is_a_weighted_error_of_the_noise(path: AnchoredPath) -> None:
    """The reduction to the simple loss: each term is noise_weight times the squared error of the noise."""
    x0, anchor = images(3, 2, 4), torch.full((3, 1, 1), 0.4, dtype=torch.float64)
    times = [0.9 * path.end, 0.6 * path.end, 0.25 * path.end, 0.0]
    errors = []

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        noise = to_noise(path, "x0", x0, x_t, anchor, t)
        wrong = noise + torch.sin(5 * x_t)
        errors.append((wrong - noise).square().flatten(1).mean(1))
        return to_x0(path, "eps", wrong, x_t, anchor, t)

    terms = elbo_terms(path, denoise, x0, anchor, times=times, generator=torch.Generator().manual_seed(0))
    for k in (0, 1):
        expected = noise_weight(path, times[k], times[k + 1]) * errors[k] / math.log(2)
        torch.testing.assert_close(terms[:, k + 1], expected, rtol=1e-8, atol=1e-12)
    forward = elbo_terms(
        path, denoise, x0, anchor, times=times, variance="forward", generator=torch.Generator().manual_seed(0)
    )
    smaller = noise_weight(path, times[0], times[1], "forward") * errors[0] / math.log(2)
    constant = forward[:, 1] - smaller
    torch.testing.assert_close(constant, constant[:1].expand(3), rtol=1e-8, atol=1e-12)
    assert constant[0] >= -1e-12


# The terms


def test_prior_term_in_closed_form() -> None:
    path, x0 = ddpm(20), images(4, 3, 2)
    terms = elbo_terms(path, wrong_by(0.0, x0), x0, GRAY, times=path.times(20))
    a, s = path.signal(20), path.level(20)
    expected = ((a * (x0 - 0.5)) ** 2 / (2 * (0.5 * s) ** 2)).flatten(1).mean(1) / math.log(2)
    torch.testing.assert_close(terms[:, 0], expected, rtol=1e-10, atol=0)
    assert terms.shape == (4, 21) and terms.dtype == torch.float64


def test_prior_term_against_a_standard_normal() -> None:
    """The closed form for the prior of the paper, N(0, 1), in images from -1 to 1 (an exercise)."""
    path, x0 = DiscreteVP(linear_betas(100)), torch.tensor([-1.0, 0.2, 0.7], dtype=torch.float64)
    abar = path.signal(100).square()
    mean, std = path.marginal(x0, x0 * 0, 100)
    expected = 0.5 * (abar * x0.square() - abar - torch.log(1 - abar))
    one = torch.ones((), dtype=torch.float64)
    torch.testing.assert_close(gaussian_kl(mean, std, 0 * x0, one), expected, rtol=1e-11, atol=1e-14)


def test_a_perfect_denoiser_pays_for_the_decoder_only() -> None:
    x0 = images(2, 5)
    path = ddpm(30)
    terms = elbo_terms(path, wrong_by(0.0, x0), x0, GRAY, times=path.times(30))
    assert terms[:, 1:-1].abs().max() < 1e-15
    std = 0.5 * path.level(1).item()
    inner = Normal(0 * GRAY, std)
    half = torch.tensor(0.5 / 255, dtype=torch.float64)
    expected = -torch.log2(inner.cdf(half) - inner.cdf(-half))
    assert not bool(((x0 == 0) | (x0 == 1)).any())
    torch.testing.assert_close(terms[:, -1], expected.expand(2), rtol=1e-9, atol=0)


@pytest.mark.parametrize("mean", [-0.3, 0.0, 0.5001, 0.998, 1.4])
def test_the_decoder_is_a_distribution_over_the_256_levels(mean: float) -> None:
    """The masses of all levels sum to one, wherever the Gaussian lies; each is that of its bin."""
    levels = (torch.arange(256, dtype=torch.float64) / 255)[:, None]
    path = DiscreteVP(torch.tensor([0.01], dtype=torch.float64), sigma=0.5)
    bits = elbo_terms(path, lambda x_t, t: torch.full_like(x_t, mean), levels, GRAY, times=[1, 0])[:, 1]
    mass = 2.0**-bits
    assert mass.sum().item() == pytest.approx(1, abs=1e-12)
    inner = (torch.arange(255, dtype=torch.float64) + 0.5) / 255
    edges = torch.cat([inner[:1] - torch.inf, inner, inner[:1] + torch.inf])
    cdf = Normal(mean + 0 * GRAY, 0.05).cdf(edges)
    torch.testing.assert_close(mass, cdf.diff(), rtol=1e-8, atol=1e-14)


def test_the_decoder_keeps_its_digits_far_out() -> None:
    """A prediction that is wrong by 40 standard deviations costs (40 std)^2 / 2 nats and more, not infinity."""
    x0 = torch.tensor([[0.0], [100 / 255], [1.0]], dtype=torch.float64)
    path = DiscreteVP(torch.tensor([1e-4], dtype=torch.float64), sigma=0.5)
    bits = elbo_terms(path, lambda x_t, t: (x_t * 0 + x0 + 0.2).where(x0 < 1, x0 - 0.2), x0, GRAY, times=[1, 0])[:, 1]
    std = 0.005
    nearest = (0.2 - 0.5 / 255) / std
    expected = (nearest**2 / 2 + math.log(nearest * math.sqrt(2 * math.pi))) / math.log(2)  # Mills' ratio
    torch.testing.assert_close(bits, torch.full((3,), expected, dtype=torch.float64), rtol=1e-5, atol=0)


# The bound


@pytest.fixture(scope="module")
def known() -> tuple[Tensor, Tensor, Tensor, float]:
    """Pairs of correlated values, rounded to 8 bits: mean, covariance, samples, and true bits per value."""
    mean = torch.tensor([0.5, 0.45], dtype=torch.float64)
    covariance = torch.tensor([[0.01, 0.007], [0.007, 0.012]], dtype=torch.float64)
    x0 = round_to_8bit(gaussian(mean, covariance).sample(3000, torch.Generator().manual_seed(0)))
    deviation = x0 - mean
    rounded = covariance + torch.eye(2, dtype=torch.float64) / (12 * 255**2)  # rounding is a little more noise
    square = (deviation @ torch.linalg.inv(rounded) * deviation).sum(1)
    nats = 0.5 * square + 0.5 * torch.logdet(2 * math.pi * rounded) + 2 * math.log(255)
    return mean, rounded, x0, nats.mean().item() / (2 * math.log(2))


def terms_of(path: AnchoredPath, known: tuple, times: list[float], variance: Variance) -> Tensor:
    mean, covariance, x0, _ = known
    prior, anchor = gaussian(mean, covariance), torch.full((2,), 0.5, dtype=torch.float64)
    terms = elbo_terms(
        path,
        lambda x_t, t: prior.posterior_mean(path, x_t, anchor, t[0]),
        x0,
        anchor,
        times=times,
        variance=variance,
        generator=torch.Generator().manual_seed(1),
    )
    return terms.mean(0)


def test_the_bound_falls_to_the_true_code_length(known: tuple) -> None:
    """With the exact denoiser of a Gaussian, more steps tighten the bound, and 1000 lose next to nothing."""
    truth, path = known[-1], ddpm()
    bounds = [terms_of(path, known, path.times(steps), "forward").sum().item() for steps in (10, 30, 100, 300, 1000)]
    assert bounds == sorted(bounds, reverse=True) and bounds[0] > truth + 0.5
    assert bounds[-1] == pytest.approx(truth, abs=0.04)


def test_the_last_steps_want_the_forward_variance(known: tuple) -> None:
    """Where the noise is far below the data's spread, the step has the variance beta_t (an exercise).

    With r = beta_t / posterior variance, a term is then (r - 1) / 2 nats for the posterior's and log(r) / 2 for beta_t.
    """
    path = ddpm()
    for variance in ("posterior", "forward"):
        terms = terms_of(path, known, [4, 3, 2, 1, 0], variance) * math.log(2)
        for t in (2, 3, 4):
            r = (path.level(t) / path.level(t - 1)).square().item()
            expected = (r - 1) / 2 if variance == "posterior" else math.log(r) / 2
            assert terms[5 - t].item() == pytest.approx(expected, rel=0.06)


def test_a_wrong_denoiser_pays_more(known: tuple) -> None:
    mean, covariance, x0, truth = known
    wrong = (mean, torch.diag(covariance.diagonal()), x0, truth)  # ignores that the two values go together
    correlation = (covariance[0, 1] ** 2 / (covariance[0, 0] * covariance[1, 1])).item()
    missed = -0.25 * math.log2(1 - correlation)  # mutual information, in bits per value
    path = ddpm()
    right_bits, wrong_bits = (terms_of(path, model, path.times(300), "forward").sum() for model in (known, wrong))
    assert (wrong_bits - right_bits).item() == pytest.approx(missed, abs=0.02)


def test_a_step_is_the_kl_of_what_the_sampler_does() -> None:
    """The model's step is that of `ancestral`: its samples have the mean and spread that the term was computed with."""
    path, x0 = ddpm(10), torch.full((1_000_000, 1), 100 / 255, dtype=torch.float64)
    x_t = torch.full_like(x0, 0.3)
    denoise = wrong_by(0.1, x0)
    for variance in ("posterior", "forward"):
        stepped = ancestral(
            path, denoise, x_t, GRAY, [6.0, 4.0], variance=variance, generator=torch.Generator().manual_seed(0)
        ).image
        mean, std = path.posterior(x_t, x0, GRAY, 6, 4)
        terms = elbo_terms(path, wrong_by(0.1, x0[:1]), x0[:1], GRAY, times=[6, 4, 0], variance=variance)
        sampled = gaussian_kl(mean[0], std, stepped.mean(), stepped.std()).item() / math.log(2)
        assert terms[0, 1].item() == pytest.approx(sampled, rel=0.05)


# Arguments


def test_generator_fixes_the_noise() -> None:
    path, x0 = ddpm(10), images(2, 3)
    first, again, other = (
        elbo_terms(path, lambda x_t, t: x_t, x0, GRAY, times=[10, 3, 0], generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert_repeats(first, again, other)


def test_elbo_terms_refuses_bad_input() -> None:
    path, x0 = ddpm(10), images(2, 3)
    denoise = wrong_by(0.0, x0)
    for times in ([10, 5], [10, 5, 5, 0], [0], []):
        with pytest.raises(ValueError, match="times must fall"):
            elbo_terms(path, denoise, x0, GRAY, times=times)
    with pytest.raises(ValueError, match="times of this path lie in"):
        elbo_terms(path, denoise, x0, GRAY, times=[11, 0])
    for wrong in (x0 + 0.3 / 255, x0 * 2, x0 - 1, x0[0, 0], x0 * torch.nan):
        with pytest.raises(ValueError, match=r"multiples of 1 / 255.*round_to_8bit"):
            elbo_terms(path, denoise, wrong, GRAY, times=[10, 0])
    with pytest.raises(ValueError, match="variance must be one of posterior, forward, got 'both'"):
        elbo_terms(path, denoise, x0, GRAY, times=[10, 0], variance="both")
    with pytest.raises(ValueError, match="sigma = 0 has no noise"):
        elbo_terms(ResidualShift(resshift_sqrt_etas(4), kappa=0), denoise, x0, GRAY, times=[4, 0])


def test_noise_weight_and_kl_refuse_bad_input() -> None:
    with pytest.raises(ValueError, match="variance must be one of"):
        noise_weight(ddpm(10), 5, 4, "both")
    with pytest.raises(ValueError, match="sigma = 0 has no noise"):
        noise_weight(ResidualShift(resshift_sqrt_etas(4), kappa=0), 2, 1)
    with pytest.raises(ValueError, match="a step back goes from t to a smaller s"):
        noise_weight(ddpm(10), 4, 5)
    one = torch.ones(())
    with pytest.raises(ValueError, match="standard deviations must be positive"):
        gaussian_kl(one, one, one, 0 * one)
