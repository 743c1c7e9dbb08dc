"""One training step: each turn's loss, gradient, and optimizer, one turn after the other."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from srbook.settings import TrainingConfig
from srbook.training.distributed import together
from srbook.training.optim import FusedAdamW, parameter_groups
from srbook.turns import Loss, Turn


class Turns:
    """The turns of a step with their optimizers.

    In a turn only its own weights require gradients, so no gradient of one turn reaches the weights of another.

    Args:
        method: what is trained, in its stage and on its device.
        turns: as `method.turns()` gives them.
        config: rates, AdamW's settings, and how gradients are cut.

    Attributes:
        moving: whether a step has moved some weights and not yet all.

    Raises:
        ValueError: as `parameter_groups`, or two turns have one name.
    """

    def __init__(self, method: nn.Module, turns: Sequence[Turn], config: TrainingConfig):
        if len({turn.name for turn in turns}) < len(turns):
            raise ValueError(f"turns need different names, got {', '.join(turn.name for turn in turns)}")
        self.turns, self.config, self.moving = turns, config, False
        self.optimizers = [
            FusedAdamW(groups, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay)
            for groups in parameter_groups(method, turns, config)
        ]
        self._models: list[nn.Module] = [
            _LossModule(optimizer.weights, turn.loss) for optimizer, turn in zip(self.optimizers, turns, strict=True)
        ]

    def prepare(self, accelerator: Any) -> None:
        """Let Accelerate wrap the turns' losses, so that processes exchange gradients. The weights stay in place."""
        self._models = [accelerator.prepare(model, device_placement=[False]) for model in self._models]

    def take(
        self, hr: Tensor, lr: Tensor, generator: torch.Generator, factor: float, precision: AbstractContextManager
    ) -> dict[str, Tensor]:
        """Take all turns on a batch; gives losses and "gradient_norm" by name, after "<turn>_" where there are several.

        Args:
            hr, lr: the batch.
            generator: source of all randomness of the losses, drawn from by one turn after the other.
            factor: of the highest learning rates.
            precision: the context in which losses are computed.
        """
        figures: dict[str, Tensor] = {}
        try:
            for number, (model, optimizer) in enumerate(zip(self._models, self.optimizers, strict=True)):
                self._require_gradients(number)
                for group in optimizer.param_groups:
                    group["lr"] = group["highest"] * factor
                with together(), precision:
                    losses = model(hr, lr, generator)
                losses["loss"].backward()
                if self.config.clip_value < math.inf:
                    clip_grad_value_(optimizer.weights, self.config.clip_value)
                norm = clip_grad_norm_(optimizer.weights, self.config.clip_norm)
                self.moving = True
                optimizer.step()
                optimizer.zero_grad()
                for name, figure in {**losses, "gradient_norm": norm}.items():
                    figures[self.prefix(number) + name] = figure.detach()
        finally:
            self._require_gradients()
        return figures

    def prefix(self, number: int) -> str:
        """The beginning of the names of a turn's figures."""
        return f"{self.turns[number].name}_" if len(self.turns) > 1 else ""

    def names(self, figure: str) -> list[str]:
        """The names of one figure, such as "loss", of all turns."""
        return [self.prefix(number) + figure for number in range(len(self.turns))]

    def learning_rate(self) -> float:
        """The present rate of the weights without a rate of their own."""
        return self.optimizers[0].param_groups[0]["lr"]

    def tensors(self) -> dict[str, Tensor]:
        """The optimizers' state, keyed "<turn>/<index of weight>.<name>"."""
        return {
            f"{turn.name}/{key}": tensor
            for turn, optimizer in zip(self.turns, self.optimizers, strict=True)
            for key, tensor in optimizer.tensors().items()
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` returned; tensors of other turns or weights are a ValueError."""
        left = dict(tensors)
        for turn, optimizer in zip(self.turns, self.optimizers, strict=True):
            start = f"{turn.name}/"
            own = {key.removeprefix(start): left.pop(key) for key in tensors if key.startswith(start)}
            if not own:
                raise ValueError(f"the optimizer of the turn {turn.name!r} is missing")
            optimizer.load(own)
        if left:
            raise ValueError(f"there is no turn for {min(left)!r}")

    def _require_gradients(self, only: int | None = None) -> None:
        if len(self.turns) > 1:
            for number, optimizer in enumerate(self.optimizers):
                for weight in optimizer.weights:
                    weight.requires_grad_(only is None or number == only)


class _LossModule(nn.Module):
    """Calls a loss as a forward pass, which is what data-parallel wrappers intercept.

    It shows them only the trained weights, since they would send frozen parts to all processes in every step.
    """

    def __init__(self, weights: Sequence[nn.Parameter], loss: Loss):
        super().__init__()
        self.weights, self.loss = nn.ParameterList(weights), loss

    def forward(self, hr: Tensor, lr: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return self.loss(hr, lr, generator)
