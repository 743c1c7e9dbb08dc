"""What chapter 7 proves: the error of a guess, the best simple guess, the cosine schedule, and the wavelet weights."""

import pytest
import torch
from torch import Tensor

from srbook.losses import haar, wavelet_loss
from srbook.parametrizations import to_x0
from srbook.paths import DiscreteVP
from srbook.schedules import cosine_betas, linear_betas

PATHS = [
    DiscreteVP(linear_betas(1000), sigma=0.5),
    DiscreteVP(linear_betas(1000), sigma=0.25),
    DiscreteVP(cosine_betas(100), sigma=0.25),
]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.99])
def test_the_image_is_wrong_by_nu_times_the_noise(path: DiscreteVP, share: float):
    t = share * path.end
    x0, anchor, noise, error = (normal(2, 3, 4, 4, seed=seed) for seed in range(4))
    guess = to_x0(path, "eps", noise + error, path.perturb(x0, anchor, t, noise), anchor, t)
    nu = path.sigma * path.level(t) / path.signal(t)
    torch.testing.assert_close(guess - x0, -nu * error)


@pytest.mark.parametrize("half_width", [0.06, 0.25, 0.5])
def test_clipping_helps_wherever_the_truth_is_inside(half_width: float):
    """Pixel by pixel it brings any guess closer or leaves it; afterwards no pixel is off by more than the box."""
    anchor, guess = uniform(1000, seed=1), 10 * normal(1000, seed=2)
    truth = anchor + half_width * (2 * uniform(1000, seed=3) - 1)
    clipped = anchor + (guess - anchor).clamp(-half_width, half_width)
    assert ((clipped - truth).abs() <= (guess - truth).abs() + 1e-15).all()
    assert ((clipped - truth).abs() <= 2 * half_width).all()
    outside = anchor + 3 * half_width  # a truth that the box cannot reach
    missed = anchor + (outside - anchor).clamp(-half_width, half_width) - outside
    torch.testing.assert_close(missed.abs(), torch.full_like(missed, 2 * half_width))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("t", [1, 20, 60])
def test_the_best_pixelwise_guess(path: DiscreteVP, t: int):
    """Least squares on many skewed residuals finds the factor V / (V + nu^2), and its error."""
    residual = uniform(400_000, seed=4) ** 3 - 0.1
    state = path.perturb(residual, torch.zeros(()), t, normal(400_000, seed=5)) / path.signal(t)
    second_moment = residual.square().mean()
    nu = path.sigma * path.level(t) / path.signal(t)
    factor = (state @ residual) / state.square().sum()
    assert factor.item() == pytest.approx((second_moment / (second_moment + nu**2)).item(), rel=0.02)
    error = (factor * state - residual).square().mean()
    expected = second_moment * nu**2 / (second_moment + nu**2)
    assert error.item() == pytest.approx(expected.item(), rel=0.02)
    assert expected <= min(second_moment, nu**2)


@pytest.mark.parametrize("steps", [2, 10, 100, 1000])
@pytest.mark.parametrize("s", [0.0, 0.008, 0.1])
def test_the_cosine_schedule_clips_its_last_step_only(steps: int, s: float):
    betas = cosine_betas(steps, s)
    assert betas[:-1].max() <= 0.75 + 1e-12 and betas[-1] == 0.999
    u = torch.arange(steps + 1, dtype=torch.float64) / steps
    f = torch.cos((u + s) / (1 + s) * torch.pi / 2).square()
    products = (1 - betas).cumprod(0)
    torch.testing.assert_close(products[:-1], f[1:-1] / f[0], rtol=1e-9, atol=0)
    torch.testing.assert_close(products[-1], 0.001 * products[-2], rtol=1e-9, atol=0)


@pytest.mark.parametrize("levels", [1, 3, 4])
def test_the_wavelet_loss_counts_level_j_four_to_the_j_times(levels: int):
    a, b = normal(2, 3, 16, 32, seed=6), normal(2, 3, 16, 32, seed=7)
    low, details = haar(a - b, levels)
    shares = [band.square().sum() / a.numel() for band in details]
    torch.testing.assert_close(wavelet_loss(a, b, levels), sum(4**j * share for j, share in enumerate(shares, start=1)))
    torch.testing.assert_close((a - b).square().mean(), low.square().sum() / a.numel() + sum(shares))
