"""MATLAB's bicubic: against its numbers, and against what any such operator must do."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding import identical

from srbook.degradations import (
    bicubic_downsample,
    bicubic_upsample,
    crop_to_multiple,
    cubic_kernel,
    imresize,
    resize_weights,
)

SCALES = {"0.25": 0.25, "0.5": 0.5, "0.3": 0.3, "0.333333": 1 / 3, "2": 2, "3": 3, "4": 4}
IMAGES = ("a16x16x3", "b12x20x1", "c13x11x3", "ramp16x16x1")


def noise(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def matlab(vectors):
    with np.load(vectors / "matlab_imresize.npz") as file:
        return {key: torch.from_numpy(file[key]).permute(2, 0, 1) for key in file.files}


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("scale", SCALES)
def test_equals_matlab(matlab, name, scale):
    image = matlab[name]
    expected = matlab[f"{name}/s{scale}/f64"]
    torch.testing.assert_close(imresize(image, SCALES[scale]), expected, rtol=0, atol=1e-10)
    single = imresize(image.float(), SCALES[scale])
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, expected.float(), rtol=0, atol=2e-6)


def test_equals_matlab_without_antialiasing(matlab):
    expected = matlab["a16x16x3/s0.5/noantialias_f64"]
    torch.testing.assert_close(imresize(matlab["a16x16x3"], 0.5, antialias=False), expected, rtol=0, atol=1e-10)


def test_kernel_is_keys():
    x = torch.tensor([-2.5, -2, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3], dtype=torch.float64)
    expected = torch.tensor([0, 0, 0, 0.5625, 1, 0.5625, 0, -0.0625, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(cubic_kernel(x), expected)
    slope = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    cubic_kernel(slope, a=-0.75).backward()
    assert slope.grad == -0.75


lengths = st.integers(1, 40)
scales = st.floats(0.05, 8)


@settings(max_examples=60, deadline=None)
@given(lengths, scales, st.booleans())
def test_rows_sum_to_one(length, scale, antialias):
    rows = resize_weights(length, math.ceil(scale * length), scale, antialias).sum(dim=1)
    torch.testing.assert_close(rows, torch.ones_like(rows))


@settings(max_examples=40, deadline=None)
@given(lengths, lengths, scales, st.booleans())
def test_is_the_two_matrices(height, width, scale, antialias):
    """The blocks of the fast path are the dense matrices of the book."""
    image = noise(height, width)
    rows = resize_weights(height, math.ceil(scale * height), scale, antialias)
    columns = resize_weights(width, math.ceil(scale * width), scale, antialias)
    torch.testing.assert_close(imresize(image, scale, antialias=antialias), rows @ image @ columns.T)


@pytest.mark.parametrize("size", [(5, 90), (90, 5), (33, 64), (1, 1), (100, 100)])
def test_size_gives_each_axis_its_scale(size):
    image = noise(2, 40, 70)
    expected = resize_weights(40, size[0], size[0] / 40) @ image @ resize_weights(70, size[1], size[1] / 70).T
    torch.testing.assert_close(imresize(image, size=size), expected)


def test_scale_one_changes_nothing():
    image = noise(3, 17, 40)
    torch.testing.assert_close(imresize(image, 1), image)


@pytest.mark.parametrize("scale", [2, 3, 4, 2.5])
def test_reproduces_quadratics_inside(scale):
    """Keys' a = -0.5 is the choice for which the third-order error vanishes."""
    x = torch.arange(40, dtype=torch.float64)
    position = (torch.arange(math.ceil(40 * scale), dtype=torch.float64) + 0.5) / scale - 0.5
    enlarged = resize_weights(40, len(position), scale) @ (x**2 - 3 * x)
    inside = (position > 2) & (position < 37)
    torch.testing.assert_close(enlarged[inside], (position**2 - 3 * position)[inside])


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_shift_by_the_scale_shifts_by_one(scale):
    image = noise(24 * scale, 24 * scale)
    moved = imresize(image.roll(scale, dims=-1), 1 / scale)
    margin = slice(5, -5)
    torch.testing.assert_close(moved[margin, margin], imresize(image, 1 / scale).roll(1, dims=-1)[margin, margin])


@pytest.mark.parametrize("scale", [0.25, 1 / 3, 3])
def test_mirror_and_transpose_commute(scale):
    image = noise(3, 24, 36)
    result = imresize(image, scale)
    torch.testing.assert_close(imresize(image.flip(-1, -2), scale), result.flip(-1, -2))
    torch.testing.assert_close(imresize(image.mT, scale), result.mT)


@pytest.mark.parametrize("scale", [0.25, 0.3, 2.2])
def test_batch_equals_one_by_one(scale):
    batch = noise(2, 4, 3, 21, 34, dtype=torch.float32)
    single = torch.stack([torch.stack([imresize(image, scale) for image in row]) for row in batch])
    torch.testing.assert_close(imresize(batch, scale), single, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [0.25, 0.4, 3])
