"""A method that the package does not have: residual shift in a latent, x0 prediction, two stages.

It uses every seam and changes no shared file: the class below is all that a new method needs.
"""

from pathlib import Path

import pytest
import torch
from rounding import apart, identical
from test_spaces import Blocks
from torch import Tensor, nn
from typer.testing import CliRunner

import srbook
from srbook.cli import app
from srbook.data import read_image, write_image
from srbook.degradations import bicubic_upsample
from srbook.files import save_tensors
from srbook.frozen import Frozen
from srbook.methods import METHODS, Condition, Diffusion, Stage
from srbook.methods.diffusion import DIFFUSION
from srbook.paths import ResidualShift
from srbook.schedules import resshift_sqrt_etas
from srbook.spaces import Latent


class Shift(Diffusion):
    """Shift the residual of the latent to the one of a predicted image, by a network that predicts the clean latent."""

    kind = "shift"
    stages = (Stage("predictor", trains=("predictor",), loss="predictor_loss", upscale="predict_image"), DIFFUSION)
    predicts = "x0"
    clips = False

    def __init__(self, *, scale: int, codec: str, steps: int = 4, kappa: float = 0.5, sampling_steps: int = 2):
        frozen = Frozen.read(Blocks(), codec)
        path = ResidualShift(resshift_sqrt_etas(steps, kappa=kappa), kappa)
        super().__init__(scale, path=path, multiple=1, space=Latent(frozen.module))
        self.codec = frozen
        self.predictor = nn.Sequential(nn.Conv2d(3, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))
        self.network = nn.Conv2d(7, 3, 3, padding=1)

    def predict_image(self, lr: Tensor) -> Tensor:
        return bicubic_upsample(lr, self.scale) + self.predictor(lr)

    def predictor_loss(self, hr: Tensor, lr: Tensor, generator: torch.Generator | None) -> dict[str, Tensor]:
        return {"loss": (self.predict_image(lr) - hr).abs().mean()}

    def condition(self, lr: Tensor) -> Condition:
        with torch.no_grad():
            anchor = self.space.encode(self.predict_image(lr))
        return Condition(anchor, context=anchor)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        time = (t / self.path.end).to(x_t).reshape(-1, 1, 1, 1).expand_as(x_t[:, :1])
        return x_t + self.network(torch.cat([x_t, condition.context, time], dim=1))


@pytest.fixture
def codec(tmp_path: Path) -> Path:
    """The file of a codec that somebody trained."""
    return save_tensors(tmp_path / "codec.safetensors", Blocks().state_dict(), {})


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "shift", Shift)


def shift(codec: Path, **changes: object) -> Shift:
    torch.manual_seed(0)
    return Shift(**{"scale": 4, "codec": str(codec), **changes})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_network_that_knows_the_truth_gives_it(codec: Path):
    """The path, its start, and its steps live in the latent: the image comes back through the codec."""
    method, hr = shift(codec, sampling_steps=4), torch.rand(2, 3, 16, 16, generator=seeded())
    method.predict = lambda x_t, t, condition: method.space.encode(hr)
    result = method.upscale(nn.functional.avg_pool2d(hr, 4), generator=seeded())
    assert result.nfe == 4
    torch.testing.assert_close(result.image[..., ::2, ::2], nn.functional.avg_pool2d(hr, 2))


def test_the_loss_is_that_of_x0_in_the_latent(codec: Path):
    method, hr, lr = shift(codec), torch.rand(2, 3, 16, 16), torch.rand(2, 3, 4, 4)
    method.predict = lambda x_t, t, condition: torch.zeros_like(x_t)
    assert method.loss(hr, lr)["loss"].item() == pytest.approx(method.space.encode(hr).square().mean().item())


@pytest.mark.parametrize("size", [(3, 5), (1, 2)])
def test_it_upscales_any_size(codec: Path, size: tuple[int, int]):
    lr = torch.rand(1, 3, *size, generator=seeded())
    assert shift(codec, scale=3).upscale(lr, generator=seeded()).image.shape == (1, 3, 3 * size[0], 3 * size[1])


def test_a_file_gives_the_stage_back_and_upscales_by_it(codec: Path, tmp_path: Path):
    method, lr = shift(codec), torch.rand(1, 3, 4, 4, generator=seeded())
    for stage, nfe in (("predictor", 1), ("diffusion", 2)):
        method.begin(stage)
        again = srbook.load(method.save(tmp_path / "method.safetensors"))
        assert again.stage == stage and identical(again.state_dict(), method.state_dict())
        images = [each.upscale(lr, generator=seeded()) for each in (method, again)]
        assert [result.nfe for result in images] == [nfe, nfe]
        torch.testing.assert_close(images[0].image, images[1].image)
        assert [w.requires_grad for w in again.parameters()] == [w.requires_grad for w in method.parameters()]


