"""`srbook train`."""

import signal
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srbook.cli.inputs import Device, choose_device
from srbook.cli.upscale import Precision

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
    patch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Side of the high-resolution patches, in pixels.", show_default="the preset's"),
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(help="Of the network: auto takes bf16 where the machine is fast at it.", show_default="auto"),
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
    save_every: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="STEPS",
            help="Most steps between checkpoints, and ten minutes.",
            show_default="the preset's",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that prepare batches.", show_default="4 for a GPU, else 0")
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to compute; auto takes a GPU if there is one.")] = Device.auto,
    resume: Annotated[
        bool,
        typer.Option("--resume/--restart", help="Go on from the last checkpoint, or delete the run and begin again."),
    ] = True,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Go on although the pictures or the number of processes changed.")
    ] = False,
) -> None:
    """Train a preset on your images or on the sample photographs.

    The run's folder gets weights.safetensors (for srbook upscale --model), checkpoints, validation pictures, and
    log.jsonl. Ctrl-C, the end of a job, and a closed terminal finish the step and save, and so does an error. The same
    command then goes on where it stopped, with the same result as if it had not. One run at a time writes to a folder.
    Methods of several stages (an encoder first, then the diffusion) run through all of them; --steps and the other
    settings then hold for each stage, and --restart deletes all of them. While it trains, the process keeps freed
    memory for its next step.

    Extractors learn classes: each folder in the data folder is one, or each picture of a folder of pictures.

    Pictures are taken from the folder and those below it, but not what a training wrote there (validation/ beside a
    log.jsonl). Small ones are left out; srbook data verify FOLDER finds damaged ones.

    \b
    Examples:
        srbook train --preset rrdb-tiny --data samples
        srbook train --preset sr3-tiny --data photos/
        srbook train --preset rrdb-small --data photos/ --validation Set5 --steps 20000
        srbook train --preset rrdb-small --data photos/ --output runs/again --restart
    """
    from srbook.registry import begin_from, build, is_labeled, read_preset

    description = read_preset(preset)
    if not description.training:
        raise ValueError(f"{preset} has nothing to train")
    where = choose_device(device)
    output = output or Path("runs") / description.name
    chosen = {
        "steps": steps,
        "batch_size": batch_size,
        "patch_size": patch_size,
        "learning_rate": learning_rate,
        "precision": None if precision is None else precision.value,
        "seed": seed,
        "save_every": save_every,
    }
    changes = {name: value for name, value in chosen.items() if value is not None}
    configs = {stage: _with(config, changes) for stage, config in description.training.items()}

    import torch

    from srbook.accel import keep_freed_memory
    from srbook.cli.images import open_training_classes, open_training_images, open_validation_images
    from srbook.data import LabeledPatches, PairedPatches
    from srbook.degradations import build_degradation
    from srbook.files import checksum
    from srbook.training import Trainer, Validation
    from srbook.training.folder import clear, is_first_process, locked

    torch.manual_seed(next(iter(configs.values())).seed)  # fresh weights come from torch's global generator
    sizes = {
        stage: config.model_dump(include={"patch_size", "batch_size", "seed"}) for stage, config in configs.items()
    }
    if is_labeled(description):
        if validation is not None:
            raise ValueError(f"{preset} learns classes and has no pictures to watch; leave --validation out")
        source, watched, degradation = open_training_classes(data), {}, None
        batches = {stage: LabeledPatches(source, **size) for stage, size in sizes.items()}
        method = build(preset, classes=min(len(each.names) for each in batches.values()))
    else:
        method = build(preset)
        degradation = build_degradation(description.degradation, method.scale)
        source, watched = open_training_images(data), open_validation_images(validation, data, method.scale)
        batches = {
            stage: PairedPatches(source, scale=method.scale, degradation=degradation, **size)
            for stage, size in sizes.items()
        }
    origin = begin_from(method, description)
    weights = sum(parameter.numel() for parameter in method.parameters())
    what = f"{method.classes} classes" if is_labeled(description) else f"{len(source)} images"
    typer.echo(f"{preset}: {weights:,} weights, {what}, {where.type}, into {output}")
    folders = dict(zip(configs, [*(output / stage for stage in list(configs)[:-1]), output], strict=True))
    names = [name.strip() for name in metrics.split(",")]
    checks = {
        stage: Validation(watched, degradation, names, output=folders[stage] / "validation", seed=config.seed)
        for stage, config in configs.items()
        if watched
    }
    with locked(output) if is_first_process() else nullcontext():
        if resume:
            _require_order(configs, folders)
        elif is_first_process():
            for folder in folders.values():  # of all stages now: one that is not reached must not come back later
                clear(folder)
        for number, (stage, config) in enumerate(configs.items(), start=1):
            if len(configs) > 1:
                typer.echo(f"Stage {number} of {len(configs)}: {stage}")
            trainer = Trainer(
                method,
                batches[stage],
                config,
                stage=stage,
                output=folders[stage],
                validation=checks.get(stage),
                device=where.type,
                workers=workers,
                accept_changes=accept_changes,
                origin=origin,
            )
            if trainer.resumed_from is not None:
                typer.echo(f"Resuming from {trainer.resumed_from} (--restart begins again).")
            with keep_freed_memory():  # this process does nothing else
                result = trainer.fit()
            if result.interrupted:
                raise typer.Exit(128 + (result.signal or signal.SIGINT))
            origin = checksum(method.state_dict())
    typer.echo(f"Done after {result.step} step{'s' if result.step > 1 else ''}: {output / 'weights.safetensors'}")


def _with(config: "TrainingConfig", changes: dict[str, Any]) -> "TrainingConfig":
    """The settings with some replaced, checked again. A warm-up longer than the run is cut to its length."""
    settings = {**config.model_dump(), **changes}
    settings["warmup"] = min(settings["warmup"], settings["steps"])
    return type(config)(**settings)


def _require_order(configs: Mapping[str, "TrainingConfig"], folders: Mapping[str, Path]) -> None:
    """Refuse to train a stage further from which a later one has begun: that one would keep the former weights."""
    from srbook.training.checkpoint import latest_checkpoint, step_of

    begun = {stage: latest_checkpoint(folder) for stage, folder in folders.items()}
    for number, (stage, later) in enumerate(zip(list(configs)[:-1], list(configs)[1:], strict=True)):
        done = step_of(begun[stage]) if begun[stage] else 0
        if begun[later] and done < configs[stage].steps:
            after = [str(path.parent) for path in list(begun.values())[number + 1 :] if path]
            keep = f"Choose --steps {done}; or" if done else "To go on,"
            raise ValueError(
                f"the stage {stage} is at step {done} of {configs[stage].steps}, and {later} has begun from it. {keep} "
                f"delete {' and '.join(after)} to train what follows {stage} again; or --restart to train everything "
                "from scratch"
            )
