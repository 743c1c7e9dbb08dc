"""The losses of a generator and its discriminator, and how the generator weighs them against its other losses."""

import torch
from torch import Tensor
from torch.nn.functional import relu

from srbook.images import require_floats
from srbook.numbers import at_least_single

LARGEST = 1e4  # weight that a vanishing adversarial gradient may get
SMALL = 1e-4


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """What a discriminator minimizes: scores of real images above 1, and of made ones below -1, cost nothing.

    (mean max(0, 1 - real) + mean max(0, 1 + fake)) / 2, after Lim and Ye (2017); the generator minimizes -mean(fake).
    The scores may have any shape.
    """
    require_floats(real, "real")
    require_floats(fake, "fake")
    return (relu(1 - at_least_single(real)).mean() + relu(1 + at_least_single(fake)).mean()) / 2


def adaptive_weight(loss: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """The factor that makes an adversarial loss pull at the generator's last layer as hard as its other losses.

    |d loss / d last| / (|d adversarial / d last| + 1e-4), at most 1e4, without a gradient (Esser et al., 2021).

    Args:
        loss, adversarial: scalars with a graph, which is kept.
        last: the weight of the last layer.

    Raises:
        TypeError, ValueError: no tensors of floats, or losses that are no scalars with a graph.
    """
    require_floats(last, "last")
    for name, value in {"loss": loss, "adversarial": adversarial}.items():
        if require_floats(value, name).ndim > 0 or not value.requires_grad:
            raise ValueError(f"{name} must be a scalar with a graph, got a tensor of shape {tuple(value.shape)}")
    norms = [torch.autograd.grad(each, last, retain_graph=True)[0].norm() for each in (loss, adversarial)]
    return (norms[0] / (norms[1] + SMALL)).clamp(max=LARGEST).detach()
