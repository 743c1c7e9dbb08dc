"""Classes of pictures, patches with their numbers, and the extractor that is trained on them."""

from pathlib import Path

import pytest
import torch
from rounding import identical
from torch.nn.functional import cross_entropy
from typer.testing import CliRunner

import srbook
from srbook.cli import app
from srbook.codecs import Extractor, read_codec
from srbook.data import LabeledPatches, image_classes, write_image
from srbook.training import Trainer, TrainingConfig

NETWORK = {"width": 8, "depth": 1}


def picture(red: float, size: int = 24) -> torch.Tensor:
    """All pixels of one color, by which it is known."""
    return torch.tensor([red, 0.5, 1 - red]).view(3, 1, 1).expand(3, size, size + 4)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Three classes with two pictures each, as ImageNet comes."""
    for number, name in enumerate(("cat", "dog", "owl")):
        for index in (0, 1):
            write_image(tmp_path / "set" / name / f"{index}.png", picture(0.2 * number + 0.1 * index))
    return tmp_path / "set"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for index in range(3):
        write_image(tmp_path / "pictures" / f"{index}.png", picture(0.4 * index))
    return tmp_path / "pictures"


def test_folders_are_classes_and_pictures_are(folders: Path, pictures: Path):
    found = image_classes(folders)
    assert list(found) == ["cat", "dog", "owl"] and [len(files) for files in found.values()] == [2, 2, 2]
    assert [[path.name for path in files] for files in image_classes(pictures).values()] == [
        ["0.png"],
        ["1.png"],
        ["2.png"],
    ]


def test_what_has_no_classes_is_refused(folders: Path, pictures: Path, tmp_path: Path):
    write_image(folders / "stray.png", picture(0.5))
    with pytest.raises(ValueError, match=r"has pictures \(stray.png, the first\) beside folders with pictures"):
        image_classes(folders)
    for path in list(pictures.iterdir())[1:]:
        path.unlink()
    with pytest.raises(ValueError, match="has one class; a classifier needs at least two"):
        image_classes(pictures)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no pictures in"):
        image_classes(tmp_path / "empty")


def test_a_patch_is_of_a_picture_of_its_class(folders: Path):
    patches = LabeledPatches(image_classes(folders), patch_size=8, batch_size=64, seed=1)
    images, labels = patches[3]
    assert images.shape == (64, 3, 8, 8) and labels.shape == (64,) and labels.dtype == torch.int64
    index = (10 * images[:, 0].mean(dim=(1, 2)) - 2 * labels).round()
    assert set(index.tolist()) == {0, 1} and set(labels.tolist()) == {0, 1, 2}
    again, other = patches[3], patches[4]
    assert identical(again[0], images) and identical(again[1], labels) and not identical(other[1], labels)


def test_every_place_and_turn_of_a_picture_comes(tmp_path: Path):
    image = torch.arange(3 * 4 * 5).view(3, 4, 5) / 255
    for index in (0, 1):
        write_image(tmp_path / f"{index}.png", image)
    patches = LabeledPatches(image_classes(tmp_path), patch_size=4, batch_size=400)[0][0]
    kinds = {tuple((255 * patch[0]).round().flatten().tolist()) for patch in patches}
    assert len(kinds) == 2 * 8  # two places, eight symmetries


def test_small_pictures_are_left_out_and_so_are_classes_without_others(folders: Path):
    write_image(folders / "ant" / "0.png", picture(0.0, size=4))
    write_image(folders / "cat" / "2.png", picture(0.9, size=4))
    with pytest.warns(UserWarning, match="2 of 8 pictures are smaller than a patch of 8, and are left out"):
        patches = LabeledPatches(image_classes(folders), patch_size=8, batch_size=64)
    assert patches.names == ["cat", "dog", "owl"]
    images, labels = patches[0]
    assert images[labels == 0][:, 0].max() < 0.2
    with (
        pytest.warns(UserWarning, match="smaller"),
        pytest.raises(ValueError, match="at least two classes, got 0"),
    ):
        LabeledPatches(image_classes(folders), patch_size=64, batch_size=1)


def test_other_data_have_another_fingerprint(folders: Path):
    def fingerprint() -> str:
        return LabeledPatches(image_classes(folders), patch_size=8, batch_size=1).fingerprint

    before = fingerprint()
    assert before == fingerprint() and before.startswith("6 pictures, 3 classes")
    (folders / "cat").rename(folders / "cow")
    assert fingerprint() != before
    renamed = fingerprint()
    (folders / "cow" / "1.png").rename(folders / "dog" / "2.png")
    (folders / "dog" / "2.png").rename(folders / "dog" / "1.5.png")
    assert fingerprint() != renamed


def test_what_a_training_wrote_is_no_class(folders: Path):
    write_image(folders / "run" / "validation" / "x.png", picture(0.3))
    (folders / "run" / "log.jsonl").write_text("{}\n")
    assert list(image_classes(folders)) == ["cat", "dog", "owl"]


def test_the_extractors_loss_is_the_cross_entropy():
    torch.manual_seed(0)
    extractor, image, label = Extractor(classes=5, network=NETWORK), torch.rand(6, 3, 16, 16), torch.arange(6) % 5
    losses = extractor.loss(image, label)
    scores = extractor.network(2 * image - 1)
    torch.testing.assert_close(losses["loss"], cross_entropy(scores, label))
    assert losses["accuracy"].item() == pytest.approx((scores.argmax(1) == label).double().mean().item())
    torch.testing.assert_close(extractor.network.head[-1](extractor.embed(image)), scores)
    assert extractor.features(image).shape == (6, 8, 16, 16)
    for wrong in (label.float(), label[:2], label[:, None]):
        with pytest.raises(ValueError, match="label must hold 6 whole numbers"):
            extractor.loss(image, wrong)
    for wrong in (label - 1, label + 1, torch.full((6,), -100)):
        with pytest.raises(ValueError, match="label must lie from 0 to 4"):
            extractor.loss(image, wrong)
    torch.testing.assert_close(extractor.loss(image, label.int())["loss"], losses["loss"])


def test_it_learns_to_tell_colors_apart(folders: Path, tmp_path: Path):
    torch.manual_seed(0)
    extractor = Extractor(classes=3, network=NETWORK)
    batches = LabeledPatches(image_classes(folders), patch_size=16, batch_size=8)
    config = TrainingConfig(steps=60, batch_size=8, patch_size=16, learning_rate=1e-2, ema_decay=0.0, precision="fp32")
    result = Trainer(extractor, batches, config, output=tmp_path / "run", progress=False).fit()
    assert result.records[-1]["accuracy"] > 0.6
    again = read_codec(tmp_path / "run" / "weights.safetensors")
    image, label = batches[1000]
    torch.testing.assert_close(again.loss(image, label)["loss"], extractor.loss(image, label)["loss"])


def test_the_command_counts_the_classes_and_names_what_it_trained(folders: Path, tmp_path: Path):
    words = ["train", "--preset", "hf-extractor-small", "--data", str(folders), "--output", str(tmp_path / "run")]
    words += ["--steps", "1", "--batch-size", "2", "--patch-size", "16"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "3 classes" in done.output
    refused = CliRunner().invoke(app, [*words, "--validation", str(folders)])
    assert refused.exit_code == 1 and "learns classes" in refused.output
    file = tmp_path / "run" / "weights.safetensors"
    assert srbook.load(file).arguments["classes"] == 3
    picture_file = tmp_path / "x.png"
    write_image(picture_file, picture(0.3))
    done = CliRunner().invoke(
        app, ["upscale", str(picture_file), "--output", str(tmp_path / "out"), "--model", str(file)]
    )
    assert done.exit_code == 1 and "an extractor does not upscale" in " ".join(done.output.split())
