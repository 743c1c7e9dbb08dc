"""Whether a checkpoint is of the run that wants to go on from it."""

import json
from pathlib import Path
from typing import Any

from srbook.methods.renamed import present_arguments
from srbook.settings import TrainingConfig
from srbook.training.checkpoint import Checkpoint
from srbook.turns import Trainable

ADVICE = "Choose another output folder, or restart (--restart) to train from scratch."


def identity_of(method: Trainable) -> dict[str, Any]:
    """What a checkpoint says of a method, as it gives it back: tuples become lists."""
    identity = {"kind": method.kind, "arguments": method.arguments, "stage": method.stage}
    frozen = method.frozen() if hasattr(method, "frozen") else {}
    if frozen:
        identity["frozen"] = frozen
    return json.loads(json.dumps(identity))


def require_same_run(
    path: Path,
    checkpoint: Checkpoint,
    *,
    identity: dict[str, Any],
    config: TrainingConfig,
    origin: str | None,
) -> None:
    """Check that a checkpoint is of the same method, frozen parts, settings, and start; otherwise a ValueError."""
    identity, kept = dict(identity), dict(checkpoint.method)
    kept["arguments"] = present_arguments(kept["kind"], kept["arguments"])
    frozen = identity.pop("frozen", {})
    frozen_then = kept.pop("frozen", frozen)  # older checkpoints do not say
    if kept != identity:
        raise ValueError(f"{path} belongs to another method: {kept}, not {identity}. {ADVICE}")
    changed = sorted(name for name in frozen | frozen_then if frozen.get(name) != frozen_then.get(name))
    if changed:
        raise ValueError(f"{path} was made with other frozen parts: {', '.join(changed)}. {ADVICE}")
    changed = config.must_match(checkpoint.config)
    if changed:
        raise ValueError(f"{path} was made with other settings ({', '.join(changed)}). {ADVICE}")
    if None not in (origin, checkpoint.origin) and origin != checkpoint.origin:
        raise ValueError(
            f"{path} began with other weights, of an earlier stage or of starts_from, which were trained further or "
            f"anew since. Delete {path.parent} to train this stage again, or restart (--restart) to train all of them."
        )


def require_same_circumstances(path: Path, checkpoint: Checkpoint, *, data: str | None, processes: int) -> None:
    """Check that the data and the number of processes are those of a checkpoint that says them; or a ValueError."""
    changes = []
    if None not in (data, checkpoint.data) and data != checkpoint.data:
        changes.append(f"other training data ({checkpoint.data}; now {data})")
    if checkpoint.processes not in (None, processes):
        changes.append(f"another number of processes ({checkpoint.processes}; now {processes})")
    if changes:
        raise ValueError(
            f"{path} was made with {' and '.join(changes)}. Give the run what it had, choose another output folder, or "
            "accept the changes (--accept-changes) to go on with a result that the run would not have had"
        )
