"""Tiles: windows that sum to one, results equal to the whole image's, and smooth transitions where they cannot be."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding import assert_repeats
from torch import Tensor, nn

from srbook.methods import Bicubic, Method, Regression, ResShift, Stage
from srbook.random import PlacedGenerator, draw_seed
from srbook.registry import build, load
from srbook.samplers import SampleResult
from srbook.tiling import tile_starts, tile_windows, upscale_blocks, upscale_tiled

geometry = st.integers(1, 40).flatmap(
    lambda tile: st.tuples(st.integers(1, 200), st.just(tile), st.integers(0, (tile - 1) // 3))
)


def network(radius: int, scale: int = 2) -> Method:
    """A random network whose receptive field reaches `radius` low-resolution pixels, far enough to matter."""
    layers: list[nn.Module] = []
    channels = 3
    for _ in range(radius - 1):
        layers += [nn.Conv2d(channels, 8, 3, padding=1), nn.Tanh()]
        channels = 8
    last = nn.Conv2d(channels, 3 * scale**2, 3, padding=1)
    body = nn.Sequential(*layers, last, nn.PixelShuffle(scale), nn.Sigmoid())
    generator = torch.Generator().manual_seed(3)
    for parameter in body.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    method = Regression(scale=scale, network={"kind": "predictor"})
    method.network = body
    return method.eval()


def image(height: int, width: int, seed: int = 0, batch: int = 1) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=200)
@given(geometry, st.integers(1, 4))
def test_windows_sum_to_one_and_leave_out_the_margins(shape: tuple[int, int, int], scale: int):
    length, tile, overlap = shape
    starts = tile_starts(length, tile, overlap)
    windows = tile_windows(length, tile, overlap, scale)
    assert windows.shape == (len(starts), scale * length)
    assert windows.min() >= 0
    torch.testing.assert_close(windows.sum(dim=0), torch.ones(scale * length, dtype=torch.float64))
    size = min(tile, length)
    assert starts[0] == 0 and starts[-1] == length - size
    for start, window in zip(starts, windows, strict=True):
        left = 0 if start == 0 else scale * (start + overlap)
        right = scale * (length if start + size == length else start + size - overlap)
        assert window[:left].sum() == 0
        assert window[right:].sum() == 0


def test_the_fewest_tiles_are_used_and_spread_evenly():
    assert tile_starts(256, 256, 16) == [0]
    assert tile_starts(257, 256, 16) == [0, 1]
    assert tile_starts(464, 256, 16) == [0, 208]
    assert tile_starts(465, 256, 16) == [0, 104, 209]


def test_the_cross_fade_is_a_raised_cosine():
    # Two tiles of 8 on 13 pixels share 3..7, so the fade is centered on 5.5 and one pixel wide.
    left, right = tile_windows(11, 8, 1, 4)
    fade = right[20:24]
    expected = 0.5 - 0.5 * torch.cos(torch.pi * (torch.arange(4, dtype=torch.float64) + 0.5) / 4)
    torch.testing.assert_close(fade, expected)
    assert left[:20].eq(1).all() and right[24:].eq(1).all()


@pytest.mark.parametrize("radius", [1, 2, 4])
@pytest.mark.parametrize("size", [(61, 47), (20, 90), (13, 13), (40, 14)])
def test_equals_the_whole_image_when_the_field_fits_the_overlap(radius: int, size: tuple[int, int]):
    method, lr = network(radius), image(*size, batch=2)
    whole = method.upscale(lr).image
    tiled = upscale_tiled(method, lr, tile=3 * radius + 2, overlap=radius)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("size", "tile"), [((61, 47), 20), ((21, 90), 20), ((1, 1), 8), ((1, 40), 8), ((40, 1), 8)])
def test_blocks_are_the_result_each_pixel_once_and_from_top_to_bottom(size: tuple[int, int], tile: int):
    lr = image(*size)
    whole = Bicubic(scale=2).upscale(lr).image
    seen, last = torch.zeros(whole.shape[-2:]), -1
    for top, left, block in upscale_blocks(Bicubic(scale=2), lr, tile=tile, overlap=2):
        down, across = slice(top, top + block.shape[-2]), slice(left, left + block.shape[-1])
        seen[down, across] += 1
        torch.testing.assert_close(block, whole[..., down, across], atol=1e-5, rtol=0)
        assert top >= last
        last = top
    assert seen.eq(1).all()


def test_the_test_network_needs_the_overlap():
    """The equality above would mean little if too small an overlap passed as well."""
    method, lr = network(4), image(61, 47)
    tiled = upscale_tiled(method, lr, tile=14, overlap=0)
    assert (tiled - method.upscale(lr).image).abs().max() > 1e-3


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (1, 300), (300, 1), (7, 8), (65, 64)])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_any_size_works(size: tuple[int, int], scale: int):
    method, lr = Bicubic(scale=scale), image(*size)
    tiled = upscale_tiled(method, lr, tile=32)
    torch.testing.assert_close(tiled, method.upscale(lr).image, atol=1e-5, rtol=0)


def test_a_field_wider_than_the_overlap_leaves_no_seam():
    """Steps between neighboring pixels at tile borders are no larger than those of the whole image."""
    torch.manual_seed(0)
    method = network(12, scale=2)
    ramp = torch.linspace(0, 1, 160).expand(1, 3, 160, 160).contiguous()
    whole = method.upscale(ramp).image
    tiled = upscale_tiled(method, ramp, tile=64, overlap=6)
    assert (tiled - whole).abs().max() < 0.01
    steps, reference = tiled.diff(dim=-1).abs(), whole.diff(dim=-1).abs()
    assert steps[..., 40:-40, 40:-40].max() <= reference[..., 40:-40, 40:-40].max() + 2e-3


class Constant(Method):
    """Returns one random gray value per call: the worst case for seams."""

    kind = "constant"
    stages = (Stage("main", trains=(), loss="nothing", upscale="draw", samples=True),)

    def __init__(self) -> None:
        super().__init__(scale=2)

    def draw(self, lr: Tensor, *, steps: int | None, generator: torch.Generator | None, progress: bool) -> SampleResult:
        value = torch.rand((), generator=generator) * (steps or 1)
        return SampleResult(value.expand(*lr.shape[:2], 2 * lr.shape[2], 2 * lr.shape[3]).clone())


def test_random_tiles_fade_into_each_other_and_follow_the_generator():
    def run(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return upscale_tiled(Constant(), image(40, 100), tile=40, overlap=10, generator=generator)

    first = run(0)
    assert_repeats(first, run(0), run(1))
    assert first.std() > 0.05
    assert first.diff(dim=-1).abs().max() < 0.1  # at most pi/2 of the difference over 20 pixels


def test_steps_reach_the_method():
    lr, generator = image(4, 4), torch.Generator().manual_seed(0)
    once = upscale_tiled(Constant(), lr, steps=1, generator=generator).mean()
    half = upscale_tiled(Constant(), lr, steps=1, generator=torch.Generator().manual_seed(0)).mean()
    torch.testing.assert_close(once, half)
    with pytest.raises(ValueError, match="leave steps out"):
        upscale_tiled(Bicubic(), lr, steps=5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tile": 0}, "tile must be an integer of at least 1"),
        ({"tile": 30, "overlap": 10}, "less than a third of the tile"),
        ({"overlap": -1}, "overlap must be an integer of at least 0"),
    ],
)
def test_impossible_tilings_are_refused(arguments: dict[str, int], message: str):
    with pytest.raises(ValueError, match=message):
        upscale_tiled(Bicubic(), image(4, 4), **arguments)


def test_images_outside_the_convention_are_refused():
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        upscale_tiled(Bicubic(), 255 * image(4, 4))


def test_static_progress_counts_tiles(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SRBOOK_STATIC", "1")
    upscale_tiled(Bicubic(), image(20, 44), tile=20, overlap=2, progress="photo.png")
    assert "photo.png 3/3 tiles" in capsys.readouterr().out


def test_default_overlap_is_enough_for_the_shipped_model():
    """Its field reaches 65 pixels on paper, but beyond 16 it weighs next to nothing."""
    method, lr = load("rrdb-small"), image(100, 90)
    whole, tiled = method.upscale(lr).image, upscale_tiled(method, lr, tile=64, overlap=16)
    assert (whole - tiled).abs().max() < 1 / 255


# Diffusions


@pytest.fixture(params=["pixels", "latent"])
def diffusion(request: pytest.FixtureRequest, tmp_path: Path) -> ResShift:
    """ResShift whose blocks say something, as after some training; a fresh one's only pass on what they get."""
    torch.manual_seed(0)
    arguments = {}
    if request.param == "latent":
        network = {"width": 8, "multipliers": [1, 2, 2], "blocks": 1, "channels": 3, "codes": 64}
        codec = build("vqgan-tiny", network={**network, "attention": False, "groups": None})  # sees no further than 30
        arguments["codec"] = str(codec.save(tmp_path / "codec.safetensors"))
    method = build("resshift-tiny", **arguments).eval()
    for parameter in method.network.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_normal_(parameter)
    return method


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_tiles_of_a_diffusion_show_no_seams(diffusion: ResShift, monkeypatch: pytest.MonkeyPatch):
    """They differ from the whole image by less than half of what two samples do.

    So do not tiles with noise or places of their own, and those that are cut hard.
    """
    lr = image(24, 44)  # tiles of 28 begin at 0 and 16
    seed = draw_seed(seeded())
    whole, other = (diffusion.upscale(lr, steps=2, generator=PlacedGenerator(k, 0, 0)).image for k in (seed, seed - 1))

    def difference(starts: Callable = tile_starts, place: Callable = PlacedGenerator, overlap: int = 3) -> float:
        monkeypatch.setattr("srbook.tiling.tile_starts", starts)
        monkeypatch.setattr("srbook.tiling.PlacedGenerator", place)
        tiled = upscale_tiled(diffusion, lr, tile=28, overlap=overlap, steps=2, generator=seeded())
        return float((tiled - whole).norm() / (other - whole).norm())

    def beside(length: int, *arguments: int) -> list[int]:
        return [start + (start > 0) for start in tile_starts(length, *arguments)]

    def end_to_end(length: int, tile: int, *arguments: int) -> list[int]:
        return list(range(0, length, tile))

    def alone(seed: int, top: int, left: int) -> PlacedGenerator:
        return PlacedGenerator(seed + left, top, left)

    seamless = difference()
    assert seamless < 0.45
    assert difference(starts=beside) > 1.5 * seamless
    assert difference(place=alone) > 1.5 * seamless
    assert difference(starts=end_to_end, overlap=0) > 1.5 * seamless


def test_one_tile_is_the_whole_image_and_small_ones_are_refused():
    method, lr = build("resshift-tiny"), image(10, 12)
    plain = method.upscale(lr, generator=seeded()).image
    torch.testing.assert_close(upscale_tiled(method, lr, tile=12, generator=seeded()), plain)
    with pytest.raises(ValueError, match="tile must be at least 5 for resshift and an overlap of 1"):
        upscale_tiled(method, lr, tile=4, overlap=1)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 300), st.integers(1, 9), st.integers(0, 8), st.integers(0, 40))
def test_tiles_begin_on_multiples_of_a_unit_and_cover_the_axis(length: int, unit: int, overlap: int, more: int):
    tile = 3 * overlap + unit + more
    starts = tile_starts(length, tile, overlap, unit)
    assert starts[0] == 0 and all(start % unit == 0 for start in starts)
    assert max(length - tile, 0) <= starts[-1] < max(length - tile, 0) + unit
    assert all(0 < after - before <= tile - 3 * overlap for before, after in pairwise(starts))
