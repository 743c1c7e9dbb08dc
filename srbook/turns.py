"""The turns of a training step: one for most methods, two for a generator and a discriminator."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor, torch.Generator | None], dict[str, Tensor]]


@dataclass(frozen=True)
class Turn:
    """A loss and the weights that it trains; each turn of a step has an optimizer of its own.

    Attributes:
        name: in the log and in checkpoints, such as "discriminator".
        parameters: the tensors and modules that it trains.
        loss: from (hr, lr, generator) to scalars by name; "loss" is the one to minimize.
    """

    name: str
    parameters: Sequence[nn.Parameter | nn.Module]
    loss: Loss

    def weights(self) -> list[nn.Parameter]:
        """All tensors of `parameters` and of the modules in it that require gradients, each once."""
        parts = [part.parameters() if isinstance(part, nn.Module) else [part] for part in self.parameters]
        found = {id(weight): weight for part in parts for weight in part if weight.requires_grad}
        return list(found.values())


class Trainable(Protocol):
    """What the trainer trains: an `nn.Module` that also has these.

    Attributes:
        kind: its name in checkpoints.
        arguments: plain values that rebuild it; a run goes on only with the same.
        stage: the present stage of training.
    """

    kind: str
    arguments: dict[str, Any]
    stage: str

    def begin(self, stage: str) -> None:
        """Enter a stage: only the weights that it trains require gradients."""

    def turns(self) -> Sequence[Turn]:
        """The turns of a step in the present stage, in order."""

    def save(self, path: Path) -> object:
        """Write the module to a file, atomically."""
