"""The command line: what it writes, what it refuses, and how it ends."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image, ImageChops
from rounding import identical
from typer.testing import CliRunner, Result

from srbook import registry
from srbook.cli import app
from srbook.cli.errors import explain
from srbook.data import PairedPatches, read_image, read_picture
from srbook.degradations import Bicubic, Degradation, Noisy, bicubic_upsample
from srbook.images import round_to_8bit
from srbook.metrics import METRICS
from srbook.registry import build, load, presets
from srbook.study import notebooks
from srbook.training import Validation

COMMANDS = ("upscale", "train", "evaluate", "presets", "data", "doctor", "notebooks")


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def shell(*words: object, **options: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "srbook", *(str(word) for word in words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def photo(path: Path, size: tuple[int, int] = (12, 8), mode: str = "RGB", **options: object) -> Path:
    """A small picture with structure in every channel."""
    width, height = size
    channels = len(Image.new(mode, (1, 1)).getbands())
    generator = torch.Generator().manual_seed(1)
    levels = torch.randint(0, 256, (height, width, channels), dtype=torch.uint8, generator=generator)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels.squeeze(-1).numpy(), mode).save(path, **options)
    return path


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return build("rrdb-tiny").save(tmp_path / "models" / "tiny.safetensors")


# The frame


def test_help_teaches_and_imports_no_torch():
    code = (
        "import sys; from typer.testing import CliRunner; from srbook.cli import app;"
        "print(CliRunner().invoke(app, ['--help']).stdout); assert 'torch' not in sys.modules"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert out.returncode == 0, out.stderr
    assert "srbook upscale photo.jpg" in out.stdout
    assert all(command in out.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples(command: str):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"srbook {command}" in result.stdout.split("Example")[1]


def test_version_and_wrong_usage():
    assert run("--version").stdout.startswith("srbook 0.")
    assert run("upscale").exit_code == 2
    assert run("enlarge").exit_code == 2
    assert run("upscale", "x.png", "--tile", "0").exit_code == 2


@pytest.mark.parametrize("words", [("upscale", ""), ("train", "--preset", "srcnn-tiny", "--data", "")])
def test_an_empty_word_is_not_the_present_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
):
    photo(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    refused = run(*words)
    assert refused.exit_code == 2 and "one of the words on the line is empty" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_errors_are_one_line_and_debug_shows_the_traceback(tmp_path: Path):
    picture = photo(tmp_path / "a.png")
    quiet = run("upscale", picture, "--model", "nothing", "--output", tmp_path / "out")
    assert quiet.exit_code == 1
    assert quiet.stderr.startswith("Error: 'nothing' is neither a checkpoint file")
    assert len(quiet.stderr.splitlines()) == 1
    loud = shell("upscale", picture, "--model", "nothing", "--output", tmp_path / "out", "--debug")
    assert loud.returncode == 1
    assert "Traceback" in loud.stderr and "FileNotFoundError" in loud.stderr


# upscale


def test_upscale_equals_the_package(tmp_path: Path):
    picture = photo(tmp_path / "a.png")
    result = run("upscale", picture, "--model", "bicubic", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert f"{picture} -> {tmp_path / 'out' / 'a.png'}  48x32" in result.stdout
    expected = round_to_8bit(bicubic_upsample(read_image(picture).unsqueeze(0), 4))[0]
    torch.testing.assert_close(read_image(tmp_path / "out" / "a.png"), expected)


def test_upscale_with_a_checkpoint_by_tiles(tmp_path: Path, checkpoint: Path):
    picture = photo(tmp_path / "a.png", (40, 30))
    whole, tiled = tmp_path / "whole", tmp_path / "tiled"
    assert run("upscale", picture, "-m", checkpoint, "-o", whole).exit_code == 0
    assert run("upscale", picture, "-m", checkpoint, "-o", tiled, "--tile", 16).exit_code == 0
    difference = (read_image(whole / "a.png") - read_image(tiled / "a.png")).abs().max()
    assert difference <= 2 / 255


def test_precision_changes_little(tmp_path: Path, checkpoint: Path):
    torch.manual_seed(0)
    method = load(checkpoint)
    torch.nn.init.normal_(method.network.tail.weight, std=0.02)  # an untrained one would add nothing to bicubic
    weights, picture = method.save(tmp_path / "some.safetensors"), photo(tmp_path / "a.png", (40, 30))
    results = {}
    for precision in ("fp32", "bf16"):
        out = tmp_path / precision
        assert run("upscale", picture, "-m", weights, "-o", out, "--precision", precision).exit_code == 0
        results[precision] = read_image(out / "a.png")
    expected = round_to_8bit(method.upscale(read_image(picture).unsqueeze(0)).image)[0]
    assert (results["fp32"] - expected).abs().max() <= 1.01 / 255
    assert (results["bf16"] - expected).abs().max() <= 3 / 255


@pytest.mark.parametrize("size", [(1, 1), (5, 2)])
def test_upscale_tiny_pictures(tmp_path: Path, checkpoint: Path, size: tuple[int, int]):
    picture = photo(tmp_path / "a.png", size)
    assert run("upscale", picture, "-m", checkpoint, "-o", tmp_path / "out").exit_code == 0
    assert Image.open(tmp_path / "out" / "a.png").size == (4 * size[0], 4 * size[1])


@pytest.mark.parametrize(
    ("suffix", "kind"), [(".png", "PNG"), (".jpg", "JPEG"), (".webp", "WEBP"), (".bmp", "BMP"), (".tiff", "TIFF")]
)
def test_the_format_is_kept_or_chosen(tmp_path: Path, suffix: str, kind: str):
    picture = photo(tmp_path / f"a{suffix}")
    assert run("upscale", picture, "-m", "bicubic", "-o", tmp_path / "same").exit_code == 0
    assert Image.open(tmp_path / "same" / f"a{suffix}").format == kind
    png = photo(tmp_path / "b.png")
    result = run("upscale", png, "-m", "bicubic", "-o", tmp_path / "chosen", "--format", suffix[1:])
    assert result.exit_code == 0, result.output
    assert Image.open(tmp_path / "chosen" / f"b{suffix}").format == kind


def test_alpha_is_upscaled_too(tmp_path: Path):
    picture = photo(tmp_path / "a.png", mode="RGBA")
    assert run("upscale", picture, "-m", "bicubic", "-o", tmp_path / "out").exit_code == 0
    before, after = read_picture(picture), read_picture(tmp_path / "out" / "a.png")
    assert before.alpha is not None and after.alpha is not None
    torch.testing.assert_close(after.alpha, round_to_8bit(bicubic_upsample(before.alpha, 4)))


def test_transparency_for_a_jpeg_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    picture = photo(tmp_path / "a.png", mode="RGBA")
    monkeypatch.setattr("srbook.cli.batch.upscale_picture", lambda *arguments, **options: pytest.fail("it worked"))
    result = run("upscale", picture, "-m", "bicubic", "-o", tmp_path / "out", "--format", "jpg")
    assert result.exit_code == 1 and "has no transparency" in result.stderr


def test_exif_orientation_is_applied_and_the_rest_kept(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"  # orientation: turn right; make
    picture = photo(tmp_path / "a.jpg", (12, 8), exif=exif)
    assert run("upscale", picture, "-m", "bicubic", "-o", tmp_path / "out").exit_code == 0
    result = Image.open(tmp_path / "out" / "a.jpg")
    assert result.size == (32, 48)
    assert result.getexif().get(0x0112, 1) == 1 and result.getexif()[0x010F] == "a camera"


def test_folders_keep_their_structure_and_skip_earlier_results(tmp_path: Path):
    folder = tmp_path / "photos"
    photo(folder / "a.png"), photo(folder / "trip" / "a.png"), photo(folder / "trip" / "B.JPG")
    (folder / "notes.txt").write_text("not a picture")
    words = ("upscale", folder, "-m", "bicubic", "-o", folder / "large", "--overwrite")
    for _ in range(2):
        assert run(*words).exit_code == 0
        assert leftovers(folder / "large") == ["B.JPG", "a.png", "a.png"]
    assert Image.open(folder / "large" / "trip" / "B.JPG").size == (48, 32)


def test_nothing_is_overwritten_unasked(tmp_path: Path):
    picture = photo(tmp_path / "a.png")
    words = ("upscale", picture, "-m", "bicubic", "-o", tmp_path / "out")
    assert run(*words).exit_code == 0
    before = (tmp_path / "out" / "a.png").stat().st_mtime_ns
    again = run(*words)
    assert again.exit_code == 1 and "add --overwrite" in again.stderr
    assert (tmp_path / "out" / "a.png").stat().st_mtime_ns == before
    assert run(*words, "--overwrite").exit_code == 0
    assert (tmp_path / "out" / "a.png").stat().st_mtime_ns > before


def test_an_input_is_never_overwritten(tmp_path: Path):
    picture = photo(tmp_path / "a.png")
    before = picture.read_bytes()
    result = run("upscale", picture, "-m", "bicubic", "-o", tmp_path, "--overwrite")
    assert result.exit_code == 1 and "is one of the inputs" in result.stderr
    assert picture.read_bytes() == before


def test_two_inputs_for_one_result_are_refused_before_work(tmp_path: Path):
    first, second = photo(tmp_path / "x" / "a.png"), photo(tmp_path / "y" / "a.png")
    result = run("upscale", first, second, "-m", "bicubic", "-o", tmp_path / "out")
    assert result.exit_code == 1 and "would both be written to" in result.stderr
    both = run("upscale", first, photo(tmp_path / "x" / "a.jpg"), "-o", tmp_path / "out", "--format", "png")
    assert both.exit_code == 1 and "would both be written to" in both.stderr
    assert leftovers(tmp_path / "out") == []
    twice = run("upscale", first, first, "-m", "bicubic", "-o", tmp_path / "out")
    assert twice.exit_code == 0 and leftovers(tmp_path / "out") == ["a.png"]


def test_folder_without_pictures(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    result = run("upscale", tmp_path / "empty", "-m", "bicubic", "-o", tmp_path / "out")
    assert result.exit_code == 1 and "holds no pictures" in result.stderr


def test_an_absent_gpu_is_an_error(tmp_path: Path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    picture = photo(tmp_path / "a.png")
    result = run("upscale", picture, "-m", "bicubic", "-o", tmp_path / "out", "--device", "cuda")
    assert result.exit_code == 1 and "torch sees no GPU" in result.stderr


def test_steps_that_a_model_refuses(tmp_path: Path):
    result = run("upscale", photo(tmp_path / "a.png"), "-m", "bicubic", "-o", tmp_path / "out", "--steps", 5)
    assert result.exit_code == 1 and "leave steps out" in result.stderr


def test_ctrl_c_leaves_no_partial_file(tmp_path: Path, checkpoint: Path):
    picture = photo(tmp_path / "big.png", (600, 600))
    out = tmp_path / "out"
    words = [sys.executable, "-m", "srbook", "upscale", picture, "-m", checkpoint, "-o", out, "--tile", "32"]
    process = subprocess.Popen(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SRBOOK_STATIC": "1", "PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert "big.png 180/900 tiles" in process.stdout.readline()  # a fifth is done
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Stopped." in errors and "Traceback" not in errors
    assert leftovers(out) == []


# train


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        photo(tmp_path / "photographs" / f"{name}.png", (80, 72))
    return tmp_path / "photographs"


def training(photographs: Path, output: Path, *more: object) -> Result:
    words = ("--preset", "rrdb-tiny", "--data", photographs, "--output", output, "--batch-size", 2, "--device", "cpu")
    return run("train", *words, *more)


def test_train_writes_weights_that_upscale_uses(tmp_path: Path, photographs: Path):
    output = tmp_path / "run"
    watched = ("--validation", photographs, "--metrics", "psnr,ssim")
    result = training(photographs, output, "--steps", 3, "--learning-rate", 2e-3, *watched)
    assert result.exit_code == 0, result.output
    assert "55,235 weights, 2 images, cpu" in result.stdout
    assert "Resuming" not in result.stdout and f"Done after 3 steps: {output / 'weights.safetensors'}" in result.stdout
    records = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert {record["step"] for record in records} == {3}
    assert list(records[-1]) == ["step", "validation_psnr", "validation_ssim"]
    assert {path.name for path in (output / "validation").iterdir()} == {
        f"step-00000003-{n}.png" for n in ("one", "two")
    }
    out = tmp_path / "out"
    upscaled = run("upscale", photographs / "one.png", "-m", output / "weights.safetensors", "-o", out)
    assert upscaled.exit_code == 0 and Image.open(out / "one.png").size == (320, 288)


def test_validation_images_of_one_name_are_told_apart(tmp_path: Path, photographs: Path):
    for place in ("x", "y"):
        photo(tmp_path / "watched" / place / "one.png", (16, 12))
    output = tmp_path / "run"
    result = training(photographs, output, "--steps", 1, "--validation", tmp_path / "watched")
    assert result.exit_code == 0, result.output
    assert leftovers(output / "validation") == ["step-00000001-x%2Fone.png", "step-00000001-y%2Fone.png"]


def test_train_degrades_as_the_preset_says(tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch):
    for name, text in {"rrdb-tiny": "", "noisy": "extends: rrdb-tiny\ndegradation: {kind: noisy, std: 0.1}\n"}.items():
        source = registry._PRESETS / f"{name}.yaml"
        (tmp_path / f"{name}.yaml").write_text(text or source.read_text())
    monkeypatch.setattr(registry, "_PRESETS", tmp_path)
    seen = []

    class Watched(PairedPatches):
        def __init__(self, *arguments: object, **options: object):
            super().__init__(*arguments, **options)
            seen.append(self.degradation)

    class Watching(Validation):
        def __init__(self, images: dict, degrade: Degradation, *arguments: object, **options: object):
            super().__init__(images, degrade, *arguments, **options)
            seen.append(degrade)

    monkeypatch.setattr("srbook.data.PairedPatches", Watched)
    monkeypatch.setattr("srbook.training.Validation", Watching)
    words = ("--data", photographs, "--validation", photographs, "--steps", 1, "--batch-size", 1, "--device", "cpu")
    for preset in ("rrdb-tiny", "noisy"):
        result = run("train", "--preset", preset, "--output", tmp_path / preset, *words)
        assert result.exit_code == 0, result.output
    assert seen == [Bicubic(4), Bicubic(4), Noisy(4, std=0.1), Noisy(4, std=0.1)]


def test_train_resumes_by_default_and_says_so(tmp_path: Path, photographs: Path):
    output = tmp_path / "run"
    assert training(photographs, output, "--steps", 2).exit_code == 0
    again = training(photographs, output, "--steps", 3)
    assert again.exit_code == 0, again.output
    assert "Resuming from" in again.stdout and "step-00000002" in again.stdout
    afresh = training(photographs, output, "--steps", 1, "--restart")
    assert afresh.exit_code == 0 and "Resuming" not in afresh.stdout and "Done after 1 step:" in afresh.stdout


@pytest.mark.parametrize(
    ("preset", "first", "trained"), [("srdiff-tiny", "encoder", "network."), ("resdiff-tiny", "predictor", "network.")]
)
def test_train_goes_through_all_stages(tmp_path: Path, photographs: Path, preset: str, first: str, trained: str):
    """The second stage starts from what the first one trained, and leaves it alone; a second call does nothing more."""

    import srbook

    output = tmp_path / "run"
    words = ("--preset", preset, "--data", photographs, "--output", output, "--batch-size", 1, "--device", "cpu")
    result = run("train", *words, "--steps", 1)
    assert result.exit_code == 0, result.output
    assert f"Stage 1 of 2: {first}" in result.stdout and "Stage 2 of 2: diffusion" in result.stdout
    before, after = (srbook.load(folder / "weights.safetensors").state_dict() for folder in (output / first, output))
    changed = {name for name in after if not identical(after[name], before[name])}
    assert changed and all(name.startswith(trained) for name in changed)
    again = run("train", *words, "--steps", 1)
    assert again.exit_code == 0 and again.stdout.count("Resuming from") == 2
    unchanged = srbook.load(output / "weights.safetensors").state_dict()
    assert identical(unchanged, after)


@pytest.mark.parametrize("preset", ["ddpm-tiny", "sr3-tiny", "srdiff-tiny", "resdiff-tiny"])
def test_a_trained_diffusion_upscales_and_is_evaluated(tmp_path: Path, preset: str):
    photo(tmp_path / "photographs" / "one.png", (24, 20))
    photographs = tmp_path / "photographs"
    weights, out, table = tmp_path / "weights.safetensors", tmp_path / "out", tmp_path / "table.json"
    import srbook

    srbook.build(preset).save(weights)
    upscaled = run("upscale", photographs / "one.png", "-m", weights, "-o", out, "--steps", 2)
    assert upscaled.exit_code == 0, upscaled.output
    assert Image.open(out / "one.png").size == (96, 80)
    again = run("upscale", photographs / "one.png", "-m", weights, "-o", tmp_path / "again", "--steps", 2)
    assert again.exit_code == 0
    images = [Image.open(folder / "one.png") for folder in (out, tmp_path / "again")]
    assert max(high for _, high in ImageChops.difference(*images).getextrema()) <= 1  # the seed is fixed
    evaluated = run("evaluate", "--data", photographs, "-m", weights, "-m", "rrdb-small", "--steps", 2, "--save", table)
    assert evaluated.exit_code == 0, evaluated.output
    assert "protocol A" in evaluated.stdout and "bicubic" in evaluated.stdout and "rrdb-small" in evaluated.stdout
    assert set(json.loads(table.read_text())["means"]) == {"bicubic", tmp_path.name, "rrdb-small"}


def test_a_restarted_run_does_not_come_back(tmp_path: Path, photographs: Path):
    output = tmp_path / "run"
    assert training(photographs, output, "--steps", 3).exit_code == 0
    assert training(photographs, output, "--steps", 1, "--restart").exit_code == 0
    assert "step-00000001" in training(photographs, output, "--steps", 2).stdout


def test_no_stage_of_a_restarted_run_comes_back(tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch):
    """Stopped in its first stage and called again, it begins the second one anew."""
    from srbook.training import Trainer, TrainingResult

    output = tmp_path / "run"
    words = ("--preset", "srdiff-tiny", "--data", photographs, "--output", output, "--batch-size", 1, "--device", "cpu")
    assert run("train", *words, "--steps", 1).exit_code == 0
    with monkeypatch.context() as stopped:
        stopped.setattr(Trainer, "fit", lambda self: TrainingResult(step=1, interrupted=True, records=[]))
        assert run("train", *words, "--steps", 1, "--restart").exit_code == 130
    again = run("train", *words, "--steps", 1)
    assert again.exit_code == 0 and "Resuming" not in again.stdout


def test_restart_in_the_first_stage_leaves_no_model_of_the_last(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
):
    from srbook.training import Trainer, TrainingResult

    output = tmp_path / "run"
    words = ("--preset", "srdiff-tiny", "--data", photographs, "--output", output, "--batch-size", 1, "--device", "cpu")
    assert run("train", *words, "--steps", 1).exit_code == 0
    monkeypatch.setattr(Trainer, "fit", lambda self: TrainingResult(1, True, [], signal=signal.SIGTERM))
    assert run("train", *words, "--steps", 1, "--restart").exit_code == 143
    assert set(leftovers(output)) == {"run.lock"}


def test_a_stage_is_not_prolonged_after_a_later_one_has_begun(tmp_path: Path, photographs: Path):
    """It would leave the final model with the former encoder."""
    from srbook.training.checkpoint import latest_checkpoint

    output = tmp_path / "run"
    words = ("--preset", "srdiff-tiny", "--data", photographs, "--output", output, "--batch-size", 1, "--device", "cpu")
    assert run("train", *words, "--steps", 1).exit_code == 0
    before = {path: path.read_bytes() for path in output.rglob("*.safetensors")}
    longer = run("train", *words, "--steps", 2)
    assert longer.exit_code == 1 and len(longer.stderr.splitlines()) == 1
    assert "encoder is at step 1 of 2, and diffusion has begun from it" in longer.stderr
    assert f"--steps 1; or delete {output / 'checkpoints'} to" in longer.stderr and "--restart" in longer.stderr
    assert before == {path: path.read_bytes() for path in output.rglob("*.safetensors")}
    latest_checkpoint(output).unlink()
    assert run("train", *words, "--steps", 2).exit_code == 0
    for path in (output / "encoder" / "checkpoints").iterdir():
        path.unlink()
    anew = run("train", *words, "--steps", 2)
    assert anew.exit_code == 1 and "encoder is at step 0 of 2" in anew.stderr and "--steps 0" not in anew.stderr


def test_a_restart_that_cannot_begin_deletes_nothing(tmp_path: Path, photographs: Path):
    output = tmp_path / "run"
    assert training(photographs, output, "--steps", 1).exit_code == 0
    before = leftovers(output)
    wrong = training(photographs, output, "--restart", "--validation", photographs, "--metrics", "magic")
    assert wrong.exit_code == 1 and "magic" in wrong.stderr and leftovers(output) == before


def test_train_takes_its_settings(tmp_path: Path, photographs: Path):
    from srbook.training.checkpoint import latest_checkpoint, load_checkpoint

    words = ("--patch-size", 32, "--precision", "fp32", "--save-every", 1, "--workers", 0)
    assert training(photographs, tmp_path / "run", "--steps", 2, *words).exit_code == 0
    assert sorted(leftovers(tmp_path / "run" / "checkpoints")) == [f"step-0000000{n}.safetensors" for n in (1, 2)]
    config = load_checkpoint(latest_checkpoint(tmp_path / "run")).config
    assert (config["patch_size"], config["precision"], config["save_every"]) == (32, "fp32", 1)


def test_train_refuses_other_pictures_unless_they_are_accepted(tmp_path: Path, photographs: Path):
    output = tmp_path / "run"
    assert training(photographs, output, "--steps", 1).exit_code == 0
    (photographs / "two.png").unlink()
    refused = training(photographs, output, "--steps", 2)
    assert refused.exit_code == 1 and "other training data (2 images" in refused.stderr
    assert "--accept-changes" in refused.stderr
    assert training(photographs, output, "--steps", 2, "--accept-changes").exit_code == 0


def test_train_leaves_small_pictures_out_and_says_so(tmp_path: Path, photographs: Path):
    for name in ("small", "smaller"):
        photo(photographs / f"{name}.png", (30, 20))
    result = training(photographs, tmp_path / "run", "--steps", 1)
    assert result.exit_code == 0 and result.stderr.count("Warning") == 1
    assert "Warning: 2 of 4 images are smaller than a patch of 64" in result.stderr and "--patch-size" in result.stderr
    none = training(photographs, tmp_path / "none", "--steps", 1, "--patch-size", 128)
    assert none.exit_code == 1 and "so none is left" in none.stderr


def test_a_second_run_in_a_folder_is_refused(tmp_path: Path, photographs: Path):
    """Before --restart deletes anything."""
    from srbook.training.folder import locked

    output = tmp_path / "run"
    assert training(photographs, output, "--steps", 1).exit_code == 0
    results = []
    with locked(output):
        words = (photographs, output, "--steps", 1, "--restart")
        thread = threading.Thread(target=lambda: results.append(training(*words)))
        thread.start()
        thread.join()
    assert results[0].exit_code == 1 and f"another run is writing to {output}" in results[0].stderr
    assert (output / "weights.safetensors").is_file()


def test_a_full_disk_is_named_with_the_file():
    error = OSError(errno.ENOSPC, "No space left on device", "runs/a/log.jsonl")
    assert explain(error) == (
        "the disk is full (runs/a/log.jsonl); free some space and run again (nothing half-written was kept)"
    )


def test_train_refuses_another_run_in_its_folder(tmp_path: Path, photographs: Path):
    output = tmp_path / "run"
    assert training(photographs, output, "--steps", 1).exit_code == 0
    other = training(photographs, output, "--steps", 1, "--learning-rate", 1e-5)
    assert other.exit_code == 1 and "other settings (learning_rate)" in other.stderr
    words = ("--preset", "srcnn", "--data", photographs, "--output", output, "--device", "cpu")
    method = run("train", *words, "--validation", photographs)
    assert method.exit_code == 1


def test_train_interrupted_ends_with_130(tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch):
    from srbook.training import Trainer, TrainingResult

    monkeypatch.setattr(Trainer, "fit", lambda self: TrainingResult(step=1, interrupted=True, records=[]))
    assert training(photographs, tmp_path / "run", "--steps", 5).exit_code == 130


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--preset", "bicubic", "--data", "samples"), "bicubic has nothing to train"),
        (("--preset", "unknown", "--data", "samples"), "unknown preset 'unknown'; choose from"),
        (("--preset", "srcnn", "--data", "nowhere"), "'nowhere' is neither a folder nor a set; sets are samples, Set5"),
        (("--preset", "srcnn", "--data", "samples", "--learning-rate", "-1"), "learning_rate: Input should be greater"),
    ],
)
def test_train_says_what_is_wrong(
    words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    result = run("train", *words)
    assert result.exit_code == 1
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
    assert leftovers(tmp_path) == []


# evaluate


def test_evaluate_prints_and_saves_a_table(tmp_path: Path, photographs: Path, checkpoint: Path):
    saved = tmp_path / "table.json"
    words = ("--data", photographs, "--model", checkpoint, "--model", "bicubic", "--metrics", "ssim,psnr")
    result = run("evaluate", *words, "--save", saved)
    assert result.exit_code == 0, result.output
    assert "| method  | SSIM   | PSNR (dB) |" in result.stdout
    assert "protocol A" in result.stdout
    content = json.loads(saved.read_text())
    assert [row["image"] for row in content["images"]] == ["one", "one", "two", "two"]
    means = content["means"]
    assert f"{means['tiny']['psnr']:.2f}" in result.stdout
    assert means["tiny"]["psnr"] == pytest.approx(means["bicubic"]["psnr"], abs=0.01)  # anchored, untrained


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--metrics", "psnr,fid"),
            "metrics must be some of psnr, ssim, lpips, niqe, clipiqa",
        ),
        (("--scale", "2", "--model", "rrdb-small"), "rrdb-small magnifies 4 times"),
        (("--degradation", "blurry"), "unknown degradation 'blurry'; choose from bicubic, noisy"),
        (("--degradation", "{kind"), "--degradation must be a name or a mapping"),
        (("--save", "table.csv"), "must end in .json"),
        (("--model", "bicubic"), "one of the models is named twice"),
    ],
)
def test_evaluate_says_what_is_wrong(words: tuple[str, ...], message: str, photographs: Path):
    result = run("evaluate", "--data", photographs, "--model", "bicubic", *words)
    assert result.exit_code == 1 and message in result.stderr


def test_models_of_one_name_are_told_apart(tmp_path: Path, photographs: Path, checkpoint: Path):
    """A run called like a shipped model, or like the reference, has its path; so have two runs of one name."""
    places = ["bicubic", "rrdb-small", "x/run", "y/run", "mine"]
    runs = {place: tmp_path / place / "weights.safetensors" for place in places}
    for path in runs.values():
        path.parent.mkdir(parents=True)
        path.write_bytes(checkpoint.read_bytes())
    words = [word for path in runs.values() for word in ("--model", path)]
    result = run("evaluate", "--data", photographs, *words, "--save", tmp_path / "table.json")
    assert result.exit_code == 0, result.output
    expected = {"bicubic", "mine", *(str(runs[place]) for place in places[:4])}
    assert json.loads((tmp_path / "table.json").read_text())["means"].keys() == expected


@pytest.mark.parametrize("scale", [2, 3])
def test_bicubic_is_evaluated_at_any_scale(photographs: Path, scale: int):
    result = run("evaluate", "--data", photographs, "--model", "bicubic", "--scale", scale)
    assert result.exit_code == 0 and f"x{scale}, protocol A" in result.stdout


def test_evaluate_on_another_degradation(photographs: Path):
    words = ("--model", "bicubic", "--degradation", "{kind: noisy, std: 0.1}")
    result = run("evaluate", "--data", photographs, *words)
    assert result.exit_code == 0 and "Gaussian noise of deviation 0.1" in result.stdout


def test_evaluate_lists_its_metrics():
    text = run("evaluate", "--help").stdout
    assert all(f"\n  {metric.name} " in text and metric.title in text for metric in METRICS.values())


def test_evaluate_on_an_absent_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SRBOOK_DATA", str(tmp_path))
    result = run("evaluate", "--data", "set14", "--model", "bicubic")
    assert result.exit_code == 1 and f"Set14 is not below {tmp_path}" in result.stderr


# presets and data


def test_presets_table_and_details():
    lines = run("presets").stdout.splitlines()
    assert [line.split()[0] for line in lines[2:]] == presets()
    assert next(line.split()[1:3] for line in lines if line.startswith("rrdb ")) == ["regression", "16,697,987"]
    details = yaml.safe_load(run("presets", "rrdb-tiny").stdout)
    assert details["arguments"]["network"]["blocks"] == 1 and details["training"]["main"]["steps"] == 300
    unknown = run("presets", "nothing")
    assert unknown.exit_code == 1 and "choose from bicubic" in unknown.stderr


def test_data_says_what_is_here_and_what_goes_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SRBOOK_DATA", str(tmp_path))
    for number in range(91):
        photo(tmp_path / "T91" / f"{number}.png", (4, 4))
    lines = {line.split()[0]: line for line in run("data").stdout.splitlines() if line}
    assert "91 images" in lines["T91"]
    assert " no " in lines["Set5"] and lines["Set5"].endswith("Set5/HR")
    fine = run("data", "verify", "T91")
    assert fine.exit_code == 0 and "91 of 91 images, 0 compared" in fine.stdout
    (tmp_path / "T91" / "7.png").write_bytes(b"no picture")
    bad = run("data", "verify", "T91")
    assert bad.exit_code == 1 and "7.png" in bad.stderr
    absent = run("data", "verify", "Set5")
    assert absent.exit_code == 1 and "Set5 is not below" in absent.stderr


def test_every_picture_of_a_folder_is_verified(tmp_path: Path):
    photo(tmp_path / "one.png")
    fine = run("data", "verify", tmp_path)
    assert fine.exit_code == 0 and "1 of 1 images, read" in fine.stdout and "all readable" in fine.stdout
    whole = photo(tmp_path / "deep" / "cut.png", (60, 40)).read_bytes()
    (tmp_path / "deep" / "cut.png").write_bytes(whole[: len(whole) // 2])  # its header is intact
    (tmp_path / "text.jpg").write_text("no picture")
    bad = run("data", "verify", tmp_path)
    assert bad.exit_code == 1 and "3 of 3 images" in bad.stdout
    assert "cut.png" in bad.stderr and "text.jpg" in bad.stderr and len(bad.stderr.splitlines()) == 2
    assert run("data", "verify", tmp_path / "nowhere").exit_code == 1


def test_sample_photographs_have_provenance():
    result = run("data", "samples")
    assert result.exit_code == 0
    assert "chelsea (held out)" in result.stdout and "astronaut (training)" in result.stdout
    assert "Stefan van der Walt. CC0." in result.stdout


# notebooks


def test_notebooks_are_copied_once_and_edits_are_safe(tmp_path: Path):
    chapters = tmp_path / "deep" / "chapters"
    result = run("notebooks", chapters)
    assert result.exit_code == 0 and f"{len(notebooks())} notebooks in {chapters}" in result.stdout
    sources = {name: text.encode() for name, text in notebooks().items()}
    assert {path.name: path.read_bytes() for path in chapters.iterdir()} == sources
    assert run("notebooks", chapters).exit_code == 0  # nothing differs, so nothing is lost
    edited, absent = chapters / "06-sr3.ipynb", chapters / "11-esrdf.ipynb"
    edited.write_text("mine")
    absent.unlink()
    refused = run("notebooks", chapters)
    assert refused.exit_code == 1 and str(edited) in refused.stderr and "01-the-problem" not in refused.stderr
    assert "--overwrite" in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert edited.read_text() == "mine" and not absent.exists()
    assert run("notebooks", chapters, "--overwrite").exit_code == 0
    assert {path.name: path.read_bytes() for path in chapters.iterdir()} == sources
