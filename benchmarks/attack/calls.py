"""Malformed calls of the whole public API: what users pass by mistake must be refused by a clear error.

A `Case` is a right call, and for each of its arguments the wrong values that are put in its place, one at a time. The
right call is tried, too, so that a refusal can only be due to the wrong value.
"""

import functools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import srbook
from benchmarks.attack import Attempt, Verdict, refusal
from srbook import (
    backbones,
    budget,
    check,
    codecs,
    convert,
    data,
    degradations,
    elbo,
    evaluation,
    exact,
    frozen,
    images,
    losses,
    methods,
    metrics,
    networks,
    objectives,
    parametrizations,
    paths,
    random,
    registry,
    samplers,
    schedules,
    settings,
    spaces,
    tiling,
    training,
    viz,
)
from srbook.study import distort, examples
from srbook.training import schedule

Wrong = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """A right call, and the wrong values by argument and label.

    Attributes:
        name: of the function.
        call: the function; takes its arguments by name.
        right: the arguments of a right call.
        wrong: for each argument what is put in its place.
        tried: whether the right call is tried, too.
    """

    name: str
    call: Callable[..., Any]
    right: Mapping[str, Any]
    wrong: Mapping[str, Wrong]
    tried: bool = True

    def attempts(self) -> Iterator[Attempt]:
        if self.tried:
            yield Attempt(f"{self.name}, a right call", lambda folder: self.survival())
        for argument, values in self.wrong.items():
            for label, value in values.items():
                given = {**self.right, argument: value}
                yield Attempt(f"{self.name}({argument}={label})", lambda folder, given=given: refused(self.call, given))

    def survival(self) -> Verdict:
        self.call(**self.right)
        return "survived"


def refused(call: Callable[..., Any], given: Mapping[str, Any]) -> Verdict:
    return refusal(lambda: call(**given))


ONE = torch.ones(1, dtype=torch.int64)


def picture(*shape: int) -> Tensor:
    return torch.rand(shape or (1, 3, 16, 16), generator=torch.Generator().manual_seed(0))


def pick(values: Wrong, *labels: str) -> Wrong:
    return {label: values[label] for label in labels}


def drop(values: Wrong, *labels: str) -> Wrong:
    return {label: value for label, value in values.items() if label not in labels}


X = picture()
LR = picture(1, 3, 4, 4)
NAN = X.clone().fill_(math.nan)

NO_TENSOR: Wrong = {
    "array": X.numpy(),
    "list": X.tolist(),
    "None": None,
    "number": 0.5,
    "path": "cat.png",
    "PIL": Image.new("RGB", (16, 16)),
    "uint8": (255 * X).byte(),
    "int64": (255 * X).long(),
    "bool": X > 0.5,
}
NO_IMAGE: Wrong = {
    **NO_TENSOR,
    "0 to 255": 255 * X,
    "-1 to 1": 2 * X - 1,
    "nan": NAN,
    "inf": X / 0,
    "no batch": X[0],
    "gray": X[:, :1],
    "four channels": torch.cat([X, X[:, :1]], dim=1),
    "channels last": X.permute(0, 2, 3, 1),
    "five axes": X[None],
    "no pixels": X[..., :0],
    "no images": X[:0],
}
NO_PLANES = pick(NO_IMAGE, "array", "list", "None", "number", "uint8", "PIL", "no pixels")  # where (..., H, W) is
NO_VALUES = pick(NO_IMAGE, "0 to 255", "-1 to 1", "nan")
NO_COUNT: Wrong = {
    "0": 0,
    "-1": -1,
    "1.5": 1.5,
    "text": "4",
    "True": True,
    "None": None,
    "nan": math.nan,
    "list": [4],
}
COUNT = drop(NO_COUNT, "None")  # where None is a default
NO_INDEX = drop(NO_COUNT, "0")
NO_NUMBER: Wrong = {"text": "0.5", "None": None, "nan": math.nan, "list": [0.5], "-inf": -math.inf}
NO_POSITIVE: Wrong = {**NO_NUMBER, "0": 0.0, "-1": -1.0, "inf": math.inf}
NO_SIZE: Wrong = {**NO_NUMBER, "-1": -1.0, "inf": math.inf}
NO_SHARE: Wrong = {**NO_SIZE, "2": 2.0}
NO_CHOICE: Wrong = {"typo": "typo", "None": None, "number": 3, "list": ["l1"]}
NO_NAME: Wrong = {"typo": "typo", "None": None, "number": 3, "list": ["psnr"], "empty": ""}
NO_GENERATOR: Wrong = {
    "seed": 0,
    "NumPy": np.random.default_rng(0),
    "RandomState": np.random.RandomState(0),
    "class": torch.Generator,
}
NO_TABLE: Wrong = {
    "list": [0.1, 0.2],
    "array": np.linspace(0.1, 0.2, 4),
    "number": 0.1,
    "None": None,
    "two axes": torch.full((2, 2), 0.1),
    "empty": torch.zeros(0),
    "nan": torch.tensor([0.1, math.nan]),
    "negative": torch.tensor([-0.1, 0.2]),
    "zero": torch.tensor([0.0, 0.2]),
    "whole": torch.tensor([1, 2]),
}
NO_TIMES: Wrong = {
    "one": [10.0],
    "none": [],
    "rising": [1.0, 5.0, 10.0],
    "equal": [10.0, 10.0],
    "beyond": [11.0, 1.0],
    "negative": [10.0, -1.0],
    "nan": [10.0, math.nan],
    "number": 10,
    "None": None,
    "text": "10 5 1",
    "words": ["10", "1"],
}
NO_FUNCTION: Wrong = {"None": None, "tensor": X, "text": "denoise"}
NO_PATH: Wrong = {"text": "vp", "None": None, "betas": torch.full((10,), 0.1), "class": paths.DiscreteVP}


class Returns(degradations.Degradation):
    """A degradation of a user that makes what it is told to."""

    kind, deterministic, reach, description = "returns", True, 2, "returns what it is told to"
    made: Any = None

    def __call__(self, hr: Tensor, generator: torch.Generator | None = None) -> Any:
        return self.made(degradations.bicubic_downsample(hr, self.scale))


def returning(change: Callable[[Tensor], Any]) -> Returns:
    degradation = Returns(4)
    object.__setattr__(degradation, "made", change)
    return degradation


BAD_RESULTS: dict[str, Callable[[Tensor], Any]] = {
    "nan": lambda lr: lr * math.nan,
    "0 to 255": lambda lr: 255 * lr,
    "-1 to 1": lambda lr: 2 * lr - 1,
    "uint8": lambda lr: (255 * lr).byte(),
    "array": lambda lr: lr.numpy(),
    "None": lambda lr: None,
    "too large": lambda lr: torch.cat([lr, lr], dim=2),
    "no batch": lambda lr: lr[0],
    "gray": lambda lr: lr[:, :1],
}
NO_DEGRADATION: Wrong = {"name": "bicubic", "class": degradations.Bicubic, "other scale": degradations.Bicubic(2)}


@functools.cache
def tiny(name: str) -> methods.Method:
    with torch.random.fork_rng():
        return srbook.build(f"{name}-tiny").eval()


@functools.cache
def small(name: str) -> tuple[str, Mapping[str, Any]]:
    """A kind of method, and right arguments with a network that is made fast."""
    preset = registry.read_preset(f"{name}-tiny")
    network = preset.arguments["network"]
    if name not in ("rrdb", "irsde"):
        fast = {"width": 16, "multipliers": [1, 2], **({"blocks": [1, 1]} if name == "ecdp" else {})}
        network = {**network, **fast}
    return preset.method, {**preset.arguments, "network": network}


def construct(name: str, **given: Any) -> methods.Method:
    """A method with arguments of its own; dicts are merged."""
    kind, arguments = small(name)
    both = {key: isinstance(value, dict) and isinstance(arguments.get(key), dict) for key, value in given.items()}
    merged = {key: {**arguments[key], **value} if both[key] else value for key, value in given.items()}
    return methods.METHODS[kind](**{**arguments, **merged})


def of_images() -> Iterator[Case]:
    yield Case("require_images", images.require_images, {"image": X}, {"image": NO_IMAGE})
    yield Case("require_one_image", images.require_one_image, {"image": X}, {"image": {"two": X.repeat(2, 1, 1, 1)}})
    yield Case("luma", images.luma, {"image": X}, {"image": drop(NO_IMAGE, "0 to 255", "-1 to 1", "nan", "inf")})
    for function in (images.clip, images.round_to_8bit):
        yield Case(function.__name__, function, {"image": X}, {"image": drop(NO_TENSOR, "PIL")})
    cropped = {"image": X, "scale": 4}
    yield Case(
        "crop_to_multiple", images.crop_to_multiple, cropped, {"image": drop(NO_PLANES, "uint8"), "scale": NO_COUNT}
    )
    right = {"shape": (2, 3), "like": X, "generator": torch.Generator()}
    likes = {"None": None, "type": torch.float32, "uint8": X.byte()}
    yield Case("normal", random.normal, right, {"like": likes, "generator": NO_GENERATOR})
    for label, value in {"-1": -1, "1.5": 1.5, "text": "0"}.items():
        yield Case(f"keyed({label})", lambda key: random.keyed(key), {"key": 1}, {"key": {label: value}})


