"""What chapter 6 proves about conditional diffusion, checked on priors whose posteriors are known exactly."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from srbook.degradations import consistent, imresize
from srbook.degradations.resize import resize_weights
from srbook.exact import GaussianMixture
from srbook.paths import DiscreteVP
from srbook.samplers import ancestral
from srbook.schedules import linear_betas

PATH = DiscreteVP(linear_betas(200, 1e-3, 0.1), 0.5)
ANCHOR = torch.tensor([0.5], dtype=torch.float64)
P_Y = (0.3, 0.7)


def prior(weights: list[float], means: list[float], stds: list[float]) -> GaussianMixture:
    w, m, s = (torch.tensor(values, dtype=torch.float64) for values in (weights, means, stds))
    return GaussianMixture(w, m[:, None], s.square()[:, None, None])


# What x may be for either of two observations
GIVEN_Y = [prior([0.2, 0.8], [0.1, 0.6], [0.03, 0.08]), prior([0.5, 0.5], [0.4, 0.9], [0.05, 0.02])]
MARGINAL = prior([0.06, 0.24, 0.35, 0.35], [0.1, 0.6, 0.4, 0.9], [0.03, 0.08, 0.05, 0.02])


def best_noise(of: GaussianMixture, x_t: Tensor, t: float) -> Tensor:
    """E[noise | x_t] when x_0 has this distribution."""
    mean, std = PATH.marginal(of.posterior_mean(PATH, x_t, ANCHOR, t), ANCHOR, t)
    return (x_t - mean) / std


def all_draws(t: float) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each y: x_t, noise, and probability on a Gauss-Hermite grid over x_0 and the noise."""
    nodes, shares = (torch.from_numpy(values) for values in np.polynomial.hermite_e.hermegauss(80))
    shares = shares / shares.sum()
    draws = []
    for p_y, given in zip(P_Y, GIVEN_Y, strict=True):
        x0 = given.means + given.covariances[:, 0].sqrt() * nodes  # (K, 80)
        p = p_y * given.weights[:, None, None] * shares[:, None] * shares
        noise = nodes.expand(p.shape)
        x_t = PATH.perturb(x0[..., None], ANCHOR, t, noise)
        draws.append((x_t.reshape(-1, 1), noise.reshape(-1, 1), p.reshape(-1, 1)))
    return draws


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("t", [20.0, 80.0, 150.0])
def test_the_loss_is_least_at_the_noise_expected_given_both(t: float):
    """The error of E[noise | x_t, y] is uncorrelated with every function of x_t and y, so every change costs."""
    draws = all_draws(t)
    assert sum(p.sum() for _, _, p in draws).item() == pytest.approx(1, abs=1e-12)
    best = [best_noise(given, x_t, t) for given, (x_t, _, _) in zip(GIVEN_Y, draws, strict=True)]
    least = sum((p * (f - noise).square()).sum() for f, (_, noise, p) in zip(best, draws, strict=True))
    for change in (
        lambda x, y: torch.ones_like(x),
        lambda x, y: (1 - 2 * y) * x,
        lambda x, y: torch.cos(3 * x + y),
    ):
        g = [change(x_t, y) for y, (x_t, _, _) in enumerate(draws)]
        inner = sum((p * (f - noise) * h).sum() for f, h, (_, noise, p) in zip(best, g, draws, strict=True))
        assert abs(inner.item()) < 1e-6
        loss = sum(
            (p * (f + 0.1 * h - noise).square()).sum() for f, h, (_, noise, p) in zip(best, g, draws, strict=True)
        )
        cost = sum((p * (0.1 * h).square()).sum() for h, (_, _, p) in zip(g, draws, strict=True))
        assert (loss - least).item() == pytest.approx(cost.item(), rel=1e-4)


@pytest.mark.parametrize("t", [20.0, 80.0, 150.0])
def test_the_condition_lowers_the_loss_by_what_it_changes(t: float):
    """Without y, the least loss is higher by the mean square of E[noise | x_t, y] - E[noise | x_t]."""
    draws = all_draws(t)
    blind, sighted, gap = 0.0, 0.0, 0.0
    for given, (x_t, noise, p) in zip(GIVEN_Y, draws, strict=True):
        with_y, without = best_noise(given, x_t, t), best_noise(MARGINAL, x_t, t)
        sighted += (p * (with_y - noise).square()).sum().item()
        blind += (p * (without - noise).square()).sum().item()
        gap += (p * (with_y - without).square()).sum().item()
    assert gap > 1e-5 and blind - sighted == pytest.approx(gap, rel=1e-4)


