"""What chapter 11 proves: soft histograms, the force on a gray level, what a histogram cannot see, and a path's end."""

import math
from itertools import pairwise

import pytest
import sympy
import torch
from torch import Tensor

from srbook.degradations import bicubic_downsample, bicubic_upsample
from srbook.losses import entropy_matching_loss, soft_histogram
from srbook.metrics import residual_entropy
from srbook.paths import DiscreteVP
from srbook.results import stored_result, stored_results
from srbook.samplers import ancestral
from srbook.schedules import cosine_betas, linear_betas


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def values_in(low: float, high: float, *shape: int, seed: int = 0) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator(seed), dtype=torch.float64)


def kernel(x: Tensor, bins: int, width: float) -> Tensor:
    """Weight of each value in each bin: (..., M, bins)."""
    return torch.exp(-((x[..., None] - torch.linspace(0, 1, bins, dtype=torch.float64)) ** 2) / (2 * width**2))


def total(x: float, bins: int, width: float) -> float:
    return kernel(torch.tensor([x], dtype=torch.float64), bins, width).sum().item()


# The soft histogram


@pytest.mark.parametrize("ratio", [0.125, 0.25, 0.5, 1.0, 2.55])
def test_a_value_weighs_the_theta_function(ratio: float):
    """The weight of a value far from both ends, against the sum of waves that Poisson's formula makes of it."""
    distance = 1 / 255
    width = ratio * distance
    for place in (127.0, 127.2, 127.5):
        waves = (math.exp(-2 * (math.pi * m * ratio) ** 2) * math.cos(2 * math.pi * m * place) for m in range(1, 60))
        expected = width * math.sqrt(2 * math.pi) / distance * (1 + 2 * sum(waves))
        assert total(place * distance, 256, width) == pytest.approx(expected, rel=1e-10)
    swing = [total(place * distance, 256, width) for place in (127.0, 127.5)]
    if ratio >= 0.5:
        assert (swing[0] - swing[1]) / sum(swing) < 0.0144


def test_a_value_at_an_end_weighs_half_and_half_a_bin():
    inside = total(0.5, 256, 0.01)
    for end in (0.0, 1.0):
        assert total(end, 256, 0.01) == pytest.approx((inside + 1) / 2, rel=1e-12)
    assert (inside + 1) / 2 / inside == pytest.approx(0.578, abs=5e-4)
    mixed = torch.tensor([0.0, 0.5], dtype=torch.float64)  # the package counts black and gray so
    dark = soft_histogram(mixed)[:64].sum().item()
    assert dark == pytest.approx((inside + 1) / (3 * inside + 1), rel=1e-9)


def test_narrow_kernels_count_only_the_values_that_are_nearest_to_a_center():
    levels = torch.tensor([3, 3, 7, 200], dtype=torch.float64) / 255
    hard = torch.bincount((levels * 255).round().long(), minlength=256).double() / 4
    torch.testing.assert_close(soft_histogram(levels, sigma=1 / 255 / 8), hard, rtol=0, atol=1e-12)
    unequal = torch.tensor([3.0, 3.0, 7.4, 200.2], dtype=torch.float64) / 255
    counts = kernel(unequal, 256, 0.05 / 255).sum(dim=0)  # below the width that the package allows
    assert (counts / counts.sum())[3].item() == pytest.approx(1.0, abs=1e-3)


def test_whole_levels_give_the_blurred_hard_histogram():
    levels = torch.randint(40, 216, (500,), generator=generator())
    hard = torch.bincount(levels, minlength=256).double() / 500
    blur = kernel(torch.arange(256, dtype=torch.float64) / 255, 256, 0.01)
    expected = hard @ blur / total(0.5, 256, 0.01)
    found = soft_histogram(levels.double() / 255)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert found.sum().item() == pytest.approx(1, abs=1e-12) and found.min() >= 0


# The force


