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
    global generator. A `PlacedGenerator` gives its part of the noise of a whole picture.
    """
    require_generator(generator)
    require_floats(like, "like")
    if isinstance(generator, PlacedGenerator):
        return generator.normal(shape, like.dtype).to(like.device)
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device, dtype=like.dtype).to(like.device)


def require_generator(generator: torch.Generator | None) -> None:
    """Raise a TypeError for a seed, or a generator of another library, in the place of torch's."""
    if generator is not None:
        remedy = "torch.Generator().manual_seed(0) makes one"
        require_instance("generator", generator, torch.Generator, remedy)


def draw_seed(generator: torch.Generator | None = None) -> int:
    """A seed from a generator, or from torch's global one."""
    require_generator(generator)
    device = None if generator is None else generator.device
    return int(torch.randint(2**63 - 1, (), generator=generator, device=device))


def keyed(*key: int) -> torch.Generator:
    """A fresh generator on the CPU for a key of whole numbers of at least 0, such as (seed, batch, position).

    Its numbers depend on the key alone, so nothing has to be stored to resume exactly.
    """
    for number in key:
        require_integer("key", number, 0)
    sequence = np.random.SeedSequence((len(key), *key))  # alone it would not tell (3, 7) from (3, 7, 0)
    return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0]))


class PlacedGenerator(torch.Generator):
    """A generator for one tile of a picture: where two tiles overlap, `normal` gives both the same noise.

    The noise of a picture is made of blocks, each drawn from a key of its own, so a tile costs no more than itself. All
    tiles draw equally often, and the k-th draws of all of them belong together. Whatever else is drawn differs from
    tile to tile.

    Args:
        seed: of the whole picture, at least 0.
        top, left: the first row and column of the tile, in positions of the space that the noise is for.
    """

    BLOCK = 64  # side in positions

    def __new__(cls, seed: int, top: int, left: int):
        return super().__new__(cls)

    def __init__(self, seed: int, top: int, left: int):
        self.seed_of_picture, self.top, self.left, self.draws = seed, top, left, 0
        self.manual_seed(keyed(seed, top, left).initial_seed())

    def normal(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """The next noise, of a shape (N, channels, H, W)."""
        images, channels, height, width = shape
        rows = range(self.top // self.BLOCK, -(-(self.top + height) // self.BLOCK))
        columns = range(self.left // self.BLOCK, -(-(self.left + width) // self.BLOCK))
        size = images, channels, self.BLOCK, self.BLOCK

        def block(row: int, column: int) -> Tensor:
            key = keyed(self.seed_of_picture, self.draws, row, column)
            return torch.randn(size, generator=key, dtype=dtype)

        noise = torch.cat([torch.cat([block(i, j) for j in columns], dim=3) for i in rows], dim=2)
        self.draws += 1
        top, left = self.top % self.BLOCK, self.left % self.BLOCK
        return noise[..., top : top + height, left : left + width]
