"""SinSR: the released losses and their gradients, and students of other diffusions than ResShift."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d

import srbook
from srbook.methods import Condition, ResShift, SinSR
from srbook.paths import ResidualShift
from srbook.samplers import step_coefficients
from srbook.tiling import upscale_tiled

TINY = {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [], "groups": 4}
TINY |= {"embedding": 8, "heads": 2, "window": 2, "ratio": 1, "size": 4}
STUDENT = {"schedule": {"steps": 15, "min_noise_level": 0.04}, "network": TINY}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pair(size: int = 32) -> tuple[Tensor, Tensor]:
    hr = torch.rand(2, 3, size, size, generator=seeded())
    return hr, avg_pool2d(hr, 4)


def build(**changes: object) -> SinSR:
    torch.manual_seed(0)
    return SinSR(**{"scale": 4, "student": {"method": "resshift", "arguments": STUDENT}, **changes})


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    return ResShift(scale=4, **STUDENT).save(tmp_path / "teacher.safetensors")


def test_the_steps_coefficients(vectors: Path):
    for stored in json.loads((vectors / "sinsr_kmj.json").read_text()).values():
        path = ResidualShift(torch.tensor(stored["sqrt_etas"], dtype=torch.float64))
        found = torch.tensor([step_coefficients(path, t, t - 1, eta=0.0) for t in range(1, len(stored["k"]) + 1)])
        assert_allclose(found.T, [stored["k"], stored["m"], stored["j"]], rtol=1e-9, atol=1e-12)
        assert_allclose(found.sum(dim=1), 1, rtol=1e-12)
    _, m, j = step_coefficients(path, 3, 2)
    assert_allclose([m, j], [(path.level(2) / path.level(3)) ** 2, 0], atol=1e-12)  # ResShift's posterior


class Toy(nn.Module):
    """The network of the stored numbers: a convolution of x and the condition, and the time."""

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        return conv2d(torch.cat([x, condition], 1), self.weight, self.bias, padding=1) + 0.01 * time.reshape(
            -1, 1, 1, 1
        )


WEIGHTS = {"distill_only": (0, 0), "learn_xT": (1, 0), "full": (1, 1)}


@pytest.mark.arithmetic
@pytest.mark.parametrize("name", WEIGHTS)
def test_the_released_losses_and_gradients(vectors: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    with np.load(vectors / "sinsr_training.npz") as file:
        stored = {key: torch.from_numpy(file[key]) for key in file}
    inverse, truth = WEIGHTS[name]
    method = build(teacher=str(teacher), inverse=float(inverse), truth=float(truth))
    y = nn.functional.interpolate(stored["train/lr"], scale_factor=4, mode="bicubic")
    for who, part in (("student", method.student), ("teacher", method.teacher.module)):
        part.network = Toy(stored[f"toy_{who}/w"], stored[f"toy_{who}/b"])
        part.condition = lambda lr: Condition(y, context=stored["train/lq_cond"])
        part.clean = lambda hr, condition: hr
        part.codec, part.clipped = "a latent", lambda x0, condition, clip: x0
    monkeypatch.setattr("srbook.methods.sinsr.normal", lambda *_: stored["noise"])
    losses = method.distillation_loss(stored["train/gt"], stored["train/lr"])
    losses["loss"].backward()
    told = {"distill": "mse", "inverse": "mse_xT", "truth": "mse_gt"}
    close = {"rtol": 1e-7, "atol": 1e-9}  # its input scale is float32
    for term in losses.keys() - {"loss"}:
        assert_allclose(losses[term].detach(), stored[f"train/{name}/{told[term]}"].mean(), **close)
    assert_allclose(losses["loss"].detach(), stored[f"train/{name}/loss"].mean(), **close)
    assert_allclose(method.student.network.weight.grad, stored[f"train/{name}/grad_w"], **close)
    assert_allclose(method.student.network.bias.grad, stored[f"train/{name}/grad_b"], **close)


@pytest.mark.parametrize(("time", "scale", "told"), [("first", "end", 0.0), ("zero", "own", -1.0)])
def test_time_and_scale_of_the_way_back(time: str, scale: str, told: float):
    method, seen = build(inverse_time=time, inverse_scale=scale), []
    method.student.network.forward = lambda *inputs: seen.append(inputs) or inputs[0]
    x = torch.randn(1, 48, 4, 4, generator=seeded())
    method.back(x, Condition(x, context=torch.zeros(1, 3, 4, 4)))
    spread = method.student.spread(torch.tensor(15.0)) if scale == "end" else 1.0
    assert_allclose(seen[0][0], x / spread, rtol=1e-5)
    assert seen[0][1].item() == told


def test_the_student_jumps_from_where_the_teacher_walks(teacher: Path):
    """With its teacher's weights and a teacher of one step, the student has nothing to learn from it."""
    method = build(teacher=str(teacher), teacher_steps=1)
    method.student.load_state_dict(srbook.load(teacher).state_dict())
    hr, lr = pair()
    assert method.loss(hr, lr, seeded())["distill"].item() < 1e-9
    assert build(teacher=str(teacher)).loss(hr, lr, seeded())["distill"].item() > 1e-6


