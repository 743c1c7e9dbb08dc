"""ECDP's image quality loss: gradients through the flow, their memory, and the distance of features."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, relu

from srbook.degradations import bicubic_downsample
from srbook.losses import feature_distance, vgg19_features
from srbook.losses import features as features_module
from srbook.methods import ECDP
from srbook.networks import GuidedBlock
from srbook.paths import ContinuousVP, DiscreteVP
from srbook.samplers import probability_flow
from srbook.schedules import linear_betas
from srbook.study.memory import peak_saved_bytes

LAST = 1 / 3000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


def ecdp(**changes: object) -> ECDP:
    """A tiny method in double precision whose blocks say something."""
    torch.manual_seed(0)
    method = ECDP(
        **{
            "scale": 4,
            "encoder": {"width": 8, "growth": 4, "blocks": 2},
            "taps": [0, 1],
            "network": {"width": 16, "multipliers": [1, 2], "blocks": [1, 1], "time_channels": 8},
            "encoder_learns": ["diffusion", "quality"],
            **changes,
        }
    ).double()
    for block in method.network.modules():
        if isinstance(block, GuidedBlock):
            nn.init.normal_(block.conv2.weight, std=0.02)
    method.set_feature_extractor(lambda image: torch.cat([image, image.diff(dim=-1)], dim=-1))
    method.begin("quality")
    return method


def pair(size: int = 8) -> tuple[Tensor, Tensor]:
    hr = torch.rand(1, 3, size, size, generator=generator(9), dtype=torch.float64)
    return hr, bicubic_downsample(hr, 4)


def gradients(method: ECDP) -> dict[str, Tensor]:
    method.zero_grad()
    method.loss(*pair(), generator())["loss"].backward()
    return {name: weight.grad.clone() for name, weight in method.named_parameters()}


# The adjoint equation


@pytest.fixture
def toy(vectors: Path) -> dict[str, Tensor]:
    return {name: torch.as_tensor(value) for name, value in np.load(vectors / "ecdp_adjoint_toy.npz").items()}


def toy_gradient(toy: dict[str, Tensor], tolerance: float, adjoint: bool) -> tuple[float, float, int, int]:
    """Loss, its gradient by the shift b of a Gaussian's mean, and evaluations on the way there and back."""
    path, b, calls = ContinuousVP(), toy["b"].clone().requires_grad_(), []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        calls.append(t)
        a, s = (f(t).reshape(-1, 1, 1, 1) for f in (path.signal, path.level))
        mean, variance = toy["m"] + b, toy["s"] ** 2
        return mean + a * variance / (a**2 * variance + s**2) * (x - a * mean)

    result = probability_flow(
        path,
        denoise,
        toy["z_T"],
        torch.zeros((), dtype=torch.float64),
        [1.0, LAST],
        solver="dopri5",
        rtol=tolerance,
        atol=tolerance,
        adjoint=[b] if adjoint else None,
    )
    loss = (result.image - toy["m"]).abs().mean()
    assert result.nfe == len(calls)
    loss.backward()
    return loss.item(), b.grad.item(), result.nfe, len(calls) - result.nfe


@pytest.mark.parametrize("adjoint", [False, True])
def test_the_toy_gradient_is_its_closed_form(toy, adjoint):
    loss, gradient, _, _ = toy_gradient(toy, 1e-8, adjoint)
    assert loss == pytest.approx(toy["closed_form_loss"].item(), abs=1e-7)
    assert gradient == pytest.approx(toy["closed_form_grad"].item(), abs=1e-8)


def test_the_toy_gradient_at_the_released_tolerance(toy):
    """As near to the closed form as the program's, for fewer evaluations."""
    loss, gradient, there, back = toy_gradient(toy, 1e-3, True)
    allowed = abs(toy["loss_l1"] - toy["closed_form_loss"]).item()
    assert loss == pytest.approx(toy["closed_form_loss"].item(), abs=allowed)
    assert gradient == pytest.approx(toy["closed_form_grad"].item(), abs=1e-4)
    assert there < toy["fwd_nfe"] and 0 < back < toy["bwd_nfe"]


