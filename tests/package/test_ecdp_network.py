"""ECDP's U-Net and encoder: the released numbers, the maps that are made once, odd sizes, and what is refused."""

import numpy as np
import pytest
import torch
from rounding import identical
from torch.nn.functional import conv2d, interpolate

from srbook.convert import from_released
from srbook.files import load_tensors
from srbook.methods import ECDP
from srbook.networks import GuidedBlock, GuidedUNet, RRDBDecoder, RRDBEncoder, RRDBNet, TimeEmbedding
from srbook.networks.blocks import Doubling
from srbook.networks.time import sinusoidal_embedding

TINY = {"context": 32, "width": 16, "multipliers": (1, 2, 3), "blocks": (1, 2, 1), "time_channels": 16}


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


@pytest.fixture
def known(vectors) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(value) for name, value in np.load(vectors / "ecdp_tiny_net.npz").items()}


@pytest.fixture
def states(vectors) -> dict[str, dict[str, torch.Tensor]]:
    return {part: load_tensors(vectors / f"ecdp_tiny_{part}.safetensors")[0] for part in ("unet", "encoder")}


def released_unet(states, antialias: bool = False) -> GuidedUNet:
    network = GuidedUNet(**TINY, antialias=antialias)
    network.load_state_dict(from_released("ecdp", states["unet"]))
    return network


def released_encoder(states) -> RRDBEncoder:
    encoder = RRDBEncoder(width=16, growth=8, blocks=3)
    encoder.load_state_dict(from_released("ecdp", states["encoder"]))
    return encoder


def fresh(**changes) -> GuidedUNet:
    """A network whose second convolutions are not nearly silent."""
    torch.manual_seed(0)
    network = GuidedUNet(**{**TINY, **changes}).double()
    for block in network.modules():
        if isinstance(block, GuidedBlock):
            torch.nn.init.normal_(block.conv2.weight, std=0.1)
    return network


# Released numbers


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("case", ["", "2"])  # in the second, the deepest level is smaller than the encoder's maps
@torch.no_grad()
def test_the_released_network(known, states, case, antialias, dtype, tolerance):
    network, encoder = released_unet(states, antialias).to(dtype), released_encoder(states).to(dtype)
    x, lr, t = (known[name + case].to(dtype) for name in ("x", "lr", "t"))
    features = torch.cat(encoder.features(lr, [0, 2]), dim=1)
    if case == "":
        close(features.double(), known["feats"], tolerance)
    out = network(x, t, network.prepare(features, tuple(x.shape[-2:])))
    close(out.double(), known[f"out{case}_antialias_{antialias}"], tolerance)


def test_antialiasing_changes_only_what_shrinks(known):
    close(known["out_antialias_True"], known["out_antialias_False"], 1e-12)
    assert (known["out2_antialias_True"] - known["out2_antialias_False"]).abs().max() > 1e-3


def test_the_released_time_embedding(vectors):
    released = {name: torch.as_tensor(value) for name, value in np.load(vectors / "time_embedding_ecdp.npz").items()}
    close(sinusoidal_embedding(released["t"], 128, inclusive=True), released["emb128"], 1e-12)


def test_every_released_tensor_is_taken_once(states):
    for state in states.values():
        assert sorted(map(id, from_released("ecdp", state).values())) == sorted(map(id, state.values()))


def test_a_whole_checkpoint_fits_the_method(states):
    whole = {f"diffusion.network.{name}": tensor for name, tensor in states["unet"].items()}
    whole |= {f"lr_feats.{name}": tensor for name, tensor in states["encoder"].items()}
    whole |= {f"diffusion.{name}": torch.zeros(300) for name in ("betas", "alphas", "alpha_bars")}
    network = {name: value for name, value in TINY.items() if name != "context"}
    method = ECDP(scale=4, encoder={"width": 16, "growth": 8, "blocks": 3}, taps=[0, 2], network=network)
    method.load_state_dict(from_released("ecdp", whole))
    assert identical(method.network.stem.weight, states["unet"]["in_conv.network.weight"])
    assert identical(method.encoder.head.weight, states["encoder"]["conv_first.weight"])


def test_missing_and_unexpected_names(states):
    for part, layer in (("unet", "ups.5.extra_in.network.bias"), ("encoder", "blocks.1.block3.conv5.weight")):
        less = {name: tensor for name, tensor in states[part].items() if name != layer}
        with pytest.raises(ValueError, match=f"released 'ecdp' network; missing: {layer}$"):
            from_released("ecdp", less)
        with pytest.raises(ValueError, match=r"unexpected: z$"):
            from_released("ecdp", states[part] | {"z": torch.zeros(1)})


