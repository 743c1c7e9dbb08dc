"""The Frechet distance between two sets of images: Gaussians are fitted to their features, and compared.

With the 2048 features of the Inception network it is called FID (Heusel et al. 2017), and values of different
networks or of different numbers of images do not compare. That network does not come with the package: any function
from images to vectors serves.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from srbook.arguments import require_function, require_instance, require_iterable
from srbook.images import require_floats

FeatureExtractor = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FeatureStatistics:
    """The Gaussian fitted to a set of feature vectors.

    Attributes:
        mean: (D,) float64.
        covariance: (D, D) float64, with the divisor count - 1.
        count: number of vectors.
    """

    mean: Tensor
    covariance: Tensor
    count: int


@torch.no_grad()
def feature_statistics(batches: Iterable[Tensor], extract: FeatureExtractor) -> FeatureStatistics:
    """Mean and covariance of the features of all images, batch by batch, on the CPU (Chan, Golub, and LeVeque 1983).

    Args:
        batches: of images, whatever `extract` takes.
        extract: a batch to its features (N, D).

    Raises:
        ValueError: fewer than two vectors, features of another shape, or features that are not finite.
    """
    require_iterable("batches", batches, "batches of images")
    require_function("extract", extract)
    mean = scatter = None
    count = 0
    for batch in batches:
        features = require_floats(extract(batch), "what extract gives")
        if features.ndim != 2 or (mean is not None and features.shape[1] != len(mean)):
            width = "D" if mean is None else len(mean)
            raise ValueError(f"extract must give features of shape (N, {width}), got {tuple(features.shape)}")
        if not bool(features.isfinite().all()):
            raise ValueError("extract gave features that are nan or infinite")
        features = features.cpu().double()
        if mean is None:
            mean = features.new_zeros(features.shape[1])
            scatter = features.new_zeros(features.shape[1], features.shape[1])
        if len(features) == 0:
            continue
        center = features.mean(dim=0)
        shift = center - mean
        total = count + len(features)
        centered = features - center
        scatter += centered.T @ centered + torch.outer(shift, shift) * (count * len(features) / total)
        mean = mean + shift * (len(features) / total)
        count = total
    if count < 2:
        raise ValueError(f"a covariance needs at least two images, got {count}")
    return FeatureStatistics(mean, scatter / (count - 1), count)


def frechet_distance(first: FeatureStatistics, second: FeatureStatistics) -> float:
    """The squared distance |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)) (Dowson and Landau 1982).

    It is Wasserstein's distance of order 2 between the two Gaussians, squared, in squared units of the features. The
    usual programs take the root of the product C_1 C_2, which is not symmetric and often singular, and then remove
    imaginary parts. Here each covariance is factored as C = F F^T. The trace of the root is the sum of the singular
    values of F_1^T F_2, also for singular covariances. With fewer images than features both ways estimate far too high.

    Raises:
        ValueError: different numbers of features, or a covariance that is not symmetric and positive.
    """
    require_instance("first", first, FeatureStatistics, "feature_statistics makes it")
    require_instance("second", second, FeatureStatistics, "feature_statistics makes it")
    if first.mean.shape != second.mean.shape:
        raise ValueError(f"the two sets have {len(first.mean)} and {len(second.mean)} features; use one extractor")
    overlap = torch.linalg.svdvals(_factor(first.covariance).T @ _factor(second.covariance)).sum()
    spread = first.covariance.trace() + second.covariance.trace() - 2 * overlap
    return max(0.0, ((first.mean - second.mean).square().sum() + spread).item())


def _factor(covariance: Tensor) -> Tensor:
    """F with F F^T = C, from the eigenvectors of C. Eigenvalues that are zero up to rounding become zero."""
    largest = covariance.abs().max()
    if not torch.allclose(covariance, covariance.T, rtol=0, atol=1e-8 * largest.item()):
        raise ValueError("a covariance must be symmetric")
    values, vectors = torch.linalg.eigh(covariance)
    if values[0] < -1e-8 * largest:
        raise ValueError(f"a covariance must not have negative eigenvalues, got {values[0].item():.3g}")
    rounding = len(values) * torch.finfo(values.dtype).eps * largest  # the roots of rounding errors would add up
    return vectors * torch.where(values > rounding, values, 0).sqrt()
