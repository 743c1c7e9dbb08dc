"""The standard sets of super-resolution: their images, where they are expected, and whether they are intact.

Nothing is downloaded. A set is looked for below the folder named by `SRBOOK_DATA`, in the layouts it usually has.
"""

import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from srbook.arguments import require_instance
from srbook.data.folder import ImageFolder, image_files
from srbook.data.io import read_pixels
from srbook.progress import Progress

# Hashes of the decoded pixels (see `pixel_hash`), so that a copy with other names or another compression still counts.
_SET5 = {
    "baby": "9448f44d212dbbb849c646b6abc8a29b1d7f9cbfe08d68b309972e90bc49aca6",
    "bird": "ac429a9021af06841d499b87d8141ad1bd1b5aeb556ee4ff40e3bfa50276d2ff",
    "butterfly": "c1e4d6a750c049783a105de33f531c5471db11199ad576ba13162d1e82e8f0b8",
    "head": "f62abafa11daa17aae1d2161991e4e5266e8018f2dfc72ff8b0aab97543bef6b",
    "woman": "92dfc50fdb9481d50c01aef5cde745c3c59b3be39d8cccee14b53e9fb7704d02",
}
_SET14 = {
    "baboon": "3298ebba0c934de6bdc30c930762f52b8e4d14cc1d772532409174ed4f0d12b6",
    "barbara": "6ac8067ae8723cda2766f4a7164fcf689f1b0173fed02321cf5d5267b99e21ce",
    "bridge": "8171edc6fb52b17d15bc8a7a4143e105a0baae40bcb73729c6cfc8f7cd20f49d",
    "coastguard": "be4ed95e82fae1dbc819726dd0c7c4332b2d965ce3948295ac954539b3e3dfba",
    "comic": "8af86bd58871932f3ab378dc71c9bc80e9f1f04aa52d673a3d3e6694decad53e",
    "face": "6a49827402ef507ff2e3ae8cf9bced5908abe5e17c51d1a3fc47e586220f767d",
    "flowers": "bf135ff4daad131ff8e30de79bf3a6c2d1dd771b99586f1b1454072477ead32d",
    "foreman": "53cb40834a3fd126d19e99fc89ec1b254fe2c10d816f223080a09fe35473b42f",
    "lenna": "b5c7771df2322b3c46444263c0f7ffbcd81367c2a6717082c23000a9cf32d996",
    "man": "83de44e7a963f8f69d4abf6207509b96b152f24f6b35128a68dd50edfbb9f684",
    "monarch": "242b99caae8093a965f5ad65161fe56bcaba997be560f321a1296867f778e932",
    "pepper": "c09708b03c12a256f194af7053090608e4dc4d8c9926a3af56d775e24b744721",
    "ppt3": "7bb21cd029c4cf0b29d6c340641abca9d94d6ed024030ab7a220be33c58e25f9",
    "zebra": "bcca25d6556d6f596142eee075720e206f6767aa63ec727955264baf31021bea",
}


