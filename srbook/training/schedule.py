"""The learning rates of a method's parts and over a run, and the average of the weights."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from srbook.training.config import TrainingConfig


def parameter_groups(method: nn.Module, config: TrainingConfig) -> list[dict[str, Any]]:
    """What an optimizer is to train of a method: everything that requires gradients, by highest learning rate.

    Args:
        method: the method, in the stage to be trained.
        config: its `learning_rate`, and `learning_rates` of parts by their attribute's name.

    Returns:
        Groups with "params" and "highest", the parts without a rate of their own first.

    Raises:
        ValueError: the method has no such part, or does not train it in this stage.
    """
    parts = {name: [w for w in part.parameters() if w.requires_grad] for name, part in method.named_children()}
    for name in config.learning_rates:
        if not parts.get(name):
            trained = ", ".join(name for name, weights in parts.items() if weights)
            raise ValueError(f"learning_rates names {name!r}; what is trained here: {trained}")
    own = [{"params": parts[name], "highest": rate} for name, rate in config.learning_rates.items()]
    listed = {id(weight) for group in own for weight in group["params"]}
    others = [weight for weight in method.parameters() if weight.requires_grad and id(weight) not in listed]
    return [{"params": others, "highest": config.learning_rate}, *own]


def learning_rate_factor(step: int, *, steps: int, warmup: int, schedule: str) -> float:
    """Fraction of the highest learning rate at a step; implements :eq:`eq-schedule`.

    It rises linearly over `warmup` steps, then stays at 1 ("constant") or falls along half a cosine to 0 at the end
    ("cosine"; Loshchilov and Hutter, 2017, without restarts).

    Args:
        step: zero-based number of the step about to be taken.
        steps: length of the run.
        warmup: length of the rise.
        schedule: "constant" or "cosine".
    """
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def ema_decay_at(step: int, decay: float) -> float:
    """The decay of the averaged weights at a step, smaller at first: min(decay, (1 + step) / (10 + step)).

    Without the ramp the average would hold on to the random initial weights for 1 / (1 - decay) steps.
    """
    return min(decay, (1 + step) / (10 + step))


class EMA:
    """Exponential moving average of a module's weights; implements :eq:`eq-ema`.

    Buffers (running statistics, tables) are copied, not averaged.

    Args:
        module: the module to follow.
        decay: how much of the average stays at each update, in [0, 1).
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.weights = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        self._parameters = [name for name, _ in module.named_parameters()]

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move the average towards the module's present weights, after optimizer step number `step` (zero-based)."""
        current = module.state_dict()
        averaged = [self.weights[name] for name in self._parameters]
        torch._foreach_lerp_(averaged, [current[name] for name in self._parameters], 1 - ema_decay_at(step, self.decay))
        for name in self.weights.keys() - set(self._parameters):
            self.weights[name].copy_(current[name])

    def load(self, weights: dict[str, Tensor]) -> None:
        """Continue from saved averages."""
        for name, tensor in weights.items():
            self.weights[name].copy_(tensor)
