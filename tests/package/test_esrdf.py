"""ESRDF: its predictor, its losses, its stages, and what its options undo, by the released program's values."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rounding import apart, assert_repeats, identical
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, relu

import srbook
from srbook.degradations import bicubic_upsample
from srbook.files import load_tensors
from srbook.losses import entropy_matching_loss, feature_distance, features, vgg16_features
from srbook.methods import SR3, Condition
from srbook.methods.esrdf import ESRDF
from srbook.networks import AttentionPredictor
from srbook.networks.attention_predictor import ConvolutionalAttention
from srbook.parametrizations import to_noise
from srbook.registry import read_preset
from srbook.training import Trainer, TrainingConfig

RELEASED_SCHEDULE = {"steps": 200, "start": 1e-6, "end": 1e-2}
RELEASED = {
    "schedule": RELEASED_SCHEDULE,
    "start": "unit",
    "entropy": {"direction": "reverse", "released_range": True},
    "sampling_steps": None,
}
SMALL = {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [], "groups": 4, "dropout": 0.0}


def close(actual: Tensor, expected, tolerance: float) -> None:
    expected = torch.as_tensor(expected)
    torch.testing.assert_close(actual.detach().to(expected), expected, rtol=0, atol=tolerance)


def numbers(name: str, vectors: Path) -> dict[str, Tensor]:
    return {key: torch.as_tensor(value) for key, value in np.load(vectors / name).items()}


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def esrdf(**changes: object) -> ESRDF:
    torch.manual_seed(0)
    network = {**SMALL, "time_activation": True}
    return ESRDF(**{**read_preset("esrdf-tiny").arguments, "predictor": {"width": 8}, "network": network, **changes})


def pair(count: int = 2, side: int = 4) -> tuple[Tensor, Tensor]:
    hr = torch.rand(count, 3, 4 * side, 4 * side, generator=generator(1))
    return hr, nn.functional.avg_pool2d(hr, 4)


class Given(nn.Module):
    """A network that predicts what it is given, and remembers what it was shown."""

    def __init__(self, noise: Tensor):
        super().__init__()
        self.noise, self.shown = noise, []

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        self.shown.append((x, time))
        return self.noise


# The predictor


def released_predictor(vectors: Path) -> AttentionPredictor:
    """Names change; the convolution that is never used is left out."""
    state, _ = load_tensors(vectors / "esrdf_tiny_predictor.safetensors")
    layers = {"head": "bsconv.conv", "norm": "bsconv.bn", "tail": "final_conv"}
    layers |= {"fusion.conv": "arfm.conv", "fusion.skip": "arfm.residual_conv"}
    for unit in range(3):
        for ours, theirs in ((f"units.{unit}", f"arfu{unit + 1}"), (f"fusion.units.{unit}", f"arfm.arfu{unit + 1}")):
            layers |= {f"{ours}.conv1": f"{theirs}.conv1", f"{ours}.conv2": f"{theirs}.conv2"}
            layers |= {f"{ours}.attention.channel.{i}": f"{theirs}.cbam.ca.fc.{i}" for i in (0, 2)}
            layers[f"{ours}.attention.position"] = f"{theirs}.cbam.sa.conv"
    predictor = AttentionPredictor(4, width=16)
    found = {}
    for name in predictor.state_dict():
        layer, part = name.rsplit(".", 1)
        found[name] = state.pop(f"{layers[layer]}.{part}")
    assert {name.split(".")[0] for name in state} == {"bicubic_conv"}
    predictor.load_state_dict(found)
    return predictor.double().eval()


def test_predictor_reproduces_the_released_one(vectors):
    """Which works on images in [-1, 1], and takes torch's bicubic image."""
    known = numbers("esrdf_tiny_net.npz", vectors)
    lr = (known["lr"] + 1) / 2
    upscaled = interpolate(known["lr"], scale_factor=4, mode="bicubic", align_corners=False)
    predictor = released_predictor(vectors)
    close(2 * predictor.residual(lr) + upscaled, known["out"], 1e-10)
    close(predictor(lr), bicubic_upsample(lr, 4) + predictor.residual(lr).detach(), 1e-12)


