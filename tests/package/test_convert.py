"""Names of released weights: every tensor is taken, and what does not fit is named."""

import numpy as np
import pytest
import torch

from srbook.convert import from_released
from srbook.files import load_tensors
from srbook.networks import RRDBNet

RELEASED = {"sr3": "sr3_tiny_unet", "ddpm": "ddpm_tiny_unet", "rrdb": "srdiff_tiny_rrdb", "srdiff": "srdiff_tiny_unet"}
PREFIX = {"sr3": "denoise_fn", "ddpm": "denoise_fn", "rrdb": "rrdb", "srdiff": "denoise_fn"}
# A layer of each family whose absence must be noticed.
LAYER = {
    "sr3": "mid.0.attn.qkv.weight",
    "ddpm": "downs.3.res_block.mlp.1.bias",
    "rrdb": "RRDB_trunk.2.RDB3.conv5.weight",
    "srdiff": "ups.1.2.conv.0.bias",
}


@pytest.fixture(params=sorted(RELEASED))
def released(request, vectors) -> tuple[str, dict[str, torch.Tensor]]:
    state, _ = load_tensors(vectors / f"{RELEASED[request.param]}.safetensors")
    return request.param, state


def test_every_released_tensor_is_taken_once_and_unchanged(released):
    family, state = released
    taken = [id(tensor) for tensor in from_released(family, state).values()]
    weights = [id(tensor) for name, tensor in state.items() if not name.endswith("inv_freq")]
    assert sorted(taken) == sorted(weights)


def test_a_whole_checkpoint_is_taken(released):
    family, state = released
    whole = {f"{PREFIX[family]}.{name}": tensor for name, tensor in state.items()} | {"betas": torch.zeros(3)}
    ours, expected = from_released(family, whole), from_released(family, state)
    assert ours.keys() == expected.keys()
    assert all(ours[name] is expected[name] for name in ours)


def test_srdiffs_checkpoint_holds_two_networks(vectors):
    parts = {"denoise_fn": "srdiff_tiny_unet", "rrdb": "srdiff_tiny_rrdb"}
    states = {prefix: load_tensors(vectors / f"{name}.safetensors")[0] for prefix, name in parts.items()}
    whole = {f"{prefix}.{name}": tensor for prefix, state in states.items() for name, tensor in state.items()}
    for family, prefix in (("srdiff", "denoise_fn"), ("rrdb", "rrdb")):
        taken = [id(tensor) for tensor in from_released(family, whole).values()]
        assert sorted(taken) == sorted(id(tensor) for tensor in states[prefix].values())


def test_missing_and_unexpected_names_are_named(released):
    family, state = released
    less = {name: tensor for name, tensor in state.items() if name != LAYER[family]}
    with pytest.raises(ValueError, match=f"released '{family}' network; missing: {LAYER[family]}$"):
        from_released(family, less)
    with pytest.raises(ValueError, match=r"network; unexpected: a\.b, z$"):
        from_released(family, state | {"z": torch.zeros(1), "a.b": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"missing: .*, and \d+ more; unexpected: z$"):
        from_released(family, {"z": torch.zeros(1)})


def test_a_hole_in_a_list_is_missing(vectors):
    state, _ = load_tensors(vectors / "sr3_tiny_unet.safetensors")
    holed = {name: tensor for name, tensor in state.items() if not name.startswith("ups.4.")}
    with pytest.raises(ValueError, match=r"missing: ups\.4\.res_block"):
        from_released("sr3", holed)


def test_one_kind_is_not_taken_for_another(vectors):
    state, _ = load_tensors(vectors / "sr3_tiny_unet.safetensors")
    with pytest.raises(ValueError, match=r"missing: time_mlp\.1\.weight.*unexpected: .*noise_func"):
        from_released("ddpm", state)


def test_unknown_family():
    known = "ddpm, ecdp, irsde, resshift, rrdb, sr3, srdiff, vqgan"
    with pytest.raises(ValueError, match=f"unknown family 'edm'; choose from {known}"):
        from_released("edm", {})


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_rrdb_reproduces_srdiffs_encoder(vectors, dtype, tolerance):
    """SRDiff's encoder takes [-1, 1] and clips its image; between the two it is RRDBNet."""
    known = {key: torch.as_tensor(value) for key, value in np.load(vectors / "srdiff_tiny_net.npz").items()}
    state, _ = load_tensors(vectors / "srdiff_tiny_rrdb.safetensors")
    net = RRDBNet(4, width=8, growth=4, blocks=5)
    net.load_state_dict(from_released("rrdb", state))
    net, lr = net.to(dtype), (known["lr"].to(dtype) + 1) / 2
    with torch.no_grad():
        maps, tapped = net.features(lr, range(6)), net.features(lr, known["tapped"].tolist())
        image = net(lr).clamp(0, 1) * 2 - 1
    torch.testing.assert_close(torch.stack(maps).double(), known["feats"], rtol=0, atol=tolerance)
    torch.testing.assert_close(torch.stack(tapped).double(), known["feats"][[2, 5]], rtol=0, atol=tolerance)
    torch.testing.assert_close(image.double(), known["rrdb_out"], rtol=0, atol=tolerance)
    assert (image == -1).any() and (image > -1).any()  # the clipping hides a part only


def test_rrdb_of_every_magnification_is_converted():
    """x8 has a third doubling; our names of all tensors come out, each with its shape."""
    with torch.device("meta"):
        ours = RRDBNet(8, width=8, growth=4, blocks=2).state_dict()
    back = {"head": "conv_first", "trunk": "trunk_conv", "refine": "HRconv", "tail": "conv_last"}
    released = {}
    for name, tensor in ours.items():
        first, *rest, part = name.split(".")
        if first == "blocks":
            block, _, dense, _, k = rest
            released[f"RRDB_trunk.{block}.RDB{int(dense) + 1}.conv{int(k) + 1}.{part}"] = tensor
        elif first == "upscale":
            released[f"upconv{int(rest[0]) + 1}.{part}"] = tensor
        else:
            released[f"{back[first]}.{part}"] = tensor
    converted = from_released("rrdb", released)
    assert converted.keys() == ours.keys()
    assert all(converted[name] is ours[name] for name in ours)


@pytest.mark.parametrize("taps", [(0, 3), (-1,), (1, 1)])
def test_rrdb_refuses_taps(taps):
    with pytest.raises(ValueError, match="taps must be different numbers from 0 to 2"):
        RRDBNet(2, width=4, growth=2, blocks=2).features(torch.zeros(1, 3, 4, 4), taps)
