"""ECDP as a method: its heads, losses, and samplers by value, its stages, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rounding import assert_repeats, identical
from torch import Tensor, nn
from torch.nn.functional import interpolate

import srbook
from srbook.degradations import bicubic_downsample, bicubic_upsample, residual_deviation
from srbook.methods import ECDP, Condition
from srbook.methods.ecdp import END_OF_FLOW
from srbook.objectives import denoising_losses, score_weights
from srbook.parametrizations import blend_weight, hybrid, target, to_noise
from srbook.paths import ContinuousVP
from srbook.registry import read_preset
from srbook.samplers import ancestral
from srbook.training import Trainer, TrainingConfig

SMALL = {"width": 16, "multipliers": [1, 2], "blocks": [1, 1], "time_channels": 8}
ENCODER = {"width": 8, "growth": 4, "blocks": 2}


def ecdp(**changes: object) -> ECDP:
    torch.manual_seed(0)
    return ECDP(
        **{"scale": 4, "encoder": ENCODER, "taps": [0, 1], "network": SMALL, "quality_features": "encoder", **changes}
    )


def load(path: Path) -> dict[str, Tensor]:
    return {name: torch.as_tensor(value) for name, value in np.load(path).items()}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pair(count: int = 2, size: int = 16) -> tuple[Tensor, Tensor]:
    hr = torch.rand(count, 3, size, size, generator=generator(9))
    return hr, bicubic_downsample(hr, 4)


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


class Heads(nn.Module):
    """A network with two given predictions, which remembers what it was asked."""

    def __init__(self, noise: Tensor, z0: Tensor):
        super().__init__()
        self.answer, self.asked = torch.cat([noise, z0], dim=1), []

    def forward(self, z: Tensor, time: Tensor, guides: list[Tensor]) -> Tensor:
        self.asked.append((z, time, guides))
        return self.answer


def knowing(method: ECDP, x0: Tensor, anchor: Tensor) -> ECDP:
    """The method with heads that know the truth."""

    def predict(x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        noise = to_noise(method.path, "x0", x0, x_t, anchor, t)
        return target(method.path, "hybrid", x0, noise, anchor, t)

    method.predict = predict
    return method


# The heads and their blend


def test_the_released_drift_and_blend(vectors: Path):
    released = load(vectors / "ecdp_pf_drift.npz")
    method = ecdp()
    method.network = Heads(released["eps_head"], released["x0_head"])
    z, anchor = released["z_t"], torch.rand(released["z_t"].shape, generator=generator()).double()
    x_t, condition = anchor + 0.2 * z, Condition(anchor, context=[])
    for index, drift, blend in zip(
        released["t_index"].tolist(), released["drift_per_tau"], released["hybrid_eps"], strict=True
    ):
        t = torch.tensor([index / 300], dtype=torch.float64)
        x0 = method.denoise(x_t, t, condition)
        close(method.path.velocity(x_t, x0, anchor, t) / 0.2, drift, 1e-9)
        close(to_noise(method.path, "hybrid", method.predict(x_t, t, condition), x_t, anchor, t), blend, 1e-10)
        asked, time, _ = method.network.asked[-1]
        close(asked, z, 1e-12)
        close(time, torch.tensor([index], dtype=torch.float64), 1e-12)


def test_hybrid_is_v_prediction_from_two_heads():
    """Noise and z_0 of the blend are those of v = a * noise head - s * z_0 head."""
    path, (noise, z0, z) = ContinuousVP(sigma=0.2), torch.randn(3, 4, 3, 2, 2, dtype=torch.float64)
    t = torch.tensor([0.001, 0.3, 0.7, 1.0])
    a, s = (f(t).reshape(-1, 1, 1, 1) for f in (path.signal, path.level))
    anchor = torch.rand(4, 3, 2, 2, dtype=torch.float64)
    image, blend = hybrid(path, noise, anchor + 0.2 * z0, anchor + 0.2 * z, anchor, t, blend_weight(path, t))
    v = a * noise - s * z0
    close(blend, s * z + a * v, 1e-9)
    close((image - anchor) / 0.2, a * z - s * v, 1e-9)
    close(target(path, "v", anchor + 0.2 * z0, noise, anchor, t), v, 1e-12)


@pytest.mark.parametrize("ratio", [0.3, 1.0, 4.0])
def test_the_weight_of_the_blend_makes_its_error_least(ratio: float):
    """Against a fine grid of weights: errors of the noise, from heads that err independently by 1 and `ratio`."""
    path = ContinuousVP()
    grid = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    for t in (0.02, 0.2, 0.5, 0.9):
        error = grid.square() + ((1 - grid) * ratio * path.signal(t) / path.level(t)).square()
        assert blend_weight(path, t, ratio).item() == pytest.approx(grid[error.argmin()].item(), abs=1e-4)
    close(blend_weight(path, torch.tensor([0.1, 0.9])), path.signal(torch.tensor([0.1, 0.9])).square(), 1e-15)


@pytest.mark.parametrize(("blend", "head"), [("eps", 0), ("x0", 1)])
def test_one_head_alone(blend: str, head: int):
    """The other head may say anything."""
    predictions = torch.randn(2, 1, 3, 4, 4, dtype=torch.float64)
    other = predictions.clone()
    other[1 - head] += 5
    z, t, anchor = (
        torch.randn(1, 3, 4, 4).double(),
        torch.tensor([0.4], dtype=torch.float64),
        torch.rand(1, 3, 4, 4).double(),
    )
    estimates = []
    for given in (predictions, other):
        method = ecdp(blend=blend)
        method.network = Heads(*given)
        estimates.append(method.denoise(anchor + 0.2 * z, t, Condition(anchor, context=[])))
    close(estimates[0], estimates[1], 0)
    a, s = method.path.signal(0.4), method.path.level(0.4)
    expected = anchor + 0.2 * ((z - s * predictions[0]) / a if blend == "eps" else predictions[1])
    close(estimates[0], expected, 1e-12)


# Condition


def test_the_condition_is_made_once():
    method, (hr, lr) = ecdp().eval(), pair(1)
    condition = method.condition(lr)
    features = torch.cat(method.encoder.features(lr, [0, 1]), dim=1)
    for made, expected in zip(condition.context, method.network.prepare(features, hr.shape[-2:]), strict=True):
        torch.testing.assert_close(made, expected)
    calls = {"encoder": 0, "guide": 0}
    method.encoder.head.register_forward_hook(lambda *_: calls.update(encoder=calls["encoder"] + 1))
    method.network.middle[0].guide.register_forward_hook(lambda *_: calls.update(guide=calls["guide"] + 1))
    assert method.upscale(lr, steps=5, generator=generator()).nfe == 5
    assert calls == {"encoder": 1, "guide": 1}


def test_the_anchor_is_the_chosen_bicubic_image(vectors: Path):
    released = load(vectors / "mu_bicubic_torch.npz")
    y = released["y"]
    close(ecdp(kernel="torch").double().condition(y).anchor, released["up_a075"], 1e-12)
    close(ecdp().double().condition(y).anchor, released["up_matlab_hwc"].permute(2, 0, 1)[None], 1e-6)
    # torchvision's later kernel is MATLAB's but for two pixels' distance from the border
    inside = (..., slice(8, -8), slice(8, -8))
    close(released["up_antialias"][inside], bicubic_upsample(y, 4)[inside], 1e-6)
    assert (released["up_antialias"] - bicubic_upsample(y, 4)).abs().max() > 1e-3


# Losses


def test_the_released_loss(vectors: Path):
    """The program sums the values of an image, ours is their mean."""
    released = load(vectors / "ecdp_loss.npz")
    path, anchor = ContinuousVP(sigma=0.2), torch.zeros((), dtype=torch.float64)
    for name in ("eval", "train"):
        for i, index in enumerate(released[f"t_{name}"].double()):
            z0, noise, cond = (released[part][i : i + 1] for part in ("z0", "noise", "cond"))

            def heads(x_t: Tensor, t: Tensor, cond: Tensor = cond) -> Tensor:
                z, share = x_t / 0.2, t.reshape(-1, 1, 1, 1)
                return torch.cat([0.3 * z + 0.1 * share, -0.2 * z + 0.5 * cond * share], dim=1)

            losses = denoising_losses(path, "hybrid", heads, 0.2 * z0, anchor, index.reshape(1) / 300, noise)
            assert losses["loss"].item() * z0.numel() == pytest.approx(released[f"loss_{name}"][i].item(), rel=1e-9)


def test_the_loss_of_silent_heads():
    """They pay the mean square of the noise, 1, and that of z_0."""
    hr, lr = pair(64)
    method = ecdp()
    method.network = Heads(torch.zeros_like(hr), torch.zeros_like(hr))
    method.condition = lambda lr: Condition(bicubic_upsample(lr, 4), context=[])
    losses = method.loss(hr, lr, generator())
    z0 = (hr - bicubic_upsample(lr, 4)) / 0.2
    assert losses["noise"].item() == pytest.approx(1, rel=0.03)
    assert losses["image"].item() == pytest.approx(z0.square().mean().item(), rel=1e-5)
    assert losses["loss"].item() == pytest.approx((losses["noise"] + losses["image"]).item())
    assert_repeats(losses["loss"], *(method.loss(hr, lr, generator(seed))["loss"] for seed in (0, 1)))


def test_score_weights_make_errors_those_of_the_score():
    path, t = ContinuousVP(sigma=0.2), torch.tensor([0.01, 0.5])
    x0, anchor, noise, e, z = torch.randn(5, 2, 3, 4, 4, dtype=torch.float64)
    x_t = path.perturb(x0, anchor, t, noise)
    score = target(path, "score", x0, noise, anchor, t)
    from_noise = target(path, "score", x0, e, anchor, t)
    s, a = (f(t).reshape(-1, 1, 1, 1) for f in (path.level, path.signal))
    from_image = (anchor + a * 0.2 * z - x_t) / (0.2 * s) ** 2
    heads = torch.cat([e, z], dim=1)
    losses = denoising_losses(path, "hybrid", lambda *_: heads, x0, anchor, t, noise, by_score=True)
    alone = denoising_losses(path, "eps", lambda *_: e, x0, anchor, t, noise, by_score=True)["loss"]
    assert alone.item() == pytest.approx(losses["noise"].item(), rel=1e-9)
    for loss, predicted in zip((losses["noise"], losses["image"]), (from_noise, from_image), strict=True):
        assert loss.item() == pytest.approx((0.2 * (predicted - score)).square().mean().item(), rel=1e-9)
    absolute = denoising_losses(path, "hybrid", lambda *_: heads, x0, anchor, t, noise, "l1", by_score=True)
    assert absolute["noise"].item() == pytest.approx((0.2 * (from_noise - score)).abs().mean().item(), rel=1e-9)
    assert [w.shape for w in score_weights(path, t)] == [(2,), (2,)]


def test_times_are_uniform():
    t = ecdp().draw_times(100_000, generator(), torch.device("cpu"))
    assert 0 < t.min() < 1e-3 and 0.999 < t.max() <= 1
    assert t.mean().item() == pytest.approx(0.5, abs=0.004) and t.var().item() == pytest.approx(1 / 12, rel=0.02)
    assert ecdp(weighting="score").draw_times(100_000, generator(), torch.device("cpu")).min() > END_OF_FLOW


# Sampling


@pytest.mark.parametrize("blend", ["hybrid", "eps", "x0"])
@pytest.mark.parametrize(("sampler", "steps"), [("flow", None), ("flow", 7), ("ancestral", 20)])
def test_heads_that_know_the_truth_give_it(blend: str, sampler: str, steps: int | None):
    hr, lr = (image.double() for image in pair(1))
    method = ecdp(blend=blend, sampler=sampler).double()
    anchor = method.condition(lr).anchor
    result = knowing(method, hr, anchor).upscale(lr, steps=steps, generator=generator())
    left = 0.2 * method.path.level(END_OF_FLOW).item() if steps is None else 0.0  # the flow stops before t = 0
    assert (result.image - hr).abs().max() < 5 * left + 1e-3
    assert result.nfe == steps or (steps is None and result.nfe > 20)


def test_the_flow_takes_the_steps_of_the_normalized_image():
    """Another sigma and another anchor scale the problem; the evaluations stay the same."""
    counts = set()
    for sigma, shift in ((0.2, 0.0), (1.0, 0.0), (0.05, 0.4)):
        method = ecdp(sigma=sigma).double()
        z0 = torch.randn(1, 3, 8, 8, generator=generator(3)).double()
        anchor = torch.full_like(z0, shift)
        knowing(method, anchor + sigma * z0, anchor)
        counts.add(method.sample(Condition(anchor), torch.randn(z0.shape, generator=generator()).double()).nfe)
    assert len(counts) == 1


@pytest.mark.arithmetic
def test_the_flow_of_a_gaussian_has_its_closed_form():
    """Where z_0 is Gaussian with deviation d, the flow keeps the rank: z_t = z_1 sqrt((a^2 d^2 + s^2) / (...)_1)."""
    method, d = ecdp(tolerance=1e-7).double(), 0.6
    method.tolerance = 1e-7
    anchor, noise = torch.rand(1, 3, 4, 4).double(), torch.randn(1, 3, 4, 4, generator=generator()).double()

    def denoise(x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        a, s = (f(t).reshape(-1, 1, 1, 1) for f in (method.path.signal, method.path.level))
        return anchor + a * d**2 / (a**2 * d**2 + s**2) * (x_t - anchor)

    method.denoise = denoise

    spread = [(method.path.signal(t) * d) ** 2 + method.path.level(t) ** 2 for t in (END_OF_FLOW, 1.0)]
    start = method.path.start(torch.zeros(()).double(), noise)
    expected = anchor + (spread[0] / spread[1]).sqrt() * start
    close(method.sample(Condition(anchor), noise).image, expected, 1e-6)


@pytest.mark.arithmetic
def test_ddim_is_the_released_step(vectors: Path):
    """z <- (z - beta / (sqrt(1 - abar) + sqrt(alpha - abar)) eps) / sqrt(alpha) on the program's 300 steps."""
    released = load(vectors / "ecdp_schedule.npz")
    method = ecdp()
    z, noise = torch.randn(2, 1, 3, 4, 4, generator=generator()).double()
    anchor = torch.zeros((), dtype=torch.float64)
    for i in (1, 40, 299):
        alpha, abar = released["disc_alphas"][i], released["disc_alpha_bars"][i]
        expected = (z - (1 - alpha) / ((1 - abar).sqrt() + (alpha - abar).sqrt()) * noise) / alpha.sqrt()
        t, s = (i + 1) / 300, i / 300
        z0 = (z - method.path.level(t) * noise) / method.path.signal(t)
        mean, std = method.path.posterior(0.2 * z, 0.2 * z0, anchor, t, s, eta=0)
        close(mean / 0.2, expected, 1e-10)
        assert std == 0


