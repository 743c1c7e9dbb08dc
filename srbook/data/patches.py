"""Training batches: aligned pairs of patches, each batch a pure function of the seed and its number."""

import warnings
import zlib
from collections.abc import Sequence
from functools import partial
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from srbook.arguments import require_counts, require_instance, require_integer
from srbook.data.cache import ByteCache
from srbook.data.folder import ImageFolder
from srbook.data.io import pixels_to_image, read_pixels
from srbook.degradations import Bicubic, Degradation
from srbook.images import crop_to_multiple, require_images, round_to_8bit
from srbook.random import keyed

Pair = tuple[Tensor, Tensor]
SYMMETRIES = 8


class PairedPatches:
    """Endless training batches with random access: `patches[i]` is the i-th batch (hr, lr), always the same one.

    A batch depends on nothing but the seed and its number. So a resumed training run sees the batches that it would
    have seen, with any number of processes that prepare them.

    A deterministic degradation is applied once to each whole image, and patches are cut from the result. Degrading a
    cut-out instead would put the mirrored borders of resizing into every patch, which test images do not have. A random
    degradation is drawn anew for each patch, by a generator fixed by seed, batch, and position in the batch. It would
    take too long on the whole image, so it gets the patch with as much of the image around it as its `reach`, which
    keeps mirrored borders out as well.

    Both images of a pair are kept with 8 bits per channel, as files are. All positions on the low-resolution grid are
    equally likely, so a large image gives more patches than a small one. Each patch is flipped and turned to one of the
    eight symmetries of the square.

    For loading in other processes: `DataLoader(patches, batch_size=None, sampler=range(steps), num_workers=k)`. Every
    process then has a memory of its own for decoded images.

    Args:
        images: a folder, or a list of (3, H, W) or (1, 3, H, W) images in [0, 1]. What sticks out beyond a multiple of
            the scale is cut off. The headers of all files are read; images smaller than a patch are left out with a
            warning.
        patch_size: side of the high-resolution patches, a multiple of `scale`.
        batch_size: patches per batch.
        seed: a whole number of at least 0.
        degradation: of this scale; None is MATLAB's bicubic.

    Attributes:
        fingerprint: tells these data from others: how many images, and a checksum of the files' names and sizes (or of
            the given images) and the degradation.

    Raises:
        ValueError: an argument out of range, files that are not pictures, or no image as large as a patch.
        FileNotFoundError: a file of the folder is gone.
    """

    def __init__(
        self,
        images: ImageFolder | Sequence[Tensor],
        *,
        scale: int,
        patch_size: int,
        batch_size: int,
        seed: int = 0,
        degradation: Degradation | None = None,
    ):
        require_counts(scale=scale, patch_size=patch_size, batch_size=batch_size)
        if patch_size % scale:
            raise ValueError(f"patch_size must be a multiple of scale {scale}, got {patch_size}")
        require_integer("seed", seed, 0)
        require_instance("images", images, ImageFolder | Sequence, "list(batch) makes one of a batch")
        if len(images) == 0:
            raise ValueError("no images to cut patches from")
        if not isinstance(images, ImageFolder):
            images = [_single(image, f"image {i}") for i, image in enumerate(images)]
        self.images, self.scale, self.patch_size, self.batch_size = images, scale, patch_size, batch_size
        self.seed, self.degradation = seed, Bicubic(scale) if degradation is None else degradation
        require_instance("degradation", self.degradation, Degradation, "such as srbook.degradations.Bicubic(4)")
        if self.degradation.scale != scale:
            raise ValueError(f"the degradation shrinks {self.degradation.scale} times, the patches {scale} times")
        limit = images.cache_bytes if isinstance(images, ImageFolder) else 2 * sum(image.nbytes for image in images)
        self._cache: ByteCache[tuple[Tensor, ...]] = ByteCache(limit, size=_nbytes)
        self._ends = np.cumsum(self._positions())

    @property
    def fingerprint(self) -> str:
        if isinstance(self.images, ImageFolder):
            about = repr([(path.name, path.stat().st_size) for path in self.images.paths]).encode()
        else:
            about = b"".join(repr(tuple(image.shape)).encode() + image.numpy().tobytes() for image in self.images)
        return f"{len(self.images)} images {zlib.crc32(repr(self.degradation).encode(), zlib.crc32(about)):08x}"

    def __getitem__(self, index: int) -> Pair:
        """Batch `index`: hr (batch_size, 3, patch_size, patch_size), and lr `scale` times smaller, float32 in [0, 1].

        Raises:
            IndexError: `index` is negative.
            ValueError: a file cannot be read; names it.
        """
        require_instance("index", index, Integral)
        if index < 0:
            raise IndexError(f"batches are numbered from 0, got {index}")
        random = np.random.default_rng((self.seed, index))
        positions = random.integers(self._ends[-1], size=self.batch_size)
        turns = random.integers(SYMMETRIES, size=self.batch_size)
        size, small = self.patch_size, self.patch_size // self.scale
        hr = torch.empty(self.batch_size, 3, size, size, dtype=torch.uint8)
        lr = torch.empty(self.batch_size, 3, small, small, dtype=torch.uint8)
        for i, (position, turn) in enumerate(zip(positions.tolist(), turns.tolist(), strict=True)):
            image = int(np.searchsorted(self._ends, position, side="right"))
            whole_hr, *whole_lr = self._cache.get(image, partial(self._kept, image))
            top, left = divmod(int(self._ends[image]) - 1 - position, whole_hr.shape[-1] // self.scale - small + 1)
            if whole_lr:
                small_patch = whole_lr[0][:, top : top + small, left : left + small]
            else:
                small_patch = self._draw(whole_hr, top, left, keyed(self.seed, index, i))
            lr[i] = symmetry(small_patch, turn)
            top, left = top * self.scale, left * self.scale
            hr[i] = symmetry(whole_hr[:, top : top + size, left : left + size], turn)
        return hr.float().div_(255), lr.float().div_(255)

    def _positions(self) -> list[int]:
        """How many positions a patch can take in each image, where a turned picture has as many: none in small ones."""
        files = isinstance(self.images, ImageFolder)
        sizes = self.images.sizes if files else [tuple(image.shape[-2:]) for image in self.images]
        small = [index for index, size in enumerate(sizes) if min(size) < self.patch_size]
        if small:
            height, width = sizes[small[0]]
            name = self.images.paths[small[0]] if files else f"image {small[0]}"
            count = f"{len(small)} of {len(sizes)} images {'are' if len(small) > 1 else 'is'}"
            text = f"{count} smaller than a patch of {self.patch_size} ({name}: {height} x {width} pixels"
            advice = "a smaller patch_size (--patch-size) takes more"
            if len(small) == len(sizes):
                raise ValueError(f"{text}{', the first' * (len(small) > 1)}), so none is left; {advice}")
            warnings.warn(f"{text}{', the first' * (len(small) > 1)}) and left out; {advice}", stacklevel=3)
        side = self.patch_size // self.scale
        rows_and_columns = [[max(0, length // self.scale - side + 1) for length in size] for size in sizes]
        return [rows * columns for rows, columns in rows_and_columns]

    def _kept(self, index: int) -> tuple[Tensor, ...]:
        """What memory holds of an image: (3, H, W) uint8, and its low-resolution version where that is always one."""
        hr = _read_8bit(self.images.paths[index]) if isinstance(self.images, ImageFolder) else self.images[index]
        hr = crop_to_multiple(hr, self.scale)[0]
        return (hr, self._degrade(hr, None)) if self.degradation.deterministic else (hr,)

    def _draw(self, hr: Tensor, top: int, left: int, generator: torch.Generator) -> Tensor:
        """A low-resolution patch of a random degradation, from as much of the image as it depends on."""
        small, reach = self.patch_size // self.scale, self.degradation.reach
        first = [max(0, start - reach) for start in (top, left)]  # beyond the image's own borders there is nothing
        rows, columns = (
            slice(self.scale * start, self.scale * (place + small + reach))
            for start, place in zip(first, (top, left), strict=True)
        )
        lr = self._degrade(hr[:, rows, columns], generator)
        top, left = top - first[0], left - first[1]
        return lr[:, top : top + small, left : left + small]

    def _degrade(self, hr: Tensor, generator: torch.Generator | None) -> Tensor:
        """(3, H, W) to (3, H / scale, W / scale), both uint8."""
        return _to_8bit(self.degradation(hr[None].float().div(255), generator))[0]


def symmetry(image: Tensor, index: int) -> Tensor:
    """One of the eight symmetries of the square: bit 0 mirrors left-right, bit 1 up-down, bit 2 swaps the axes after.

    `index` is 0 (unchanged) to 7 and `image` is (..., H, W); the result is (..., W, H) from 4 on.
    """
    axes = [axis for bit, axis in ((1, -1), (2, -2)) if index & bit]
    image = image.flip(axes) if axes else image
    return image.transpose(-1, -2) if index & 4 else image


def _single(image: Tensor, name: str) -> Tensor:
    """One (3, H, W) or (1, 3, H, W) image as (1, 3, H, W) uint8."""
    if isinstance(image, Tensor) and image.ndim == 3:
        image = image.unsqueeze(0)
    if len(require_images(image, name)) != 1:
        raise ValueError(f"{name} must be one image, got a batch of {len(image)}; use list(batch)")
    return _to_8bit(image)


def _read_8bit(path: Path) -> Tensor:
    """The picture in a file as (1, 3, H, W) uint8."""
    pixels = read_pixels(path)
    if pixels.dtype != np.uint8:
        return _to_8bit(pixels_to_image(pixels)[None])
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()


def _to_8bit(image: Tensor) -> Tensor:
    return round_to_8bit(image.detach().cpu().float()).mul(255).round().byte()


def _nbytes(tensors: tuple[Tensor, ...]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
