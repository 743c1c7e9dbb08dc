"""Every method takes pictures of every size, from one pixel on."""

import pytest
import torch

import srbook
from srbook.registry import read_preset, trained

SIZES = [(1, 1), (1, 9), (17, 1), (2, 3)]
TINY = [name for name in srbook.presets() if name.endswith("-tiny")]
SHIPPED = [name for name in trained() if read_preset(name).method != "extractor"]


@pytest.mark.parametrize("name", [*TINY, *SHIPPED])
def test_every_size_is_enlarged(name: str):
    method = (srbook.load if name in trained() else srbook.build)(name).eval()
    for height, width in SIZES:
        lr = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
        steps = 1 if method.samples else None
        image = method.upscale(lr, steps=steps, generator=torch.Generator().manual_seed(0)).image
        assert image.shape == (1, 3, height * method.scale, width * method.scale)
        assert 0 <= image.min() <= image.max() <= 1  # false for nan


@pytest.mark.parametrize("name", TINY)
def test_a_first_stage_enlarges_every_size_too(name: str):
    method = srbook.build(name)
    method.begin(method.stage_names()[0])
    if not method.samples:
        assert method.eval().upscale(torch.rand(1, 3, 1, 9)).image.shape == (1, 3, method.scale, 9 * method.scale)
