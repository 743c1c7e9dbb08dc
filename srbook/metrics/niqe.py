"""NIQE: how far the statistics of an image are from those of photographs, without a truth to compare with."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from srbook.arguments import require_instance
from srbook.degradations import imresize
from srbook.files import load_tensors, save_tensors
from srbook.images import luma, require_images

BLOCK = 96
SHARP = 0.75  # blocks of pristine images that count, by the share of their image's sharpest block
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
FIT = Path(__file__).parent / "niqe_bsds.safetensors"


class PristineModel(NamedTuple):
    """A Gaussian of the features of good photographs: mean (36,) and covariance (36, 36), float64."""

    mean: Tensor
    covariance: Tensor


def niqe(image: Tensor, model: PristineModel | None = None) -> Tensor:
    """The distance of each image's features from those of good photographs, (N,) float64 on the CPU; lower is better.

    Mittal, Soundararajan, and Bovik (2013). Each block of 96x96 pixels of the rounded Y channel, and of its half size,
    is normalized by its local mean and deviation; 36 parameters of generalized Gaussians describe what is left. The
    features of a block are then modeled as a Gaussian, and its distance to the model is
    sqrt(d^T ((C1 + C2) / 2)^-1 d), where d is the difference of the means.

    Values depend on the model. The book's is fitted on BSDS500's training photographs, so they are not those of tables
    that use the authors' model.

    Args:
        image: (N, 3, H, W) in [0, 1], of at least 192x96 pixels or so: a Gaussian needs two blocks.
        model: of `fit_pristine`; None takes the book's.

    Raises:
        ValueError: an image with fewer than two blocks.
    """
    require_images(image)
    model = pristine() if model is None else require_model(model)
    return torch.stack([_distance(block_features(each)[0], model) for each in image.split(1)])


def fit_pristine(images: Iterable[Tensor]) -> PristineModel:
    """The model of good photographs, from the sharp blocks of each (1, 3, H, W) in [0, 1]."""
    kept = []
    for image in images:
        features, sharpness = block_features(require_images(image))
        kept.append(features[sharpness > SHARP * sharpness.max()])
    if not kept or len(features := torch.cat(kept)) < 2:
        raise ValueError("a model needs photographs with at least two sharp blocks in all")
    return PristineModel(features.mean(dim=0), features.T.cov())


def block_features(image: Tensor) -> tuple[Tensor, Tensor]:
    """The features of each block of one image (1, 3, H, W), (blocks, 36), and their sharpness, (blocks,)."""
    gray = (255 * luma(image.double().cpu())).round()
    height, width = (side // BLOCK * BLOCK for side in gray.shape[-2:])
    if height * width < 2 * BLOCK**2:
        raise ValueError(f"NIQE needs two blocks of {BLOCK}x{BLOCK} pixels, got {tuple(image.shape[-2:])}")
    gray, found = gray[..., :height, :width], []
    for side in (BLOCK, BLOCK // 2):
        if side < BLOCK:
            gray = 255 * imresize(gray / 255, 0.5)
        mean = _blurred(gray)
        deviation = (_blurred(gray.square()) - mean.square()).abs().sqrt()
        found.append(_features(_blocks((gray - mean) / (deviation + 1), side)))
        if side == BLOCK:
            sharpness = _blocks(deviation, side).mean(dim=(1, 2))
    return torch.cat(found, dim=1), sharpness


def asymmetric_gaussian(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shape, and left and right scale, of a generalized Gaussian with two sides, by moments, of each (N, h, w).

    The density falls like exp(-(|x| / scale)^shape) on each side (Lasmar, Stitou, and Berthoumieu 2009).
    """
    left, right = (
        ((x * side).square().sum(dim=(1, 2)) / side.sum(dim=(1, 2)).clamp(min=1)).sqrt() for side in (x < 0, x > 0)
    )
    ratio = left / right.clamp(min=1e-12)
    flat = x.abs().mean(dim=(1, 2)).square() / x.square().mean(dim=(1, 2)).clamp(min=1e-12)
    wanted = flat * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1).square()
    shapes, flatness = _shapes()
    shape = shapes[(flatness - wanted[:, None]).abs().argmin(dim=1)]
    factor = ((1 / shape).lgamma() - (3 / shape).lgamma()).exp().sqrt()
    return shape, left * factor, right * factor


def _features(blocks: Tensor) -> Tensor:
    """18 parameters of each normalized block (N, side, side): of its values, and of products of neighbors."""
    shape, left, right = asymmetric_gaussian(blocks)
    features = [shape, (left + right) / 2]
    for shift in SHIFTS:
        shape, left, right = asymmetric_gaussian(blocks * blocks.roll(shift, dims=(1, 2)))
        mean = (right - left) * ((2 / shape).lgamma() - (1 / shape).lgamma()).exp()
        features += [shape, mean, left, right]
    return torch.stack(features, dim=1)


def _distance(features: Tensor, model: PristineModel) -> Tensor:
    apart = model.mean - features.mean(dim=0)
    return (apart @ torch.linalg.pinv((model.covariance + features.T.cov()) / 2) @ apart).sqrt()


def _blocks(plane: Tensor, side: int) -> Tensor:
    """(1, 1, H, W) to (blocks, side, side)."""
    return plane[0, 0].unfold(0, side, side).unfold(1, side, side).flatten(0, 1)


def _blurred(plane: Tensor) -> Tensor:
    """By a Gaussian of deviation 7/6, cut to 7x7."""
    line = torch.exp(-torch.arange(-3.0, 4.0, dtype=plane.dtype).square() / (2 * (7 / 6) ** 2))
    line = (line / line.sum()).view(1, 1, 1, 7)
    padded = pad(plane, (3, 3, 3, 3), mode="replicate")
    return conv2d(conv2d(padded, line), line.transpose(2, 3))


@cache
def _shapes() -> tuple[Tensor, Tensor]:
    """Shapes from 0.2 to 10, and the squared mean magnitude of each over its variance."""
    shapes = torch.arange(200, 10_001, dtype=torch.float64) / 1000
    return shapes, (2 * (2 / shapes).lgamma() - (1 / shapes).lgamma() - (3 / shapes).lgamma()).exp()


@cache
def pristine() -> PristineModel:
    """The book's model, fitted on the 199 training photographs of BSDS500."""
    tensors, _ = load_tensors(FIT)
    return PristineModel(tensors["mean"], tensors["covariance"])


def save_pristine(path: str | Path, model: PristineModel, photographs: str) -> Path:
    """Write a model, and what it was fitted on, atomically."""
    return save_tensors(path, require_model(model)._asdict(), {"format": "srbook-niqe-1", "photographs": photographs})


def require_model(model: PristineModel) -> PristineModel:
    """`model`, or a ValueError unless it describes 36 features."""
    require_instance("model", model, PristineModel, "fit_pristine(images) makes it")
    if model.mean.shape != (36,) or model.covariance.shape != (36, 36):
        raise ValueError(f"a model has 36 features, got {tuple(model.mean.shape)} and {tuple(model.covariance.shape)}")
    return model
