"""Invertible networks: CDDFuse's numbers, and the way back on photographs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from srbook.data import sample
from srbook.networks import Coupling, FrequencyExtractor, InvertibleNetwork

NAMES = {"theta_phi.bottleneckBlock": "shift", "theta_rho.bottleneckBlock": "scale"}
NAMES |= {"theta_eta.bottleneckBlock": "offset", "shffleconv": "mixing", "net.": ""}


def awake(network: nn.Module) -> nn.Module:
    """Also what starts at 0 gets weights."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return network


@pytest.mark.arithmetic
def test_the_released_network(vectors: Path):
    with np.load(vectors / "cddfuse_inn.npz") as file:
        stored = {key: torch.from_numpy(file[key]).double() for key in file}
    network = InvertibleNetwork(64, 3, inner="inverted", bound=None).double()
    weights = {key.removeprefix("detail3/sd/"): tensor for key, tensor in stored.items() if "/sd/" in key}
    for old, new in NAMES.items():
        weights = {key.replace(old, new): tensor for key, tensor in weights.items()}
    network.load_state_dict(weights)
    assert sum(weight.numel() for weight in network.parameters()) == 54_528
    with torch.no_grad():
        found = network(stored["x"])
        assert_allclose(found, stored["detail3/out"], rtol=1e-6, atol=1e-10)
        assert_allclose(network.inverse(found), stored["x"], atol=1e-9)


@pytest.mark.parametrize("inner", ["convolutions", "inverted"])
@pytest.mark.parametrize("mixing", [True, False])
@pytest.mark.parametrize("bound", [2.0, None])
def test_photographs_come_back_in_single_precision(inner: str, mixing: bool, bound: float | None):
    network = awake(InvertibleNetwork(16, 3, inner=inner, mixing=mixing, bound=bound))
    photograph = 2 * sample("chelsea")[..., 60:124, 100:180] - 1
    x = torch.cat([photograph] * 6, dim=1)[:, :16] * torch.linspace(-1, 1, 16).view(1, -1, 1, 1)
    with torch.no_grad():
        y = network(x)
        assert (y - x).abs().mean() > 0.01
        assert (network.inverse(y) - x).abs().max() < 1e-5 * max(1.0, y.abs().max().item())


def test_a_fresh_network_is_a_rotation():
    x = torch.randn(1, 8, 5, 5)
    torch.manual_seed(0)
    network = InvertibleNetwork(8)
    for coupling in network:
        nn.init.zeros_(coupling.mixing.bias)
    with torch.no_grad():
        torch.testing.assert_close(network(x).square().sum(dim=1), x.square().sum(dim=1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(InvertibleNetwork(8, 2, mixing=False)(x), x)


def test_without_mixing_both_halves_change():
    x = torch.randn(1, 8, 5, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        changed = (awake(InvertibleNetwork(8, 2, mixing=False))(x) - x).abs().mean(dim=(0, 2, 3))
    assert changed.min() > 1e-3


def test_the_bound_holds_the_exponent():
    coupling = Coupling(4, mixing=False, bound=1.5)
    coupling.scale, coupling.offset = nn.Hardtanh(1e3, 1e3 + 1), nn.Threshold(1e9, 0.0)
    u = coupling(torch.ones(1, 4, 3, 3))[:, 2:]
    assert_allclose(u.detach(), np.exp(1.5), rtol=1e-5)


def test_the_extractor_keeps_the_size_and_classifies():
    network, image = FrequencyExtractor(5, width=16, depth=2), torch.rand(2, 3, 20, 28)
    assert network.features(image).shape == (2, 16, 20, 28)
    scores = network(image)
    assert scores.shape == (2, 5)
    scores.sum().backward()
    assert all(weight.grad is not None for weight in network.invertible.parameters())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"width": 5}, "width must be even"),
        ({"width": 4, "inner": "dense"}, "inner must be one of convolutions, inverted"),
        ({"width": 4, "bound": 0.0}, "bound must be positive"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        InvertibleNetwork(**given)
