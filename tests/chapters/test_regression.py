"""What chapter 2 proves about regression, checked on joint distributions small enough to enumerate."""

import math

import pytest
import torch

from srbook.degradations import bicubic_downsample
from srbook.exact import empirical_posterior
from srbook.study.examples import patch_pairs


@pytest.fixture(params=range(3))
def joint(request):
    """A random joint distribution: p[k, j] of K signals x_k (D values each) and J observations y_j."""
    generator = torch.Generator().manual_seed(request.param)
    x = torch.randn(7, 5, dtype=torch.float64, generator=generator)
    p = torch.rand(7, 4, dtype=torch.float64, generator=generator)
    return x, p / p.sum()


def posterior_moments(x, p):
    """E[x | y_j] (J, D), and the trace of Cov(x | y_j) (J,)."""
    conditional = p / p.sum(dim=0)
    mean = conditional.T @ x
    return mean, conditional.T @ x.square().sum(dim=1) - mean.square().sum(dim=1)


def risk(f, x, p):
    """E |f(y) - x|^2, summed over all pairs."""
    return (p * (f[None] - x[:, None]).square().sum(dim=2)).sum()


def test_bias_variance_decomposition(joint):
    x, p = joint
    f = torch.randn(p.shape[1], x.shape[1], dtype=torch.float64)
    mean, variance = posterior_moments(x, p)
    py = p.sum(dim=0)
    expected = (py * (f - mean).square().sum(dim=1)).sum() + (py * variance).sum()
    torch.testing.assert_close(risk(f, x, p), expected, rtol=1e-12, atol=0)


def test_posterior_mean_minimizes_the_risk(joint):
    """The gradient of the risk vanishes at the posterior mean, and every other predictor is worse."""
    x, p = joint
    mean, variance = posterior_moments(x, p)
    f = mean.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(risk(f, x, p), f)
    assert gradient.abs().max() < 1e-14
    assert risk(mean, x, p).item() == pytest.approx((p.sum(dim=0) * variance).sum().item(), rel=1e-12)
    for _ in range(20):
        assert risk(mean + 0.1 * torch.randn_like(mean), x, p) > risk(mean, x, p)


def test_absolute_error_gives_the_median():
    """Of all constants, the median minimizes the expected absolute difference; the mean does not."""
    values = torch.tensor([0.0, 0.1, 0.2, 0.9, 1.0], dtype=torch.float64)
    p = torch.tensor([0.3, 0.1, 0.15, 0.2, 0.25], dtype=torch.float64)  # cumulative .3 .4 .55: the median is 0.2
    candidates = torch.linspace(-0.2, 1.2, 1401, dtype=torch.float64)
    expected_error = (p * (candidates[:, None] - values).abs()).sum(dim=1)
    assert candidates[expected_error.argmin()].item() == pytest.approx(0.2, abs=1e-9)
    mean = (p * values).sum()
    assert mean.item() == pytest.approx(0.47)


def test_the_median_may_be_an_image_or_none():
    """The values' own medians: of the five edges they make one of the five, of these three images none of the three."""
    edges = torch.ones(5, 4).tril(-1).flip(1)
    for images, median, plausible in (
        (edges, [0.0, 0, 1, 1], True),
        (torch.tensor([[1.0, 1, 0], [1, 0, 1], [0, 1, 1]]), [1.0, 1, 1], False),
    ):
        found = images.median(dim=0).values
        assert found.tolist() == median
        assert (found == images).all(dim=1).any().item() is plausible


def test_spectrum_of_the_mean_misses_what_the_error_has(joint):
    """At every frequency: power of the mean = power of the truth - power of the error."""
    x, p = joint
    mean, _ = posterior_moments(x, p)
    py = p.sum(dim=0)

    def power(signal):
        return torch.fft.fft(signal, norm="ortho").abs().square()

    of_mean = (py[:, None] * power(mean)).sum(dim=0)
    of_truth = (p.sum(dim=1)[:, None] * power(x)).sum(dim=0)
    of_error = (p[..., None] * power(x[:, None] - mean[None])).sum(dim=(0, 1))
    torch.testing.assert_close(of_mean, of_truth - of_error, rtol=1e-12, atol=1e-14)


def test_error_of_the_mean_is_orthogonal_to_every_prediction(joint):
    x, p = joint
    mean, _ = posterior_moments(x, p)
    g = torch.randn_like(mean)
    inner = (p * ((x[:, None] - mean[None]) * g[None]).sum(dim=2)).sum()
    assert abs(inner.item()) < 1e-14


def test_empirical_posterior_is_bayes_rule():
    """Against the densities written out, and against the limits of no and of endless noise."""
    examples = torch.tensor([[0.0, 1.0], [2.0, 1.0], [0.5, -1.0]], dtype=torch.float64)
    y = torch.tensor([0.6, 0.8], dtype=torch.float64)
    densities = [math.exp(-((0.6 - a) ** 2 + (0.8 - b) ** 2) / (2 * 0.7**2)) for a, b in examples.tolist()]
    expected = torch.tensor(densities, dtype=torch.float64) / sum(densities)
    torch.testing.assert_close(empirical_posterior(y, examples, 0.7), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(empirical_posterior(y, examples, 1e-3), torch.tensor([1.0, 0, 0], dtype=torch.float64))
    torch.testing.assert_close(empirical_posterior(y, examples, 1e6), torch.full((3,), 1 / 3, dtype=torch.float64))


def test_empirical_posterior_refuses_bad_input():
    with pytest.raises(ValueError, match="noise must be positive"):
        empirical_posterior(torch.zeros(2), torch.zeros(3, 2), 0.0)
    with pytest.raises(ValueError, match=r"got \(2,\), \(3, 4\)"):
        empirical_posterior(torch.zeros(2), torch.zeros(3, 4), 1.0)


def test_patch_pairs_are_aligned_and_complete():
    """A known position is found in all eight orientations, with the brightness of the small patch taken off."""
    image = torch.rand(1, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    low, high = patch_pairs([image], scale=4, size=2)
    assert low.shape == (8 * 3 * 4, 4) and high.shape == (8 * 3 * 4, 64)
    gray = image.mean(dim=1)[0]
    small = bicubic_downsample(image, 4).mean(dim=1)[0]
    y, x = small[1:3, 2:4], gray[4:12, 8:16]
    for turns in range(4):
        for flip in (False, True):
            a, b = (torch.rot90(z.flip(1) if flip else z, turns) - y.mean() for z in (y, x))
            match = (low - a.reshape(-1)).abs().amax(dim=1) < 1e-6
            assert match.sum() == 1
            torch.testing.assert_close(high[match][0], b.reshape(-1))
