"""Training batches for classifiers: patches with the numbers of their classes."""

import warnings
import zlib
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from srbook.arguments import require_counts, require_instance, require_integer
from srbook.data.folder import ImageFolder
from srbook.data.patches import SYMMETRIES, symmetry
from srbook.images import round_to_8bit
from srbook.names import told_apart


def image_classes(root: str | Path) -> dict[str, list[Path]]:
    """The classes of a folder, by name: of folders, as ImageNet comes, each is one; of pictures, each picture is one.

    Raises:
        FileNotFoundError: no such folder, or no pictures in it.
        ValueError: pictures beside folders with pictures, or fewer than two classes.
    """
    root, files = Path(root), ImageFolder(root).paths
    classes: dict[str, list[Path]] = {}
    inside = [path for path in files if path.parent == root]
    if len(inside) == len(files):
        classes = {name: [path] for name, path in zip(told_apart(files), files, strict=True)}
    elif inside:
        raise ValueError(
            f"{root} has pictures ({inside[0].name}, the first) beside folders with pictures. A class is a folder, or "
            "a picture: move the pictures into folders, or all into one"
        )
    else:
        for path in files:
            classes.setdefault(path.relative_to(root).parts[0], []).append(path)
    if len(classes) < 2:
        raise ValueError(f"{root} has one class; a classifier needs at least two folders, or two pictures")
    return classes


class LabeledPatches:
    """Endless batches with random access: `patches[i]` is the i-th batch (patches, classes), always the same one.

    Classes are equally likely, then the pictures of a class, then the places in a picture; each patch is flipped and
    turned to one of the eight symmetries of the square. As `PairedPatches`, a batch depends on nothing but the seed and
    its number.

    Args:
        classes: the files of each class by name, see `image_classes`. Pictures smaller than a patch, and classes
            without another one, are left out with a warning.
        patch_size: side of the patches.
        batch_size: patches per batch.
        seed: a whole number of at least 0.

    Attributes:
        names: of the classes, in the order of their numbers.
        fingerprint: tells these data from others.

    Raises:
        ValueError: an argument out of range, files that are not pictures, or fewer than two classes left.
    """

    def __init__(self, classes: Mapping[str, Sequence[Path]], *, patch_size: int, batch_size: int, seed: int = 0):
        require_counts(patch_size=patch_size, batch_size=batch_size)
        require_integer("seed", seed, 0)
        require_instance("classes", classes, Mapping, "srbook.data.image_classes(folder) makes it")
        self.patch_size, self.batch_size, self.seed = patch_size, batch_size, seed
        files = [path for paths in classes.values() for path in paths]
        self._images = ImageFolder.of(files)
        large = dict.fromkeys(np.flatnonzero([min(size) >= patch_size for size in self._images.sizes]).tolist())
        if len(large) < len(files):
            warnings.warn(
                f"{len(files) - len(large)} of {len(files)} pictures are smaller than a patch of {patch_size}, and are "
                "left out; a smaller patch_size (--patch-size) takes more",
                stacklevel=2,
            )
        ends = np.cumsum([len(paths) for paths in classes.values()]).tolist()
        found = {
            name: [index for index in range(end - len(paths), end) if index in large]
            for (name, paths), end in zip(classes.items(), ends, strict=True)
        }
        self._members = [members for members in found.values() if members]
        self.names = [name for name, members in found.items() if members]
        if len(self.names) < 2:
            raise ValueError(f"a classifier needs at least two classes, got {len(self.names)}")

    @property
    def fingerprint(self) -> str:
        files = [(path.name, path.stat().st_size) for path in self._images.paths]
        about = repr((files, self.names, self._members))
        return f"{len(self._images)} pictures, {len(self.names)} classes {zlib.crc32(about.encode()):08x}"

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Batch `index`: (batch_size, 3, patch_size, patch_size) float32 in [0, 1], and (batch_size,) int64.

        Raises:
            IndexError: `index` is negative.
            ValueError: a file cannot be read; names it.
        """
        require_instance("index", index, Integral)
        if index < 0:
            raise IndexError(f"batches are numbered from 0, got {index}")
        random = np.random.default_rng((self.seed, index))
        labels = random.integers(len(self._members), size=self.batch_size)
        patches = []
        for label in labels.tolist():
            image = self._images[self._members[label][random.integers(len(self._members[label]))]]
            top, left = (random.integers(side - self.patch_size + 1) for side in image.shape[-2:])
            patch = image[:, top : top + self.patch_size, left : left + self.patch_size]
            patches.append(symmetry(patch, int(random.integers(SYMMETRIES))))
        return round_to_8bit(torch.stack(patches)), torch.from_numpy(labels)
