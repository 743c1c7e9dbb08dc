"""What chapter 1 proves and uses: the free part of an image, posterior samples, equal PSNR, linear upscaling."""

import math

import pytest
import torch
from rounding import identical

from srbook.degradations import bicubic_downsample, consistent, fixed_and_free, imresize, resize_weights
from srbook.images import round_to_8bit
from srbook.metrics import PROTOCOL_B, psnr
from srbook.networks import LinearUpscaler, least_squares_upscaler
from srbook.results import stored_result
from srbook.study.distort import DISTORTIONS, match_psnr

SCALES = range(2, 9)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def texture(height: int, width: int) -> torch.Tensor:
    """A smooth picture with some fine detail: (1, 3, height, width)."""
    y, x = torch.meshgrid(torch.arange(height) / 8, torch.arange(width) / 8, indexing="ij")
    waves = torch.stack([torch.sin(3 * x + y), torch.cos(2 * y), torch.sin(5 * x * y)])
    return round_to_8bit(0.5 + 0.3 * waves + 0.1 * (random(3, height, width).float() - 0.5)).unsqueeze(0)


def explicit_matrix(height: int, width: int, scale: int) -> torch.Tensor:
    """A as one matrix on row-major pixels."""
    rows = resize_weights(height, height // scale, 1 / scale)
    columns = resize_weights(width, width // scale, 1 / scale)
    return torch.kron(rows, columns)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 20])
def test_shrinking_is_diagonally_dominant(scale, length):
    """W U with U repeating each pixel `scale` times: rows add up to one, the diagonal outweighs the rest."""
    weights = resize_weights(length * scale, length, 1 / scale)
    product = weights @ torch.eye(length, dtype=torch.float64).repeat_interleave(scale, dim=0)
    torch.testing.assert_close(product.sum(dim=1), torch.ones(length, dtype=torch.float64))
    diagonal = product.diag()
    assert (diagonal > 0.8).all()
    assert (product.abs().sum(dim=1) - diagonal < 0.25).all()
    assert torch.linalg.matrix_rank(weights) == length