def test_the_ancestral_noise_is_the_released_one(vectors: Path):
    """Whole steps of 1/300 with the variance "forward": sigma^2 beta_i, and none in the last."""
    released = load(vectors / "ecdp_schedule.npz")
    method = ecdp(sampler="ancestral")
    assert method.variance == "forward" and method.eta == 1
    x = torch.zeros(1, 1, 100, 100, dtype=torch.float64)
    for i in (299, 100, 5):
        times = [(i + 1) / 300, i / 300]
        drawn = ancestral(
            method.path, lambda x, t: x, x, x.new_zeros(()), times, variance="forward", generator=generator()
        )
        variance = 0.04 * released["inject_noise_var"][i].item()
        assert drawn.image.var().item() == pytest.approx(variance, rel=0.05)


def test_the_flow_depends_on_the_noise_at_its_start_alone():
    method, (_, lr) = ecdp().eval(), pair(1, 8)
    state = torch.get_rng_state()
    first, again, other = (method.upscale(lr, generator=generator(seed)) for seed in (1, 1, 2))
    assert_repeats(first.image, again.image, other.image)
    assert identical(torch.get_rng_state(), state)
    few = method.upscale(lr, steps=3, generator=generator(1))
    assert few.nfe == 3 and few.image.min() >= 0 and few.image.max() <= 1


