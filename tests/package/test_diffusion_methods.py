"""DDPM, SR3, and SRDiff as methods: their formulas by value, their stages, and what they refuse."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from rounding import assert_repeats, identical
from torch import Tensor, nn

import srbook
from srbook.degradations import bicubic_downsample, bicubic_upsample, imresize
from srbook.methods import DDPM, METHODS, SR3, Condition, Diffusion, SRDiff
from srbook.parametrizations import to_noise
from srbook.paths import ResidualShift
from srbook.registry import read_preset
from srbook.samplers import ancestral, probability_flow
from srbook.training import Trainer, TrainingConfig

VECTORS = Path(__file__).parents[1] / "vectors"
SMALL = {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [], "groups": 4, "dropout": 0.0}
SCHEDULE = {"steps": 40, "start": 1e-3, "end": 0.2}
ENCODER = {"width": 8, "growth": 4, "blocks": 2}


def sr3(**changes: object) -> SR3:
    return SR3(**{"scale": 4, "schedule": SCHEDULE, "network": SMALL, "sampling_steps": 4, **changes})


def ddpm(**changes: object) -> DDPM:
    return DDPM(**{"scale": 4, "schedule": SCHEDULE, "network": SMALL, "sampling_steps": 4, **changes})


def srdiff(**changes: object) -> SRDiff:
    network = {"width": 8, "multipliers": [1, 2]}
    return SRDiff(
        **{
            "scale": 4,
            "schedule": {"steps": 20},
            "encoder": ENCODER,
            "network": network,
            "sampling_steps": 4,
            **changes,
        }
    )


every_method = pytest.mark.parametrize("make", [ddpm, sr3, srdiff])


class Recorder(nn.Module):
    """A network that answers what it was told to, and remembers what it was asked."""

    multiple = 1

    def __init__(self, answer: Tensor):
        super().__init__()
        self.answer, self.asked = answer, []

    def forward(self, x: Tensor, time: Tensor, *features: Tensor) -> Tensor:
        self.asked.append((x, time, *features))
        return self.answer


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pair(count: int = 2, size: int = 8) -> tuple[Tensor, Tensor]:
    hr = torch.rand(count, 3, size, size, generator=generator(9))
    return hr, bicubic_downsample(hr, 4)


# What the network is asked, and what is made of its answer


@pytest.mark.arithmetic
@pytest.mark.parametrize(
    ("file", "schedule", "clock"),
    [
        ("psample_ddpm_repo_T2000", {"steps": 2000, "start": 1e-4, "end": 0.02}, "step"),
        ("psample_esrdf_T200", {"steps": 200, "start": 1e-6, "end": 1e-2}, "step"),
        ("psample_resdiff_T1000", {"steps": 1000, "start": 1e-6, "end": 1e-2}, "signal"),
    ],
)
@pytest.mark.parametrize("clip", [True, False])
def test_reverse_steps_of_the_released_programs(file: str, schedule: dict, clock: str, clip: bool):
    """One step from the released states and noise predictions; images there are in [-1, 1], anchor 0, scale 1."""
    released = np.load(VECTORS / f"{file}.npz")
    x, noise = (torch.from_numpy(released[name]) for name in ("x_t", "eps_pred"))
    method = sr3(schedule=schedule, clock=clock, sigma=1.0, sampling_steps=10)
    method.network = Recorder(noise)
    condition = Condition(anchor=x.new_zeros(()), context=torch.zeros_like(x))
    for index, expected in zip(released["t"].tolist(), released["mean_clip" if clip else "mean_noclip"], strict=True):
        t = index + 1
        x0 = method.denoise(x, x.new_full((len(x),), t), condition, clip=clip)
        mean, _ = method.path.posterior(x, x0, condition.anchor, t, t - 1)
        torch.testing.assert_close(mean, torch.from_numpy(expected), rtol=1e-9, atol=1e-10)
        level = np.sqrt(released["alphas_cumprod"][index])
        assert method.network.asked[-1][1].tolist() == pytest.approx([index if clock == "step" else level] * len(x))


def test_sr3_shows_the_condition_first_and_in_minus_one_to_one():
    method = sr3()
    hr, lr = pair()
    condition = method.condition(lr)
    upscaled = bicubic_upsample(lr, 4).clamp(0, 1)
    assert identical(condition.anchor, torch.full_like(hr, 0.5))
    torch.testing.assert_close(condition.context, 2 * upscaled - 1)
    method.network = Recorder(torch.zeros_like(hr))
    z = torch.randn(hr.shape, generator=generator())
    method.predict(0.5 + 0.5 * z, torch.tensor([1.0, 40.0]), condition)
    asked, level = method.network.asked[0]
    torch.testing.assert_close(asked, torch.cat([condition.context, z], dim=1))
    torch.testing.assert_close(level, method.path.signal(torch.tensor([1.0, 40.0])))


def test_sr3_may_diffuse_the_residual():
    method = sr3(anchor="bicubic", sigma=0.1)
    _, lr = pair()
    torch.testing.assert_close(method.condition(lr).anchor, bicubic_upsample(lr, 4).clamp(0, 1))
    assert method.path.sigma == 0.1


def test_sr3_trains_between_the_steps_and_ddpm_on_them():
    between = sr3().draw_times(64, generator(), torch.device("cpu"))
    on = sr3(clock="step").draw_times(64, generator(), torch.device("cpu"))
    assert ((between != between.round()).double().mean() > 0.9) and identical(on, on.round())


def test_sr3_draws_levels_as_it_is_told():
    """Within a single step from 1 to 0.1, the mean of a uniform sqrt(abar) is the middle; so is that of abar."""
    one = {"steps": 1, "start": 0.99, "end": 0.99}
    for uniform_in, power in (("signal", 1), ("power", 2)):
        method = sr3(schedule=one, uniform_in=uniform_in, sampling_steps=1)
        t = method.draw_times(200_000, generator(), torch.device("cpu"))
        middle = (1 + 0.1**power) / 2
        assert (method.path.signal(t) ** power).mean().item() == pytest.approx(middle, abs=0.004)


def test_srdiff_residual_noise_and_loss_of_the_released_program():
    released = {
        name: torch.from_numpy(value) for name, value in np.load(VECTORS / "srdiff_residual_and_loss.npz").items()
    }
    hr, anchor = (released["hr"] + 1) / 2, (released["lr_up"] + 1) / 2
    method = srdiff(schedule={"steps": 100})
    method.network = Recorder(released["eps_pred"])
    condition = Condition(anchor)
    x0 = method.clean(hr, condition)
    torch.testing.assert_close((x0 - anchor) / 0.25, released["res"], rtol=0, atol=1e-12)
    torch.testing.assert_close(2 * x0 - 1, released["back"], rtol=0, atol=1e-12)
    t = released["t"].double() + 1
    x_t = method.path.perturb(x0, anchor, t, released["noise"])
    torch.testing.assert_close((x_t - anchor) / 0.25, released["x_t"], rtol=0, atol=1e-10)
    loss = method.losses(x0, condition, t, released["noise"])["loss"]
    assert loss.item() == pytest.approx(released["loss_l1_mean"].item(), abs=1e-12)
    assert identical(method.network.asked[0][1], released["t"])  # the step counts from zero


def test_srdiff_chain_of_the_released_program():
    """All 100 steps without fresh noise, with the network 0.4 x + 0.1 (bicubic image in [-1, 1])."""
    released = {
        name: torch.from_numpy(value) for name, value in np.load(VECTORS / "srdiff_residual_and_loss.npz").items()
    }
    anchor = (released["lr_up"] + 1) / 2
    method = srdiff(schedule={"steps": 100})

    class Toy(nn.Module):
        def forward(self, x: Tensor, time: Tensor, features: Tensor) -> Tensor:
            return 0.4 * x + 0.1 * features

    method.network, condition = Toy(), Condition(anchor, released["lr_up"])
    x = anchor + 0.25 * released["x_T"]
    for t in range(100, 0, -1):
        x0 = method.denoise(x, x.new_full((len(x),), t), condition)
        x, _ = method.path.posterior(x, x0, anchor, t, t - 1)
    torch.testing.assert_close((x - anchor) / 0.25, released["chain_final_residual"], rtol=0, atol=1e-10)
    torch.testing.assert_close(2 * x - 1, released["chain_final_img"], rtol=0, atol=1e-10)


def test_srdiff_taps_every_third_map():
    assert list(srdiff(encoder={**ENCODER, "blocks": 8}).taps) == [2, 5, 8]
    assert list(srdiff(encoder={**ENCODER, "blocks": 17}).taps) == [2, 5, 8, 11, 14, 17]
    method = srdiff()
    _, lr = pair()
    expected = torch.cat(method.encoder.features(lr, [2]), dim=1)
    context = method.condition(lr).context
    assert not context.requires_grad
    torch.testing.assert_close(context, expected.detach())


# Loss, sampling, stages


@every_method
def test_the_loss_is_that_of_a_network_with_known_answer(make):
    """A silent network pays the mean square, or mean magnitude, of the noise."""
    hr, lr = pair(64)
    method = make()
    method.network = Recorder(torch.zeros_like(hr))
    expected = {"l2": 1.0, "l1": (2 / torch.pi) ** 0.5}[method.distance]
    assert method.loss(hr, lr, generator())["loss"].item() == pytest.approx(expected, rel=0.05)


@every_method
def test_the_loss_repeats_with_its_generator(make):
    hr, lr = pair()
    method = make()
    assert_repeats(*(method.loss(hr, lr, generator(seed))["loss"].detach() for seed in (1, 1, 2)))


@every_method
@pytest.mark.parametrize("size", [(3, 5), (4, 4), (1, 7)])
def test_upscale_takes_any_size(make, size: tuple[int, int]):
    lr = torch.rand(2, 3, *size, generator=generator())
    method = make().eval()
    result = method.upscale(lr, generator=generator(1))
    assert result.image.shape == (2, 3, 4 * size[0], 4 * size[1]) and result.nfe == 4
    assert result.image.min() >= 0 and result.image.max() <= 1
    assert_repeats(result.image, *(method.upscale(lr, generator=generator(seed)).image for seed in (1, 2)))
    assert method.upscale(lr, steps=2).nfe == 2


def test_sampling_shows_its_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Within one tile the steps count; with several, the tiles do."""
    from srbook.tiling import upscale_tiled

    monkeypatch.setenv("SRBOOK_STATIC", "1")
    _, lr = pair(1, 32)
    upscale_tiled(sr3(), lr, progress="photo.png", generator=generator())
    assert "sample sr3 4/4 steps" in capsys.readouterr().out
    upscale_tiled(sr3(), lr, progress="photo.png", tile=6, overlap=0, generator=generator())
    shown = capsys.readouterr().out
    assert "photo.png 4/4 tiles" in shown and "sample" not in shown
    sr3().upscale(lr)
    assert capsys.readouterr().out == ""


