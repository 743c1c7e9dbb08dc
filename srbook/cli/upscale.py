"""`srbook upscale`."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from srbook.cli.inputs import Device, choose_device, load_upscaler
from srbook.cli.output import say


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
    context: typer.Context,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILES...", help="Pictures, or folders of pictures.", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for the results, made if absent; for one picture also a file."),
    ] = Path("upscaled"),
    model: Annotated[
        str, typer.Option("--model", "-m", help="A name whose weights ship with srbook, or a checkpoint file.")
    ] = "rrdb-small",
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps.", show_default="the model's own")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Fixes the result of models that sample.")] = 0,
    tile: Annotated[
        int | None,
        typer.Option(
            min=8,
            help="Side of the tiles, in input pixels; smaller needs less memory.",
            show_default="256, or less where such a tile would take more than 2.5 GB",
        ),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to compute; auto takes a GPU if there is one.")] = Device.auto,
    precision: Annotated[
        Precision, typer.Option(help="bf16 is faster on hardware made for it; auto takes it there.")
    ] = Precision.fp32,
    format: Annotated[Format, typer.Option(help="File format of the results; same keeps each input's.")] = Format.same,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave out pictures whose result exists, to go on with a batch.")
    ] = False,
    large: Annotated[
        bool, typer.Option("--large", help="Take pictures of more than 179 megapixels; otherwise they are refused.")
    ] = False,
) -> None:
    """Enlarge pictures by the model's factor (x4 for those that ship).

    The result of DIR/photo.jpg is OUTPUT/photo.jpg; folders are searched in depth and keep their inner structure.
    Pictures of any size go tile by tile; meanwhile the process keeps freed memory for the next tile. Transparency is
    enlarged with the picture, and gray pictures stay gray. Color profile, resolution, and EXIF data are kept where the
    format has them, with a warning where it has not, and the picture is stored upright. Results have 8 bits per
    channel; JPEG is written at quality 95 without chroma subsampling. An input is never overwritten.

    What can be known before the first picture is checked before it, the memory that each will take included. A picture
    that fails does not end the others: the end says how many failed and why, and the exit status is then 1.

    \b
    Examples:
        srbook upscale photo.jpg
        srbook upscale photo.jpg --output large.png
        srbook upscale photo.jpg scans/ --output large --format png
        srbook upscale scans/ --output large --skip-existing
        srbook upscale photo.jpg --model bicubic --output plain
        srbook upscale photo.jpg --model runs/rrdb-tiny/weights.safetensors --tile 128
    """
    import torch

    from srbook.accel import choose_precision
    from srbook.cli import jobs as planning
    from srbook.cli.batch import Batch, ended_like_by_ctrl_c, possible, work_through
    from srbook.upscaling import default_tile, tile_bytes

    if overwrite and skip_existing:
        raise ValueError("--overwrite and --skip-existing exclude each other")
    plan = planning.plan(files, output, None if format is Format.same else f".{format.value}")
    planning.refuse_inputs_as_results(plan.jobs)
    planning.require_folder(output.parent if planning.is_file_name(output) else output)
    existing = planning.existing(plan.jobs)
    if not (overwrite or skip_existing):
        planning.refuse_existing(existing)
    where = choose_device(device)
    method = load_upscaler(model).to(where, memory_format=torch.channels_last)  # 1.4 times as fast on CPUs
    autocast = torch.autocast(where.type, torch.bfloat16, enabled=choose_precision(precision.value, where) == "bf16")

    with autocast:
        per_pixel = tile_bytes(method, steps)
    if where.type != "cpu":
        per_pixel = 0  # tiles are in the memory of the GPU
    tile = default_tile(per_pixel) if tile is None else tile
    batch = Batch(len(plan.jobs) + len(plan.unreadable), context.find_root().params["debug"])
    for remark in plan.remarks:
        say(f"Warning: {remark}", err=True)
    try:
        for path, reason in plan.unreadable.items():
            batch.fail(path, reason)
        todo = plan.jobs
        if skip_existing:
            there = set(existing)
            todo = [job for job in todo if job not in there]
            batch.skipped = len(there)
        todo = possible(batch, todo, scale=method.scale, tile=tile, per_tile_pixel=per_pixel, large=large)
        with autocast, ended_like_by_ctrl_c():
            work_through(batch, todo, method, steps=steps, seed=seed, tile=tile)
    except KeyboardInterrupt as interrupt:
        say("Stopped.", err=True)
        raise typer.Exit(130) from interrupt
    finally:
        if batch.total > 1:
            batch.summarize()
    if batch.failed:
        raise typer.Exit(1)
