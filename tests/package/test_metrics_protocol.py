"""The protocols against the numbers of bicubic interpolation on Set5 and Set14."""

import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from rounding import identical
from torch import Tensor

from srbook.data import read_image
from srbook.degradations import bicubic_upsample
from srbook.images import luma, round_to_8bit
from srbook.metrics import PROTOCOL_A, PROTOCOL_B, PROTOCOLS, Protocol, psnr, ssim


def bicubic(lr: Tensor, scale: int) -> Tensor:
    return bicubic_upsample(lr, scale).clamp(0, 1)


def scores_of_file(protocol: Protocol, path: Path, scale: int, keep_gray: bool = True) -> tuple[float, float]:
    with Image.open(path) as file:
        stored_gray = keep_gray and file.mode == "L"
    hr = read_image(path).unsqueeze(0)
    scores = protocol.evaluate(lambda lr: bicubic(lr, scale), hr, scale, stored_gray=stored_gray)
    return scores.psnr.item(), scores.ssim.item()


def mean_scores(protocol: Protocol, folder: Path, scale: int, keep_gray: bool) -> tuple[float, float]:
    scores = [scores_of_file(protocol, path, scale, keep_gray) for path in sorted(folder.glob("*.png"))]
    return tuple(sum(column) / len(scores) for column in zip(*scores, strict=True))


@pytest.mark.parametrize(
    ("protocol", "name", "scale", "keep_gray", "expected_psnr", "expected_ssim"),
    [
        (PROTOCOL_A, "Set5", 2, True, 33.6818, 0.9305),
        (PROTOCOL_A, "Set5", 3, True, 30.4047, 0.8690),
        (PROTOCOL_A, "Set5", 4, True, 28.4314, 0.8113),
        (PROTOCOL_A, "Set14", 2, True, 30.3301, 0.8700),
        (PROTOCOL_A, "Set14", 3, True, 27.6341, 0.7760),
        (PROTOCOL_A, "Set14", 4, True, 26.0918, 0.7050),
        (PROTOCOL_B, "Set5", 2, True, 33.6614, 0.9299),
        (PROTOCOL_B, "Set5", 3, True, 30.3922, 0.8682),
        (PROTOCOL_B, "Set5", 4, True, 28.4207, 0.8104),
        (PROTOCOL_B, "Set14", 4, True, 26.0001, 0.7019),
        (PROTOCOL_B, "Set14", 4, False, 26.0944, 0.7037),
    ],
    ids=lambda value: value.name if isinstance(value, Protocol) else str(value),
)
def test_bicubic_on_standard_sets(shared, protocol, name, scale, keep_gray, expected_psnr, expected_ssim):
    mean_psnr, mean_ssim = mean_scores(protocol, shared / "data" / "test" / name, scale, keep_gray)
    assert mean_psnr == pytest.approx(expected_psnr, abs=0.0002)
    assert mean_ssim == pytest.approx(expected_ssim, abs=0.0001)


def test_bridge_loses_what_its_storage_says(shared):
    bridge = shared / "data" / "test" / "Set14" / "bridge.png"
    kept, _ = scores_of_file(PROTOCOL_B, bridge, 4)
    as_rgb, _ = scores_of_file(PROTOCOL_B, bridge, 4, keep_gray=False)
    assert (kept, as_rgb) == pytest.approx((23.146, 24.465), abs=0.001)
    assert as_rgb - kept == pytest.approx(20 * math.log10(255 / 219), abs=0.005)


def smooth_color_image() -> Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, 50), torch.linspace(0, 1, 62), indexing="ij")
    waves = torch.stack([torch.sin(7 * x + 3 * y), torch.cos(5 * y), torch.sin(9 * x * y)])
    return round_to_8bit(0.5 + 0.4 * waves).unsqueeze(0)


def test_protocol_a_is_its_description():
    hr = smooth_color_image()
    target = PROTOCOL_A.target(hr, 4)
    assert identical(target, hr[..., :48, :60])
    lr = PROTOCOL_A.degrade(target, 4)
    assert identical(lr, round_to_8bit(lr))
    sr = bicubic(lr, 4)
    scores = PROTOCOL_A.score(sr, target, 4)
    torch.testing.assert_close(scores.psnr, psnr(round_to_8bit(sr), target, channel="y", border=4))
    torch.testing.assert_close(scores.ssim, ssim(round_to_8bit(sr), target, channel="y", border=4))


def test_protocol_b_measures_the_rounded_y_plane():
    hr = smooth_color_image()
    target = PROTOCOL_B.target(hr, 4)
    torch.testing.assert_close(target[:, :1], luma(hr)[..., :48, :60], rtol=0, atol=0.501 / 255)
    assert identical(target, round_to_8bit(target))
    assert identical(target[:, 0], target[:, 1]) and identical(target[:, 0], target[:, 2])
    lr = PROTOCOL_B.degrade(target, 4)
    assert not identical(lr, round_to_8bit(lr))
    sr = bicubic(lr, 4)
    error = (round_to_8bit(sr) - target)[0, 0, 4:-4, 4:-4].double()
    expected = -10 * math.log10(error.square().mean().item())
    assert PROTOCOL_B.score(sr, target, 4).psnr.item() == pytest.approx(expected, abs=1e-5)


def test_gray_files_keep_their_contrast_only_in_protocol_b():
    gray = smooth_color_image()[:, :1].expand(-1, 3, -1, -1)
    assert identical(PROTOCOL_A.target(gray, 2, stored_gray=True), gray)
    assert identical(PROTOCOL_B.target(gray, 2, stored_gray=True), round_to_8bit(gray))
    assert PROTOCOL_B.target(gray, 2).max() <= 235 / 255


def test_protocols_are_found_by_name():
    assert PROTOCOLS == {"A": PROTOCOL_A, "B": PROTOCOL_B}


def test_bad_input_is_named():
    hr = smooth_color_image()
    with pytest.raises(ValueError, match="channels of hr differ"):
        PROTOCOL_B.target(hr, 4, stored_gray=True)
    with pytest.raises(ValueError, match="same shape"):
        PROTOCOL_A.score(hr, PROTOCOL_A.target(hr, 4), 4)
    with pytest.raises(ValueError, match=r"sr must lie in \[0, 1\]"):
        PROTOCOL_A.score(hr * 2, hr, 4)
    with pytest.raises(TypeError, match="8-bit"):
        PROTOCOL_A.target((hr * 255).byte(), 4)
