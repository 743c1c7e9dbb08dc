"""AdamW on views of the weights: the steps of torch's plain one, whatever the layouts."""

import pytest
import torch
from rounding import identical
from torch import nn
from torch.profiler import ProfilerActivity, profile

from srbook.training.optim import FusedAdamW

LAST, FIRST = torch.channels_last, torch.contiguous_format
SETTINGS = {"lr": 1e-2, "betas": (0.8, 0.9), "weight_decay": 0.1}


def weights(*layouts: torch.memory_format) -> list[nn.Parameter]:
    """Weights of all kinds, one after the other in the layouts."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(6, 5, 3, 3), (6, 5, 3, 3), (6, 5, 1, 1), (1, 5, 3, 3), (6, 1, 3, 3), (4, 7), (3,)]
    made = [torch.randn(shape, generator=generator) for shape in shapes]
    return [nn.Parameter(arrange(one, layouts[i % len(layouts)])) for i, one in enumerate(made)]


def arrange(tensor: torch.Tensor, layout: torch.memory_format) -> torch.Tensor:
    return tensor.contiguous(memory_format=layout) if tensor.dim() == 4 else tensor.clone()


def optimizer_of(weights: list[nn.Parameter]) -> FusedAdamW:
    return FusedAdamW([{"params": weights}], **SETTINGS)


@pytest.mark.parametrize("gradients", [FIRST, LAST])
@pytest.mark.parametrize("layouts", [(FIRST,), (LAST,), (LAST, FIRST)])
def test_steps_are_those_of_torchs_loop(layouts, gradients):
    """torch's own fused kernel is wrong where the layouts of weights and gradients differ."""
    ours, theirs = weights(*layouts), weights(FIRST)
    optimizer, reference = optimizer_of(ours), torch.optim.AdamW(theirs, foreach=False, **SETTINGS)
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            other.grad = torch.randn_like(other)
            one.grad = arrange(other.grad, gradients)
        optimizer.step()
        reference.step()
    for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
        for name in ("exp_avg", "exp_avg_sq"):
            average = optimizer.tensors()[f"{index}.{name}"]
            torch.testing.assert_close(average, reference.state[other][name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("layouts", [(FIRST, LAST), (LAST, FIRST)])
def test_what_it_remembers_fits_weights_of_any_layout(layouts):
    """A checkpoint holds plain tensors; they serve a run that keeps its weights otherwise."""
    before, after = weights(layouts[0]), weights(layouts[1])
    optimizer, again = optimizer_of(before), optimizer_of(after)
    for weight in before:
        weight.grad = torch.randn_like(weight)
    optimizer.step()
    again.load({name: tensor.contiguous() for name, tensor in optimizer.tensors().items()})
    assert identical(again.tensors(), optimizer.tensors())
    for one, other in zip(before, after, strict=True):
        other.data.copy_(one.data)
        other.grad = one.grad.clone()
    optimizer.step()
    again.step()
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_gradients_that_autograd_makes_are_not_copied():
    """It gives them the layout of their weights, and copies of all would take longer than the step."""
    convolution = nn.Conv2d(5, 6, 3).to(memory_format=LAST)
    optimizer = optimizer_of(list(convolution.parameters()))
    convolution(torch.randn(2, 5, 8, 8)).square().sum().backward()
    assert copies(optimizer) == 0
    convolution.weight.grad = torch.randn(6, 5, 3, 3)
    assert copies(optimizer) == 1  # one that must be brought to the layout of its weight


def copies(optimizer: FusedAdamW) -> int:
    with profile(activities=[ProfilerActivity.CPU]) as record:
        optimizer.step()
    return sum(event.count for event in record.key_averages() if event.key == "aten::clone")


def test_a_weight_without_a_gradient_stays():
    made = weights(LAST)
    optimizer = optimizer_of(made)
    for weight in made[1:]:
        weight.grad = torch.ones_like(weight)
    before = [weight.detach().clone() for weight in made]
    optimizer.step()
    assert [identical(*pair) for pair in zip(before, made, strict=True)] == [True, *[False] * (len(made) - 1)]
    optimizer.zero_grad()
    before = [weight.detach().clone() for weight in made]
    optimizer.step()
    assert all(identical(*pair) for pair in zip(before, made, strict=True))


def test_refuses_layouts_in_which_it_would_be_wrong():
    with pytest.raises(ValueError, match=r"must be contiguous or channels last, got strides \(1, 4\)"):
        optimizer_of([nn.Parameter(torch.randn(5, 4).T)])


def test_refuses_weights_that_went_elsewhere():
    """Its views would move the old memory, which no network reads."""
    made = weights(LAST)
    optimizer = optimizer_of(made)
    made[0].data = made[0].data.clone()
    with pytest.raises(RuntimeError, match="moved or replaced"):
        optimizer.step()
