"""Training batches: aligned, reproducible by number, uniform over positions."""

import pickle
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pytest
import torch
from rounding import identical
from torch.utils.data import DataLoader

from srbook.data import ImageFolder, PairedPatches, write_image
from srbook.data.cache import ByteCache
from srbook.data.patches import SYMMETRIES, symmetry
from srbook.degradations import Bicubic, Degradation, Noisy, bicubic_downsample
from srbook.images import crop_to_multiple, round_to_8bit


def photographs(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return [round_to_8bit(torch.rand(3, *size, generator=random)) for size in sizes]


def patches(images, **changes) -> PairedPatches:
    return PairedPatches(images, **{"scale": 4, "patch_size": 16, "batch_size": 6, "seed": 3} | changes)


def assert_same_pair(one, other) -> None:
    """Crops are copies. What was degraded twice may be one of the 255 levels apart, at the edge of its rounding."""
    assert identical(one[0], other[0])
    torch.testing.assert_close(one[1], other[1], rtol=0, atol=1.01 / 255)


@pytest.fixture
def folder(tmp_path) -> ImageFolder:
    for i, image in enumerate(photographs((40, 52), (33, 24), (28, 71))):
        write_image(tmp_path / f"{i}.png", image)
    return ImageFolder(tmp_path)


def test_pairs_are_crops_of_the_whole_pair_under_each_symmetry():
    """Every patch is found in the degraded image, at the place and turn where its large partner is."""
    image = photographs((32, 44))[0]
    lr_whole = bicubic_downsample(image, 4)
    table = {
        symmetry(image[:, 4 * top : 4 * top + 16, 4 * left : 4 * left + 16], turn).numpy().tobytes(): (top, left, turn)
        for top in range(8 - 4 + 1)
        for left in range(11 - 4 + 1)
        for turn in range(SYMMETRIES)
    }
    seen = set()
    for hr, lr in islice(patches([image]), 60):
        assert hr.dtype == lr.dtype == torch.float32
        assert hr.shape == (6, 3, 16, 16) and lr.shape == (6, 3, 4, 4)
        for large, small in zip(hr, lr, strict=True):
            top, left, turn = table[large.numpy().tobytes()]
            expected = symmetry(lr_whole[:, top : top + 4, left : left + 4], turn)
            torch.testing.assert_close(small, expected, rtol=0, atol=1.01 / 255)
            seen.add((top, left, turn))
    assert {turn for *_, turn in seen} == set(range(SYMMETRIES))
    assert {place[:2] for place in seen} == {(top, left) for top in range(5) for left in range(8)}


def test_the_eight_symmetries_are_a_group():
    square = torch.arange(9).view(3, 3)
    turned = {tuple(symmetry(square, i).flatten().tolist()) for i in range(SYMMETRIES)}
    assert len(turned) == 8
    assert all(
        tuple(symmetry(symmetry(square, i), j).flatten().tolist()) in turned
        for i in range(SYMMETRIES)
        for j in range(SYMMETRIES)
    )


def test_a_batch_depends_on_seed_and_number_only(folder):
    forward = list(islice(patches(folder), 20))
    fresh = patches(folder)
    for i in (19, 3, 3, 0):
        assert_same_pair(fresh[i], forward[i])
    assert not identical(forward[0][0], forward[1][0])
    assert not identical(patches(folder, seed=4)[0][0], forward[0][0])


@pytest.mark.forks
def test_worker_processes_give_the_same_batches(folder):
    here = patches(folder)
    there = DataLoader(here, batch_size=None, sampler=range(5), num_workers=2)
    for batch, batch_there in zip(islice(here, 5), there, strict=True):
        assert_same_pair(batch, batch_there)
    assert pickle.loads(pickle.dumps(here))._cache.used == 0  # what was decoded stays here
    assert identical(pickle.loads(pickle.dumps(here))[2][0], here[2][0])


def test_a_folder_and_a_list_give_the_same(folder):
    for images in (list(folder), [image for _, image in folder.items()]):
        assert_same_pair(patches(folder)[7], patches(images)[7])


def test_a_small_memory_changes_nothing(folder):
    small = ImageFolder.of(folder.paths, cache_bytes=8000)
    for i in range(8):
        assert identical(patches(small)[i][0], patches(folder)[i][0])


def test_positions_are_equally_likely():
    """24 x 16 and 64 x 64 hold 3 and 169 places, so the larger gives 169 of 172 patches."""
    small, large = torch.zeros(3, 24, 16), torch.ones(3, 64, 64)
    batches = patches([small, large], batch_size=200)
    share = torch.cat([hr[:, 0, 0, 0] for hr, _ in islice(batches, 50)]).mean().item()
    assert share == pytest.approx(169 / 172, abs=4 * np.sqrt(169 * 3 / 172**2 / 10_000))


def test_sides_need_not_be_multiples():
    image = photographs((35, 39))[0]
    whole = patches([image], patch_size=32, batch_size=1)
    hr, _ = whole[0]
    cropped = crop_to_multiple(image, 4)
    places = [symmetry(cropped[:, :, left : left + 32], turn) for left in (0, 4) for turn in range(SYMMETRIES)]
    assert any(identical(hr[0], place) for place in places)


@dataclass(frozen=True)
class Every(Degradation):
    """Takes one pixel of each block, the same one in all, at random if wanted."""

    kind, reach, description = "every", 0, "one pixel of each block"
    deterministic = True
    size: int | None = None  # what it claims to make

    def __call__(self, hr, generator=None):
        start = 0 if self.deterministic else int(torch.randint(self.scale, (), generator=generator))
        return hr[..., start :: self.scale, start :: self.scale][..., : self.size]


class RandomEvery(Every):
    deterministic = False


def test_another_degradation():
    image = photographs((32, 32))[0]
    hr, lr = patches([image], scale=2, degradation=Every(2), patch_size=32, batch_size=1)[0]
    turn = next(t for t in range(SYMMETRIES) if identical(symmetry(image, t), hr[0]))
    assert identical(lr[0], symmetry(image[:, ::2, ::2], turn))


def test_a_random_degradation_is_drawn_for_each_patch():
    """Each is one of the four that the generator can choose, turned as its partner, and all four come."""
    image, seen = photographs((32, 32))[0], set()
    for hr, lr in islice(patches([image], degradation=RandomEvery(4), patch_size=32), 8):
        for large, small in zip(hr, lr, strict=True):
            turn = next(t for t in range(SYMMETRIES) if identical(symmetry(image, t), large))
            starts = [k for k in range(4) if identical(small, symmetry(image[:, k::4, k::4], turn))]
            assert len(starts) == 1
            seen |= {*starts}
    assert seen == {0, 1, 2, 3}


@pytest.mark.forks
def test_a_random_batch_depends_on_seed_and_number_only(folder):
    """A run that goes on at batch 5, in any number of processes, sees the noise that it would have seen."""
    noisy = {"degradation": Noisy(4, std=0.1)}
    forward = list(islice(patches(folder, **noisy), 6))
    for i in (5, 2, 5):
        assert_same_pair(patches(folder, **noisy)[i], forward[i])
    workers = DataLoader(patches(folder, **noisy), batch_size=None, sampler=range(3, 6), num_workers=2)
    for there, here in zip(workers, forward[3:], strict=True):
        assert_same_pair(there, here)
    clean = patches(folder)[5]
    assert identical(clean[0], forward[5][0]) and (clean[1] - forward[5][1]).std().item() == pytest.approx(0.1, rel=0.2)
    other = patches(folder, seed=4, **noisy)[5]
    assert not identical(other[1], forward[5][1])


def test_a_random_degradation_sees_what_surrounds_a_patch(folder):
    """Without noise it gives the patches of the whole image, also at the image's own borders."""
    for clean, drawn in islice(zip(patches(folder), patches(folder, degradation=Noisy(4, std=0)), strict=False), 12):
        assert_same_pair(clean, drawn)


def test_rotated_files_are_counted_upright(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((16, 40, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    hr, _ = patches(ImageFolder(tmp_path), batch_size=40)[0]
    assert hr.shape == (40, 3, 16, 16)


def test_small_images_are_left_out_with_one_warning(folder):
    """The others give the batches that they give alone."""
    with pytest.warns(UserWarning, match=r"1 of 3 images is smaller than a patch of 28 \(.*1\.png: 33 x 24 .*left out"):
        left = patches(folder, patch_size=28)
    assert_same_pair(left[5], patches(ImageFolder.of([folder.paths[0], folder.paths[2]]), patch_size=28)[5])
    with pytest.warns(UserWarning, match=r"2 of 3 images are smaller .*1\.png.*, the first\) .* \(--patch-size\)"):
        patches(folder, patch_size=32)
    with pytest.raises(ValueError, match=r"3 of 3 images are smaller than a patch of 48 .* so none is left"):
        patches(folder, patch_size=48)
    with pytest.raises(ValueError, match=r"1 of 1 images is smaller than a patch of 16 \(image 0: 8 x 40"):
        patches(photographs((8, 40)))


def test_files_that_are_no_pictures_are_counted_before_the_training(folder):
    for name in ("0.png", "2.png"):
        folder.paths[int(name[0])].write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"2 of 3 pictures cannot be read, .*: .*0\.png .*data verify FOLDER"):
        patches(ImageFolder(folder.paths[0].parent))


def test_the_fingerprint_tells_data_apart(folder, tmp_path):
    first = patches(folder).fingerprint
    assert first.startswith("3 images ") and patches(folder, seed=9).fingerprint == first
    folder.paths[0].rename(tmp_path / "00.png")
    assert patches(ImageFolder(tmp_path)).fingerprint != first  # a file's name
    (tmp_path / "00.png").rename(folder.paths[0])
    assert patches(ImageFolder(tmp_path)).fingerprint == first
    write_image(folder.paths[0], photographs((40, 48))[0])
    assert patches(ImageFolder(tmp_path)).fingerprint != first  # its size
    images = photographs((40, 40), (32, 32))
    assert patches(images).fingerprint != patches([images[0], 1 - images[1]]).fingerprint
    assert patches(images).fingerprint != patches(images, degradation=Noisy(4, std=0.1)).fingerprint


def test_pictures_that_a_training_wrote_are_no_data(folder, tmp_path):
    """A run below its own data folder would train on its validation pictures when it resumes."""
    before = ImageFolder(tmp_path).paths
    for place in (tmp_path / "run" / "encoder" / "validation", tmp_path / "run" / "validation" / "deep"):
        write_image(place / "step-00000001-a.png", photographs((40, 40))[0])
    assert len(ImageFolder(tmp_path)) == 5  # as long as nothing says that it is a run
    for place in (tmp_path / "run" / "encoder", tmp_path / "run"):
        (place / "log.jsonl").touch()
    assert ImageFolder(tmp_path).paths == before
    assert len(ImageFolder(tmp_path / "run" / "validation")) == 1  # asked for by name


@pytest.mark.parametrize(
    "images, changes, error, message",
    [
        ([], {}, ValueError, "no images"),
        (photographs((40, 40)), {"patch_size": 18}, ValueError, "multiple of scale 4, got 18"),
        (photographs((40, 40)), {"scale": 0}, ValueError, "scale must be an integer of at least 1, got 0"),
        (photographs((40, 40)), {"batch_size": 2.5}, ValueError, "batch_size must be an integer"),
        (photographs((40, 40)), {"seed": -1}, ValueError, "seed must be an integer of at least 0"),
        ([torch.zeros(2, 3, 40, 40)], {}, ValueError, "image 0 must be one image, got a batch of 2"),
        ([torch.zeros(40, 40)], {}, ValueError, r"image 0 must have shape"),
        (["a.png"], {}, TypeError, "image 0 must be a floating point tensor, got str"),
    ],
)
def test_bad_arguments(images, changes, error, message):
    with pytest.raises(error, match=message):
        patches(images, **changes)


def test_bad_degradation_and_bad_index():
    with pytest.raises(ValueError, match=r"makes of \(1, 3, 40, 40\) must be \(1, 3, 10, 10\), got \(1, 3, 10, 5\)"):
        patches(photographs((40, 40)), degradation=Every(4, size=5))[0]
    with pytest.raises(ValueError, match="the degradation shrinks 2 times, the patches 4 times"):
        patches(photographs((40, 40)), degradation=Bicubic(2))
    with pytest.raises(IndexError, match="numbered from 0, got -1"):
        patches(photographs((40, 40)))[-1]


def test_the_memory_is_bounded_and_forgets_the_oldest():
    made = []
    cache = ByteCache(10, size=len)

    def ask(key: int, length: int) -> bytes:
        return cache.get(key, lambda: made.append(key) or bytes(length))

    for key, length in ((1, 4), (2, 4), (1, 4), (3, 4), (1, 4), (2, 4), (9, 11), (9, 11)):
        assert ask(key, length) == bytes(length)
        assert cache.used <= 10
    assert made == [1, 2, 3, 2, 9, 9]
    with pytest.raises(ValueError, match="at least 0, got -1"):
        ByteCache(-1, size=len)
