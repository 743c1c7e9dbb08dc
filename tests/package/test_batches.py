"""`srbook upscale` on many pictures, hostile ones among them: none ends the others, and the end tells of each."""

import errno
import os
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from srbook.cli import app, batch
from srbook.data import image_files
from srbook.names import printable

pytestmark = pytest.mark.usefixtures("default_signals")


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def upscale(*words: object) -> Result:
    return run("upscale", *words, "-m", "bicubic")


def photo(path: Path, size: tuple[int, int] = (6, 5), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 60).convert(mode).save(path)
    return path


def written(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return [photo(tmp_path / "in" / f"{name}.png") for name in "abc"]


# None ends the others


def test_bad_files_are_named_and_the_others_go_on(tmp_path: Path, out: Path):
    good, text, absent = photo(tmp_path / "good.png"), tmp_path / "notes.txt", tmp_path / "absent.png"
    cut, empty = tmp_path / "cut.jpg", tmp_path / "empty.png"
    cut.write_bytes(photo(tmp_path / "whole.jpg", (64, 64)).read_bytes()[:400])
    text.write_text("hello")
    empty.touch()
    result = upscale(cut, absent, text, empty, good, "-o", out)
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert sorted(
        name for line in errors for name in ("cut.jpg", "absent.png", "notes.txt", "empty.png") if name in line
    )
    summary = result.stderr.splitlines()[-5:]
    assert summary[0] == "1 of 5 pictures done, 4 failed:"
    assert [line.strip() for line in summary[1:]] == [line.removeprefix("Error: ") for line in errors]
    assert "5 of 5: " in result.stdout and written(out) == ["good.png"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "a smaller --tile"),
        (MemoryError(), "a smaller --tile"),
        (OSError(errno.EFBIG, "File too large"), "a.png: File too large"),
        (TypeError("'NoneType'\nis not iterable"), "unexpected TypeError: 'NoneType'"),
        (RecursionError("too deep"), "unexpected RecursionError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_error_ends_the_others(
    three: list[Path], out: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
):
    work = batch.write_levels

    def fail_once(path: Path, *more: object) -> Path:
        if path.name == "a.png":
            raise error
        return work(path, *more)

    monkeypatch.setattr(batch, "write_levels", fail_once)
    result = upscale(*three, "-o", out)
    assert result.exit_code == 1 and written(out) == ["b.png", "c.png"]
    assert said in result.stderr and "2 of 3 pictures done, 1 failed:" in result.stderr
    assert "Traceback" not in result.stderr
    loud = upscale(*three, "-o", out, "--overwrite", "--debug")
    assert "Traceback" in loud.stderr and "2 of 3 pictures done" in loud.stderr


def test_a_full_disk_ends_the_batch(three: list[Path], out: Path, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path, *more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(batch, "write_levels", full)
    result = upscale(*three, "-o", out)
    assert result.exit_code == 1 and "disk is full" in result.stderr
    assert "0 of 3 pictures done, 1 failed, 2 not reached:" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_and_the_end_of_a_job_end_with_a_summary(
    three: list[Path], out: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    work, before = batch.upscale_picture, signal.getsignal(number)

    def stop_at_the_second(*arguments: object, **options: object) -> object:
        if written(out):
            os.kill(os.getpid(), number)
            time.sleep(5)  # until the signal arrives
        return work(*arguments, **options)

    monkeypatch.setattr(batch, "upscale_picture", stop_at_the_second)
    result = upscale(*three, "-o", out)
    assert result.exit_code == 130 and written(out) == ["a.png"]
    assert result.stderr.splitlines() == ["Stopped.", "1 of 3 pictures done, 2 not reached"]
    assert signal.getsignal(number) is before


def test_a_batch_goes_on_where_it_stopped(three: list[Path], out: Path):
    assert upscale(three[1], "-o", out).exit_code == 0
    before = (out / "b.png").stat().st_mtime_ns
    result = upscale(three[0].parent, "-o", out, "--skip-existing")
    assert result.exit_code == 0 and written(out) == ["a.png", "b.png", "c.png"]
    assert "2 of 3 pictures done, 1 skipped, whose results exist" in result.stdout
    assert (out / "b.png").stat().st_mtime_ns == before
    both = upscale(*three, "-o", out, "--skip-existing", "--overwrite")
    assert both.exit_code == 1 and "exclude each other" in both.stderr


# Names and folders


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_any_name_is_read_written_and_printed(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
):
    names = ["byte\udcff.png", "line\nbreak.png", "\x1b[2Jclear.png", "日本.png", "a|b.png"]
    for name in names:
        photo(tmp_path / "in" / "x.png").rename(tmp_path / "in" / name)
    (tmp_path / "in" / "bad\udcfe.png").touch()
    runner = CliRunner(charset=encoding)
    result = runner.invoke(app, ["upscale", str(tmp_path / "in"), "-o", str(out), "-m", "bicubic"])
    assert result.exit_code == 1, result.exception
    assert {os.fsencode(path.name) for path in out.iterdir()} == {os.fsencode(name) for name in names}
    assert r"byte\udcff.png" in result.stdout and r"line\nbreak.png" in result.stdout and "\x1b" not in result.stdout
    assert r"bad\udcfe.png" in result.stderr and "5 of 6 pictures done" in result.stderr


def test_loops_links_and_devices_are_said(tmp_path: Path, out: Path):
    folder = tmp_path / "in"
    photo(folder / "deep" / "a.png")
    photo(tmp_path / "elsewhere" / "b.png")
    (folder / "deep" / "up").symlink_to(folder)
    (folder / "away").symlink_to(tmp_path / "elsewhere")
    (folder / "self.png").symlink_to(folder / "self.png")
    (folder / "lost.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "pipe.png")
    result = upscale(folder, "-o", out)
    assert result.exit_code == 1 and written(out) == ["deep/a.png"]
    assert all(f"Warning: {folder / link} is a link to a folder" in result.stderr for link in ("away", "deep/up"))
    assert "1 of 4 pictures done, 3 failed:" in result.stderr
    assert f"{folder / 'pipe.png'}: not a file" in result.stderr
    assert upscale(folder / "away", "-o", out).exit_code == 0  # named, it is followed
    assert written(out) == ["b.png", "deep/a.png"]
    with warnings.catch_warnings(record=True) as said:
        assert image_files(folder) == [folder / "deep" / "a.png"]
    assert len(said) == 5 and any("is left out: a link that leads nowhere" in str(each.message) for each in said)


def test_an_unreadable_folder_is_a_failure(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "in"
    photo(folder / "a.png"), photo(folder / "closed" / "b.png")
    look = os.scandir

    def closed(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return look(path)

    monkeypatch.setattr(os, "scandir", closed)  # the permissions themselves do not stop root
    result = upscale(folder, "-o", out)
    assert result.exit_code == 1 and written(out) == ["a.png"]
    assert f"{folder / 'closed'}: Permission denied" in result.stderr
    alone = upscale(folder / "closed", "-o", out)
    assert alone.exit_code == 1 and "Permission denied" in alone.stderr


def test_an_output_may_be_a_file_for_one_picture(three: list[Path], tmp_path: Path, out: Path):
    assert upscale(three[0], "-o", tmp_path / "new" / "big.jpg").exit_code == 0
    assert Image.open(tmp_path / "new" / "big.jpg").format == "JPEG"
    (tmp_path / "folder.png").mkdir()
    assert upscale(*three, "-o", tmp_path / "folder.png").exit_code == 0  # a folder that is there
    for inputs in (three, [three[0].parent]):
        refused = upscale(*inputs, "-o", tmp_path / "one.png")
        assert refused.exit_code == 1 and "is the name of one file" in refused.stderr
    other = upscale(three[0], "-o", tmp_path / "one.png", "--format", "jpg")
    assert other.exit_code == 1 and "does not end in .jpg" in other.stderr
    unknown = upscale(three[0], "-o", tmp_path / "one.gif")
    assert unknown.exit_code == 1 and "unknown suffix '.gif'" in unknown.stderr
    itself = upscale(three[0], "-o", three[0], "--overwrite")
    assert itself.exit_code == 1 and "is one of the inputs" in itself.stderr


def test_a_file_system_without_permissions_is_written_to(three: list[Path], out: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(self: Path, mode: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(self))

    monkeypatch.setattr(Path, "chmod", refuse)
    assert upscale(*three, "-o", out).exit_code == 0 and written(out) == ["a.png", "b.png", "c.png"]


# Before the first picture


def test_an_output_that_cannot_be_is_refused_at_once(three: list[Path], monkeypatch: pytest.MonkeyPatch):
    result = upscale(*three, "-o", three[0] / "below")
    assert result.exit_code == 1 and "is no folder, so nothing can be written below it" in result.stderr
    assert len(result.stderr.splitlines()) == 1

    def read_only(**options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    result = upscale(*three, "-o", three[0].parent / "below")
    assert result.exit_code == 1 and "Read-only file system" in result.stderr and len(result.stderr.splitlines()) == 1


def test_what_headers_tell_is_said_before_the_first_picture(
    three: list[Path], tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
):
    wide = photo(tmp_path / "wide.png", (4200, 1))
    said: list[str] = []
    work = batch.upscale_picture
    monkeypatch.setattr(batch, "upscale_picture", lambda *a, **o: said.append("work") or work(*a, **o))
    monkeypatch.setattr(batch, "say", lambda line, err=False: said.append(line))
    result = upscale(*three, wide, three[0].parent / "absent.png", "-o", out, "--format", "webp")
    assert result.exit_code == 1 and len(written(out)) == 3
    first = said.index("work")
    assert any("wide.webp: WEBP holds at most 16383" in line for line in said[:first])
    assert any("no such file" in line for line in said[:first])


def test_steps_that_a_model_refuses_end_all_at_once(three: list[Path], out: Path):
    result = upscale(*three, "-o", out, "--steps", 5)
    assert result.exit_code == 1 and "leave steps out" in result.stderr.splitlines()[0]
    assert len(result.stderr.splitlines()) == 1 and not out.exists()


def test_memory_is_estimated_before_the_work(three: list[Path], out: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batch, "upscale_picture", lambda *arguments, **options: pytest.fail("it worked"))
    monkeypatch.setattr("srbook.cli.jobs.available_bytes", lambda: 100)
    result = upscale(three[0], "-o", out)
    assert result.exit_code == 1 and "GiB are free; cut it into pieces" in result.stderr
    large = photo(three[0].parent / "large.png", (300, 300))
    monkeypatch.setattr("srbook.cli.jobs.available_bytes", lambda: 50_000_000)
    result = upscale(large, "-o", out)
    assert result.exit_code == 1 and "use --tile 128" in result.stderr


def test_very_large_pictures_are_taken_on_request(three: list[Path], out: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow refuses twice as many
    refused = upscale(three[0], "-o", out)
    assert refused.exit_code == 1 and "--large" in refused.stderr
    assert upscale(three[0], "-o", out, "--large").exit_code == 0 and written(out) == ["a.png"]


# What comes out


@pytest.mark.parametrize("size", [(1, 1), (9, 1), (1, 17), (300, 1)])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_pictures_one_pixel_wide(tmp_path: Path, out: Path, size: tuple[int, int], mode: str):
    picture = photo(tmp_path / "a.png", size, mode)
    assert upscale(picture, "-o", out, "--tile", 8).exit_code == 0
    assert Image.open(out / "a.png").size == (4 * size[0], 4 * size[1])


def disk(path: Path, mode: str) -> Path:
    """A white disk on transparent black."""
    rows, columns = np.mgrid[:24, :24] - 11.5
    inside = np.uint8(255 * (rows**2 + columns**2 < 60))
    channels = [inside] * (3 if mode == "RGBA" else 1)
    Image.fromarray(np.stack([*channels, inside], axis=-1), mode).save(path)
    return path


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize(("model", "levels"), [("bicubic", 0), ("rrdb-small", 1)])
def test_white_on_transparent_black_stays_white(tmp_path: Path, out: Path, mode: str, model: str, levels: int):
    assert run("upscale", disk(tmp_path / "a.png", mode), "-m", model, "-o", out).exit_code == 0
    result = Image.open(out / "a.png")
    assert result.mode == "LA"
    laid = Image.alpha_composite(Image.new("RGBA", result.size, "white"), result.convert("RGBA"))
    assert np.asarray(laid).min() >= 255 - levels
    assert np.asarray(result)[..., -1].min() == 0 and np.asarray(result)[..., -1].max() == 255


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_gray_stays_gray(tmp_path: Path, out: Path, mode: str):
    gray = photo(tmp_path / "gray.png", (12, 10), "L")
    picture = tmp_path / "a.png"
    Image.open(gray).convert(mode).save(picture)
    assert run("upscale", picture, "-m", "rrdb-small", "-o", out).exit_code == 0
    assert Image.open(out / "a.png").mode == "L"


def test_alpha_and_gray_do_not_depend_on_tiles(tmp_path: Path, out: Path):
    picture = tmp_path / "a.png"
    levels = torch.randint(0, 256, (41, 50, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    Image.fromarray(levels.numpy(), "LA").save(picture)
    results = []
    for tile in (256, 18):
        assert upscale(picture, "-o", out / str(tile), "--tile", tile).exit_code == 0
        results.append(np.asarray(Image.open(out / str(tile) / "a.png")).astype(int))
    assert np.abs(results[0] - results[1]).max() <= 1


def test_escapes_are_those_of_python():
    assert printable("a\nb\udcff日 本") == "a\\nb\\udcff日 本"