def test_parameter_counts_of_the_released_networks():
    with torch.device("meta"):
        assert parameters(AttentionPredictor(4)) == 2_381_948 == 2_383_679 - 1_731
        counts = {name: ESRDF(**read_preset(f"esrdf-{name}").arguments) for name in ("ffhq", "div2k", "small", "tiny")}
    assert [parameters(counts[name].predictor) for name in ("ffhq", "div2k")] == [2_381_948] * 2
    assert parameters(counts["ffhq"].network) == 97_807_491
    assert parameters(counts["div2k"].network) == 92_556_931
    assert (parameters(counts["small"]), parameters(counts["tiny"])) == (2_832_943, 1_148_895)
    for name, method in counts.items():
        training = read_preset(f"esrdf-{name}").training
        assert tuple(training) == ESRDF.stage_names()
        assert all(config.patch_size % method.multiple == 0 for config in training.values())


def test_attention_is_its_formula():
    torch.manual_seed(0)
    attention, x = ConvolutionalAttention(32).double(), torch.randn(1, 32, 6, 5, dtype=torch.float64)
    first, second = (attention.channel[i].weight[..., 0, 0].detach().numpy() for i in (0, 2))
    image = x[0].numpy()

    def mixed(pooled: np.ndarray) -> np.ndarray:
        hidden = first @ pooled
        return second @ np.where(hidden > 0, hidden, 0.1 * hidden)

    gate = mixed(image.mean(axis=(1, 2))) + mixed(image.max(axis=(1, 2)))
    image = image / (1 + np.exp(-gate))[:, None, None]
    seen = torch.from_numpy(np.stack([image.mean(axis=0), image.max(axis=0)]))[None]
    place = conv2d(seen, attention.position.weight.detach(), padding=3)[0].numpy()
    close(attention(x)[0], image / (1 + np.exp(-place)), 1e-12)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_predictor_starts_at_the_bicubic_image_and_every_weight_matters(scale):
    torch.manual_seed(0)
    predictor, lr = AttentionPredictor(scale, width=16), torch.rand(2, 3, 6, 5)
    close(predictor(lr), bicubic_upsample(lr, scale), 1e-6)
    nn.init.normal_(predictor.tail.weight)
    predictor(lr).square().sum().backward()
    assert [name for name, weight in predictor.named_parameters() if not weight.grad.any()] == []


# The released program's diffusion


@pytest.mark.arithmetic
@pytest.mark.parametrize("clip", [False, True])
def test_reverse_steps_are_the_released_ones(vectors, clip):
    known = numbers("psample_esrdf_T200.npz", vectors)
    method = esrdf(**RELEASED)
    method.network = Given(known["eps_pred"])
    predicted = torch.randn(known["x_t"].shape, generator=generator(), dtype=torch.float64)
    condition = Condition((predicted + 1) / 2, context=predicted)
    anchor = condition.anchor
    x_t = anchor + 0.5 * known["x_t"]
    for i, step in enumerate(known["t"].tolist()):
        t = step + 1
        x0 = method.denoise(x_t, torch.full((2,), float(t), dtype=torch.float64), condition, clip=clip)
        mean, std = method.path.posterior(x_t, x0, anchor, t, t - 1)
        close((mean - anchor) / 0.5, known["mean_clip" if clip else "mean_noclip"][i], 1e-10)
        if step > 0:
            close((std / 0.5) ** 2, known["posterior_variance"][step], 1e-12)
        shown, told = method.network.shown[-1]
        assert told.tolist() == [step, step]
        close(shown, torch.cat([predicted, known["x_t"]], dim=1), 1e-12)


def test_training_loss_is_the_released_one(vectors):
    """The sum of absolute errors, at whole steps that count from zero."""
    known = numbers("losses_sr3_resdiff_ddpm_esrdf.npz", vectors)
    method = esrdf(**RELEASED)
    method.network = Given(known["eps_pred"])
    condition, x0 = Condition((known["sr"] + 1) / 2, context=known["sr"]), (known["hr"] + 1) / 2
    loss = method.losses(x0, condition, known["esrdf_t"].double() + 1, known["noise"])["loss"]
    shown, told = method.network.shown[0]
    close(shown, known["esrdf_net_input"], 1e-6)
    close(told, known["esrdf_t"].double(), 0)
    close(loss * known["noise"].numel(), known["esrdf_loss_sum"], 1e-6)