def of_degradations() -> Iterator[Case]:
    right = {"hr": X, "scale": 4}
    wrong = {"hr": {**NO_PLANES, **NO_VALUES, "odd": picture(1, 3, 9, 10)}, "scale": {**NO_COUNT, "3": 3}}
    yield Case("bicubic_downsample", degradations.bicubic_downsample, right, wrong)
    wrong = {"lr": NO_PLANES, "scale": NO_COUNT}
    yield Case("bicubic_upsample", degradations.bicubic_upsample, {"lr": LR, "scale": 4}, wrong)
    sizes = {"number": 8, "one": (8,), "0": (0, 8), "float": (8.0, 8.0), "text": "8x", "both": (4, 4)}
    wrong = {"image": NO_PLANES, "scale": NO_POSITIVE, "size": sizes}
    yield Case("imresize", degradations.imresize, {"image": X, "scale": 0.5}, wrong)
    wrong = {"x": drop(NO_TENSOR, "path", "PIL"), "a": NO_NUMBER}
    yield Case("cubic_kernel", degradations.cubic_kernel, {"x": X}, wrong)
    right = {"in_length": 8, "out_length": 4, "scale": 0.5}
    wrong = {"in_length": NO_COUNT, "out_length": NO_COUNT, "scale": NO_POSITIVE}
    yield Case("resize_weights", degradations.resize_weights, right, wrong)
    wrong = {"image": NO_PLANES, "lr": {**NO_PLANES, "other size": picture(1, 3, 5, 5)}}
    yield Case("consistent", degradations.consistent, {"image": X, "lr": LR}, wrong)
    wrong = {"image": NO_PLANES, "scale": {**NO_COUNT, "3": 3}}
    yield Case("fixed_and_free", degradations.fixed_and_free, {"image": X, "scale": 4}, wrong)
    lists = {"none": [], "batch": X[0], "arrays": [X.numpy()], "None": None, "0 to 255": [255 * X]}
    wrong = {"images": lists, "scale": NO_COUNT}
    yield Case("residual_deviation", degradations.residual_deviation, {"images": [X], "scale": 4}, wrong)
    wrong = {"description": {**NO_NAME, "other": {"kind": "noisy", "typo": 1}, "class": degradations.Bicubic}}
    right = {"description": "bicubic", "scale": 4}
    yield Case("build_degradation", degradations.build_degradation, right, {**wrong, "scale": NO_COUNT})
    yield Case("Bicubic", degradations.Bicubic, {"scale": 4}, {"scale": NO_COUNT})
    yield Case("Noisy", degradations.Noisy, {"scale": 4, "std": 0.1}, {"std": NO_SIZE})
    for degrade in (degradations.Bicubic(4), degradations.Noisy(4, 0.1)):
        wrong = {"hr": {**NO_IMAGE, "odd": picture(1, 3, 9, 10)}, "generator": NO_GENERATOR}
        yield Case(f"{degrade.kind} degrades", degrade, {"hr": X, "generator": None}, wrong)
    bad = {label: returning(change) for label, change in BAD_RESULTS.items()}
    fine = returning(lambda lr: lr)
    yield Case("a user's degradation", lambda degrade: degrade(X), {"degrade": fine}, {"degrade": bad})

    def cut(degradation: Any) -> object:
        return data.PairedPatches([X], scale=4, patch_size=16, batch_size=1, degradation=degradation)[0]

    yield Case("PairedPatches degrades", cut, {"degradation": fine}, {"degradation": {**bad, **NO_DEGRADATION}})

    def protocol(degradation: Any) -> object:
        return metrics.PROTOCOL_A.degrade(X, 4, degradation)

    yield Case("Protocol degrades", protocol, {"degradation": fine}, {"degradation": {**bad, **NO_DEGRADATION}})

    def validate(degrade: Any) -> object:
        return training.Validation({"x": X}, degrade)(tiny("rrdb"), 1)

    yield Case("Validation", validate, {"degrade": fine}, {"degrade": {**bad, **drop(NO_DEGRADATION, "other scale")}})


def of_metrics() -> Iterator[Case]:
    big = picture(1, 3, 32, 32)
    other = {"other size": picture(1, 3, 16, 12), "batch": picture(2, 3, 16, 16)}
    borders = {"-1": -1, "8": 8, "1.5": 1.5, "text": "2", "None": None, "True": True}
    right = {"sr": X, "hr": X, "channel": "y", "border": 2}
    wrong = {"sr": NO_IMAGE, "hr": {**NO_IMAGE, **other}, "channel": {**NO_CHOICE, "Y": "Y"}, "border": borders}
    yield Case("psnr", metrics.psnr, right, wrong)
    wrong = {"sr": NO_VALUES, "hr": other, "channel": NO_CHOICE, "border": {**borders, "window": 3}}
    yield Case("ssim", metrics.ssim, right, wrong)
    small = {"too small": picture(1, 3, 8, 8), **other}
    wrong = {"sr": {**small, **NO_VALUES}, "net": NO_CHOICE}
    yield Case("lpips", metrics.lpips, {"sr": big, "hr": big}, wrong, tried=False)  # needs weights
    right, blocks = {"image": X, "channel": "y", "block": 4}, {**COUNT, "17": 17}
    wrong = {"image": NO_IMAGE, "channel": NO_CHOICE, "block": blocks}
    yield Case("image_entropy", metrics.image_entropy, right, wrong)
    right = {"image": X, "upscaled": X, "channel": "y"}
    wrong = {"image": NO_VALUES, "upscaled": {**NO_VALUES, **other}, "channel": NO_CHOICE}
    yield Case("residual_entropy", metrics.residual_entropy, right, wrong)
    right = {"values": X, "bins": 8, "low": 0.0, "high": 1.0}
    values = pick(NO_IMAGE, "array", "list", "None", "nan", "0 to 255", "no images")
    wrong = {"values": values, "bins": NO_COUNT, "low": {**NO_NUMBER, "2": 2}, "high": {**NO_NUMBER, "0": 0.0}}
    yield Case("shannon_entropy", metrics.shannon_entropy, right, wrong)
    vectors, samples = picture(20, 4), pick(NO_IMAGE, "array", "list", "None", "nan", "uint8", "no images")
    wrong = {"samples": samples, "std": NO_SIZE, "mean": NO_NUMBER}
    right = {"samples": vectors, "mean": 0.0, "std": 1.0}
    yield Case("wasserstein_to_gaussian", metrics.wasserstein_to_gaussian, right, wrong)
    wrong |= {"directions": NO_COUNT, "generator": NO_GENERATOR}
    yield Case("sliced_wasserstein", metrics.sliced_wasserstein_to_gaussian, right, wrong)
    right = {"batches": [picture(4, 2), picture(4, 2)], "extract": lambda x: x}
    batches = {
        "None": None,
        "one": [picture(1, 2)],
        "none": [],
        "images": [X],
        "widths": [picture(2, 2), picture(2, 3)],
    }
    extracts = {**NO_FUNCTION, "array": lambda x: x.numpy(), "nan": lambda x: x * math.nan}
    wrong = {"batches": batches, "extract": extracts}
    yield Case("feature_statistics", metrics.feature_statistics, right, wrong)
    first, second = (metrics.feature_statistics([picture(8, n)], lambda x: x) for n in (2, 3))
    wrong = {"second": {"None": None, "features": vectors, "other": second}}
    yield Case("frechet_distance", metrics.frechet_distance, {"first": first, "second": first}, wrong)
    large = picture(1, 3, 96, 192)
    model = metrics.fit_pristine([large])
    models = {"None of it": vectors, "text": "bsds", "features": metrics.PristineModel(vectors, vectors)}
    wrong = {"image": {**NO_VALUES, "one block": picture(1, 3, 96, 96)}, "model": models}
    unseen = {"image": pick(NO_IMAGE, "array", "None", "uint8", "no batch", "gray")}
    for judge in (metrics.clipiqa, metrics.musiq):
        yield Case(judge.__name__, judge, {}, unseen, tried=False)
    yield Case("niqe", metrics.niqe, {"image": large, "model": model}, wrong)
    bad = {"none": [], "None": None, "small": [X], "arrays": [large.numpy()], "images": large[0]}
    yield Case("fit_pristine", metrics.fit_pristine, {"images": [large]}, {"images": bad})
    wrong = {"image": drop(NO_IMAGE, "0 to 255", "-1 to 1", "gray", "four channels", "channels last")}
    yield Case("radial_spectrum", metrics.radial_spectrum, {"image": X}, wrong)
    yield Case(
        "chosen_metrics",
        metrics.chosen_metrics,
        {"names": ["psnr"]},
        {"names": {**drop(NO_NAME, "list"), "word": "psnr"}},
    )
    a = metrics.PROTOCOL_A
    wrong = {"hr": NO_IMAGE, "scale": {**NO_COUNT, "17": 17}}
    yield Case("Protocol.target", a.target, {"hr": X, "scale": 4}, wrong)
    wrong = {"target": NO_VALUES, "scale": {**NO_COUNT, "3": 3}, "generator": NO_GENERATOR}
    yield Case("Protocol.degrade", a.degrade, {"target": X, "scale": 4}, wrong)
    wrong = {"sr": NO_VALUES, "target": other, "scale": NO_COUNT}
    yield Case("Protocol.score", a.score, {"sr": X, "target": X, "scale": 2}, wrong)
    upscales = {**NO_FUNCTION, "wrong size": lambda lr: lr, "result": lambda lr: samplers.SampleResult(lr)}
    right = {"upscale": lambda lr: lr.repeat(1, 1, 2, 2), "hr": X, "scale": 2}
    yield Case("Protocol.evaluate", a.evaluate, right, {"upscale": upscales})


