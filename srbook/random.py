"""Noise drawn from a generator, and generators made from a key."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from srbook.arguments import require_instance, require_integer
from srbook.images import require_floats


def normal(shape: Sequence[int], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise of the type and on the device of `like`.

    It is drawn where the generator lives, so that a seed gives the same image on every device; None draws from torch's
    global generator.
    """
    require_generator(generator)
    require_floats(like, "like")
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device, dtype=like.dtype).to(like.device)


def require_generator(generator: torch.Generator | None) -> None:
    """Raise a TypeError for a seed, or a generator of another library, in the place of torch's."""
    if generator is not None:
        remedy = "torch.Generator().manual_seed(0) makes one"
        require_instance("generator", generator, torch.Generator, remedy)


def keyed(*key: int) -> torch.Generator:
    """A fresh generator on the CPU for a key of whole numbers of at least 0, such as (seed, batch, position).

    Its numbers depend on the key alone, so nothing has to be stored to resume exactly.
    """
    for number in key:
        require_integer("key", number, 0)
    sequence = np.random.SeedSequence((len(key), *key))  # alone it would not tell (3, 7) from (3, 7, 0)
    return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
