"""Wasserstein distances to a Gaussian and the Frechet distance: closed forms, brute force, and the usual program."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from srbook.metrics import (
    FeatureStatistics,
    feature_statistics,
    frechet_distance,
    sliced_wasserstein_to_gaussian,
    wasserstein_to_gaussian,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


# Wasserstein


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_distance_is_the_integral_over_quantiles(count):
    """Brute force: a fine midpoint rule over the quantile functions of both."""
    samples, mean, std = normal(count) ** 3, 0.3, 1.7
    share = (torch.arange(2_000_000, dtype=torch.float64) + 0.5) / 2_000_000
    gaussian = mean + std * torch.special.ndtri(share)
    empirical = samples.sort().values[(share * count).long()]
    expected = (empirical - gaussian).square().mean().sqrt()
    assert wasserstein_to_gaussian(samples, mean, std).item() == pytest.approx(expected.item(), abs=1e-5)


def test_a_point_is_as_far_as_its_offset_and_the_spread():
    """From c to N(m, s^2) the mean squared way is (c - m)^2 + s^2."""
    for offset, std in ((0.0, 1.0), (2.0, 0.5), (-1.0, 0.0)):
        samples = torch.full((50, 2), 0.3 + offset, dtype=torch.float64)
        distance = wasserstein_to_gaussian(samples, 0.3, std)
        assert distance.tolist() == pytest.approx([math.hypot(offset, std)] * 2, abs=1e-12)


def test_many_draws_approach_the_distance_of_gaussians():
    """Between N(m, s^2) and N(n, r^2) it is sqrt((m - n)^2 + (s - r)^2) (Dowson and Landau 1982)."""
    samples = 0.4 + 0.2 * normal(200_000)
    assert wasserstein_to_gaussian(samples, 0.4, 0.2).item() < 0.002
    for mean, std in ((0.0, 1.0), (0.4, 1.0), (1.0, 0.2)):
        expected = math.hypot(0.4 - mean, 0.2 - std)
        assert wasserstein_to_gaussian(samples, mean, std).item() == pytest.approx(expected, abs=0.003)


def test_each_position_is_a_distribution_of_its_own():
    samples, mean, std = normal(30, 2, 3), normal(2, 3, seed=1), normal(2, 3, seed=2).abs()
    together = wasserstein_to_gaussian(samples, mean, std)
    assert together.shape == (2, 3) and together.dtype == torch.float64
    for i in range(2):
        for j in range(3):
            alone = wasserstein_to_gaussian(samples[:, i, j], mean[i, j], std[i, j])
            torch.testing.assert_close(together[i, j], alone, rtol=0, atol=1e-12)


def test_distance_scales_and_shifts_with_its_units():
    samples = normal(64) ** 2
    one = wasserstein_to_gaussian(samples, 0.5, 1.5)
    torch.testing.assert_close(
        wasserstein_to_gaussian(255 * samples + 3, 255 * 0.5 + 3, 255 * 1.5), 255 * one, rtol=1e-12, atol=0
    )
    assert wasserstein_to_gaussian(samples.float(), 0.5, 1.5).item() == pytest.approx(one.item(), abs=1e-6)


def test_distance_has_a_gradient():
    assert torch.autograd.gradcheck(wasserstein_to_gaussian, (normal(9, 2).requires_grad_(), 0.1, 0.7))


def test_sliced_distance_of_isotropic_gaussians():
    """Along every line: N(0, s^2) against N(0, 1), and an offset m whose mean square along a line is |m|^2 / D."""
    samples = 0.5 * normal(10_000, 6)
    assert sliced_wasserstein_to_gaussian(samples, generator=generator()).item() == pytest.approx(0.5, abs=0.01)
    offset = torch.tensor([3.0, 0, 0, 0, 0, 0])
    found = sliced_wasserstein_to_gaussian(samples + offset, 0.0, 0.5, directions=500, generator=generator())
    assert found.item() == pytest.approx(3 / math.sqrt(6), rel=0.1)
    centered = sliced_wasserstein_to_gaussian(samples + offset, offset, 0.5, generator=generator())
    assert centered.item() < 0.02


def test_sliced_distance_is_the_mean_over_its_lines():
    samples = normal(40, 5) ** 3
    lines = torch.randn(5, 7, generator=generator(3), dtype=torch.float64)
    lines = lines / lines.norm(dim=0)
    squares = [wasserstein_to_gaussian(samples @ line, 0.0, 2.0).square() for line in lines.T]
    found = sliced_wasserstein_to_gaussian(samples, 0.0, 2.0, directions=7, generator=generator(3))
    torch.testing.assert_close(found, torch.stack(squares).mean().sqrt(), rtol=0, atol=1e-12)


def test_only_the_sliced_distance_sees_that_entries_hang_together():
    one = normal(20_000, 1)
    tied, free = one.expand(-1, 8), normal(20_000, 8, seed=1)
    per_entry = [wasserstein_to_gaussian(samples).max().item() for samples in (tied, free)]
    assert max(per_entry) < 0.03
    sliced = [sliced_wasserstein_to_gaussian(samples, generator=generator()).item() for samples in (tied, free)]
    assert sliced[0] > 10 * sliced[1]


def test_wasserstein_refuses_wrong_inputs():
    with pytest.raises(TypeError, match=r"floating point tensor, got torch\.int64"):
        wasserstein_to_gaussian(torch.arange(3))
    with pytest.raises(TypeError, match="floating point tensor, got list"):
        wasserstein_to_gaussian([0.0])
    with pytest.raises(ValueError, match=r"at least one value, got \(0, 2\)"):
        wasserstein_to_gaussian(torch.zeros(0, 2))
    with pytest.raises(ValueError, match="some are nan or infinite"):
        wasserstein_to_gaussian(torch.tensor([0.0, float("inf")]))
    with pytest.raises(ValueError, match=r"std must not be negative, got -1\.0"):
        wasserstein_to_gaussian(normal(3), std=-1.0)
    with pytest.raises(ValueError, match=r"shape \(M, D\), got \(2, 3, 4, 4\); flatten patches"):
        sliced_wasserstein_to_gaussian(normal(2, 3, 4, 4))
    with pytest.raises(ValueError, match="directions must be an integer of at least 1, got 0"):
        sliced_wasserstein_to_gaussian(normal(3, 2), directions=0)


# Frechet


def same(features: Tensor) -> Tensor:
    return features


def random_covariance(size: int, seed: int) -> Tensor:
    root = normal(size, size, seed=seed)
    return root @ root.T / size


def by_scipy(first: FeatureStatistics, second: FeatureStatistics) -> float:
    """The formula of the usual FID programs: the trace of the matrix root of the product, real part."""
    from scipy.linalg import sqrtm

    one, other = first.covariance.numpy(), second.covariance.numpy()
    root = np.asarray(sqrtm(one @ other))
    shift = (first.mean - second.mean).numpy()
    return float(shift @ shift + np.trace(one) + np.trace(other) - 2 * np.trace(root.real))


def test_statistics_in_batches_are_those_of_all_features():
    features = normal(57, 6) * torch.tensor([1.0, 2, 3, 1e-3, 5, 6]) + 1000
    for sizes in ([57], [1] * 57, [10, 40, 7], [0, 56, 1]):
        found = feature_statistics(features.split(sizes), same)
        assert found.count == 57
        torch.testing.assert_close(found.mean, features.mean(dim=0), rtol=0, atol=1e-9)
        torch.testing.assert_close(found.covariance, torch.cov(features.T), rtol=1e-9, atol=1e-12)


def test_features_are_extracted_without_gradients():
    images = torch.rand(5, 3, 4, 4, generator=generator()).requires_grad_()
    found = feature_statistics([images], lambda batch: batch.mean(dim=(2, 3)))
    torch.testing.assert_close(found.mean, images.detach().double().mean(dim=(0, 2, 3)), rtol=0, atol=1e-6)
    assert not found.mean.requires_grad and found.mean.dtype == torch.float64


@pytest.mark.arithmetic
def test_distance_of_commuting_covariances_is_closed():
    """With equal eigenvectors the roots are those of the eigenvalues: sum of (sqrt a - sqrt b)^2."""
    rotation, _ = torch.linalg.qr(normal(5, 5))
    a, b = torch.tensor([4.0, 1, 0.25, 0, 9]).double(), torch.tensor([1.0, 1, 4, 2, 0]).double()
    mean = normal(5, seed=1)
    first = FeatureStatistics(mean, rotation @ torch.diag(a) @ rotation.T, 10)
    second = FeatureStatistics(mean + 0.5, rotation @ torch.diag(b) @ rotation.T, 10)
    expected = 5 * 0.25 + (a.sqrt() - b.sqrt()).square().sum().item()
    assert frechet_distance(first, second) == pytest.approx(expected, abs=1e-12)


@pytest.mark.arithmetic
@pytest.mark.parametrize("count", [20, 500])
def test_distance_is_that_of_the_usual_program(count):
    """With more vectors than features, and with so few that the covariances are singular."""
    features = [normal(count, 32, seed=seed) @ random_covariance(32, seed + 5) + 0.1 * seed for seed in (0, 1)]
    first, second = (feature_statistics([batch], same) for batch in features)
    expected = by_scipy(first, second)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9 if count > 32 else 1e-4)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-12)


@pytest.mark.arithmetic
def test_singular_covariances_do_no_harm():
    """Of rank one: tr of the root of C_1 C_2 is |u . v| for C_1 = u u^T and C_2 = v v^T."""
    u, v = normal(64), normal(64, seed=1)
    first, second = (FeatureStatistics(torch.zeros(64).double(), torch.outer(x, x), 2) for x in (u, v))
    expected = u @ u + v @ v - 2 * (u @ v).abs()
    assert frechet_distance(first, second) == pytest.approx(expected.item(), rel=1e-10)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-10)


def test_frechet_refuses_wrong_inputs():
    with pytest.raises(ValueError, match="at least two images, got 1"):
        feature_statistics([normal(1, 3)], same)
    with pytest.raises(ValueError, match="at least two images, got 0"):
        feature_statistics([], same)
    with pytest.raises(ValueError, match=r"shape \(N, D\), got \(2, 3, 4, 4\)"):
        feature_statistics([normal(2, 3, 4, 4)], same)
    with pytest.raises(ValueError, match=r"shape \(N, 3\), got \(2, 4\)"):
        feature_statistics([normal(2, 3), normal(2, 4)], same)
    with pytest.raises(ValueError, match="nan or infinite"):
        feature_statistics([normal(2, 3) / 0], same)
    good = feature_statistics([normal(9, 3)], same)
    with pytest.raises(ValueError, match="3 and 4 features; use one extractor"):
        frechet_distance(good, feature_statistics([normal(9, 4)], same))
    with pytest.raises(ValueError, match="must be symmetric"):
        frechet_distance(good, FeatureStatistics(good.mean, normal(3, 3), 9))
    with pytest.raises(ValueError, match="negative eigenvalues, got -1"):
        frechet_distance(good, FeatureStatistics(good.mean, -torch.eye(3).double(), 9))