def test_a_file_names_its_codec_or_carries_it(codec: Path, tmp_path: Path):
    method, lr = shift(codec), torch.rand(1, 3, 4, 4, generator=seeded())
    assert not any("codec" in name for name in method.state_dict())
    named = method.save(tmp_path / "named.safetensors")
    carrying = method.save(tmp_path / "carrying.safetensors", carry=True)
    changed = Blocks()
    nn.init.constant_(changed.pool.weight, 0.2)
    save_tensors(codec, changed.state_dict(), {})
    with pytest.raises(FileNotFoundError, match=r"needs the frozen part 'codec' .* and another one is there"):
        srbook.load(named)
    codec.unlink()
    with pytest.raises(FileNotFoundError, match=r"needs the frozen part 'codec' .* and it is missing.*carry=True"):
        srbook.load(named)
    again = srbook.load(carrying)
    torch.testing.assert_close(
        again.upscale(lr, generator=seeded()).image, method.upscale(lr, generator=seeded()).image
    )


@pytest.mark.parametrize("carry", [False, True])
def test_a_method_in_another_number_format_is_read_back(codec: Path, tmp_path: Path, carry: bool):
    saved = shift(codec).double().save(tmp_path / "wide.safetensors", carry=carry)
    assert srbook.load(saved).codec.module.pool.weight.dtype == torch.float32
    if carry:
        saved = shift(codec).half().save(tmp_path / "half.safetensors", carry=carry)
        assert srbook.load(saved).codec.module.pool.weight.dtype == torch.float32


def test_values_that_a_constructor_computes_are_there_after_reading(
    codec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Such as a path's table, and what is not in the file; the caller's random numbers stay."""

    class Tabled(Shift):
        kind = "tabled"

        def __init__(self, *, codec: str, scale: int = 4, steps: int = 4, kappa: float = 0.5, sampling_steps: int = 2):
            super().__init__(scale=scale, codec=codec)
            self.path = ResidualShift(torch.linspace(0.1, 1, steps), kappa)
            self.table = torch.arange(4.0)
            self.register_buffer("window", torch.ones(3), persistent=False)

    monkeypatch.setitem(METHODS, "tabled", Tabled)
    saved, lr = Tabled(codec=str(codec)), torch.rand(1, 3, 4, 4)
    state = torch.get_rng_state()
    again = srbook.load(saved.save(tmp_path / "tabled.safetensors"))
    assert identical(torch.get_rng_state(), state)
    assert identical(again.table, saved.table) and identical(again.window, saved.window)
    images = [each.upscale(lr, generator=seeded()).image for each in (again, saved)]
    torch.testing.assert_close(*images)


PRESET = """
method: shift
arguments: {scale: 4, codec: CODEC}
degradation: bicubic
training:
  predictor: {steps: 3, batch_size: 2, patch_size: 32, save_every: 1}
  diffusion: {steps: 4, batch_size: 2, patch_size: 32, save_every: 2, log_every: 1}
"""


def command(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_line_trains_resumes_upscales_and_evaluates_it(codec: Path, tmp_path: Path):
    photos, preset = tmp_path / "photos", tmp_path / "mine.yaml"
    for number in range(2):
        write_image(photos / f"{number}.png", torch.rand(3, 64, 64, generator=seeded(number)))
    preset.write_text(PRESET.replace("CODEC", str(codec)), encoding="utf-8")
    run = tmp_path / "run"
    train = ["train", "--preset", preset, "--data", photos, "--device", "cpu", "--output", run]
    command(*train)
    assert (run / "predictor" / "weights.safetensors").is_file()
    method = srbook.load(run / "weights.safetensors")
    trained = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    assert method.stage == "diffusion" and not any(name.startswith("codec") for name in trained)

    (run / "checkpoints" / "step-00000004.safetensors").unlink()  # as if it had been stopped after the second step
    (run / "weights.safetensors").unlink()
    said = command(*train)
    assert "Stage 2 of 2: diffusion" in said and "step-00000002" in said
    again = srbook.load(run / "weights.safetensors").state_dict()
    assert apart(trained, again, shift(codec).state_dict()) < 1e-3

    write_image(tmp_path / "small.png", torch.rand(3, 8, 8, generator=seeded()))
    model = ["--model", run / "weights.safetensors"]
    command("upscale", tmp_path / "small.png", *model, "--output", tmp_path / "out", "--steps", 4)
    assert read_image(tmp_path / "out" / "small.png").shape == (3, 32, 32)
    table = command("evaluate", "--data", photos, *model, "--steps", 2)
    assert "| run " in table and "| bicubic " in table and "PSNR" in table
