"""Degradations as objects: what they make of an image, what they may draw, and how presets name them."""

import pickle

import pytest
import torch
from rounding import assert_repeats, identical

from srbook.degradations import DEGRADATIONS, Bicubic, Noisy, bicubic_downsample, build_degradation
from srbook.random import keyed


def photograph(side: int = 32) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_bicubic_is_the_standard_degradation():
    assert identical(Bicubic(4)(photograph()), bicubic_downsample(photograph(), 4))
    assert identical(Noisy(4, std=0)(photograph()), bicubic_downsample(photograph(), 4))


def test_noise_has_its_deviation_and_follows_the_generator():
    gray = torch.full((2, 3, 128, 128), 0.5)
    noisy = Noisy(2, std=0.1)
    assert (noisy(gray, keyed(1)) - 0.5).std().item() == pytest.approx(0.1, rel=0.02)
    assert_repeats(noisy(gray, keyed(1)), noisy(gray, keyed(1)), noisy(gray, keyed(2)))
    first, second = noisy(gray, keyed(1))
    assert not identical(first, second)
    levels = 255 * noisy(gray, keyed(1))
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("degradation", [Bicubic(3), Noisy(3, std=0)], ids=lambda each: each.kind)
def test_a_pixel_depends_on_its_reach_and_on_nothing_farther(degradation):
    image, (scale, reach) = photograph(60), (degradation.scale, degradation.reach)
    whole, place = degradation(image), slice(6, 10)
    seen = slice(scale * (6 - reach), scale * (10 + reach))
    piece = degradation(image[..., seen, seen])[..., reach:-reach, reach:-reach]
    torch.testing.assert_close(piece, whole[..., place, place], rtol=0, atol=1.01 / 255)
    near = slice(seen.start + scale, seen.stop - scale)
    short = degradation(image[..., near, near])[..., reach - 1 : 1 - reach, reach - 1 : 1 - reach]
    assert (short - whole[..., place, place]).abs().max() > 2 / 255


def test_equal_arguments_make_equal_degradations():
    assert Noisy(4, std=0.1) == Noisy(4, std=0.1) != Noisy(4, std=0.2)
    assert Bicubic(4) == pickle.loads(pickle.dumps(Bicubic(4))) != Bicubic(2)


def test_presets_name_them():
    assert build_degradation("bicubic", 4) == build_degradation({"kind": "bicubic"}, 4) == Bicubic(4)
    assert build_degradation({"kind": "noisy", "std": 0.1}, 2) == Noisy(2, std=0.1)
    assert all(kind == degradation.kind for kind, degradation in DEGRADATIONS.items())


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("blurry", "unknown degradation 'blurry'; choose from bicubic, noisy"),
        ({"std": 0.1}, "unknown degradation None"),
        ("noisy", "degradation 'noisy' does not take these arguments: .*std"),
        ({"kind": "bicubic", "std": 0.1}, "degradation 'bicubic' does not take these arguments: .*std"),
        ({"kind": "noisy", "std": -1}, "std must be a number of at least 0, got -1"),
    ],
)
def test_impossible_descriptions_are_refused(description, message):
    with pytest.raises(ValueError, match=message):
        build_degradation(description, 4)


def test_impossible_scales_are_refused():
    with pytest.raises(ValueError, match="scale must be an integer of at least 1, got 0"):
        Bicubic(0)
    with pytest.raises(ValueError, match="divisible by scale 3"):
        Noisy(3, std=0.1)(photograph())


def test_each_key_has_its_own_generator():
    keys = [(), (0,), (0, 0), (3, 7), (3, 7, 0), (3, 7, 1), (7, 3)]
    draws = {torch.rand((), generator=keyed(*key)).item() for key in keys}
    assert len(draws) == len(keys)
    assert torch.rand((), generator=keyed(3, 7)).item() in draws
