"""One step: what each term of SinSR and of HF-Diff does to a student, and what the step costs and saves.

For each seed a student is distilled from the shipped teacher, by all of SinSR's terms or by some, and then trained
further as the variants of HF-Diff's ablation. All of one seed see the same patches and noise. One pair of teacher and
student works on pixels, without a codec.

Beside Set5 and Set14 it measures on held-out photographs: SETS/SunHays20 holds twenty photographs of SunHays80, every
fourth from the fourth on, halved by `srbook.degradations.imresize`, as PNG.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

import srbook
from benchmarks.studies.lab import SCALE, Figures, Lab, quality
from srbook.accel import accelerate
from srbook.images import round_to_8bit
from srbook.methods import Diffusion, Method, SinSR
from srbook.metrics import niqe
from srbook.registry import begin_from, read_preset

PIECES = {"Set5": None, "Set14": 240, "SunHays20": 240}
SEEDS = (0, 1, 2)
PRESET, TEACHER, STAGE = "sinsr-small", "resshift-15-small", "distillation"
SETTINGS = {"batch_size": 8, "patch_size": 64, "ema_decay": 0.97, "validate_every": 10_000}
FIRST = SETTINGS | {"steps": 150, "warmup": 20, "learning_rate": 2e-4}
FURTHER = SETTINGS | {"steps": 70, "warmup": 5, "learning_rate": 1e-4}
#: Weights of SinSR's terms, of students that begin as the teacher.
TERMS = {
    "distill": {"inverse": 0.0, "truth": 0.0},
    "distill + inverse": {"truth": 0.0},
    "distill + inverse + truth": {},
}
OFF = {"high_frequency": 0.0, "divergence": 0.0}
#: What the student with all three is trained further with. The gradient of HF, JS, AlexNet, and LPIPS by the step is at
#: first about twice that of "distill", and that of "HF, weight 1" about eight times.
VARIANTS: dict[str, dict[str, Any]] = {
    "SinSR": {},
    "HF": {"high_frequency": 0.25},
    "HF, weight 1": {"high_frequency": 1.0},
    "JS": {"divergence": 0.02},
    "HF + JS": {"high_frequency": 0.25, "divergence": 0.02},
    "AlexNet": {"features": 0.05, "features_net": "alex"},
    "LPIPS": {"lpips": 0.07},
    "released": {"high_frequency": 0.2, "high_frequency_of": "truth", "high_frequency_in": "latent"},
}
PIXELS, PIXELS_TRAINING = "resshift-pixels-small", {"steps": 1000, "batch_size": 8, "warmup": 100}
REPEATS, SIDE = 5, 64


def run(lab: Lab) -> dict[str, Any]:
    """The rows of both tables, what they are compared with, and the seconds."""
    reference = {name: lab.measure(name, alone(srbook.load(name))) for name in ("bicubic", "rrdb-small")}
    for name, preset, steps, eta in (
        ("resshift-small, 4 steps", "resshift-small", 4, 1.0),
        ("teacher, 15 steps", TEACHER, 15, 1.0),
        ("teacher, 4 steps", TEACHER, 4, 1.0),
        ("teacher, walk of 15 steps", TEACHER, 15, 0.0),
        ("teacher, 1 step", TEACHER, 1, 0.0),
    ):
        reference[name] = lab.measure(
            name.replace(", ", "-").replace(" ", "-"), stepping(srbook.load(preset), steps, eta)
        )
    rows = [row for seed in SEEDS for row in of_seed(lab, seed)]
    return {
        "preset": PRESET,
        "settings": {"first": FIRST, "further": FURTHER},
        "weights": {"terms": TERMS, "variants": VARIANTS},
        "encoder": "alexnet",
        "reference": reference,
        "rows": rows,
        "pixels": on_pixels(lab),
        "seconds": seconds(),
    }


def of_seed(lab: Lab, seed: int) -> list[dict[str, Any]]:
    """All students of one seed: trained and measured."""
    known: dict[str, Tensor] = {}
    rows, weights = [], {}
    for name, terms in TERMS.items():
        method = srbook.build(PRESET, **terms)
        begin_from(method, read_preset(PRESET))
        rows.append(row(lab, name, "terms", method, FIRST, seed, known))
        weights = method.student.state_dict()
    known.clear()  # the further steps see other patches
    for name, terms in VARIANTS.items():
        method = srbook.build("hfdiff-small", **OFF | terms)
        method.student.load_state_dict(weights)
        rows.append(row(lab, name, "variants", method, FURTHER | {"seed": 100 + seed}, seed, known))
    return rows


def on_pixels(lab: Lab) -> dict[str, dict[str, Figures]]:
    """Teacher and student of one seed without a codec, where steps are all that takes time."""
    torch.manual_seed(0)
    teacher = pixels_teacher()
    config = read_preset(PIXELS).training["diffusion"].model_copy(update=PIXELS_TRAINING)
    lab.train("pixels-teacher", teacher, config, "diffusion")
    file = lab.folder / "pixels-teacher" / "weights.safetensors"
    arguments = {name: value for name, value in teacher.arguments.items() if name != "scale"}
    student = SinSR(scale=SCALE, student={"method": teacher.kind, "arguments": arguments}, teacher=str(file))
    student.student.load_state_dict(teacher.state_dict())
    lab.train("pixels-student", student, read_preset(PRESET).training[STAGE].model_copy(update=FIRST), STAGE)
    found = {"student": lab.measure("pixels-student", alone(student.eval()))}
    for name, steps in (("teacher, walk of 15 steps", 15), ("teacher, 1 step", 1)):
        found[name] = lab.measure(f"pixels-teacher-{steps}", stepping(teacher.eval(), steps, 0.0))
    return found


def pixels_teacher() -> Diffusion:
    """ResShift on pixels in 15 steps, with fresh weights."""
    return srbook.build(PIXELS, schedule={"steps": 15, "min_noise_level": 0.04})


def row(
    lab: Lab, name: str, table: str, method: SinSR, settings: dict[str, Any], seed: int, known: dict[str, Tensor]
) -> dict[str, Any]:
    """Train a student, and measure it; `known` are the walks of this seed."""
    method.walk = remembering(method.walk, known)
    config = read_preset(PRESET).training[STAGE].model_copy(update={"seed": seed, **settings})
    folder = f"{table}-{name}-seed-{seed}".replace(" + ", "+")
    lab.train(folder, method, config, STAGE)
    return {"table": table, "variant": name, "seed": seed, **lab.measure(folder, alone(method.eval()))}


def remembering(walk: Callable[[Tensor, Tensor], Tensor], known: dict[str, Tensor]) -> Callable[..., Tensor]:
    """A teacher's walk that is taken once for each start: the students of a seed ask for the same ones."""

    def remembered(x_end: Tensor, lr: Tensor) -> Tensor:
        key = hashlib.sha256(x_end.numpy().tobytes()).hexdigest()
        if key not in known:
            known[key] = walk(x_end, lr)
        return known[key]

    return remembered


