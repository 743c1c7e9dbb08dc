"""The U-Nets: values of the released programs, parameter counts, structure, and refused arguments."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from srbook.convert import from_released
from srbook.files import load_tensors
from srbook.networks import RRDBNet, SRDiffUNet, UNet
from srbook.networks.blocks import Doubling, SelfAttention
from srbook.networks.time import TimeEmbedding, sinusoidal_embedding


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def close(actual, expected, tolerance):
    expected = torch.as_tensor(expected)
    torch.testing.assert_close(actual.to(expected), expected, rtol=0, atol=tolerance)


def tiny(family: str, vectors, dtype: torch.dtype) -> UNet:
    """The 16-channel network of the stored numbers, with the released program's weights."""
    net = UNet(width=16, multipliers=(1, 2, 2), blocks=1, attention=(1,), groups=8, time_activation=family == "ddpm")
    state, _ = load_tensors(vectors / f"{family}_tiny_unet.safetensors")
    net.load_state_dict(from_released(family, state))
    return net.to(dtype).eval()


def numbers(name: str, vectors) -> dict[str, torch.Tensor]:
    return {key: torch.as_tensor(value) for key, value in np.load(vectors / name).items()}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, 97_807_491),  # SR3, 16 to 128
        ({"multipliers": (1, 2, 4, 8, 16), "blocks": 1, "attention": (), "groups": 16}, 155_334_339),  # SR3, 64 to 512
        ({"multipliers": (1, 1, 2, 2, 4, 4), "time_activation": True}, 26_451_587),  # the SR3 program's DDPM
        ({"inputs": 3}, 97_805_763),  # unconditional SR3
        ({"inputs": 3, "multipliers": (1, 1, 2, 2, 4, 4)}, 26_449_859),  # unconditional DDPM
        ({"attention": ()}, 92_556_931),  # ESRDF at 160 pixels: no level has 16
    ],
)
def test_parameter_counts_of_the_released_networks(arguments, expected):
    with torch.device("meta"):
        assert parameters(UNet(**arguments)) == expected


@pytest.mark.parametrize(
    ("net", "encoder", "expected"),
    [  # scale, tapped channels, multipliers; RRDBNet's scale, features, growth, blocks
        ((8, 3 * 32, 64, (1, 2, 2, 4)), (8, 32, 16, 8), 10_545_795 + 1_488_003),  # CelebA
        ((4, 3 * 32, 64, (1, 2, 3, 4)), (4, 32, 16, 8), 11_755_267 + 1_478_755),  # DIV2K as released
        ((4, 6 * 64, 64, (1, 2, 3, 4)), (4, 64, 32, 17), 12_934_915 + 12_381_443),  # DIV2K with its encoder's file
    ],
)
def test_parameter_counts_of_srdiff(net, encoder, expected):
    with torch.device("meta"):
        assert parameters(SRDiffUNet(*net)) + parameters(RRDBNet(*encoder)) == expected


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_unet_reproduces_the_released_sr3(vectors, dtype, tolerance):
    known = numbers("sr3_ddpm_tiny_net.npz", vectors)
    with torch.no_grad():
        out = tiny("sr3", vectors, dtype)(known["x"].to(dtype), known["noise_level"][:, 0])
    assert out.dtype == dtype
    close(out, known["sr3_out"], tolerance)


def test_unet_reproduces_the_released_ddpm(vectors):
    known = numbers("sr3_ddpm_tiny_net.npz", vectors)
    with torch.no_grad():
        close(tiny("ddpm", vectors, torch.float32)(known["x"].float(), known["t"]), known["ddpm_out"], 1e-5)


def test_unet_reproduces_ddpm_in_double_with_its_rounded_frequencies(vectors, monkeypatch):
    """The released program keeps its frequencies in single precision, and so do its numbers."""
    known = numbers("sr3_ddpm_tiny_net.npz", vectors)
    state, _ = load_tensors(vectors / "ddpm_tiny_unet.safetensors")
    rounded = state["time_mlp.0.inv_freq"].double()
    close(rounded, 10000.0 ** (-torch.arange(8, dtype=torch.float64) / 8), 1e-7)

    def embedding(time, channels, **_):
        angles = time[:, None] * rounded
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    monkeypatch.setattr("srbook.networks.time.sinusoidal_embedding", embedding)
    with torch.no_grad():
        close(tiny("ddpm", vectors, torch.float64)(known["x"], known["t"]), known["ddpm_out"], 1e-10)