def of_losses() -> Iterator[Case]:
    other = {"other size": picture(1, 3, 16, 12), "gray": X[:, :1], "array": X.numpy(), "uint8": X.byte(), "None": None}
    values = pick(NO_IMAGE, "array", "list", "None", "uint8", "no pixels")
    right = {"values": X.flatten(2), "bins": 16, "sigma": 0.1, "low": 0.0, "high": 1.0}
    numbers = {"bins": {**NO_COUNT, "1": 1}, "sigma": {**NO_POSITIVE, "tiny": 1e-6}}
    ends = {"low": {**NO_NUMBER, "2": 2.0}, "high": NO_NUMBER}
    yield Case("soft_histogram", losses.soft_histogram, right, {"values": values, **numbers, **ends})
    right = {"sr": X, "hr": X, "bins": 16, "sigma": 0.1, "patch": 8, "direction": "forward", "eps": 1e-9}
    options = {"patch": {**COUNT, "3": 3}, "direction": NO_CHOICE, "eps": NO_POSITIVE}
    wrong = {"sr": {**other, "no batch": X[0]}, "hr": other, **numbers, **options}
    yield Case("entropy_matching_loss", losses.entropy_matching_loss, right, wrong)
    extracts = {**NO_FUNCTION, "array": lambda x: x.detach().numpy()}
    wrong = {"sr": other, "hr": other, "extract": extracts, "distance": NO_CHOICE}
    right = {"sr": X, "hr": X, "extract": lambda x: x, "distance": "l1"}
    yield Case("feature_distance", losses.feature_distance, right, wrong)
    logits = pick(NO_IMAGE, "array", "list", "None", "uint8", "number")
    right = {"p_logits": X.flatten(1), "q_logits": X.flatten(1)}
    wrong = {"p_logits": {**logits, "number of them": X}, "q_logits": {**logits, "other size": X.flatten(1)[:, 1:]}}
    yield Case("jensen_shannon", losses.jensen_shannon, right, wrong)
    embeds = {**NO_FUNCTION, "array": lambda x: x.detach().numpy(), "maps": lambda x: x}
    wrong = {"sr": other, "hr": other, "embed": embeds, "temperature": NO_POSITIVE}
    right = {"sr": X, "hr": X, "embed": lambda x: x.flatten(1), "temperature": 1.0}
    yield Case("jensen_shannon_loss", losses.jensen_shannon_loss, right, wrong)
    small = {"image": pick(NO_IMAGE, "array", "None", "uint8", "no batch", "gray") | {"small": LR}}
    yield Case("vgg19_features", losses.vgg19_features, {"image": X}, small, tried=False)
    yield Case("alexnet_features", losses.alexnet_features, {"image": picture(1, 3, 32, 32)}, small, tried=False)
    yield Case("embedding", losses.embedding, {}, {"encoder": NO_CHOICE}, tried=False)
    no_scores = pick(NO_IMAGE, "array", "list", "None", "uint8", "number")
    yield Case("hinge_loss", losses.hinge_loss, {"real": X, "fake": X}, {"real": no_scores, "fake": no_scores})
    last = nn.Parameter(torch.ones(2))
    no_loss = {**no_scores, "no graph": torch.ones(()), "no scalar": 2 * last}
    right = {"loss": last.sum(), "adversarial": (3 * last).sum(), "last": last}
    wrong = {"loss": no_loss, "adversarial": no_loss, "last": drop(no_scores, "number")}
    yield Case("adaptive_weight", losses.adaptive_weight, right, wrong)
    wrong = {"image": pick(NO_IMAGE, "array", "None", "uint8", "no batch", "no pixels"), "levels": NO_COUNT}
    yield Case("haar", losses.haar, {"image": X, "levels": 2}, wrong)
    yield Case("wavelet_loss", losses.wavelet_loss, {"a": X, "b": X}, {"a": other, "b": other, "levels": NO_COUNT})
    yield Case("fourier_loss", losses.fourier_loss, {"a": X, "b": X}, {"a": other, "b": other})


def of_schedules() -> Iterator[Case]:
    steps = {"steps": NO_COUNT}
    ends = {**NO_POSITIVE, "1": 1.0, "2": 2.0}
    right = {"steps": 10, "start": 0.1, "end": 0.2}
    yield Case("linear_betas", schedules.linear_betas, right, {**steps, "start": {**ends, "> end": 0.5}, "end": ends})
    yield Case("cosine_betas", schedules.cosine_betas, {"steps": 10}, {**steps, "s": NO_SIZE, "max_beta": ends})
    wrong = {**steps, "power": NO_POSITIVE, "kappa": NO_POSITIVE, "min_noise_level": NO_POSITIVE, "sqrt_eta_end": ends}
    wrong["sqrt_eta_end"] = drop(ends, "1")
    yield Case("resshift_sqrt_etas", schedules.resshift_sqrt_etas, {"steps": 10}, wrong)
    wrong = {**steps, "shape": NO_CHOICE, "end": ends}
    yield Case("mean_reverting_thetas", schedules.mean_reverting_thetas, {"steps": 10}, wrong)
    right = {"step": 5, "steps": 10, "warmup": 2, "schedule": "cosine"}
    yield Case("learning_rate_factor", schedule.learning_rate_factor, right, {"schedule": NO_CHOICE})
    numbers = {"0": 0, "-1": -1, "text": "many", "1.5": 1.5, "None": None}
    wrong = dict.fromkeys(("steps", "batch_size", "patch_size", "learning_rate", "log_every"), numbers)
    wrong["learning_rate"] = drop(numbers, "1.5")
    wrong |= {"schedule": NO_CHOICE, "precision": NO_CHOICE, "typo": {"1": 1}, "warmup": {"> steps": 20000, "-1": -1}}
    wrong |= {"ema_decay": {"1": 1.0, "-1": -1}, "betas": {"one": (0.9,), "2": (0.9, 2.0), "-1": (-1.0, 0.9)}}
    yield Case("TrainingConfig", settings.TrainingConfig, {}, wrong)


