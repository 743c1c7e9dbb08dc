"""Training batches of 16 pairs at 128x128, x4: from memory, from files, and as a loop that decodes for every patch."""

import itertools

import numpy as np
import torch

from benchmarks.speed.timing import Contender, Entry
from srbook.data import ImageFolder, PairedPatches, catalog, read_image, training_samples
from srbook.degradations import bicubic_downsample

SCALE, PATCH, BATCH = 4, 128, 16


def entry() -> Entry:
    found = catalog.locate("BSDS500")
    files = ImageFolder.of(found) if found else training_samples()
    numbers = itertools.count()
    warm = batches(files)
    for i in range(10 * len(files) // BATCH):  # ten draws per image: nearly all are in memory afterwards
        warm[i]
    cold = ImageFolder.of(files.paths, cache_bytes=0)
    cold_batches = batches(cold)
    return Entry(
        f"{'BSDS500' if found else 'sample photographs'} ({len(files)} files), {BATCH} pairs of {PATCH}x{PATCH}, "
        f"x{SCALE}; milliseconds per batch",
        [
            Contender("srbook, images in memory", lambda: warm[next(numbers)]),
            Contender("srbook, nothing in memory", lambda: cold_batches[next(numbers)], "decodes 16 files"),
            Contender(
                "decode, crop, degrade",
                lambda: plain(files, next(numbers)),
                "the usual loop; its patches carry borders that whole images do not have",
            ),
        ],
    )


def batches(files: ImageFolder) -> PairedPatches:
    return PairedPatches(files, scale=SCALE, patch_size=PATCH, batch_size=BATCH)


def plain(files: ImageFolder, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(number)
    crops = []
    for index in random.integers(len(files), size=BATCH):
        image = read_image(files.paths[index])
        top, left = (int(random.integers(side - PATCH + 1)) for side in image.shape[1:])
        crops.append(image[:, top : top + PATCH, left : left + PATCH])
    hr = torch.stack(crops)
    return hr, bicubic_downsample(hr, SCALE)
