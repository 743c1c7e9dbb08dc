"""What every degradation is: a function from high-resolution to low-resolution images, with a magnification."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from srbook.images import require_integer_scale


@dataclass(frozen=True)
class Degradation(ABC):
    """`degrade(hr, generator) -> lr`. Its arguments are plain numbers, so that two of the same are equal.

    Attributes:
        kind: its name in presets.
        deterministic: whether the same image always gives the same result; the generator is then not used.
        reach: how many low-resolution pixels around a pixel it depends on.
        scale: how many times smaller it makes an image, an integer of at least 1.
    """

    kind: ClassVar[str]
    deterministic: ClassVar[bool]
    reach: ClassVar[int]

    scale: int

    def __post_init__(self) -> None:
        require_integer_scale(self.scale)

    @property
    @abstractmethod
    def description(self) -> str:
        """What it does, in a few words for the caption of a table."""

    @abstractmethod
    def __call__(self, hr: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The low-resolution version (N, 3, H / scale, W / scale) of each image, in [0, 1].

        Args:
            hr: (N, 3, H, W) in [0, 1], both sides divisible by `scale`, or a ValueError.
            generator: source of all randomness; None uses torch's global one.
        """