def of_paths() -> Iterator[Case]:
    betas, sqrt_etas = torch.full((10,), 0.1), torch.linspace(0.1, 0.9, 10)
    tables = {**NO_TABLE, "one": torch.ones(3), "above one": torch.tensor([0.1, 1.5])}
    wrong = {"betas": tables, "sigma": NO_SIZE}
    yield Case("DiscreteVP", paths.DiscreteVP, {"betas": betas}, wrong)
    yield Case(
        "MeanReverting", paths.MeanReverting, {"thetas": betas}, {"thetas": drop(NO_TABLE, "whole"), "sigma": NO_SIZE}
    )
    wrong = {"sqrt_etas": {**tables, "falling": torch.tensor([0.9, 0.1])}, "kappa": NO_SIZE}
    yield Case("ResidualShift", paths.ResidualShift, {"sqrt_etas": sqrt_etas}, wrong)
    wrong = {"beta_min": {**NO_POSITIVE, "> max": 30.0}, "beta_max": NO_POSITIVE, "sigma": NO_SIZE}
    yield Case("ContinuousVP", paths.ContinuousVP, {}, wrong)

    path = paths.DiscreteVP(betas, sigma=0.5)
    wrong = {"steps": {**NO_COUNT, "11": 11}, "last": {**NO_NUMBER, "10": 10.0, "0.5": 0.5, "-1": -1.0}}
    yield Case("path.times", path.times, {"steps": 5}, wrong)
    times = {"T + 1": 11, "-1": -1, "nan": math.nan, "text": "5", "None": None}
    times |= {"batch": torch.ones(3), "two axes": torch.ones(1, 1), "dict": {}, "complex": 1j, "True": np.bool_(True)}
    for function in (path.signal, path.level, path.diffusion):
        yield Case(f"path.{function.__name__}", function, {"t": 5}, {"t": drop(times, "batch")})
    no_state = pick(NO_TENSOR, "array", "list", "None", "uint8", "number")
    unfit = {**drop(no_state, "number"), "other size": picture(1, 3, 5, 7)}
    right = {"x0": X, "anchor": X, "t": 5.0, "noise": X}
    wrong = {"x0": no_state, "anchor": unfit, "t": times, "noise": unfit}
    yield Case("path.perturb", path.perturb, right, wrong)
    right = {"x_t": X, "x0": X, "anchor": X, "t": 5.0, "s": 4.0, "eta": 1.0}
    wrong = {"x_t": no_state, "x0": unfit, "anchor": unfit, "t": times, "eta": NO_SHARE}
    wrong["s"] = {**times, "later": 6.0, "equal": 5.0}
    yield Case("path.posterior", path.posterior, right, wrong)
    wrong = {"x_t": no_state, "x0": unfit, "anchor": unfit, "t": {**times, "0": 0.0}}
    yield Case("path.velocity", path.velocity, {"x_t": X, "x0": X, "anchor": X, "t": 5.0}, wrong)
    yield Case("path.start", path.start, {"anchor": X, "noise": X}, {"anchor": unfit, "noise": no_state})
    yield Case("path.normalized", path.normalized, {"x": X, "anchor": X}, {"x": no_state, "anchor": unfit})

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return 0.5 * x

    denoisers = {**NO_FUNCTION, "array": lambda x, t: x.numpy(), "other size": lambda x, t: x[..., :7]}
    denoisers |= {"batch": lambda x, t: x.repeat(2, 1, 1, 1), "None": lambda x, t: None}
    shared = {"path": NO_PATH, "denoise": denoisers, "x": no_state, "anchor": unfit, "times": NO_TIMES}
    right = {"path": path, "denoise": denoise, "x": X, "anchor": X, "times": [10.0, 5.0, 1.0]}
    wrong = {**shared, "eta": NO_SHARE, "generator": NO_GENERATOR}
    yield Case("ancestral", samplers.ancestral, right, {**wrong, "variance": NO_CHOICE})
    yield Case("reverse_sde", samplers.reverse_sde, right, wrong)
    wrong_steps = {"path": NO_PATH, "t": times, "s": {**times, "later": 6.0}, "eta": NO_SHARE}
    steps = {"path": path, "t": 5.0, "s": 4.0, "eta": 0.0}
    yield Case("step_coefficients", samplers.step_coefficients, steps, wrong_steps)
    wrong = {**shared, "solver": NO_CHOICE, "times": {**NO_TIMES, "0": [10.0, 0.0]}}
    yield Case("probability_flow", samplers.probability_flow, right, wrong)
    wrong = {"rtol": NO_POSITIVE, "atol": NO_POSITIVE, "denoise": denoisers}
    yield Case("dopri5", samplers.probability_flow, {**right, "solver": "dopri5"}, wrong)

    wrong = {"path": NO_PATH, "count": NO_COUNT, "generator": NO_GENERATOR}
    yield Case("draw_steps", objectives.draw_steps, {"path": path, "count": 2}, wrong)
    continuous = {"continuous": paths.ContinuousVP()}
    wrong["path"] = {**NO_PATH, **continuous}
    wrong |= {"uniform_in": NO_CHOICE}
    yield Case("draw_between_steps", objectives.draw_between_steps, {"path": path, "count": 2}, wrong)
    right = {"path": path, "kind": "eps", "predict": denoise, "x0": X, "anchor": X, "t": torch.ones(1), "noise": X}
    wrong = {"path": NO_PATH, "kind": NO_CHOICE, "predict": denoisers, "x0": no_state, "anchor": unfit, "noise": unfit}
    wrong |= {"t": times, "distance": NO_CHOICE}
    yield Case("denoising_losses", objectives.denoising_losses, right, wrong)
    for function in (parametrizations.to_x0, parametrizations.to_noise):
        right = {"path": path, "kind": "eps", "output": X, "x_t": X, "anchor": X, "t": 5.0}
        heads = {**right, "kind": "hybrid", "output": torch.cat([X, X], dim=1)}
        wrong = {"path": NO_PATH, "kind": NO_CHOICE, "output": unfit, "x_t": no_state, "anchor": unfit, "t": times}
        yield Case(function.__name__, function, {**right, "kind": "v"}, wrong)
        yield Case(f"{function.__name__} of heads", function, heads, {"output": {"one head": X, **unfit}})
    right = {"path": path, "kind": "v", "x0": X, "noise": X, "anchor": X, "t": 5.0}
    wrong = {"path": NO_PATH, "kind": NO_CHOICE, "x0": no_state, "noise": unfit, "anchor": unfit, "t": times}
    yield Case("target", parametrizations.target, right, wrong)
    wrong = {"ratio": NO_POSITIVE}
    yield Case("blend_weight", parametrizations.blend_weight, {"path": path, "t": 5.0, "ratio": 1.0}, wrong)


def of_exact() -> Iterator[Case]:
    y = picture(4)
    right = {"y": y, "examples": picture(3, 4), "noise": 0.1}
    wrong = {"y": {"array": y.numpy(), "two axes": y[None]}, "examples": {"None": None, "width": picture(3, 5)}}
    yield Case("empirical_posterior", exact.empirical_posterior, right, {**wrong, "noise": NO_POSITIVE})
    right = {"weights": torch.ones(2), "means": picture(2, 3), "covariances": torch.eye(3).repeat(2, 1, 1)}
    wrong = {
        "weights": {"list": [1, 1], "negative": -torch.ones(2), "three": torch.ones(3), "nan": torch.ones(2) / 0 * 0}
    }
    wrong |= {"means": {"list": [[0.0] * 3] * 2, "one axis": picture(3)}}
    wrong |= {"covariances": {"None": None, "singular": torch.zeros(2, 3, 3), "asymmetric": picture(2, 3, 3)}}
    yield Case("GaussianMixture", exact.GaussianMixture, right, wrong)
    mixture = exact.GaussianMixture(**right)
    wrong = {"count": NO_COUNT, "generator": NO_GENERATOR}
    yield Case("GaussianMixture.sample", mixture.sample, {"count": 2}, wrong)
    path, points = paths.ContinuousVP(), picture(5, 3)
    right = {"path": path, "x_t": points, "anchor": torch.zeros(3), "t": 0.5}
    wrong = {"path": NO_PATH, "x_t": {"array": points.numpy(), "width": picture(5, 4)}, "t": {"2": 2.0, "text": "1"}}
    yield Case("GaussianMixture.score", mixture.score, right, {**wrong, "anchor": {"None": None, "width": y}})
    yield Case("GaussianMixture.score, a number", mixture.score, {**right, "anchor": 0.5}, {})
    right = {name: torch.ones(2) for name in ("mean1", "std1", "mean2", "std2")}
    stds = {"0": torch.zeros(2), "None": None, "three": torch.ones(3), "text": "1", "number": 1.0}
    yield Case("gaussian_kl", elbo.gaussian_kl, right, {"std1": stds, "std2": stds})
    path = paths.DiscreteVP(torch.full((10,), 0.1))
    wrong = {"path": NO_PATH, "t": {"11": 11, "text": "5", "None": None}, "s": {"6": 6}, "variance": NO_CHOICE}
    yield Case("noise_weight", elbo.noise_weight, {"path": path, "t": 5, "s": 4}, wrong)
    x0 = images.round_to_8bit(X)
    right = {"path": path, "denoise": lambda x, t: x, "x0": x0, "anchor": X, "times": [10, 5, 0]}
    wrong = {"path": NO_PATH, "denoise": NO_FUNCTION, "times": {**NO_TIMES, "not to 0": [10, 5]}, "variance": NO_CHOICE}
    wrong |= {"anchor": {"None": None, "width": picture(1, 3, 5, 7)}}
    wrong |= {"x0": {"array": x0.numpy(), "not 8 bits": X, "0 to 255": 255 * x0}, "generator": NO_GENERATOR}
    yield Case("elbo_terms", elbo.elbo_terms, right, wrong)
    yield Case("elbo_terms, a number", elbo.elbo_terms, {**right, "anchor": 0.5}, {})


