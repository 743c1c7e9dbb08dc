"""`srbook evaluate`."""

from collections import Counter
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from srbook.cli.inputs import Device, choose_device, load_upscaler

if TYPE_CHECKING:
    from srbook.metrics import Metric


class ProtocolName(str, Enum):
    """The protocols of `srbook.metrics`."""

    A = "A"
    B = "B"


class EvaluateCommand(TyperCommand):
    """Lists the metrics and the degradations below the options, from their tables."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        from srbook.degradations import DEGRADATIONS
        from srbook.metrics import METRICS

        with formatter.section("Metrics"):
            formatter.write_dl([(metric.name, _about(metric)) for metric in METRICS.values()])
        with formatter.section("Degradations"):
            formatter.write_text(", ".join(DEGRADATIONS))


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
    metrics: Annotated[str, typer.Option(help="Some of those listed below, with commas.")] = "psnr,ssim",
    degradation: Annotated[
        str, typer.Option(help="How images are shrunk, as in a preset: bicubic, or {kind: noisy, std: 0.05}.")
    ] = "bicubic",
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

    A run is called by its folder, and by its path where another model has that name. Bicubic is always in the table.

    \b
    Examples:
        srbook evaluate --data samples
        srbook evaluate --data Set5 --model rrdb-small --protocol B
        srbook evaluate --data photos/ --model a.safetensors --model b.safetensors --metrics psnr,ssim,lpips
    """
    if save is not None and save.suffix != ".json":
        raise ValueError(f"--save {save}: the table is written as JSON, so the name must end in .json")

    from srbook.cli.images import open_test_images
    from srbook.degradations import build_degradation
    from srbook.evaluation import evaluate as run
    from srbook.methods import METHODS
    from srbook.metrics import PROTOCOLS

    where = choose_device(device)
    how = build_degradation(_description(degradation), scale)
    names = model or ["rrdb-small"]
    models = {
        label: METHODS["bicubic"](scale=scale) if name == "bicubic" else load_upscaler(name).to(where)
        for name, label in zip(names, _labels(names), strict=True)
    }
    table = run(
        models,
        open_test_images(data),
        scale=scale,
        protocol=PROTOCOLS[protocol.value],
        degradation=how,
        metrics=tuple(metric.strip() for metric in metrics.split(",")),
        steps=steps,
        seed=seed,
        progress=True,
    )
    typer.echo(table.to_markdown())
    if save is not None:
        table.save(save)
        typer.echo(f"\nSaved to {save}")


def _about(metric: "Metric") -> str:
    words = [metric.title]
    if metric.better is not None:
        words.append(f"{metric.better} is better")
    if not metric.needs_truth:
        words.append("needs no truth")
    if metric.per == "set":
        words.append("of the whole set")
    return ", ".join(words)


def _description(text: str) -> str | dict[str, Any]:
    """A degradation as YAML writes it: a name or a mapping, or a ValueError."""
    import yaml

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        content = None
    if not isinstance(content, str | dict):
        raise ValueError(f"--degradation must be a name or a mapping such as {{kind: noisy, std: 0.05}}, got {text!r}")
    return content


def _labels(models: list[str]) -> list[str]:
    """The models' names in the table: of a run's weights, the name of its folder.

    A file whose name is also another's, or a shipped model's, has its path instead. One model twice is a ValueError.
    """
    from srbook.registry import trained

    if len(set(models)) < len(models):
        raise ValueError(f"one of the models is named twice: {', '.join(models)}")
    short = [_short(model) for model in models]
    taken = Counter([*short, *(name for name in trained() if name not in models)])
    return [name if taken[name] == 1 else model for name, model in zip(short, models, strict=True)]


def _short(model: str) -> str:
    path = Path(model)
    if path.suffix != ".safetensors":
        return model
    return path.parent.name if path.stem == "weights" and path.parent.name else path.stem
