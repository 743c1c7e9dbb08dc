"""Shifting the residual with noise and without, and where a path without noise may end.

Two comparisons, each at one network, one budget, and three seeds, all on pixels and by the plain squared error:

* the strength of the noise: kappa = 0 (DeltaDiff), 0.25 (about twice the residual), and 2 (ResShift), on the same
  schedule of the shares;
* the last share of a path without noise, in single precision: whoever reads the truth out of x_T needs every digit.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

import srbook
from benchmarks.studies.lab import Figures, Lab, quality
from srbook.images import round_to_8bit
from srbook.methods import Diffusion, Method
from srbook.metrics import PROTOCOL_A, lpips
from srbook.random import normal
from srbook.registry import read_preset

SEEDS = (0, 1, 2)
NOISE_PRESET, KAPPAS = "resshift-pixels-small", (0.0, 0.25, 2.0)
NOISE_TRAINING = {"steps": 1000, "batch_size": 4, "warmup": 50}
END_PRESET, ENDS = "deltadiff-tiny", (0.8, 0.98, 0.99, 1.0)
END_TRAINING = {"steps": 1000, "precision": "fp32"}
FIRST_ROOT = 0.1  # sqrt(eta_1) of ResShift's journal version


def run(lab: Lab) -> dict[str, Any]:
    """The rows of both tables, and what they are compared with."""
    reference = {name: lab.measure(name, alone(srbook.load(name))) for name in ("bicubic", "rrdb-small")}
    noise, end = [], []
    for seed in SEEDS:
        for kappa in KAPPAS:
            name, build = f"kappa-{kappa:g}-seed-{seed}", partial(shifting, kappa)
            noise.append({"kappa": kappa, "seed": seed, **row(lab, name, build, NOISE_PRESET, NOISE_TRAINING, seed)})
        for share in ENDS:
            name, build = f"end-{share:g}-seed-{seed}", partial(ending, share)
            end.append({"eta_end": share, "seed": seed, **row(lab, name, build, END_PRESET, END_TRAINING, seed)})
    return {"presets": {"noise": NOISE_PRESET, "end": END_PRESET}, "reference": reference, "noise": noise, "end": end}


def shifting(kappa: float) -> Diffusion:
    """ResShift on pixels with one table of shares for every kappa."""
    schedule = read_preset(NOISE_PRESET).arguments["schedule"]
    return srbook.build(
        NOISE_PRESET, kappa=kappa, schedule={**schedule, "min_noise_level": FIRST_ROOT * max(kappa, 1.0)}
    )


def ending(share: float) -> Diffusion:
    """DeltaDiff whose last share is `share`."""
    return srbook.build(END_PRESET, end=share)


def row(
    lab: Lab, name: str, build: Callable[[], Diffusion], preset: str, training: dict[str, Any], seed: int
) -> dict[str, Figures]:
    """Train with one seed, and measure."""
    torch.manual_seed(seed)
    method = build()
    config = read_preset(preset).training["diffusion"].model_copy(update={**training, "seed": seed})
    lab.train(name, method, config, "diffusion")
    return lab.measure(name, sampled(method.eval()))


def alone(method: Method):
    def figures(truth: Tensor, lr: Tensor, seed: int) -> Figures:
        return quality(method.upscale(lr).image, truth)

    return figures


def sampled(method: Diffusion):
    """Figures of a sample, of the predictions on the way to it, and how far two samples are apart."""

    def figures(truth: Tensor, lr: Tensor, seed: int) -> Figures:
        predictions = [predictions_of(method, lr, 2 * seed + other) for other in (0, 1)]
        image, another = (each[-1] for each in predictions)
        found = quality(image, truth)
        found["diversity"] = 255 * (image - another).square().mean().sqrt().item() / 2**0.5
        for step, predicted in enumerate(predictions[0], start=1):
            found[f"psnr_{step}"] = PROTOCOL_A.score(predicted, truth, 4).psnr.item()
            found[f"lpips_{step}"] = lpips(round_to_8bit(predicted), truth).item()
        return found

    return figures


def predictions_of(method: Diffusion, lr: Tensor, seed: int) -> list[Tensor]:
    """The image that the network predicts at each step of one walk; the last one is the sample."""
    generator, images = torch.Generator().manual_seed(seed), []
    condition = method.condition(lr)
    noise = normal(condition.anchor.shape, condition.anchor, generator)
    times = method.sampling_times(None)
    x = method.path.start(condition.anchor, noise, times[0])
    for t, s in pairwise(times):
        x0 = method.denoise(x, torch.full((len(x),), t), condition)
        images.append(method.space.decode(x0))
        mean, deviation = method.path.posterior(x, x0, condition.anchor, t, s)
        x = mean + deviation * normal(x.shape, x, generator)
    return images
