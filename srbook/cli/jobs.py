"""Which picture goes where: the plan of `srbook upscale`, and what can be known of it before the work."""

import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from mimetypes import guess_type
from pathlib import Path

import torch
from PIL import Image

from srbook.data import IMAGE_SUFFIXES, Picture, picture_size, require_writable
from srbook.data.search import find_images
from srbook.memory import available_bytes
from srbook.upscaling import needed_bytes

_SMALLEST_TILE = 32  # that is advised


@dataclass(frozen=True)
class Job:
    """One picture to upscale, and where the result goes."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Plan:
    """What will be read and written, each picture once.

    Attributes:
        jobs: in the order given, folders sorted by path.
        remarks: on links to folders inside the folders given, which are not followed.
        unreadable: what could not be looked into, with the reason.
    """

    jobs: list[Job]
    remarks: list[str] = field(default_factory=list)
    unreadable: dict[Path, str] = field(default_factory=dict)


def plan(files: list[Path], output: Path, suffix: str | None) -> Plan:
    """Give each picture its target.

    Args:
        files: pictures, and folders to search for pictures.
        output: folder for the results; or the result's own name, for one picture.
        suffix: of the results; None keeps each input's.

    Raises:
        ValueError: a folder without pictures, two inputs for one result, one file for several results, or a file's name
            with another suffix than the one asked for.
    """
    if is_file_name(output):
        return Plan([_job_of_one(files, output, suffix)])
    made = Plan([])
    jobs: dict[str, Job] = {}
    for source, name in _sources(files, output, made):
        job = Job(source, output / name.with_suffix(suffix or name.suffix))
        other = jobs.setdefault(os.path.normcase(job.target), job)
        if os.path.realpath(other.source) != os.path.realpath(source):
            raise ValueError(
                f"{other.source} and {source} would both be written to {job.target}; upscale them into different "
                "--output folders"
            )
    made.jobs.extend(jobs.values())
    return made


def is_file_name(output: Path) -> bool:
    """Whether an output is named like a picture and is no folder."""
    kind, _ = guess_type(output.name, strict=False)
    picture = output.suffix.lower() in IMAGE_SUFFIXES or (kind or "").startswith("image/")
    return picture and not os.path.isdir(output)


def _job_of_one(files: list[Path], output: Path, suffix: str | None) -> Job:
    if len(files) > 1 or os.path.isdir(files[0]):
        raise ValueError(f"--output {output} is the name of one file, and there may be several results; give a folder")
    if suffix is not None and output.suffix.lower() != suffix:
        raise ValueError(f"--output {output} does not end in {suffix}, which --format asks for")
    return Job(files[0], output)


def _sources(files: list[Path], output: Path, made: Plan) -> Iterator[tuple[Path, Path]]:
    """Each picture, and its name below the output folder. Earlier results inside an input folder are left out."""
    for entry in files:
        if not os.path.isdir(entry):
            yield entry, Path(entry.name)
            continue
        folder, results = Path(os.path.realpath(entry)), Path(os.path.realpath(output))
        inside = results != folder and results.is_relative_to(folder)
        search = find_images(entry)
        made.remarks.extend(search.remarks_on_links())
        made.unreadable.update(search.unreadable)
        found = [p for p in search.files if not (inside and Path(os.path.realpath(p)).is_relative_to(results))]
        if not found and not search.unreadable:
            raise ValueError(f"{entry} holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
        for path in found:
            yield path, path.relative_to(entry)


def refuse_inputs_as_results(jobs: list[Job]) -> None:
    """Raise a ValueError if a result would replace an input."""
    inputs = {os.path.realpath(job.source) for job in jobs}
    for job in jobs:
        if os.path.realpath(job.target) in inputs:
            raise ValueError(f"{job.target} is one of the inputs; choose another --output")


def existing(jobs: list[Job]) -> list[Job]:
    """The jobs whose result is there."""
    return [job for job in jobs if os.path.lexists(job.target)]


def refuse_existing(jobs: list[Job]) -> None:
    """Raise a ValueError that names the first of the results that are there, if any is."""
    if jobs:
        more = f" (and {len(jobs) - 1} more)" if len(jobs) > 1 else ""
        raise ValueError(
            f"{jobs[0].target}{more} exists; add --overwrite to replace it, --skip-existing to leave it, "
            "or choose another --output"
        )


def require_folder(folder: Path) -> None:
    """Raise an OSError if no file can be made in a folder, or in the place where it would be made."""
    place = folder
    while not os.path.lexists(place):
        place = place.parent
    if not os.path.isdir(place):
        raise NotADirectoryError(f"{place} is no folder, so nothing can be written below it; choose another --output")
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise type(error)(f"cannot write into {place} ({error.strerror}); choose another --output") from error


def require_possible(job: Job, *, scale: int, tile: int, per_tile_pixel: float, large: bool) -> None:
    """What the header of a picture tells: raise if it is none, its result has no format, or memory does not suffice.

    More pixels than Pillow's limit, 179 million, are refused unless `large`: a small file may pretend to have them.

    A ValueError or an OSError that says what to do.
    """
    height, width = picture_size(job.source, max_pixels=sys.maxsize)
    limit = Image.MAX_IMAGE_PIXELS  # Pillow warns above it, and refuses twice as many
    if not large and limit is not None and height * width > 2 * limit:
        most = f"{2 * limit / 1e6:.0f} million"
        raise ValueError(f"{job.source} has {width} x {height} pixels; add --large to take more than {most}")
    least = Picture(torch.zeros(1, 3, 1, 1), gray=True)  # whatever more the picture holds is looked at when it is read
    require_writable(job.target, least, scale * height, scale * width)

    def needed(tile: int) -> float:
        return needed_bytes(height, width, scale=scale, tile=tile, per_tile_pixel=per_tile_pixel)

    free = available_bytes()
    if free is None or needed(tile) <= free:
        return
    fitting = next((smaller for smaller in _halves(tile) if needed(smaller) <= free), None)
    advice = "cut it into pieces, or use a machine with more" if fitting is None else f"use --tile {fitting}"
    raise ValueError(
        f"{job.source}: {width} x {height} pixels, enlarged {scale} times, need about {needed(tile) / 2**30:.1f} GiB "
        f"of memory, and {free / 2**30:.1f} GiB are free; {advice}"
    )


def _halves(tile: int) -> Iterator[int]:
    while (tile := tile // 2) >= _SMALLEST_TILE:
        yield tile
