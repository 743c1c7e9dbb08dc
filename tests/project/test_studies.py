"""The studies behind stored tables: what they measure is what the package does."""

import torch
from pytest import approx

import srbook
from benchmarks import shift_protocols
from benchmarks.shift_protocols import squashed, stretched, whole
from benchmarks.studies.shift import predictions_of
from srbook.data import sample
from srbook.degradations import bicubic_downsample


def photograph():
    return sample("chelsea")[..., 64:128, 100:164]


def test_the_last_prediction_is_the_sample():
    torch.manual_seed(0)
    method, lr = srbook.build("resshift-tiny").eval(), bicubic_downsample(photograph(), 4)
    with torch.no_grad():
        predictions = predictions_of(method, lr, 5)
        image = method.upscale(lr, generator=torch.Generator().manual_seed(5)).image
    assert len(predictions) == 4
    torch.testing.assert_close(predictions[-1], image, rtol=0, atol=1e-5)


def test_stretching_hides_a_wrong_tone(monkeypatch):
    monkeypatch.setattr(shift_protocols, "lpips", lambda sr, truth: (sr - truth).abs().mean())  # needs no download
    truth = stretched(photograph())
    pale = 0.2 + 0.5 * truth
    assert whole(pale, truth)["psnr"] < 25
    assert whole(stretched(pale), truth)["psnr"] > 50
    assert stretched(pale).min() == 0 and stretched(pale).max() == 1


def test_squashing_forgets_the_shape_and_keeps_the_tone():
    wide = photograph()[..., :32, :]
    found = squashed(wide)
    assert found.shape[-2:] == (256, 256)
    assert found.mean().item() == approx(wide.mean().item(), abs=0.01)
    torch.testing.assert_close(255 * found, (255 * found).round(), rtol=0, atol=1e-4)
