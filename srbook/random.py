"""Noise that a generator draws."""

from collections.abc import Sequence

import torch
from torch import Tensor


def normal(shape: Sequence[int], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise of the type and on the device of `like`.

    It is drawn where the generator lives, so that a seed gives the same image on every device; None draws from torch's
    global generator.
    """
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device, dtype=like.dtype).to(like.device)