def test_a_tighter_tolerance_asks_more_often():
    _, lr = pair(1, 8)
    counts = [ecdp(tolerance=tolerance).eval().upscale(lr, generator=generator()).nfe for tolerance in (1e-2, 1e-4)]
    assert counts[0] < counts[1]


def test_sampling_counts_time_while_the_solver_chooses_its_steps(capsys, monkeypatch):
    monkeypatch.setenv("SRBOOK_STATIC", "1")
    method, (_, lr) = ecdp().eval(), pair(1, 8)
    method.upscale(lr, generator=generator(), progress=True)
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 5 and shown[-1].startswith("sample ecdp 100/100 parts")
    method.upscale(lr, steps=4, generator=generator(), progress=True)
    assert "sample ecdp 4/4 steps" in capsys.readouterr().out


@pytest.mark.parametrize("size", [(3, 5), (1, 7)])
def test_upscale_takes_any_size(size: tuple[int, int]):
    lr = torch.rand(2, 3, *size, generator=generator())
    assert ecdp().eval().upscale(lr, steps=2, generator=generator()).image.shape == (2, 3, 4 * size[0], 4 * size[1])


# Stages and files


def test_the_decoder_exists_in_the_encoders_stage_only(tmp_path: Path):
    method, (hr, lr) = ecdp(), pair()
    count = sum(weight.numel() for weight in method.parameters())
    assert method.stage == "diffusion" and method.decoder is None
    method.begin("encoder")
    assert method.loss(hr, lr)["loss"].item() == pytest.approx((method.regress(lr) - hr).abs().mean().item())
    result = method.upscale(lr)
    assert result.nfe == 1
    torch.testing.assert_close(result.image, method.regress(lr).clamp(0, 1).detach())
    with pytest.raises(ValueError, match="one step, got steps=3"):
        method.upscale(lr, steps=3)
    again = srbook.load(method.save(tmp_path / "weights.safetensors"))
    assert again.stage == "encoder" and identical(again.state_dict(), method.state_dict())
    torch.testing.assert_close(again.upscale(lr).image, result.image)
    method.begin("diffusion")
    assert method.decoder is None and sum(weight.numel() for weight in method.parameters()) == count


