"""Noise of a picture, tile by tile."""

import pytest
import torch
from rounding import identical

from srbook.random import PlacedGenerator, normal


def draws(seed: int, top: int, left: int, height: int, width: int) -> list[torch.Tensor]:
    generator = PlacedGenerator(seed, top, left)
    return [normal((2, 3, height, width), torch.zeros(()), generator) for _ in range(2)]


def test_tiles_share_their_noise_where_they_overlap():
    whole = draws(7, 0, 0, 140, 80)
    for part, everything in zip(draws(7, 50, 10, 85, 60), whole, strict=True):
        assert identical(part, everything[..., 50:135, 10:70])
    assert not identical(*whole)
    assert not identical(whole[0], draws(8, 0, 0, 140, 80)[0])


def test_the_noise_is_standard_normal_and_no_part_repeats_another():
    noise = draws(0, 0, 0, 128, 128)[0]
    assert abs(float(noise.mean())) < 0.02 and abs(float(noise.std()) - 1) < 0.01
    quarters = noise.unfold(2, 64, 64).unfold(3, 64, 64).reshape(-1, 64 * 64)
    assert torch.corrcoef(quarters).fill_diagonal_(0).abs().max() < 0.1


def test_what_else_is_drawn_differs_from_tile_to_tile():
    here, again, there = (torch.rand(3, generator=PlacedGenerator(0, 0, left)) for left in (0, 0, 8))
    assert identical(here, again) and not identical(here, there)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="4"):
        normal((3,), torch.zeros(()), PlacedGenerator(0, 0, 0))