def test_the_best_conditional_noise_is_the_conditional_score():
    """-noise / (sigma s_t) against automatic differentiation of log p(x_t | y)."""
    x_t = torch.linspace(-0.5, 1.5, 41, dtype=torch.float64)[:, None].requires_grad_()
    for given in GIVEN_Y:
        for t in (5.0, 60.0, 200.0):
            (score,) = torch.autograd.grad(given.log_density(PATH, x_t, ANCHOR, t).sum(), x_t)
            expected = -best_noise(given, x_t.detach(), t) / (PATH.sigma * PATH.level(t))
            torch.testing.assert_close(score, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("y", [0, 1])
def test_the_sampler_draws_from_the_posterior(y: int):
    """With the exact conditional denoiser, the shares, means, and spreads of both clusters come out."""
    given = GIVEN_Y[y]
    x = PATH.start(ANCHOR, torch.randn(20_000, 1, generator=generator(y), dtype=torch.float64))

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        return given.posterior_mean(PATH, x_t, ANCHOR, t[0])

    x = ancestral(PATH, denoise, x, ANCHOR, PATH.times(200), generator=generator(7)).image
    middle = given.means.mean()
    clusters = zip((x < middle, x >= middle), given.weights, given.means, given.covariances, strict=True)
    for side, weight, mean, variance in clusters:
        assert side.double().mean().item() == pytest.approx(weight.item(), abs=0.015)
        assert x[side].mean().item() == pytest.approx(mean.item(), abs=0.01)
        assert x[side].std().item() == pytest.approx(variance.sqrt().item(), abs=0.008)  # steps leave out a part


@pytest.mark.parametrize("length", [3, 8, 20])
def test_bicubic_enlarging_loses_nothing(length: int):
    """The matrix of one axis has full rank, far from losing it, so no two small images give the same condition."""
    smallest = torch.linalg.svdvals(resize_weights(length, 4 * length, 4.0))[-1]
    assert smallest > 0.5


def test_the_absolute_error_prefers_the_majority():
    """x_0 is 0 or 1. The mean keeps the odds of 7 to 3; the median, which L1 learns, shifts them."""
    odds = math.log(0.7 / 0.3)
    shares = {}
    for kind in ("mean", "median"):

        def denoise(x_t: Tensor, t: Tensor, kind: str = kind) -> Tensor:
            signal, noise = PATH.signal(t[0]), PATH.level(t[0])
            p = torch.sigmoid(odds + (x_t - 0.5) * signal / (PATH.sigma * noise) ** 2)
            return p if kind == "mean" else (p > 0.5).to(p)

        x = PATH.start(ANCHOR, torch.randn(20_000, 1, generator=generator(), dtype=torch.float64))
        x = ancestral(PATH, denoise, x, ANCHOR, PATH.times(200), generator=generator(1)).image
        shares[kind] = (x > 0.5).double().mean().item()
    assert shares["mean"] == pytest.approx(0.7, abs=0.02)
    assert 0.77 < shares["median"] < 0.82


@pytest.mark.parametrize(("t", "s"), [(200, 199), (150, 100), (40, 39), (10, 5)])
@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0])
def test_both_variances_are_right_for_some_images(t: int, s: int, spread: float):
    """The exact variance of x_s given x_t, for x_0 with this standard deviation in units of the scale."""
    a_t, a_s = PATH.signal(t), PATH.signal(s)
    s_t, s_s = PATH.level(t), PATH.level(s)
    variance = spread**2
    # x_s and x_t are jointly Gaussian
    of_s, of_t = a_s**2 * variance + s_s**2, a_t**2 * variance + s_t**2
    both = a_s * a_t * variance + PATH.transition(t, s) * s_s**2
    exact = of_s - both**2 / of_t
    beta = 1 - (a_t / a_s) ** 2
    tilde = beta * s_s**2 / s_t**2
    x = torch.zeros(1, 1, dtype=torch.float64)
    _, std = PATH.posterior(x, x, x, t, s)
    assert (std / PATH.sigma).square().item() == pytest.approx(tilde.item(), rel=1e-9)
    way = variance / (variance + (1 - variance) * s_t**2)
    assert exact.item() == pytest.approx((tilde + way * (beta - tilde)).item(), rel=1e-9)
    if spread in (0.0, 1.0):
        assert exact.item() == pytest.approx((tilde if spread == 0 else beta).item(), rel=1e-9)
    else:
        assert tilde < exact < beta


@pytest.mark.parametrize("rho", [0.001, 0.01, 0.1, 0.5])
def test_where_the_condition_gains_most(rho: float):
    """In the loss of the noise at a moderate level; in the image, the more the noisier."""
    s2 = torch.linspace(0, 1, 200_001, dtype=torch.float64)[1:-1]
    a2 = 1 - s2
    blind, sighted = (1 - s2 / (a2 * spread + s2) for spread in (1.0, rho))  # variance of the noise given z_t
    gain = blind - sighted
    best, root = gain.argmax(), math.sqrt(rho)
    assert s2[best].item() == pytest.approx(root / (1 + root), abs=1e-4)
    assert gain[best].item() == pytest.approx((1 - root) / (1 + root), rel=1e-6)
    of_image = s2 / a2 * gain
    torch.testing.assert_close(of_image, (1 - rho) * s2**2 / (rho + (1 - rho) * s2))
    assert (of_image.diff() > 0).all() and of_image[-1].item() == pytest.approx(1 - rho, abs=1e-4)


def test_the_repair_never_hurts():
    """The error shrinks by exactly the part of it that the small image fixes."""
    truth, guess = (torch.rand(2, 3, 16, 12, generator=generator(k), dtype=torch.float64) for k in (1, 2))
    repaired = consistent(guess, imresize(truth, 1 / 4))
    removed = (repaired - guess).square().sum()
    assert removed > 0.1
    left = (repaired - truth).square().sum()
    torch.testing.assert_close(left, (guess - truth).square().sum() - removed, rtol=1e-9, atol=0)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_error_of_the_mean_of_several_samples(count: int):
    """E |mean of n samples - x|^2 = (1 + 1/n) tr Cov, by enumeration of all draws."""
    x = torch.randn(5, 3, generator=generator(), dtype=torch.float64)
    p = torch.softmax(torch.randn(5, generator=generator(1), dtype=torch.float64), dim=0)
    spread = (p @ (x - p @ x).square()).sum()
    error = 0.0
    for truth, *drawn in product(range(5), repeat=count + 1):
        error += p[[truth, *drawn]].prod() * (x[drawn].mean(dim=0) - x[truth]).square().sum()
    assert error.item() == pytest.approx((1 + 1 / count) * spread.item(), rel=1e-12)
