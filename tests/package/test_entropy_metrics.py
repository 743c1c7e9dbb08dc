"""Entropies of images and residuals, by closed forms, scipy, and the released program's values."""

import math

import numpy as np
import pytest
import torch

from srbook.data import read_image
from srbook.degradations import bicubic_upsample
from srbook.images import luma
from srbook.metrics import PROTOCOL_A, image_entropy, residual_entropy, shannon_entropy

CHANNELS = ("y", "rgb", "pooled")


def random_image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def bits(values) -> float:
    """By numpy, from the distinct values."""
    _, counts = np.unique(np.asarray(values), return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


@pytest.mark.parametrize("levels", [1, 2, 7, 256])
def test_uniform_levels_have_the_logarithm_of_their_number(levels):
    values = torch.arange(levels).repeat(2, 5).reshape(2, 5, levels)
    entropy = shannon_entropy(values, bins=256, low=0, high=256)
    assert entropy.dtype == torch.float64
    torch.testing.assert_close(entropy, torch.full((2,), math.log2(levels), dtype=torch.float64), rtol=0, atol=1e-12)


def test_entropy_of_known_shares():
    values = torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0]])
    expected = [0.5 * 1 + 0.25 * 2 + 2 * 0.125 * 3, bits([0] * 7 + [1])]
    assert shannon_entropy(values, bins=4, low=0, high=4).tolist() == pytest.approx(expected, abs=1e-12)


def test_bins_are_those_of_numpy():
    values = torch.rand(3, 400, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    values[0, :2] = torch.tensor([-1.0, 1.0])  # the ends belong to the first and the last bin
    for bins in (1, 10, 256, 511):
        for row, entropy in zip(values.numpy(), shannon_entropy(values, bins=bins, low=-1, high=1), strict=True):
            shares = np.histogram(row, bins=bins, range=(-1, 1))[0] / row.size
            expected = -(shares[shares > 0] * np.log2(shares[shares > 0])).sum()
            assert entropy.item() == pytest.approx(expected, abs=1e-12)


def test_values_of_the_released_program(vectors):
    """It counts all channels together in 256 equal bins over [0, 1], and divides by 8 bits."""
    known = np.load(vectors / "esrdf_entropy.npz")
    image = torch.from_numpy(known["a"])
    whole = shannon_entropy(image, bins=256, low=0, high=1).mean() / 8
    assert whole.item() == pytest.approx(float(known["entropy_norm"]), abs=1e-12)
    levels = (256 * image).floor() / 255  # images whose 8-bit levels are those bins
    assert image_entropy(levels, channel="pooled").mean().item() / 8 == pytest.approx(whole.item(), abs=1e-12)
    blocks = image_entropy(levels, channel="pooled", block=8).mean() / 8
    assert blocks.item() == pytest.approx(float(known["block_entropy_norm"]), abs=1e-12)


def test_channels_of_an_image():
    image = random_image(2, 3, 9, 11)
    levels = torch.floor(image * 255 + 0.5)
    for i in range(2):
        y = torch.floor(luma(levels[i : i + 1].double() / 255) * 255 + 0.5)
        expected = {"y": bits(y), "rgb": np.mean([bits(plane) for plane in levels[i]]), "pooled": bits(levels[i])}
        for channel, value in expected.items():
            assert image_entropy(image, channel=channel)[i].item() == pytest.approx(value, abs=1e-12)


def test_channels_of_a_residual():
    image, other = random_image(2, 3, 9, 11), random_image(2, 3, 9, 11, seed=1)
    difference = torch.floor(image * 255 + 0.5) - torch.floor(other * 255 + 0.5)
    y = [torch.floor(luma(torch.floor(x.double() * 255 + 0.5) / 255) * 255 + 0.5) for x in (image, other)]
    for i in range(2):
        expected = {
            "y": bits((y[0] - y[1])[i]),
            "rgb": np.mean([bits(plane) for plane in difference[i]]),
            "pooled": bits(difference[i]),
        }
        for channel, value in expected.items():
            assert residual_entropy(image, other, channel=channel)[i].item() == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("channel", CHANNELS)
def test_blocks_are_counted_one_by_one(channel):
    image, other = random_image(2, 3, 9, 12), random_image(2, 3, 9, 12, seed=1)
    corners = [(row, column) for row in (0, 4) for column in (0, 4, 8)]  # the ninth row is left over
    blocks = [[x[..., row : row + 4, column : column + 4] for x in (image, other)] for row, column in corners]
    single = torch.stack([image_entropy(block, channel=channel) for block, _ in blocks])
    torch.testing.assert_close(image_entropy(image, channel=channel, block=4), single.mean(dim=0), rtol=0, atol=1e-12)
    single = torch.stack([residual_entropy(*pair, channel=channel) for pair in blocks])
    whole = residual_entropy(image, other, channel=channel, block=4)
    torch.testing.assert_close(whole, single.mean(dim=0), rtol=0, atol=1e-12)


def test_limits():
    flat = torch.full((1, 3, 8, 8), 0.3)
    for channel in CHANNELS:
        assert image_entropy(flat, channel=channel).item() == pytest.approx(0)
        assert residual_entropy(flat, flat, channel=channel).item() == pytest.approx(0)
    steep = residual_entropy(torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2), channel="rgb")  # level 255
    assert steep.item() == pytest.approx(0)
    ramp = (torch.arange(256) / 255).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert image_entropy(ramp, channel="rgb").item() == pytest.approx(8)
    assert image_entropy(ramp, channel="y").item() < math.log2(220)
    mirrored = residual_entropy(torch.cat([ramp, 1 - ramp]), torch.cat([1 - ramp, ramp]), channel="rgb")
    assert mirrored.tolist() == pytest.approx([8, 8])  # 256 of the 511 differences


