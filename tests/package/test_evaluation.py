"""Tables of quality: the known numbers of bicubic, and tables that say how they were made."""

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from srbook.data import ImageFolder, write_image
from srbook.degradations import Bicubic as BicubicDegradation
from srbook.degradations import Noisy, bicubic_downsample, bicubic_upsample
from srbook.evaluation import EvaluationTable, Row, evaluate, stores_gray
from srbook.images import round_to_8bit
from srbook.methods import Bicubic, Method, Stage
from srbook.metrics import (
    METRICS,
    PROTOCOL_A,
    PROTOCOL_B,
    Metric,
    chosen_metrics,
    feature_statistics,
    frechet_distance,
    image_entropy,
    psnr,
    residual_entropy,
    ssim,
)
from srbook.names import told_apart
from srbook.registry import build
from srbook.samplers import SampleResult


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


def test_entropies_are_those_of_the_whole_8_bit_image():
    truth = images(1)["image0"][..., :40, :40]
    table = evaluate({}, {"a": truth}, scale=4, protocol=PROTOCOL_A, metrics=("entropy", "residual_entropy"))
    sr = round_to_8bit(Bicubic(scale=4).upscale(bicubic_downsample(truth, 4)).image)
    values = table.rows[0].values
    assert values["entropy"] == pytest.approx(image_entropy(sr, channel="y").item(), abs=1e-3)
    assert values["residual_entropy"] == pytest.approx(residual_entropy(truth, sr, channel="y").item(), abs=1e-3)


def test_new_metrics_need_a_line_in_the_table(monkeypatch: pytest.MonkeyPatch):
    """One per set, as FID is, and one without a reference, as NIQE is."""

    def colors(image: Tensor) -> Tensor:
        return image.mean(dim=(2, 3))

    def frechet(srs, truths, *, channel, border):
        return frechet_distance(feature_statistics(srs, colors), feature_statistics(truths, colors))

    def sharpness(sr, *, channel, border):
        assert channel == "y" and border == 4
        return sr.diff(dim=-1).abs().mean()

    monkeypatch.setitem(METRICS, "colors", Metric("colors", "Colors", 6, "lower", frechet, per="set"))
    monkeypatch.setitem(METRICS, "sharp", Metric("sharp", "Sharp", 3, "higher", sharpness, needs_truth=False))
    truth = images(3)
    table = evaluate({"tiny": tiny()}, truth, scale=4, protocol=PROTOCOL_A, metrics=("colors", "sharp"))
    targets = [each[..., :40, :40] for each in truth.values()]
    results = [round_to_8bit(Bicubic(scale=4).upscale(bicubic_downsample(each, 4)).image) for each in targets]
    wanted = frechet(results, targets, channel="y", border=4)
    assert 0 < table.mean("bicubic", "colors") == pytest.approx(wanted, rel=0.05)
    assert table.rows[0].values.keys() == {"sharp"}
    lines = table.to_markdown().splitlines()
    assert lines[0].split("|")[2:4] == [" Colors   ", " Sharp "]
    assert lines[7] == "| image  | method  | Sharp |"
    assert json.loads(table.to_json())["means"]["tiny"].keys() == {"colors", "sharp"}
    only = evaluate({}, truth, scale=4, protocol=PROTOCOL_A, metrics=("colors",))
    assert len(only.to_markdown().splitlines()) == 5  # nothing to say of each image


class Stepwise(Method):
    """Samples in as many steps as it is told, and shows their number."""

    kind = "stepwise"
    stages = (Stage("main", trains=(), loss="nothing", upscale="count", samples=True),)

    def __init__(self, *, scale: int = 4):
        super().__init__(scale)

    def count(self, lr: Tensor, *, steps=None, generator=None, progress=False) -> SampleResult:
        return SampleResult(torch.full((1, 3, *(4 * side for side in lr.shape[2:])), (steps or 50) / 255))


