"""HF-Diff's feature extractor: an invertible network, trained to tell classes of patches apart."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from srbook.arguments import require_instance
from srbook.codecs.base import save_codec
from srbook.images import require_own
from srbook.networks.invertible import FrequencyExtractor
from srbook.noting import noting
from srbook.numbers import at_least_single
from srbook.turns import Turn


class Extractor(nn.Module):
    """A `FrequencyExtractor` that the trainer trains, by the cross-entropy of its classes, and `HFDiff` uses.

    The paper trains it on ImageNet, and does not say by which loss. Where each photograph is a class of its own
    (`srbook.data.image_classes`), no labels are needed: a patch must show which picture it comes from (Dosovitskiy et
    al. 2014).

    Args:
        classes: how many; `srbook train` counts those of the data.
        network: other arguments of `FrequencyExtractor`.

    Attributes:
        arguments: the constructor's arguments, which rebuild it from its file.
        network: the `FrequencyExtractor`.

    Raises:
        ValueError: an argument out of range.
    """

    kind: ClassVar[str] = "extractor"
    labeled: ClassVar[bool] = True  # it is trained on patches and their classes
    scale: ClassVar[int] = 1

    @noting
    def __init__(self, *, classes: int = 1000, network: dict[str, Any] | None = None):
        super().__init__()
        self.stage = "main"
        self.network = FrequencyExtractor(classes, **(network or {}))

    @classmethod
    def stage_names(cls) -> tuple[str, ...]:
        """Training has one stage."""
        return ("main",)

    def begin(self, stage: str) -> None:
        """Enter the stage "main", in which all weights are trained; there is no other."""
        if stage not in self.stage_names():
            raise ValueError(f"{self.kind} has the stages {', '.join(self.stage_names())}, got {stage!r}")
        self.requires_grad_(True)

    def turns(self) -> list[Turn]:
        """One."""
        return [Turn("main", [self.network], self.loss)]

    def save(self, path: str | Path) -> Path:
        """Write it to one safetensors file, which `srbook.load` and `srbook.codecs.read_codec` read."""
        return save_codec(path, self, self.kind, self.arguments)

    def features(self, image: Tensor) -> Tensor:
        """The features (N, width, H, W) of images (N, 3, H, W) in [0, 1]."""
        return self.network.features(2 * require_own(self, image, "image") - 1)

    def embed(self, image: Tensor) -> Tensor:
        """What its last layer tells the classes by (N, width), of images (N, 3, H, W) in [0, 1]."""
        return self.network.head[:-1](self.features(image))

    def loss(self, image: Tensor, label: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The cross-entropy of images (N, 3, H, W) in [0, 1] and the numbers of their classes (N,), and the accuracy.

        Args:
            image: patches.
            label: whole numbers from 0 on.
            generator: plays no part.
        """
        scores = at_least_single(self.network(2 * require_own(self, image, "image") - 1))
        require_instance("label", label, Tensor)
        whole = not (label.is_floating_point() or label.is_complex() or label.dtype == torch.bool)
        if label.shape != image.shape[:1] or not whole:
            raise ValueError(f"label must hold {len(image)} whole numbers, got {tuple(label.shape)} of {label.dtype}")
        if label.min() < 0 or label.max() >= self.classes:
            raise ValueError(f"label must lie from 0 to {self.classes - 1}, got {label.min()} to {label.max()}")
        label = label.long()
        accuracy = (scores.argmax(dim=1) == label).float().mean()
        return {"loss": cross_entropy(scores, label), "accuracy": accuracy}
