"""IR-SDE: its networks against the released ones, its loss against the released step, and its sampler."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn

import srbook
from srbook.convert import from_released
from srbook.degradations import bicubic_upsample
from srbook.files import load_tensors
from srbook.methods import IRSDE, Condition
from srbook.networks import LinearAttention, LinearUNet, NAFNet
from srbook.registry import read_preset

FAMILY = "f64/cosine_T100_s30_eps0.005"
TINY = {"unet": {"width": 8, "depth": 2}, "nafnet": {"width": 8, "down": [1, 2], "up": [1, 1]}}


def numbers(name: str, vectors: Path) -> dict[str, Tensor]:
    with np.load(vectors / name) as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored}


def build(kind: str = "unet", **changes: object) -> IRSDE:
    torch.manual_seed(0)
    return IRSDE(**{"scale": 4, "schedule": {"steps": 100}, "network": {"kind": kind, **TINY[kind]}, **changes})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("network", "expected"), [(LinearUNet, 137_147_523), (NAFNet, 76_608_387)])
def test_parameter_counts_of_the_released_networks(network: type[nn.Module], expected: int):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in network().parameters()) == expected


@pytest.mark.parametrize("kind", TINY)
def test_networks_reproduce_the_released_ones(kind: str, vectors: Path):
    known, method = numbers("irsde_tiny_net.npz", vectors), build(kind)
    state = load_tensors(vectors / f"irsde_tiny_{kind}.safetensors")[0]
    names = from_released("irsde", state)
    assert sorted(map(id, names.values())) == sorted(map(id, state.values()))
    method.network.load_state_dict(names)
    with torch.no_grad():
        out = method.predict(known["x"], known["t"], Condition(known["mu"], context=known["mu"]))
    expected = known[f"{kind}_out"]
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5 * expected.std().item())


def test_linear_attention_is_attention_with_shares_instead_of_logits():
    """With all pairs of pixels written out: the weight of pixel j for i is the product of query i and key j."""
    torch.manual_seed(0)
    layer, x = LinearAttention(6, heads=2, depth=3).double().requires_grad_(False), torch.randn(1, 6, 2, 4).double()
    query, key, value = layer.qkv(layer.norm(x)).reshape(3, 2, 3, 8).unbind(0)
    weights = torch.einsum("hdi,hdj->hij", query.softmax(1) / 3**0.5, key.softmax(2))
    mixed = torch.einsum("hij,hej->hei", weights, value / 8).reshape(1, 6, 2, 4)
    torch.testing.assert_close(layer(x), x + layer.last(layer.out(mixed)))


@pytest.mark.parametrize("t", [1, 2, 50, 100])
def test_the_loss_is_the_distance_of_the_released_steps(t: int, vectors: Path):
    stored, method = numbers("irsde.npz", vectors), build()
    x_t, anchor, noise = (stored[key] for key in ("x_t", "mu", "noise"))
    step = method.euler_step(x_t, noise, anchor, torch.full((2,), float(t)))
    assert_allclose(step, stored[f"{FAMILY}/t{t}/reverse_sde_mean"], rtol=1e-9, atol=1e-9)
    best = stored[f"{FAMILY}/t{t}/reverse_optimum"]
    clean = (x_t - anchor - method.path.sigma * method.path.level(t) * noise) / method.path.signal(t) + anchor
    method.path.perturb = lambda *_: x_t
    method.predict = lambda *_: noise
    for distance, power in (("l1", 1), ("l2", 2)):
        method.distance = distance
        loss = method.losses(stored["x0"], Condition(anchor), torch.full((2,), float(t)), clean)["loss"]
        assert loss.item() == pytest.approx((step - best).abs().pow(power).mean().item(), rel=1e-9)


@pytest.mark.parametrize("t", [1, 2, 50, 100])
def test_a_step_back_is_the_released_posterior_step(t: int, vectors: Path):
    """The image that predicted noise implies, then the most likely state, and noise of the optimal deviation."""
    stored, method = numbers("irsde.npz", vectors), build()
    method.predict = lambda *_: stored["noise"]
    x_t, condition = stored["x_t"], Condition(stored["mu"])
    clean = method.denoise(x_t, torch.full((2,), float(t), dtype=torch.float64), condition)
    assert_allclose(clean, stored[f"{FAMILY}/t{t}/x0_from_noise"], rtol=1e-9, atol=1e-9)
    mean, std = method.path.posterior(x_t, clean, condition.anchor, t, t - 1)
    assert_allclose(mean + std * stored["z"], stored[f"{FAMILY}/t{t}/posterior_step"], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", TINY)
def test_a_network_that_knows_the_truth_gives_it(kind: str):
    hr, method = torch.rand(2, 3, 16, 24, generator=seeded()), build(kind)
    path = method.path

    def predict(x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        mean, std = path.marginal(hr, condition.anchor, t)
        return (x_t - mean) / std

    method.predict = predict
    lr = nn.functional.avg_pool2d(hr, 4)
    for steps in (100, 5):
        result = method.upscale(lr, steps=steps, generator=seeded())
        torch.testing.assert_close(result.image, hr, rtol=0, atol=1e-4)
        assert result.nfe == steps


def test_it_starts_at_the_bicubic_image_with_noise():
    method, lr = build(), torch.rand(2, 3, 12, 12, generator=seeded())
    seen = []
    method.predict = lambda x_t, t, condition: seen.append((t[0].item(), x_t)) or torch.zeros_like(x_t)
    method.upscale(lr, steps=2, generator=seeded())
    assert [t for t, _ in seen] == [100, 50]
    assert (seen[0][1] - bicubic_upsample(lr, 4)).std().item() == pytest.approx(30 / 255, rel=0.03)


@pytest.mark.parametrize(
    ("name", "count"),
    [("irsde", 137_147_523), ("irsde-nafnet", 76_608_387), ("irsde-small", 3_011_331), ("irsde-tiny", 398_187)],
)
def test_presets(name: str, count: int):
    with torch.device("meta"):
        method = srbook.build(name)
    assert sum(weight.numel() for weight in method.parameters()) == count
    assert read_preset(name).training["diffusion"].patch_size % method.multiple == 0


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="kind of the network must be one of unet, nafnet, got 'vit'"):
        build(network={"kind": "vit"})
    with pytest.raises(ValueError, match="got None"):
        build(network={"width": 8})
    with pytest.raises(ValueError, match="depth must be an integer of at least 1, got 0"):
        LinearUNet(depth=0)
    with pytest.raises(ValueError, match="equally many levels, at least one, got 1 and 2"):
        NAFNet(down=(1,), up=(1, 1))
    for network in (LinearUNet(width=4, depth=2), NAFNet(width=4, down=(1,), up=(1,))):
        with pytest.raises(ValueError, match=r"must be multiples of 2, got \(4, 5\)"):
            network(torch.zeros(1, 6, 4, 5), torch.zeros(1))
        with pytest.raises(ValueError, match="one number per image"):
            network(torch.zeros(1, 6, 4, 4), torch.zeros(2))
