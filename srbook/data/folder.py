"""A folder of photographs as a sequence of images."""

import math
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np
from torch import Tensor

from srbook.arguments import require_instance, require_numbers
from srbook.data.cache import ByteCache
from srbook.data.decode import stored_size
from srbook.data.io import IMAGE_SUFFIXES, pixels_to_image, read_pixels
from srbook.data.search import find_images
from srbook.names import told_apart
from srbook.progress import Progress

CACHE_BYTES = 1 << 30


def image_files(root: str | Path) -> list[Path]:
    """All pictures in a folder and the folders inside it, sorted by path. Hidden files and folders are left out.

    What cannot be read, and links to folders, which are not followed, are left out with a warning.

    Raises FileNotFoundError without such a folder, and NotADirectoryError for a file.
    """
    require_instance("root", root, str | PathLike, "the path of a folder")
    root = Path(root)
    if root.is_file():
        raise NotADirectoryError(f"{root} is a file; give the folder it is in")
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder: {root}")
    found = find_images(root)
    for line in found.remarks():
        warnings.warn(line, stacklevel=2)
    return found.files


class _Results:
    """The folders below a root in which a training keeps its validation pictures, and those inside."""

    def __init__(self, root: Path):
        self.root = root
        self._known = {root: False}

    def __contains__(self, folder: Path) -> bool:
        if folder not in self._known:
            own = folder.name == "validation" and (folder.parent / "log.jsonl").is_file()
            self._known[folder] = own or folder.parent in self
        return self._known[folder]


class ImageFolder:
    """The pictures of a folder tree, decoded when asked for: `folder[i]` is (3, H, W) in [0, 1].

    Args:
        root: the folder; PNG, JPEG, WebP, BMP, and TIFF files in it and below it are taken, sorted by path, except
            what a training wrote: pictures in a folder `validation` that lies below `root` beside a `log.jsonl`.
        cache_bytes: bound of the memory for decoded pixels, of 3 bytes each for 8-bit files.

    Attributes:
        paths: the files, in order.

    Raises:
        FileNotFoundError: no such folder, or no pictures in it.
    """

    def __init__(self, root: str | Path, *, cache_bytes: int = CACHE_BYTES):
        files = image_files(root)
        results = _Results(Path(root))
        paths = [path for path in files if path.parent not in results]
        if not paths:
            raise FileNotFoundError(f"no pictures in {root}; looked for {', '.join(IMAGE_SUFFIXES)} in it and below it")
        self._keep(paths, cache_bytes)

    @classmethod
    def of(cls, paths: Sequence[Path], *, cache_bytes: int = CACHE_BYTES) -> "ImageFolder":
        """The same for files named one by one, in the order given; none is a ValueError."""
        if not paths:
            raise ValueError("an ImageFolder needs at least one file, got none")
        folder = cls.__new__(cls)
        folder._keep(paths, cache_bytes)
        return folder

    def _keep(self, paths: Sequence[Path], cache_bytes: int) -> None:
        self.paths = tuple(paths)
        self.cache_bytes = cache_bytes
        self._cache: ByteCache[np.ndarray] = ByteCache(cache_bytes, size=_nbytes)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Image `index` as `srbook.data.read_image` gives it, with its errors; an IndexError if there is none."""
        path = self.paths[index]
        return pixels_to_image(self._cache.get(index % len(self), lambda: read_pixels(path)))

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of each file by its header, before EXIF orientation, which may swap them.

        Files that are not pictures are a ValueError, which counts them.
        """
        sizes, problems = [], []
        many = len(self) > 100
        with Progress(len(self), "look at the pictures", unit="picture", enabled=many, delay=1) as bar:
            for path in self.paths:
                try:
                    sizes.append(stored_size(path))
                except ValueError as error:
                    problems.append(error)
                bar.update()
        if not problems:
            return sizes
        more = f"{len(problems)} of {len(self)} pictures cannot be read, first of all: " if len(problems) > 1 else ""
        raise ValueError(f"{more}{problems[0]} (srbook data verify FOLDER names all damaged ones)") from problems[0]

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """The name (`names`) and the image as (1, 3, H, W), of each file in order."""
        return ((name, self[index].unsqueeze(0)) for index, name in enumerate(self.names))

    @property
    def names(self) -> list[str]:
        """The name of each file, as `srbook.names.told_apart` gives it: no two alike."""
        return told_apart(self.paths)

    def split(self, held_out: int | float, seed: int = 0) -> tuple["ImageFolder", "ImageFolder"]:
        """Divide by file into (training, held out), both in the order of `paths`, without overlap.

        Args:
            held_out: number of files to keep aside, or their fraction if between 0 and 1.
            seed: which files; the same seed and the same files give the same division.

        Raises:
            ValueError: one of the two would be empty.
        """
        require_numbers(held_out=held_out)
        if not math.isfinite(held_out):
            raise ValueError(f"held_out must be finite, got {held_out}")
        count = held_out if isinstance(held_out, int) else round(held_out * len(self))
        if not 0 < count < len(self):
            raise ValueError(
                f"held_out={held_out} of {len(self)} files would leave one side empty; "
                f"use a number from 1 to {len(self) - 1} or a fraction that rounds to one"
            )
        aside = set(np.random.default_rng(seed).permutation(len(self))[:count].tolist())
        sides = [[p for i, p in enumerate(self.paths) if (i in aside) is chosen] for chosen in (False, True)]
        return self.of(sides[0], cache_bytes=self.cache_bytes), self.of(sides[1], cache_bytes=self.cache_bytes)


def _nbytes(pixels: np.ndarray) -> int:  # a named function, so that folders can be sent to worker processes
    return pixels.nbytes
