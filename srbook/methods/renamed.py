"""Arguments that methods once had under other names: checkpoints written then are read with the present ones."""

from copy import deepcopy
from typing import Any

# Of each method, former names and the present ones, where a dot leads into a dict.
RENAMED: dict[str, dict[str, str]] = {
    "regression": {"loss": "distance", "network.features": "network.width"},
    "sr3": {"level_uniform_in": "uniform_in"},
    "srdiff": {"steps": "schedule.steps", "encoder.features": "encoder.width"},
    "ecdp": {"anchor": "kernel", "features": "quality_features", "encoder.features": "encoder.width"},
}


def present_arguments(kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a stored method of any version under their present names; `arguments` stay unchanged."""
    present = deepcopy(arguments)
    for former, name in RENAMED.get(kind, {}).items():
        holder, key = _place(present, former)
        if key in holder:
            value = holder.pop(key)
            holder, key = _place(present, name)
            holder[key] = value
    if kind == "sr3" and present.get("clock") == "level":
        present["clock"] = "signal"
    if kind == "esrdf" and present.get("entropy") == {}:
        present["entropy"] = None  # said the same
    return present


def _place(arguments: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    outer, _, key = name.rpartition(".")
    return (arguments.setdefault(outer, {}) if outer else arguments), key
