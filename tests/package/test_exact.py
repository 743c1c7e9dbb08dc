"""Exact posteriors against autograd, conjugate formulas, and simulation."""

import pytest
import torch
from numpy.testing import assert_allclose
from rounding import assert_repeats, identical
from torch import Tensor

from srbook.exact import GaussianMixture, gaussian
from srbook.parametrizations import to_x0
from srbook.paths import AnchoredPath, ContinuousVP, DiscreteVP, MeanReverting, ResidualShift
from srbook.schedules import linear_betas, mean_reverting_thetas, resshift_sqrt_etas

TIGHT = {"rtol": 1e-10, "atol": 1e-10}
PATHS: list[AnchoredPath] = [
    DiscreteVP(linear_betas(50, 1e-3, 0.1), sigma=0.5),
    ContinuousVP(sigma=0.2),
    ResidualShift(resshift_sqrt_etas(15)),
    MeanReverting(mean_reverting_thetas(30)),
]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixture() -> GaussianMixture:
    roots = draw(3, 2, 2, seed=1)
    covariances = roots @ roots.mT + 0.05 * torch.eye(2, dtype=torch.float64)
    return GaussianMixture(
        torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), 2 * draw(3, 2), (covariances + covariances.mT) / 2
    )


@pytest.mark.arithmetic
@pytest.mark.parametrize("path", PATHS)
def test_score_is_the_gradient_and_agrees_with_the_mean(path: AnchoredPath) -> None:
    """The second half is Tweedie's formula: the score gives the posterior mean."""
    prior, anchor = mixture(), draw(4, 2, seed=3)
    t = torch.tensor([0.1, 0.3, 0.6, 0.9], dtype=torch.float64) * path.end
    x_t = draw(4, 2, seed=2).requires_grad_()
    (gradient,) = torch.autograd.grad(prior.log_density(path, x_t, anchor, t).sum(), x_t)
    x_t = x_t.detach()
    score = prior.score(path, x_t, anchor, t)
    assert_allclose(score, gradient, **TIGHT)
    assert_allclose(prior.posterior_mean(path, x_t, anchor, t), to_x0(path, "score", score, x_t, anchor, t), **TIGHT)


@pytest.mark.arithmetic
@pytest.mark.parametrize("path", PATHS)
def test_one_gaussian_in_one_dimension(path: AnchoredPath) -> None:
    """The conjugate formula, written out."""
    m, v, mu, x, t = 0.7, 0.3, 0.2, 0.9, 0.5 * path.end
    prior = gaussian(torch.tensor([m], dtype=torch.float64), torch.tensor([[v]], dtype=torch.float64))
    a, noise = path.signal(t).item(), (path.sigma * path.level(t).item()) ** 2
    expected = m + a * v / (a * a * v + noise) * (x - mu - a * (m - mu))
    x_t = torch.tensor([[x]], dtype=torch.float64)
    assert prior.posterior_mean(path, x_t, torch.tensor(mu), t).item() == pytest.approx(expected, rel=1e-7)


def test_log_density_at_time_zero_is_the_prior() -> None:
    prior, x = mixture(), draw(5, 2, seed=4)
    parts = [torch.distributions.MultivariateNormal(m, c) for m, c in zip(prior.means, prior.covariances, strict=True)]
    density = sum(w * part.log_prob(x).exp() for w, part in zip(prior.weights, parts, strict=True))
    assert_allclose(prior.log_density(PATHS[0], x, torch.zeros(()), 0), density.log(), **TIGHT)


@pytest.mark.arithmetic
def test_samples_have_the_moments() -> None:
    prior = mixture()
    x = prior.sample(200_000, torch.Generator().manual_seed(0))
    mean = prior.weights @ prior.means
    second = prior.covariances + prior.means[:, :, None] * prior.means[:, None]
    covariance = (prior.weights[:, None, None] * second).sum(0) - mean[:, None] * mean
    assert_allclose(x.mean(0), mean, atol=0.02)
    assert_allclose(x.T.cov(), covariance, rtol=0.02, atol=0.02)
    assert_repeats(x, *(prior.sample(200_000, torch.Generator().manual_seed(seed)) for seed in (0, 1)))


@pytest.mark.arithmetic
def test_posterior_mean_beats_every_other_guess() -> None:
    """It minimizes the squared error: the error is orthogonal to any function of x_t."""
    prior, path, generator = mixture(), PATHS[0], torch.Generator().manual_seed(0)
    x0 = prior.sample(100_000, generator)
    noise = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    x_t = path.perturb(x0, torch.zeros(()), 30, noise)
    error = prior.posterior_mean(path, x_t, torch.zeros(()), 30) - x0
    for probe in (torch.ones_like(x_t), x_t, x_t.square(), x_t.sin()):
        assert abs((error * probe).mean().item()) < 0.02


def test_covariances_may_be_symmetric_up_to_rounding() -> None:
    """Where a product of matrices rounds its two halves apart, and so does `torch.cov`."""
    prior = mixture()
    above = torch.ones(2, 2, dtype=torch.float64).triu(1)
    rounded = GaussianMixture(prior.weights, prior.means, prior.covariances * (1 + 1e-15 * above))
    assert identical(rounded.covariances, rounded.covariances.mT)  # copies: made symmetric, for all that follows
    assert_allclose(rounded.covariances, prior.covariances, rtol=1e-14)
    single = torch.eye(64) + 0.1
    assert_allclose(
        gaussian(torch.zeros(64), single * (1 + 1e-7 * torch.randn(64, 64).triu(1))).covariances[0], single, rtol=1e-6
    )
    with pytest.raises(ValueError, match="symmetric"):
        GaussianMixture(prior.weights, prior.means, prior.covariances + 1e-4 * above)


def test_refusals() -> None:
    eye = torch.eye(2).expand(2, 2, 2)
    with pytest.raises(ValueError, match=r"shapes \(K,\), \(K, D\) and \(K, D, D\), got \(3,\), \(2, 2\)"):
        GaussianMixture(torch.ones(3), torch.zeros(2, 2), eye)
    with pytest.raises(ValueError, match="weights must be positive"):
        GaussianMixture(torch.tensor([1.0, 0.0]), torch.zeros(2, 2), eye)
    with pytest.raises(ValueError, match="positive definite"):
        GaussianMixture(torch.ones(2), torch.zeros(2, 2), -eye)
    with pytest.raises(ValueError, match="positive definite"):
        gaussian(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
    with pytest.raises(ValueError, match=r"x_t must have shape \(N, 2\), got \(4, 3\)"):
        mixture().score(PATHS[0], draw(4, 3), torch.zeros(()), 1)
