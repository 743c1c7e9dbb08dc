"""The memory that a computation needs for its backward pass."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


def peak_saved_bytes(compute: Callable[[], Tensor], weights: Iterable[Tensor] = ()) -> int:
    """The most bytes that a computation and its gradient hold in tensors kept for the backward pass.

    Every tensor that autograd keeps is counted, from when it is kept until it is let go, tensors of one storage once.
    This memory grows with the depth of a network and with the steps of a solver. Weights, their gradients, and the
    states of solver and optimizer do not, and are not counted. It is the same number on every machine.

    Args:
        compute: gives a scalar; its gradient is then computed, inside this function, and added to the `.grad` of the
            leaves as usual.
        weights: tensors not to count, because they are there anyway: parameters of networks.
    """
    holders: dict[int, int] = {}
    anyway = {tensor.untyped_storage().data_ptr() for tensor in weights}
    present = peak = 0

    class Kept:
        def __init__(self, tensor: Tensor):
            nonlocal present, peak
            self.tensor, storage = tensor.detach(), tensor.untyped_storage()
            self.address, self.size = storage.data_ptr(), storage.nbytes()
            if self.address in anyway:
                self.size = 0
            holders[self.address] = holders.get(self.address, 0) + 1
            if holders[self.address] == 1:
                present += self.size
                peak = max(peak, present)

        def __del__(self):
            nonlocal present
            holders[self.address] -= 1
            if holders[self.address] == 0:
                del holders[self.address]
                present -= self.size

    with saved_tensors_hooks(Kept, lambda kept: kept.tensor), torch.enable_grad():
        compute().backward()
    return peak
