"""A picture becomes 8-bit levels without a copy beside them, and what it takes is known beforehand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from srbook.data import Picture
from srbook.degradations import bicubic_upsample
from srbook.memory import available_bytes, free_of_group, peak_bytes
from srbook.methods import Bicubic
from srbook.registry import load
from srbook.tiling import upscale_tiled
from srbook.upscaling import default_tile, needed_bytes, tile_bytes, upscale_picture


def image(height: int, width: int, channels: int = 3) -> Tensor:
    return torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(0))


def levels(result: Tensor) -> np.ndarray:
    return result[0].clamp(0, 1).mul(255).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 1), (45, 38)])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_levels_are_the_rounded_result(size: tuple[int, int], mode: str):
    """In colors and alpha, whatever the tiles; a visible pixel keeps its color."""
    rgb, alpha = image(*size), image(*size, channels=1).clamp_min(0.01)
    if mode[0] == "L":
        rgb = rgb[:, :1].expand(-1, 3, -1, -1)
    picture = Picture(rgb, alpha if mode[-1] == "A" else None, gray=mode[0] == "L")
    result = upscale_picture(Bicubic(scale=3), picture, tile=18)
    expected = [levels(bicubic_upsample(part, 3)) for part in (rgb[:, : 1 if picture.gray else 3], alpha)]
    expected = np.concatenate(expected[: 2 if mode[-1] == "A" else 1], axis=-1)
    assert result.mode == mode and result.size == (3 * size[1], 3 * size[0])
    assert np.abs(np.asarray(result).reshape(expected.shape) - expected).max() <= 0.51


def test_a_gray_result_is_the_luma_of_the_networks():
    gray = image(20, 24, channels=1).expand(-1, 3, -1, -1).contiguous()
    method = load("rrdb-small")
    colors = levels(upscale_tiled(method, gray))
    assert np.ptp(colors, axis=-1).max() > 2  # a network tints noise
    result = np.asarray(upscale_picture(method, Picture(gray, gray=True)))
    assert np.abs(result - colors @ [0.299, 0.587, 0.114]).max() <= 0.51


def test_no_copy_of_the_result_is_made():
    """Pillow holds it; in tensors there are the input, a tile, and what a row of tiles leaves to the next."""
    tall, result_bytes = Picture(image(3000, 20)), 3 * 4 * 16 * 3000 * 20
    assert peak_bytes(lambda: upscale_tiled(Bicubic(), tall.rgb, tile=32)) > result_bytes
    assert peak_bytes(lambda: upscale_picture(Bicubic(), tall, tile=32)) < result_bytes / 6


def test_peak_bytes_counts_what_is_there_at_once():
    def chain() -> None:
        x = torch.zeros(1000)  # 4 kB
        for _ in range(5):
            x = x + 1  # 8 kB while both are there
        x[10:].add_(1).view(-1)  # nothing new
        torch.cat([x, x])  # 4 + 8 kB

    assert peak_bytes(chain) == 12_000


def test_the_estimate_grows_with_the_picture_and_with_the_tile():
    per_pixel = tile_bytes(load("rrdb-small"))
    assert 6_000 < per_pixel < 12_000  # a process was seen to take 8,400 bytes more for each pixel
    photograph = {"height": 4000, "width": 6000, "scale": 4, "per_tile_pixel": per_pixel}
    assert 2.2e9 < needed_bytes(tile=256, **photograph) < 2.8e9
    assert needed_bytes(tile=64, **photograph) < needed_bytes(tile=256, **photograph) - 0.4e9
    with pytest.raises(ValueError, match="leave steps out"):
        tile_bytes(Bicubic(), steps=3)


def test_memory_of_the_machine_and_of_its_groups(tmp_path: Path):
    free = available_bytes()
    assert free is None or 10_000_000 < free < 1e15
    names = ("memory.max", "memory.current", "inactive_file")
    for name, text in {
        "memory.max": "5000",
        "memory.current": "3000",
        "memory.stat": "anon 9\ninactive_file 500\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert free_of_group(tmp_path, *names) == 2500
    (tmp_path / "memory.max").write_text("max\n")
    assert free_of_group(tmp_path, *names) is None and free_of_group(tmp_path / "absent", *names) is None


def test_tiles_are_smaller_where_they_would_take_much_memory():
    assert [default_tile(size) for size in (0, 9e3, 9e4, 1.7e5, 1e6)] == [256, 256, 128, 64, 64]