@dataclass(frozen=True)
class ImageSet:
    """A standard set.

    Attributes:
        name: as papers write it.
        use: "train" or "test".
        count: number of images it must have (test), or has when complete (train).
        about: what is in it.
        source: who made it, and where it is to be had.
        layouts: where it may lie below the data folder; each layout is one or more folders that belong together.
        hashes: pixel hashes by image name, where known.
        exclude: file stems never to be used.
    """

    name: str
    use: str
    count: int
    about: str
    source: str
    layouts: tuple[tuple[str, ...], ...]
    hashes: dict[str, str] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What `verify` found.

    Attributes:
        name: the set.
        count: images found.
        expected: images it should have.
        hashed: images whose pixels were compared with known hashes.
        problems: one sentence each; empty if all is well.
    """

    name: str
    count: int
    expected: int
    hashed: int
    problems: tuple[str, ...]


def _test_layouts(*names: str) -> tuple[tuple[str, ...], ...]:
    places = [f"{above}{name}{below}" for name in names for above in ("", "test/", "benchmark/") for below in _BELOW]
    return tuple((place,) for place in places)


def _train_layouts(*names: str) -> tuple[tuple[str, ...], ...]:
    return tuple((f"{above}{name}",) for name in names for above in ("", "train/"))


_BELOW = ("/HR", "/original", "")  # the truth before its shrunken versions
_COLLECTION = "https://github.com/jbhuang0604/SelfExSR"

_SETS = (
    ImageSet(
        name="Set5",
        use="test",
        count=5,
        about="Five small photographs: baby, bird, butterfly, head, woman.",
        source=f"Bevilacqua et al. 2012; part of the collection at {_COLLECTION}",
        layouts=_test_layouts("Set5"),
        hashes=_SET5,
    ),
    ImageSet(
        name="Set14",
        use="test",
        count=14,
        about="Fourteen pictures, one of them gray (bridge), one a slide (ppt3).",
        source=f"Zeyde et al. 2010; part of the collection at {_COLLECTION}",
        layouts=_test_layouts("Set14"),
        hashes=_SET14,
    ),
    ImageSet(
        name="B100",
        use="test",
        count=100,
        about="The validation images of BSDS500: natural photographs, 481x321.",
        source=f"Martin et al. 2001; part of the collection at {_COLLECTION}",
        layouts=(*_test_layouts("B100", "BSD100", "BSDS100"), ("BSDS500/data/images/val",)),
    ),
    ImageSet(
        name="Urban100",
        use="test",
        count=100,
        about="Buildings with repeating structure.",
        source=f"Huang et al. 2015, {_COLLECTION}",
        layouts=_test_layouts("Urban100"),
    ),
    ImageSet(
        name="Manga109",
        use="test",
        count=109,
        about="One page of each of 109 Japanese comics.",
        source="Matsui et al. 2017, http://www.manga109.org (registration)",
        layouts=_test_layouts("Manga109"),
    ),
    ImageSet(
        name="DIV2K-valid",
        use="test",
        count=100,
        about="The 100 validation photographs of DIV2K, about 2040 pixels wide.",
        source="Agustsson and Timofte 2017, https://data.vision.ee.ethz.ch/cvl/DIV2K/ (DIV2K_valid_HR.zip)",
        layouts=(("DIV2K_valid_HR",), ("DIV2K/DIV2K_valid_HR",), ("DIV2K/valid_HR",)),
    ),
    ImageSet(
        name="DIV2K",
        use="train",
        count=800,
        about="800 training photographs, about 2040 pixels wide.",
        source="Agustsson and Timofte 2017, https://data.vision.ee.ethz.ch/cvl/DIV2K/ (DIV2K_train_HR.zip)",
        layouts=_train_layouts("DIV2K_train_HR", "DIV2K/DIV2K_train_HR", "DIV2K/train_HR"),
    ),
    ImageSet(
        name="Flickr2K",
        use="train",
        count=2650,
        about="2650 photographs, about 2040 pixels wide; with DIV2K it is called DF2K.",
        source="Lim et al. 2017 (EDSR)",
        layouts=_train_layouts("Flickr2K/Flickr2K_HR", "Flickr2K_HR", "Flickr2K/HR"),
    ),
    ImageSet(
        name="BSDS500",
        use="train",
        count=399,
        about="Training and test photographs of BSDS500, without 302003, which is `woman` of Set5. The other hundred "
        "images (val) are B100.",
        source="Arbelaez et al. 2011, Berkeley Segmentation Data Set and Benchmarks 500",
        layouts=(
            ("BSDS500/data/images/train", "BSDS500/data/images/test"),
            ("BSDS500_train", "BSDS500_test"),
            ("train/BSDS500_train", "train/BSDS500_test"),
        ),
        exclude=("302003",),
    ),
    ImageSet(
        name="T91",
        use="train",
        count=91,
        about="91 small photographs, the first training set of the field.",
        source="Yang et al. 2010",
        layouts=_train_layouts("T91"),
    ),
    ImageSet(
        name="FFHQ",
        use="train",
        count=70000,
        about="Aligned portraits, 1024x1024.",
        source="Karras et al. 2019, https://github.com/NVlabs/ffhq-dataset",
        layouts=_train_layouts("FFHQ/images1024x1024", "ffhq/images1024x1024", "FFHQ", "ffhq"),
    ),
    ImageSet(
        name="CelebA",
        use="train",
        count=202599,
        about="Aligned faces of celebrities, 178x218.",
        source="Liu et al. 2015, https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        layouts=_train_layouts("CelebA/img_align_celeba", "celeba/img_align_celeba", "img_align_celeba"),
    ),
)


def sets() -> dict[str, ImageSet]:
    """All sets by name."""
    return {each.name: each for each in _SETS}


def data_root() -> Path:
    """The folder that holds the sets: `SRBOOK_DATA`, or ~/.cache/srbook/data. It need not exist."""
    named = os.environ.get("SRBOOK_DATA")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "srbook" / "data"


def find(name: str, root: str | Path | None = None) -> ImageFolder:
    """The images of a set.

    A test set must be complete, since its scores would mean nothing otherwise; a training set may have any number.
    Where pixel hashes are known, a warning names the files that differ: scores on them do not compare with published
    ones.

    Args:
        name: a name in `sets()`, in any case.
        root: the data folder; None takes `data_root()`.

    Raises:
        ValueError: no set of that name, or a test set with too many or too few images.
        FileNotFoundError: the set is not there; says what to place where.
    """
    known = _named(name)
    paths = _require(known, root)
    if known.use == "test" and len(paths) != known.count:
        raise ValueError(
            f"{known.name} has {known.count} images, but {paths[0].parent} holds {len(paths)}; "
            "leave only the high-resolution images there"
        )
    if known.hashes:
        problems = _compare(known, [(path, pixel_hash(read_pixels(path))) for path in paths])
        if problems:
            warnings.warn(f"{known.name}: " + "; ".join(problems), stacklevel=2)
    return ImageFolder.of(paths)


def locate(name: str, root: str | Path | None = None) -> list[Path] | None:
    """The files of a set, or None where it is absent. Looks at names only; an unknown set is a ValueError.

    Of several layouts, the first with the right number of images is taken, else the first with any.
    """
    known = _named(name)
    root = data_root() if root is None else Path(root)
    first = None
    for layout in known.layouts:
        folders = [root / folder for folder in layout]
        if not all(folder.is_dir() for folder in folders):
            continue
        paths = [p for folder in folders for p in image_files(folder) if p.stem not in known.exclude]
        if len(paths) == known.count:
            return paths
        first = first or paths or None
    return first


def verify(name: str, root: str | Path | None = None) -> Report:
    """Decode every image of a set and compare counts, and pixels where hashes are known.

    Arguments and errors are as in `find`, but a wrong number of images is reported.
    """
    known = _named(name)
    paths = _require(known, root)
    problems, hashed = [], []
    for path, pixels in _decoded(paths):
        if isinstance(pixels, Exception):
            problems.append(str(pixels))
        else:
            hashed.append((path, pixel_hash(pixels) if known.hashes else ""))
    if len(paths) != known.count:
        problems.append(f"{known.name} has {known.count} images, found {len(paths)}")
    if known.hashes:
        problems += _compare(known, hashed)
    return Report(known.name, len(paths), known.count, len(hashed) if known.hashes else 0, tuple(problems))


def verify_folder(folder: str | Path) -> Report:
    """Decode every picture that `ImageFolder` finds in a folder; raises its errors."""
    paths = ImageFolder(folder).paths
    problems = tuple(str(pixels) for _, pixels in _decoded(paths) if isinstance(pixels, Exception))
    return Report(str(folder), len(paths), len(paths), 0, problems)


def _decoded(paths: Sequence[Path]) -> Iterator[tuple[Path, np.ndarray | Exception]]:
    """The pixels of each file, or why there are none."""
    with Progress(len(paths), "verify", unit="picture", delay=1) as bar:
        for path in paths:
            try:
                yield path, read_pixels(path)
            except (ValueError, OSError) as error:
                yield path, error
            bar.update()


def pixel_hash(pixels: np.ndarray) -> str:
    """SHA-256 of "(height, width)" and the decoded RGB bytes: the same for every lossless way to store an image."""
    return hashlib.sha256(repr(pixels.shape[:2]).encode() + pixels.tobytes()).hexdigest()


def _named(name: str) -> ImageSet:
    require_instance("name", name, str)
    for each in _SETS:
        if each.name.lower() == name.lower():
            return each
    raise ValueError(f"no image set {name!r}; there are {', '.join(sets())}")


def _require(known: ImageSet, root: str | Path | None) -> list[Path]:
    """The files of a set; if there are none, an error that says what to place where."""
    root = data_root() if root is None else Path(root)
    paths = locate(known.name, root)
    if paths is None:
        places = " and ".join(str(root / folder) for folder in known.layouts[0])
        raise FileNotFoundError(
            f"{known.name} is not below {root}. Get its {known.count} images ({known.source}) and put them into "
            f"{places}; or set SRBOOK_DATA to the folder that holds your sets"
        )
    return paths


def _compare(known: ImageSet, files: list[tuple[Path, str]]) -> list[str]:
    """A sentence for each file that is not one of the set's images, and one for the images without a file."""
    names = {digest: name for name, digest in known.hashes.items()}
    problems = [
        f"{path} is not the original image: its pixels differ (cropped, resized, or compressed again?)"
        for path, digest in files
        if digest not in names
    ]
    absent = sorted(set(known.hashes) - {names[digest] for _, digest in files if digest in names})
    return problems + ([f"no file has the pixels of {', '.join(absent)}"] if absent else [])