@pytest.mark.parametrize(("height", "width", "scale"), [(8, 12, 2), (12, 9, 3), (16, 24, 4)])
def test_solutions_form_an_affine_set(height, width, scale):
    matrix = explicit_matrix(height, width, scale)
    pixels = height * width
    kept = pixels // scale**2
    assert torch.linalg.matrix_rank(matrix) == kept
    x, other = random(height, width), random(height, width, seed=1)
    y = (matrix @ x.flatten()).view(height // scale, width // scale)
    torch.testing.assert_close(y, imresize(x, 1 / scale), rtol=0, atol=1e-12)
    # Every image can be moved onto the set, by the pseudoinverse of the whole matrix.
    moved = consistent(other, y)
    expected = other.flatten() + torch.linalg.pinv(matrix) @ (y.flatten() - matrix @ other.flatten())
    torch.testing.assert_close(moved.flatten(), expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(imresize(moved, 1 / scale), y, rtol=0, atol=1e-12)
    # The directions along the set are the null space, whose dimension is (1 - 1/s^2) N.
    null_space = torch.linalg.svd(matrix).Vh[kept:]
    assert len(null_space) == pixels - kept
    assert (matrix @ null_space.T).abs().max() < 1e-12


@pytest.mark.parametrize("scale", [2, 4])
def test_the_two_parts_are_orthogonal(scale):
    x = random(2, 3, 24, 16)
    fixed, free = fixed_and_free(x, scale)
    torch.testing.assert_close(fixed + free, x, rtol=0, atol=1e-14)
    assert imresize(free, 1 / scale).abs().max() < 1e-12
    assert abs((fixed * free).sum().item()) < 1e-10
    total = fixed.square().sum() + free.square().sum()
    assert total.item() == pytest.approx(x.square().sum().item(), rel=1e-12)


def test_the_consistent_image_is_the_nearest():
    """No step within the null space, whichever, comes closer to the start."""
    image, y = random(16, 16), random(4, 4, seed=1)
    nearest = consistent(image, y)
    distance = (nearest - image).square().sum()
    for seed in range(5):
        _, step = fixed_and_free(random(16, 16, seed=seed + 2) - 0.5, 4)
        assert (nearest + 0.1 * step - image).square().sum() > distance


def test_consistency_names_bad_input():
    x = random(8, 8)
    with pytest.raises(ValueError, match="8 x 8 and 3 x 4"):
        consistent(x, random(3, 4))
    with pytest.raises(TypeError, match=r"lr must be a floating point tensor, got torch\.uint8"):
        consistent(x, torch.zeros(2, 2, dtype=torch.uint8))
    with pytest.raises(TypeError, match="image must be a floating point tensor, got list"):
        fixed_and_free([1.0], 2)
    with pytest.raises(ValueError, match="crop_to_multiple"):
        fixed_and_free(x, 3)


@pytest.mark.parametrize("seed", range(3))
def test_a_posterior_sample_costs_twice_the_minimum(seed):
    """All pairs (truth, sample) of a joint distribution p[k, j] of K signals and J observations, enumerated."""
    x, p = random(6, 4, seed=seed), random(6, 5, seed=seed + 10)
    p = p / p.sum()
    posterior = p / p.sum(dim=0)
    mean = posterior.T @ x
    pairs = p[:, None, :] * posterior[None, :, :]  # truth k, sample l, observation j: independent given j

    def risk(t: float) -> float:
        estimate = (1 - t) * mean[None] + t * x[:, None]  # sample l, observation j
        return (pairs * (estimate[None] - x[:, None, None]).square().sum(dim=-1)).sum().item()

    minimum = risk(0)
    variance = (p * x.square().sum(dim=1, keepdim=True)).sum() - (p.sum(dim=0) * mean.square().sum(dim=1)).sum()
    assert minimum == pytest.approx(variance.item(), rel=1e-12)
    assert risk(1) == pytest.approx(2 * minimum, rel=1e-12)
    for t in (0.25, 0.5, 0.9):
        assert risk(t) == pytest.approx((1 + t**2) * minimum, rel=1e-12)
    # The samples are distributed as the signals are.
    torch.testing.assert_close(pairs.sum(dim=(0, 2)), p.sum(dim=1))


@pytest.mark.parametrize("name", DISTORTIONS)
def test_distortions_reach_the_same_psnr(name):
    image = texture(64, 72)
    damaged, amount = match_psnr(image, name, 26.0)
    assert psnr(damaged, image, channel="y").item() == pytest.approx(26.0, abs=0.2)  # blocks jump
    assert amount > 0
    assert identical(damaged, round_to_8bit(damaged))


@pytest.mark.parametrize("name", DISTORTIONS)
def test_distortions_of_strength_zero_do_nothing(name):
    image = texture(40, 44)
    torch.testing.assert_close(DISTORTIONS[name][0](image, 0.0), image, rtol=0, atol=1e-5)


def test_distortions_do_what_they_say():
    image = texture(40, 48).double()
    moved = DISTORTIONS["shift"][0](image, 3.0)
    torch.testing.assert_close(moved[..., 3:], image[..., :-3], rtol=0, atol=1e-6)
    gray = DISTORTIONS["contrast"][0](image, 1.0)
    torch.testing.assert_close(gray, image.mean(dim=(2, 3), keepdim=True).expand_as(image))
    blocks = DISTORTIONS["blocks"][0](image, 100.0)  # only the blocks' zero coefficients are left
    assert blocks.abs().max() < 1e-12
    blurred = DISTORTIONS["blur"][0](torch.eye(1, dtype=torch.float64).expand(1, 3, 9, 9), 2.0)
    torch.testing.assert_close(blurred, torch.ones(1, 3, 9, 9, dtype=torch.float64))


def test_distortions_name_bad_input():
    image = texture(32, 32)
    with pytest.raises(ValueError, match=r"unknown distortion 'rain'; choose from blur, noise"):
        match_psnr(image, "rain", 26.0)
    with pytest.raises(ValueError, match="batch of 2"):
        match_psnr(image.repeat(2, 1, 1, 1), "blur", 26.0)
    with pytest.raises(ValueError, match=r"never falls to 1\.0 dB"):
        match_psnr(image, "contrast", 1.0)


def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    pictures = [texture(64, 48).roll(5 * i, dims=2) + 0.02 * random(1, 3, 64, 48, seed=i).float() for i in range(count)]
    return [(hr, bicubic_downsample(hr.clamp(0, 1), 4)) for hr in pictures]


def test_least_squares_upscaler_has_no_gradient_left():
    """The squared error away from the border is stationary, and any change makes it worse."""
    data = batches(3)
    upscaler = least_squares_upscaler(data, 4).double()

    def risk(model: LinearUpscaler) -> torch.Tensor:
        return sum((model(lr.double()) - hr.double())[..., 8:-8, 8:-8].square().mean() for hr, lr in data)

    best = risk(upscaler)
    (gradient,) = torch.autograd.grad(best, [upscaler.offset])
    assert gradient.abs().max() < 1e-6
    torch.testing.assert_close(upscaler.filters().sum(dim=1), torch.ones(16, dtype=torch.float64))
    for seed in range(3):
        other = LinearUpscaler(4).double()
        other.offset.data = upscaler.offset.data + 0.01 * (random(16, 25, seed=seed) - 0.5)
        assert risk(other) > best


def test_linear_upscaler_starts_by_repeating_pixels():
    lr = random(2, 3, 6, 7)
    expected = lr.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    torch.testing.assert_close(LinearUpscaler(4).double()(lr), expected)


def test_linear_upscaler_is_its_formula():
    """One high-resolution pixel by hand: the filter of its position within the block, on the 5 x 5 around."""
    upscaler = LinearUpscaler(4).double()
    upscaler.offset.data = random(16, 25)
    lr = random(1, 3, 9, 9, seed=1)
    neighborhood = lr[0, 1, 2:7, 3:8]  # around pixel (4, 5)
    weights = upscaler.filters()[4 * 2 + 3].view(5, 5)  # row 2, column 3 of the block
    assert upscaler(lr)[0, 1, 4 * 4 + 2, 4 * 5 + 3].item() == pytest.approx((weights * neighborhood).sum().item())


def test_a_neighborhood_of_one_pixel_can_only_repeat_it():
    assert least_squares_upscaler(batches(1), 4, size=1).filters().eq(1).all()


def test_linear_upscaler_names_bad_input():
    with pytest.raises(ValueError, match="odd and positive"):
        LinearUpscaler(4, size=4)
    with pytest.raises(ValueError, match="at least one batch"):
        least_squares_upscaler([], 4)
    with pytest.raises(ValueError, match="hold no neighborhood of 5 x 5"):
        least_squares_upscaler([(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 4, 4))], 4)


def test_stored_protocol_numbers_tell_the_bridge_story(shared):
    """The stored means are those of the files, and one file's storage makes the difference."""
    from srbook.data import read_image
    from srbook.degradations import bicubic_upsample

    stored = stored_result("protocols")["set14"]
    image = read_image(shared / "data" / "test" / "Set14" / "bridge.png").unsqueeze(0)
    for key, stored_gray in (("B, bridge grey", True), ("B, bridge as RGB", False)):
        scores = PROTOCOL_B.evaluate(lambda lr: bicubic_upsample(lr, 4).clamp(0, 1), image, 4, stored_gray=stored_gray)
        # In another arithmetic one pixel may round to the next level.
        assert stored[key]["images"]["bridge"]["psnr"] == pytest.approx(scores.psnr.item(), abs=1e-4)
        mean = sum(row["psnr"] for row in stored[key]["images"].values()) / 14
        assert stored[key]["psnr"] == pytest.approx(mean)
    lost = stored["B, bridge as RGB"]["psnr"] - stored["B, bridge grey"]["psnr"]
    assert lost == pytest.approx(20 * math.log10(255 / 219) / 14, abs=0.001)