@every_method
def test_upscale_with_a_perfect_network_gives_the_truth(make):
    """A network that knows the truth: every sampler ends there."""
    hr, _ = pair()
    lr = imresize(hr, 1 / 4)  # not rounded, so that the truth fits it exactly
    method = make(sampling_steps=None)
    condition = method.condition(lr)
    anchor, x0 = condition.anchor, method.clean(hr, condition)

    def oracle(x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return to_noise(method.path, "x0", x0, x_t, anchor, t)

    method.predict = oracle
    image = method.upscale(lr, generator=generator()).image
    torch.testing.assert_close(image, x0.clamp(0, 1), rtol=0, atol=2e-4)
    denoise = partial(method.denoise, condition=condition)
    times = [float(t) for t in range(int(method.path.end), 0, -1)]
    start = method.path.start(anchor, torch.randn(hr.shape, generator=generator(3)))
    for sampled in (
        ancestral(method.path, denoise, start, anchor, [*times, 0.0], eta=0),
        ancestral(method.path, denoise, start, anchor, [*times, 0.0], variance="forward", generator=generator(4)),
    ):
        torch.testing.assert_close(sampled.image, x0, rtol=0, atol=2e-4)
    flow = probability_flow(method.path, denoise, start, anchor, times).image
    mean, std = method.path.marginal(x0, anchor, 1.0)
    assert (flow - mean).abs().max() < 6 * std.max()


def test_ddpm_upscale_shrinks_to_the_input():
    _, lr = pair()
    method = ddpm()
    x_t = torch.randn(2, 3, 8, 8, generator=generator())
    x0 = method.denoise(x_t, torch.full((2,), 40.0), method.condition(lr))
    torch.testing.assert_close(imresize(x0.double(), 1 / 4), lr.double(), rtol=0, atol=1e-5)


def test_ddpm_samples_repeat_and_differ():
    method = ddpm().eval()
    noise = torch.randn(3, 3, 8, 4, generator=generator())
    first, again, other = (
        method.sample(method.condition(), noise, generator=generator(seed)).image.detach() for seed in (1, 1, 2)
    )
    assert first.shape == (3, 3, 8, 4)
    assert_repeats(first, again, other)
    assert method.sample(method.condition(), noise, steps=7).nfe == 7


def test_ddpm_sees_no_condition():
    method = ddpm()
    hr, lr = pair()
    with_lr, without = (method.loss(hr, shown, generator())["loss"] for shown in (lr, lr * 0))
    torch.testing.assert_close(with_lr, without)


def test_stages_free_and_freeze_weights():
    method = srdiff()
    hr, lr = pair()
    assert method.stage_names() == ("encoder", "diffusion") and method.stage == "diffusion"
    for stage, trained, frozen in (
        ("encoder", method.encoder, method.network),
        ("diffusion", method.network, method.encoder),
    ):
        method.zero_grad()
        method.begin(stage)
        method.loss(hr, lr, generator())["loss"].backward()
        with_gradient = [parameter.grad is not None for parameter in trained.parameters()]
        assert all(with_gradient) or (stage == "diffusion" and any(with_gradient))
        assert all(parameter.grad is None and not parameter.requires_grad for parameter in frozen.parameters())


def test_the_encoder_stage_is_a_regression():
    method = srdiff()
    method.begin("encoder")
    hr, lr = pair()
    assert method.loss(hr, lr)["loss"].item() == pytest.approx((method.encoder(lr) - hr).abs().mean().item())
    result = method.upscale(lr)
    assert result.nfe == 1
    torch.testing.assert_close(result.image, method.encoder(lr).clamp(0, 1).detach())
    with pytest.raises(ValueError, match="one step, got steps=3"):
        method.upscale(lr, steps=3)


def test_an_unknown_stage_is_refused():
    with pytest.raises(ValueError, match="srdiff has the stages encoder, diffusion, got 'decoder'"):
        srdiff().begin("decoder")
    with pytest.raises(ValueError, match="sr3 has the stages main, got 'encoder'"):
        sr3().begin("encoder")


@pytest.mark.arithmetic
def test_a_training_stage_leaves_the_other_weights_alone(tmp_path: Path):
    method = srdiff()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    hr, lr = pair()
    config = TrainingConfig(steps=2, learning_rate=1e-3, ema_decay=0.0, weight_decay=0.1)
    Trainer(method, [(hr, lr)] * 2, config, stage="diffusion", output=tmp_path, device="cpu", progress=False).fit()
    changed = {name for name, tensor in method.state_dict().items() if not identical(tensor, before[name])}
    assert changed and all(name.startswith("network.") for name in changed)
    with pytest.raises(ValueError, match="belongs to another method"):
        Trainer(srdiff(), [(hr, lr)] * 2, config, stage="encoder", output=tmp_path, device="cpu", progress=False)


@pytest.mark.arithmetic
@every_method
def test_a_checkpoint_gives_the_method_back(make, tmp_path: Path):
    _, lr = pair()
    method = make().eval()
    again = srbook.load(method.save(tmp_path / "weights.safetensors"))
    assert again.arguments == method.arguments and identical(again.state_dict(), method.state_dict())
    images = [each.upscale(lr, generator=generator()).image for each in (again, method)]
    torch.testing.assert_close(*images, rtol=0, atol=1e-4)


# Presets and bad input


@pytest.mark.parametrize(
    ("preset", "count"),
    [
        ("sr3-16-128", 97_807_491),
        ("sr3-64-512", 155_334_339),
        ("ddpm-16-128", 26_451_587),
        ("srdiff-celeba", 12_033_798),
        ("srdiff-div2k", 25_316_358),
        ("resdiff-ffhq", 98_871_334 + 34_128),
    ],
)
def test_parameter_counts_at_the_scale_of_the_papers(preset: str, count: int):
    with torch.device("meta"):
        method = srbook.build(preset)
    assert sum(parameter.numel() for parameter in method.parameters()) == count


@pytest.mark.parametrize(
    "preset", [name for name in srbook.presets() if name.split("-")[0] in ("ddpm", "sr3", "srdiff", "resdiff")]
)
def test_every_preset_has_a_training_for_each_stage(preset: str):
    with torch.device("meta"):
        method = srbook.build(preset)
    training = read_preset(preset).training
    assert tuple(training) == method.stage_names()
    assert all(config.patch_size % method.multiple == 0 for config in training.values())


class Softer(SR3):
    """A subclass with fewer arguments than its parent."""

    kind = "softer"

    def __init__(self, *, scale: int, width: int = 8, strength: float = 0.5):
        super().__init__(scale=scale, schedule=SCHEDULE, network=SMALL | {"width": width}, sigma=strength, clock="step")


def test_a_subclass_may_have_a_constructor_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its own arguments are noted; those that it gives to its parent are the parent's attributes."""
    monkeypatch.setitem(METHODS, "softer", Softer)
    method, (hr, lr) = Softer(scale=4, strength=0.3).eval(), pair()
    assert method.arguments == {"scale": 4, "width": 8, "strength": 0.3}
    assert (method.clock, method.sigma, method.anchor, method.path.sigma) == ("step", 0.3, "gray", 0.3)
    assert torch.isfinite(method.loss(hr, lr)["loss"])
    again = srbook.load(method.save(tmp_path / "weights.safetensors"))
    torch.testing.assert_close(*(each.upscale(lr, steps=2, generator=generator()).image for each in (method, again)))
    with pytest.raises(TypeError, match="unexpected keyword argument 'clock'"):
        Softer(scale=4, clock="step")


def test_an_argument_may_not_hide_a_function():
    class Hiding(SR3):
        def __init__(self, *, scale: int, sample: int):
            super().__init__(scale=scale, schedule=SCHEDULE, network=SMALL)

    with pytest.raises(TypeError, match="the argument 'sample' of Hiding hides its function"):
        Hiding(scale=4, sample=3)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="clock must be one of signal, step, got 'hour'"):
        sr3(clock="hour")
    with pytest.raises(ValueError, match="anchor must be one of gray, bicubic, got 'white'"):
        sr3(anchor="white")
    with pytest.raises(ValueError, match="this path has 40 whole steps, got steps=41"):
        sr3(sampling_steps=41)
    with pytest.raises(ValueError, match="hr must be 4 times the size of lr"):
        hr, lr = pair()
        sr3().loss(hr[..., :4], lr)
    with pytest.raises(ValueError, match="40 whole steps, got steps=100"):
        sr3().upscale(pair()[1], steps=100)


def test_predictions_are_not_clipped_to_a_path_without_noise():
    """Within no sigma of the anchor there is nothing but the anchor."""

    class Delta(Diffusion):
        kind, predicts = "delta", "x0"

        def __init__(self, scale: int = 4):
            super().__init__(scale, path=ResidualShift(torch.tensor([0.5, 1.0]), kappa=0.0), multiple=1)

        def condition(self, lr: Tensor) -> Condition:
            return Condition(lr)

        def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
            return x_t

    with pytest.raises(ValueError, match="nothing within sigma; set delta's clips to False"):
        Delta()


def test_a_method_must_say_what_it_conditions_on_and_predicts():
    class Unfinished(Diffusion):
        kind = "unfinished"

        def condition(self, lr: Tensor) -> Condition:
            return Condition(lr)

    with pytest.raises(TypeError, match=r"abstract method '?predict"):
        Unfinished(4, path=sr3().path, multiple=1)
