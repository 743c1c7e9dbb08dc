"""`srbook train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srbook.cli.inputs import Device, choose_device

if TYPE_CHECKING:
    from srbook.training import TrainingConfig


def train(
    preset: Annotated[
        str,
        typer.Option(
            "--preset", "-p", help="What to train: a name from srbook presets, or a .yaml file.", show_default=False
        ),
    ],
    data: Annotated[
        str,
        typer.Option("--data", "-d", help="A folder of images, a set of srbook data, or samples.", show_default=False),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the run.", show_default="runs/PRESET")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimizer steps in all.", show_default="the preset's")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Patches per step.", show_default="the preset's")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Highest learning rate.", show_default="the preset's")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Fixes weights, batches, and noise.", show_default="the preset's")
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(help="Images to watch the quality on, as --data.", show_default="held-out samples for samples"),
    ] = None,
    metrics: Annotated[
        str, typer.Option(help="What to watch on them, with commas; srbook evaluate --help lists all.")
    ] = "psnr",
    device: Annotated[Device, typer.Option(help="Where to compute; auto takes a GPU if there is one.")] = Device.auto,
    resume: Annotated[
        bool, typer.Option("--resume/--restart", help="Go on from the last checkpoint, or begin again.")
    ] = True,
) -> None:
    """Train a preset on your images or on the sample photographs.

    The run's folder gets weights.safetensors (for srbook upscale --model), checkpoints, and log.jsonl. Ctrl-C finishes
    the step and saves. The same command then goes on where it stopped, with the same result as if it had not. Methods
    of several stages (an encoder first, then the diffusion) run through all of them; --steps and the other settings
    then hold for each stage. While it trains, the process keeps freed memory for its next step.

    \b
    Examples:
        srbook train --preset rrdb-tiny --data samples
        srbook train --preset sr3-tiny --data photos/
        srbook train --preset rrdb-small --data photos/ --validation Set5 --steps 20000
        srbook train --preset rrdb-small --data photos/ --output runs/again --restart
    """
    from srbook.registry import begin_from, build, read_preset

    description = read_preset(preset)
    if not description.training:
        raise ValueError(f"{preset} has nothing to train")
    where = choose_device(device)
    output = output or Path("runs") / description.name
    chosen = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
    changes = {name: value for name, value in chosen.items() if value is not None}
    configs = {stage: _with(config, changes) for stage, config in description.training.items()}

    import torch

    from srbook.accel import keep_freed_memory
    from srbook.cli.images import open_training_images, open_validation_images
    from srbook.data import PairedPatches
    from srbook.degradations import build_degradation
    from srbook.training import Trainer, Validation
    from srbook.training.checkpoint import delete_checkpoints, latest_checkpoint

    torch.manual_seed(next(iter(configs.values())).seed)  # fresh weights come from torch's global generator
    method = build(preset)
    begin_from(method, description)
    degradation = build_degradation(description.degradation, method.scale)
    images = open_training_images(data)
    watched = open_validation_images(validation, data, method.scale)
    weights = sum(parameter.numel() for parameter in method.parameters())
    typer.echo(f"{preset}: {weights:,} weights, {len(images)} images, {where.type}, into {output}")
    folders = [*(output / stage for stage in list(configs)[:-1]), output]
    if not resume:
        for folder in folders:  # of all stages now: one that is not reached must not come back later
            delete_checkpoints(folder)
    for number, ((stage, config), folder) in enumerate(zip(configs.items(), folders, strict=True), start=1):
        batches = PairedPatches(
            images,
            scale=method.scale,
            patch_size=config.patch_size,
            batch_size=config.batch_size,
            seed=config.seed,
            degradation=degradation,
        )
        checks = None
        if watched:
            names = [name.strip() for name in metrics.split(",")]
            checks = Validation(watched, degradation, names, output=folder / "validation", seed=config.seed)
        checkpoint = latest_checkpoint(folder)
        trainer = Trainer(
            method,
            batches,
            config,
            stage=stage,
            output=folder,
            validation=checks,
            device=where.type,
        )
        if len(configs) > 1:
            typer.echo(f"Stage {number} of {len(configs)}: {stage}")
        if checkpoint is not None:
            typer.echo(f"Resuming from {checkpoint} (--restart begins again).")
        with keep_freed_memory():  # this process does nothing else
            result = trainer.fit()
        if result.interrupted:
            raise typer.Exit(130)
    typer.echo(f"Done after {result.step} step{'s' if result.step > 1 else ''}: {output / 'weights.safetensors'}")


def _with(config: "TrainingConfig", changes: dict[str, Any]) -> "TrainingConfig":
    """The settings with some replaced, checked again."""
    return type(config)(**{**config.model_dump(), **changes})
