"""MATLAB's bicubic, 1020x678 RGB to a quarter: cached blocks of weights against gathering taps anew in each call."""

import math

import numpy as np
import torch
from torch.nn.functional import interpolate

from benchmarks.speed.timing import Contender, Entry
from srbook.degradations import imresize, resize


def entry() -> Entry:
    image = torch.rand(1, 3, 678, 1020, generator=torch.Generator().manual_seed(0))
    array = image[0].permute(1, 2, 0).contiguous().numpy()
    ours = imresize(image, 0.25)[0].permute(1, 2, 0).numpy()
    if not np.allclose(ours, resize_by_taps(array, 0.25), atol=1e-5):
        raise AssertionError("the contenders compute different things")
    other = interpolate(image, size=ours.shape[:2], mode="bicubic", antialias=True)[0].permute(1, 2, 0).numpy()
    difference = float(np.abs(ours - other).max())
    size = ours.shape[:2]
    return Entry(
        "1020x678x3 float32, x1/4, one thread",
        [
            Contender("srbook imresize", lambda: imresize(image, 0.25), "weights cached after the first call"),
            Contender("srbook, first call", lambda: first_call(image), "weights built anew each time"),
            Contender("taps in numpy", lambda: resize_by_taps(array, 0.25), "the usual port of MATLAB's program"),
            Contender(
                "torch antialiased",
                lambda: interpolate(image, size=size, mode="bicubic", antialias=True),
                f"another operator: it cuts the kernel off at borders; differs by up to {difference:.2f}",
            ),
        ],
    )


def first_call(image: torch.Tensor) -> torch.Tensor:
    resize._blocks.cache_clear()
    return imresize(image, 0.25)


def resize_by_taps(image: np.ndarray, scale: float) -> np.ndarray:
    """(H, W, C): for each axis find the taps of every output, gather them, and sum with their weights."""
    for axis in (0, 1):
        index, weights = taps(image.shape[axis], scale)
        gathered = np.take(image, index, axis=axis)  # the axis becomes two: outputs, taps
        shape = [1] * gathered.ndim
        shape[axis : axis + 2] = weights.shape
        image = (gathered * weights.reshape(shape).astype(image.dtype)).sum(axis=axis + 1)
    return image


def taps(length: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices and weights of an antialiased cubic, reflected at the ends."""
    width = 4 / scale
    center = (np.arange(math.ceil(length * scale)) + 0.5) / scale - 0.5
    index = np.floor(center - width / 2)[:, None] + np.arange(math.ceil(width) + 2)
    x = np.abs(center[:, None] - index) * scale
    weights = np.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))
    weights /= weights.sum(axis=1, keepdims=True)
    used = (weights != 0).any(axis=0)
    mirror = np.concatenate([np.arange(length), np.arange(length)[::-1]])
    return mirror[index[:, used].astype(int) % (2 * length)], weights[:, used]