def of_networks() -> Iterator[Case]:
    dropouts = {"-1": -1.0, "2": 2.0, "text": "0.1", "None": None}
    levels = {"none": [], "0": [1, 0], "negative": [1, -2], "1.5": [1, 1.5], "text": "12", "number": 2, "None": None}
    unet = {"width": 16, "multipliers": (1, 2), "blocks": 1, "groups": 8, "attention": (), "dropout": 0.0}
    of_unet = {"width": {**NO_COUNT, "12": 12}, "blocks": NO_COUNT, "multipliers": levels, "groups": NO_COUNT}
    of_unet |= {"attention": {"5": (5,), "-1": (-1,), "number": 1, "text": "1"}, "dropout": dropouts}
    yield Case("UNet", networks.UNet, unet, {**of_unet, "inputs": NO_COUNT, "outputs": NO_COUNT})
    yield Case("ResDiffUNet", networks.ResDiffUNet, unet, {**of_unet, "size": NO_COUNT})
    wrong = {"scale": {**NO_COUNT, "3": 3}, "width": NO_COUNT, "context": NO_COUNT, "multipliers": levels}
    right = {"scale": 4, "context": 8, "width": 8, "multipliers": (1, 2)}
    yield Case("SRDiffUNet", networks.SRDiffUNet, right, wrong)
    right = {"context": 8, "width": 16, "multipliers": (1, 2), "blocks": (1, 1), "time_channels": 8}
    wrong = {"context": NO_COUNT, "width": {**NO_COUNT, "12": 12}, "time_channels": NO_COUNT}
    wrong |= {"multipliers": levels, "blocks": {**levels, "one": [1]}}
    yield Case("GuidedUNet", networks.GuidedUNet, right, wrong)
    swin = {"width": 16, "multipliers": (1, 2), "blocks": 1, "attention": (1,), "groups": 8, "dropout": 0.0}
    swin |= {"embedding": 16, "heads": 2, "window": 4, "depth": 1, "ratio": 2, "size": 8}
    wrong = dict.fromkeys(("channels", "condition", "window", "depth", "ratio"), NO_COUNT)
    wrong |= {"halvings": NO_INDEX, "embedding": {**NO_COUNT, "12": 12}, "heads": {**NO_COUNT, "3": 3}}
    yield Case("SwinUNet", networks.SwinUNet, swin, {**of_unet, **wrong, "size": {**NO_COUNT, "3": 3}})
    right = {"channels": 8, "embedding": 8, "heads": 2, "window": 4, "size": 8, "groups": 4}
    wrong = {**dict.fromkeys((*right, "depth", "ratio"), NO_COUNT), "heads": {**NO_COUNT, "3": 3}}
    yield Case("SwinLayer", networks.SwinLayer, right, wrong)
    right = {"channels": 8, "heads": 2, "side": 4, "shift": 2, "ratio": 2, "groups": 4}
    wrong = {"shift": {**NO_INDEX, "4": 4}, "groups": {**NO_COUNT, "3": 3}, "side": NO_COUNT}
    yield Case("SwinBlock", networks.SwinBlock, right, wrong)
    wrong = {"channels": NO_COUNT, "heads": {**NO_COUNT, "3": 3}, "side": NO_COUNT}
    yield Case("WindowAttention", networks.WindowAttention, {"channels": 8, "heads": 2, "side": 4}, wrong)
    right = {"inputs": 6, "outputs": 3, "width": 8, "depth": 2}
    wrong = dict.fromkeys(("inputs", "outputs", "depth"), NO_COUNT)
    yield Case("LinearUNet", networks.LinearUNet, right, {**wrong, "width": {**NO_COUNT, "2": 2, "7": 7}})
    wrong = {**dict.fromkeys(("inputs", "outputs", "middle"), NO_COUNT), "width": {**NO_COUNT, "2": 2, "7": 7}}
    right = {"inputs": 6, "outputs": 3, "width": 8, "down": (1,), "middle": 1, "up": (1,)}
    other = {**levels, "two": (1, 1)}
    wrong |= {"down": other, "up": other}
    yield Case("NAFNet", networks.NAFNet, right, wrong)
    vqgan = {"width": 8, "multipliers": (1, 2), "blocks": (1, 1), "channels": 3, "codes": 8, "groups": 4}
    wrong = {"width": {**NO_COUNT, "6": 6}, "multipliers": levels, "channels": NO_COUNT, "codes": NO_COUNT}
    wrong |= {"blocks": {**drop(levels, "0", "number"), "one": (1,)}, "groups": {**COUNT, "3": 3}}
    yield Case("VQAutoencoder", networks.VQAutoencoder, vqgan, wrong)
    wrong = {"codes": NO_COUNT, "channels": NO_COUNT}
    yield Case("Codebook", networks.Codebook, {"codes": 8, "channels": 3}, wrong)
    wrong = {"width": NO_COUNT, "layers": NO_COUNT}
    yield Case("PatchDiscriminator", networks.PatchDiscriminator, {"width": 4, "layers": 1}, wrong)
    bounds = {"0": 0.0, "-1": -1.0, "nan": math.nan, "text": "2"}
    wrong = {"width": {**NO_COUNT, "3": 3}, "inner": NO_CHOICE, "bound": bounds}
    yield Case("Coupling", networks.Coupling, {"width": 4, "inner": "inverted", "bound": 2.0}, wrong)
    right = {"width": 4, "depth": 2, "bound": None}
    yield Case("InvertibleNetwork", networks.InvertibleNetwork, right, {**wrong, "depth": NO_COUNT})
    wrong |= {"classes": NO_COUNT, "depth": NO_COUNT}
    yield Case("FrequencyExtractor", networks.FrequencyExtractor, {"classes": 2, "width": 4, "depth": 1}, wrong)
    right = {"scale": 4, "width": 8, "growth": 4, "blocks": 1}
    wrong = {"scale": {**NO_COUNT, "3": 3}, "width": NO_COUNT, "growth": NO_COUNT, "blocks": NO_COUNT}
    yield Case("RRDBNet", networks.RRDBNet, right, wrong)
    widths = {"none": (), "three": (1, 2, 3), "0": (0, 8), "-1": (-1, 8), "text": "88", "number": 8}
    wrong = {"scale": NO_COUNT, "widths": widths, "kernels": {"even": (8, 1, 5), "two": (9, 5), "0": (0, 1, 5)}}
    yield Case("SRCNN", networks.SRCNN, {"scale": 4, "widths": (8, 8)}, wrong)
    wrong = {"scale": NO_COUNT, "widths": drop(widths, "none", "three")}
    yield Case("ResidualPredictor", networks.ResidualPredictor, {"scale": 4, "widths": (8, 8)}, wrong)
    wrong = {"scale": NO_COUNT, "width": NO_COUNT}
    yield Case("AttentionPredictor", networks.AttentionPredictor, {"scale": 4, "width": 8}, wrong)
    wrong = {"scale": NO_COUNT, "size": {**NO_COUNT, "4": 4}}
    yield Case("LinearUpscaler", networks.LinearUpscaler, {"scale": 4, "size": 3}, wrong)
    right = {"scale": 4, "kind": "rrdb", "width": 8, "growth": 4, "blocks": 1}
    yield Case("build_network", networks.build_network, right, {"kind": NO_NAME, "typo": {"1": 1}})
    pairs = {"none": [], "None": None, "swapped": [(LR, X)], "unfit": [(X, picture(1, 3, 5, 5))], "images": [X]}
    right = {"batches": [(X, LR)], "scale": 4, "size": 3}
    yield Case("least_squares_upscaler", networks.least_squares_upscaler, right, {"batches": pairs, "scale": NO_COUNT})
    times = {"two axes": torch.ones(1, 1), "number": 1.0, "array": np.ones(1), "None": None}
    wrong = {"time": times, "channels": {**NO_COUNT, "3": 3}}
    embedding = {"time": torch.ones(1), "channels": 8}
    yield Case("sinusoidal_embedding", networks.sinusoidal_embedding, embedding, wrong)
    wrong = {"height": NO_COUNT, "width": NO_COUNT, "sigma": NO_POSITIVE}
    yield Case("gaussian_filter", networks.gaussian_filter, {"height": 4, "width": 4, "sigma": 0.5}, wrong)
    inputs = pick(NO_IMAGE, "array", "None", "uint8", "no batch", "gray", "four channels", "no pixels")
    for kind in ("rrdb", "srcnn", "predictor"):
        network = networks.build_network(4, kind, **({"width": 8, "growth": 4, "blocks": 1} if kind == "rrdb" else {}))
        yield Case(f"{kind}.forward", lambda lr, network=network: network(lr), {"lr": LR}, {"lr": inputs})
    network = networks.UNet(**{**unet, "inputs": 3})
    wrong = {"x": {**inputs, "odd": picture(1, 3, 9, 9)}, "time": {**times, "batch": torch.ones(2)}}
    yield Case("UNet.forward", network.forward, {"x": X, "time": torch.ones(1)}, wrong)
    times |= {"batch": torch.ones(2)}
    unfit = {**inputs, "odd": picture(1, 3, 9, 9)}
    right = {"x": X, "time": torch.ones(1), "condition": X}
    wrong = {"x": unfit, "time": times, "condition": {**unfit, "batch": X.repeat(2, 1, 1, 1), "small": LR}}
    yield Case("SwinUNet.forward", networks.SwinUNet(**swin).forward, right, wrong)
    right, wrong = {"x": X, "time": torch.ones(1)}, {"x": unfit, "time": times}
    for kind in (networks.LinearUNet(3, 3, width=8, depth=2), networks.NAFNet(3, 3, 8, (1,), 1, (1,))):
        yield Case(f"{type(kind).__name__}.forward", kind.forward, right, wrong)
    codec = networks.VQAutoencoder(**vqgan)
    yield Case("VQAutoencoder.encode", codec.encode, {"image": X}, {"image": unfit})
    yield Case("VQAutoencoder.decode", codec.decode, {"z": X}, {"z": inputs})
    judge = networks.PatchDiscriminator(4, 1)
    small = {"small": picture(1, 3, 5, 9)}
    yield Case("PatchDiscriminator.forward", judge.forward, {"image": X}, {"image": {**inputs, **small}})
    maps = pick(NO_IMAGE, "array", "None", "uint8", "no batch", "gray")
    invertible = networks.InvertibleNetwork(4, 1)
    four = picture(1, 4, 8, 8)
    yield Case("InvertibleNetwork.forward", invertible.forward, {"input": four}, {"input": maps})
    yield Case("InvertibleNetwork.inverse", invertible.inverse, {"y": four}, {"y": maps})
    extractor = networks.FrequencyExtractor(2, width=4, depth=1)
    yield Case("FrequencyExtractor.features", extractor.features, {"image": X}, {"image": maps})
    yield Case("Unshuffled", spaces.Unshuffled, {"factor": 4}, {"factor": NO_COUNT})
    space = spaces.Unshuffled(4)
    yield Case("Unshuffled.encode", space.encode, {"image": X}, {"image": unfit})
    yield Case("Unshuffled.decode", space.decode, {"x": space.encode(X)}, {"x": inputs})
    yield Case("Latent", spaces.Latent, {"codec": Codec()}, {"codec": {"name": "vqgan", "None": None}})
    yield Case("Frozen", frozen.Frozen, {"module": nn.Linear(1, 1)}, {"module": {"name": "vgg19", "None": None}})


