"""Training checkpoints: one safetensors file with everything that an exact resume needs."""

import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor

from srbook.files import load_tensors, parse_metadata, save_tensors

FORMAT = "srbook-training-3"
ONE_TURN = "srbook-training-1"  # the format before there were turns: one optimizer, without a name
FORMATS = (ONE_TURN, "srbook-training-2", FORMAT)  # the second one says nothing of origin, data, and processes
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
        origin: checksum of the weights of the earlier stage that the run began with, if it began with any.
        data: fingerprint of the training data, if they have one.
        processes: how many trained together. Old checkpoints say none of these three.
    """

    step: int
    method: dict[str, Any]
    config: dict[str, Any]
    weights: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    origin: str | None = None
    data: str | None = None
    processes: int | None = None

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, as the file holds them."""
        groups = {"weights": self.weights, "ema": self.ema, "optimizer": self.optimizer}
        return {f"{group}/{name}": tensor for group, part in groups.items() for name, tensor in part.items()}


class _Method(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    kind: str
    arguments: dict[str, Any]
    stage: str
    frozen: dict[str, str] | None = None


class _About(BaseModel):
    """What a checkpoint says beside its tensors."""

    model_config = ConfigDict(extra="forbid", strict=True)

    step: PositiveInt
    method: _Method
    config: dict[str, Any]
    origin: str | None = None
    data: str | None = None
    processes: PositiveInt | None = None


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps lies in a run's folder."""
    return folder / "checkpoints" / f"step-{step:08d}.safetensors"


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    return int(path.stem.removeprefix("step-"))


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the highest step in a run's folder, or None."""
    return max(_checkpoints(folder), default=None)


def newest_checkpoint(folder: Path) -> tuple[Path, Checkpoint] | None:
    """The intact checkpoint with the highest step in a run's folder and its path; a warning names damaged ones.

    If there are only damaged ones, that is a ValueError.
    """
    damaged: list[str] = []
    for path in sorted(_checkpoints(folder), reverse=True):
        try:
            checkpoint = load_checkpoint(path)
            if checkpoint.step != step_of(path):
                raise ValueError(f"{path} holds step {checkpoint.step}, so it was renamed")
        except (ValueError, FileNotFoundError) as error:
            damaged.append(str(error))
            continue
        if damaged:
            warnings.warn(f"{'; '.join(damaged)}; going on from {path}", stacklevel=2)
        return path, checkpoint
    if damaged:
        raise ValueError(f"{'; '.join(damaged)}. No checkpoint is intact: restart (--restart) to train from scratch.")
    return None


def delete_checkpoints(folder: Path) -> None:
    """Delete a run's checkpoints, so that a run which starts again does not go on from them."""
    for path in (*_checkpoints(folder), *(folder / "checkpoints").glob("step-*.damaged")):
        path.unlink()


def set_aside(folder: Path, step: int) -> None:
    """Rename the checkpoints after a step, which a run that goes on from it has found damaged."""
    for path in _checkpoints(folder):
        if path > checkpoint_path(folder, step):
            path.replace(path.with_suffix(".damaged"))


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint atomically, then delete all but the last two."""
    names = ("step", "method", "config", "origin", "data", "processes")
    about = json.dumps({name: getattr(checkpoint, name) for name in names})
    path = checkpoint_path(folder, checkpoint.step)
    save_tensors(path, checkpoint.tensors(), {"format": FORMAT, "about": about})
    for old in sorted(_checkpoints(folder))[:-KEEP]:
        old.unlink()
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; FileNotFoundError where it is absent, ValueError where it is damaged or of another kind."""
    tensors, metadata = load_tensors(path)
    if metadata.get("format") not in FORMATS or "about" not in metadata:
        raise ValueError(
            f"{path} is not a training checkpoint of this version of srbook (format "
            f"{metadata.get('format', 'unknown')!r})"
        )
    about = parse_metadata(_About, metadata["about"], path).model_dump(exclude_unset=True)
    groups: dict[str, dict[str, Tensor]] = {"weights": {}, "ema": {}, "optimizer": {}}
    for key, tensor in tensors.items():
        group, _, name = key.partition("/")
        if group not in groups or not name:
            raise ValueError(f"{path} holds the tensor {key!r}, which has no place in a checkpoint")
        groups[group][name] = tensor
    if metadata["format"] == ONE_TURN:
        groups["optimizer"] = {f"main/{name}": tensor for name, tensor in groups["optimizer"].items()}
    return Checkpoint(**about, **groups)


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in (folder / "checkpoints").glob("*.safetensors") if re.fullmatch(r"step-\d{8}", path.stem)]