def by_theorem(sr: Tensor, hr: Tensor, bins: int, width: float, direction: str, delta: float) -> Tensor:
    """The gradient of the loss by each value of one set, (M,)."""
    weights, wanted = kernel(sr, bins, width), kernel(hr, bins, width).sum(dim=0)
    p, q = wanted / wanted.sum(), weights.sum(dim=0) / weights.sum()
    g = -p / (q + delta) if direction == "forward" else ((q + delta) / (p + delta)).log() + q / (q + delta)
    push = (sr[:, None] - torch.linspace(0, 1, bins, dtype=torch.float64)) / width**2
    return (((q * g).sum() - g) * push * weights).sum(dim=1) / weights.sum()


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize(("bins", "width", "delta"), [(256, 0.01, 1e-10), (16, 0.05, 1e-3), (8, 0.03, 0.1)])
def test_the_gradient_is_the_theorems(direction: str, bins: int, width: float, delta: float):
    """Values near the ends included, where the weights differ; the image's value 0 is clamped and has none."""
    sr = values_in(0.01, 0.99, 1, 1, 12, 11, seed=1).requires_grad_()
    hr = values_in(0.2, 1.0, 1, 1, 12, 11, seed=2)
    loss = entropy_matching_loss(sr, hr, bins=bins, sigma=width, direction=direction, eps=delta)
    (found,) = torch.autograd.grad(loss, sr)
    expected = by_theorem(sr.detach().flatten(), hr.flatten(), bins, width, direction, delta)
    torch.testing.assert_close(found.flatten(), expected, rtol=1e-8, atol=1e-10 * expected.abs().max().item())


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_gradient_in_symbols(direction: str):
    """Two values, three bins, SymPy: the theorem minus the derivative is zero at a place, to 25 digits."""
    x, y, width, delta = sympy.symbols("x y w d", positive=True)
    p = sympy.symbols("p1:4", positive=True)
    centers = [sympy.Integer(0), sympy.Rational(1, 2), sympy.Integer(1)]

    def k(value, center):
        return sympy.exp(-((value - center) ** 2) / (2 * width**2))

    sums = [k(x, c) + k(y, c) for c in centers]
    z = sum(sums)
    q = [one / z for one in sums]
    pairs = list(zip(p, q, strict=True))
    if direction == "forward":
        loss = sum(a * sympy.log((a + delta) / (b + delta)) for a, b in pairs)
        g = [-a / (b + delta) for a, b in pairs]
    else:
        loss = sum(b * sympy.log((b + delta) / (a + delta)) for a, b in pairs)
        g = [sympy.log((b + delta) / (a + delta)) + b / (b + delta) for a, b in pairs]
    average = sum(b * each for b, each in zip(q, g, strict=True))
    force = sum((average - each) * (x - c) / width**2 * k(x, c) for each, c in zip(g, centers, strict=True)) / z
    difference = sympy.diff(loss, x) - force
    place = (sympy.Rational(str(number)) for number in (0.3, 0.9, 0.4, 0.01, 0.2, 0.5, 0.3))
    assert abs(difference.subs(dict(zip((x, y, width, delta, *p), place, strict=True))).evalf(30)) < 1e-25


def test_far_from_the_ends_the_force_is_the_slope_of_the_blurred_ratio():
    sr, hr = values_in(0.3, 0.6, 400, seed=1), values_in(0.35, 0.7, 500, seed=2)
    q, p = (soft_histogram(values) for values in (sr, hr))
    x = sr.clone().requires_grad_()
    weights = kernel(x, 256, 0.01)
    climbed = (weights * (p / (q + 1e-10))).sum(dim=1) / weights.sum(dim=1)
    (slope,) = torch.autograd.grad(climbed.sum(), x)
    expected = by_theorem(sr, hr, 256, 0.01, "forward", 1e-10)
    torch.testing.assert_close(-slope / 400, expected, rtol=1e-6, atol=1e-8 * expected.abs().max().item())