@pytest.mark.parametrize(
    ("blocks", "count"), [((2, 2, 2, 2), 26_039_302), ((3, 3, 3, 3), 34_256_966)], ids=["released", "paper, CelebA"]
)
def test_parameter_counts_of_the_unet(blocks, count):
    with torch.device("meta"):
        network = GuidedUNet(blocks=blocks)
    assert sum(weight.numel() for weight in network.parameters()) == count


@pytest.mark.parametrize(("blocks", "count"), [(23, 16_548_544), (16, 11_512_576), (8, 5_757_184)])
def test_parameter_counts_of_the_encoder(blocks, count):
    with torch.device("meta"):
        encoder, decoder = RRDBEncoder(blocks=blocks), RRDBDecoder(4)
    assert sum(weight.numel() for weight in encoder.parameters()) == count
    if blocks == 23:  # the network that the program trains first
        assert count + sum(weight.numel() for weight in decoder.parameters()) == 16_661_059


# Maps made once


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [(6, 5), (24, 20), (5, 9), (3, 2)])
def test_mixing_channels_and_resizing_commute(size, antialias):
    """The published order resizes the features first; it costs more."""
    block, features = GuidedBlock(8, 8, 4, 16).double(), torch.randn(2, 16, 6, 5, dtype=torch.float64)
    torch.nn.init.normal_(block.guide.bias)

    def resize(maps: torch.Tensor) -> torch.Tensor:
        return interpolate(maps, size=size, mode="bilinear", align_corners=False, antialias=antialias)

    close(resize(block.guide(features)), block.guide(resize(features)), 1e-12)


def test_prepare_makes_a_map_for_every_block_in_the_order_of_use():
    network, features = fresh(), torch.randn(1, 32, 3, 4, dtype=torch.float64)
    maps = network.prepare(features, (13, 10))
    sizes, channels = [(13, 10), (7, 5), (4, 3)], [16, 32, 48]
    levels = [0, 1, 1, 2, 2, 2, 2, 2, 1, 1, 1, 0, 0]
    assert [m.shape[1:] for m in maps] == [(channels[level], *sizes[level]) for level in levels]
    used = []
    for block in network.modules():
        if isinstance(block, GuidedBlock):
            block.register_forward_pre_hook(lambda block, inputs: used.append((block, inputs[2])))
    network(torch.randn(1, 3, 13, 10, dtype=torch.float64), torch.ones(1, dtype=torch.float64), maps)
    for (block, given), prepared in zip(used, maps, strict=True):
        assert given is prepared
        resized = interpolate(features, size=prepared.shape[-2:], mode="bilinear", align_corners=False)
        close(block.guide(resized), prepared, 1e-12)