class Codec(nn.Module):
    channels, factor = 3, 1

    def encode(self, image: Tensor) -> Tensor:
        return image

    def decode(self, x: Tensor) -> Tensor:
        return x


def of_methods() -> Iterator[Case]:
    number = drop(NO_POSITIVE, "0")
    diffusion = {"variance": NO_CHOICE, "distance": NO_CHOICE, "sampling_steps": {**COUNT, "too many": 10**5}}
    schedule = {"none": None, "number": 10, "1.5": {"end": 1.5}, "text": {"steps": "10"}}
    cosine = {**drop(schedule, "1.5"), "max_beta": {"max_beta": 1.5}}
    network = {"number": 8, "-1": {"blocks": -1}, "0": {"width": 0}, "text": {"width": "32"}}
    scales = {**NO_COUNT, "1": 1, "float": 4.0}
    common = {"scale": scales, "schedule": schedule, "network": network, **diffusion}
    encoder = {"number": 8, "-1": {"blocks": -1}, "0": {"width": 0}}
    weights = {"pixel_weight": number}
    wrong: dict[str, Mapping[str, Wrong]] = {
        "sr3": {**common, "clock": NO_CHOICE, "uniform_in": NO_CHOICE, "anchor": NO_CHOICE, "sigma": number},
        "ddpm": common,
        "srdiff": {**common, "schedule": cosine, "network": drop(network, "-1"), "encoder": encoder, "sigma": number},
        "resdiff": {**common, "predictor": {"number": 8, "0": {"widths": [0]}}, **weights, "fourier_weight": number},
        "esrdf": {**common, "predictor": {"0": {"width": 0}}, **weights, "start": NO_CHOICE, "entropy": {"number": 1}},
        "ecdp": {
            **drop(common, "schedule"),
            "encoder": encoder,
            "taps": {"none": [], "5": [5], "-1": [-1], "twice": [0, 0], "number": 1, "text": "01"},
            **dict.fromkeys(("kernel", "blend", "weighting", "quality_features", "gradients", "sampler"), NO_CHOICE),
            **dict.fromkeys(("ratio", "quality_weight", "tolerance"), NO_POSITIVE),
            "encoder_learns": {"typo": ["typo"], "text": "diffusion", "number": 1},
        },
        "rrdb": {"scale": scales, "distance": NO_CHOICE, "network": {**encoder, "kind": {"kind": "typo"}}},
    }
    wrong["ecdp"]["sampling_steps"] = COUNT
    described = {"file": "x", "kind": "vqgan", "arguments": {}}
    no_codec = {"missing": "missing", "number": 1, "empty": {}, "kind": {**described, "kind": "magic"}}
    no_codec |= {"no file": {"kind": "vqgan", "arguments": {}}, "arguments": {**described, "arguments": {"magic": 1}}}
    shifts = {"codec": no_codec, "unshuffle": NO_COUNT, "perceptual": number, "scale": scales}
    shifts |= {
        "network": network,
        **pick(diffusion, "sampling_steps"),
        "predicts": NO_CHOICE,
        "perceptual_net": NO_CHOICE,
    }
    steps_and_power = {"none": None, "number": 10, "1.5": {"sqrt_eta_end": 1.5}, "text": {"steps": "10"}}
    wrong["resshift"] = {**shifts, "schedule": steps_and_power, "kappa": NO_SIZE, "respacing": NO_CHOICE}
    wrong["deltadiff"] = {**shifts, "steps": NO_COUNT, "power": NO_POSITIVE, "reading": NO_CHOICE, "step": NO_CHOICE}
    wrong["deltadiff"] |= {"start": {**NO_POSITIVE, "> end": 0.995}, "end": {**NO_POSITIVE, "2": 2.0}}
    kinds = {"none": {"kind": None}, "typo": {"kind": "typo"}, "list": {"kind": ["unet"]}, "-1": {"depth": -1}}
    wrong["irsde"] = {**drop(common, "variance"), "network": {**drop(network, "-1"), **kinds}, "sigma": number}
    for name, arguments in wrong.items():
        yield Case(name, functools.partial(construct, name), {}, arguments)
    counted = {"sampling_steps": np.int64(5), "sigma": np.float32(0.5), "network": {"width": np.int64(16)}}
    yield Case("sr3 of NumPy's numbers", functools.partial(construct, "sr3"), counted, {})
    typos = {"typo": {"1": 1}, **{name: {"typo": {"typo": 1}} for name in ("network", "schedule")}}
    yield Case("build sr3", functools.partial(srbook.build, "sr3-tiny"), {}, typos)

    steps = {**COUNT, "too many": 10**5}
    for name in wrong:
        method = tiny(name)
        right = {"lr": LR, "steps": 1 if not method.samples else 2, "generator": torch.Generator()}
        wrong_lr = drop(NO_IMAGE, "path") if name == "sr3" else pick(NO_IMAGE, "array", "0 to 255", "no batch")
        other = {"float64": LR.double(), "half": LR.half()}
        numbers = COUNT if name == "ecdp" else steps  # continuous time has any number of steps
        wrong_upscale = {"lr": {**wrong_lr, **other}, "steps": numbers, "generator": NO_GENERATOR}
        yield Case(f"{name}.upscale", method.upscale, right, wrong_upscale)
        unfit = {"other scale": picture(1, 3, 8, 8), "batch": picture(2, 3, 16, 16), "float64": X.double()}
        wrong_loss = {"hr": {**pick(NO_IMAGE, "array", "uint8", "nan"), **unfit}, "generator": NO_GENERATOR}
        yield Case(f"{name}.loss", method.loss, {"hr": X, "lr": LR, "generator": None}, wrong_loss)
        yield Case(f"{name}.begin", method.begin, {"stage": method.stage}, {"stage": NO_NAME})
    yield from of_students(steps_and_power, number)
    yield from of_codecs()
    yield Case("bicubic.upscale", methods.Bicubic(scale=4).upscale, {"lr": LR}, {"lr": NO_IMAGE, "steps": steps})
    method = tiny("sr3")
    condition = method.condition(LR)
    wrong = {"condition": {"image": LR, "None": None}, "noise": pick(NO_TENSOR, "array", "None", "uint8")}
    yield Case("method.sample", method.sample, {"condition": condition, "noise": X, "steps": 2}, wrong)


def of_students(schedule: Wrong, number: Wrong) -> Iterator[Case]:
    arguments = {key: value for key, value in tiny("resshift").arguments.items() if key != "scale"}
    student = {"method": "resshift", "arguments": arguments}
    students = {"None": None, "name": "resshift-tiny", "no kind": {"arguments": arguments}, "file": __file__}
    students |= {"regression": {"method": "regression", "arguments": {}}, "typo": {**student, "method": "typo"}}
    students |= {
        f"schedule {label}": {**student, "arguments": {**arguments, "schedule": value}}
        for label, value in schedule.items()
    }
    right = {"scale": 4, "student": student}
    wrong = {"scale": {**NO_COUNT, "1": 1}, "student": students, "teacher": {"number": 1, "file": __file__}}
    wrong |= {"teacher_steps": {**COUNT, "too many": 10**5}, **dict.fromkeys(("distill", "inverse", "truth"), number)}
    wrong |= dict.fromkeys(("inverse_time", "inverse_scale"), NO_CHOICE)
    yield Case("SinSR", methods.SinSR, right, wrong)
    wrong |= {"extractor": {"number": 1, "file": __file__}, "temperature": NO_POSITIVE}
    wrong |= dict.fromkeys(("high_frequency", "divergence", "features", "lpips"), number)
    choices = ("high_frequency_of", "high_frequency_in", "encoder", "features_net", "lpips_net")
    yield Case("HFDiff", methods.HFDiff, right, {**wrong, **dict.fromkeys(choices, NO_CHOICE)})


