"""`srbook upscale` on hostile folders: what is good must come out right, and what is not must be named."""

import os
import resource
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.attack import HOUSE, Attempt, Verdict
from srbook.data import read_image
from srbook.degradations import bicubic_upsample

SECONDS = 300
GIB = 2**30


def attempts() -> Iterator[Attempt]:
    for attack in (
        damaged_among_good,
        loops_of_links,
        names_that_are_no_text,
        a_file_in_the_way,
        a_system_folder_as_output,
        existing_results,
        going_on,
        one_stem_twice,
        one_name_after_a_change_of_format,
        the_input_as_output,
        one_file_for_many,
        transparency,
        files_limited_in_size,
        memory_limited,
        a_bomb,
        a_result_too_wide,
        no_home,
    ):
        yield Attempt(attack.__name__.replace("_", " "), attack)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        yield Attempt(f"ended by {name}", partial(signaled, getattr(signal, name)))


def damaged_among_good(folder: Path) -> Verdict:
    good = [picture(folder / "in" / f"{n}.png", n) for n in (1, 9)]
    whole = picture(folder / "whole.png", 5).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    wrong = {"2.png": b"", "3.png": whole[:-200], "4.png": bytes(flipped), "5.png": b"hello", "6.jpg": whole[:30]}
    for name, content in wrong.items():
        (folder / "in" / name).write_bytes(content)
    return judge(upscale(folder, "in"), good, folder / "out", failed=wrong)


def loops_of_links(folder: Path) -> Verdict:
    good = [picture(folder / "in" / "deep" / "1.png")]
    (folder / "in" / "deep" / "up").symlink_to(folder / "in")
    (folder / "in" / "self.png").symlink_to(folder / "in" / "self.png")
    os.mkfifo(folder / "in" / "pipe.png")
    return judge(upscale(folder, "in"), good, folder / "out" / "deep", failed=["up", "self.png", "pipe.png"])


