"""The work behind `srbook upscale`: which picture goes where, and how one is upscaled."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from srbook.data import IMAGE_SUFFIXES, image_files, read_picture, require_writable, write_picture
from srbook.degradations import bicubic_upsample
from srbook.images import clip
from srbook.methods import Method
from srbook.progress import is_static
from srbook.tiling import upscale_tiled


@dataclass(frozen=True)
class Job:
    """One picture to upscale, and where the result goes."""

    source: Path
    target: Path


def plan(files: list[Path], output: Path, suffix: str | None) -> list[Job]:
    """What will be read and written, each picture once.

    Args:
        files: pictures, and folders to search for pictures.
        output: folder for the results.
        suffix: of the results; None keeps each input's.

    Raises:
        ValueError: a folder without pictures, or two inputs for one result.
    """
    jobs: dict[Path, Job] = {}
    for source, name in _sources(files, output):
        job = Job(source, output / name.with_suffix(suffix or name.suffix))
        other = jobs.setdefault(job.target, job)
        if other.source.resolve() != source.resolve():
            raise ValueError(
                f"{other.source} and {source} would both be written to {job.target}; upscale them into different "
                "--output folders"
            )
    return list(jobs.values())


def _sources(files: list[Path], output: Path) -> Iterator[tuple[Path, Path]]:
    """Each picture, and its name below the output folder. Earlier results inside an input folder are left out."""
    for entry in files:
        if not entry.is_dir():
            yield entry, Path(entry.name)
            continue
        folder, results = entry.resolve(), output.resolve()
        inside = results != folder and results.is_relative_to(folder)
        found = [path for path in image_files(entry) if not (inside and path.resolve().is_relative_to(results))]
        if not found:
            raise ValueError(f"{entry} holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
        for path in found:
            yield path, path.relative_to(entry)


def refuse_overwriting(jobs: list[Job], overwrite: bool) -> None:
    """Raise a ValueError if a result would replace an input, or an older result without `overwrite`."""
    inputs = {job.source.resolve() for job in jobs}
    for job in jobs:
        if job.target.resolve() in inputs:
            raise ValueError(f"{job.target} is one of the inputs; choose another --output folder")
    existing = [job.target for job in jobs if job.target.exists()]
    if existing and not overwrite:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise ValueError(f"{existing[0]}{more} exists; add --overwrite to replace it, or choose another --output")


def upscale_file(
    method: Method, job: Job, *, steps: int | None, seed: int, tile: int, device: torch.device
) -> tuple[int, int]:
    """Upscale one picture; returns the height and width of the result.

    Every file gets its own generator, so that a result does not depend on what else is upscaled.
    """
    picture = read_picture(job.source)
    height, width = picture.rgb.shape[-2:]
    require_writable(job.target, picture, method.scale * height, method.scale * width)
    rgb = upscale_tiled(
        method,
        picture.rgb,
        tile=tile,
        steps=steps,
        generator=torch.Generator(device).manual_seed(seed),
        progress=job.source.name if sys.stderr.isatty() or is_static() else None,
    )
    alpha = None if picture.alpha is None else clip(bicubic_upsample(picture.alpha, method.scale))
    write_picture(job.target, replace(picture, rgb=rgb, alpha=alpha))
    return rgb.shape[-2], rgb.shape[-1]
