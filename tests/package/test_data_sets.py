"""Folders, sample photographs, and the catalog of standard sets."""

import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from rounding import identical

from srbook.data import (
    ImageFolder,
    catalog,
    held_out_samples,
    image_files,
    read_image,
    sample,
    samples,
    training_samples,
    write_image,
)
from srbook.data.photographs import HELD_OUT, TRAINING


def flat(level: int, height: int = 4, width: int = 5) -> torch.Tensor:
    return torch.full((3, height, width), level / 255)


def fill(folder, *names: str) -> None:
    for i, name in enumerate(names):
        write_image(folder / name, flat(i))


# ---------------------------------------------------------------------------------------------------------- folders


def test_folder_is_a_sorted_tree(tmp_path):
    fill(tmp_path, "b/z.png", "a.PNG", "b/c.webp", "d.bmp", "._a.png", "__MACOSX/e.png", ".cache/f.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    folder = ImageFolder(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in folder.paths] == ["a.PNG", "b/c.webp", "b/z.png", "d.bmp"]
    assert len(folder) == 4
    assert [round(float(image.mean() * 255)) for image in folder] == [1, 2, 0, 3]
    assert identical(folder[-1], folder[3])
    assert dict(folder.items())["z"].shape == (1, 3, 4, 5)


def test_folder_reads_a_file_once(tmp_path):
    fill(tmp_path, "a.png", "b.png")
    folder = ImageFolder(tmp_path)
    first = folder[0].clone()
    folder.paths[0].unlink()
    assert identical(folder[0].mul_(0), torch.zeros_like(first))  # changing what was handed out
    assert identical(folder[0], first)  # does not change what is kept
    forgetful = ImageFolder.of(folder.paths[1:], cache_bytes=10)
    assert identical(forgetful[0], flat(1))
    folder.paths[1].unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.png"):
        forgetful[0]


def test_folder_names_what_is_missing(tmp_path):
    (tmp_path / "file.png").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no such folder"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no pictures in .*empty; looked for \.png, \.jpg"):
        ImageFolder(tmp_path / "empty")
    with pytest.raises(NotADirectoryError, match="give the folder it is in"):
        image_files(tmp_path / "file.png")
    with pytest.raises(ValueError, match="at least one file"):
        ImageFolder.of([])
    with pytest.raises(IndexError):
        ImageFolder(tmp_path)[1]
    with pytest.raises(ValueError, match=r"file\.png is empty"):
        ImageFolder(tmp_path)[0]


@pytest.mark.parametrize("held_out, expected", [(3, 3), (0.2, 2), (1, 1), (0.9, 9)])
def test_split_by_file(tmp_path, held_out, expected):
    fill(tmp_path, *(f"{i}.png" for i in range(10)))
    folder = ImageFolder(tmp_path)
    training, aside = folder.split(held_out, seed=5)
    assert len(aside) == expected and set(training.paths) | set(aside.paths) == set(folder.paths)
    assert not set(training.paths) & set(aside.paths)
    assert list(aside.paths) == sorted(aside.paths)
    assert folder.split(held_out, seed=5)[1].paths == aside.paths
    assert len({folder.split(held_out, seed=seed)[1].paths for seed in range(20)}) > 1


@pytest.mark.parametrize("held_out", [0, 4, 0.01, 1.0])
def test_split_keeps_both_sides_filled(tmp_path, held_out):
    fill(tmp_path, *(f"{i}.png" for i in range(4)))
    with pytest.raises(ValueError, match="would leave one side empty; use a number from 1 to 3"):
        ImageFolder(tmp_path).split(held_out)


# ---------------------------------------------------------------------------------------------------------- samples


def test_samples_are_photographs_with_provenance():
    for name, each in samples().items():
        image = sample(name)
        assert image.shape[:2] == (1, 3) and min(image.shape[2:]) >= 300
        assert image.std() > 0.1 and (image[:, 0] != image[:, 2]).any()
        assert each.path.stem == each.name == name
        assert each.compressed == (each.path.suffix == ".jpg")
        assert all((each.about, each.author, each.license, each.source))


def test_samples_are_split_for_good():
    assert set(HELD_OUT) | set(TRAINING) == set(samples()) and not set(HELD_OUT) & set(TRAINING)
    assert [name for name, _ in held_out_samples().items()] == ["chelsea", "motorcycle_left"]
    assert [path.stem for path in training_samples().paths] == list(TRAINING)
    assert identical(held_out_samples()[0][None], sample("chelsea"))
    from skimage.data import chelsea

    assert identical(sample("chelsea")[0], torch.from_numpy(chelsea()).permute(2, 0, 1).float() / 255)


