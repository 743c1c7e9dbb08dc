"""ResShift's U-Net and its shifted windows: values of the released program, brute force, and parameter counts."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from rounding import identical
from torch import Tensor, nn

from srbook.accel import accelerate
from srbook.convert import from_released
from srbook.files import load_tensors
from srbook.networks import SwinBlock, SwinLayer, SwinUNet, sinusoidal_embedding
from srbook.networks.swin import relative_offsets, window_regions

TINY = {"width": 32, "multipliers": (1, 1), "blocks": 1, "attention": (0, 1), "size": 16}
TINY |= {"embedding": 32, "heads": 2, "window": 4, "ratio": 2}
TABLES = ("relative_position_index", "attn_mask")


@pytest.fixture(scope="module")
def known(vectors: Path) -> dict[str, Tensor]:
    with np.load(vectors / "resshift_tiny_net.npz") as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored}


def released(name: str, vectors: Path) -> dict[str, Tensor]:
    return load_tensors(vectors / f"resshift_{name}.safetensors")[0]


def with_weights(net: nn.Module, name: str, vectors: Path, number_format: torch.dtype) -> nn.Module:
    net.load_state_dict(from_released("resshift", released(name, vectors)))
    return net.to(number_format).requires_grad_(False)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, 118_593_583),
        ({"halvings": 1}, 118_640_431),  # x2
        ({"condition": 4, "halvings": 2}, 118_714_399),  # inpainting
        ({"channels": 8, "halvings": 3}, 118_931_604),  # faces
    ],
)
def test_parameter_counts_of_the_released_networks(arguments, expected):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in SwinUNet(**arguments).parameters()) == expected


@pytest.mark.parametrize("as_released", [True, False])
@pytest.mark.parametrize(("number_format", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_unet_reproduces_the_released_one_with_either_mask(vectors, known, as_released, number_format, tolerance):
    net = with_weights(SwinUNet(**TINY, as_released=as_released), "tiny_unet", vectors, number_format)
    out = net(known["x"].to(number_format), known["t"], known["lq"].to(number_format))
    expected = known["out" if as_released else "out_correct_mask"]
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=tolerance)
    assert (known["out"] - known["out_correct_mask"]).abs().max() > 1  # the masks matter


def test_layer_reproduces_the_released_one(vectors, known):
    layer = with_weights(SwinLayer(32, 32, 2, 4, 16, ratio=2, as_released=True), "swin_layer", vectors, torch.float64)
    torch.testing.assert_close(layer(known["layer_x"]), known["layer_out"], rtol=0, atol=1e-12)


def test_released_mask_and_offsets(known):
    regions = window_regions(16, 16, 4, 2, as_released=True)
    assert identical(regions[:, :, None] != regions[:, None], known["mask"] != 0)
    assert identical(relative_offsets(4), known["offsets"].long())


def test_time_embedding_is_the_released_one(known):
    ours = sinusoidal_embedding(known["times"].double(), 160, cosines_first=True)
    torch.testing.assert_close(ours, known["embedding"], rtol=0, atol=1e-12)


def test_every_released_weight_is_taken_once_and_unchanged(vectors):
    for name in ("tiny_unet", "swin_layer"):
        state = released(name, vectors)
        taken = [id(tensor) for tensor in from_released("resshift", state).values()]
        assert sorted(taken) == sorted(id(tensor) for key, tensor in state.items() if not key.endswith(TABLES))
    with pytest.raises(ValueError, match=r"missing: blocks\.1\.attn\.proj\.bias; unexpected: z$"):
        from_released("resshift", {key: state[key] for key in state if key != "blocks.1.attn.proj.bias"} | {"z": taken})


def by_hand(block: SwinBlock, x: Tensor) -> Tensor:
    """The attention of one image, pixel by pixel: without shift, mask, or padding, in a grid of windows that starts
    `shift` pixels after the border, and loses what lies outside."""
    attention, side, (height, width) = block.attention, block.side, x.shape[2:]
    grid = list(product(range(height), range(width)))
    query, key, value = attention.qkv(x[0].permute(1, 2, 0)).unflatten(2, (3, attention.heads, -1)).unbind(2)
    window = {place: tuple((each - block.shift) // side for each in place) for place in grid}
    out = torch.empty_like(query)
    for r, c in grid:
        mates = [place for place in grid if window[place] == window[r, c]]
        ways = [(2 * side - 1) * (r - i + side - 1) + c - j + side - 1 for i, j in mates]
        keys, values = (torch.stack([each[place] for place in mates]) for each in (key, value))  # mates, heads, depth
        logits = (query[r, c] * keys).sum(2) / key.shape[-1] ** 0.5 + attention.bias[ways]
        out[r, c] = (logits.softmax(0)[:, :, None] * values).sum(0)
    return attention.out(out.flatten(2)).permute(2, 0, 1)[None]


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("size", [(8, 12), (6, 9), (3, 2)])
def test_windows_of_every_size_against_brute_force(shift: int, size: tuple[int, int]):
    torch.manual_seed(0)
    block = SwinBlock(8, 2, side=4, shift=shift, ratio=2, groups=4).double().requires_grad_(False)
    block.attention.bias.mul_(50)
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    expected = torch.cat([by_hand(block, image) for image in x.split(1)])
    torch.testing.assert_close(block.attend(x), expected, rtol=0, atol=1e-12)


def test_released_windows_ignore_padding_too():
    """The released program cannot take such sizes; what pads them must not be seen in its mode either."""
    for size in ((6, 9), (8, 7)):
        regions = window_regions(*size, 4, 2, as_released=True)
        assert (regions >= 4).sum() == regions.numel() - size[0] * size[1]


def test_shifts_are_those_of_the_released_network():
    with torch.device("meta"):
        net = SwinUNet()
    shifts = [block.shift for block in net.modules() if isinstance(block, SwinBlock)]
    assert shifts == [0, 4] * 3 + [0, 0] * 3 + [0, 4] * 3  # at 8x8, a window is the image


@pytest.mark.parametrize("halvings", [0, 1])
def test_other_sizes_and_conditions(halvings: int):
    torch.manual_seed(0)
    net = SwinUNet(**TINY, channels=5, halvings=halvings).requires_grad_(False)
    net.down[0][0].conv2.weight.normal_()  # fresh blocks pass their input on
    x, condition = torch.randn(2, 5, 10, 22), torch.randn(2, 3, 2**halvings * 10, 2**halvings * 22)
    time = torch.tensor([0.0, 3.0])
    out = net(x, time, condition)
    assert out.shape == x.shape
    assert not torch.allclose(out, net(x, time.flip(0), condition)) and not torch.allclose(
        out, net(x, time, -condition)
    )


def test_faster_layers_fit():
    """The swaps of a CPU find the network's layers, in its three kinds, and change it by rounding only."""
    torch.manual_seed(0)
    net = SwinUNet(width=128, multipliers=(1, 1), blocks=1, attention=(1,), embedding=32, window=4, heads=2, size=8)
    for parameter in net.requires_grad_(False).parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    x, time = torch.randn(1, 3, 8, 16), torch.tensor([2.0])
    expected = net(x, time, x)
    accelerate(net, "cpu")
    swapped = {type(layer).__name__ for layer in net.modules()}
    assert {"FastConvolution", "FoldedDoubling", "FastGroupNorm"} <= swapped
    torch.testing.assert_close(net(x, time, x), expected, rtol=0, atol=1e-4 * expected.std().item())
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(x, time, x)
    assert (rough - expected).std() < 0.05 * expected.std()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"multipliers": ()}, "at least one level, got no multipliers"),
        ({"blocks": 0}, "blocks must be an integer of at least 1, got 0"),
        ({"attention": (2,)}, r"levels from 0 to 1, got \(2,\)"),
        ({"width": 40}, "multiple of groups=32"),
        ({"width": 2, "groups": 1}, "channels must be even and at least 4"),
        ({"embedding": 40}, "channels must be a multiple of groups=32, got 40"),
        ({"heads": 3}, "heads must divide the 32 channels of the attention, got 3"),
        ({"halvings": -1}, "halvings must be an integer of at least 0, got -1"),
        ({"size": 15}, "size must be a multiple of 2, for 2 levels, got 15"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SwinUNet(**TINY | arguments)


def test_bad_inputs_are_refused():
    net, x, time = SwinUNet(**TINY), torch.zeros(1, 3, 4, 6), torch.zeros(1)
    with pytest.raises(ValueError, match=r"must be multiples of 2, got \(4, 5\)"):
        net(x[..., :5], time, x[..., :5])
    with pytest.raises(ValueError, match=r"condition of \(1, 3, 4, 4\) does not fit x of .*: .* 1 times"):
        net(x, time, x[..., :4])
    with pytest.raises(ValueError, match="one number per image"):
        net(x, torch.zeros(2), x)
