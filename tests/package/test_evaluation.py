"""Tables of quality: the known numbers of bicubic, and tables that say how they were made."""

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from srbook.data import ImageFolder, write_image
from srbook.degradations import bicubic_downsample, bicubic_upsample
from srbook.evaluation import EvaluationTable, Row, evaluate, stores_gray
from srbook.images import round_to_8bit
from srbook.methods import Bicubic, Method
from srbook.metrics import PROTOCOL_A, PROTOCOL_B, psnr, ssim
from srbook.registry import build


def images(count: int = 2, size: int = 42) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    coarse = [torch.rand(1, 3, size // 3, size // 3, generator=generator) for _ in range(count)]
    return {f"image{i}": round_to_8bit(bicubic_upsample(each, 3)) for i, each in enumerate(coarse)}


def tiny() -> Method:
    torch.manual_seed(0)
    return build("rrdb-tiny").eval()


@pytest.mark.parametrize(
    ("name", "protocol", "quality", "similarity"),
    [
        ("Set5", PROTOCOL_A, 28.4314, 0.8113),
        ("Set5", PROTOCOL_B, 28.4207, 0.8104),
        ("Set14", PROTOCOL_A, 26.0918, 0.7050),
        ("Set14", PROTOCOL_B, 26.0001, 0.7019),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_bicubic_has_its_known_numbers(shared: Path, name: str, protocol, quality: float, similarity: float):
    """Protocol B needs to know that Set14's `bridge` is a gray file, which the folder tells it."""
    table = evaluate({}, ImageFolder(shared / "data" / "test" / name), scale=4, protocol=protocol)
    assert table.methods == ["bicubic"]
    assert table.mean("bicubic", "psnr") == pytest.approx(quality, abs=1e-3)
    assert table.mean("bicubic", "ssim") == pytest.approx(similarity, abs=1e-3)


def test_values_are_those_of_the_metrics():
    truth = images()
    table = evaluate({"tiny": tiny()}, truth, scale=4, protocol=PROTOCOL_A)
    for row in table.rows:
        hr = truth[row.image][..., :40, :40]  # 42 is no multiple of 4
        lr = bicubic_downsample(hr, 4)
        sr = round_to_8bit((tiny() if row.method == "tiny" else Bicubic(scale=4)).upscale(lr).image)
        assert row.values["psnr"] == pytest.approx(psnr(sr, hr, channel="y", border=4).item(), abs=1e-3)
        assert row.values["ssim"] == pytest.approx(ssim(sr, hr, channel="y", border=4).item(), abs=1e-4)
    values = [row.values["psnr"] for row in table.rows if row.method == "tiny"]
    assert table.mean("tiny", "psnr") == pytest.approx(sum(values) / 2)


def test_bicubic_is_the_reference_and_comes_once():
    assert evaluate({"tiny": tiny()}, images(), scale=4, protocol=PROTOCOL_A).methods == ["bicubic", "tiny"]
    table = evaluate({"mine": Bicubic(scale=3)}, images(), scale=3, protocol=PROTOCOL_A)
    assert table.methods == ["mine"] and len(table.rows) == 2


def test_tiles_change_nothing_where_the_field_fits():
    whole = evaluate({}, images(1, 120), scale=2, protocol=PROTOCOL_A)
    tiled = evaluate({}, images(1, 120), scale=2, protocol=PROTOCOL_A, tile=24)
    assert whole.rows[0].values == pytest.approx(tiled.rows[0].values, abs=1e-4)


def test_gray_files_are_recognized(tmp_path: Path):
    for mode in ("L", "1", "I;16", "RGB", "P"):
        Image.new(mode, (8, 8)).save(tmp_path / f"{mode.replace(';', '')}.png")
    assert {path.stem for path in tmp_path.iterdir() if stores_gray(path)} == {"L", "1", "I16"}


def test_markdown_and_json_name_the_protocol():
    rows = [
        Row("bicubic", "a", {"psnr": 30.0, "ssim": 0.9}, 0.01),
        Row("good", "a", {"psnr": 32.125, "ssim": 0.95}, 1.0),
        Row("bicubic", "b", {"psnr": 28.0, "ssim": 0.8}, 0.01),
        Row("good", "b", {"psnr": math.inf, "ssim": 1.0}, 1.0),
    ]
    table = EvaluationTable(rows, ("psnr", "ssim"), 4, PROTOCOL_B)
    text = table.to_markdown()
    lines = text.splitlines()
    assert lines[0] == "| method  | PSNR (dB) | SSIM   |"
    assert lines[2] == "| bicubic | 29.00     | 0.8500 |"
    assert lines[3] == "| good    | inf       | 0.9750 |"
    assert "Mean of 2 images, x4, protocol B: on Y rounded" in text
    assert "| b     | good    | inf       | 1.0000 |" in lines
    assert len(table.to_markdown(per_image=False).splitlines()) == 6
    content = json.loads(table.to_json())
    assert content["protocol"]["name"] == "B" and content["scale"] == 4
    assert content["means"]["bicubic"] == {"psnr": 29.0, "ssim": pytest.approx(0.85)}
    assert content["images"][3]["psnr"] is None  # JSON has no infinity
    with pytest.raises(ValueError, match="no 'lpips' of 'good'"):
        table.mean("good", "lpips")


def test_save_writes_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    table = evaluate({}, images(1), scale=4, protocol=PROTOCOL_A)
    saved = json.loads(table.save(tmp_path / "new" / "table.json").read_text())
    assert saved["means"]["bicubic"]["psnr"] == pytest.approx(table.mean("bicubic", "psnr"))

    def fail(self: EvaluationTable) -> str:
        raise RuntimeError("interrupted")

    monkeypatch.setattr(EvaluationTable, "to_json", fail)
    with pytest.raises(RuntimeError, match="interrupted"):
        table.save(tmp_path / "other" / "table.json")
    assert list((tmp_path / "other").iterdir()) == []


def test_wrong_requests_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="metrics must be some of psnr, ssim, lpips, got fid"):
        evaluate({}, images(), scale=4, protocol=PROTOCOL_A, metrics=("psnr", "fid"))
    with pytest.raises(ValueError, match="got none"):
        evaluate({}, images(), scale=4, protocol=PROTOCOL_A, metrics=())
    with pytest.raises(ValueError, match="no images"):
        evaluate({}, {}, scale=4, protocol=PROTOCOL_A)
    with pytest.raises(ValueError, match="tiny magnifies 4 times"):
        evaluate({"tiny": tiny()}, images(), scale=2, protocol=PROTOCOL_A)
    with pytest.raises(ValueError, match=r"a: the truth must be one image .* got a batch of 2"):
        evaluate({}, {"a": torch.rand(2, 3, 64, 64)}, scale=4, protocol=PROTOCOL_A)


def test_an_image_too_small_is_named(tmp_path: Path):
    write_image(tmp_path / "fine.png", images(1)["image0"])
    write_image(tmp_path / "small.png", torch.rand(3, 12, 12))
    with pytest.raises(ValueError, match=r"small: ssim needs at least 11x11"):
        evaluate({}, ImageFolder(tmp_path), scale=4, protocol=PROTOCOL_A)


def test_absent_lpips_weights_stop_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "weights").mkdir()
    monkeypatch.setenv("SRBOOK_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("srbook.evaluation.upscale_tiled", None)  # would raise a TypeError if it came so far
    monkeypatch.setattr("torch.hub.download_url_to_file", _offline)
    from srbook.metrics import perceptual

    perceptual._lpips_module.cache_clear()
    with pytest.raises((FileNotFoundError, ImportError)):
        evaluate({}, images(), scale=4, protocol=PROTOCOL_A, metrics=("psnr", "lpips"))


def _offline(*arguments: object, **options: object) -> None:
    raise OSError("no network")
