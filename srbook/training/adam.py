"""AdamW for weights whose channels lie last in memory."""

import torch
from torch import Tensor


class FusedAdamW(torch.optim.AdamW):
    """torch's fused AdamW (Loshchilov and Hutter, 2019), without its waste and its trap where channels lie last.

    On a CPU torch's kernel copies every gradient that is not contiguous, for nothing, and that takes longer than the
    step itself. It also walks through the memory of weights, gradients and averages as if they had one layout, and is
    silently wrong if they do not. Here it gets contiguous views, and gradients are brought to the layout of their
    weights.

    Args:
        params, settings: as of `torch.optim.AdamW`.

    Raises:
        ValueError: in a step, weights that are neither contiguous nor channels last, or averages of another layout.
    """

    def __init__(self, params, **settings):
        super().__init__(params, fused=True, **settings)

    def _init_group(self, group, weights, gradients, *others):
        result = super()._init_group(group, weights, gradients, *others)
        orders = [_memory_order(weight) for weight in weights]
        gradients[:] = [gradient.permute(order).contiguous() for gradient, order in zip(gradients, orders, strict=True)]
        for tensors in (weights, *others[:2]):  # and both averages, which are written
            tensors[:] = [tensor.permute(order) for tensor, order in zip(tensors, orders, strict=True)]
            if not all(tensor.is_contiguous() for tensor in tensors):
                raise ValueError("weights must be contiguous or channels last, and Adam's averages as their weights")
        return result


def _memory_order(weight: Tensor) -> tuple[int, ...]:
    """The order of dimensions in which a weight is contiguous."""
    last = weight.dim() == 4 and not weight.is_contiguous()
    return (0, 2, 3, 1) if last else tuple(range(weight.dim()))