def test_time_embeddings_of_the_released_programs(vectors):
    known = numbers("time_embedding_sr3_ddpm.npz", vectors)
    close(sinusoidal_embedding(known["noise_level"][:, 0], 64), known["sr3_emb64"][:, 0], 1e-12)
    other = numbers("time_embedding_srdiff.npz", vectors)
    close(sinusoidal_embedding(other["t"], 64, inclusive=True), other["emb64"], 1e-12)
    # DDPM's frequencies are rounded to single precision, which 1999 steps turn into 1999 * 6e-8.
    close(sinusoidal_embedding(known["t"].double(), 64), known["ddpm_emb64"], 1999 * 2**-24)


def test_sinusoidal_embedding_is_its_formula():
    time = torch.tensor([0.0, 0.37, 12.0], dtype=torch.float64)
    for inclusive, frequencies in ((False, [1.0, 0.01]), (True, [1.0, 1e-4])):
        expected = [[math.sin(t * f) for f in frequencies] + [math.cos(t * f) for f in frequencies] for t in time]
        close(sinusoidal_embedding(time, 4, inclusive=inclusive), torch.tensor(expected).double(), 1e-7)
    close(sinusoidal_embedding(torch.tensor([7]), 4), sinusoidal_embedding(torch.tensor([7.0]), 4), 1e-7)


def test_time_embedding_keeps_steps_apart_in_half_precision():
    """bfloat16 cannot tell 700 from 701, but the sines of both can be told apart."""
    embed = TimeEmbedding(16, nn.Identity()).bfloat16()
    embed.layers = nn.Sequential(nn.Linear(16, 16, bias=False).bfloat16())
    nn.init.eye_(embed.layers[0].weight)
    with torch.no_grad():
        out = embed(torch.tensor([700, 701]))
    assert out.dtype == torch.bfloat16
    close(out[:, 0], torch.tensor([math.sin(700), math.sin(701)]), 2**-8)


@pytest.mark.arithmetic
def test_self_attention_is_its_formula():
    torch.manual_seed(0)
    attention, x = SelfAttention(6, 3).double(), torch.randn(2, 6, 3, 4, dtype=torch.float64)
    normal = attention.norm(x)
    query, key, value = torch.einsum("oc,nchw->nohw", attention.qkv.weight[..., 0, 0], normal).flatten(2).chunk(3, 1)
    weights = (torch.einsum("nci,ncj->nij", query, key) / math.sqrt(6)).softmax(dim=2)
    mixed = torch.einsum("nij,ncj->nci", weights, value).reshape(x.shape)
    expected = x + torch.einsum("oc,nchw->nohw", attention.out.weight[..., 0, 0], mixed)
    close(attention(x), expected + attention.out.bias[:, None, None], 1e-12)


def test_attention_lies_where_it_is_asked_for():
    with torch.device("meta"):
        net = UNet(width=8, multipliers=(1, 2, 4), blocks=2, attention=(1,), groups=4)

    def levels(stages):
        return [[isinstance(block.attention, SelfAttention) for block in stage] for stage in stages]

    assert levels(net.down) == [[False] * 2, [True] * 2, [False] * 2]
    assert levels(net.up) == [[False] * 3, [True] * 3, [False] * 3]
    assert levels([net.middle]) == [[True, False]]


def test_unet_starts_orthogonal_without_biases():
    torch.manual_seed(0)
    net = UNet(width=8, multipliers=(1, 2), blocks=1, attention=(), groups=4)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            rows = layer.weight.detach().flatten(1).double()
            product = rows @ rows.T if rows.shape[0] <= rows.shape[1] else rows.T @ rows
            close(product, torch.eye(len(product)), 1e-5)
            assert layer.bias is None or not layer.bias.any()


def test_doubling_is_the_convolution_of_equal_pixels():
    torch.manual_seed(0)
    layer, x = Doubling(4).double(), torch.randn(2, 4, 5, 3, dtype=torch.float64)
    large = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    close(layer(x).detach(), torch.conv2d(large, layer.weight, layer.bias, padding=1).detach(), 1e-12)


