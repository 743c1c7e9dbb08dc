"""Photographs that come inside scikit-image and scikit-learn: real images without a download."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from srbook.arguments import require_instance
from srbook.data.folder import ImageFolder
from srbook.data.io import read_image
from srbook.parts import missing


@dataclass(frozen=True)
class Sample:
    """One photograph and where it comes from.

    Attributes:
        name: how the book calls it: the file name without its suffix.
        package: the import name of the package that carries it.
        file: its path inside that package.
        about: what it shows, and what makes it useful or hard.
        author: as the package says.
        license: as the package says.
        source: where the package took it from.
        compressed: whether it is stored as JPEG, so that its finest detail is already damaged.
    """

    name: str
    package: str
    file: str
    about: str
    author: str
    license: str
    source: str
    compressed: bool

    @property
    def path(self) -> Path:
        """The file on this machine.

        Raises ModuleNotFoundError without the package, and FileNotFoundError if its version no longer carries the file.
        """
        spec = find_spec(self.package)  # does not import the package
        if spec is None or spec.origin is None:
            raise missing(self.package)
        path = Path(spec.origin).parent / self.file
        if not path.is_file():
            raise FileNotFoundError(f"this version of {_PACKAGES[self.package]} does not carry {self.file}")
        return path


_PACKAGES = {"skimage": "scikit-image", "sklearn": "scikit-learn"}

_SAMPLES = (
    Sample(
        name="astronaut",
        package="skimage",
        file="data/astronaut.png",
        about="Portrait of Eileen Collins with flag and helmet, 512x512: skin, hair, lettering, saturated cloth.",
        author="NASA",
        license="Public domain: no known copyright restrictions",
        source="NASA Great Images database, https://flic.kr/p/r9qvLn",
        compressed=False,
    ),
    Sample(
        name="chelsea",
        package="skimage",
        file="data/chelsea.png",
        about="Face of a cat, 451x300: fur and whiskers, fine texture in all directions.",
        author="Stefan van der Walt",
        license="CC0",
        source="the photographer",
        compressed=False,
    ),
    Sample(
        name="coffee",
        package="skimage",
        file="data/coffee.png",
        about="Cup of espresso on wood, 600x400: smooth porcelain, ellipses, highlights, coarse grain.",
        author="Rachel Michetti, courtesy of Pikolo Espresso Bar",
        license="CC0",
        source="the photographer",
        compressed=False,
    ),
    Sample(
        name="motorcycle_left",
        package="skimage",
        file="data/motorcycle_left.png",
        about="Motorcycle in a garage, 741x500: spokes, shelves, sharp edges at many angles. Shrunk by averaging "
        "blocks of 4x4, so it is sharper than a camera's pixels.",
        author="Nera Nesic, Porter Westling, Xi Wang, York Kitajima, Greg Krathwohl, and Daniel Scharstein",
        license="None stated by the package; from a research benchmark that asks to be cited",
        source="Middlebury 2014 stereo benchmark (Scharstein et al., GCPR 2014)",
        compressed=False,
    ),
    Sample(
        name="rocket",
        package="skimage",
        file="data/rocket.jpg",
        about="Falcon 9 on its pad at dusk, 640x427: thin lattices against a smooth sky.",
        author="SpaceX",
        license="Public domain",
        source="https://www.flickr.com/photos/spacexphotos/16511594820/",
        compressed=True,
    ),
    Sample(
        name="china",
        package="sklearn",
        file="datasets/images/china.jpg",
        about="Pagoda above a lake, 640x427: roof tiles, ornaments, and foliage.",
        author="danielbuechele",
        license="CC BY 2.0",
        source="https://www.flickr.com/photos/danielbuechele/6061409035/",
        compressed=True,
    ),
    Sample(
        name="flower",
        package="sklearn",
        file="datasets/images/flower.jpg",
        about="Dahlia before a blurred background, 640x427: crisp petals beside regions without detail.",
        author="vultilion (the package's note names danielbuechele, but its link leads to vultilion)",
        license="CC BY 2.0",
        source="https://www.flickr.com/photos/vultilion/6056698931/",
        compressed=True,
    ),
)

# Held out: fur (fine texture) and a machine (edges). Both are lossless files, so that scores measure the method.
HELD_OUT = ("chelsea", "motorcycle_left")
TRAINING = tuple(each.name for each in _SAMPLES if each.name not in HELD_OUT)


def samples() -> dict[str, Sample]:
    """All photographs by name, with their provenance. Reads nothing."""
    return {each.name: each for each in _SAMPLES}


def sample(name: str) -> Tensor:
    """One of the photographs `samples()`, (1, 3, H, W) in [0, 1]; another name is a ValueError.

    Raises ModuleNotFoundError where the package that carries it is not installed.
    """
    require_instance("name", name, str)
    known = samples()
    if name not in known:
        raise ValueError(f"no sample photograph {name!r}; there are {', '.join(known)}")
    return read_image(known[name].path).unsqueeze(0)


def training_samples() -> ImageFolder:
    """The photographs to train on; never one of `held_out_samples()`. Images by name: `dict(folder.items())`."""
    return _folder(TRAINING)


def held_out_samples() -> ImageFolder:
    """The photographs to measure on: "chelsea" (fine texture) and "motorcycle_left" (edges)."""
    return _folder(HELD_OUT)


def _folder(names: tuple[str, ...]) -> ImageFolder:
    return ImageFolder.of([samples()[name].path for name in names])
