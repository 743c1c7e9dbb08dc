"""The proofs of chapter 8: preserved moments, the plane of the two heads, and how errors travel through a sampler."""

from itertools import pairwise

import pytest
import sympy
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from srbook.data import training_samples
from srbook.degradations import bicubic_downsample, bicubic_upsample, crop_to_multiple
from srbook.exact import gaussian
from srbook.objectives import denoising_losses
from srbook.parametrizations import hybrid, to_noise
from srbook.paths import ContinuousVP
from srbook.samplers import ancestral
from srbook.schedules import vp_beta

PATH = ContinuousVP(sigma=0.2)
TIMES = [0.01, 0.2, 0.5, 0.9, 1.0]
TIGHT = {"rtol": 1e-8, "atol": 1e-9}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def levels(t: float) -> tuple[Tensor, Tensor]:
    return PATH.signal(t), PATH.level(t)


def test_wrong_moments_slide_monotonically() -> None:
    """Mean and variance for any assumed mu and sigma: they solve their equations, and their slopes keep one sign."""
    t, m, v, mu, sigma = sympy.symbols("t m v mu sigma", positive=True)
    grown = sympy.Function("B")(t)
    beta, a = grown.diff(t), sympy.exp(-grown / 2)
    mean, variance = mu + a * (m - mu), a**2 * v + (1 - a**2) * sigma**2
    assert sympy.simplify(mean.diff(t) + beta / 2 * (mean - mu)) == 0
    assert sympy.simplify(variance.diff(t) + beta * (variance - sigma**2)) == 0
    assert sympy.simplify(mean.diff(t) / (mu - m) - beta * a / 2) == 0  # beta, a > 0
    assert sympy.simplify(variance.diff(t) / (sigma**2 - v) - beta * a**2) == 0
    assert sympy.simplify(mean.subs(m, mu) - mu) == 0 and sympy.simplify(variance.subs(v, sigma**2) - sigma**2) == 0


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.5])
def test_pixels_of_a_photograph_keep_their_moments(factor: float) -> None:
    """The forward equation, step by step, on the residual of a real image, with a right and with wrong scales."""
    image = crop_to_multiple(next(image for _, image in training_samples().items()), 4).double()
    x = (image - bicubic_upsample(bicubic_downsample(image, 4), 4)).flatten()[:200_000]
    m, v = x.mean(), x.var()
    sigma, steps, generator = factor * v.sqrt(), 200, torch.Generator().manual_seed(0)
    for k in range(steps):
        beta = vp_beta(torch.tensor((k + 0.5) / steps, dtype=torch.float64))
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        x = x - beta / 2 * x / steps + (beta / steps).sqrt() * sigma * noise
        if k + 1 in (40, 100, 200):
            a = PATH.signal((k + 1) / steps)
            assert x.mean().item() == pytest.approx((a * m).item(), abs=0.01 * sigma.item())
            assert x.var().item() == pytest.approx((a**2 * v + (1 - a**2) * sigma**2).item(), rel=0.03)


@pytest.mark.parametrize("t", TIMES)
def test_the_loss_is_that_of_v_and_of_the_known_input(t: float) -> None:
    x0, anchor, noise, e, z = (draw(1, 3, 4, 4, seed=k) for k in range(5))
    moment = torch.tensor([t], dtype=torch.float64)
    losses = denoising_losses(PATH, "hybrid", lambda *_: torch.cat([e, z], dim=1), x0, anchor, moment, noise)
    (a, s), z0 = levels(t), (x0 - anchor) / PATH.sigma
    z_t = a * z0 + s * noise
    of_v = ((a * e - s * z) - (a * noise - s * z0)).square().mean()
    disagreement = (s * e + a * z - z_t).square().mean()
    assert_allclose(losses["loss"], of_v + disagreement, **TIGHT)
    assert of_v <= losses["loss"]


@pytest.mark.parametrize("t", TIMES)
def test_the_hybrid_is_the_nearest_consistent_pair(t: float) -> None:
    """Nearest of all pairs with a z_0 + s noise = z, so never farther from the truth than the heads."""
    (a, s), z_t, e, z = levels(t), draw(7), draw(7, seed=1), draw(7, seed=2)
    zero = torch.zeros((), dtype=torch.float64)
    image, blend = hybrid(PATH, e, PATH.sigma * z, PATH.sigma * z_t, zero, t)
    image = image / PATH.sigma
    assert_allclose(a * image + s * blend, z_t, **TIGHT)
    others = torch.linspace(-9, 9, 20_001, dtype=torch.float64)[:, None]  # v of all consistent pairs
    distance = (s * z_t + a * others - e).square() + (a * z_t - s * others - z).square()
    nearest = others[distance.argmin(0), 0]
    assert_allclose(s * z_t + a * nearest, blend, atol=2e-3)
    assert_allclose(a * z_t - s * nearest, image, atol=2e-3)


