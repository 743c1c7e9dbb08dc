"""Training checkpoints: one safetensors file with everything that an exact resume needs."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from srbook.files import load_tensors, save_tensors

FORMAT = "srbook-training-2"
ONE_TURN = "srbook-training-1"  # the format before there were turns: one optimizer, without a name
KEEP = 2


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after `step` optimizer steps.

    Attributes:
        step: optimizer steps done.
        method: the method's kind, arguments, and stage, and the hashes of its frozen parts if it has any.
        config: the training settings, as plain values.
        weights: state of the method.
        ema: averaged weights.
        optimizer: the optimizers' tensors, keyed "<turn>/<index of weight>.<name>".
    """

    step: int
    method: dict[str, Any]
    config: dict[str, Any]
    weights: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Tensor]


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps lies in a run's folder."""
    return folder / "checkpoints" / f"step-{step:08d}.safetensors"


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the highest step in a run's folder, or None."""
    return max(_checkpoints(folder), default=None)


def delete_checkpoints(folder: Path) -> None:
    """Delete a run's checkpoints, so that a run which starts again does not go on from them."""
    for path in _checkpoints(folder):
        path.unlink()


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint atomically, then delete all but the last two."""
    groups = {"weights": checkpoint.weights, "ema": checkpoint.ema, "optimizer": checkpoint.optimizer}
    tensors = {f"{group}/{name}": tensor for group, part in groups.items() for name, tensor in part.items()}
    about = {"step": checkpoint.step, "method": checkpoint.method, "config": checkpoint.config}
    path = save_tensors(
        checkpoint_path(folder, checkpoint.step), tensors, {"format": FORMAT, "about": json.dumps(about)}
    )
    for old in sorted(_checkpoints(folder))[:-KEEP]:
        old.unlink()
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; FileNotFoundError where it is absent, ValueError where it is damaged or of another kind."""
    tensors, metadata = load_tensors(path)
    if metadata.get("format") not in (FORMAT, ONE_TURN):
        raise ValueError(
            f"{path} is not a training checkpoint of srbook (format {metadata.get('format', 'unknown')!r})"
        )
    about = json.loads(metadata["about"])
    groups: dict[str, dict[str, Tensor]] = {"weights": {}, "ema": {}, "optimizer": {}}
    for key, tensor in tensors.items():
        group, name = key.split("/", 1)
        groups[group][name] = tensor
    if metadata["format"] == ONE_TURN:
        groups["optimizer"] = {f"main/{name}": tensor for name, tensor in groups["optimizer"].items()}
    return Checkpoint(**about, **groups)


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in (folder / "checkpoints").glob("*.safetensors") if re.fullmatch(r"step-\d{8}", path.stem)]
