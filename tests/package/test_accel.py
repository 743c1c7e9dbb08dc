"""Swapped layers: the values and gradients of the plain ones, in all that can happen to a network."""

import copy
import math
import pickle

import pytest
import torch
from rounding import identical
from torch import nn
from torch.nn.functional import conv2d
from torch.nn.utils import parametrize

import srbook
from srbook.accel import accelerate, restore
from srbook.accel.convolution import FastConvolution, _rules, _Winograd
from srbook.accel.doubling import FoldedDoubling
from srbook.accel.dropout import FastDropout
from srbook.accel.normalization import FastGroupNorm
from srbook.networks import UNet
from srbook.networks.blocks import Doubling

LAST, FIRST = torch.channels_last, torch.contiguous_format
LAYOUTS = pytest.mark.parametrize("layout", [FIRST, LAST], ids=["first", "last"])


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


def fast(layer: nn.Module) -> nn.Module:
    accelerate(layer, "cpu")
    return layer


def small_unet() -> UNet:
    """With every swap in it."""
    torch.manual_seed(0)
    return UNet(width=128, multipliers=(1, 1), blocks=1, attention=(), groups=8, dropout=0.2)


# Swapping


def test_only_classes_change_and_restore_brings_them_back():
    net = small_unet()
    before = [type(layer) for layer in net.modules()]
    layers, weights, state = list(net.modules()), list(net.parameters()), dict(net.state_dict())
    accelerate(net, "cpu")
    accelerate(net, "cpu")
    assert {FastConvolution, FoldedDoubling, FastGroupNorm, FastDropout} < {type(layer) for layer in net.modules()}
    assert all(one is other for one, other in zip(net.modules(), layers, strict=True))
    assert all(one is other for one, other in zip(net.parameters(), weights, strict=True))
    assert identical(net.state_dict(), state)
    restore(net)
    assert [type(layer) for layer in net.modules()] == before
    assert not any("plain_class" in vars(layer) for layer in net.modules())
    restore(net)


@pytest.mark.parametrize("device", ["cuda", "meta", torch.device("cuda", 1)])
def test_nothing_is_swapped_for_other_devices(device):
    net = small_unet()
    accelerate(net, device)
    assert not any("plain_class" in vars(layer) for layer in net.modules())


@pytest.mark.arithmetic
@LAYOUTS
def test_a_swapped_network_computes_the_same(layout):
    net = small_unet().double().to(memory_format=layout).eval()
    x, time = torch.randn(2, 6, 12, 20, dtype=torch.float64), torch.rand(2, dtype=torch.float64)
    x = x.contiguous(memory_format=layout).requires_grad_()
    inputs = [x, *net.parameters()]
    results = []
    for change in (restore, lambda net: accelerate(net, "cpu")):
        change(net)
        y = net(x, time)
        results.append([y.detach(), *torch.autograd.grad(y.square().sum(), inputs)])
    for plain, swapped in zip(*results, strict=True):
        close(swapped, plain, 1e-9 * float(plain.abs().max()))


