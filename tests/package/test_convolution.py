"""The three ways of a 3x3 convolution: equal values and gradients, and each where it should be."""

import pytest
import torch
from torch.nn.functional import conv2d

from srbook.networks import convolution
from srbook.networks.convolution import Convolution, _rules, _Winograd

LAST, FIRST = torch.channels_last, torch.contiguous_format
# way, case: channels in and out, images, side, layout, and the rounding error in float32 as a share of the output's
# deviation
WAYS = {
    "direct, few channels": (64, 64, 2, 32, FIRST, 3e-6),
    "direct, small image": (256, 256, 2, 8, FIRST, 3e-6),
    "direct, odd": (128, 128, 2, 33, LAST, 3e-6),
    "tiles of 4": (128, 160, 2, 32, FIRST, 4e-6),
    "tiles of 4, channels last": (160, 128, 2, 32, LAST, 4e-6),
    "tiles of 2": (256, 288, 2, 16, FIRST, 1e-6),
    "tiles of 2, channels last": (288, 256, 3, 14, LAST, 1e-6),
    "one product": (256, 288, 2, 8, LAST, 2e-6),
}


def prepare(way: str) -> tuple[Convolution, torch.Tensor, torch.Tensor, float]:
    """A layer, an input that wants its gradient, a gradient of the output, and the tolerance."""
    inputs, outputs, images, side, layout, tolerance = WAYS[way]
    torch.manual_seed(0)
    layer = Convolution(inputs, outputs).to(memory_format=layout)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(images, inputs, side, side).contiguous(memory_format=layout).requires_grad_()
    return layer, x, torch.randn(images, outputs, side, side), tolerance


@pytest.fixture
def taken(monkeypatch) -> list[str]:
    """The ways that convolutions take from here on, named as in WAYS. Their values need not tell them apart."""
    ways: list[str] = []

    def watch(place, name: str, way: str) -> None:
        function = getattr(place, name)

        def watched(*arguments):
            ways.append(way.format(*arguments))
            return function(*arguments)

        monkeypatch.setattr(place, name, watched)

    watch(torch.nn.Conv2d, "forward", "direct")
    watch(_Winograd, "apply", "tiles of {2}")
    watch(convolution, "linear", "one product")
    return ways


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=pytest.mark.arithmetic) if WAYS[way][3] == 8 else way for way in WAYS]
)
def test_values_and_gradients_are_those_of_a_convolution_in_double(way, taken):
    layer, x, gradient, tolerance = prepare(way)
    y = layer(x)
    y.backward(gradient)
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, layer.weight, layer.bias)]
    expected = conv2d(*exact, padding=1)
    expected.backward(gradient.double())
    assert taken == [way.split(",")[0]]
    assert y.stride() == conv2d(x, layer.weight, padding=1).stride() and x.grad.stride() == x.stride()
    assert layer.weight.grad.stride() == layer.weight.stride()
    pairs = [(y.detach(), expected.detach())]
    pairs += [(one.grad, other.grad) for one, other in zip((x, layer.weight, layer.bias), exact, strict=True)]
    for one, other in pairs:
        assert (one - other).std() < tolerance * other.std()


@pytest.mark.parametrize("layout", [FIRST, LAST])
@pytest.mark.parametrize("tile", [2, 4])
def test_winograds_algorithm_is_exact_in_double(tile, layout):
    """Values, and gradients against finite differences."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 8, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    torch.testing.assert_close(_Winograd.apply(x, weight, tile), conv2d(x, weight, padding=1), rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x, weight: _Winograd.apply(x, weight, tile), (x, weight))


def test_its_rules_take_the_products_that_are_claimed():
    assert [len(_rules(tile, torch.float64).pixels) / tile**2 for tile in (2, 4)] == [4, 2.25]


@pytest.mark.parametrize("way", ["tiles of 4", "tiles of 2, channels last", "one product"])
@pytest.mark.parametrize("frozen", ["weight", "input", "all"])
def test_what_is_frozen_gets_no_gradient(way, frozen):
    layer, x, gradient, _ = prepare(way)
    layer.requires_grad_(frozen == "input")
    x.requires_grad_(frozen == "weight")
    y = layer(x)
    assert y.requires_grad == (frozen != "all")
    if y.requires_grad:
        y.backward(gradient)
    assert (layer.weight.grad is None) == (frozen != "input") and (x.grad is None) == (frozen != "weight")


@pytest.mark.parametrize("way", ["tiles of 4", "tiles of 4, channels last", "tiles of 2", "one product"])
def test_in_half_precision_it_is_a_convolution_of_rounded_numbers(way, taken):
    """Winograd's sums would lose too much there."""
    layer, x, gradient, _ = prepare(way)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        expected = conv2d(x, layer.weight, layer.bias, padding=1)
    assert y.dtype == torch.bfloat16
    assert taken == ["one product" if way == "one product" else "direct"]
    assert (y - expected).float().std() < 1e-3 * expected.float().std()
    ours, theirs = (
        torch.autograd.grad(output, (x, layer.weight, layer.bias), gradient.bfloat16()) for output in (y, expected)
    )
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).std() < 5e-3 * other.std()