def test_unknown_and_absent_samples(monkeypatch):
    with pytest.raises(ValueError, match="no sample photograph 'lena'; there are astronaut"):
        sample("lena")
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match=r'scikit-learn, needed for .*pip install "srbook\[samples\]"'):
        sample("china")


# ---------------------------------------------------------------------------------------------------------- catalog


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("SRBOOK_DATA", str(tmp_path))
    return tmp_path


def test_data_root(root, monkeypatch):
    assert catalog.data_root() == root
    monkeypatch.delenv("SRBOOK_DATA")
    assert catalog.data_root().parts[-3:] == (".cache", "srbook", "data")


def test_an_absent_set_says_what_to_place_where(root):
    with pytest.raises(FileNotFoundError) as error:
        catalog.find("urban100")
    message = str(error.value)
    assert "Get its 100 images" in message and str(root / "Urban100") in message and "SRBOOK_DATA" in message
    assert catalog.locate("Urban100") is None
    with pytest.raises(FileNotFoundError, match="Get its 5 images"):
        catalog.verify("Set5")
    with pytest.raises(ValueError, match="no image set 'Set6'; there are Set5, Set14"):
        catalog.find("Set6")


def test_an_incomplete_test_set_is_an_error(root):
    fill(root / "Urban100", "a.png", "b.png")
    with pytest.raises(ValueError, match=r"Urban100 has 100 images, but .* holds 2"):
        catalog.find("Urban100")
    assert catalog.verify("Urban100").problems == ("Urban100 has 100 images, found 2",)


def test_the_high_resolution_folder_is_chosen(root):
    fill(root / "benchmark" / "Set5" / "HR", *(f"{i}.png" for i in range(5)))
    fill(root / "benchmark" / "Set5" / "LR_bicubic" / "X4", *(f"{i}.png" for i in range(5)))
    assert {path.parent.name for path in catalog.locate("Set5")} == {"HR"}


def test_training_sets_may_be_incomplete_and_leave_out_test_images(root):
    fill(root / "BSDS500" / "data" / "images" / "train", "302003.jpg", "100075.jpg")
    assert catalog.locate("BSDS500") is None  # its second folder is missing
    fill(root / "BSDS500" / "data" / "images" / "test", "100007.jpg")
    assert [path.stem for path in catalog.find("BSDS500").paths] == ["100075", "100007"]


def test_pixels_that_differ_are_named(root):
    fill(root / "Set5", *(f"{name}.png" for name in ("baby", "bird", "butterfly", "head", "woman")))
    with pytest.warns(UserWarning, match=r"baby\.png is not the original image: its pixels differ"):
        assert len(catalog.find("Set5")) == 5
    report = catalog.verify("Set5")
    assert len(report.problems) == 6 and "no file has the pixels of baby, bird" in report.problems[-1]


def test_damaged_files_are_reported(root):
    fill(root / "T91", "a.png", "b.png")
    (root / "T91" / "c.png").write_bytes(b"broken")
    report = catalog.verify("t91")
    assert (report.count, report.expected, report.hashed) == (3, 91, 0)
    assert "c.png is not a picture" in report.problems[0]


@pytest.mark.parametrize("name, count", [("Set5", 5), ("Set14", 14)])
def test_the_real_sets_have_the_known_pixels(shared, name, count):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(catalog.find(name, shared / "data")) == count
    assert catalog.verify(name, shared / "data").problems == ()
    assert catalog.verify(name, shared / "data").hashed == count


def test_the_hash_does_not_depend_on_the_file(tmp_path, shared):
    source = shared / "data" / "test" / "Set14" / "bridge.png"
    with Image.open(source) as gray:
        assert gray.mode == "L"
    write_image(tmp_path / "renamed.tif", read_image(source))
    with Image.open(tmp_path / "renamed.tif") as color:
        assert catalog.pixel_hash(np.asarray(color)) == catalog.sets()["Set14"].hashes["bridge"]


def test_hashes_are_of_distinct_images():
    digests = [digest for each in catalog.sets().values() for digest in each.hashes.values()]
    assert len(set(digests)) == len(digests) == 19 and all(len(digest) == 64 for digest in digests)
