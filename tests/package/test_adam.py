"""AdamW for channels last: the steps of torch's plain one, whatever the layouts."""

import pytest
import torch
from rounding import identical
from torch import nn
from torch.profiler import ProfilerActivity, profile

from srbook.training.adam import FusedAdamW

LAST, FIRST = torch.channels_last, torch.contiguous_format
SETTINGS = {"lr": 1e-2, "betas": (0.8, 0.9), "weight_decay": 0.1}


def weights(layout: torch.memory_format) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(6, 5, 3, 3), (6, 5, 1, 1), (1, 5, 3, 3), (6, 1, 3, 3), (4, 7), (3,)]
    made = [torch.randn(shape, generator=generator) for shape in shapes]
    return [nn.Parameter(one.contiguous(memory_format=layout) if one.dim() == 4 else one) for one in made]


@pytest.mark.parametrize("gradients", [FIRST, LAST])
@pytest.mark.parametrize("layout", [FIRST, LAST])
def test_steps_are_those_of_torchs_loop(layout, gradients):
    """torch's own fused kernel is wrong where the layouts of weights and gradients differ."""
    ours, theirs = weights(layout), weights(FIRST)
    optimizer, reference = FusedAdamW(ours, **SETTINGS), torch.optim.AdamW(theirs, foreach=False, **SETTINGS)
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            other.grad = torch.randn_like(other)
            one.grad = other.grad.contiguous(memory_format=gradients) if one.dim() == 4 else other.grad.clone()
        optimizer.step()
        reference.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
        for name in ("exp_avg", "exp_avg_sq"):
            average = optimizer.state[one][name]
            torch.testing.assert_close(average, reference.state[other][name], rtol=1e-6, atol=1e-9)
            assert average.stride() == one.stride()


def copies(optimizer: torch.optim.Optimizer) -> int:
    with profile(activities=[ProfilerActivity.CPU]) as record:
        optimizer.step()
    return sum(event.count for event in record.key_averages() if event.key == "aten::clone")


def test_no_gradient_is_copied():
    optimizer = FusedAdamW(weights(LAST), **SETTINGS)
    for weight in optimizer.param_groups[0]["params"]:
        weight.grad = torch.randn_like(weight)
    assert copies(optimizer) == 0
    optimizer.param_groups[0]["params"][0].grad = torch.randn(6, 5, 3, 3)
    assert copies(optimizer) == 1  # one that must be brought to the layout of its weight


@pytest.mark.parametrize("what", ["weight", "average"])
def test_refuses_layouts_in_which_it_would_be_wrong(what):
    weight = nn.Parameter(torch.randn(4, 5).T) if what == "weight" else weights(LAST)[0]
    optimizer = FusedAdamW([weight], **SETTINGS)
    weight.grad = torch.randn_like(weight)
    if what == "average":
        optimizer.step()
        optimizer.state[weight]["exp_avg"] = optimizer.state[weight]["exp_avg"].contiguous()
    before = weight.detach().clone()
    with pytest.raises(ValueError, match="must be contiguous or channels last"):
        optimizer.step()
    assert identical(weight, before)