def test_the_gradient_reaches_the_start_and_tensors_that_are_no_leaves():
    """x of a linear flow: dx/dt = velocity with x_0 = c x, where c = 2 b is computed from a leaf."""
    path, b = ContinuousVP(sigma=0.5), torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    start = torch.randn(1, 1, 2, 2, generator=generator(), dtype=torch.float64)
    found = {}
    for way in ("adjoint", "backprop"):
        x, c = start.clone().requires_grad_(), 2 * b
        inside = [c] if way == "adjoint" else None
        anchor = torch.zeros((), dtype=torch.float64)
        tolerance = {"rtol": 1e-9, "atol": 1e-9, "solver": "dopri5"}
        result = probability_flow(path, lambda x, t, c=c: c * x, x, anchor, [1.0, 0.1], **tolerance, adjoint=inside)
        found[way] = torch.autograd.grad(result.image.square().sum(), (x, b))
    for one, other in zip(found["adjoint"], found["backprop"], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_adjoint_needs_the_adaptive_solver():
    path, x = DiscreteVP(linear_betas(10, 0.1, 0.2)), torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match=r'adjoint method need solver="dopri5", got \'heun\''):
        probability_flow(path, lambda x, t: x, x, x, [2.0, 1.0], adjoint=[])


# Through the network


def test_both_gradients_agree_for_every_weight():
    """Encoder, projections, and denoiser, to what the tolerance allows. Some weights have next to no gradient."""
    adjoint, backprop = (gradients(ecdp(gradients=way, tolerance=1e-5)) for way in ("adjoint", "backprop"))
    largest = max(gradient.norm() for gradient in backprop.values())
    for name, expected in backprop.items():
        assert (adjoint[name] - expected).norm() < 0.05 * expected.norm() + 1e-3 * largest, name


def test_a_frozen_encoder_changes_no_other_gradient():
    learning, frozen = ecdp(), ecdp(encoder_learns=["diffusion"])
    method_gradients = gradients(learning)
    frozen.loss(*pair(), generator())["loss"].backward()
    for name, weight in frozen.named_parameters():
        if name.startswith("encoder."):
            assert weight.grad is None
        else:
            torch.testing.assert_close(weight.grad, method_gradients[name], rtol=1e-6, atol=1e-12)


def test_quality_is_the_distance_of_features_of_the_sampled_image():
    method, (hr, lr) = ecdp(quality_weight=0.5), pair()
    losses = method.loss(hr, lr, generator())
    noise = torch.randn(hr.shape, generator=generator(), dtype=torch.float64)
    with torch.no_grad():
        result = method.sample(method.condition(lr), noise)
    expected = (method.extractor(result.image) - method.extractor(hr)).abs().mean()
    assert losses["quality"].item() == pytest.approx(expected.item(), rel=1e-12)
    assert losses["loss"].item() == pytest.approx(0.5 * expected.item(), rel=1e-12)
    assert losses["evaluations"].item() == result.nfe


def test_the_matching_loss_may_be_added():
    hr, lr = pair()
    alone, both = (ecdp(matching_weight=weight).loss(hr, lr, generator()) for weight in (0.0, 0.25))
    expected = alone["quality"] + 0.25 * (both["noise"] + both["image"])
    assert both["loss"].item() == pytest.approx(expected.item(), rel=1e-12)
    assert "noise" not in alone


def test_own_features_are_the_maps_of_the_encoder():
    method = ecdp(quality_features="encoder", encoder_learns=["diffusion"])
    method._extract = ()
    image = pair()[0]
    close(method.extractor(image), torch.cat(method.encoder.features(image, [0, 1]), dim=1), 0)


def test_the_extractor_is_no_part_of_the_method():
    method = ecdp()
    names = [name for name, _ in method.named_parameters()]
    method.set_feature_extractor(nn.Conv2d(3, 4, 3))
    assert [name for name, _ in method.named_parameters()] == names == list(method.state_dict())