def test_the_released_schedule_stops_half_way_and_ours_does_not():
    """Of a residual of 0.1 in [-1, 1] and the noise, the last state has this variance; sampling starts from 1."""
    released, corrected = esrdf(**RELEASED).path, esrdf().path
    share = released.signal(200).square().item()
    assert share == pytest.approx(0.3666, abs=5e-5)
    assert share * 0.1**2 + released.level(200).square().item() == pytest.approx(0.637, abs=5e-4)
    noise = torch.randn(1, 3, 8, 8, generator=generator(), dtype=torch.float64)
    anchor = torch.full_like(noise, 0.4)
    close((released.start(anchor, noise) - anchor) / 0.5, noise, 1e-12)
    matched = esrdf(schedule=RELEASED_SCHEDULE).path
    close((matched.start(anchor, noise) - anchor) / 0.5, noise * (1 - share) ** 0.5, 1e-12)
    assert corrected.signal(200).square().item() == pytest.approx(0.0062, abs=5e-5)
    long = read_preset("esrdf-div2k").arguments["schedule"]
    assert esrdf(schedule={**long, "start": 1e-6, "end": 1e-2}).path.signal(500).square().item() == pytest.approx(
        0.0814, abs=5e-5
    )
    assert esrdf(schedule=long).path.signal(500).square().item() == pytest.approx(0.0065, abs=5e-5)


# The predictor's loss


def test_predictor_loss_of_the_released_program(vectors):
    """For images in [-1, 1]: the mean absolute error, plus 100 times the stored divergence."""
    known = numbers("esrdf_entropy.npz", vectors)
    sr, hr = known["b"], known["a"]  # the program's loss takes them as (a, b): its direction is KL(prediction || truth)
    options = {key: value for key, value in RELEASED.items() if key == "entropy"}
    found = esrdf(**options).prediction_terms(sr, hr)
    absolute = (2 * sr - 2 * hr).abs().mean()
    assert found["loss"].item() == pytest.approx((absolute + 100 * known["loss_on_minus1_1"]).item(), abs=1e-10)


def test_predictor_loss_is_the_weighted_sum():
    hr, lr = pair()
    sr = bicubic_upsample(lr, 4).requires_grad_()
    method = esrdf(pixel_weight=3.0, entropy_weight=0.5, feature_weight=0.25, entropy={"patch": 8, "sigma": 0.02})
    method.set_feature_extractor(lambda image: nn.functional.avg_pool2d(image, 2) ** 2)
    found = method.prediction_terms(sr, hr)
    pooled = [nn.functional.avg_pool2d(image, 2) ** 2 for image in (sr, hr)]
    expected = {
        "pixel": (sr - hr).abs().mean(),
        "entropy": entropy_matching_loss(sr, hr, patch=8, sigma=0.02),
        "feature": (pooled[0] - pooled[1]).square().mean(),
    }
    for name, term in expected.items():
        close(found[name], term.detach(), 1e-7)
    close(
        found["loss"], (3 * expected["pixel"] + 0.5 * expected["entropy"] + 0.25 * expected["feature"]).detach(), 1e-6
    )


def test_terms_without_weight_are_left_out():
    hr, lr = pair()
    method = esrdf(entropy_weight=0.0)
    method.set_feature_extractor(lambda image: pytest.fail("nobody asked for features"))
    assert set(method.prediction_terms(bicubic_upsample(lr, 4), hr)) == {"loss", "pixel"}


def test_an_extractor_is_no_part_of_the_method():
    method = esrdf(feature_weight=1.0)
    before = parameters(method)
    method.set_feature_extractor(nn.Conv2d(3, 4, 3))
    assert parameters(method) == before and len(method.state_dict()) == len(esrdf().state_dict())


