"""What moves the weights: AdamW, the weights and rates of a turn, and the average of the weights."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from srbook.settings import TrainingConfig
from srbook.turns import Turn

_STATE = {"step", "exp_avg", "exp_avg_sq"}  # what AdamW keeps of a weight


class FusedAdamW:
    """torch's fused AdamW (Loshchilov and Hutter, 2019) for weights in any mixture of memory layouts.

    torch's kernel for CPUs walks through weights, gradients, and averages as if they lay in memory alike, and copies
    gradients that are not contiguous. So torch gets contiguous views: of channels-last weights (O, I, H, W) the view
    (O, H, W, I), which shares their memory.

    Args:
        groups: dicts with "params" and whatever else belongs to them, as for `torch.optim.AdamW`.
        settings: of `torch.optim.AdamW`.

    Raises:
        ValueError: a weight is neither contiguous nor channels last.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], **settings: Any):
        groups = list(groups)
        self.weights: list[nn.Parameter] = [weight for group in groups for weight in group["params"]]
        views = {weight: _contiguous_view(weight) for weight in self.weights}
        viewed = [{**group, "params": [views[weight] for weight in group["params"]]} for group in groups]
        self._views = [views[weight] for weight in self.weights]
        self._adam = torch.optim.AdamW(viewed, fused=True, **settings)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """torch's groups, whose "lr" may be set; their "params" are the views."""
        return self._adam.param_groups

    def step(self) -> None:
        """Move the weights by their gradients; weights without one stay.

        A weight moved to other memory since the optimizer was made is a RuntimeError.
        """
        for weight, view in zip(self.weights, self._views, strict=True):
            if view.data_ptr() != weight.data_ptr():
                raise RuntimeError("weights were moved or replaced; make the optimizer after that")
            view.grad = None if weight.grad is None else _as_view(weight.grad, weight).contiguous()
        self._adam.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for tensor in (*self.weights, *self._views):
            tensor.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """The optimizer's state, keyed "<index of weight>.<name>", shaped like the weights."""
        state = self._adam.state_dict()["state"]
        return {
            f"{index}.{name}": _as_weight(tensor, self.weights[index])
            for index, entry in state.items()
            for name, tensor in entry.items()
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` returned; settings such as the learning rate stay as they are.

        Tensors that do not fit these weights are a ValueError.
        """
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            index, _, name = key.partition(".")
            if not index.isdecimal() or int(index) >= len(self.weights) or name not in _STATE:
                raise ValueError(f"the optimizer has no {key!r}")
            weight = self.weights[int(index)]
            if tensor.shape != (() if name == "step" else weight.shape) or not tensor.is_floating_point():
                raise ValueError(f"the optimizer's {key!r} does not fit its weight: {tuple(tensor.shape)}")
            view = _as_view(tensor, weight)
            state.setdefault(int(index), {})[name] = view.clone(memory_format=torch.contiguous_format)
        for index, entry in state.items():
            if absent := _STATE - entry.keys():
                raise ValueError(f"the optimizer lacks {index}.{min(absent)!r}")
        self._adam.load_state_dict({**self._adam.state_dict(), "state": state})


def _contiguous_view(weight: nn.Parameter) -> nn.Parameter:
    view = _as_view(weight.detach(), weight)
    if not view.is_contiguous():
        raise ValueError(f"weights must be contiguous or channels last, got strides {weight.stride()}")
    return weight if weight.is_contiguous() else nn.Parameter(view)


def _as_view(tensor: Tensor, weight: Tensor) -> Tensor:
    """A tensor shaped like a weight, with its dimensions in the order in which the weight lies in memory."""
    return tensor.permute(0, 2, 3, 1) if _is_channels_last(weight) and tensor.dim() == 4 else tensor


def _as_weight(tensor: Tensor, weight: Tensor) -> Tensor:
    return tensor.permute(0, 3, 1, 2) if _is_channels_last(weight) and tensor.dim() == 4 else tensor


def _is_channels_last(weight: Tensor) -> bool:
    return weight.dim() == 4 and not weight.is_contiguous()


def parameter_groups(method: nn.Module, turns: Sequence[Turn], config: TrainingConfig) -> list[list[dict[str, Any]]]:
    """For each turn, its optimizer's groups, the weights without a rate of their own first.

    Groups have "params", and "highest", their highest learning rate.

    Args:
        method: the module, in the stage to be trained.
        config: its `learning_rate`, and `learning_rates` of parts by their attribute's name.

    Raises:
        ValueError: a turn trains nothing, two turns train the same weight, or a part with a rate is not trained.
    """
    trained = [turn.weights() for turn in turns]
    if not trained or not all(trained):
        raise ValueError(f"{method.kind} has no weights to train")
    everything = {id(weight) for weights in trained for weight in weights}
    if len(everything) < sum(map(len, trained)):
        raise ValueError(f"two turns of {method.kind} train the same weight; each weight belongs to one turn")
    parts = {name: {id(w) for w in part.parameters()} & everything for name, part in method.named_children()}
    for name in config.learning_rates:
        if not parts.get(name):
            known = ", ".join(name for name, weights in parts.items() if weights)
            raise ValueError(f"learning_rates names {name!r}; what is trained here: {known}")
    own = set().union(*(parts[name] for name in config.learning_rates))
    groups = []
    for weights in trained:
        rest = [weight for weight in weights if id(weight) not in own]
        listed = [
            {"params": [weight for weight in weights if id(weight) in parts[name]], "highest": rate}
            for name, rate in config.learning_rates.items()
        ]
        groups.append([{"params": rest, "highest": config.learning_rate}, *listed])
    return groups


def ema_decay_at(step: int, decay: float) -> float:
    """The decay of the averaged weights at a step, smaller at first: min(decay, (1 + step) / (10 + step)).

    Without the ramp the random initial weights would stay in the average for 1 / (1 - decay) steps.
    """
    return min(decay, (1 + step) / (10 + step))


class EMA:
    """Exponential moving average of a module's weights; implements :eq:`eq-ema`.

    Buffers (running statistics, tables) are copied, not averaged. `decay`, in [0, 1), is the share of the average that
    stays at each update.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        tensors = module.state_dict(keep_vars=True)  # its names are those of `update`, compiled or not
        self.weights = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        self._parameters = [name for name, tensor in tensors.items() if isinstance(tensor, nn.Parameter)]
        self._buffers = [name for name in self.weights if name not in set(self._parameters)]

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move the average towards the module's present weights, after optimizer step number `step` (zero-based)."""
        current = module.state_dict()
        averaged = [self.weights[name] for name in self._parameters]
        lerp = get_ema_multi_avg_fn(ema_decay_at(step, self.decay))
        lerp(averaged, [current[name] for name in self._parameters], None)
        for name in self._buffers:
            self.weights[name].copy_(current[name])

    def buffers(self) -> list[Tensor]:
        """The tensors that are copied, not averaged."""
        return [self.weights[name] for name in self._buffers]

    def restore_buffers(self, module: nn.Module) -> None:
        """Give a module the buffers that it had at the last update."""
        current = module.state_dict()
        for name in self._buffers:
            current[name].copy_(self.weights[name])

    def load(self, weights: dict[str, Tensor]) -> None:
        """Continue from saved averages."""
        for name, tensor in weights.items():
            self.weights[name].copy_(tensor)
