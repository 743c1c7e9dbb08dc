"""PSNR, SSIM, and the power spectrum against closed forms and scikit-image."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from srbook.images import luma
from srbook.metrics import psnr, radial_spectrum, ssim


def random_image(seed: int, *, size: tuple[int, int] = (40, 52), count: int = 2) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def noisy_pair(seed: int, **options) -> tuple[Tensor, Tensor]:
    hr = random_image(seed, **options)
    noise = torch.randn(hr.shape, generator=torch.Generator().manual_seed(seed + 1))
    return (hr + 0.1 * noise).clamp(0, 1), hr


# --- PSNR ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [1 / 255, 0.1, 0.5])
def test_psnr_of_a_constant_offset(offset):
    hr = torch.full((1, 3, 20, 20), 0.25, dtype=torch.float64)
    assert psnr(hr + offset, hr, channel="rgb").item() == pytest.approx(-20 * math.log10(offset), abs=1e-9)
    # On Y, a gray offset shrinks to the studio range.
    expected = -20 * math.log10(offset * 219 / 255)
    assert psnr(hr + offset, hr, channel="y").item() == pytest.approx(expected, abs=1e-4)


def test_psnr_of_identical_images_is_infinite():
    hr = random_image(0)
    assert torch.isposinf(psnr(hr, hr, channel="y")).all()
    assert torch.isposinf(psnr(hr, hr, channel="rgb")).all()


def test_psnr_is_computed_per_image_and_in_float64():
    sr, hr = noisy_pair(1)
    together = psnr(sr, hr, channel="rgb")
    apart = torch.cat([psnr(sr[i : i + 1], hr[i : i + 1], channel="rgb") for i in range(2)])
    assert together.dtype == torch.float64
    torch.testing.assert_close(together, apart)
    assert together[0] != together[1]


def test_halving_the_error_gains_six_decibels():
    sr, hr = noisy_pair(2)
    halved = (sr + hr) / 2
    gain = psnr(halved, hr, channel="rgb") - psnr(sr, hr, channel="rgb")
    torch.testing.assert_close(gain, torch.full_like(gain, 20 * math.log10(2)), atol=1e-4, rtol=0)


def test_border_leaves_out_exactly_that_many_pixels():
    hr = torch.full((1, 3, 12, 12), 0.5)
    sr = hr.clone()
    sr[..., :2, :] = 0.9  # wrong only in the two outer rows
    assert torch.isfinite(psnr(sr, hr, channel="y", border=1))
    assert torch.isposinf(psnr(sr, hr, channel="y", border=2))


@pytest.mark.parametrize("channel", ["y", "rgb"])
def test_psnr_agrees_with_scikit_image(channel):
    metrics = pytest.importorskip("skimage.metrics")
    sr, hr = noisy_pair(3, count=1)
    a, b = (planes(image, channel) for image in (sr, hr))
    expected = metrics.peak_signal_noise_ratio(b, a, data_range=1)
    assert psnr(sr, hr, channel=channel).item() == pytest.approx(expected, abs=1e-9)


# --- SSIM ---------------------------------------------------------------------------------------------------


def planes(image: Tensor, channel: str) -> np.ndarray:
    image = image.double()
    return (luma(image) if channel == "y" else image)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("channel", ["y", "rgb"])
@pytest.mark.parametrize("border", [0, 4])
def test_ssim_agrees_with_scikit_image(channel, border):
    metrics = pytest.importorskip("skimage.metrics")
    sr, hr = noisy_pair(4, count=1)
    inside = slice(border, -border or None)
    a, b = (planes(image, channel)[inside, inside] for image in (sr, hr))
    expected = metrics.structural_similarity(
        a, b, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(sr, hr, channel=channel, border=border).item() == pytest.approx(expected, abs=1e-10)


def test_ssim_of_constant_images_is_the_luminance_term():
    a, b = 0.3, 0.7
    sr, hr = (torch.full((1, 3, 16, 16), value, dtype=torch.float64) for value in (a, b))
    c1 = 0.01**2
    expected = (2 * a * b + c1) / (a**2 + b**2 + c1)
    assert ssim(sr, hr, channel="rgb").item() == pytest.approx(expected, abs=1e-9)


def test_ssim_of_one_window_is_its_formula():
    sr, hr = (image.double() for image in noisy_pair(5, size=(11, 11), count=1))
    weights = torch.exp(-0.5 * ((torch.arange(11, dtype=torch.float64) - 5) / 1.5) ** 2)
    weights = torch.outer(weights, weights) / weights.sum() ** 2

    def mean(x: Tensor) -> Tensor:
        return (x * weights).sum(dim=(2, 3), keepdim=True)

    m, n = mean(sr), mean(hr)
    variances = mean((sr - m) ** 2) + mean((hr - n) ** 2)
    covariance = mean((sr - m) * (hr - n))
    expected = (2 * m * n + 1e-4) * (2 * covariance + 9e-4) / ((m**2 + n**2 + 1e-4) * (variances + 9e-4))
    assert ssim(sr, hr, channel="rgb").item() == pytest.approx(expected.mean().item(), abs=1e-12)


@pytest.mark.parametrize("channel", ["y", "rgb"])
def test_ssim_is_one_symmetric_and_blind_to_flips(channel):
    sr, hr = noisy_pair(6)
    value = ssim(sr, hr, channel=channel)
    torch.testing.assert_close(ssim(hr, hr, channel=channel), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(ssim(hr, sr, channel=channel), value)
    torch.testing.assert_close(ssim(sr.flip(2), hr.flip(2), channel=channel), value)
    turned = ssim(sr.transpose(2, 3), hr.transpose(2, 3), channel=channel)
    torch.testing.assert_close(turned, value)
    assert (value < 0.99).all()


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_gradients_are_right(metric):
    sr, hr = (image.double() for image in noisy_pair(7, size=(12, 13), count=1))
    sr = sr.clamp(0.05, 0.95).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: metric(x, hr, channel="y"), (sr,), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_autocast_and_half_precision_inputs_do_not_coarsen_the_computation(metric):
    sr, hr = (image.bfloat16() for image in noisy_pair(8))
    expected = metric(sr.double(), hr.double(), channel="y")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(metric(sr, hr, channel="y"), expected)


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_bad_input_is_named(metric):
    sr, hr = noisy_pair(9, size=(20, 24))
    with pytest.raises(ValueError, match=r"same shape, got \(2, 3, 20, 20\) and \(2, 3, 20, 24\)"):
        metric(sr[..., :20], hr, channel="y")
    with pytest.raises(ValueError, match="channel must be one of y, rgb, got 'Y'"):
        metric(sr, hr, channel="Y")
    with pytest.raises(TypeError, match="channel"):
        metric(sr, hr)
    with pytest.raises(ValueError, match="leave pixels of a 20x24 image, got 10"):
        metric(sr, hr, channel="y", border=10)
    with pytest.raises(ValueError, match="at least 0"):
        metric(sr, hr, channel="y", border=-1)
    with pytest.raises(ValueError, match=r"border must be an integer of at least 0, got 2\.0"):
        metric(sr, hr, channel="y", border=2.0)
    with pytest.raises(ValueError, match=r"sr must lie in \[0, 1\]"):
        metric(sr * 255, hr, channel="y")
    with pytest.raises(ValueError, match=r"hr must lie in \[0, 1\]"):
        metric(sr, hr * torch.nan, channel="y")
    with pytest.raises(TypeError, match="divide 8-bit values by 255"):
        metric((sr * 255).byte(), hr, channel="y")


def test_ssim_refuses_images_smaller_than_its_window():
    sr, hr = noisy_pair(10, size=(18, 30))
    ssim(sr, hr, channel="y", border=3)
    with pytest.raises(ValueError, match="at least 11x11 pixels inside the border of 4, got 10x22"):
        ssim(sr, hr, channel="y", border=4)


# --- power spectrum -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (20, 64), (1, 9)])
def test_powers_add_up_to_the_mean_square(size):
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    frequencies, power = radial_spectrum(image)
    assert power.shape == (2, len(frequencies))
    torch.testing.assert_close(power.sum(dim=1), image.double().square().mean(dim=(1, 2, 3)))


def test_a_wave_lands_in_its_ring_with_half_its_squared_amplitude():
    x = torch.arange(64, dtype=torch.float64)
    wave = 0.5 + 0.3 * torch.cos(2 * math.pi * 8 / 64 * x)
    frequencies, power = radial_spectrum(wave.expand(1, 1, 64, 64))
    expected = torch.zeros_like(power)
    expected[0, 0], expected[0, 8] = 0.5**2, 0.3**2 / 2
    torch.testing.assert_close(power, expected)
    assert frequencies[8].item() == 8 / 64
    assert frequencies[-1].item() == pytest.approx(math.sqrt(0.5), abs=1 / 64)


def test_white_noise_fills_rings_in_proportion_to_their_radius():
    noise = torch.randn(8, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    frequencies, power = radial_spectrum(noise)
    middle = slice(20, 60)
    density = power.mean(dim=0)[middle] / (2 * math.pi * frequencies[middle])  # per ring of width 1/128
    torch.testing.assert_close(density, torch.full_like(density, 1 / 128), rtol=0.15, atol=0)


def test_spectrum_refuses_what_it_cannot_transform():
    with pytest.raises(TypeError, match=r"floating point tensor, got torch\.uint8"):
        radial_spectrum(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(TypeError, match="floating point tensor, got list"):
        radial_spectrum([[0.0]])
    with pytest.raises(ValueError, match=r"shape \(N, C, H, W\), got \(3, 8, 8\)"):
        radial_spectrum(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="finite"):
        radial_spectrum(torch.full((1, 1, 8, 8), torch.nan))