@pytest.mark.arithmetic
@pytest.mark.parametrize("learns", [[], ["diffusion"], ["diffusion", "quality"]])
@pytest.mark.parametrize("stage", ECDP.stage_names())
def test_a_stage_trains_its_own_weights(stage: str, learns: list[str]):
    method, (hr, lr) = ecdp(encoder_learns=learns, quality_features="vgg19"), pair(1, 8)
    method.set_feature_extractor(lambda image: image**2)
    method.begin(stage)
    method.loss(hr, lr, generator())["loss"].backward()
    trained = {name.split(".")[0] for name, weight in method.named_parameters() if weight.grad is not None}
    free = {name.split(".")[0] for name, weight in method.named_parameters() if weight.requires_grad}
    expected = (
        {"encoder", "decoder"} if stage == "encoder" else {"network"} | ({"encoder"} if stage in learns else set())
    )
    assert trained == free == expected
    if stage != "encoder":
        assert all(weight.grad is not None for weight in method.network.parameters())


def test_stages_follow_and_resume(tmp_path: Path):
    """Interrupted after its first step and gone on with, each stage ends with the weights of an unbroken run."""
    hr, lr = pair(2, 8)
    batches = [(hr, lr), (hr.flip(3), lr.flip(3))]

    def run(folder: Path, *, broken: bool) -> dict[str, Tensor]:
        method = ecdp(tolerance=0.1)
        for stage in method.stage_names():
            torch.manual_seed(1)  # of the decoder
            for steps in (1, 2) if broken else (2,):
                config = TrainingConfig(steps=steps, schedule="constant", precision="fp32")
                place = {"output": folder / stage, "device": "cpu", "progress": False}
                Trainer(method, batches, config, stage=stage, **place).fit()
        return method.state_dict()

    whole, resumed = run(tmp_path / "a", broken=False), run(tmp_path / "b", broken=True)
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        close(resumed[name], tensor, 1e-6)


