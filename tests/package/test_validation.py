"""Quality while a run goes on: the metrics and the degradation that are asked for, the same noise every time."""

import pytest
import torch

import srbook
from srbook.degradations import Bicubic, Noisy
from srbook.images import round_to_8bit
from srbook.metrics import METRICS, Metric, psnr, ssim
from srbook.training import Validation

IMAGES = {name: torch.rand(1, 3, 24, 16, generator=torch.Generator().manual_seed(i)) for i, name in enumerate("ab")}


def test_it_gives_the_mean_of_each_metric_over_the_images():
    method = srbook.build("bicubic", scale=2)
    found = Validation(IMAGES, Bicubic(2), ["psnr", "ssim"])(method, 1)
    upscaled = {name: method.upscale(Bicubic(2)(hr)).image for name, hr in IMAGES.items()}
    assert set(found) == {"psnr", "ssim"}
    for name, measure in (("psnr", psnr), ("ssim", ssim)):
        values = [measure(round_to_8bit(upscaled[n]), hr, channel="y", border=2).item() for n, hr in IMAGES.items()]
        assert found[name] == pytest.approx(sum(values) / 2, abs=1e-6)


def test_a_random_degradation_draws_the_same_each_time_and_other_noise_for_each_image():
    method = srbook.build("bicubic", scale=2)
    noisy = Validation(IMAGES, Noisy(2, std=0.1))
    figure = noisy(method, 1)["psnr"]
    assert noisy(method, 7)["psnr"] == pytest.approx(figure, abs=1e-9)
    assert Validation(IMAGES, Noisy(2, std=0.1), seed=1)(method, 1)["psnr"] != pytest.approx(figure, abs=1e-3)
    seen = []

    class Watching(Noisy):
        def __call__(self, hr, generator=None):
            seen.append(torch.randn(3, generator=generator))
            return super().__call__(hr, generator)

    Validation(IMAGES, Watching(2, std=0.1))(method, 1)
    assert (seen[0] - seen[1]).abs().max() > 1e-3


def test_what_cannot_be_measured_is_refused(monkeypatch):
    monkeypatch.setitem(METRICS, "fid", Metric("fid", "FID", 1, "lower", lambda sr, truth, **how: 0.0, per="set"))
    with pytest.raises(ValueError, match="fid needs a whole test set"):
        Validation(IMAGES, Bicubic(2), ["psnr", "fid"])
    with pytest.raises(ValueError, match=r"metrics must be some of psnr.* got sharpness"):
        Validation(IMAGES, Bicubic(2), ["sharpness"])
    with pytest.raises(ValueError, match="no images to validate on"):
        Validation({}, Bicubic(2))
    with pytest.raises(ValueError, match="'a' is 24 x 16; its sides must be divisible by the scale 3"):
        Validation(IMAGES, Bicubic(3))
