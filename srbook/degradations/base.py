"""What every degradation is: a function from high-resolution to low-resolution images, with a magnification."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, ClassVar

import torch
from torch import Tensor

from srbook.arguments import require_integer
from srbook.images import require_images
from srbook.random import require_generator

Degrade = Callable[..., Tensor]


@dataclass(frozen=True)
class Degradation(ABC):
    """`degrade(hr, generator) -> lr`. Its arguments are plain numbers, so that two of the same are equal.

    What a subclass gets and makes is checked at every call: an image that breaks the convention, or another size than
    promised, is a ValueError or TypeError that names the degradation.

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

    def __init_subclass__(cls, **keywords: Any):
        super().__init_subclass__(**keywords)
        if "__call__" in vars(cls):
            cls.__call__ = _checked(cls.__call__)

    def __post_init__(self) -> None:
        require_integer("scale", self.scale, 1)

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


def _checked(degrade: Degrade) -> Degrade:
    @wraps(degrade)
    def checked(self: Degradation, hr: Tensor, generator: torch.Generator | None = None) -> Tensor:
        height, width = require_images(hr, "hr").shape[-2:]
        if height % self.scale or width % self.scale:
            raise ValueError(
                f"height and width must be divisible by scale {self.scale}, got {height} x {width}; "
                f"crop first: srbook.images.crop_to_multiple(hr, {self.scale})"
            )
        require_generator(generator)
        name = f"what the degradation {self.kind!r} makes"
        lr = require_images(degrade(self, hr, generator), name)
        expected = (len(hr), 3, height // self.scale, width // self.scale)
        if lr.shape != expected:
            raise ValueError(f"{name} of {tuple(hr.shape)} must be {expected}, got {tuple(lr.shape)}")
        return lr

    return checked