def test_copies_pickles_and_loaded_states_go_on():
    net = small_unet().eval()
    x, time = torch.randn(1, 6, 8, 8), torch.rand(1)
    with torch.no_grad():
        expected = net(x, time)
        accelerate(net, "cpu")
        for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert type(other.grow[0]) is FoldedDoubling and other.grow[0] is not net.grow[0]
            close(other(x, time), expected, 1e-4)
            restore(other)
            assert type(other.grow[0]) is Doubling
        state = {name: tensor / 2 for name, tensor in net.state_dict().items()}
        net.load_state_dict(state)
        plain = UNet(width=128, multipliers=(1, 1), blocks=1, attention=(), groups=8).eval()
        plain.load_state_dict(state)
        close(net(x, time), plain(x, time), 1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_swapped_network_may_change_its_type(dtype):
    net = fast(small_unet()).to(dtype)
    x = torch.randn(1, 6, 48, 48, dtype=dtype).contiguous(memory_format=LAST)
    out = net(x, torch.rand(1, dtype=dtype))
    out.float().square().sum().backward()
    assert out.dtype == dtype and all(weight.grad is not None for weight in net.parameters())


def test_a_swapped_network_may_move():
    """To the one other device that is everywhere; it computes shapes only."""
    net = fast(small_unet()).to("meta")
    out = net(torch.empty(1, 6, 48, 48, device="meta"), torch.empty(1, device="meta"))
    assert out.shape == (1, 3, 48, 48)


def test_hooks_go_on():
    layer, calls = nn.Conv2d(128, 128, 3, padding=1), []
    layer.register_forward_hook(lambda *_: calls.append("forward"))
    layer.register_full_backward_hook(lambda *_: calls.append("backward"))
    fast(layer)(torch.randn(2, 128, 32, 32, requires_grad=True)).sum().backward()
    assert type(layer) is FastConvolution and calls == ["forward", "backward"]


class Negated(nn.GroupNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -super().forward(x)


class Shifted(Doubling):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 1


def parametrized() -> nn.Module:
    layer = nn.Conv2d(128, 128, 3, padding=1)
    parametrize.register_parametrization(layer, "weight", nn.Tanh())
    return layer


@pytest.mark.parametrize(
    "make",
    [
        parametrized,
        lambda: Negated(4, 8),
        lambda: Shifted(4),
        lambda: nn.GroupNorm(4, 8, affine=False),
        lambda: nn.Dropout(0.5, inplace=True),
        lambda: nn.Conv2d(64, 128, 3, padding=1),
        lambda: nn.Conv2d(128, 128, 3),
        lambda: nn.Conv2d(128, 128, 3, stride=2, padding=1),
        lambda: nn.Conv2d(128, 128, 3, padding=1, groups=2),
        lambda: nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect"),
        lambda: nn.Conv2d(128, 128, 3, padding="same"),
        lambda: nn.Conv2d(128, 128, 1),
    ],
)
def test_other_layers_are_left_alone(make):
    layer = make()
    kind = type(layer)
    assert type(fast(layer)) is kind


def test_upscale_swaps():
    method = srbook.build("sr3-tiny")
    method.upscale(torch.rand(1, 3, 8, 8), steps=1)
    assert type(method.network.grow[0]) is FoldedDoubling


def test_the_trainer_swaps():
    pytest.importorskip("accelerate")
    from srbook.training import Trainer, TrainingConfig

    method = srbook.build("sr3-tiny")
    Trainer(method, [], TrainingConfig(steps=1), device="cpu")
    assert type(method.network.grow[0]) is FoldedDoubling


# Convolution

# case: channels in and out, images, sides, layout, and the rounding error in float32 as a share of the output's
# deviation
CASES = {
    "direct, small image": (128, 128, 2, (8, 8), FIRST, 3e-6),
    "direct, odd": (128, 128, 2, (33, 32), LAST, 3e-6),
    "tiles of 4": (128, 160, 2, (32, 36), FIRST, 4e-6),
    "tiles of 4, channels last": (160, 128, 2, (36, 32), LAST, 4e-6),
    "tiles of 2": (256, 288, 2, (16, 18), FIRST, 1e-6),
    "tiles of 2, channels last": (288, 256, 3, (14, 14), LAST, 1e-6),
}


def prepare(case: str, bias: bool = True) -> tuple[nn.Conv2d, torch.Tensor, torch.Tensor, float]:
    """A swapped layer, an input that wants its gradient, a gradient of the output, and the tolerance."""
    inputs, outputs, images, sides, layout, tolerance = CASES[case]
    torch.manual_seed(0)
    layer = fast(nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias).to(memory_format=layout))
    x = torch.randn(images, inputs, *sides).contiguous(memory_format=layout).requires_grad_()
    return layer, x, torch.randn(images, outputs, *sides), tolerance


@pytest.fixture
def taken(monkeypatch) -> list[str]:
    """The ways that convolutions take from here on, named as in CASES. Their values need not tell them apart."""
    ways: list[str] = []

    def watch(place, name: str, way: str) -> None:
        function = getattr(place, name)

        def watched(*arguments, **options):
            ways.append(way.format(*arguments))
            return function(*arguments, **options)

        monkeypatch.setattr(place, name, watched)

    watch(srbook.accel.convolution, "conv2d", "direct")
    watch(_Winograd, "apply", "tiles of {2}")
    return ways


@pytest.mark.parametrize(
    ("case", "bias"),
    [pytest.param(case, True, marks=pytest.mark.arithmetic if "small" in case else ()) for case in CASES]
    + [("tiles of 4, channels last", False)],
)
def test_convolution_has_the_values_and_gradients_of_one_in_double(case, bias, taken):
    layer, x, gradient, tolerance = prepare(case, bias)
    y = layer(x)
    y.backward(gradient)
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, *layer.parameters())]
    expected = conv2d(*exact, padding=1)
    expected.backward(gradient.double())
    assert taken == [case.split(",")[0]]
    assert y.stride() == conv2d(x, layer.weight, padding=1).stride() and x.grad.stride() == x.stride()
    assert layer.weight.grad.stride() == layer.weight.stride()
    pairs = [(y.detach(), expected.detach())]
    pairs += [(one.grad, other.grad) for one, other in zip((x, *layer.parameters()), exact, strict=True)]
    for one, other in pairs:
        assert (one - other).std() < tolerance * other.std()


@LAYOUTS
@pytest.mark.parametrize("tile", [2, 4])
def test_winograds_algorithm_is_exact_in_double(tile, layout):
    """Values, and gradients against finite differences."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 8, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    close(_Winograd.apply(x, weight, tile), conv2d(x, weight, padding=1), 1e-12)
    assert torch.autograd.gradcheck(lambda x, weight: _Winograd.apply(x, weight, tile), (x, weight))


def test_its_rules_take_the_products_that_are_claimed():
    assert [len(_rules(tile, torch.float64).pixels) / tile**2 for tile in (2, 4)] == [4, 2.25]


@pytest.mark.parametrize("case", ["tiles of 4", "tiles of 2, channels last"])
@pytest.mark.parametrize("frozen", ["weight", "input", "all"])
def test_what_is_frozen_gets_no_gradient(case, frozen):
    layer, x, gradient, _ = prepare(case)
    layer.requires_grad_(frozen == "input")
    x.requires_grad_(frozen == "weight")
    y = layer(x)
    assert y.requires_grad == (frozen != "all")
    if y.requires_grad:
        y.backward(gradient)
    assert (layer.weight.grad is None) == (frozen != "input") and (x.grad is None) == (frozen != "weight")


@pytest.mark.parametrize("case", ["tiles of 4", "tiles of 2"])
def test_convolution_is_direct_in_half_precision(case, taken):
    """Winograd's sums would lose too much there."""
    layer, x, _, _ = prepare(case)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    assert layer.double()(x.double()).dtype == torch.float64
    assert taken == ["direct"] * 3


