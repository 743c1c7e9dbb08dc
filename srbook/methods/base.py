"""What every method of the book is: a module with a loss, a way to upscale, and a way to be saved."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from srbook.files import save_tensors
from srbook.images import require_images
from srbook.samplers import SampleResult
from srbook.turns import Turn


class Method(nn.Module, ABC):
    """A super-resolution method: `loss` to train it, `upscale` to use it, `save` to keep it.

    `parameters()` are the method's own networks; frozen feature extractors and codecs are not among them.
    A subclass calls `super().__init__(scale=..., **its other arguments)`: these are what a checkpoint stores
    to rebuild the method, so they must be plain numbers, strings, lists and dicts.

    Some methods train in stages, one after the other: `begin` says which one `loss` is for and frees its weights.
    A new method is in a stage where `upscale` shows the whole method; in an earlier one, it shows what that trains.

    Attributes:
        kind: the method's name in presets and checkpoints.
        stages: names of the stages of training, in order.
        stage: the present one.
        scale: the magnification, an integer of at least 2.
        arguments: the constructor's arguments.
    """

    kind: ClassVar[str]
    stages: ClassVar[tuple[str, ...]] = ("main",)

    def __init__(self, *, scale: int, **arguments: Any):
        super().__init__()
        if not isinstance(scale, int) or scale < 2:
            raise ValueError(f"scale must be an integer of at least 2, got {scale!r}")
        self.scale = scale
        self.stage = self.stages[-1]
        self.arguments = {"scale": scale, **arguments}

    @abstractmethod
    def loss(self, hr: Tensor, lr: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Training losses of a batch.

        Args:
            hr: (N, 3, sH, sW) in [0, 1], the truth.
            lr: (N, 3, H, W) in [0, 1], its degraded version.
            generator: source of all randomness (noise, times); None uses torch's global one.

        Returns:
            Scalars by name. "loss" is the one to minimize.
        """

    @abstractmethod
    def upscale(
        self,
        lr: Tensor,
        *,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> SampleResult:
        """High-resolution images for `lr`, without gradients.

        Args:
            lr: (N, 3, H, W) in [0, 1].
            steps: number of sampling steps; None takes the method's default. Methods of one step refuse others.
            generator: source of all randomness; None uses torch's global one.
            progress: show a progress display over the steps, where there are several.

        Returns:
            A `SampleResult` whose `image` is (N, 3, sH, sW) in [0, 1].

        Raises:
            ValueError: `lr` breaks the image convention, or `steps` is not possible for this method.
        """

    def begin(self, stage: str) -> None:
        """Enter a stage of training: `loss` becomes its loss, and only its weights require gradients.

        Raises:
            ValueError: the method has no such stage.
        """
        if stage not in self.stages:
            raise ValueError(f"{self.kind} has the stages {', '.join(self.stages)}, got {stage!r}")
        self.stage = stage
        self.requires_grad_(False)
        for module in self.trained_in(stage):
            module.requires_grad_(True)

    def trained_in(self, stage: str) -> Sequence[nn.Module]:
        """The networks that a stage trains; methods of several stages override this."""
        return [self]

    def turns(self) -> list[Turn]:
        """What a training step does: one turn, for the loss and all weights of the present stage."""
        return [Turn("main", [self], self.loss)]

    def save(self, path: str | Path) -> Path:
        """Write weights and the arguments that rebuild the method to one safetensors file, atomically.

        Read it back with `srbook.load(path)`.
        """
        config = json.dumps({"method": self.kind, "arguments": self.arguments})
        return save_tensors(path, self.state_dict(), {"format": "srbook-method-1", "config": config})

    def require_pair(self, hr: Tensor, lr: Tensor) -> None:
        """Check a training pair: both keep the image convention and differ by exactly the scale.

        Raises:
            ValueError, TypeError: says which of the two is wrong and how.
        """
        require_images(hr, "hr")
        require_images(lr, "lr")
        expected = (lr.shape[0], 3, lr.shape[2] * self.scale, lr.shape[3] * self.scale)
        if tuple(hr.shape) != expected:
            raise ValueError(
                f"hr must be {self.scale} times the size of lr: lr is {tuple(lr.shape)}, "
                f"so hr must be {expected}, got {tuple(hr.shape)}"
            )

    @torch.no_grad()
    def upscale_directly(self, network: Callable[[Tensor], Tensor], lr: Tensor, steps: int | None) -> SampleResult:
        """`upscale` of a network that gives the image in one evaluation, clipped to [0, 1].

        Raises:
            ValueError: `lr` breaks the image convention, or `steps` is neither None nor 1.
        """
        require_images(lr, "lr")
        self.require_single_step(steps)
        return SampleResult(image=network(lr).float().clamp(0, 1), nfe=1)

    def require_single_step(self, steps: int | None) -> None:
        """Refuse a number of sampling steps other than one, for methods that do not sample.

        Raises:
            ValueError: `steps` is neither None nor 1.
        """
        if steps not in (None, 1):
            raise ValueError(f"{self.kind} upscales in one step, got steps={steps}; leave steps out")