def test_vgg16_features_are_two_convolutions(monkeypatch):
    shapes = {"0.weight": (64, 3, 3, 3), "0.bias": (64,), "2.weight": (64, 64, 3, 3), "2.bias": (64,)}
    weights = {f"features.{key}": torch.randn(shape, generator=generator()) / 10 for key, shape in shapes.items()}
    monkeypatch.setattr(features, "backbone_weights", lambda name: {"vgg16": weights}[name])
    features._vgg_layers.cache_clear()
    image = torch.rand(1, 3, 6, 5, generator=generator(1)).requires_grad_()
    first, first_bias, second, second_bias = weights.values()
    for normalize in (True, False):
        shown = image
        if normalize:
            mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
            shown = (image - mean[:, None, None]) / std[:, None, None]
        hidden = relu(conv2d(shown, first, first_bias, padding=1))
        expected = relu(conv2d(hidden, second, second_bias, padding=1))
        close(vgg16_features(image, normalize=normalize), expected.detach(), 1e-6)
    feature_distance(image, torch.zeros_like(image), vgg16_features, "l2").backward()
    assert image.grad.abs().max() > 0
    features._vgg_layers.cache_clear()


def test_feature_distance_refuses_images_and_features_that_differ_in_shape():
    image = torch.rand(1, 3, 4, 4)
    with pytest.raises(ValueError, match=r"same shape, got \(1, 3, 4, 4\) and \(1, 3, 4, 2\)"):
        feature_distance(image, image[..., :2], vgg16_features, "l2")
    sizes = iter((2, 1))
    with pytest.raises(ValueError, match=r"different shapes for images of one shape: \(1,\) and \(2,\)"):
        feature_distance(image, image, lambda batch: batch.new_zeros(next(sizes)), "l2")


# Stages


@pytest.mark.parametrize("stage", ESRDF.stage_names())
def test_a_stage_trains_its_own_weights(stage):
    method = esrdf()
    nn.init.normal_(method.predictor.tail.weight)
    method.begin(stage)
    method.loss(*pair(), generator())["loss"].backward()
    trained = {name for name, weight in method.named_parameters() if weight.grad is not None and weight.grad.any()}
    prefix = "predictor." if stage == "predictor" else "network."
    assert trained == {name for name, _ in method.named_parameters() if name.startswith(prefix)}


def test_batch_statistics_move_only_while_the_predictor_is_trained():
    method, (hr, lr) = esrdf(), pair()
    start = method.predictor.norm.running_mean.clone()
    method.loss(hr, lr, generator())  # a new method is in its last stage
    assert identical(method.predictor.norm.running_mean, start)
    method.begin("predictor")
    assert method.predictor.training
    method.loss(hr, lr)
    learned = method.predictor.norm.running_mean.clone()
    assert not identical(learned, start)
    method.begin("diffusion")
    method.train()
    method.loss(hr, lr, generator())
    assert identical(method.predictor.norm.running_mean, learned)
    assert method.network.training and not method.predictor.training
    alone = method.condition(lr[:1]).anchor  # so the anchor of an image does not depend on its batch
    close(method.condition(lr).anchor[:1], alone, 1e-6)
    method.eval().begin("predictor")
    assert not method.predictor.training


@pytest.mark.arithmetic
def test_a_stopped_run_of_each_stage_goes_on_exactly(tmp_path):
    """The batch statistics and the averaged weights come through checkpoints too."""
    hr, lr = pair(4)
    batches = [(hr.roll(i, dims=0), lr.roll(i, dims=0)) for i in range(4)]
    settings = {"schedule": "constant", "learning_rate": 1e-2, "ema_decay": 0.5, "precision": "fp32"}

    def trained(folder: Path, *ends: int) -> ESRDF:
        method = esrdf()
        for stage in ESRDF.stage_names():
            for steps in ends:
                config = TrainingConfig(steps=steps, **settings)
                output = folder / stage
                Trainer(method, batches, config, stage=stage, output=output, device="cpu", progress=False).fit()
        return method

    once, twice = trained(tmp_path / "once", 4), trained(tmp_path / "twice", 2, 4)
    for part in ("predictor", "network"):
        states = [getattr(method, part).state_dict() for method in (once, twice, esrdf())]
        assert apart(*states) < 1e-3
    again = srbook.load(tmp_path / "twice" / "diffusion" / "weights.safetensors")
    assert identical(twice.state_dict(), again.state_dict())
    results = [method.upscale(lr, steps=2, generator=generator(5)).image for method in (once, again)]
    close(*results, 1e-3)  # their layouts in memory differ


def test_the_predictor_stage_upscales_at_once():
    method, (_, lr) = esrdf(), pair()
    method.begin("predictor")
    method.eval()
    result = method.upscale(lr)
    close(result.image, method.predictor(lr).clamp(0, 1), 0)
    assert result.nfe == 1
    with pytest.raises(ValueError, match="one step, got steps=5"):
        method.upscale(lr, steps=5)


