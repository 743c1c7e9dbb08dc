"""ESRDF's ablation: with and without the entropy loss, the residual, and the convolutional predictor.

The six rows of the paper's table share the network of the branch, its schedule, its batches, its seed, and its budget.
With bicubic upscaling in the predictor's place the rows are `SR3` told the step: the baseline, DDPM on natural images,
and the residual of bicubic.
"""

from typing import Any

import torch
from torch import Tensor

import srbook
from srbook.losses import entropy_matching_loss
from srbook.methods import SR3, Diffusion, Method
from srbook.metrics import residual_entropy
from srbook.registry import read_preset
from studies.lab import Figures, Lab, quality

PRESET = "esrdf-small"
STEPS = 20
ENTROPY = {"cnn": {"entropy_weight": 0.0}, "cnn-entropy": {}}  # what to change in the preset
ANCHORS = {"image": "gray", "residual": "predictor"}


def run(lab: Lab) -> dict[str, Any]:
    """The predictors, and the rows of the table."""
    training = read_preset(PRESET).training
    trained, predictors, rows = {}, [], []
    for name, changes in ENTROPY.items():
        torch.manual_seed(0)
        trained[name] = lab.train(name, srbook.build(PRESET, **changes), training["predictor"], "predictor")
    for name, method in {"bicubic": srbook.load("bicubic"), **trained}.items():
        predictors.append({"name": name, **lab.measure(f"predictor-{name}", alone(method))})
    for name in ("bicubic", *ENTROPY):
        for diffuses in ANCHORS:
            torch.manual_seed(0)
            if name == "bicubic":
                method = around_bicubic(diffuses)
            else:
                method = srbook.build(PRESET, anchor=ANCHORS[diffuses], **ENTROPY[name])
                method.predictor.load_state_dict(trained[name].predictor.state_dict())
            run_name = f"{name}-{diffuses}"
            lab.train(run_name, method, training["diffusion"], method.stage_names()[-1])
            rows.append({"predictor": name, "diffuses": diffuses, **lab.measure(run_name, sampled(method))})
    return {"preset": PRESET, "sampling_steps": STEPS, "predictors": predictors, "rows": rows}


def around_bicubic(diffuses: str) -> SR3:
    """The preset's branch, conditioned on the bicubic image and around it or around gray."""
    arguments = read_preset(PRESET).arguments
    return SR3(
        scale=arguments["scale"],
        schedule=arguments["schedule"],
        network=arguments["network"],
        clock="step",
        anchor={"image": "gray", "residual": "bicubic"}[diffuses],
    )


def alone(method: Method):
    """Figures of a predictor's image: those of every image, and what is left to diffuse."""

    def figures(truth: Tensor, lr: Tensor, seed: int) -> Figures:
        image = method.upscale(lr).image
        return {
            **quality(image, truth),
            "residual_entropy": residual_entropy(truth, image, channel="y").item(),
            "histogram_kl": entropy_matching_loss(image, truth).item(),
        }

    return figures


def sampled(method: Diffusion):
    def figures(truth: Tensor, lr: Tensor, seed: int) -> Figures:
        result = method.upscale(lr, steps=STEPS, generator=torch.Generator().manual_seed(seed))
        return quality(result.image, truth)

    return figures
