"""ResDiff's losses: the released program's values, Parseval, orthonormality, gradients."""

import numpy as np
import pytest
import torch

from srbook.losses import fourier_loss, haar, wavelet_loss


def close(actual, expected, tolerance):
    expected = torch.as_tensor(expected)
    torch.testing.assert_close(actual.detach().to(expected), expected, rtol=0, atol=tolerance)


def numbers(name: str, vectors) -> dict[str, torch.Tensor]:
    return {key: torch.as_tensor(value) for key, value in np.load(vectors / name).items()}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_haar_is_the_released_transform(vectors):
    known = numbers("resdiff_cnn_and_losses.npz", vectors)
    low, details = haar(known["a"], 4)
    close(low, known["dwt_low"], 1e-10)
    for level, band in enumerate(details, start=1):
        close(band, known[f"dwt_h{level}"], 1e-10)


def test_losses_are_the_released_ones(vectors):
    known = numbers("resdiff_cnn_and_losses.npz", vectors)
    fourier, wavelet = fourier_loss(known["a"], known["b"]), wavelet_loss(known["a"], known["b"])
    close(fourier, known["fft_loss"], 1e-10)
    close(wavelet, known["dwt_loss"], 1e-10)
    close(0.2 * fourier + 0.1 * wavelet, known["total_loss"], 1e-10)


@pytest.mark.parametrize("size", [(16, 16), (7, 12), (1, 5)])
def test_fourier_loss_is_the_pixel_error(size):
    """Parseval: the orthonormal transform keeps distances, and so the gradient is the pixel error's as well."""
    a, b = normal(2, 3, *size, seed=1).requires_grad_(), normal(2, 3, *size, seed=2)
    loss, pixels = fourier_loss(a, b), (a - b).square().mean()
    close(loss, pixels.detach(), 1e-12)
    (slope,) = torch.autograd.grad(loss, a)
    close(slope, 2 * (a - b).detach() / a.numel(), 1e-12)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_haar_is_orthonormal(levels):
    """As a matrix on 8 x 16 pixels it is square with orthonormal rows: it keeps energy, and has an inverse."""
    units = torch.eye(128, dtype=torch.float64).view(128, 1, 8, 16)
    low, details = haar(units, levels)
    matrix = torch.cat([low.flatten(1), *(band.flatten(1) for band in details)], dim=1)
    assert matrix.shape == (128, 128)
    close(matrix @ matrix.T, torch.eye(128), 1e-12)


def test_haar_repeats_the_last_row_and_column_of_odd_sides():
    image = normal(2, 3, 5, 7)
    wide = torch.cat([image, image[..., -1:]], dim=-1)
    extended = torch.cat([wide, wide[..., -1:, :]], dim=-2)
    low, details = haar(image, 2)
    expected_low, expected = haar(extended, 2)
    close(low, expected_low, 0)
    for band, other in zip(details, expected, strict=True):
        close(band, other, 0)
    assert [tuple(band.shape[-2:]) for band in details] == [(3, 4), (2, 2)]


def test_wavelet_loss_counts_details_and_not_the_mean():
    image = normal(1, 3, 16, 16)
    close(wavelet_loss(image, image + 0.7), 0.0, 1e-20)
    for level in range(1, 5):  # one coefficient of size 3 on one level, moved back to pixels by hand
        side = 2**level
        bump = torch.zeros_like(image)
        bump[0, 0, :side, :side] = 3 / side
        bump[0, 0, :side, side // 2 : side] *= -1
        coefficients = 3 * (16 // side) ** 2  # of one band: channels times squares
        close(wavelet_loss(image, image + bump), 9 / coefficients, 1e-12)


def test_losses_have_the_right_gradients():
    a, b = normal(1, 2, 5, 4, seed=1).requires_grad_(), normal(1, 2, 5, 4, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: wavelet_loss(a, b, levels=3), (a, b))
    assert torch.autograd.gradcheck(fourier_loss, (a, b))


def test_losses_refuse_wrong_inputs():
    a, b = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 6)
    for loss in (fourier_loss, wavelet_loss):
        with pytest.raises(ValueError, match=r"same shape, got \(1, 3, 4, 4\) and \(1, 3, 4, 6\)"):
            loss(a, b)
    with pytest.raises(ValueError, match=r"\(N, C, H, W\) with at least one pixel, got \(3, 4, 4\)"):
        haar(a[0], 1)
    with pytest.raises(ValueError, match="at least one pixel"):
        haar(torch.zeros(1, 3, 0, 4), 1)
    for levels in (0, 1.5):
        with pytest.raises(ValueError, match="levels must be an integer of at least 1"):
            haar(a, levels)
