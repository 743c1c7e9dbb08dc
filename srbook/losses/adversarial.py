"""The losses of a generator and its discriminator, and how the generator weighs them against its other losses."""

import torch
from torch import Tensor
from torch.nn.functional import relu

from srbook.numbers import at_least_single

LARGEST = 1e4  # weight that a vanishing adversarial gradient may get
SMALL = 1e-4


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """What a discriminator minimizes: scores of real images above 1, and of made ones below -1, cost nothing.

    (mean max(0, 1 - real) + mean max(0, 1 + fake)) / 2, after Lim and Ye (2017); the generator minimizes -mean(fake).
    The scores may have any shape.
    """
    return (relu(1 - at_least_single(real)).mean() + relu(1 + at_least_single(fake)).mean()) / 2


def adaptive_weight(loss: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """The factor that makes an adversarial loss pull at the generator's last layer as hard as its other losses.

    |d loss / d last| / (|d adversarial / d last| + 1e-4), at most 1e4, without a gradient (Esser et al., 2021).

    Args:
        loss, adversarial: scalars with a graph, which is kept.
        last: the weight of the last layer.
    """
    norms = [torch.autograd.grad(each, last, retain_graph=True)[0].norm() for each in (loss, adversarial)]
    return (norms[0] / (norms[1] + SMALL)).clamp(max=LARGEST).detach()