# Conditions and variants


def test_the_anchor_is_the_predicted_image_or_gray():
    _, lr = pair()
    method = esrdf().eval()
    nn.init.normal_(method.predictor.tail.weight, std=0.1)
    predicted = method.predictor(lr).clamp(0, 1)
    condition = method.condition(lr)
    close(condition.anchor, predicted.detach(), 0)
    close(condition.context, 2 * predicted.detach() - 1, 0)
    gray = esrdf(anchor="gray").eval()
    gray.load_state_dict(method.state_dict())
    close(gray.condition(lr).anchor, torch.full_like(predicted, 0.5), 0)
    close(gray.condition(lr).context, condition.context, 0)


@pytest.mark.parametrize(("ours", "theirs"), [("predictor", "bicubic"), ("gray", "gray")])
def test_with_bicubic_in_the_predictors_place_it_is_sr3(ours, theirs):
    """The rest of the ablation: a predictor that adds nothing gives SR3 with whole steps, loss and samples alike."""
    hr, lr = pair()
    method = esrdf(anchor=ours).eval()
    other = SR3(
        scale=4,
        schedule=method.arguments["schedule"],
        network=method.arguments["network"],
        clock="step",
        anchor=theirs,
        sampling_steps=3,
    ).eval()
    other.network.load_state_dict(method.network.state_dict())
    close(method.loss(hr, lr, generator())["loss"], other.loss(hr, lr, generator())["loss"].detach(), 1e-6)
    results = [each.upscale(lr, steps=3, generator=generator(1)).image for each in (method, other)]
    close(results[0], results[1], 1e-5)


@pytest.mark.parametrize("options", [{}, {"anchor": "gray"}, {"sigma": 0.25}, RELEASED])
def test_perfect_noise_prediction_gives_back_the_image(options):
    method, (hr, lr) = esrdf(**options).eval(), pair()
    anchor, path = method.condition(lr).anchor, method.path
    hr = anchor.clamp(0.2, 0.8) + 0.1 * hr - 0.05  # within one scale of the anchor, where sampling clips

    def predict(x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return to_noise(path, "x0", hr, x_t, anchor, t)

    method.predict = predict
    result = method.upscale(lr, generator=generator())
    close(result.image, hr, 1e-3)
    assert result.nfe == (200 if options is RELEASED else 20)


def test_upscale_takes_any_size_and_repeats_with_a_seed():
    method, lr = esrdf().eval(), torch.rand(2, 3, 3, 5, generator=generator())
    one, again, other = (method.upscale(lr, steps=2, generator=generator(seed)).image for seed in (3, 3, 4))
    assert one.shape == (2, 3, 12, 20) and one.min() >= 0 and one.max() <= 1
    assert_repeats(one, again, other)


def test_the_docstring_undoes_the_corrections():
    """`build` merges the options that the class names, over a preset of paper scale."""
    options = {"start": "unit", "entropy": RELEASED["entropy"]}
    with torch.device("meta"):
        method = srbook.build("esrdf-ffhq", schedule={"start": 1e-6, "end": 1e-2}, **options)
    assert method.path.signal(200).square().item() == pytest.approx(0.3666, abs=5e-5)
    assert method.arguments["schedule"] == RELEASED_SCHEDULE and method.path.end == 200


def test_wrong_arguments_are_refused():
    for weights in ({"pixel_weight": -1.0}, {"pixel_weight": 0.0, "entropy_weight": 0.0}):
        with pytest.raises(ValueError, match="must not be negative nor all 0, got"):
            esrdf(**weights)
    with pytest.raises(ValueError, match="anchor must be one of predictor, gray, got 'bicubic'"):
        esrdf(anchor="bicubic")
    with pytest.raises(ValueError, match="start must be one of matched, unit, got 'zero'"):
        esrdf(start="zero")
    with pytest.raises(ValueError, match="entropy takes bins, direction, eps, patch, released_range, sigma, got size"):
        esrdf(entropy={"size": 8})
    with pytest.raises(ValueError, match="stages predictor, diffusion, got 'main'"):
        esrdf().begin("main")
