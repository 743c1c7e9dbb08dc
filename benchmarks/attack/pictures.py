"""Pictures of every kind that the formats allow: read with their right values, or refused by name."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.attack import Attempt, Verdict, refusal
from benchmarks.attack._containers import png
from benchmarks.attack._kinds import COLORS, HEIGHT, RAMP, WIDTH, Kind, jpegs, others, pngs, stored, tiffs
from srbook.data import Picture, fill_transparent, read_image, read_picture, write_picture
from srbook.degradations import bicubic_upsample

KINDS = (tiffs, pngs, jpegs, others)


def judge(kind: Kind, folder: Path) -> Verdict:
    """Read the file; if it is read, write it as PNG and TIFF, and read these."""
    path = folder / kind.name
    path.write_bytes(kind.data)
    try:
        picture = read_picture(path)
    except ValueError as error:
        blamed = kind.right is not None and "damaged" in str(error)  # a good file must not be called damaged
        return refusal(partial(read_picture, path)) if str(path) in str(error) and not blamed else "unclear"
    if kind.right is None or not _is_right(picture, kind) or not all(note in picture.dropped for note in kind.notes):
        return "silent"
    for suffix in (".png", ".tif"):
        if not _is_right(read_picture(write_picture(folder / f"again{suffix}", picture)), kind, 0.5 / 255 + 1e-6):
            return "broken"
    return "survived"


def _is_right(picture: Picture, kind: Kind, more: float = 0.0) -> bool:
    right = torch.from_numpy(kind.right.copy()).permute(2, 0, 1).float()[None]
    alpha = right[:, -1:] if right.shape[1] in (2, 4) else torch.ones_like(right[:, :1])
    colors = right[:, : 3 if right.shape[1] > 2 else 1].expand(-1, 3, -1, -1)
    got = torch.ones_like(alpha) if picture.alpha is None else picture.alpha
    if picture.rgb.shape != colors.shape or got.shape != alpha.shape:
        return False
    seen = (alpha > 0.1).float()
    wrong = torch.maximum((picture.rgb - colors).abs() * seen * alpha, (got - alpha).abs())
    return bool(wrong.max() <= kind.tolerance + more) and picture.gray == bool((colors[:, 1:] == colors[:, :1]).all())


def disk_on_nothing(folder: Path) -> Verdict:
    """A white disk on transparent black, enlarged and laid on white, is white."""
    y, x = np.mgrid[0:24, 0:24]
    alpha = np.clip(8 - np.hypot(y - 11.5, x - 11.5), 0, 1)
    levels = np.where(alpha[..., None] > 0, 255, 0).repeat(3, 2)
    path = folder / "disk.png"
    path.write_bytes(png(np.concatenate([levels, stored(alpha[..., None], 8)], axis=2), 6, 8))
    picture = read_picture(path)
    rgb = bicubic_upsample(fill_transparent(picture.rgb, picture.alpha), 4)
    cover = bicubic_upsample(picture.alpha, 4).clamp(0, 1)
    return "survived" if (rgb * cover + 1 - cover).min() > 1 - 0.5 / 255 else "silent"


def opaque_as_jpeg(folder: Path) -> Verdict:
    """A picture whose alpha is 1 everywhere is not transparent."""
    path = folder / "opaque.png"
    path.write_bytes(png(stored(np.concatenate([COLORS, 0 * RAMP + 1], axis=2), 8), 6, 8))
    read_image(path)
    written = write_picture(folder / "opaque.jpg", read_picture(path))
    return "survived" if read_picture(written).rgb.shape == (1, 3, HEIGHT, WIDTH) else "silent"


def damaged(kinds: Callable[[], Iterator[Kind]], folder: Path) -> Verdict:
    """Flip, remove, and insert bytes: every file is read, or refused with its name."""
    random = np.random.default_rng(0)
    whole = [kind for kind in kinds() if 30 < len(kind.data) < 20_000]
    for _ in range(60):
        kind = whole[random.integers(len(whole))]
        data = bytearray(kind.data)
        for at in random.integers(len(data) - 8, size=3):
            kept = (data[at] ^ 1 << int(random.integers(8))).to_bytes(1, "little") * int(random.integers(3))
            data[at : at + 1] = kept
        path = folder / f"damaged{Path(kind.name).suffix}"
        path.write_bytes(data)
        try:
            read_picture(path, max_pixels=10_000)
        except ValueError as error:
            if str(path) not in str(error):
                return "unclear"
        except Exception:
            return "unclear"
    return "survived"


def attempts() -> Iterator[Attempt]:
    for kinds in KINDS:
        for kind in kinds():
            yield Attempt(kind.name, partial(judge, kind))
        yield Attempt(f"damaged bytes of {kinds.__name__}", partial(damaged, kinds))
    yield Attempt("a disk on nothing, enlarged", disk_on_nothing)
    yield Attempt("opaque alpha as JPEG", opaque_as_jpeg)