def names_that_are_no_text(folder: Path) -> Verdict:
    names = ["\udcff.png", "line\nbreak.png", "\x1b[2J.png", "日本.png", "-o.png", " .png", "%s{0}.png"]
    good = [picture(folder / "in" / name, number) for number, name in enumerate(names)]
    (folder / "in" / "bad\udcfe.png").touch()
    ended = upscale(folder, "in", environment={"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    if "\x1b" in ended.stdout + ended.stderr:
        return "broken"
    return judge(ended, good, folder / "out", failed=[r"bad\udcfe.png"])


def a_file_in_the_way(folder: Path) -> Verdict:
    picture(folder / "in" / "1.png")
    (folder / "out").write_text("precious")
    ended = upscale(folder, "in")
    return judge_refusal(ended, "no folder") if (folder / "out").read_text() == "precious" else "broken"


def a_system_folder_as_output(folder: Path) -> Verdict:
    picture(folder / "in" / "1.png")
    return judge_refusal(upscale(folder, "in", "-o", "/proc/srbook"), "cannot write into")


def existing_results(folder: Path) -> Verdict:
    picture(folder / "in" / "1.png"), picture(folder / "in" / "2.png")
    precious = picture(folder / "out" / "2.png", 7)
    before = precious.read_bytes()
    ended = upscale(folder, "in")
    kept = precious.read_bytes() == before and not (folder / "out" / "1.png").exists()
    return judge_refusal(ended, "--skip-existing") if kept else "broken"


def going_on(folder: Path) -> Verdict:
    good = [picture(folder / "in" / "1.png")]
    picture(folder / "in" / "2.png")
    precious = picture(folder / "out" / "2.png", 7)
    before = precious.read_bytes()
    ended = upscale(folder, "in", "--skip-existing")
    return judge(ended, good, folder / "out", others=1) if precious.read_bytes() == before else "broken"


def one_stem_twice(folder: Path) -> Verdict:
    picture(folder / "x" / "1.png"), picture(folder / "y" / "1.png", 2)
    ended = upscale(folder, "x/1.png", "y/1.png")
    return "silent" if (folder / "out").exists() else judge_refusal(ended, "would both be written to")


def one_name_after_a_change_of_format(folder: Path) -> Verdict:
    picture(folder / "in" / "1.png"), picture(folder / "in" / "1.bmp", 2)
    ended = upscale(folder, "in", "--format", "webp")
    return "silent" if (folder / "out").exists() else judge_refusal(ended, "would both be written to")


def the_input_as_output(folder: Path) -> Verdict:
    first = picture(folder / "in" / "1.png")
    (folder / "alias").symlink_to(folder / "in")
    before = first.read_bytes()
    ended = upscale(folder, "in", "-o", "alias", "--overwrite")
    return judge_refusal(ended, "is one of the inputs") if first.read_bytes() == before else "broken"


def one_file_for_many(folder: Path) -> Verdict:
    picture(folder / "in" / "1.png"), picture(folder / "in" / "2.png")
    ended = upscale(folder, "in", "-o", "out.png")
    return "silent" if (folder / "out.png").exists() else judge_refusal(ended, "the name of one file")


def transparency(folder: Path) -> Verdict:
    """A white disk on transparent black, laid on white, is white; also from gray, a palette, and WebP."""
    rows, columns = np.mgrid[:24, :24] - 11.5
    alpha = np.uint8(255 * (rows**2 + columns**2 < 60))
    disk = Image.fromarray(np.stack([alpha] * 4, axis=-1), "RGBA")
    (folder / "in").mkdir()
    disk.save(folder / "in" / "color.png")
    disk.save(folder / "in" / "color.tiff")
    disk.save(folder / "in" / "color.webp", lossless=True)
    disk.convert("LA").save(folder / "in" / "gray.png")
    palette = disk.convert("RGB").quantize(2)
    palette.save(folder / "in" / "palette.png", transparency=palette.getpixel((0, 0)))
    if upscale(folder, "in", "--model", "rrdb-small").returncode:
        return "broken"
    for name in ("color.png", "color.tiff", "color.webp", "gray.png", "palette.png"):
        with Image.open(folder / "out" / name) as image:
            result = image.convert("RGBA")
        laid = Image.alpha_composite(Image.new("RGBA", result.size, "white"), result)
        if np.asarray(laid).min() < 254 or np.asarray(result)[..., 3].max() < 255:
            return "silent"
    return "survived"


def files_limited_in_size(folder: Path) -> Verdict:
    """As on a full disk: the small pictures come out, the large ones fail in every format, and nothing stays behind."""
    good = [picture(folder / "in" / "1.png")]
    large = [f"large{suffix}" for suffix in (".png", ".bmp", ".tif", ".jpg")]
    for name in large:
        picture(folder / "in" / name, size=(90, 90))
    ended = upscale(folder, "in", before=limit(resource.RLIMIT_FSIZE, 25_000))
    return judge(ended, good, folder / "out", failed=large)


def memory_limited(folder: Path) -> Verdict:
    good = [picture(folder / "in" / "1.png")]
    Image.new("RGB", (9000, 9000), "red").save(folder / "in" / "0.png")
    ended = upscale(folder, "in", before=limit(resource.RLIMIT_AS, 5 * GIB))
    return judge(ended, good, folder / "out", failed=["0.png"])


def a_bomb(folder: Path) -> Verdict:
    """Some hundred bytes that say they are 60000 x 60000 pixels."""
    good = [picture(folder / "in" / "1.png")]
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    rows = b"IDAT" + zlib.compress(bytes(60000))
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, rows, b"IEND")]
    (folder / "in" / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return judge(upscale(folder, "in"), good, folder / "out", failed=["bomb.png"])


def a_result_too_wide(folder: Path) -> Verdict:
    good = [picture(folder / "in" / "1.webp")]
    picture(folder / "in" / "wide.webp", size=(4100, 1))
    return judge(upscale(folder, "in"), good, folder / "out", failed=["wide.webp"])


def no_home(folder: Path) -> Verdict:
    """Neither HOME nor much else is in the environment."""
    good = [picture(folder / "in" / "1.png")]
    environment = {"PYTHONPATH": str(HOUSE.parent), "PATH": "/usr/bin:/bin"}
    return judge(upscale(folder, "in", environment=environment, bare=True), good, folder / "out")


def signaled(number: int, folder: Path) -> Verdict:
    for seed in range(40):
        picture(folder / "in" / f"{seed:02}.png", seed, size=(200, 200))
    process = subprocess.Popen(
        command("in", "-o", "out"),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # also where it is ignored
    )
    first = process.stdout.readline()
    process.send_signal(number)
    _, errors = process.communicate(timeout=SECONDS)
    done = sorted((folder / "out").iterdir())
    right = all(matches(folder / "in" / path.name, path) for path in done)
    if not (first and right and 0 < len(done) < 40):
        return "broken"
    said = "Stopped." in errors and f"{len(done)} of 40 pictures done" in errors and "Traceback" not in errors
    return "survived" if process.returncode == 130 and said else "unclear"


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (20, 16)) -> Path:
    """A picture of noise in color."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(levels).save(path, **({"lossless": True} if path.suffix == ".webp" else {}))
    return path


def command(*words: object) -> list[str]:
    model = () if "--model" in words else ("--model", "bicubic")
    unbuffered = (sys.executable, "-u", "-m", "srbook", "upscale")
    return [str(word) for word in (*unbuffered, *words, *model)]


def upscale(
    folder: Path,
    *words: object,
    environment: Mapping[str, str] | None = None,
    bare: bool = False,
    before: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess:
    """Run the command in a folder; `words` go before the output, which is `out` unless they name one."""
    words = words if "-o" in words else (*words, "-o", "out")
    environment = {**({} if bare else os.environ), **(environment or {})}
    process = {"cwd": folder, "env": environment, "preexec_fn": before, "timeout": SECONDS}
    return subprocess.run(command(*words), capture_output=True, text=True, errors="surrogateescape", **process)


def limit(what: int, most: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(what, (most, most))


def judge(ended: Any, good: list[Path], out: Path, *, failed: Any = (), others: int = 0) -> Verdict:
    """The good pictures must be right, the failed ones named, and nothing else there but `others`."""
    there = [path for path in out.parent.rglob("*") if path.is_file() and path.is_relative_to(out)]
    if len(there) != len(good) + others or not all(matches(path, out / path.name) for path in good):
        return "broken"
    if ended.returncode != (1 if failed else 0) or not all(name in ended.stderr for name in failed):
        return "silent"
    return "unclear" if "Traceback" in ended.stderr or "unexpected" in ended.stderr else "survived"


def judge_refusal(ended: Any, words: str) -> Verdict:
    if ended.returncode == 0:
        return "silent"
    lines = ended.stderr.splitlines()
    return "clear" if len(lines) == 1 and lines[0].startswith("Error: ") and words in lines[0] else "unclear"


def matches(source: Path, result: Path) -> bool:
    """Whether a file is the bicubic enlargement of another, to the level."""
    expected = bicubic_upsample(read_image(source), 4).clamp(0, 1)
    return bool((read_image(result) - expected).abs().max() <= 1 / 255)