def test_only_the_student_is_trained_and_a_file_needs_no_teacher(teacher: Path, tmp_path: Path):
    method, (hr, lr) = build(teacher=str(teacher)), pair()
    assert all(name.startswith("student.") for name, _ in method.named_parameters())
    method.loss(hr, lr, seeded())["loss"].backward()
    file = method.save(tmp_path / "student.safetensors")
    image = method.upscale(lr, generator=seeded()).image
    assert image.shape == hr.shape
    assert srbook.load(file).teacher is not None
    teacher.unlink()
    loaded = srbook.load(file)
    torch.testing.assert_close(loaded.upscale(lr, generator=seeded()).image, image)
    with pytest.raises(FileNotFoundError, match=r"training needs the teacher, and .* is not on this machine"):
        loaded.loss(hr, lr, seeded())


def test_tiles_of_a_picture_share_its_noise():
    method, lr = build(), torch.rand(1, 3, 24, 40, generator=seeded(3))
    whole = method.upscale(lr, generator=seeded()).image
    tiles = upscale_tiled(method, lr, tile=24, overlap=4, generator=seeded())
    other = upscale_tiled(method, lr, tile=24, overlap=4, generator=seeded(1))
    assert method.unit == method.student.unit and tiles.shape == whole.shape
    assert (tiles - other).abs().mean() > 1e-3  # the noise matters, so that the next line says something
    again = upscale_tiled(method, lr, tile=24, overlap=4, generator=seeded())
    torch.testing.assert_close(tiles, again)


@pytest.mark.parametrize("change", ["weights", "path", "kind", "damage"])
def test_a_student_upscales_though_its_teacher_has_changed(teacher: Path, tmp_path: Path, change: str):
    method, lr = build(teacher=str(teacher)), pair()[1]
    file = method.save(tmp_path / "student.safetensors")
    torch.manual_seed(2)
    if change == "weights":
        ResShift(scale=4, **STUDENT).save(teacher)
    elif change == "path":
        ResShift(scale=4, **STUDENT | {"schedule": {"steps": 5}}).save(teacher)
    elif change == "kind":
        srbook.build("rrdb-tiny").save(teacher)
    else:
        teacher.write_bytes(b"xx")
    loaded = srbook.load(file)
    assert loaded.teacher is None and loaded.arguments == method.arguments
    image = method.upscale(lr, generator=seeded()).image
    torch.testing.assert_close(loaded.upscale(lr, generator=seeded()).image, image)


def test_a_student_saved_without_its_teacher_still_knows_it(teacher: Path, tmp_path: Path):
    file, moved = build(teacher=str(teacher)).save(tmp_path / "student.safetensors"), tmp_path / "moved"
    teacher.rename(moved)
    again = srbook.load(file).save(tmp_path / "again.safetensors")
    torch.manual_seed(2)
    ResShift(scale=4, **STUDENT).save(teacher)
    assert srbook.load(again).teacher is None
    moved.replace(teacher)
    assert srbook.load(again).teacher is not None


def test_the_flow_of_ecdp_is_distilled_from_its_teacher_alone(tmp_path: Path):
    torch.manual_seed(0)
    ecdp = srbook.build("ecdp-tiny")
    file = ecdp.save(tmp_path / "ecdp.safetensors")
    student = {"method": "ecdp", "arguments": {k: v for k, v in ecdp.arguments.items() if k != "scale"}}
    method = SinSR(scale=4, student=student, teacher=str(file), teacher_steps=3, inverse=0.0, truth=0.0)
    hr, lr = pair()
    losses = method.loss(hr, lr, seeded())
    losses["loss"].backward()
    assert losses.keys() == {"loss", "distill"}
    assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in method.student.parameters())
    assert method.upscale(lr, generator=seeded()).nfe == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inverse": -1.0}, "inverse must be a weight of at least 0"),
        ({"teacher_steps": 99}, "this path has 15 whole steps, got steps=99"),
        ({"student": {"method": "resshift"}}, "a student is described by its method and arguments"),
        ({"inverse": 0.0}, "the term of the truth needs the way back"),
        ({"student": {"method": "regression", "arguments": {}}}, "regression"),
        ({"student": {"method": "irsde", "arguments": srbook.build("irsde-tiny").arguments}}, "irsde has no way back"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_it_takes_one_step():
    with pytest.raises(ValueError, match="sinsr upscales in one step, got steps=4"):
        build().upscale(pair()[1], steps=4)


def test_a_teacher_on_another_path_is_refused(tmp_path: Path):
    other = ResShift(scale=4, **STUDENT | {"schedule": {"steps": 4}}).save(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="teacher and student must walk on one path: the end of the path is 4"):
        build(teacher=str(other))