def test_gradients_in_half_precision_are_those_of_the_callers_autocast():
    """The way back asks the network in bfloat16 too, and the weights keep their gradients."""
    method = ecdp(encoder_learns=["diffusion"], tolerance=3e-2, matching_weight=0.1).float()
    hr, lr = (image.float() for image in pair())
    asked = []
    method.network.tail.register_forward_hook(lambda layer, inputs, out: asked.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        losses = method.loss(hr, lr, generator())
    there = len(asked)
    losses["loss"].backward()
    assert len(asked) > there and set(asked) == {torch.bfloat16}
    assert all(weight.grad is not None and weight.grad.any() for weight in method.network.weights_of_forward())


# Memory


def test_saved_bytes_by_hand():
    """Three squares in a row keep their inputs; a weight is not counted, nor a storage twice."""
    x = torch.ones(1000, dtype=torch.float64, requires_grad=True)
    weight = torch.full((1000,), 2.0, dtype=torch.float64, requires_grad=True)
    assert peak_saved_bytes(lambda: x.square().square().square().sum()) == 3 * 8000
    assert x.grad is not None
    assert peak_saved_bytes(lambda: x.square().square().square().sum(), [x]) == 2 * 8000
    assert peak_saved_bytes(lambda: (weight * x).sum(), [weight, x]) == 0
    assert peak_saved_bytes(lambda: (x[:500].square() + x[500:].square()).sum()) == 8000
    assert peak_saved_bytes(lambda: x.sum()) == 0


def test_what_is_let_go_is_not_counted_again():
    """Five gradients, one after the other, need the memory of one."""
    x = torch.ones(1000, dtype=torch.float64, requires_grad=True)

    def compute() -> Tensor:
        for _ in range(5):
            torch.autograd.grad(x.exp().sum(), x)
        return x.exp().sum()

    assert peak_saved_bytes(compute) == 8000


def test_memory_is_constant_with_the_adjoint_and_linear_without():
    peaks = {}
    for way in ("adjoint", "backprop"):
        for tolerance in (1e-1, 1e-3):
            method, found = ecdp(gradients=way, tolerance=tolerance), []

            def compute(method: ECDP = method, found: list = found) -> Tensor:
                losses = method.loss(*pair(), generator())
                found.append(losses["evaluations"].item())
                return losses["loss"]

            peaks[way, tolerance] = peak_saved_bytes(compute, method.parameters()), *found
    (few, asked_few), (many, asked_many) = peaks["backprop", 1e-1], peaks["backprop", 1e-3]
    assert asked_many > 1.5 * asked_few
    assert many / few == pytest.approx(asked_many / asked_few, rel=0.15)
    assert peaks["adjoint", 1e-1][0] == peaks["adjoint", 1e-3][0] < few / 5


# Features


def test_feature_distance_by_hand():
    sr, hr = torch.rand(2, 2, 3, 4, 4, generator=generator()).unbind(0)
    sr.requires_grad_(), hr.requires_grad_()
    distance = feature_distance(sr, hr, lambda image: 3 * image)
    assert distance.item() == pytest.approx(3 * (sr - hr).abs().mean().item(), rel=1e-6)
    distance.backward()
    close(sr.grad, 3 * (sr - hr).sign() / sr.numel(), 1e-9)
    assert hr.grad is None
    with pytest.raises(ValueError, match="must have the same shape"):
        feature_distance(sr, hr[..., :2], lambda image: image)


@pytest.fixture
def random_vgg(monkeypatch: pytest.MonkeyPatch):
    """VGG-19 with weights of its own shapes that keep activations in range."""
    widths = [3, 64, 64, 128, 128, *[256] * 4, *[512] * 8]
    places = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]
    draw, weights = generator(), {}
    for place, inputs, outputs in zip(places, widths, widths[1:], strict=False):
        weights[f"features.{place}.weight"] = (
            torch.randn(outputs, inputs, 3, 3, generator=draw) * (inputs * 4.5) ** -0.5
        )
        weights[f"features.{place}.bias"] = 0.1 * torch.randn(outputs, generator=draw)
    monkeypatch.setattr(features_module, "backbone_weights", lambda name: {"vgg19": weights}[name])
    features_module._layers.cache_clear()
    yield weights
    features_module._layers.cache_clear()


def test_vgg19_features_by_hand(random_vgg):
    image = torch.rand(1, 3, 20, 33, generator=generator(1)).requires_grad_()
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (image - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    for place in range(35):
        if place in (4, 9, 18, 27):
            x = max_pool2d(x, 2)
        elif f"features.{place}.weight" in random_vgg:
            x = conv2d(x, random_vgg[f"features.{place}.weight"], random_vgg[f"features.{place}.bias"], padding=1)
        else:
            x = relu(x)
    found = vgg19_features(image)
    assert found.shape == (1, 512, 1, 2) and (found < 0).any()  # before the ReLU
    close(found.detach(), x.detach(), 1e-4)
    (gradient,) = torch.autograd.grad(found.sum(), image)
    assert gradient.abs().max() > 0
    with pytest.raises(ValueError, match="needs 16x16 pixels"):
        vgg19_features(torch.rand(1, 3, 15, 20))


def test_missing_vgg_weights_are_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("SRBOOK_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "download_url_to_file", _offline)
    features_module._layers.cache_clear()
    with pytest.raises(FileNotFoundError, match=r"vgg19 are not on this machine .* vgg19_features\.safetensors"):
        vgg19_features(torch.rand(1, 3, 16, 16))


def _offline(*args: object, **kwargs: object) -> None:
    raise OSError("no network")