@pytest.mark.arithmetic
def test_a_checkpoint_gives_the_method_back(tmp_path: Path):
    _, lr = pair(1, 8)
    method = ecdp(ratio=2.0, sampler="ancestral", sampling_steps=3).eval()
    again = srbook.load(method.save(tmp_path / "weights.safetensors"))
    assert again.arguments == method.arguments and identical(again.state_dict(), method.state_dict())
    close(*(each.upscale(lr, generator=generator()).image for each in (again, method)), 1e-4)


@pytest.mark.parametrize(
    ("preset", "count"),
    [("ecdp-div2k", 42_587_846), ("ecdp-imagenet", 37_551_878), ("ecdp-celeba", 40_014_150)],
)
def test_parameter_counts_at_the_scale_of_the_paper(preset: str, count: int):
    with torch.device("meta"):
        method = srbook.build(preset)
    assert sum(weight.numel() for weight in method.parameters()) == count


@pytest.mark.parametrize("preset", [name for name in srbook.presets() if name.startswith("ecdp")])
def test_every_preset_has_a_training_for_each_stage(preset: str):
    with torch.device("meta"):
        method = srbook.build(preset)
    training = read_preset(preset).training
    assert tuple(training) == method.stage_names()
    assert all(config.patch_size % method.scale == 0 for config in training.values())