def test_gradient(scale):
    image = noise(1, 2, 7, 9).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: imresize(x, scale), image)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
def test_half_precision_is_computed_in_single(dtype, tolerance):
    image = noise(1, 3, 32, 32).to(dtype)
    result = imresize(image, 0.25)
    assert result.dtype == dtype
    assert (result != imresize(image.float(), 0.25).to(dtype)).double().mean() < 0.02  # at the edge of the rounding
    torch.testing.assert_close(result.double(), imresize(image.double(), 0.25), rtol=0, atol=tolerance)


def test_autocast_does_not_round():
    image = noise(1, 3, 32, 32, dtype=torch.float32)
    expected = imresize(image, 4)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(imresize(image, 4), expected)


def test_weights_made_in_inference_mode_can_be_trained_through():
    with torch.inference_mode():
        imresize(torch.rand(1, 3, 57, 59), 0.37)
    image = torch.rand(1, 3, 57, 59, requires_grad=True)
    imresize(image, 0.37).sum().backward()
    assert image.grad.isfinite().all()


def test_layout_does_not_matter():
    image = noise(2, 3, 20, 28)
    last, part = image.contiguous(memory_format=torch.channels_last), image[..., ::2, 1:]
    torch.testing.assert_close(imresize(last, 0.25), imresize(image, 0.25), rtol=0, atol=1e-12)
    torch.testing.assert_close(imresize(part, 2), imresize(part.clone(), 2), rtol=0, atol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_equals_cpu():
    image = noise(2, 3, 50, 70, dtype=torch.float32)
    torch.testing.assert_close(imresize(image.cuda(), 0.3).cpu(), imresize(image, 0.3), rtol=0, atol=1e-5)


def test_downsample_rounds_to_8_bits():
    hr = noise(2, 3, 48, 64, dtype=torch.float32)
    lr = bicubic_downsample(hr, 4)
    torch.testing.assert_close(lr, imresize(hr, 0.25).clamp(0, 1), rtol=0, atol=0.501 / 255)
    levels = lr * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("scale", [3, 5, 7, 49])
def test_downsample_has_the_exact_size(scale):
    """ceil(H * (1 / scale)) can be one too many; H / scale cannot."""
    assert bicubic_downsample(torch.zeros(1, 3, 3 * scale, 7 * scale), scale).shape == (1, 3, 3, 7)


def test_upsample_overshoots_and_is_not_clamped():
    edge = torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1
    result = bicubic_upsample(edge, 4)
    assert result.shape == (1, 3, 32, 32)
    assert result.min() < -0.05 and result.max() > 1.05


def test_crop_to_multiple_keeps_the_top_left():
    image = noise(3, 10, 15)
    assert identical(crop_to_multiple(image, 4), image[:, :8, :12])


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: imresize(torch.zeros(3, 4, 4)), ValueError, "exactly one of scale and size"),
        (lambda: imresize(torch.zeros(3, 4, 4), 2, (8, 8)), ValueError, "exactly one of scale and size"),
        (lambda: imresize(torch.zeros(3, 4, 4), 0), ValueError, "scale must be a positive number, got 0"),
        (lambda: imresize(torch.zeros(3, 4, 4), math.nan), ValueError, "positive number, got nan"),
        (lambda: imresize(torch.zeros(3, 4, 4), math.inf), ValueError, "positive number, got inf"),
        (
            lambda: imresize(torch.zeros(3, 4, 4), size=(2, 0)),
            ValueError,
            "width in size must be an integer",
        ),
        (lambda: imresize(torch.zeros(3, 4, 4), size=(2,)), ValueError, r"two positive integers"),
        (lambda: imresize(torch.zeros(3, 0, 4), 2), ValueError, r"at least one pixel, got \(3, 0, 4\)"),
        (lambda: imresize(torch.zeros(4), 2), ValueError, r"shape \(..., H, W\)"),
        (
            lambda: imresize(torch.zeros(3, 4, 4, dtype=torch.uint8), 2),
            TypeError,
            "got torch.uint8; divide",
        ),
        (lambda: imresize(np.zeros((4, 4)), 2), TypeError, "got ndarray"),
        (lambda: bicubic_downsample(torch.zeros(3, 10, 8), 4), ValueError, r"10 x 8; crop first.*crop_to_multiple"),
        (lambda: bicubic_downsample(torch.zeros(3, 8, 8), 0.25), ValueError, "integer of at least 1, got 0.25"),
        (lambda: bicubic_upsample(torch.zeros(3, 8, 8), 1.5), ValueError, "use imresize"),
        (lambda: crop_to_multiple(torch.zeros(3, 3, 8), 4), ValueError, "3 x 8 is too small for scale 4"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