def test_steps_are_for_the_methods_that_sample(monkeypatch: pytest.MonkeyPatch):
    def brightest(sr, *, channel, border):
        return 255 * sr.max()

    monkeypatch.setitem(METRICS, "brightest", Metric("brightest", "Brightest", 0, None, brightest, needs_truth=False))
    methods = {"one step": tiny(), "many": Stepwise()}
    table = evaluate(methods, images(1), scale=4, protocol=PROTOCOL_A, steps=10, metrics=("brightest",))
    assert table.mean("many", "brightest") == pytest.approx(10, abs=1e-3)
    assert table.mean("one step", "brightest") > 100


def test_another_degradation_is_used_and_named():
    noisy = Noisy(4, std=0.2)
    how = {"scale": 4, "protocol": PROTOCOL_A}
    plain, worse = evaluate({}, images(), **how), evaluate({}, images(), degradation=noisy, **how)
    assert worse.mean("bicubic", "psnr") < plain.mean("bicubic", "psnr") - 0.5
    assert "Gaussian noise of deviation 0.2" in worse.to_markdown()
    assert json.loads(worse.to_json())["degradation"] == noisy.description
    same = evaluate({}, images(), degradation=BicubicDegradation(4), **how)
    assert same.to_markdown() == plain.to_markdown() and json.loads(same.to_json())["degradation"] is None


def test_what_a_random_degradation_draws_depends_on_seed_and_image():
    def values(seed: int, *, alike: bool = True) -> list[float]:
        one = images(1)["image0"]
        truth = {"a": one, "b": one} if alike else {"a": one}
        degradation = Noisy(4, std=0.1)
        table = evaluate({}, truth, scale=4, protocol=PROTOCOL_A, degradation=degradation, seed=seed)
        return [row.values["psnr"] for row in table.rows]

    first, second = values(0)
    assert values(0, alike=False)[0] == pytest.approx(first, abs=1e-3)
    assert abs(first - second) > 1e-3 and abs(first - values(1)[0]) > 1e-3


def test_protocol_b_measures_bicubic_only():
    with pytest.raises(ValueError, match=r"^protocol B measures bicubic only"):
        evaluate({}, images(), scale=4, protocol=PROTOCOL_B, degradation=Noisy(4, std=0.1))
    with pytest.raises(ValueError, match="the degradation shrinks 2 times, not 4"):
        evaluate({}, images(), scale=4, protocol=PROTOCOL_A, degradation=Noisy(2, std=0.1))


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
    with pytest.raises(ValueError, match=r"metrics must be some of psnr, .*, got fid"):
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


def test_a_metric_that_is_named_twice_is_measured_once():
    assert [metric.name for metric in chosen_metrics(["psnr", "ssim", "psnr"])] == ["psnr", "ssim"]


def test_images_of_one_name_are_told_apart(tmp_path: Path):
    """By their folders, and by their suffixes where the folder is the same."""
    for name in ("x/a.png", "y/a.png", "y/a.bmp", "y/b.png"):
        write_image(tmp_path / name, images(1)["image0"])
    folder = ImageFolder(tmp_path)
    assert folder.names == ["x/a", "y/a.bmp", "y/a.png", "b"]
    assert [name for name, _ in folder.items()] == folder.names
    table = evaluate({}, folder, scale=4, protocol=PROTOCOL_A)
    assert [row.image for row in table.rows] == folder.names
    with pytest.raises(ValueError, match="is named twice"):
        told_apart([tmp_path / "a.png", tmp_path / "a.png"])


def test_no_name_breaks_a_table():
    names = ["a|b", "line\nbreak", "byte\udcff"]
    rows = [Row(f"m|{method}", name, {"psnr": 30.0}, 0.1) for name in names for method in ("1", "\n2")]
    table = EvaluationTable(rows, ("psnr",), 4, PROTOCOL_A)
    text = table.to_markdown()
    assert text.encode() and len(text.splitlines()) == 4 + 3 + 2 + 6
    bars = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}
    assert bars == {3, 4}
    assert r"| a\|b " in text and r"line\nbreak" in text
    assert [row["image"] for row in json.loads(table.to_json())["images"]][::2] == names


def test_another_method_may_not_take_the_references_name():
    with pytest.raises(ValueError, match="'bicubic' is the reference's row of the table; give the regression a name"):
        evaluate({"bicubic": tiny()}, {"a": torch.rand(1, 3, 32, 32)}, scale=4, protocol=PROTOCOL_A)