def test_shuffled_pixels_keep_the_entropy_but_not_that_of_blocks():
    ramp = torch.linspace(0, 1, 32).expand(1, 3, 32, 32)
    order = torch.randperm(32 * 32, generator=torch.Generator().manual_seed(0))
    shuffled = ramp.flatten(2)[..., order].reshape(1, 3, 32, 32)
    for channel in CHANNELS:
        whole = [image_entropy(x, channel=channel).item() for x in (ramp, shuffled)]
        assert whole[0] == pytest.approx(whole[1], abs=1e-12)
        blocks = [image_entropy(x, channel=channel, block=8).item() for x in (ramp, shuffled)]
        assert blocks[0] == pytest.approx(3, abs=1e-9) and blocks[1] > 4


def test_half_precision_and_gradients_do_not_matter():
    image = torch.floor(random_image(1, 3, 8, 8) * 255) / 255
    expected = image_entropy(image, channel="rgb")
    torch.testing.assert_close(image_entropy(image.double().requires_grad_(), channel="rgb"), expected)
    torch.testing.assert_close(image_entropy(image.half(), channel="rgb"), expected)


def test_the_residual_of_set14_has_a_fifth_less_entropy(shared):
    """DeltaDiff's claim of 24 to 25 %, by protocol A: x4, 8-bit LR and bicubic image, whole levels of Y."""
    reductions = []
    for path in sorted((shared / "data" / "test" / "Set14").glob("*.png")):
        hr = PROTOCOL_A.target(read_image(path).unsqueeze(0), 4)
        upscaled = bicubic_upsample(PROTOCOL_A.degrade(hr, 4), 4).clamp(0, 1)
        ratio = residual_entropy(hr, upscaled, channel="y") / image_entropy(hr, channel="y")
        reductions.append(100 * (1 - ratio.item()))
    assert len(reductions) == 14
    assert np.mean(reductions) == pytest.approx(22.2, abs=0.05)
    assert np.std(reductions, ddof=1) == pytest.approx(11.7, abs=0.05)


def test_wrong_inputs_are_refused():
    image = random_image(1, 3, 8, 8)
    with pytest.raises(ValueError, match="bins must be an integer of at least 1, got 0"):
        shannon_entropy(image, bins=0, low=0, high=1)
    with pytest.raises(ValueError, match="low must be below high, and both finite, got 1 and 1"):
        shannon_entropy(image, bins=4, low=1, high=1)
    with pytest.raises(ValueError, match=r"shape \(N, ...\) with at least one value, got \(0, 3\)"):
        shannon_entropy(torch.zeros(0, 3), bins=4, low=0, high=1)
    with pytest.raises(ValueError, match=r"values must lie in \[0, 0.5\], got 0.00"):
        shannon_entropy(image, bins=4, low=0, high=0.5)
    with pytest.raises(ValueError, match="got nan to nan"):
        shannon_entropy(torch.tensor([[float("nan")]]), bins=4, low=0, high=1)
    with pytest.raises(ValueError, match="channel must be one of y, rgb, pooled, got 'gray'"):
        image_entropy(image, channel="gray")
    for block in (0, 9, 2.0):
        with pytest.raises(ValueError, match=f"block must be an integer from 1 to 8, got {block}"):
            image_entropy(image, channel="y", block=block)
    with pytest.raises(ValueError, match=r"same shape, got \(1, 3, 8, 8\) and \(1, 3, 8, 4\)"):
        residual_entropy(image, image[..., :4], channel="y")
    with pytest.raises(ValueError, match=r"upscaled must lie in \[0, 1\]"):
        residual_entropy(image, image - 1, channel="y")