def of_codecs() -> Iterator[Case]:
    network = {"width": 8, "multipliers": [1, 2], "blocks": 1, "codes": 8, "attention": False, "groups": 4}
    judge = {"weight": 0.5, "start": 0, "warmup": 0, "width": 4, "layers": 1}
    right = {"network": network, "perceptual": "none", "adversary": judge}
    weight = drop(NO_POSITIVE, "0")
    judges = {"weight": weight, "start": NO_INDEX, "warmup": NO_INDEX, "width": NO_COUNT, "layers": NO_COUNT}
    wrong = {
        "network": {"None": None, "number": 8, "0": {**network, "width": 0}, "text": {**network, "codes": "8"}},
        "adversary": {
            "number": 1,
            "text": "hinge",
            **{f"{name}, {label}": {**judge, name: value} for name in judges for label, value in judges[name].items()},
        },
        **dict.fromkeys(("perceptual", "weighting"), NO_CHOICE),
        **dict.fromkeys(("perceptual_weight", "beta"), weight),
        "patience": NO_COUNT,
    }
    yield Case("VQGAN", codecs.VQGAN, right, wrong)
    codec = codecs.VQGAN(**right)
    no_own = {**drop(NO_IMAGE, "path"), "float64": X.double(), "half": X.half()}
    wrong = {"lr": no_own, "steps": {**COUNT, "2": 2}, "generator": NO_GENERATOR}
    yield Case("VQGAN.upscale", codec.upscale, {"lr": X}, wrong)
    wrong = {"hr": {**no_own, "odd": picture(1, 3, 9, 9)}, "generator": NO_GENERATOR}
    yield Case("VQGAN.loss", codec.loss, {"hr": X, "lr": X}, wrong)
    yield Case("VQGAN.begin", codec.begin, {"stage": "main"}, {"stage": NO_NAME})
    no_maps = pick(NO_IMAGE, "array", "None", "uint8", "no batch", "gray", "no pixels")
    yield Case("VQGAN.encode", codec.encode, {"image": X}, {"image": {**no_maps, "odd": picture(1, 3, 9, 9)}})
    yield Case("VQGAN.decode", codec.decode, {"x": X}, {"x": no_maps})
    right = {"classes": 3, "network": {"width": 8, "depth": 1}}
    networks_ = {"number": 8, "0": {"width": 0}, "odd": {"width": 7}, "text": {"depth": "1"}, "typo": {"typo": 1}}
    yield Case("Extractor", codecs.Extractor, right, {"classes": NO_COUNT, "network": networks_})
    extractor = codecs.Extractor(**right)
    own = {"image": no_own}
    yield Case("Extractor.features", extractor.features, {"image": X}, own)
    yield Case("Extractor.embed", extractor.embed, {"image": X}, own)
    labels = {"float": torch.zeros(1), "two": torch.zeros(2, dtype=torch.int64), "3": torch.tensor([3]), "-1": -ONE}
    labels |= {"None": None, "list": [0]}
    yield Case("Extractor.loss", extractor.loss, {"image": X, "label": ONE}, {**own, "label": labels})
    yield Case("Extractor.begin", extractor.begin, {"stage": "main"}, {"stage": NO_NAME})
    right = {"z": X, "codes": X, "beta": 0.25, "weighting": "corrected"}
    unfit = {**pick(NO_IMAGE, "array", "None", "uint8"), "other size": LR}
    wrong = {"z": unfit, "codes": unfit, "beta": weight, "weighting": NO_CHOICE}
    yield Case("codebook_loss", codecs.codebook_loss, right, wrong)
    names = {**NO_NAME, "missing file": "missing.safetensors", "folder": ".", "codec": codec, "class": codecs.VQGAN}
    yield Case("read_codec", codecs.read_codec, {}, {"file_or_name": names}, tried=False)


def of_registry() -> Iterator[Case]:
    objects = {"method": tiny("rrdb"), "class": methods.SR3, "preset": registry.read_preset("sr3-tiny")}
    names = {**NO_NAME, **objects, "missing file": "missing.yaml"}
    yield Case("build", srbook.build, {"preset": "rrdb-tiny"}, {"preset": names, "typo": {"1": 1}})
    names |= {"missing file": "missing.safetensors", "untrained": "sr3-16-128", "folder": "."}
    yield Case("load", srbook.load, {"checkpoint_or_name": "bicubic"}, {"checkpoint_or_name": names})
    yield Case("read_preset", registry.read_preset, {"name": "sr3-tiny"}, {"name": {**NO_NAME, **objects}})
    yield Case("recipe", registry.recipe, {"name": "rrdb-small"}, {"name": {**NO_NAME, **objects}})
    right = {"method": tiny("sr3"), "preset": registry.read_preset("sr3-tiny")}
    wrong = {"method": {"name": "sr3-tiny", "None": None}, "preset": {"name": "sr3-tiny", "None": None}}
    yield Case("begin_from", registry.begin_from, right, wrong)
    a, rrdb = metrics.PROTOCOL_A, tiny("rrdb")
    images_of = {"x": picture(1, 3, 24, 24)}
    right = {"methods": {"sr3": tiny("sr3")}, "images": images_of, "scale": 4, "protocol": a, "steps": 2}
    wrong = {
        "methods": {"name": "rrdb-small", "names": {"x": "rrdb-small"}, "method": rrdb, "None": None, "list": [rrdb]},
        "images": {"batch": X, "list": [X], "None": None, "none": {}, "folder": "photos", "arrays": {"x": X.numpy()}},
        "scale": {**NO_COUNT, "2": 2},
        "protocol": {"name": "A", "None": None, "class": metrics.Protocol},
        "degradation": NO_DEGRADATION,
        "metrics": {"typo": ["typo"], "word": "psnr", "none": [], "metric": metrics.METRICS["psnr"], "None": None},
        "steps": COUNT,
        "seed": {"-1": -1, "1.5": 1.5, "text": "0", "generator": torch.Generator()},
        "tile": NO_COUNT,
    }
    yield Case("evaluate", evaluation.evaluate, right, wrong)
    right = {"method": rrdb, "image": LR, "tile": 8, "overlap": 1}
    wrong = {
        "method": {"name": "rrdb-small", "None": None, "class": methods.SR3, "preset": objects["preset"]},
        "image": pick(NO_IMAGE, "array", "0 to 255", "no batch", "nan", "None", "PIL"),
        "tile": NO_COUNT,
        "overlap": {"-1": -1, "3": 3, "text": "1", "1.5": 0.5},
        "steps": {**COUNT, "2": 2},
        "generator": NO_GENERATOR,
    }
    yield Case("upscale_tiled", tiling.upscale_tiled, right, wrong)
    config = settings.TrainingConfig(steps=1)
    wrong = {
        "method": {"name": "sr3-tiny", "None": None, "network": nn.Linear(1, 1), "class": methods.SR3},
        "batches": {"None": None, "number": 1},
        "config": {"dict": {"steps": 1}, "None": None, "name": "sr3-tiny"},
        "stage": drop(NO_NAME, "None", "empty"),
        "validation": {"batch": X, "list": [X], "text": "photos", "0 to 255": {"x": 255 * X}},
        "device": {"typo": "typo", "number": 0, "None": None},
        "workers": {"-1": -1, "text": "2"},
    }
    right = {"method": tiny("rrdb"), "batches": [(X, LR)], "config": config}
    yield Case("Trainer", training.Trainer, {**right, "progress": False}, wrong)
    states = {"none": {}, "None": None, "path": "x.pth", "module": rrdb, "other": {"x": X}}

    def fit(batches: Any, validation: Any, workers: int) -> object:
        trainer = training.Trainer(
            tiny("rrdb"), batches, config, validation=validation, workers=workers, device="cpu", progress=False
        )
        return trainer.fit()

    pair = picture(1, 3, 8, 8), picture(1, 3, 2, 2)
    unfit = {"none": [], "triple": [(*pair, X)], "image": [X], "words": [{"hr": X, "lr": LR}], "text": ["ab"]}
    figures = {"None": None, "list": [30.0], "text": {"psnr": "30"}, "images": {"psnr": X}}
    wrong = {"batches": unfit, "validation": {k: lambda m, step, v=v: v for k, v in figures.items()}}
    right = {"batches": [pair], "workers": 0}
    right["validation"] = lambda method, step: {"psnr": torch.tensor(30.0), "ssim": np.float32(0.9)}
    yield Case("Trainer.fit", fit, right, wrong)
    right = {"family": "rrdb", "state": {}}  # which is no right state, so that call is not tried
    yield Case("from_released", convert.from_released, right, {"family": NO_NAME, "state": states}, tried=False)
    yield Case("backbone_weights", backbones.backbone_weights, {}, {"name": NO_NAME}, tried=False)