# The residual of a data set


def test_residual_deviation_by_hand():
    """Two images of different sizes, pooled over pixels, and cropped to whole low-resolution pixels."""
    images = [torch.rand(2, 3, 12, 8, generator=generator()), torch.rand(1, 3, 9, 10, generator=generator(1))]
    moments = residual_deviation(images, 4)
    residuals = []
    for hr in (images[0][:1], images[0][1:], images[1][..., :8, :8]):
        residuals.append((hr - bicubic_upsample(bicubic_downsample(hr, 4), 4)).double().flatten())
    pooled = torch.cat(residuals)
    assert moments.mean == pytest.approx(pooled.mean().item(), abs=1e-7)
    assert moments.deviation == pytest.approx(pooled.square().mean().sqrt().item(), rel=1e-6)
    close(moments.by_image, torch.stack([r.square().mean().sqrt() for r in residuals]), 1e-7)


def test_residual_deviation_refuses():
    with pytest.raises(ValueError, match="at least one image, got none"):
        residual_deviation([], 4)
    with pytest.raises(ValueError, match="too small for scale 4"):
        residual_deviation([torch.rand(1, 3, 3, 8)], 4)
    with pytest.raises(ValueError, match="must lie in"):
        residual_deviation([torch.full((1, 3, 8, 8), 3.0)], 4)


# Bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel": "lanczos"}, "kernel must be one of matlab, torch, got 'lanczos'"),
        ({"blend": "v"}, "blend must be one of hybrid, eps, x0, got 'v'"),
        ({"weighting": "snr"}, "weighting must be one of plain, score, got 'snr'"),
        ({"quality_features": "alexnet"}, "quality_features must be one of vgg19, encoder, got 'alexnet'"),
        ({"gradients": "none"}, "gradients must be one of adjoint, backprop, got 'none'"),
        ({"sampler": "ddim"}, "sampler must be one of flow, ancestral, got 'ddim'"),
        ({"encoder_learns": ["encoder"]}, r'encoder_learns may name "diffusion" and "quality", got \(\'encoder\',\)'),
        ({"encoder_learns": ["quality"]}, 'quality_features="encoder" needs a frozen encoder'),
        ({"quality_weight": 0.0}, "quality_weight must be positive .* got 0.0 and 0.0"),
        ({"matching_weight": -1.0}, "matching_weight not negative, got 1.0 and -1.0"),
        ({"tolerance": 0.0}, "tolerance must be positive, got 0.0"),
        ({"ratio": 0.0}, "ratio must be a positive number, got 0.0"),
        ({"taps": [0, 2]}, "taps must be different numbers from 0 to 1"),
        ({"taps": []}, "taps must name at least one block"),
        ({"sampling_steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"distance": "l3"}, "distance must be one of l1, l2, got 'l3'"),
    ],
)
def test_bad_arguments_are_refused(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ecdp(**changes)


def test_bad_calls_are_refused():
    hr, lr = pair(1, 8)
    with pytest.raises(ValueError, match="hr must be 4 times the size of lr"):
        ecdp().loss(hr[..., :4], lr)
    with pytest.raises(ValueError, match="steps must be an integer of at least 1, got 0"):
        ecdp().upscale(lr, steps=0)
    with pytest.raises(ValueError, match="ecdp has the stages encoder, diffusion, quality, got 'main'"):
        ecdp().begin("main")


def test_plain_torch_anchor_is_interpolates():
    _, lr = pair(1)
    close(ecdp(kernel="torch").condition(lr).anchor, interpolate(lr, scale_factor=4, mode="bicubic"), 0)
