"""Posteriors that can be computed exactly, as ground truth for tests and for the pictures of chapters."""

import math

import torch
from torch import Tensor

from srbook.arguments import require_integer, require_numbers
from srbook.images import require_floats
from srbook.paths import AnchoredPath, Time, broadcast, require_fitting, require_path
from srbook.random import require_generator


def empirical_posterior(y: Tensor, examples: Tensor, noise: float) -> Tensor:
    """Probability of each of K examples given an observation y: (K,) weights that sum to one.

    All examples are equally likely, and y is the low-resolution version of one of them plus Gaussian noise. By Bayes'
    rule p(x_k | y) is proportional to exp(-|y - y_k|^2 / (2 noise^2)). The posterior mean of :eq:`eq-posterior-mean` is
    `weights @ x_examples`.

    Args:
        y: (D,) the observation.
        examples: (K, D) the observations that the examples would give without noise.
        noise: standard deviation, in the units of y, positive.

    Raises:
        ValueError: shapes do not match, or the noise is not positive.
    """
    require_floats(y, "y")
    require_floats(examples, "examples")
    require_numbers(noise=noise)
    if y.ndim != 1 or examples.ndim != 2 or examples.shape[1] != y.shape[0] or len(examples) == 0:
        raise ValueError(
            f"y must have shape (D,) and examples (K, D) with K >= 1, got {tuple(y.shape)}, {tuple(examples.shape)}"
        )
    if not 0 < noise < math.inf:
        raise ValueError(f"noise must be positive, got {noise}")
    distance = (examples - y).square().sum(dim=1)
    return torch.softmax(-distance / (2 * noise**2), dim=0)


class GaussianMixture:
    """A prior of Gaussians, for which an anchored path has exact marginals, scores, and posterior means.

    Points are vectors: flatten images to (N, D) first. Everything is computed in the type of `means`. A point of
    another shape or a time outside of the path is a ValueError.

    Args:
        weights: (K,) probabilities, positive; they are divided by their sum.
        means: (K, D).
        covariances: (K, D, D), positive definite, and symmetric up to rounding; kept exactly symmetric.

    Raises:
        ValueError: shapes do not match, a weight or a covariance is not positive, or a covariance is not symmetric.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor):
        for name, tensor in {"weights": weights, "means": means, "covariances": covariances}.items():
            require_floats(tensor, name)
        if means.ndim != 2 or weights.shape != means.shape[:1] or covariances.shape != (*means.shape, means.shape[1]):
            raise ValueError(
                "weights, means and covariances must have shapes (K,), (K, D) and (K, D, D), got "
                f"{tuple(weights.shape)}, {tuple(means.shape)}, {tuple(covariances.shape)}"
            )
        if not bool((weights > 0).all()):
            raise ValueError(f"weights must be positive, got {weights.tolist()}")
        symmetric = (covariances + covariances.mT) / 2
        slack = 1e3 * torch.finfo(symmetric.dtype).eps * symmetric.abs().amax()  # products of matrices round
        if (covariances - symmetric).abs().amax() > slack or torch.linalg.cholesky_ex(symmetric).info.any():
            raise ValueError("covariances must be symmetric and positive definite")
        self.weights, self.means, self.covariances = weights / weights.sum(), means, symmetric

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw (count, D) clean points; without a `generator`, from torch's global one."""
        require_integer("count", count, 1)
        require_generator(generator)
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        roots = torch.linalg.cholesky(self.covariances)
        return self.means[which] + (roots[which] @ noise[..., None])[..., 0]

    def log_density(self, path: AnchoredPath, x_t: Tensor, anchor: Tensor, t: Time) -> Tensor:
        """log p(x_t), (N,): a solution of :eq:`eq-fokker-planck` on the variance-preserving path.

        Every component has the moments of :eq:`eq-vp-moments`.

        Args:
            path: the path from x_0 to x_t.
            x_t: (N, D).
            anchor: broadcastable to `x_t`.
            t: times in [0, end].
        """
        return self._components(path, x_t, anchor, t)[0].logsumexp(1)

    def score(self, path: AnchoredPath, x_t: Tensor, anchor: Tensor, t: Time) -> Tensor:
        """The gradient of log p(x_t) by x_t, (N, D), :eq:`eq-mean-score`; arguments as in `log_density`."""
        joint, pull = self._components(path, x_t, anchor, t)
        return -(joint.softmax(1)[..., None] * pull).sum(1)

    def posterior_mean(self, path: AnchoredPath, x_t: Tensor, anchor: Tensor, t: Time) -> Tensor:
        """E[x_0 | x_t], (N, D): the prediction with the least squared error; arguments as in `log_density`."""
        joint, pull = self._components(path, x_t, anchor, t)
        back = torch.einsum("kij,nkj->nki", self.covariances, pull)
        means = self.means + broadcast(path.signal(t), back) * back
        return (joint.softmax(1)[..., None] * means).sum(1)

    def _components(self, path: AnchoredPath, x_t: Tensor, anchor: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """log(weight * density) of each component at x_t (N, K), and inverse covariance times deviation (N, K, D)."""
        require_path(path)
        require_fitting(x_t, "x_t", anchor=anchor)
        if x_t.ndim != 2 or x_t.shape[1] != self.means.shape[1]:
            raise ValueError(f"x_t must have shape (N, {self.means.shape[1]}), got {tuple(x_t.shape)}")
        pinned = torch.as_tensor(anchor, dtype=x_t.dtype, device=x_t.device).expand_as(x_t)[:, None]
        means, std = path.marginal(self.means.expand(len(x_t), -1, -1), pinned, t)
        a = broadcast(path.signal(t), means)[..., None]  # () or (N, 1, 1, 1)
        eye = torch.eye(x_t.shape[1], dtype=x_t.dtype, device=x_t.device)
        roots = torch.linalg.cholesky(a**2 * self.covariances + std[..., None] ** 2 * eye)  # (K, D, D) or (N, K, D, D)
        deviation = x_t[:, None] - means
        pull = torch.einsum("kij,nkj->nki" if roots.ndim == 3 else "nkij,nkj->nki", roots.cholesky_inverse(), deviation)
        log_volume = roots.diagonal(dim1=-2, dim2=-1).log().sum(-1) + 0.5 * x_t.shape[1] * math.log(2 * math.pi)
        return self.weights.log() - log_volume - 0.5 * (deviation * pull).sum(-1), pull


def gaussian(mean: Tensor, covariance: Tensor) -> GaussianMixture:
    """A Gaussian prior: a mixture of one, with a mean (D,) and a covariance (D, D) as in `GaussianMixture`."""
    return GaussianMixture(mean.new_ones(1), mean[None], covariance[None])