def alone(method: Method) -> Callable[[Tensor, Tensor, int], Figures]:
    """Figures of what a method makes, by noise of the image's number where it takes noise."""

    def figures(truth: Tensor, lr: Tensor, seed: int) -> Figures:
        image = method.upscale(lr, generator=torch.Generator().manual_seed(seed)).image
        return quality(image, truth) | {"niqe": niqe(round_to_8bit(image)).item()}

    return figures


def stepping(method: Diffusion, steps: int, eta: float) -> Callable[[Tensor, Tensor, int], Figures]:
    """The same of a diffusion in so many steps."""
    method.sampling_steps, method.eta = steps, eta
    return alone(method)


def seconds() -> list[dict[str, Any]]:
    """Medians of one image of 256x256 on one thread: 15 steps and one, in the latent of a codec and on pixels.

    "network" is what the steps alone take, without what is done once: the codec, and the bicubic image.
    """
    lr = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    rows = []
    for space, method in (("latent", srbook.load(TEACHER)), ("pixels", pixels_teacher().eval())):
        accelerate(method, lr.device)
        for steps in (1, 15):
            whole, network = stopped(partial(method.upscale, lr, steps=steps)), stopped(sampling(method, lr, steps))
            rows.append({"space": space, "steps": steps, "whole": whole, "network": network})
    return rows


def sampling(method: Diffusion, lr: Tensor, steps: int) -> Callable[[], None]:
    """The steps alone, from a condition that has been made."""
    with torch.no_grad():
        condition = method.condition(lr)
    noise = torch.zeros_like(condition.anchor)

    @torch.no_grad()
    def sample() -> None:
        method.sample(condition, noise, steps=steps)

    return sample


def stopped(do: Callable[[], Any]) -> float:
    """The median of several runs, after one that is not counted."""
    do()
    times: Sequence[float] = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        do()
        times = [*times, time.perf_counter() - begun]
    return median(times)
