"""Soft histograms and the entropy matching loss: the released values, the plain form, and gradients."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from srbook.losses import entropy_matching_loss, soft_histogram


def values_of(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def plain(values: Tensor, bins: int = 256, sigma: float = 0.01, low: float = 0.0, high: float = 1.0) -> Tensor:
    """The definition: a Gaussian of every value at every bin."""
    centers = torch.linspace(low, high, bins, dtype=values.dtype)
    weights = torch.exp(-((values.clamp(low, high)[..., None] - centers) ** 2) / (2 * sigma**2)).sum(dim=-2)
    return weights / weights.sum(dim=-1, keepdim=True)


def plain_loss(sr: Tensor, hr: Tensor, eps: float = 1e-10) -> Tensor:
    p, q = plain(hr.flatten(2)), plain(sr.flatten(2))
    return (p * ((p + eps) / (q + eps)).log()).sum(dim=-1).mean()


@pytest.fixture
def known(vectors) -> dict[str, Tensor]:
    return {name: torch.as_tensor(value) for name, value in np.load(vectors / "esrdf_entropy.npz").items()}


def test_histograms_of_the_released_program(known):
    for name in ("a", "b"):
        found = soft_histogram(known[name].flatten(2))
        torch.testing.assert_close(found, known[f"soft_hist_{name}"], rtol=0, atol=1e-10)


def test_losses_of_the_released_program(known):
    """It sums over channels and averages over bins; the names say which argument came first."""
    a, b = known["a"], known["b"]
    share = 3 / 256
    for sr, hr, name in ((a, b, "loss_input_a_target_b"), (b, a, "loss_input_b_target_a")):
        assert share * entropy_matching_loss(sr, hr).item() == pytest.approx(known[name].item(), abs=1e-10)
        swapped = entropy_matching_loss(hr, sr, direction="reverse")
        assert share * swapped.item() == pytest.approx(known[name].item(), abs=1e-10)
    defect = share * entropy_matching_loss(a, b, released_range=True)
    assert defect.item() == pytest.approx(known["loss_on_minus1_1"].item(), abs=1e-10)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_loss_of_each_channel_of_the_released_program(known, direction):
    expected = known["kl_per_channel_Pb_given_Pa" if direction == "forward" else "kl_per_channel_Pa_given_Pb"]
    for image in range(2):
        for channel in range(3):
            part = (slice(image, image + 1), slice(channel, channel + 1))
            found = entropy_matching_loss(known["a"][part], known["b"][part], direction=direction)
            assert found.item() == pytest.approx(expected[image, channel].item(), abs=1e-10)


SETTINGS = [  # bins, sigma, low, high: narrow and wide Gaussians, bins closer and farther than they are wide
    (256, 0.01, 0.0, 1.0),
    (64, 0.005, 0.0, 1.0),
    (16, 0.5, 0.0, 1.0),
    (300, 0.003, 0.2, 0.9),
    (511, 0.01, -1.0, 1.0),
    (2, 0.125, 0.0, 1.0),
]


@pytest.mark.parametrize(("bins", "sigma", "low", "high"), SETTINGS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_histogram_and_gradient_are_those_of_the_plain_form(bins, sigma, low, high, dtype, tolerance):
    """The gradient of a sum of logarithms, which also looks at nearly empty bins."""
    values = values_of(2, 3, 150, dtype=dtype) * 1.2 - 0.1
    weights = values_of(2, 3, bins, seed=1)
    results = []
    for form, precision in ((soft_histogram, dtype), (plain, torch.float64)):
        x = values.to(precision).requires_grad_()
        histogram = form(x, bins=bins, sigma=sigma, low=low, high=high)
        (gradient,) = torch.autograd.grad(((histogram + 1e-10).log() * weights.to(precision)).sum(), x)
        results.append((histogram.detach().double(), gradient.double()))
    (ours, our_gradient), (expected, expected_gradient) = results
    torch.testing.assert_close(ours, expected, rtol=0, atol=tolerance)
    scale = expected_gradient.abs().max().item()
    torch.testing.assert_close(our_gradient, expected_gradient, rtol=0, atol=10 * tolerance * scale)


def test_gradients_by_finite_differences():
    sr, hr = values_of(1, 2, 4, 4), values_of(1, 2, 4, 4, seed=1)
    options = {"bins": 24, "sigma": 0.04}

    def histogram(x: Tensor) -> Tensor:
        return soft_histogram(x, **options)

    assert torch.autograd.gradcheck(histogram, (sr.flatten(2).requires_grad_(),))
    for direction in ("forward", "reverse"):

        def loss(x: Tensor, y: Tensor, direction: str = direction) -> Tensor:
            return entropy_matching_loss(x, y, direction=direction, patch=2, **options)

        assert torch.autograd.gradcheck(loss, (sr.clone().requires_grad_(), hr.clone().requires_grad_()))


def test_gradient_of_the_loss_is_that_of_the_plain_form():
    """Also the one written out in full: d loss / d x = sum over b of (dL / dQ_b)(dQ_b / dx)."""
    sr, hr = values_of(2, 3, 12, 10).requires_grad_(), values_of(2, 3, 12, 10, seed=1) ** 2
    (ours,) = torch.autograd.grad(entropy_matching_loss(sr, hr), sr)
    (expected,) = torch.autograd.grad(plain_loss(sr, hr), sr)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    x = sr.detach().flatten(2)
    p, q = plain(hr.flatten(2)), plain(x)
    slope = -p / (p + 1e-10) * (p + 1e-10) / (q + 1e-10)  # dKL / dQ
    off = torch.linspace(0, 1, 256, dtype=torch.float64) - x[..., None]
    weight = torch.exp(-(off**2) / (2 * 0.01**2))
    total = weight.sum(dim=(-2, -1))[..., None, None]
    mean = (slope * q).sum(dim=-1)[..., None, None]
    written = (weight * off / 0.01**2 * (slope[:, :, None] - mean) / total).sum(dim=-1) / 6
    torch.testing.assert_close(ours.flatten(2), written, rtol=0, atol=1e-12)


def test_loss_does_not_depend_on_places_and_vanishes_for_equal_histograms():
    hr = values_of(2, 3, 8, 8)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    shuffled = hr.flatten(2)[..., order].reshape(hr.shape).requires_grad_()
    loss = entropy_matching_loss(shuffled, hr)
    assert abs(loss.item()) < 1e-12
    (gradient,) = torch.autograd.grad(loss, shuffled)
    assert gradient.abs().max() < 1e-6  # `eps` leaves that much; 1e-2 is usual
    assert entropy_matching_loss(hr, hr.flip(1)).item() > 1e-3  # but channels are told apart


def test_divergence_of_two_gray_levels_is_that_of_gaussians():
    """Flat images inside the range have sampled Gaussians as histograms: KL = (distance / sigma)^2 / 2."""
    for distance in (0.01, 0.02, 0.03):
        sr, hr = (torch.full((1, 3, 4, 4), level, dtype=torch.float64) for level in (0.5, 0.5 + distance))
        for direction in ("forward", "reverse"):
            loss = entropy_matching_loss(sr, hr, direction=direction, eps=1e-30)
            assert loss.item() == pytest.approx((distance / 0.01) ** 2 / 2, rel=1e-6)


def test_a_step_against_the_gradient_moves_levels_to_where_they_lack():
    hr = torch.full((1, 1, 4, 4), 0.52).double()
    sr = torch.full((1, 1, 4, 4), 0.5).double().requires_grad_()
    entropy_matching_loss(sr, hr).backward()
    assert (sr.grad < 0).all()  # brighter is better


def test_the_released_range_is_blind_below_mid_gray():
    sr, hr = values_of(1, 3, 16, 16).requires_grad_(), values_of(1, 3, 16, 16, seed=1)
    (defect,) = torch.autograd.grad(entropy_matching_loss(sr, hr, released_range=True), sr)
    (corrected,) = torch.autograd.grad(entropy_matching_loss(sr, hr), sr)
    assert (defect[sr < 0.5] == 0).all() and (defect[sr > 0.5] != 0).all() and (corrected != 0).all()
    assert 0.4 < (defect == 0).double().mean() < 0.6


@pytest.mark.parametrize("patch", [4, 8])
def test_patches_have_histograms_of_their_own(patch):
    sr, hr = values_of(2, 3, 8, 16), values_of(2, 3, 8, 16, seed=1)
    singles = [
        entropy_matching_loss(
            *(x[..., row : row + patch, column : column + patch] for x in (sr, hr)),
        )
        for row in range(0, 8, patch)
        for column in range(0, 16, patch)
    ]
    expected = torch.stack(singles).mean()
    torch.testing.assert_close(entropy_matching_loss(sr, hr, patch=patch), expected, rtol=0, atol=1e-12)


def test_values_outside_the_range_count_at_its_ends_without_gradient():
    values = torch.tensor([-0.3, 0.2, 1.4], dtype=torch.float64, requires_grad=True)
    histogram = soft_histogram(values)
    inside = torch.tensor([0.0, 0.2, 1.0], dtype=torch.float64)
    torch.testing.assert_close(histogram, soft_histogram(inside), rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad((histogram * torch.arange(256)).sum(), values)
    assert gradient[0] == 0 and gradient[2] == 0 and gradient[1] != 0


def test_half_precision_and_autocast_are_computed_in_single_precision():
    sr, hr = values_of(2, 3, 16, 16, dtype=torch.bfloat16), values_of(2, 3, 16, 16, dtype=torch.bfloat16, seed=1)
    exact = sr.float().requires_grad_()
    expected = entropy_matching_loss(exact, hr.float())
    expected.backward()
    half = sr.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = entropy_matching_loss(half, hr)
        loss.backward()  # also backward inside, where its product must not be rounded
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(half.grad, exact.grad.bfloat16(), rtol=0.02, atol=0)


def test_nothing_is_negative_even_far_from_all_values():
    for dtype in (torch.float32, torch.float64):
        histogram = soft_histogram(torch.tensor([0.0, 0.001, 1.0], dtype=dtype), bins=1000, sigma=0.002)
        assert (histogram >= 0).all() and histogram.sum().item() == pytest.approx(1, abs=1e-6)


def test_nan_comes_out_as_nan():
    """So that a training that diverges is noticed, and not by a crash."""
    sr, hr = values_of(1, 3, 4, 4), values_of(1, 3, 4, 4, seed=1)
    sr[0, 0, 0, 0] = float("nan")
    loss = entropy_matching_loss(sr.requires_grad_(), hr)
    (gradient,) = torch.autograd.grad(loss, sr)
    assert loss.isnan() and gradient[0, 0].isnan().any()


def test_gradients_work_after_a_call_in_inference_mode():
    """The kept matrix must not be an inference tensor."""
    with torch.inference_mode():
        soft_histogram(values_of(10), bins=37)
    values = values_of(10).requires_grad_()
    soft_histogram(values, bins=37).square().sum().backward()
    assert values.grad.abs().max() > 0


def test_memory_does_not_grow_with_bins_times_pixels():
    """What autograd keeps: a few numbers per pixel, and never one per pixel and bin."""
    sr, hr = values_of(1, 3, 64, 64, dtype=torch.float32).requires_grad_(), values_of(1, 3, 64, 64, dtype=torch.float32)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    soft_histogram(hr.flatten(2))  # the matrix is made once
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        entropy_matching_loss(sr, hr)
    matrix = 8 * (math.ceil(1 / 0.004) + 1) * 256
    assert sum(kept.values()) - matrix < 5 * sr.numel()


def test_wrong_inputs_are_refused():
    image = values_of(1, 3, 8, 8)
    with pytest.raises(TypeError, match=r"floating point tensor, got torch\.uint8"):
        soft_histogram(image.byte())
    with pytest.raises(ValueError, match=r"at least one value, got \(0,\)"):
        soft_histogram(torch.zeros(0))
    with pytest.raises(ValueError, match="bins must be an integer of at least 2, got 1"):
        soft_histogram(image, bins=1)
    with pytest.raises(ValueError, match=r"low must be below high, and both finite, got 1\.0 and 0\.0"):
        soft_histogram(image, low=1.0, high=0.0)
    for sigma in (0.0004, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"sigma must be at least 0\.00049, an eighth of the distance"):
            soft_histogram(image, sigma=sigma)
    with pytest.raises(ValueError, match=r"same shape, got \(1, 3, 8, 8\) and \(1, 3, 8, 4\)"):
        entropy_matching_loss(image, image[..., :4])
    with pytest.raises(ValueError, match="direction must be one of forward, reverse, got 'both'"):
        entropy_matching_loss(image, image, direction="both")
    with pytest.raises(ValueError, match="eps must be positive, got 0"):
        entropy_matching_loss(image, image, eps=0.0)
    with pytest.raises(ValueError, match="patch must be an integer of at least 1, got 0"):
        entropy_matching_loss(image, image, patch=0)
    for patch in (3, 16):
        with pytest.raises(ValueError, match=rf"patch must divide the sides of the images, \(8, 8\), got {patch}"):
            entropy_matching_loss(image, image, patch=patch)