def of_data() -> Iterator[Case]:
    yield Case("sample", data.sample, {"name": "chelsea"}, {"name": NO_NAME})
    for function in (data.catalog.find, data.catalog.locate, data.catalog.verify):
        wrong = {"name": NO_NAME, "root": {"missing": "missing"}}
        if function is data.catalog.locate:
            del wrong["root"]  # tells whether it is there
        yield Case(f"catalog.{function.__name__}", function, {"name": "Set5"}, wrong, tried=False)
    files = {"missing": "missing.png", "folder": ".", "text": __file__, "None": None, "tensor": X, "number": 1}
    for read in (data.read_image, data.read_picture):
        yield Case(read.__name__, read, {}, {"path": files}, tried=False)
    yield Case("Method.save", tiny("rrdb").save, {}, {"path": {"None": None, "number": 1, "tensor": X}}, tried=False)
    folders = {"missing": "missing", "file": __file__, "None": None, "number": 1, "list": ["a.png"]}
    yield Case("ImageFolder", data.ImageFolder, {}, {"root": folders}, tried=False)
    paths_of = [data.samples()[name].path for name in ("chelsea", "astronaut", "coffee")]
    yield Case("ImageFolder.of", data.ImageFolder.of, {"paths": paths_of}, {"paths": {"none": [], "None": None}})
    shares = {"0": 0, "all": 3, "-1": -1, "1.5": 1.5, "nan": math.nan, "text": "1", "True": True}
    folder = data.ImageFolder.of(paths_of)
    yield Case("ImageFolder.split", folder.split, {"held_out": 1}, {"held_out": shares})
    suffixes = {"none": "x", "unknown": "x.xyz", "None": None, "number": 1}
    right = {"path": os.path.join(os.devnull, "x.png"), "image": X}
    yield Case(
        "write_image", data.write_image, right, {"path": suffixes, "image": drop(NO_IMAGE, "no batch")}, tried=False
    )
    right = {"images": [X], "scale": 4, "patch_size": 8, "batch_size": 1, "seed": 0}
    lists = {"batch": picture(2, 3, 16, 16), "none": [], "None": None, "arrays": [X.numpy()], "0 to 255": [255 * X]}
    lists |= {"batches": [X.repeat(2, 1, 1, 1)], "folder": "photos", "small": [LR], "names": ["cat.png"]}
    wrong = {"images": lists, "scale": NO_COUNT, "patch_size": {**NO_COUNT, "6": 6}, "batch_size": NO_COUNT}
    wrong |= {"seed": pick(NO_INDEX, "-1", "1.5", "text", "True"), "degradation": NO_DEGRADATION}
    yield Case("PairedPatches", data.PairedPatches, right, wrong)
    patches = data.PairedPatches(**right)
    wrong = {"index": {"text": "1", "1.5": 1.5, "None": None, "list": [1]}}
    wrong = {"root": {**folders, "one class": str(paths_of[0].parent / "nowhere")}}
    yield Case("image_classes", data.image_classes, {}, wrong, tried=False)
    right = {"classes": {"cat": paths_of[:1], "cup": paths_of[2:]}, "patch_size": 8, "batch_size": 1, "seed": 0}
    classes = {"None": None, "list": paths_of, "one": {"cat": paths_of[:1]}, "none": {}, "missing": {"a": ["x.png"]}}
    wrong = {"classes": classes, "patch_size": {**NO_COUNT, "large": 10**4}, "batch_size": NO_COUNT}
    wrong |= {"seed": pick(NO_INDEX, "-1", "1.5", "text", "True")}
    yield Case("LabeledPatches", data.LabeledPatches, right, wrong)
    labeled = data.LabeledPatches(**right)
    wrong = {"index": {"text": "1", "1.5": 1.5, "None": None, "list": [1]}}
    yield Case("LabeledPatches[]", lambda index: labeled[index], {"index": np.int64(3)}, wrong)
    yield Case("PairedPatches[]", lambda index: patches[index], {"index": np.int64(3)}, wrong)


def of_figures() -> Iterator[Case]:
    shown = {**drop(NO_IMAGE, "no batch"), "batch": X.repeat(2, 1, 1, 1)}
    alts = {"empty": " ", "None": None, "number": 3}
    zooms = pick(NO_COUNT, "0", "-1", "1.5", "text", "True")
    right = {"images": [X, LR], "titles": ["large", "small"], "alt": "two"}
    lists = {"batch": X.repeat(2, 1, 1, 1), "none": [], "None": None, "one": [X], "arrays": [X.numpy(), LR.numpy()]}
    crops = {"outside": (0, 0, 99, 99), "three": (0, 0, 4), "float": (0.0, 0.0, 4.0, 4.0), "number": 4, "text": "0044"}
    columns = {"0": 0, "-1": -1, "1.5": 1.5, "text": "2"}
    wrong = {"images": lists, "titles": {"one": ["large"], "None": None, "numbers": [1, 2], "text": "ab"}}
    wrong |= {"alt": alts, "crop": crops, "zoom": zooms, "columns": columns, "caption": {"number": 3}}
    yield Case("show_images", viz.show_images, right, wrong)
    counted = {**right, "crop": (np.int64(0), 0, 4, 4)}
    yield Case("show_images, NumPy's numbers", viz.show_images, counted, {})
    yield Case("show_images, one by one", lambda: viz.show_images(iter([X]), titles=["x"], alt="x"), {}, {})
    right = {"before": X, "after": X, "labels": ("a", "b"), "alt": "two"}
    wrong = {"before": shown, "after": {"unfit": picture(1, 3, 5, 5), "None": None}, "alt": alts, "zoom": zooms}
    wrong |= {"labels": {"one": ("a",), "None": None, "numbers": (1, 2), "text": "ab"}}
    yield Case("compare", viz.compare, right, wrong)
    figures = {"None": None, "axes": "ax", "tensor": X}
    yield Case("figure", viz.figure, {"alt": "x"}, {"fig": figures}, tried=False)
    right = {"draw": lambda k: X, "axes": {"k": [1, 2]}, "alt": "at {k}"}
    wrong = {"draw": {**NO_FUNCTION, "number": lambda k: 3}, "alt": {**alts, "unknown": "{j}", "open": "{"}}
    wrong |= {"axes": {"none": {}, "empty": {"k": []}, "None": None, "number": {"k": 3}, "list": [1, 2]}, "zoom": zooms}
    wrong |= {"labels": {"unknown": {"j": "J"}, "text": "k"}}
    yield Case("explore", viz.explore, right, wrong)
    records = {"none": [], "one": [{"step": 1, "loss": 1.0}], "None": None, "numbers": [1.0, 2.0]}
    records |= {"nan": [{"step": 1, "loss": 1.0}, {"step": 2, "loss": math.nan}], "no step": [{"loss": 1.0}] * 2}
    right = {"records": [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]}
    yield Case("loss_curve", viz.loss_curve, right, {"records": records})
    right = {"title": "x", "boxes": [("a", "once", "data"), ("b", "step", "math")], "arrows": [("a", "b")], "alt": "x"}
    boxes = {"none": [], "None": None, "two texts": [("a", "once")], "lane": [("a", "later", "data")], "text": "ab"}
    boxes |= {"kind": [("a", "once", "cloud")], "alike": [("a", "once", "data")] * 2, "number": [(1, "once", "data")]}
    arrows = {"None": None, "unknown": [("a", "c")], "itself": [("a", "a")], "one": [("a",)], "numbers": [(0, 1)]}
    wrong = {"title": {"None": None, "number": 1}, "boxes": boxes, "arrows": arrows, "alt": alts}
    yield Case("block_diagram", viz.block_diagram, right, wrong)
    wrong = {"name": drop(NO_NAME, "number", "list") | {"number": 3, "path": "../typo.x"}}
    wrong |= {"value": {"text": "x", "None": None, "tensor": X}, "high": {"other": 1, "text": "0"}}
    right = {"name": "problem.same_lr", "value": 0, "high": 0}
    yield Case("check", check.check, right, wrong)
    words = {"typo": "typo", "Quick": "Quick", "number": "3"}
    yield Case("budget", with_budget, {"word": "full"}, {"word": words})
    right = {"image": X, "name": "blur", "decibels": 30.0}
    yield Case("match_psnr", distort.match_psnr, right, {"image": NO_VALUES, "name": NO_NAME})
    right = {"images": [X], "scale": 4, "size": 2}
    yield Case(
        "patch_pairs", examples.patch_pairs, right, {"images": {"None": None, "none": [], "0 to 255": [255 * X]}}
    )


def with_budget(word: str) -> int:
    kept = os.environ.get("SRBOOK_BUDGET")
    os.environ["SRBOOK_BUDGET"] = word
    try:
        return budget.pick(quick=1, full=2, gpu=3)
    finally:
        os.environ.pop("SRBOOK_BUDGET")
        if kept is not None:
            os.environ["SRBOOK_BUDGET"] = kept


PARTS = (
    of_images,
    of_degradations,
    of_metrics,
    of_losses,
    of_schedules,
    of_paths,
    of_exact,
    of_networks,
    of_methods,
    of_registry,
    of_data,
    of_figures,
)


def attempts() -> list[Attempt]:
    return [attempt for part in PARTS for case in part() for attempt in case.attempts()]