# Doubling


@LAYOUTS
@pytest.mark.parametrize("channels", [4, 64], ids=["folded", "few pixels"])
def test_doubling_is_the_convolution_of_equal_pixels(layout, channels):
    torch.manual_seed(0)
    layer = Doubling(channels).double().to(memory_format=layout)
    x = torch.randn(2, channels, 5, 3, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    expected = layer(x)
    actual = fast(layer)(x)
    assert type(layer) is FoldedDoubling and actual.is_contiguous(memory_format=layout)
    close(actual.detach(), expected.detach(), 1e-12)
    weights = torch.randn(expected.shape, dtype=torch.float64)
    inputs = [x, layer.weight, layer.bias]
    for one, other in zip(
        torch.autograd.grad(actual, inputs, weights), torch.autograd.grad(expected, inputs, weights), strict=True
    ):
        close(one, other, 1e-11)


# Group normalization


@pytest.mark.arithmetic
@pytest.mark.parametrize("frozen", [False, True])
@LAYOUTS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 3e-3), (torch.float32, 1e-6)])
def test_group_norm_and_its_gradients_are_those_of_torch_in_double(dtype, tolerance, layout, frozen):
    """The image's gradient is rounded to its type once; those of the weights stay in float32."""
    torch.manual_seed(0)
    norm = fast(nn.GroupNorm(4, 16))
    assert type(norm) is FastGroupNorm
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    norm.requires_grad_(not frozen)
    exact = nn.GroupNorm(4, 16).double()
    exact.load_state_dict(norm.state_dict())
    x = (3 + 2 * torch.randn(2, 16, 6, 10)).to(dtype, memory_format=layout).requires_grad_()
    gradient = torch.randn(2, 16, 6, 10).to(dtype)
    wide = x.detach().double().requires_grad_()
    y, expected = norm(x), exact(wide)
    assert y.dtype == dtype
    y.backward(gradient)
    expected.backward(gradient.double())
    pairs = [(y, expected), (x.grad, wide.grad)]
    if frozen:
        assert norm.weight.grad is None and norm.bias.grad is None
    else:
        for one, other in zip(norm.parameters(), exact.parameters(), strict=True):
            torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-4, atol=1e-4)
    for one, other in pairs:
        error = (one.detach().double() - other.detach()).norm() / other.detach().norm()
        assert error < tolerance


# Dropout


@pytest.mark.parametrize("layout", [FIRST, LAST, None], ids=["first", "last", "with gaps"])
def test_dropout_drops_its_share_and_keeps_the_mean(layout):
    torch.manual_seed(0)
    drop = fast(nn.Dropout(0.2))
    x = torch.ones(3, 7, 101, 99) if layout is not None else torch.ones(3, 7, 101, 198)[..., ::2]
    x = x.contiguous(memory_format=layout) if layout is not None else x
    x.requires_grad_()
    y = drop(x)
    assert type(drop) is FastDropout and y.stride() == torch.empty_like(x).stride()
    assert y.detach().unique().tolist() == pytest.approx([0.0, 1.25], abs=1e-4)
    for axis in ((0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)):  # no row, column, channel, or image is special
        share = (y == 0).double().mean(dim=axis)
        assert (share - 0.2).abs().max() < 5 * math.sqrt(0.16 * len(share) / y.numel())
    flat = (y.detach().flatten() == 0).double() - 0.2
    assert abs((flat[1:] * flat[:-1]).mean()) < 5 * 0.16 / math.sqrt(len(flat))  # neighbors are independent
    y.sum().backward()
    assert identical(x.grad, y.detach())
    assert drop.eval()(x) is x


@pytest.mark.parametrize(("share", "kept"), [(0.0, 1.0), (1 - 1e-9, 0.0), (1.0, 0.0)])
def test_dropout_at_the_ends(share, kept):
    """A share that would round to all is left to torch."""
    torch.manual_seed(0)
    assert identical(fast(nn.Dropout(share))(torch.ones(100)), torch.full((100,), kept))


def test_to_restore_leaves_a_layer_that_was_parametrized_since_alone():
    layer = fast(nn.Conv2d(128, 128, 3, padding=1))
    x = torch.rand(1, 128, 8, 8)
    nn.utils.parametrizations.weight_norm(layer)
    before = layer(x)
    restore(layer)
    torch.testing.assert_close(layer(x), before)