def test_the_features_enter_every_block():
    network = fresh()
    x, t = torch.randn(1, 3, 8, 8, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    features = torch.randn(1, 32, 2, 2, dtype=torch.float64, requires_grad=True)
    maps = network.prepare(features, (8, 8))
    gradients = torch.autograd.grad(network(x, t, maps).square().sum(), maps)
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_weights_of_forward_and_of_prepare_are_all_weights():
    network = fresh()
    maps = [m.detach() for m in network.prepare(torch.randn(1, 32, 2, 2).double(), (8, 8))]
    network(torch.randn(1, 3, 8, 8).double(), torch.ones(1).double(), maps).square().sum().backward()
    with_gradient = [id(weight) for weight in network.parameters() if weight.grad is not None]
    assert with_gradient == [id(weight) for weight in network.weights_of_forward()]


# Sizes, start, and refusals


def test_odd_sizes_are_halved_upwards_and_cut_on_the_way_up():
    """A column by hand: 5 becomes 3 and 2; doubled they are 4 and 6, of which 3 and 5 remain."""
    network = fresh()
    seen = []
    for layer in network.modules():
        if isinstance(layer, Doubling | GuidedBlock):
            layer.register_forward_hook(lambda layer, inputs, out: seen.append(tuple(out.shape[-2:])))
    maps = network.prepare(torch.randn(1, 32, 1, 1).double(), (5, 8))
    out = network(torch.randn(1, 3, 5, 8).double(), torch.ones(1).double(), maps)
    assert out.shape == (1, 6, 5, 8)
    down, middle = [(5, 8), (3, 4), (3, 4), (2, 2)], [(2, 2)] * 2
    up = [(2, 2)] * 2 + [(4, 4)] + [(3, 4)] * 3 + [(6, 8)] + [(5, 8)] * 2
    assert seen == down + middle + up


def test_the_network_starts_as_the_program_does():
    torch.manual_seed(0)
    block = GuidedBlock(64, 128, 512, 256)
    bound = (64 * 9) ** -0.5  # of PyTorch's default for conv1
    assert 0.9 * bound < block.conv1.weight.abs().max() <= bound
    assert block.conv2.weight.abs().max() <= 1e-3 * (128 * 9) ** -0.5
    assert block.skip.weight.abs().max() <= 0.1 * 64**-0.5
    network = GuidedUNet(**TINY)
    convolutions = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert all(not layer.bias.any() for layer in convolutions)
    assert network.tail.weight.any()  # the output does not start at zero


def test_a_block_by_hand():
    block = GuidedBlock(8, 12, 4, 5).double()
    torch.nn.init.normal_(block.conv2.weight)
    x, time, guide = (torch.randn(2, *shape).double() for shape in ((8, 4, 4), (4,), (12, 4, 4)))

    def normalized(x: torch.Tensor, groups: int) -> torch.Tensor:
        parts = x.reshape(2, groups, -1)
        parts = (parts - parts.mean(2, keepdim=True)) / (parts.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
        y = parts.reshape(x.shape)
        return y * y.sigmoid()

    y = conv2d(normalized(x, 2), block.conv1.weight, block.conv1.bias, padding=1)
    y = y + (time @ block.time.weight.T + block.time.bias)[:, :, None, None] + guide
    y = conv2d(normalized(y, 3), block.conv2.weight, block.conv2.bias, padding=1)
    close(block(x, time, guide), y + conv2d(x, block.skip.weight, block.skip.bias), 1e-12)


def test_time_embedding_of_another_length():
    assert TimeEmbedding(8, torch.nn.SiLU(), outputs=20)(torch.ones(3)).shape == (3, 20)


def test_encoder_is_the_first_part_of_rrdbnet():
    torch.manual_seed(0)
    network = RRDBNet(4, width=8, growth=4, blocks=3)
    encoder, decoder = RRDBEncoder(8, 4, 3), RRDBDecoder(4, 8)
    own = network.state_dict()
    encoder.load_state_dict({name: own[name] for name in encoder.state_dict()})
    decoder.load_state_dict({name: own[name] for name in decoder.state_dict()})
    lr = torch.rand(1, 3, 5, 6)
    for mine, theirs in zip(encoder.features(lr, [0, 2]), network.features(lr, [0, 2]), strict=True):
        torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(decoder(network.features(lr, [3])[0]), network(lr))


def test_networks_refuse_wrong_inputs():
    with pytest.raises(ValueError, match=r"at least one block for each, got multipliers \(1, 2\) and blocks \(1,\)"):
        GuidedUNet(multipliers=(1, 2), blocks=(1,))
    with pytest.raises(ValueError, match="each of blocks must be an integer of at least 1, got 0"):
        GuidedUNet(multipliers=(1,), blocks=(0,))
    with pytest.raises(ValueError, match="first level must have a multiple of 16 channels, got 24"):
        GuidedUNet(width=24)
    with pytest.raises(ValueError, match="multiple of 4 channels, got 6"):
        GuidedBlock(8, 6, 4, 4)
    with pytest.raises(ValueError, match="taps must be different numbers from 0 to 1"):
        RRDBEncoder(4, 2, 2).features(torch.zeros(1, 3, 4, 4), [2])
    with pytest.raises(ValueError, match="doubles the size some times"):
        RRDBDecoder(3)
    network = GuidedUNet(**TINY)
    maps = network.prepare(torch.zeros(1, 32, 2, 2), (8, 8))
    with pytest.raises(ValueError, match=r"the 13 maps that prepare\(features, \(8, 4\)\) makes, got 13 for \(8, 8\)"):
        network(torch.zeros(1, 3, 8, 4), torch.zeros(1), maps)
    with pytest.raises(ValueError, match=r"the 13 maps .*, got 12"):
        network(torch.zeros(1, 3, 8, 8), torch.zeros(1), maps[1:])
    with pytest.raises(ValueError, match=r"time must have shape \(1,\)"):
        network(torch.zeros(1, 3, 8, 8), torch.zeros(2), maps)


@pytest.mark.parametrize("antialias", [False, True])
def test_half_precision(antialias):
    network = fresh(antialias=antialias).float()
    features, x, t = torch.randn(1, 32, 12, 12), torch.randn(1, 3, 24, 24), torch.tensor([100.0])
    expected = network(x, t, network.prepare(features, (24, 24))).detach()
    with torch.autocast("cpu", torch.bfloat16):
        out = network(x, t, network.prepare(features, (24, 24)))
    assert out.dtype == torch.bfloat16
    close(out.float(), expected, 0.1 * float(expected.abs().max()))
