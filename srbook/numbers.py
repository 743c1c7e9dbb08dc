"""Number formats of tensors, and numbers that are none."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def plain(value: Any) -> Any:
    """NumPy's numbers, also those in lists, tuples, and dicts, as Python's, which JSON can hold."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else value


def at_least_single(x: Tensor) -> Tensor:
    """Half precision becomes single; single and double stay. For computations that half precision would spoil."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds an infinity or a NaN, or None."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            wide = tensor.float() if tensor.itemsize == 1 else tensor  # torch has no minimum of 8 bits
            if not all(end.isfinite() for end in torch.aminmax(wide)):
                return name
    return None
