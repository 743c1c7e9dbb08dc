"""ResShift and DeltaDiff: the released loop and schedules, their losses, and what one has of the other."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from rounding import assert_repeats
from test_spaces import Blocks
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d

import srbook
from srbook.degradations import bicubic_upsample
from srbook.methods import Condition, DeltaDiff, ResShift, resshift
from srbook.registry import count_parameters, read_preset

V1 = {"steps": 15, "min_noise_level": 0.04}
V3 = {"steps": 4, "min_noise_level": 0.2}
TINY = {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [], "groups": 4}
TINY |= {"embedding": 8, "heads": 2, "window": 2, "ratio": 1, "size": 4}


def build(kind: type[ResShift] = ResShift, **changes: object) -> ResShift:
    torch.manual_seed(0)
    own = {"schedule": V3} if kind is ResShift else {}
    return kind(**{"scale": 4, "network": TINY, **own, **changes})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pair(size: int = 32) -> tuple[Tensor, Tensor]:
    hr = torch.rand(2, 3, size, size, generator=seeded())
    return hr, avg_pool2d(hr, 4)


@pytest.fixture
def in_latent(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Arguments of a method in the latent of a codec of factor 2."""
    monkeypatch.setattr(Blocks, "kind", "blocks", raising=False)
    monkeypatch.setattr(Blocks, "arguments", {}, raising=False)
    monkeypatch.setattr(resshift, "read_codec", lambda name: Blocks())
    return {"scale": 2, "codec": "blocks"}