@pytest.mark.parametrize("t", TIMES)
def test_errors_of_the_hybrid_are_bounded_at_both_ends(t: float) -> None:
    (a, s), x0, anchor, noise = levels(t), draw(1, 2), draw(1, 2, seed=1), draw(1, 2, seed=2)
    e, z = 0.1 * draw(1, 2, seed=3), 0.1 * draw(1, 2, seed=4)  # errors of the heads
    x_t = PATH.perturb(x0, anchor, t, noise)
    image, blend = hybrid(PATH, noise + e, x0 + PATH.sigma * z, x_t, anchor, t)
    of_v = a * e - s * z
    assert_allclose(blend - noise, a * of_v, **TIGHT)
    assert_allclose(image - x0, -PATH.sigma * s * of_v, **TIGHT)
    assert ((blend - noise).abs() <= e.abs() + z.abs()).all()
    # the average of the two readings errs at most as the average of their errors
    of_image = to_noise(PATH, "x0", x0 + PATH.sigma * z, x_t, anchor, t) - noise
    assert_allclose(of_image, -a / s * z, **TIGHT)
    bound = a**2 * e.square() + (1 - a**2) * of_image.square()
    assert ((blend - noise).square() <= bound + 1e-12).all()


def test_the_flow_of_the_hybrid_turns_by_v() -> None:
    """dz/dt = beta a / (2 s) v, and the angle with cos = a, sin = s grows by beta a / (2 s)."""
    z_t, e, z, zero = draw(5), draw(5, seed=1), draw(5, seed=2), torch.zeros((), dtype=torch.float64)
    for t in TIMES:
        a, s = levels(t)
        image, _ = hybrid(PATH, e, PATH.sigma * z, PATH.sigma * z_t, zero, t)
        velocity = PATH.velocity(PATH.sigma * z_t, image, zero, t) / PATH.sigma
        turn = vp_beta(torch.tensor(t, dtype=torch.float64)) * a / (2 * s)
        assert_allclose(velocity, turn * (a * e - s * z), **TIGHT)
        moment = torch.tensor(t, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(torch.atan2(PATH.level(moment), PATH.signal(moment)), moment)
        assert_allclose(slope, turn, **TIGHT)


def test_a_step_of_ddim_is_a_rotation() -> None:
    z_t, v, zero = draw(5), draw(5, seed=1), torch.zeros((), dtype=torch.float64)
    for t, s in [(1.0, 0.7), (0.5, 0.1), (0.2, 0.0)]:
        x0 = PATH.sigma * (PATH.signal(t) * z_t - PATH.level(t) * v)
        mean, _ = PATH.posterior(PATH.sigma * z_t, x0, zero, t, s, eta=0.0)
        angle = torch.asin(PATH.level(t)) - torch.asin(PATH.level(s))
        assert_allclose(mean / PATH.sigma, torch.cos(angle) * z_t - torch.sin(angle) * v, **TIGHT)


def test_a_sample_of_ddim_is_its_start_minus_noise_predictions() -> None:
    """Weights are the falls of nu = scale s / a; a constant bias shifts the image by nu at the start."""
    anchor, times = draw(1, 3, seed=1), PATH.times(10)
    start, said = PATH.start(anchor, draw(1, 3)), []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        """Any nonlinear function of the state: the identity does not ask what the network is."""
        x0 = torch.sin(x + t[:, None])
        said.append(to_noise(PATH, "x0", x0, x, anchor, t))
        return x0

    sample = ancestral(PATH, denoise, start, anchor, times, eta=0.0).image
    nu = [(PATH.sigma * PATH.level(t) / PATH.signal(t)).item() for t in times]
    falls = [before - after for before, after in pairwise(nu)]
    total = sum(fall * noise for fall, noise in zip(falls, said, strict=True))
    assert_allclose(sample, anchor + (start - anchor) / PATH.signal(1.0) - total, **TIGHT)
    assert sum(falls) == pytest.approx(nu[0])


def test_every_weight_serves_perfect_heads() -> None:
    """Posterior means of noise and image are consistent, so each blend of them is the same."""
    prior = gaussian(torch.tensor([0.1, -0.2], dtype=torch.float64), torch.diag(torch.tensor([0.04, 0.01]).double()))
    anchor, x_t = torch.zeros(2, dtype=torch.float64), 0.2 * draw(6, 2)
    for t in TIMES:
        x0 = prior.posterior_mean(PATH, x_t, anchor, t)
        noise = to_noise(PATH, "x0", x0, x_t, anchor, t)
        for weight in (0.0, 0.3, None, 1.0):
            assert_allclose(hybrid(PATH, noise, x0, x_t, anchor, t, weight)[0], x0, rtol=1e-6, atol=1e-9)


def test_the_best_weight_of_correlated_mistakes() -> None:
    """The formula of the exercise against a grid, for mistakes e and z with any correlation."""
    a, s = levels(0.3)
    grid = torch.linspace(-1, 2, 30_001, dtype=torch.float64)
    for c, rho in [(1.0, 0.0), (0.5, -0.6), (2.0, 0.4)]:
        k = a * c / s
        best = (k**2 + rho * k) / (1 + k**2 + 2 * rho * k)
        error = grid**2 + ((1 - grid) * k) ** 2 - 2 * grid * (1 - grid) * rho * k
        assert grid[error.argmin()].item() == pytest.approx(best.item(), abs=1e-4)
