"""`srbook upscale`."""

import errno
import time
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from srbook.cli.errors import explain
from srbook.cli.inputs import Device, choose_device


class Format(str, Enum):
    """How results are written."""

    same = "same"
    png = "png"
    jpg = "jpg"
    webp = "webp"
    bmp = "bmp"
    tiff = "tiff"


class Precision(str, Enum):
    """The number format of the network's convolutions."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


def upscale(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILES...", help="Pictures, or folders of pictures.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results; made if absent.")] = Path(
        "upscaled"
    ),
    model: Annotated[
        str, typer.Option("--model", "-m", help="A name whose weights ship with srbook, or a checkpoint file.")
    ] = "rrdb-small",
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps.", show_default="the model's own")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Fixes the result of models that sample.")] = 0,
    tile: Annotated[
        int, typer.Option(min=8, help="Side of the tiles, in input pixels; smaller needs less memory.")
    ] = 256,
    device: Annotated[Device, typer.Option(help="Where to compute; auto takes a GPU if there is one.")] = Device.auto,
    precision: Annotated[
        Precision, typer.Option(help="bf16 is faster on hardware made for it; auto takes it there.")
    ] = Precision.fp32,
    format: Annotated[Format, typer.Option(help="File format of the results; same keeps each input's.")] = Format.same,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
) -> None:
    """Enlarge pictures by the model's factor (x4 for those that ship).

    The result of DIR/photo.jpg is OUTPUT/photo.jpg; folders are searched in depth and keep their inner structure.
    Pictures of any size go tile by tile; meanwhile the process keeps freed memory for the next tile. Transparency,
    color profile, and EXIF data are kept, and the picture is stored upright. Results have 8 bits per channel; JPEG is
    written at quality 95 without chroma subsampling. An input is never overwritten. A file that cannot be read is
    reported and the others go on; the exit status is then 1.

    \b
    Examples:
        srbook upscale photo.jpg
        srbook upscale photo.jpg scans/ --output large --format png
        srbook upscale photo.jpg --model bicubic --output plain
        srbook upscale photo.jpg --model runs/rrdb-tiny/weights.safetensors --tile 128
    """
    import torch

    import srbook
    from srbook.accel import choose_precision, keep_freed_memory
    from srbook.cli.jobs import plan, refuse_overwriting, upscale_file

    jobs = plan(files, output, None if format is Format.same else f".{format.value}")
    refuse_overwriting(jobs, overwrite)
    where = choose_device(device)
    method = srbook.load(model).to(where, memory_format=torch.channels_last)  # 1.4 times as fast on CPUs
    autocast = torch.autocast(where.type, torch.bfloat16, enabled=choose_precision(precision.value, where) == "bf16")
    failed = 0
    for job in jobs:
        started = time.perf_counter()
        try:
            with autocast, keep_freed_memory():
                height, width = upscale_file(method, job, steps=steps, seed=seed, tile=tile, device=where)
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise  # a full disk: the other files would fail in the same way, after all their work
            failed += 1
            message = explain(error)
            named = message if str(job.source) in message else f"{job.source}: {message}"
            typer.echo(f"Error: {named}", err=True)
        else:
            seconds = time.perf_counter() - started
            typer.echo(f"{job.source} -> {job.target}  {width}x{height}  {seconds:.1f} s")
    if failed:
        typer.echo(f"{failed} of {len(jobs)} pictures failed.", err=True)
        raise typer.Exit(1)