@pytest.mark.arithmetic
def test_the_released_loop(vectors: Path, in_latent, monkeypatch: pytest.MonkeyPatch):
    with np.load(vectors / "resshift_steps.npz") as file:
        stored = {key: torch.from_numpy(file[key]) for key in file}
    method = build(**in_latent)
    noises = iter(stored["loop_v3_T4/step_noises"])
    monkeypatch.setattr("srbook.samplers.normal", lambda *_: next(noises))

    def toy(x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        out = conv2d(torch.cat([x, condition], 1), stored["toy/w"], stored["toy/b"], padding=1)
        return out + 0.01 * time.reshape(-1, 1, 1, 1)

    method.network = nn.Module()
    method.network.forward = toy
    condition = Condition(stored["train/z_y_bicubic_x4_of_lr"], context=stored["train/lq_cond"])
    result = method.sample(condition, stored["noise"])
    assert_allclose(result.image, stored["loop_v3_T4/traj"][-1], rtol=1e-8, atol=2e-9)  # its input scale is float32


def test_released_respacing(vectors: Path):
    stored = json.loads((vectors / "resshift_schedules.json").read_text())["v1_T15_respaced_to_5"]
    method = build(schedule=V1, respacing="released")
    times = method.sampling_times(5)
    assert times == [13, 10, 7, 4, 1, 0] and method.sampling_times(None) == list(range(15, -1, -1))
    assert_allclose([method.path.level(t).item() for t in times[-2::-1]], stored["sqrt_etas"], rtol=1e-12)
    x = torch.zeros(1, 1, dtype=torch.float64)
    steps = [method.path.posterior(x, x, x, t, s)[1] for t, s in pairwise(times)]
    assert_allclose([std.item() ** 2 for std in steps[::-1]], stored["posterior_variance"], rtol=1e-12)
    assert build(schedule=V1).sampling_times(5) == [15, 12, 9, 6, 3, 0]


def test_sampling_starts_at_the_level_of_its_first_time():
    method = build(schedule=V1, respacing="released")
    states = []
    method.predict = lambda x_t, t, condition: states.append(x_t) or torch.zeros_like(x_t)
    method.upscale(torch.full((8, 3, 8, 8), 0.5), steps=5, generator=seeded())
    level = 2 * method.path.level(13).item()
    assert states[0].std().item() == pytest.approx(level, rel=0.01) and level < 1.7


def test_the_inputs_spread(in_latent):
    t = torch.tensor([1.0, 4.0])
    assert_allclose(build().spread(t), [1 + 3 * 2 * 0.1, 1 + 3 * 2 * 0.99])
    assert_allclose(build(**in_latent).spread(t), [(1 + 4 * 0.01) ** 0.5, (1 + 4 * 0.9801) ** 0.5])
    assert_allclose(build(DeltaDiff).spread(t), [1, 1])


@pytest.mark.parametrize("kind", [ResShift, DeltaDiff])
def test_a_network_that_knows_the_truth_gives_it(kind: type[ResShift]):
    (hr, lr), method = pair(), build(kind)
    method.predict = lambda x_t, t, condition: 3 * method.space.encode(hr)  # clipped to [-1, 1]
    for steps in (4, 2, 1):
        image = method.upscale(lr, steps=steps, generator=seeded()).image
        torch.testing.assert_close(image, (3 * hr - 1).clamp(0, 1))


def test_a_latent_is_not_clipped(in_latent):
    method, lr = build(**in_latent), torch.rand(1, 3, 4, 4)
    condition = method.condition(lr)
    method.predict = lambda x_t, t, condition: torch.full_like(x_t, 3.0)
    x_t, t = torch.zeros(1, 3, 4, 4), torch.ones(1)
    assert method.denoise(x_t, t, condition).max() == 3 and method.denoise(x_t, t, condition, clip=True).max() == 1
    torch.testing.assert_close(condition.anchor, Blocks().encode(bicubic_upsample(lr, 2)))
    torch.testing.assert_close(condition.context, 2 * lr - 1)


def test_the_loss_is_that_of_x0_and_of_its_image(monkeypatch: pytest.MonkeyPatch):
    hr, lr = pair()
    monkeypatch.setattr(resshift, "lpips", lambda sr, hr, net: (sr - hr).abs().mean((1, 2, 3)) + len(net))
    plain, method = build(), build(perceptual=0.5, perceptual_net="alex")
    for each in (plain, method):
        each.predict = lambda x_t, t, condition: torch.zeros_like(x_t)
    l2 = (2 * hr - 1).square().mean().item()
    assert plain.loss(hr, lr)["loss"].item() == pytest.approx(l2)
    terms = {name: term.item() for name, term in method.loss(hr, lr).items()}
    perceptual = (0.5 - hr).abs().mean().item() + 4
    assert terms == pytest.approx({"loss": l2 + 0.5 * perceptual, "l2": l2, "perceptual": perceptual})
    condition, x0 = method.condition(lr), method.space.encode(hr)
    given = (x0, condition, torch.ones(len(hr)), torch.zeros_like(x0))
    assert {name: term.item() for name, term in method.losses(*given, hr).items()} == pytest.approx(terms)
    with pytest.raises(ValueError, match="the perceptual term compares images: pass hr"):
        method.losses(*given)


def test_the_perceptual_term_trains_the_network_through_the_decoder(in_latent, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resshift, "lpips", lambda sr, hr, net: (sr - hr).square().mean((1, 2, 3)))
    hr = torch.rand(2, 3, 16, 16, generator=seeded())
    gradients = []
    for weight in (0.0, 100.0):
        method = build(**in_latent, perceptual=weight)
        method.loss(hr, avg_pool2d(hr, 2), seeded())["loss"].backward()
        gradients.append(method.network.tail.weight.grad.abs().max().item())
        assert not any("codec" in name for name in method.state_dict())
    assert gradients[1] > 5 * gradients[0] > 0


@pytest.mark.parametrize(
    ("scale", "unshuffle", "halvings"), [(4, 4, 0), (2, 4, 1), (2, 8, 2), (3, 3, 0), (4, 1, None), (3, 2, None)]
)
def test_the_condition_has_the_size_of_x(scale: int, unshuffle: int, halvings: int | None):
    """The low-resolution image is halved; where it is smaller than x, the bicubic one is there instead."""
    method, lr = build(scale=scale, unshuffle=unshuffle), torch.rand(1, 3, 4, 8)
    condition = method.condition(lr)
    assert method.network.halvings == (halvings or 0)
    torch.testing.assert_close(condition.context, condition.anchor if halvings is None else 2 * lr - 1)
    image = method.upscale(torch.rand(1, 3, 5, 7), steps=1, generator=seeded()).image
    assert image.shape == (1, 3, 5 * scale, 7 * scale)


def test_seeds_decide_and_deltadiff_has_none():
    _, lr = pair(16)
    for kind in (ResShift, DeltaDiff):
        method = build(kind)
        for weight in method.parameters():
            nn.init.normal_(weight, std=0.1)
        first, again, other = (method.upscale(lr, generator=seeded(seed)).image for seed in (0, 0, 1))
        if kind is ResShift:
            assert_repeats(first, again, other)
        else:
            torch.testing.assert_close(first, other)


def test_a_file_names_its_codec_or_carries_it(tmp_path: Path):
    codec = srbook.build("vqgan-tiny").save(tmp_path / "codec.safetensors")
    method, lr = build(codec=str(codec)).eval(), torch.rand(1, 3, 4, 4, generator=seeded())
    assert not any("codec" in name for name in method.state_dict())
    image = method.upscale(lr, generator=seeded()).image
    named = method.save(tmp_path / "named.safetensors")
    carrying = method.save(tmp_path / "carrying.safetensors", carry=True)
    for gone in (False, True):
        if gone:
            codec.unlink()
            with pytest.raises(FileNotFoundError, match=r"needs the frozen part 'codec' .* and it is missing"):
                srbook.load(named)
        again = srbook.load(carrying if gone else named)
        assert again.arguments == method.arguments
        torch.testing.assert_close(again.upscale(lr, generator=seeded()).image, image, rtol=0, atol=1e-5)
    with pytest.raises(FileNotFoundError):
        build(codec=str(codec))


# What the stored schedules are: the texts' 0.01 and 0.99 in the three readings, and the texts' other ends.
READINGS = {
    "paper_reading_eta(0.01,0.99)": {"reading": "share"},
    "resshift_v3(0.1,0.99)": {"reading": "resshift"},
    "code_reading_sqrt(0.01,0.99)": {"reading": "root"},
    "abl_0.01_0.8": {"reading": "root", "end": 0.8},
    "abl_0.2_0.99": {"reading": "root", "start": 0.2},
    "abl_0.5_0.999": {"reading": "root", "start": 0.5, "end": 0.999},
}


@pytest.mark.parametrize("name", READINGS)
def test_readings_of_deltadiffs_schedule(vectors: Path, name: str):
    stored = json.loads((vectors / "deltadiff_schedules.json").read_text())[name]
    path = build(DeltaDiff, **READINGS[name]).path
    assert_allclose(path.level(torch.arange(1, 5)).square(), stored["etas"], rtol=1e-12)
    one = torch.ones(1, dtype=torch.float64)
    for slot in range(4):
        for x_t, x0, key in ((one, 0 * one, "coef_xt"), (0 * one, one, "coef_x0")):
            mean, std = path.posterior(x_t, x0, 7 * one, slot + 1, slot)  # the anchor cancels
            assert_allclose(mean, stored[key][slot], rtol=1e-12, atol=1e-14)
            assert std == 0


def test_deltadiffs_step_is_the_mean_of_resshifts_posterior():
    """Whatever the noise: kappa is not in the mean. Its own reading of the schedule makes the two one program."""
    noisy, still = build(schedule=V3, kappa=2.0).path, build(DeltaDiff, reading="resshift").path
    x_t, x0, y = torch.randn(3, 2, 3, 4, 4, generator=seeded(), dtype=torch.float64)
    for t, s in ((4, 3), (4, 1), (2, 1), (1, 0)):
        mean, std = noisy.posterior(x_t, x0, y, t, s)
        torch.testing.assert_close(still.posterior(x_t, x0, y, t, s)[0], mean, rtol=0, atol=1e-12)
        assert (std > 0) == (s > 0)
        kept = (noisy.level(s) / noisy.level(t)).square()
        torch.testing.assert_close(mean, x0 + kept * (x_t - x0), rtol=0, atol=1e-12)


def test_without_noise_the_state_and_the_anchor_give_the_truth_away():
    """The leak: x_0 = (x_t - eta_t y) / (1 - eta_t), at every time but where eta is 1."""
    x0, y = torch.randn(2, 4, 3, 4, 4, generator=seeded(), dtype=torch.float64)
    path, t = build(DeltaDiff).path, torch.arange(1.0, 5)
    x_t, eta = path.perturb(x0, y, t, torch.randn_like(x0)), path.level(t).square().reshape(-1, 1, 1, 1)
    torch.testing.assert_close((x_t - eta * y) / (1 - eta), x0, rtol=0, atol=1e-10)
    closed = build(DeltaDiff, end=1.0).path
    torch.testing.assert_close(closed.perturb(x0, y, 4, x0), y)


def test_the_step_of_deltadiffs_program_is_the_prediction():
    method, (_, lr) = build(DeltaDiff, step="prediction"), pair(16)
    seen = []

    def predict(x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        seen.append((t[0].item(), x_t))
        return x_t / 2

    method.predict = predict
    image = method.upscale(lr).image
    anchor = method.condition(lr).anchor
    assert [t for t, _ in seen] == [4, 3, 2, 1]
    for k, (_, x_t) in enumerate(seen):
        torch.testing.assert_close(x_t, anchor / 2**k)
    torch.testing.assert_close(image, method.space.decode(anchor / 16))
    between = build(DeltaDiff).path
    x = torch.ones(1, 1, 1, 1)
    assert method.path.perturb(x, 0 * x, 2, x) == between.perturb(x, 0 * x, 2, x)


SIZES = {"deltadiff": 118_593_583, "deltadiff-released": 2_883_913}
SIZES |= {f"{kind}-small": 2_988_621 for kind in ("resshift", "resshift-15", "deltadiff")}
SIZES |= {f"{kind}-pixels-small": 3_027_546 for kind in ("resshift", "deltadiff")}
SIZES |= {f"{kind}-tiny": 780_348 for kind in ("resshift", "deltadiff")}
SIZES |= {f"resshift-{kind}": 118_593_583 for kind in ("v1", "v3", "bicubic")}


@pytest.mark.parametrize("name", [name for name in srbook.presets() if name.startswith(("resshift", "deltadiff"))])
def test_presets(name: str):
    preset = read_preset(name)
    assert count_parameters(name) == SIZES[name]
    multiple = 2 ** (len(preset.arguments["network"].get("multipliers", "four")) - 1)
    assert preset.training["diffusion"].patch_size % (multiple * preset.arguments.get("unshuffle", 4)) == 0
    codec = preset.arguments.get("codec")
    if codec is not None:
        assert read_preset(codec).method == "vqgan"


def test_a_preset_whose_codec_is_missing_says_so():
    with pytest.raises(FileNotFoundError, match="resshift-tiny needs codec, whose weights are not on this machine"):
        srbook.build("resshift-tiny", codec="vqgan-tiny")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        srbook.build("resshift-tiny", codec="nowhere")


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"1, 2, 4, \.\.\. times as large as x, .* for 3 pixels .* the scale is 2"):
        build(scale=2, unshuffle=3)
    with pytest.raises(ValueError, match="factor must be an integer of at least 1, got 0"):
        build(unshuffle=0)
    with pytest.raises(ValueError, match="perceptual must be a weight of at least 0, got -1"):
        build(perceptual=-1)
    with pytest.raises(ValueError, match="respacing must be one of even, released, got 'odd'"):
        build(respacing="odd")
    with pytest.raises(ValueError, match="reading must be one of share, resshift, root, got 'mine'"):
        build(DeltaDiff, reading="mine")
    with pytest.raises(ValueError, match=r"must grow from start to end, .* got 0\.99 and 0\.5"):
        build(DeltaDiff, start=0.99, end=0.5)
    with pytest.raises(ValueError, match="this path has 4 whole steps, got steps=5"):
        build(sampling_steps=5)
