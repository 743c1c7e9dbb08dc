"""The network that ships: its recipe tells the truth, and the command line improves real photographs with it."""

import json

import pytest
import torch
from typer.testing import CliRunner

import srbook
from srbook.cli import app
from srbook.codecs import read_codec
from srbook.data import ImageFolder, held_out_samples, read_image, write_image
from srbook.evaluation import evaluate
from srbook.images import round_to_8bit
from srbook.metrics import PROTOCOL_A, psnr
from srbook.registry import read_preset, recipe, trained


@pytest.mark.parametrize("name", [name for name in trained() if name != "bicubic"])
def test_recipe_describes_the_weights(name):
    told, method, preset = recipe(name), srbook.load(name), read_preset(name)
    assert told["parameters"] == sum(parameter.numel() for parameter in method.parameters())
    assert method.arguments == srbook.build(name).arguments
    assert told["steps"] == told["training"]["steps"] == preset.training[method.stage_names()[-1]].steps
    for stage in method.stage_names()[:-1]:
        assert told["earlier_stages"][stage]["steps"] == preset.training[stage].steps
    json.dumps(told, allow_nan=False)  # an infinity is no JSON, and no other program would read it
    assert told["hours"] > 0 and told["photos"] and told["machine"]
    assert all(parameter.dtype == torch.float32 for parameter in method.parameters())


def test_diffusing_the_residual_ships_the_better_sampler():
    """Both were trained for 3000 steps on the same photographs; their samples are measured alike."""
    image, residual = (recipe(name)["quality"][0] for name in ("sr3-small", "srdiff-small"))
    assert image["set"] == residual["set"] == "Set5"
    assert residual["psnr"] > residual["bicubic_psnr"] > image["psnr"]


@pytest.mark.parametrize("index", [0, 1], ids=["Set5", "Set14"])
def test_recipe_quotes_what_the_weights_reach(shared, index):
    told = recipe("rrdb-small")["quality"][index]
    images = ImageFolder(shared / "data" / "test" / told["set"])
    table = evaluate({"rrdb-small": srbook.load("rrdb-small")}, images, scale=4, protocol=PROTOCOL_A)
    assert len(images) == told["images"]
    assert table.mean("rrdb-small", "psnr") == pytest.approx(told["psnr"], abs=0.002)
    assert table.mean("rrdb-small", "ssim") == pytest.approx(told["ssim"], abs=2e-4)
    assert table.mean("bicubic", "psnr") == pytest.approx(told["bicubic_psnr"], abs=0.002)
    assert told["psnr"] > told["bicubic_psnr"] + 1.9


@pytest.mark.parametrize("name", [name for name in trained() if read_preset(name).method == "vqgan"])
def test_recipe_quotes_what_a_codec_reconstructs(shared, name):
    codec, told = srbook.load(name), recipe(name)["quality"][0]
    images = [image[None] for image in ImageFolder(shared / "data" / "test" / told["set"])]
    found = [psnr(round_to_8bit(codec.upscale(image).image), image, channel="rgb") for image in images]
    assert len(images) == told["images"]
    assert torch.cat(found).mean().item() == pytest.approx(told["psnr_rgb"], abs=0.02)


def test_the_extractor_tells_photographs_apart_and_can_be_run_backward():
    extractor, told = read_codec("hf-extractor-small"), recipe("hf-extractor-small")["quality"][0]
    assert told["accuracy"] > 50 / told["classes"]
    image = next(iter(held_out_samples().items()))[1][..., 40:104, 40:104]
    network = extractor.network
    with torch.no_grad():
        maps = network.entry(2 * image - 1) + network.body(2 * image - 1)
        back = network.invertible.inverse(network.invertible(maps))
    assert (back - maps).abs().max() < 1e-4 * maps.abs().max()


@pytest.mark.parametrize("name", ["resshift-small", "deltadiff-small"])
def test_shifting_the_residual_halves_lpips_near_bicubics_psnr(shared, name):
    """The recipe's Set5, of which two pictures are measured again."""
    told = recipe(name)["quality"][0]
    assert told["set"] == "Set5"
    assert told["lpips"] < 0.55 * told["bicubic_lpips"] and told["psnr"] > told["bicubic_psnr"] - 1
    images = dict(list(ImageFolder(shared / "data" / "test" / "Set5").items())[1:3])
    table = evaluate({name: srbook.load(name)}, images, scale=4, protocol=PROTOCOL_A)
    assert abs(table.mean(name, "psnr") - table.mean("bicubic", "psnr")) < 2


def test_upscale_command_beats_bicubic_on_files(shared, tmp_path):
    """From files to files, through tiles, as a user runs it."""
    gains = []
    for path in sorted((shared / "data" / "test" / "Set5").glob("*.png"))[:3]:
        target = PROTOCOL_A.target(read_image(path)[None], 4)
        low = PROTOCOL_A.degrade(target, 4)
        write_image(tmp_path / path.name, low[0])
        words = ["upscale", str(tmp_path / path.name), "--output", str(tmp_path / "out"), "--tile", "48"]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        result = read_image(tmp_path / "out" / path.name)[None]
        bicubic = srbook.load("bicubic").upscale(low).image
        gains.append(PROTOCOL_A.score(result, target, 4).psnr - PROTOCOL_A.score(bicubic, target, 4).psnr)
    assert torch.stack([torch.as_tensor(gain) for gain in gains]).min() > 1.4