def test_every_weight_matters_and_dropout_acts_in_training_only():
    torch.manual_seed(0)
    net = UNet(width=8, multipliers=(1, 2), blocks=1, attention=(1,), groups=4, dropout=0.5)
    x, time = torch.randn(2, 6, 8, 12), torch.tensor([0.2, 0.9])
    net(x, time).square().sum().backward()
    assert [name for name, weight in net.named_parameters() if not weight.grad.any()] == []
    assert (net(x, time) - net(x, time)).abs().max() > 0.01
    net.eval()
    close(net(x, time), net(x, time).detach(), 1e-5)
    close(net(x, time)[1:], net(x[1:], time[1:]).detach(), 1e-5)  # images do not see each other


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"multipliers": ()}, "at least one level"),
        ({"blocks": 0}, "blocks must be an integer of at least 1, got 0"),
        ({"attention": (5,)}, "levels from 0 to 4"),
        ({"width": 48}, "multiple of groups=32"),
    ],
)
def test_unet_refuses_impossible_shapes(arguments, message):
    with pytest.raises(ValueError, match=message):
        UNet(**arguments)


def test_unet_refuses_wrong_inputs():
    net = UNet(width=8, multipliers=(1, 2, 2), blocks=1, attention=(), groups=4)
    with pytest.raises(ValueError, match=r"multiples of 4, got \(8, 6\)"):
        net(torch.zeros(2, 6, 8, 6), torch.zeros(2))
    for time in (torch.zeros(2, 1), torch.zeros(3), torch.tensor(0.5)):
        with pytest.raises(ValueError, match=r"time must have shape \(2,\)"):
            net(torch.zeros(2, 6, 8, 8), time)


def test_sinusoidal_embedding_refuses_wrong_inputs():
    for channels in (2, 7):
        with pytest.raises(ValueError, match="even and at least 4"):
            sinusoidal_embedding(torch.zeros(1), channels)
    with pytest.raises(ValueError, match=r"shape \(N,\)"):
        sinusoidal_embedding(torch.zeros(1, 1), 8)


def tiny_srdiff(vectors, dtype: torch.dtype) -> SRDiffUNet:
    net = SRDiffUNet(4, 16, width=16, multipliers=(1, 2, 2))
    state, _ = load_tensors(vectors / "srdiff_tiny_unet.safetensors")
    net.load_state_dict(from_released("srdiff", state))
    return net.to(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_srdiff_from_low_resolution_image_to_output(vectors, dtype, tolerance):
    """Encoder, tapped maps, and denoiser together, with the released program's weights."""
    known = numbers("srdiff_tiny_net.npz", vectors)
    state, _ = load_tensors(vectors / "srdiff_tiny_rrdb.safetensors")
    encoder = RRDBNet(4, width=8, growth=4, blocks=5)
    encoder.load_state_dict(from_released("rrdb", state))
    with torch.no_grad():
        maps = encoder.to(dtype).features((known["lr"].to(dtype) + 1) / 2, known["tapped"].tolist())
        out = tiny_srdiff(vectors, dtype)(known["x"].to(dtype), known["t"], torch.cat(maps, dim=1))
    assert out.dtype == dtype
    close(out, known["unet_out"], tolerance)


def test_every_weight_of_srdiff_matters():
    torch.manual_seed(0)
    net = SRDiffUNet(2, 5, width=8, multipliers=(1, 2, 3))
    net(torch.randn(2, 3, 8, 12), torch.tensor([3, 88]), torch.randn(2, 5, 4, 6)).square().sum().backward()
    assert [name for name, weight in net.named_parameters() if not weight.grad.any()] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"multipliers": (1,)}, r"at least two and start with 1, got \(1,\)"),
        ({"multipliers": (2, 4)}, "start with 1"),
        ({"scale": 3}, "scale must be even"),
        ({"scale": 0}, "scale must be an integer of at least 1, got 0"),
    ],
)
def test_srdiff_refuses_impossible_shapes(arguments, message):
    with pytest.raises(ValueError, match=message):
        SRDiffUNet(**({"scale": 4, "context": 8} | arguments))


@pytest.mark.parametrize(
    ("image", "time", "features", "message"),
    [
        ((1, 3, 8, 6), 1, (1, 5, 4, 3), r"multiples of 4, and at least 8, got \(8, 6\)"),
        ((1, 3, 8, 8), 1, (1, 5, 4, 2), r"features of \(4, 2\) at x2 do not fit an image of \(8, 8\)"),
        ((2, 3, 8, 8), 1, (2, 5, 4, 4), r"time must have shape \(2,\)"),
    ],
)
def test_srdiff_refuses_wrong_inputs(image, time, features, message):
    net = SRDiffUNet(2, 5, width=4, multipliers=(1, 1, 1))
    with pytest.raises(ValueError, match=message):
        net(torch.zeros(image), torch.zeros(time), torch.zeros(features))
