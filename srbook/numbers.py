"""Number formats of tensors."""

import torch
from torch import Tensor


def at_least_single(x: Tensor) -> Tensor:
    """Half precision becomes single; single and double stay. For computations that half precision would spoil."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