def test_the_force_ends_where_the_constant_takes_over():
    """Two flat images a distance apart: the pull is distance / width^2 up to about six widths, and then dies."""
    pull = {}
    for distance in (0.02, 0.05, 0.06, 0.1, 0.2):
        sr = torch.full((1, 1, 4, 4), 0.5, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(entropy_matching_loss(sr, torch.full_like(sr, 0.5 - distance).detach()), sr)
        pull[distance] = gradient.sum().item() * 0.01**2 / distance
    assert pull[0.02] == pytest.approx(1, abs=1e-3) and pull[0.05] > 0.8
    assert pull[0.06] > 0.4 and pull[0.1] < 1e-2 and pull[0.2] < 1e-12


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_released_range_takes_the_force_from_the_dark_half(direction: str):
    sr, hr = (values_in(0.0, 1.0, 1, 1, 32, 32, seed=seed) for seed in (1, 2))
    sr.requires_grad_()
    loss = entropy_matching_loss(sr, hr, direction=direction, released_range=True)
    (gradient,) = torch.autograd.grad(loss, sr)
    assert not gradient[sr < 0.5].any() and gradient[sr > 0.5].ne(0).all()
    other = torch.where(sr.detach() < 0.5, 0.5 - sr.detach(), sr.detach())  # any dark image has the same loss
    assert entropy_matching_loss(other, hr, direction=direction, released_range=True).item() == pytest.approx(
        loss.item(), abs=1e-12
    )


# Directions


def normal_values(count: int) -> Tensor:
    """Quantiles of the standard normal in the middles of equal shares."""
    return torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_forward_fits_mean_and_variance_and_reverse_one_hill(direction: str):
    """A prediction that can only be a Gaussian, of a truth with two groups of levels, well inside the range."""
    truth = torch.cat([0.3 + 0.03 * normal_values(130), 0.7 + 0.03 * normal_values(70)])
    found = []
    for start in (0.35, 0.6):
        place = torch.tensor([start, math.log(0.1)], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([place], lr=0.03)
        for _ in range(150):
            values = place[0] + place[1].exp() * normal_values(200)
            loss = entropy_matching_loss(values.view(1, 1, 1, -1), truth.view(1, 1, 1, -1), direction=direction)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found.append((loss.item(), place[0].item(), place[1].exp().item()))
    _, mean, std = min(found)
    if direction == "forward":
        assert mean == pytest.approx(truth.mean().item(), abs=0.01) and std == pytest.approx(
            truth.std().item(), rel=0.05
        )
    else:
        assert mean == pytest.approx(0.3, abs=0.02) and std < 0.06


# What a histogram sees


def photo_like(side: int = 32) -> tuple[Tensor, Tensor]:
    """A truth with structure and its bicubic image, well inside the range."""
    rows = torch.linspace(0, 1, side, dtype=torch.float64)
    hr = 0.5 + 0.2 * torch.sin(9 * rows)[:, None] * torch.cos(23 * rows)[None] + 0.1 * (rows[:, None] > rows[None])
    hr = hr.expand(1, 3, side, side).clamp(0.15, 0.85).float()
    return hr.double(), bicubic_upsample(bicubic_downsample(hr, 4), 4).clamp(0.15, 0.85).double()


def test_moving_pixels_changes_nothing_and_says_nothing_about_the_residual():
    hr, sr = photo_like()
    order = torch.randperm(32 * 32, generator=generator())
    moved = sr.flatten(2)[..., order].view_as(sr)
    assert entropy_matching_loss(moved, hr).item() == pytest.approx(entropy_matching_loss(sr, hr).item(), abs=1e-12)
    shuffled = hr.flatten(2)[..., order].view_as(hr)
    assert entropy_matching_loss(shuffled, hr).item() == pytest.approx(0, abs=1e-12)
    assert residual_entropy(hr.float(), shuffled.float(), channel="rgb").item() > 5


def test_no_residual_entropy_says_nothing_about_the_loss():
    """A prediction that is ten levels too bright: one value of the residual, and a large loss."""
    levels = torch.randint(60, 180, (1, 3, 16, 16), generator=generator()).float() / 255
    bright = levels + 10 / 255
    assert residual_entropy(levels, bright, channel="rgb").item() == pytest.approx(0)
    assert entropy_matching_loss(bright.double(), levels.double()).item() > 0.01
    flat = torch.full((1, 1, 4, 4), 0.5, dtype=torch.float64)
    loss = entropy_matching_loss(flat + 0.03, flat, eps=1e-300)
    assert loss.item() == pytest.approx(0.03**2 / (2 * 0.01**2), rel=1e-6)


def test_smaller_patches_cost_more_up_to_the_squared_error():
    hr, sr = photo_like()
    losses = [
        entropy_matching_loss(sr, hr, patch=patch, sigma=0.05, eps=1e-300).item() for patch in (32, 16, 8, 4, 2, 1)
    ]
    assert entropy_matching_loss(sr, hr, sigma=0.05, eps=1e-300).item() == pytest.approx(losses[0], abs=1e-12)
    assert all(coarse <= fine + 1e-12 for coarse, fine in pairwise(losses))


def test_one_pixel_per_patch_is_the_squared_error():
    hr = values_in(0.4, 0.6, 2, 3, 8, 8, seed=1)
    sr = hr + 0.01 * torch.randn(hr.shape, generator=generator(2), dtype=torch.float64)
    expected = (sr - hr).square().mean().item() / (2 * 0.01**2)
    for direction in ("forward", "reverse"):
        found = entropy_matching_loss(sr, hr, patch=1, direction=direction, eps=1e-300).item()
        assert found == pytest.approx(expected, rel=1e-6)


# The end of the path


@pytest.mark.parametrize(
    "betas",
    [
        linear_betas(200, 1e-6, 1e-2),
        linear_betas(500, 1e-6, 1e-2),
        linear_betas(1000, 1e-6, 1e-2),
        linear_betas(200, 5e-6, 5e-2),
        cosine_betas(100),
    ],
)
def test_the_sum_of_the_betas_decides_what_is_left(betas: Tensor):
    total_beta, squares = betas.sum().item(), betas.square().sum().item()
    log_share = 2 * DiscreteVP(betas).signal(len(betas)).log().item()
    assert -total_beta - squares / (2 * (1 - betas.max().item())) <= log_share <= -total_beta - squares / 2


def test_shares_of_the_three_schedules():
    for steps, end, low, high in ((200, 1e-2, 0.366, 0.367), (500, 1e-2, 0.081, 0.082), (1000, 1e-2, 0.0066, 0.0067)):
        assert low < DiscreteVP(linear_betas(steps, 1e-6, end)).signal(steps).square().item() < high
        scaled = linear_betas(steps, 1e-6 * 1000 / steps, end * 1000 / steps)
        assert scaled.sum().item() == pytest.approx(5.0005, abs=1e-9)
        assert DiscreteVP(scaled).signal(steps).square().item() < 0.0067


@pytest.mark.parametrize("chosen", [200, 20, 4])
@pytest.mark.parametrize("spread", [0.01, 0.3, 1.0])
def test_a_wrong_start_is_forgotten_by_the_square_of_the_last_slope(chosen: int, spread: float):
    """Of the variance at the end: by the package's steps with the exact denoiser, which are linear."""
    path = DiscreteVP(linear_betas(200, 1e-6, 1e-2))
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)

    def slope(t) -> Tensor:
        return path.signal(t) * spread / (path.signal(t) ** 2 * spread + path.level(t) ** 2)

    def variance(start: float) -> float:
        times, found = path.times(chosen), torch.tensor(start, dtype=torch.float64)
        for i, t in enumerate(times[:-1]):
            mean, std = path.posterior(one, slope(t) * one, zero, t, times[i + 1])
            found = mean.squeeze() ** 2 * found + std.squeeze() ** 2
        return found.item()

    last = path.signal(200) ** 2 * spread + path.level(200) ** 2
    added = variance(1.0) - variance(last.item())
    assert added == pytest.approx(((1 - last) * slope(200) ** 2).item(), rel=1e-9)
    if chosen == 200:
        assert variance(last.item()) == pytest.approx(spread, rel=0.12)


def test_the_forgetting_in_drawn_samples():
    """The same by 20,000 walks of the sampler itself."""
    path, spread = DiscreteVP(linear_betas(200, 1e-6, 1e-2)), 1.0

    def exact(x: Tensor, t: Tensor) -> Tensor:
        a, s = path.signal(t[0]), path.level(t[0])
        return (a * spread / (a**2 * spread + s**2)).to(x) * x

    z = torch.randn(20000, 1, generator=generator(), dtype=torch.float64)
    ends = [
        ancestral(path, exact, start * z, torch.zeros_like(z), path.times(20), generator=generator(1)).image.var()
        for start in (1.25, 1.0)
    ]
    a2 = path.signal(200).square().item()
    assert (ends[0] - ends[1]).item() == pytest.approx((1.25**2 - 1) * a2, rel=0.05)


# The stored ablation


@pytest.mark.skipif("esrdf_ablation" not in stored_results(), reason="not yet made by benchmarks/ablate.py")
def test_the_stored_ablation_is_complete_and_says_where_it_comes_from():
    stored = stored_result("esrdf_ablation")
    for key in ("command", "date", "commit", "machine", "torch", "preset", "photos", "protocol", "lpips"):
        assert isinstance(stored[key], str) and stored[key], key
    assert stored["sampling_steps"] > 0 and all(training["hours"] > 0 for training in stored["trainings"])
    names = ["bicubic", "cnn", "cnn-entropy"]
    assert sorted(row["name"] for row in stored["predictors"]) == names
    pairs = sorted((row["predictor"], row["diffuses"]) for row in stored["rows"])
    assert pairs == [(name, what) for name in names for what in ("image", "residual")]
    for row in (*stored["predictors"], *stored["rows"]):
        for data in stored["sets"]:
            assert 10 < row[data]["psnr"] < 50 and 0 < row[data]["ssim"] < 1 and 0 < row[data]["lpips"] < 1
    for row in stored["predictors"]:
        assert all(0 < row[data]["residual_entropy"] < 9 and row[data]["histogram_kl"] > 0 for data in stored["sets"])
