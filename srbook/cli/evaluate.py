"""`srbook evaluate`."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from srbook.cli.inputs import Device, choose_device


class ProtocolName(str, Enum):
    """The protocols of `srbook.metrics`."""

    A = "A"
    B = "B"


def evaluate(
    data: Annotated[
        str,
        typer.Option("--data", "-d", help="A folder of images, a set of srbook data, or samples.", show_default=False),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help="A shipped model or a checkpoint file; may be repeated.", show_default="rrdb-small"
        ),
    ] = None,
    scale: Annotated[int, typer.Option(min=2, help="Magnification.")] = 4,
    protocol: Annotated[ProtocolName, typer.Option(help="How it is measured; see below.")] = ProtocolName.A,
    metrics: Annotated[str, typer.Option(help="Some of psnr,ssim,lpips.")] = "psnr,ssim",
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Sampling steps of the models that sample.", show_default="the model's own"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Fixes the result of models that sample.")] = 0,
    device: Annotated[Device, typer.Option(help="Where to compute; auto takes a GPU if there is one.")] = Device.auto,
    save: Annotated[Path | None, typer.Option(help="Write every number to this JSON file.", show_default=False)] = None,
) -> None:
    """Measure models against bicubic on images, and print a table.

    Each image is shrunk, upscaled by every model, and compared with what it was.

    Protocol A rounds the low-resolution and the upscaled image to 8 bits and measures the Y channel in floating point.
    Protocol B works on Y rounded to 8 bits from the start, and does not round the low-resolution image; older
    papers used it. Never compare numbers of the two. "samples" means the held-out sample photographs.

    \b
    Examples:
        srbook evaluate --data samples
        srbook evaluate --data Set5 --model rrdb-small --protocol B
        srbook evaluate --data photos/ --model a.safetensors --model b.safetensors --metrics psnr,ssim,lpips
    """
    if save is not None and save.suffix != ".json":
        raise ValueError(f"--save {save}: the table is written as JSON, so the name must end in .json")

    import srbook
    from srbook.cli.images import open_test_images
    from srbook.evaluation import evaluate as run
    from srbook.metrics import PROTOCOLS

    where = choose_device(device)
    names = model or ["rrdb-small"]
    methods = {_label(name): srbook.load(name).to(where) for name in names}
    if len(methods) < len(names):
        raise ValueError(f"two of the models have one name: {', '.join(map(_label, names))}")
    table = run(
        methods,
        open_test_images(data),
        scale=scale,
        protocol=PROTOCOLS[protocol.value],
        metrics=tuple(metric.strip() for metric in metrics.split(",")),
        steps=steps,
        seed=seed,
        progress=True,
    )
    typer.echo(table.to_markdown())
    if save is not None:
        table.save(save)
        typer.echo(f"\nSaved to {save}")


def _label(model: str) -> str:
    """A model's name in the table: a run's folder says more than `weights`."""
    path = Path(model)
    if path.suffix != ".safetensors":
        return model
    return path.parent.name if path.stem == "weights" and path.parent.name else path.stem
